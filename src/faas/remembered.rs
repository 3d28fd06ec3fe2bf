//! The storage that an earlier command kept for later ones: where it is stands in the cache, its keys in a file of its own.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::docker::Engine;
use crate::error::Result;
use crate::files;
use crate::storage::{StorageConfig, StorageFile, StorageKind, StorageRecord};

/// A storage that was kept, by what the cache says of it.
#[derive(Debug)]
pub(super) struct Remembered {
    /// Its container.
    pub(super) instance_id: String,
    /// The file that has its keys, and stops it.
    pub(super) file: PathBuf,
}

/// A storage that is being started, to be kept. Its file is there before its container is, so that what a killed command
/// made is found by it; dropped before it is [noted](PlannedStorage::note), the file goes.
#[derive(Debug)]
pub(super) struct PlannedStorage {
    kind: StorageKind,
    /// As the cache names it.
    file: PathBuf,
    record: StorageRecord,
}

/// The key of a kind of storage among a platform's resources, as SeBS has it.
fn key(kind: StorageKind) -> &'static str {
    match kind {
        StorageKind::Object => "storage",
        StorageKind::Nosql => "nosql",
    }
}

/// A file for a storage that is about to be started and kept. Each has its own: the file of one that still runs must not
/// be lost.
fn file_for(cache: &Cache, kind: StorageKind) -> PathBuf {
    cache.root().join(format!("{}{}.json", prefix(kind), files::random_hex(8)))
}

/// How the names of these files begin.
fn prefix(kind: StorageKind) -> String {
    format!("storage-{kind}-")
}

fn content(kind: StorageKind, config: &StorageConfig) -> StorageFile {
    let mut content = StorageFile::default();
    *content.place(kind) = Some(config.clone());
    content
}

impl PlannedStorage {
    /// Writes how the storage is to be started.
    pub(super) fn write(cache: &Cache, kind: StorageKind, config: &StorageConfig) -> Result<PlannedStorage> {
        let file = file_for(cache, kind);
        let mut record = StorageRecord::claim(&file)?;
        let planned =
            StorageConfig { address: None, host_address: None, instance_id: None, ..config.clone() };
        record.write(&content(kind, &planned))?;
        Ok(PlannedStorage { kind, file, record })
    }

    /// Its file, as labels have it.
    pub(super) fn path(&self) -> &Path {
        self.record.path()
    }

    /// Writes where the storage runs, and notes all but the keys in the cache.
    pub(super) fn note(mut self, cache: &Cache, platform: &str, config: &StorageConfig) -> Result<()> {
        self.record.write(&content(self.kind, config))?;
        let mut noted = config.without_secrets();
        if let Value::Object(noted) = &mut noted {
            noted.retain(|name, _| name != "secret_key" && name != "access_key");
            // As of code packages, so that the cache may be moved.
            let name = self.file.strip_prefix(cache.root()).unwrap_or(&self.file);
            noted.insert("file".to_string(), json!(name));
        }
        cache.change_resources(platform, |resources| {
            resources.insert(key(self.kind).to_string(), noted);
        })?;
        self.record.confirm();
        Ok(())
    }
}

