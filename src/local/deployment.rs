//! `Deployment`: functions that outlive the command that started them, with all that a later one needs to stop them.

mod file;
mod shutdown;
mod status;
mod storage;

use std::fmt;
use std::path::Path;
use std::process::Child;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cancel::Cancel;
use crate::clock;
use crate::error::{Error, Result};
use crate::faas::Function;
use crate::files::{self, Access};
use crate::storage::StorageKind;

use super::measurement::{self, Measurement, MeasurementOptions, MemoryMeasurements, Ready, RecordingFormat};

pub use file::DeploymentFile;
pub use shutdown::{InstanceEnd, Shutdown, ShutdownRequest, StoppedInstance};
pub use status::{DeploymentStatus, InstanceStatus, MeasurementState, MeasurementStatus};

/// The version of the file's shape.
const SCHEMA_VERSION: u32 = 1;

/// Functions, the input to invoke them with, and the process that samples their memory; in a file, SeBS's keys and ours.
///
/// The containers are made by a [`Local`](super::Local) whose options name the file, and which then
/// [releases](super::Local::release) them.
#[derive(Default, Serialize, Deserialize)]
pub struct Deployment {
    /// Absent in SeBS's files.
    #[serde(default)]
    schema_version: Option<u32>,
    /// Each with its instances.
    pub functions: Vec<Function>,
    /// What to invoke them with, JSON objects as they were made.
    pub inputs: Vec<Box<RawValue>>,
    /// The network of the engine's that they were put on; absent: its default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The object storage that they use, with its keys; `None`: none.
    #[serde(default)]
    pub storage: Option<Value>,
    /// The tables that they use, with their keys; `None`: none.
    #[serde(default)]
    pub nosql: Option<Value>,
    /// The kinds of storage that were started for them, and that go with them; absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub started_storage: Vec<StorageKind>,
    /// How their memory is sampled; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_measurements: Option<MemoryMeasurements>,
    /// Are containers removed when they are stopped? Absent in SeBS's files, whose containers remove themselves if they are
    /// meant to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_containers: Option<bool>,
    /// When all of it had been started: RFC 3339, UTC; absent in SeBS's files, and where `local start` has not come that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it was stopped: RFC 3339, UTC; absent: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<String>,
    /// Processes of ours that sample, for us to collect when they have ended.
    #[serde(skip)]
    children: Vec<Child>,
}

impl fmt::Debug for Deployment {
    /// Without the storage, which has keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployment")
            .field("functions", &self.functions)
            .field("network", &self.network)
            .field("started_storage", &self.started_storage)
            .field("memory_measurements", &self.memory_measurements)
            .field("started_at", &self.started_at)
            .field("stopped_at", &self.stopped_at)
            .finish_non_exhaustive()
    }
}

impl Deployment {
    /// An empty one, whose containers are removed when they are stopped, or only stopped.
    pub fn new(remove_containers: bool) -> Deployment {
        Deployment {
            schema_version: Some(SCHEMA_VERSION),
            remove_containers: Some(remove_containers),
            ..Deployment::default()
        }
    }

    /// Takes in a function that was started.
    pub fn add_function(&mut self, function: Function) {
        self.functions.push(function);
    }

