//! The hash of a code package: SHA-256 over everything that goes into its build.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::layout::SourceFile;
use super::wrappers::Wrapper;
use crate::error::Result;
use crate::faas::{Architecture, Runtime};
use crate::files;

/// Changed whenever packages of the same sources come out differently, so that old ones are not used any more.
const LAYOUT: &str = "sebs-lite code package 1";

/// Everything that goes into a build.
pub(super) struct Ingredients<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) architecture: Architecture,
    /// Id of the runtime image, which brings the interpreter that installs and compiles.
    pub(super) image_id: &'a str,
    /// Code, templates, resources, requirement files and build scripts, sorted by path.
    pub(super) sources: &'a [SourceFile],
    pub(super) wrappers: &'a [Wrapper],
}

impl Ingredients<'_> {
    /// 64 hexadecimal digits.
    ///
    /// Of a file's mode only "may it be executed" counts: that is all that a function can see of it, while the other
    /// bits follow the umask of whoever cloned the repository. Times do not count.
    pub(super) fn hash(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let runtime = self.runtime;
        for word in [
            LAYOUT,
            runtime.language.name(),
            &runtime.version,
            &runtime.variant,
            self.architecture.name(),
            self.image_id,
        ] {
            add(&mut hash, word.as_bytes());
        }
        for source in self.sources {
            add_file(&mut hash, &source.path, source.is_executable, &files::read_bytes(&source.file)?);
        }
        add(&mut hash, b"wrappers");
        for wrapper in self.wrappers {
            add_file(&mut hash, Path::new(wrapper.name), false, wrapper.content.as_bytes());
        }
        Ok(crate::units::hexadecimal(&hash.finalize()))
    }
}

fn add_file(hash: &mut Sha256, path: &Path, is_executable: bool, content: &[u8]) {
    add(hash, path.as_os_str().as_encoded_bytes());
    add(hash, if is_executable { b"x" } else { b"-" });
    add(hash, content);
}

/// Each part goes in behind its length, so that no two lists of parts look the same.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::benchmark::layout;
    use crate::faas::Language;
    use crate::files::{Access, TempFolder};

    #[test]
    fn the_hash_changes_with_each_ingredient_and_with_nothing_else() {
        let folder = TempFolder::create().unwrap();
        let file = folder.path().join("a/function.py");
        files::write(&file, b"1", Access::Everyone).unwrap();
        let runtime = Runtime {
            language: Language::Python,
            version: "3.11".to_string(),
            variant: "default".to_string(),
        };
        let hash = |runtime: &Runtime, architecture, image_id: &str| {
            let sources = layout::collect(folder.path()).unwrap();
            let ingredients =
                |wrappers| Ingredients { runtime, architecture, image_id, sources: &sources, wrappers };
            let others = &[Wrapper { name: "storage.py", content: "other" }];
            let [hash, other] = [&[], others as &[_]].map(|wrappers| ingredients(wrappers).hash().unwrap());
            assert_ne!(hash, other);
            hash
        };
        let first = hash(&runtime, Architecture::X64, "sha256:1");
        assert_eq!(first.len(), 64);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(hash(&runtime, Architecture::X64, "sha256:1"), first);
        let newer = Runtime { version: "3.12".to_string(), ..runtime.clone() };
        let variant = Runtime { variant: "fast".to_string(), ..runtime.clone() };
        let mut hashes = vec![
            first,
            hash(&newer, Architecture::X64, "sha256:1"),
            hash(&variant, Architecture::X64, "sha256:1"),
            hash(&runtime, Architecture::Arm64, "sha256:1"),
            hash(&runtime, Architecture::X64, "sha256:2"),
        ];
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        hashes.push(hash(&runtime, Architecture::X64, "sha256:1"));
        files::write(&file, b"2", Access::Everyone).unwrap();
        hashes.push(hash(&runtime, Architecture::X64, "sha256:1"));
        fs::rename(&file, file.with_file_name("other.py")).unwrap();
        hashes.push(hash(&runtime, Architecture::X64, "sha256:1"));
        let count = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}
