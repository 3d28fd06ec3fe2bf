//! The file by which storage that outlives its command is found and stopped, while one command has it to itself.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::engine::{self, StorageConfig, StorageEnd, StorageFile, StorageKind};
use crate::cancel::Cancel;
use crate::clock;
use crate::docker::{Engine, Leftovers, containers_of};
use crate::error::{Context, Error, Kind, Result};
use crate::files::{self, Access, ClaimedFile};

/// When all of it had been stopped; a key of the file beside the kinds.
const STOPPED_AT: &str = "stopped_at";

/// A file that says where storage runs, which no other command of ours changes meanwhile. What was written to it is taken
/// back when this is dropped, until it is [confirmed](StorageRecord::confirm).
#[derive(Debug)]
pub struct StorageRecord(ClaimedFile);

/// What became of a storage that was to be stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoppedStorage {
    /// Which kind.
    pub kind: StorageKind,
    /// The engine's name.
    #[serde(rename = "type")]
    pub engine: &'static str,
    /// Its container's id; `None`: it is not known.
    pub instance_id: Option<String>,
    /// What became of it; `None`: it could not be stopped.
    pub end: Option<StorageEnd>,
}

/// What became of all that was to be stopped.
#[derive(Debug, Default)]
pub struct StorageShutdown {
    /// Each storage.
    pub storage: Vec<StoppedStorage>,
    /// Names of what was made for the file, but that it did not name; they are gone.
    pub left_behind: Vec<String>,
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
    /// What could not be done; all else was.
    pub failures: Vec<Error>,
}

impl StoppedStorage {
    /// Stops a storage as [`engine::stop`] does, and says what became of it whether or not that failed.
    pub(crate) fn stop(
        engine: &Engine,
        kind: StorageKind,
        config: &StorageConfig,
        removes_volume: bool,
    ) -> (StoppedStorage, Option<Error>) {
        let is_planned = !config.engine.is_external() && config.instance_id.is_none() && !config.is_running();
        let stopped = match is_planned {
            true => Ok(StorageEnd::Gone),
            false => engine::stop(engine, config, removes_volume),
        };
        let (end, failure) = match stopped {
            Ok(end) => (Some(end), None),
            Err(error) => (None, Some(error.context(format!("failed to stop the {kind} storage")))),
        };
        let (engine, instance_id) = (config.engine.name(), config.instance_id.clone());
        (StoppedStorage { kind, engine, instance_id, end }, failure)
    }
}

impl StorageRecord {
    /// For storage that is to be started: the folder is made where it is not there.
    ///
    /// # Errors
    /// `is_conflict` where another command has the file; `is_usage` where the path can be none of a file.
    pub fn claim(path: &Path) -> Result<StorageRecord> {
        ClaimedFile::claim(path, "`storage start` or `storage stop`").map(StorageRecord)
    }

    /// For storage that was started: waits until no other command has the file.
    ///
    /// # Errors
    /// `is_not_found` where there is no such file, or `is_cancelled`.
    pub fn open(path: &Path, cancel: &Cancel) -> Result<StorageRecord> {
        ClaimedFile::open(path, cancel).map(StorageRecord)
    }