    /// Takes in an input, a JSON value that is kept byte for byte.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn add_input(&mut self, json: &str) -> Result<()> {
        let input = RawValue::from_string(json.to_string());
        self.inputs.push(input.map_err(|error| Error::usage(format!("the input is not JSON: {error}")))?);
        Ok(())
    }

    /// Starts a process that samples the memory of all instances, until the deployment is stopped or they have ended.
    ///
    /// # Errors
    /// It does not get to sample all of them; it is then gone, and its file as it left it.
    pub fn start_measurement(&mut self, options: &MeasurementOptions, cancel: &Cancel) -> Result<()> {
        let ids: Vec<String> = self.instances().map(|(_, id)| id.to_string()).collect();
        let Measurement { ready, child } = Measurement::start(options, &ids, cancel)?;
        let Ready { identity, interval_ns, warnings } = ready;
        self.children.push(child);
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let measurements =
            self.memory_measurements.get_or_insert_with(|| MemoryMeasurements::planned(options));
        measurements.pids.push(identity.pid);
        measurements.processes.push(identity);
        measurements.interval_ns = Some(interval_ns);
        Ok(())
    }

    /// Says that there is nothing more to start. Whoever stops a deployment of which that was not said looks for containers
    /// that the engine may still be making.
    pub fn complete(&mut self) {
        self.started_at = Some(clock::timestamp());
    }

    /// Had all of it been started, as far as the file can tell? SeBS writes its own only then.
    pub fn is_whole(&self) -> bool {
        self.schema_version.is_none() || self.started_at.is_some()
    }

    /// Gives up a deployment that did not come to be: ends its sampling, and removes what was sampled.
    pub fn abandon(&mut self) {
        let Some(measurements) = self.memory_measurements.take() else { return };
        for identity in &measurements.processes {
            if let Err(error) = measurement::end(identity) {
                log::warn!("{error}");
            }
        }
        self.collect_children();
        for path in [&measurements.file, &measurements.log()] {
            if let Err(error) = files::remove_file(path) {
                log::warn!("{error}");
            }
        }
    }

    /// Writes the deployment to a file that only its owner may read, since storage has keys.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn serialize(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::new(error.to_string()))?;
        text.push(b'\n');
        files::write(path, &text, Access::Owner)
    }

    /// Reads a deployment from a file, ours or SeBS's.
    ///
    /// # Errors
    /// `is_not_found` where there is no such file; `is_usage` where it is no deployment, or one of a newer program's.
    pub fn deserialize(path: &Path) -> Result<Deployment> {
        let text = files::read_text(path)?;
        let about = || format!("`{}` is no deployment file that this program knows", path.display());
        let deployment: Deployment = serde_json::from_str(&text)
            .map_err(|error| Error::usage(format!("{error} (`local start` writes them)")).context(about()))?;
        if let Some(version) = deployment.schema_version.filter(|version| *version > SCHEMA_VERSION) {
            let text = format!(
                "its schema_version is {version}, and this program knows {SCHEMA_VERSION}: use a newer one"
            );
            return Err(Error::usage(text).context(about()));
        }
        Ok(deployment)
    }

    /// Each instance's function and id.
    fn instances(&self) -> impl Iterator<Item = (&Function, &str)> {
        self.functions.iter().flat_map(|function| {
            function.instances.iter().map(move |instance| (function, instance.instance_id.as_str()))
        })
    }

    /// Lets go of processes of ours that have ended.
    fn collect_children(&mut self) {
        for child in &mut self.children {
            if let Err(error) = child.try_wait() {
                log::debug!("failed to collect a process: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;

    const SEBS: &str = r#"{"functions": [{"name": "f", "benchmark": "110.dynamic-html", "hash": "0", "url": "172.17.0.2:9000",
        "port": 9000, "instance_id": "ab", "triggers": [], "config": {"timeout": 10, "memory": 128,
        "runtime": {"language": "python", "version": "3.9"}, "architecture": "x64"}}], "storage": null,
        "inputs": [{"n": 123456789012345678901234567890}],
        "memory_measurements": {"pids": [12], "file": "/tmp/sebs.txt"}}"#;

    fn read(text: &str) -> Result<Deployment> {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("d.json");
        files::write(&path, text.as_bytes(), Access::Everyone).unwrap();
        Deployment::deserialize(&path)
    }

    #[test]
    fn sebs_own_file_is_read_and_inputs_are_kept_byte_for_byte() {
        let deployment = read(SEBS).unwrap();
        assert_eq!(deployment.instances().map(|(_, id)| id).collect::<Vec<_>>(), ["ab"]);
        assert_eq!(deployment.inputs[0].get(), r#"{"n": 123456789012345678901234567890}"#);
        assert_eq!((deployment.remove_containers, deployment.stopped_at.as_deref()), (None, None));
        assert!(deployment.is_whole());
        let measurements = deployment.memory_measurements.unwrap();
        assert_eq!((measurements.pids.as_slice(), measurements.format), (&[12][..], None));
    }

    #[test]
    fn what_is_written_has_sebs_keys_and_is_read_again() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("d.json");
        let mut deployment = Deployment::new(true);
        read(SEBS).unwrap().functions.into_iter().for_each(|function| deployment.add_function(function));
        deployment.add_input("{\"a\":  1}").unwrap();
        assert!(deployment.add_input("{").unwrap_err().is_usage());
        assert!(!deployment.is_whole());
        deployment.complete();
        deployment.serialize(&path).unwrap();
        assert!(Deployment::deserialize(&path).unwrap().is_whole());
        let written: Value = files::read_json(&path).unwrap();
        assert_eq!(written["functions"][0]["instance_id"], "ab");
        assert_eq!((&written["storage"], &written["nosql"]), (&Value::Null, &Value::Null));
        assert!(written.get("started_storage").is_none());
        assert_eq!(written["schema_version"], 1);
        assert!(written.get("memory_measurements").is_none() && written.get("stopped_at").is_none());
        assert_eq!(Deployment::deserialize(&path).unwrap().inputs[0].get(), "{\"a\":  1}");
    }

    #[test]
    fn another_file_is_refused_and_why_is_told() {
        for wrong in ["", "hello", "[]", "{}", r#"{"functions": []}"#, r#"{"experiments": {}}"#] {
            let error = read(wrong).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("no deployment file"), "{error}");
        }
        let newer = read(r#"{"functions": [], "inputs": [], "schema_version": 2}"#).unwrap_err();
        assert!(newer.is_usage() && newer.to_string().contains("schema_version is 2"), "{newer}");
        assert!(Deployment::deserialize(Path::new("/no/such/file")).unwrap_err().is_not_found());
    }
}
