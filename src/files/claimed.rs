//! A file that one command has to itself, and takes back what it wrote to unless that is confirmed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Access, Claim};
use crate::cancel::Cancel;
use crate::error::{Context, Error, Kind, Result};

/// A file that no other command of ours changes meanwhile, readable by its owner alone. What was written to it is taken
/// back when this is dropped, until it is [confirmed](ClaimedFile::confirm).
#[derive(Debug)]
pub(crate) struct ClaimedFile {
    path: PathBuf,
    /// `None` where there can be none, as in a folder that may only be read.
    _claim: Option<Claim>,
    /// What stood in the file, as long as that is to come back.
    previous: Option<Vec<u8>>,
    is_to_be_taken_back: bool,
}

impl ClaimedFile {
    /// For a file that is to be written: the folder is made where it is not there. `commands` names those that may be at
    /// work on it.
    ///
    /// # Errors
    /// `is_conflict` where another command has the file; `is_usage` where the path can be none of a file.
    pub(crate) fn claim(path: &Path, commands: &str) -> Result<ClaimedFile> {
        let path = resolve(path)?;
        if path.to_str().is_none() {
            let text = format!("`{}` is not UTF-8, and labels and JSON have to hold it", path.display());
            return Err(Error::usage(text));
        }
        if path.exists() && !path.is_file() {
            return Err(Error::usage(format!(
                "`{}` is there and is no file: choose another",
                path.display()
            )));
        }
        let claimed = super::try_claim(&claim_path(&path));
        match claimed.context(|| format!("failed to keep `{}` from other commands", path.display()))? {
            Some(claim) => Ok(ClaimedFile::new(path, Some(claim))),
            None => {
                let text = format!("another {commands} is at work on `{}`", path.display());
                Err(Error::with_kind(Kind::Conflict, text))
            }
        }
    }

    /// For a file that is there: waits until no other command has it.
    ///
    /// # Errors
    /// `is_not_found` where there is no such file, or `is_cancelled`.
    pub(crate) fn open(path: &Path, cancel: &Cancel) -> Result<ClaimedFile> {
        let path = super::canonical(path)?;
        let mut has_told = false;
        loop {
            cancel.check()?;
            match super::try_claim(&claim_path(&path)) {
                Ok(Some(claim)) => return Ok(ClaimedFile::new(path, Some(claim))),
                Ok(None) => {}
                Err(error) => {
                    // That must not keep what runs from being stopped.
                    log::warn!("{error}: nothing keeps other commands from `{}`", path.display());
                    return Ok(ClaimedFile::new(path, None));
                }
            }
            if !has_told {
                log::info!("waiting for another command that is at work on `{}`", path.display());
                has_told = true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn new(path: PathBuf, claim: Option<Claim>) -> ClaimedFile {
        ClaimedFile { path, _claim: claim, previous: None, is_to_be_taken_back: false }
    }

    /// Where it is: absolute, and as labels have it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Says what is to stand in the file again if what is written is taken back; else the file is removed then.
    pub(crate) fn restore_later(&mut self, previous: Vec<u8>) {
        self.previous = Some(previous);
    }

    /// Has `write` write the file at this path.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn write_with(&mut self, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.is_to_be_taken_back = true;
        write(&self.path)
    }

    /// Lets what was written stay.
    pub(crate) fn confirm(mut self) {
        self.is_to_be_taken_back = false;
    }
}

impl Drop for ClaimedFile {
    fn drop(&mut self) {
        if !self.is_to_be_taken_back {
            return;
        }
        let done = match &self.previous {
            Some(previous) => super::write(&self.path, previous, Access::Owner),
            None => super::remove_file(&self.path),
        };
        if let Err(error) = done {
            log::warn!("{error}");
        }
    }
}

/// The absolute path of a file that need not be there.
fn resolve(path: &Path) -> Result<PathBuf> {
    if let Ok(there) = fs::canonicalize(path) {
        return Ok(there);
    }
    let name = path.file_name();
    let name = name.ok_or_else(|| Error::usage(format!("`{}` names no file", path.display())))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    super::create_folder(folder)?;
    Ok(super::canonical(folder)?.join(name))
}

fn claim_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.lock"))
}
