//! A folder of this host that holds the data of object storage, with the file of its keys beside it.

use std::fs;
use std::path::{Path, PathBuf};

use super::keys::{KeyFile, Keys};
use super::{EngineType, StorageConfig};
use crate::error::{Context, Error, Result};
use crate::files::{self, Claim};

/// A folder while storage is started on it; until it is kept, dropping this removes what was made.
#[derive(Debug)]
pub(super) struct DataFolder {
    /// Absolute, without links.
    pub(super) path: PathBuf,
    pub(super) keys: Keys,
    engine: EngineType,
    /// What is to be removed if the start fails.
    made: Made,
    /// Are the keys in the file others, from an earlier start?
    has_other_keys: bool,
    /// Nobody else starts storage on it meanwhile.
    _claim: Claim,
}

/// What was made by this start.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    folder: bool,
    /// The file of the keys, and so all that is in the folder, which was empty.
    keys: bool,
}

impl DataFolder {
    /// The folder that `path` names, made if it is not there, with its keys, made on its first use.
    ///
    /// # Errors
    /// A usage error: the path cannot be mounted, the data are of another engine or their keys are not known, or another
    /// process is at the same. Or something cannot be made.
    pub(super) fn claim(path: &Path, config: &StorageConfig) -> Result<DataFolder> {
        let path = absolute(path)?;
        let text = path.display().to_string();
        if text.contains(':') {
            return Err(Error::usage(format!(
                "the container engine cannot mount `{text}`: its path has a colon (choose another `data_volume`)"
            )));
        }
        if path.file_name().is_none() {
            return Err(Error::usage(format!(
                "`{text}` cannot be the `data_volume`: name a folder below it"
            )));
        }
        if path.is_file() {
            return Err(Error::usage(format!("`{text}` is a file: `data_volume` names a folder")));
        }
        let configured = Keys::configured(config)?;
        let Some(claim) = files::try_claim(&claim_path(&path))? else {
            return Err(Error::usage(format!("another process is starting storage on `{text}`")));
        };
        let is_missing = !path.exists();
        files::create_folder(&path)?;
        let mut folder = DataFolder {
            engine: config.engine,
            made: Made { folder: is_missing, keys: false },
            has_other_keys: false,
            keys: Keys::fresh(),
            path,
            _claim: claim,
        };
        folder.find_keys(configured)?;
        Ok(folder)
    }

    fn find_keys(&mut self, configured: Option<Keys>) -> Result<()> {
        let (path, engine) = (self.path.display(), self.engine);
        let kept = KeyFile::read(&self.path)?;
        if let Some(kept) = &kept
            && kept.engine != engine
        {
            let theirs = kept.engine;
            return Err(Error::usage(format!(
                "`{path}` holds data of `{theirs}`, not of `{engine}`: choose type `{theirs}`, or another `data_volume`"
            )));
        }
        let is_empty = files::list(&self.path)?.is_empty();
        self.keys = match (configured, &kept) {
            (Some(configured), _) => configured,
            (None, Some(kept)) => kept.keys(),
            (None, None) if is_empty => self.keys.clone(),
            (None, None) => {
                return Err(Error::usage(format!(
                    "`{path}` holds data, but the file with the keys to them, `{}`, is not there: configure their \
                     `access_key` and `secret_key`, or another `data_volume`",
                    KeyFile::path(&self.path).display()
                )));
            }
        };
        match kept {
            Some(kept) => self.has_other_keys = kept.keys() != self.keys,
            // The file says that all in the folder was made for storage: not so of what was there before.
            None if is_empty => {
                self.made.keys = true;
                KeyFile::write(&self.path, engine, &self.keys)?;
            }
            None => {}
        }
        Ok(())
    }

    /// How many bytes may still be written there, as far as is known.
    pub(super) fn free_bytes(path: &Path) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(path).ok()?;
        Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
    }

    /// Leaves all as it is, for a storage that runs.
    ///
    /// # Errors
    /// Keys that replace others cannot be written.
    pub(super) fn keep(mut self) -> Result<()> {
        if self.has_other_keys {
            KeyFile::write(&self.path, self.engine, &self.keys)?;
        }
        self.made = Made::default();
        Ok(())
    }

    fn undo(&self) -> Result<()> {
        if self.made.folder {
            files::remove_folder(&self.path)?;
        } else if self.made.keys {
            for path in files::list(&self.path)? {
                remove(&path)?;
            }
        }
        if self.made.keys { files::remove_file(&KeyFile::path(&self.path)) } else { Ok(()) }
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            log::warn!("{error}");
        }
    }
}

/// The engine whose data a folder holds, as far as we know of it.
///
/// # Errors
/// The file beside it cannot be read.
pub(super) fn engine_of(path: &Path) -> Result<Option<EngineType>> {
    let path = absolute(path)?;
    if path.file_name().is_none() {
        return Ok(None);
    }
    Ok(KeyFile::read(&path)?.map(|file| file.engine))
}

/// Removes a folder of data with its keys.
///
/// # Errors
/// A usage error: it is none of ours, since no keys of ours are beside it. Or it cannot be removed.
pub(super) fn remove_data(path: &Path) -> Result<()> {
    check_ours(path)?;
    files::remove_folder(path)?;
    files::remove_file(&KeyFile::path(path))
}