/// Removes what killed commands made of storage that was to be kept, with the files that no storage came to stand in.
pub(super) fn clear_abandoned(engine: &Engine, cache: &Cache, kind: StorageKind) -> Result<()> {
    for path in files::list(cache.root())? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(&prefix(kind)) || !name.ends_with(".json") || !is_planned(&path, kind) {
            continue;
        }
        let record = match StorageRecord::claim(&path) {
            // A living command is about to start it.
            Err(error) if error.is_conflict() => continue,
            claimed => claimed?,
        };
        // It may have been started meanwhile.
        if !is_planned(&path, kind) {
            continue;
        }
        log::info!("removing what a killed command left of {kind} storage that was to be kept");
        let shutdown = record.stop(&[kind], false, engine)?;
        log::debug!("removed {:?}", shutdown.left_behind);
        let failures = shutdown.failures.iter().map(ToString::to_string);
        let left: Vec<String> = shutdown.warnings.iter().cloned().chain(failures).collect();
        left.iter().for_each(|why| log::warn!("{why}"));
        if left.is_empty() {
            files::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Is that the file of a storage which was yet to be started?
fn is_planned(path: &Path, kind: StorageKind) -> bool {
    let is_to_be = |config: &StorageConfig| config.instance_id.is_none() && !config.is_running();
    StorageFile::read(path).is_ok_and(|content| content.of(kind).is_some_and(is_to_be))
}

impl Remembered {
    /// What the cache knows; `None`: nothing of a storage that was kept.
    pub(super) fn read(cache: &Cache, platform: &str, kind: StorageKind) -> Result<Option<Remembered>> {
        #[derive(Deserialize)]
        struct Record {
            instance_id: String,
            file: PathBuf,
        }
        let found = cache.resources(platform)?.remove(key(kind));
        let record = found.and_then(|value| Record::deserialize(value).ok());
        Ok(record
            .map(|Record { instance_id, file }| Remembered { instance_id, file: cache.root().join(file) }))
    }

    /// Where it is and the keys to it, if its container runs; else why it cannot be used.
    pub(super) fn look_up(
        &self,
        engine: &Engine,
        kind: StorageKind,
    ) -> Result<std::result::Result<StorageConfig, String>> {
        let config = match StorageFile::read(&self.file) {
            Ok(content) => content.of(kind).cloned(),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let is_it = |config: &StorageConfig| config.instance_id.as_ref() == Some(&self.instance_id);
        let Some(config) = config.filter(is_it) else {
            return Ok(Err(format!("`{}` is of another storage", self.file.display())));
        };
        match engine.inspect_container(&self.instance_id) {
            Ok(found) if found.state.running => Ok(Ok(config)),
            Ok(_) => Ok(Err(format!(
                "its container does not run (`sebs-lite storage stop all {}` removes it)",
                self.file.display()
            ))),
            Err(error) if error.is_not_found() => {
                files::remove_file(&self.file)?;
                Ok(Err("its container was removed".to_string()))
            }
            Err(error) => Err(error),
        }
    }

    /// Has the cache forget it, if it has not noted another meanwhile.
    pub(super) fn forget(&self, cache: &Cache, platform: &str, kind: StorageKind) -> Result<()> {
        cache.change_resources(platform, |resources| {
            let noted = resources.get(key(kind)).and_then(|record| record["instance_id"].as_str());
            if noted == Some(&self.instance_id) {
                resources.remove(key(kind));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cancel::Cancel;
    use crate::files::TempFolder;
    use crate::storage::EngineType;

    #[test]
    fn the_cache_has_all_but_the_keys_and_forgets_only_what_it_noted() {
        let folder = TempFolder::create().unwrap();
        let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
        let kind = StorageKind::Object;
        assert!(Remembered::read(&cache, "local", kind).unwrap().is_none());
        let config = |id: &str| StorageConfig {
            address: Some("172.17.0.9:9000".into()),
            access_key: Some("who".into()),
            secret_key: Some("hush".into()),
            instance_id: Some(id.into()),
            ..StorageConfig::of(EngineType::SeaweedFs)
        };
        let plan = || PlannedStorage::write(&cache, kind, &config("earlier")).unwrap();
        let (first, second, third) = (plan(), plan(), plan());
        let third_file = third.path().to_path_buf();
        assert!(is_planned(&third_file, kind));
        drop(third);
        assert!(!third_file.exists());
        first.note(&cache, "local", &config("a")).unwrap();
        let a = Remembered::read(&cache, "local", kind).unwrap().unwrap();
        let first = &a.file;
        assert!(a.instance_id == "a" && !is_planned(first, kind));
        assert_eq!(first.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(StorageFile::read(first).unwrap().object, Some(config("a")));
        let text = files::read_text(&cache.root().join("local.json")).unwrap();
        assert!(
            text.contains("172.17.0.9:9000") && !text.contains("hush") && !text.contains("who"),
            "{text}"
        );

        let second_file = second.path().to_path_buf();
        assert!(&second_file != first);
        second.note(&cache, "local", &config("b")).unwrap();
        a.forget(&cache, "local", kind).unwrap();
        let b = Remembered::read(&cache, "local", kind).unwrap().unwrap();
        assert_eq!(files::canonical(&b.file).unwrap(), second_file);
        b.forget(&cache, "local", kind).unwrap();
        assert!(Remembered::read(&cache, "local", kind).unwrap().is_none());
    }
}
