//! The keys to a storage: made afresh, configured, or read from the file that is kept beside its data.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{EngineType, StorageConfig, StorageKind};
use crate::error::{Context, Error, Result};
use crate::files::{self, Access};

/// What SeBS writes where an engine asks for no keys.
pub(super) const NO_KEY: &str = "None";

/// An access key id and its secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// What stands in the file beside a folder of data.
#[derive(Serialize, Deserialize)]
pub(super) struct KeyFile {
    schema_version: u32,
    #[serde(rename = "type")]
    pub(super) engine: EngineType,
    access_key: String,
    secret_key: String,
}

impl Keys {
    /// Random ones, as long as MinIO takes them.
    pub(super) fn fresh() -> Keys {
        Keys { access_key: files::random_hex(16), secret_key: files::random_hex(40) }
    }

    /// Those of an engine that asks for none.
    fn none() -> Keys {
        Keys { access_key: NO_KEY.to_string(), secret_key: NO_KEY.to_string() }
    }

    /// Those that are configured, or that an engine which asks for none has; `None`: they are to be made or read.
    ///
    /// # Errors
    /// A usage error: one is configured without the other, or MinIO would refuse them.
    pub(super) fn configured(config: &StorageConfig) -> Result<Option<Keys>> {
        if config.engine.kind() == Some(StorageKind::Nosql) {
            return Ok(Some(Keys::none()));
        }
        let (access_key, secret_key) = match (&config.access_key, &config.secret_key) {
            (None, None) => return Ok(None),
            (Some(access_key), Some(secret_key)) => (access_key.clone(), secret_key.clone()),
            _ => {
                return Err(Error::usage(
                    "`access_key` and `secret_key` belong together: configure both or neither",
                ));
            }
        };
        let fits = (3..=20).contains(&access_key.len()) && (8..=40).contains(&secret_key.len());
        if config.engine == EngineType::Minio && !fits {
            return Err(Error::usage(
                "MinIO takes an `access_key` of 3 to 20 characters and a `secret_key` of 8 to 40",
            ));
        }
        Ok(Some(Keys { access_key, secret_key }))
    }

    /// The text without the secret, which may be in what a server printed.
    pub(super) fn strike_out(&self, text: &str) -> String {
        if self.secret_key == NO_KEY { text.to_string() } else { text.replace(&self.secret_key, "***") }
    }
}

impl KeyFile {
    /// Where it is: beside the folder, not in it, where a server might serve it.
    pub(super) fn path(folder: &Path) -> PathBuf {
        let mut name = folder.file_name().unwrap_or_default().to_os_string();
        name.push(".keys.json");
        folder.with_file_name(name)
    }

    /// The one beside a folder; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read, or is none of ours.
    pub(super) fn read(folder: &Path) -> Result<Option<KeyFile>> {
        let path = KeyFile::path(folder);
        let file = match files::read_json::<KeyFile>(&path) {
            Err(error) if error.is_not_found() => return Ok(None),
            read => read.context(|| "failed to read the keys to the storage".to_string())?,
        };
        let about = || format!("failed to look at `{}`", path.display());
        let mode = fs::metadata(&path).context(about)?.permissions().mode();
        if mode & 0o077 != 0 {
            log::warn!("`{}` holds keys and could be read by others: it is closed to them", path.display());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .context(|| format!("failed to close `{}` to others", path.display()))?;
        }
        Ok(Some(file))
    }

    /// Writes it.
    pub(super) fn write(folder: &Path, engine: EngineType, keys: &Keys) -> Result<()> {
        let Keys { access_key, secret_key } = keys.clone();
        let file = KeyFile { schema_version: 1, engine, access_key, secret_key };
        let text = format!("{:#}\n", serde_json::json!(file));
        files::write(&KeyFile::path(folder), text.as_bytes(), Access::Owner)
    }

    /// The keys in it.
    pub(super) fn keys(&self) -> Keys {
        Keys { access_key: self.access_key.clone(), secret_key: self.secret_key.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_keys_differ_and_are_as_long_as_minio_takes_them() {
        let (one, two) = (Keys::fresh(), Keys::fresh());
        assert!(one != two);
        let config = StorageConfig {
            access_key: Some(one.access_key.clone()),
            secret_key: Some(one.secret_key.clone()),
            ..StorageConfig::of(EngineType::Minio)
        };
        assert_eq!(Keys::configured(&config).unwrap(), Some(one.clone()));
        assert!(!format!("{one:?}").contains(&one.secret_key));
        assert_eq!(one.strike_out(&format!("it is {}!", one.secret_key)), "it is ***!");
    }

    #[test]
    fn half_a_pair_and_what_minio_refuses_are_usage_errors() {
        let config = StorageConfig { access_key: Some("who".into()), ..StorageConfig::of(EngineType::Minio) };
        assert!(Keys::configured(&config).unwrap_err().to_string().contains("both or neither"));
        let config = StorageConfig { secret_key: Some("short".into()), ..config };
        let error = Keys::configured(&config).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("8 to 40"), "{error}");
        let other = StorageConfig { engine: EngineType::SeaweedFs, ..config };
        assert!(Keys::configured(&other).unwrap().is_some());
        let tables = StorageConfig::of(EngineType::Dynoxide);
        assert_eq!(Keys::configured(&tables).unwrap().unwrap().secret_key, "None");
    }

    #[test]
    fn the_file_stands_beside_the_folder_and_is_its_owners_alone() {
        let folder = files::TempFolder::create().unwrap();
        let data = folder.path().join("minio-volume");
        assert!(KeyFile::read(&data).unwrap().is_none());
        let keys = Keys::fresh();
        KeyFile::write(&data, EngineType::Minio, &keys).unwrap();
        let path = folder.path().join("minio-volume.keys.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let file = KeyFile::read(&data).unwrap().unwrap();
        assert_eq!((file.engine, file.keys()), (EngineType::Minio, keys));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
