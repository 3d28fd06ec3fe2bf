//! The interpreters of this host: found, and asked what they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::faas::Language;

/// What an interpreter says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HostInterpreter {
    /// Major and minor version of Python, major version of Node.js.
    #[serde(rename = "version")]
    pub numbers: Vec<u32>,
    /// The real file: neither a link, nor a shim, nor a virtual environment's copy.
    pub executable: PathBuf,
    /// The build, by its own words.
    pub build: String,
    /// The C library it runs with: `glibc 2.36`; empty if it cannot tell.
    pub libc: String,
    /// Where the modules are that it brings: Python's standard library, or files of Node.js.
    pub(super) folders: Vec<PathBuf>,
    /// The certificates that its TLS trusts.
    pub(super) certificates: Option<PathBuf>,
}

impl HostInterpreter {
    /// The version as functions ask for it: `3.11`, `20`.
    pub fn version(&self) -> String {
        let numbers: Vec<String> = self.numbers.iter().map(u32::to_string).collect();
        numbers.join(".")
    }
}

/// The interpreters of a language on this host, the one that people get by its plain name first, each asked only when
/// the one before did not fit.
pub fn host_interpreters(language: Language) -> impl Iterator<Item = HostInterpreter> {
    let mut seen: Vec<PathBuf> = Vec::new();
    candidates(language).into_iter().filter_map(move |path| {
        let interpreter = describe(language, &path)?;
        let is_new = !seen.contains(&interpreter.executable);
        seen.push(interpreter.executable.clone());
        is_new.then_some(interpreter)
    })
}

/// A Python of this host that is at least of version `minimum`.
///
/// # Errors
/// `is_not_found`: there is none; those that are too old are named.
pub fn host_python(minimum: (u32, u32)) -> Result<HostInterpreter> {
    let mut older = Vec::new();
    for interpreter in host_interpreters(Language::Python) {
        if interpreter.numbers >= vec![minimum.0, minimum.1] {
            return Ok(interpreter);
        }
        older.push(interpreter.version());
    }
    let found = if older.is_empty() { String::new() } else { format!(" (found: {})", older.join(", ")) };
    let text = format!("this host has no Python {}.{} or later{found}", minimum.0, minimum.1);
    Err(Error::with_kind(Kind::NotFound, text))
}

/// What the interpreter at `path` says of itself.
///
/// # Errors
/// `is_not_found`: it is not there, or is no interpreter of that language.
pub fn host_interpreter(language: Language, path: &Path) -> Result<HostInterpreter> {
    describe(language, path).ok_or_else(|| {
        Error::with_kind(Kind::NotFound, format!("`{}` is no {language} interpreter", path.display()))
    })
}

/// The files that may be an interpreter, best first, without repetition.
fn candidates(language: Language) -> Vec<PathBuf> {
    let mut names = match language {
        Language::Python => vec!["python3".to_string(), "python".to_string()],
        Language::Nodejs => vec!["node".to_string(), "nodejs".to_string()],
    };
    names.extend(language.versions().iter().rev().map(|version| match language {
        Language::Python => format!("python{version}"),
        Language::Nodejs => format!("node{version}"),
    }));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    folders.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    folders.extend(managed_folders(language));
    let mut found: Vec<PathBuf> = Vec::new();
    // The plain names of all folders come before the versioned ones.
    for name in &names {
        for folder in &folders {
            let path = folder.join(name);
            if path.is_file() && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// Where version managers keep interpreters that are not on the path.
fn managed_folders(language: Language) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let (variable, default) = match language {
        Language::Python => ("PYENV_ROOT", ".pyenv"),
        Language::Nodejs => ("NVM_DIR", ".nvm"),
    };
    let root = std::env::var_os(variable).map_or_else(|| home.join(default), PathBuf::from);
    let versions = match language {
        Language::Python => root.join("versions"),
        Language::Nodejs => root.join("versions/node"),
    };
    let entries = std::fs::read_dir(versions).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders
}

fn describe(language: Language, path: &Path) -> Option<HostInterpreter> {
    let mut command = Command::new(path);
    match language {
        // Isolated: neither the user's environment nor the current folder changes what is found.
        Language::Python => command.args(["-I", "-c", include_str!("python/describe.py")]),
        Language::Nodejs => {
            command.args(["-e", include_str!("nodejs/describe.js")]).env_remove("NODE_OPTIONS")
        }
    };
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let described = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    if described.is_none() {
        log::debug!("`{}` is no {language} interpreter that answers", path.display());
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_hosts_python_is_found_and_real() {
        let python = host_python((3, 7)).unwrap();
        assert!(!python.executable.is_symlink() && python.executable.is_file());
        assert!(python.version().starts_with("3.") && python.folders[0].join("os.py").is_file());
        assert_eq!(host_interpreter(Language::Python, &python.executable).unwrap(), python);
    }

    #[test]
    fn a_version_that_nobody_has_is_refused_with_those_there_are() {
        let error = host_python((99, 0)).unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("found: 3."), "{error}");
        assert!(host_interpreter(Language::Nodejs, Path::new("/bin/false")).unwrap_err().is_not_found());
    }
}
