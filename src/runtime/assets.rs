//! What goes into a runtime image: the function server, its Dockerfile, and the labels that say what it is.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use crate::faas::Language;
use crate::units;

/// The label whose value is the hash of what we put into an image.
pub(crate) const SERVER_LABEL: &str = "server";

/// Raised when images are made in another way from the same files.
const MAKING: &str = "1";

/// The function server of a language: file name and content, in `/sebs`.
pub(super) fn server_files(language: Language) -> Vec<(&'static str, &'static str)> {
    match language {
        Language::Python => vec![
            ("run_server.sh", include_str!("python/run_server.sh")),
            ("server.py", include_str!("python/server.py")),
        ],
        Language::Nodejs => vec![
            ("run_server.sh", include_str!("nodejs/run_server.sh")),
            ("server.js", include_str!("nodejs/server.js")),
        ],
    }
}

fn dockerfile(language: Language) -> &'static str {
    match language {
        Language::Python => include_str!("python/Dockerfile"),
        Language::Nodejs => include_str!("nodejs/Dockerfile"),
    }
}

/// SHA-256 of all that we put into an image of a language, as hexadecimal digits.
pub(super) fn server_hash(language: Language) -> String {
    let mut hasher = Sha256::new();
    let mut files = server_files(language);
    files.push(("Dockerfile", dockerfile(language)));
    files.push(("making", MAKING));
    for (name, content) in files {
        // The length in front keeps a name from running into the content.
        for part in [name, content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    units::hexadecimal(&hasher.finalize())
}

/// What an image of ours says of itself.
pub(super) type Labels = BTreeMap<String, String>;

/// What an image is given as it is imported, as lines of a Dockerfile.
pub(super) fn image_changes(labels: &Labels) -> Vec<String> {
    let mut changes = vec![
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string(),
        "ENV LANG=C.UTF-8".to_string(),
        "WORKDIR /function".to_string(),
    ];
    changes.extend(labels.iter().map(|(name, value)| format!("LABEL {name}={}", quoted(value))));
    changes
}

/// A value in the Dockerfile's quotes, in which `\`, `"` and `$` are special.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars().filter(|c| !c.is_control()) {
        if matches!(c, '\\' | '"' | '$') {
            text.push('\\');
        }
        text.push(c);
    }
    text + "\""
}

/// The archive that the engine builds an image of a language from.
pub(super) fn build_context(language: Language) -> Result<Vec<u8>> {
    let mut files = server_files(language);
    files.push(("Dockerfile", dockerfile(language)));
    archive(&files)
}

/// The archive that only adds labels, which the engine takes beside it, to an image.
pub(super) fn label_context(reference: &str) -> Result<Vec<u8>> {
    archive(&[("Dockerfile", &format!("FROM {reference}\n"))])
}

fn archive(files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let about = || "failed to archive a build context".to_string();
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content.as_bytes()).context(about)?;
    }
    archive.into_inner().context(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_one_language_and_the_same_each_time() {
        assert_eq!(server_hash(Language::Python), server_hash(Language::Python));
        assert_ne!(server_hash(Language::Python), server_hash(Language::Nodejs));
        assert_eq!(server_hash(Language::Python).len(), 64);
    }

    #[test]
    fn labels_are_quoted_for_the_engine() {
        let labels = Labels::from([("build".to_string(), "3.11 \"x\" $HOME \\ \n".to_string())]);
        assert_eq!(image_changes(&labels).last().unwrap(), r#"LABEL build="3.11 \"x\" \$HOME \\ ""#);
    }
}