    /// Where it is: absolute, and as the labels of what was started have it.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Sees that nothing is lost when the file is written: there is none, or one of storage that does not run any more.
    ///
    /// # Errors
    /// `is_usage` where it is another file, `is_conflict` where its storage still runs.
    pub fn make_free(&mut self, engine: &Engine) -> Result<()> {
        let running = containers_of(self.path(), engine)?.into_iter().find(|found| found.state == "running");
        let name = running.map(|found| found.names.into_iter().next().unwrap_or(found.id));
        if !self.path().exists() {
            if let Some(name) = name {
                // `storage stop` of the file that is to be written would leave it alone, too.
                log::warn!(
                    "container `{name}` belongs to earlier storage of `{}`, whose file is gone (`docker rm -f {name}` \
                     removes it)",
                    self.path().display()
                );
            }
            return Ok(());
        }
        let previous = files::read_bytes(self.path())?;
        let storage = self.earlier_storage(&previous)?;
        if let Some(name) = name {
            return Err(self.still_runs(&name));
        }
        for (_, config) in storage.kinds() {
            if let Some(id) = &config.instance_id {
                match engine.inspect_container(id) {
                    Ok(found) if found.state.running => return Err(self.still_runs(&found.name)),
                    // One that has ended is replaced, with what was made for it alone.
                    Ok(_) => drop(engine::stop(engine, config, false)?),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.0.restore_later(previous);
        Ok(())
    }

    fn earlier_storage(&self, content: &[u8]) -> Result<StorageFile> {
        let shown = self.path().display();
        let other = || {
            Error::usage(format!(
                "nothing is overwritten but a file that `storage start` wrote: `{shown}` is another"
            ))
        };
        let value: Value = serde_json::from_slice(content).map_err(|_| other())?;
        let storage = StorageFile::from_value(&value).map_err(|_| other())?;
        let was_started = storage.kinds().any(|(_, config)| config.instance_id.is_some());
        // All our files say their version, those of results and of deployments, too: but only ours of storage has kinds.
        let is_planned = value.get("schema_version").is_some() && storage != StorageFile::default();
        if was_started || is_planned { Ok(storage) } else { Err(other()) }
    }

    fn still_runs(&self, container: &str) -> Error {
        let shown = self.path().display();
        let text = format!(
            "the storage of `{shown}` still runs (container `{container}`): stop it first with `sebs-lite storage stop all \
             {shown}`, or choose another --output-json"
        );
        Error::with_kind(Kind::Conflict, text)
    }

    /// Writes what there is of the storage so far; a kind that is not running is one that is to be started.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, storage: &StorageFile) -> Result<()> {
        self.0.write_with(|path| storage.write(path))
    }

    /// Lets what was written stay.
    pub fn confirm(self) {
        self.0.confirm();
    }

    /// Stops storage of some kinds, whatever becomes of the other; doing it twice does no harm. The file stays, and says
    /// no more where it is.
    ///
    /// Stopping is clean-up: the engine's own cancel token is not looked at.
    ///
    /// # Errors
    /// The file is not of storage, or says nothing of these kinds.
    pub fn stop(
        &self,
        kinds: &[StorageKind],
        removes_volume: bool,
        engine: &Engine,
    ) -> Result<StorageShutdown> {
        let storage = StorageFile::read(self.path())?;
        if !storage.kinds().any(|(kind, _)| kinds.contains(&kind)) {
            let (shown, kinds) = (self.path().display(), kinds.iter().map(|kind| kind.name()));
            let kinds = kinds.collect::<Vec<_>>().join(" or ");
            return Err(Error::usage(format!("`{shown}` says nothing of {kinds} storage")));
        }
        let engine = &engine.without_cancel();
        let mut shutdown = StorageShutdown::default();
        for (kind, config) in storage.kinds().filter(|(kind, _)| kinds.contains(kind)) {
            let (stopped, failure) = StoppedStorage::stop(engine, kind, config, removes_volume);
            shutdown.failures.extend(failure);
            shutdown.storage.push(stopped);
        }
        self.remove_left_behind(engine, &storage, &mut shutdown);
        let gone = shutdown.storage.iter().filter(|stopped| {
            matches!(stopped.end, Some(StorageEnd::Removed | StorageEnd::Stopped | StorageEnd::Gone))
        });
        let gone: Vec<StorageKind> = gone.map(|stopped| stopped.kind).collect();
        let is_all = shutdown.failures.is_empty() && storage.kinds().all(|(kind, _)| gone.contains(&kind));
        let noted = change(self.path(), |value| {
            gone.iter().for_each(|kind| forget_address(value, *kind));
            if is_all {
                value.entry(STOPPED_AT).or_insert_with(|| json!(clock::timestamp()));
            }
        });
        shutdown.failures.extend(noted.err());
        Ok(shutdown)
    }

    /// Removes what a killed `storage start` made, and did not come to name in its file.
    fn remove_left_behind(&self, engine: &Engine, storage: &StorageFile, shutdown: &mut StorageShutdown) {
        let is_started = |config: &StorageConfig| config.instance_id.is_some() || config.is_running();
        let is_whole = storage.kinds().all(|(_, config)| is_started(config));
        let was_stopped =
            files::read_json(self.path()).is_ok_and(|value: Value| value.get(STOPPED_AT).is_some());
        let leftovers = Leftovers {
            engine,
            file: self.path(),
            is_named: &|name| storage.kinds().any(|(_, config)| config.names(name)),
            is_whole,
            may_come: !is_whole && !was_stopped,
        };
        let cleared = leftovers.remove();
        shutdown.left_behind.extend(cleared.removed);
        shutdown.warnings.extend(cleared.warnings);
        shutdown.failures.extend(cleared.failures);
    }
}

/// Changes a file's JSON object, and leaves the rest of it as it is, be it ours or not.
fn change(path: &Path, change: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
    let about = || format!("failed to note in `{}` what runs", path.display());
    let mut value: Map<String, Value> = files::read_json(path).context(about)?;
    change(&mut value);
    let text = format!("{:#}\n", Value::Object(value));
    files::write(path, text.as_bytes(), Access::Owner)
}

/// Empties the address of one kind, which may stand below its type's name, beside it, or flat at the top.
fn forget_address(file: &mut Map<String, Value>, kind: StorageKind) {
    let config = match file.get_mut(kind.name()) {
        Some(Value::Object(config)) => config,
        Some(_) => return,
        None => file,
    };
    let engine = config.get("type").and_then(Value::as_str).unwrap_or_default().to_string();
    let config = match config.get(&engine) {
        Some(Value::Object(_)) => config.get_mut(&engine).and_then(Value::as_object_mut),
        _ => Some(config),
    };
    let Some(config) = config else { return };
    for key in ["address", "host_address"] {
        if let Some(address) = config.get_mut(key) {
            *address = json!("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_address_is_emptied_wherever_it_stands_and_nothing_else_changes() {
        let nested = json!({"object": {"type": "minio", "minio": {"address": "a:1", "x": 1}}, "nosql": {"type": "s",
            "s": {"address": "b:1"}}});
        let mut file = map(nested);
        forget_address(&mut file, StorageKind::Object);
        assert_eq!(
            Value::Object(file),
            json!({"object": {"type": "minio", "minio": {"address": "", "x": 1}}, "nosql": {"type": "s",
                "s": {"address": "b:1"}}})
        );
        for (flat, emptied) in [
            (json!({"type": "minio", "address": "a"}), json!({"type": "minio", "address": ""})),
            (json!({"object": {"address": "a"}}), json!({"object": {"address": ""}})),
            (json!({"object": 1}), json!({"object": 1})),
        ] {
            let mut file = map(flat);
            forget_address(&mut file, StorageKind::Object);
            assert_eq!(Value::Object(file), emptied);
        }
    }

    #[test]
    fn only_a_file_of_storage_that_was_started_may_be_overwritten() {
        let folder = TempFolder::create().unwrap();
        let record = StorageRecord::claim(&folder.path().join("s.json")).unwrap();
        let earlier = |text: &str| record.earlier_storage(text.as_bytes());
        assert!(earlier(r#"{"schema_version": 1, "object": {"type": "auto", "auto": {}}}"#).is_ok());
        assert!(earlier(r#"{"object": {"type": "minio", "minio": {"instance_id": "ab"}}}"#).is_ok());
        for other in [
            "",
            "hello",
            "{}",
            "[]",
            r#"{"object": {"type": "minio", "minio": {"mapped_port": 9011}}}"#,
            r#"{"schema_version": 1, "_invocations": {}, "config": {"deployment": {"name": "local"}}}"#,
            r#"{"schema_version": 1, "functions": [], "storage": {"type": "minio", "instance_id": "ab"}}"#,
        ] {
            let error = earlier(other).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("s.json"), "{error}");
        }
        assert!(StorageRecord::claim(&folder.path().join("s.json")).unwrap_err().is_conflict());
    }
}