/// Says whether a folder may be removed with all in it; one that is gone may.
///
/// # Errors
/// A usage error: no keys of ours are beside it, or its path may mean another folder.
pub(super) fn check_ours(path: &Path) -> Result<()> {
    let text = path.display();
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(Error::usage(format!("`{text}` is not removed: it does not say which folder it is")));
    }
    if path.exists() && KeyFile::read(path)?.is_none() {
        return Err(Error::usage(format!(
            "`{text}` is not removed: no `{}` says that it was made for storage",
            KeyFile::path(path).display()
        )));
    }
    Ok(())
}

/// The path without links, of which the last part need not be there.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return files::canonical(path);
    }
    let about = || format!("failed to find `{}`", path.display());
    let path = std::path::absolute(path).context(about)?;
    match (path.parent().filter(|parent| parent.exists()), path.file_name()) {
        (Some(parent), Some(name)) => Ok(files::canonical(parent)?.join(name)),
        _ => Ok(path),
    }
}

/// The file that stands beside a folder as long as storage is started on it.
fn claim_path(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.starting"))
}

fn remove(path: &Path) -> Result<()> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    if is_folder { files::remove_folder(path) } else { files::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Access, TempFolder};

    fn minio() -> StorageConfig {
        StorageConfig::of(EngineType::Minio)
    }

    fn names(folder: &Path) -> Vec<String> {
        let list = files::list(folder).unwrap();
        list.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_string()).collect()
    }

    #[test]
    fn the_keys_are_made_once_and_found_again() {
        let temp = TempFolder::create().unwrap();
        let path = temp.path().join("data");
        let first = DataFolder::claim(&path, &minio()).unwrap();
        let keys = first.keys.clone();
        assert!(DataFolder::claim(&path, &minio()).unwrap_err().to_string().contains("another process"));
        first.keep().unwrap();
        assert_eq!(names(temp.path()), ["data", "data.keys.json"]);
        files::write(&path.join("object"), b"1", Access::Everyone).unwrap();
        let again = DataFolder::claim(&path, &minio()).unwrap();
        assert_eq!(again.keys, keys);
        drop(again);
        assert_eq!(names(&path), ["object"]);
        assert_eq!(engine_of(&path).unwrap(), Some(EngineType::Minio));
        let other = DataFolder::claim(&path, &StorageConfig::of(EngineType::SeaweedFs)).unwrap_err();
        assert!(other.is_usage() && other.to_string().contains("holds data of `minio`"), "{other}");

        let (access_key, secret_key) = (Some("another".to_string()), Some("hush-hush".to_string()));
        let configured = StorageConfig { access_key, secret_key, ..minio() };
        drop(DataFolder::claim(&path, &configured).unwrap());
        assert_eq!(DataFolder::claim(&path, &minio()).unwrap().keys, keys);
        DataFolder::claim(&path, &configured).unwrap().keep().unwrap();
        assert_eq!(DataFolder::claim(&path, &minio()).unwrap().keys.secret_key, "hush-hush");

        remove_data(&path).unwrap();
        assert_eq!(names(temp.path()), Vec::<String>::new());
        remove_data(&path).unwrap();
    }

    #[test]
    fn a_start_that_fails_leaves_nothing_that_it_made() {
        let temp = TempFolder::create().unwrap();
        let path = temp.path().join("data");
        let folder = DataFolder::claim(&path, &minio()).unwrap();
        files::write(&path.join("deep/object"), b"1", Access::Everyone).unwrap();
        drop(folder);
        assert_eq!(names(temp.path()), Vec::<String>::new());
        files::create_folder(&path).unwrap();
        let folder = DataFolder::claim(&path, &minio()).unwrap();
        files::write(&path.join("deep/object"), b"1", Access::Everyone).unwrap();
        drop(folder);
        assert_eq!(names(temp.path()), ["data"]);
        assert_eq!(names(&path), Vec::<String>::new());
    }

    #[test]
    fn data_of_unknown_keys_and_paths_that_cannot_be_mounted_are_usage_errors() {
        let temp = TempFolder::create().unwrap();
        let path = temp.path().join("data");
        files::write(&path.join("object"), b"1", Access::Everyone).unwrap();
        let error = DataFolder::claim(&path, &minio()).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("data.keys.json"), "{error}");
        let (access_key, secret_key) = (Some("known".to_string()), Some("hush-hush".to_string()));
        let configured = StorageConfig { access_key, secret_key, ..minio() };
        DataFolder::claim(&path, &configured).unwrap().keep().unwrap();
        // They are somebody's own, and stay so.
        assert!(remove_data(&path).unwrap_err().is_usage());
        assert!(remove_data(Path::new("data")).unwrap_err().is_usage());
        for (path, told) in [(temp.path().join("a:b"), "colon"), (path.join("object"), "is a file")] {
            let error = DataFolder::claim(&path, &minio()).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(told), "{error}");
        }
        assert!(DataFolder::claim(Path::new("/"), &minio()).unwrap_err().is_usage());
        assert_eq!(names(temp.path()), ["data"]);
    }
}
