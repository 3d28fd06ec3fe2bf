//! The storage that a deployment's functions use: what its file says of it, and whose it is to stop.

use serde_json::json;

use super::Deployment;
use crate::docker::Engine;
use crate::error::{Context, Error, Result};
use crate::storage::{StoppedStorage, StorageFile, StorageKind};

impl Deployment {
    /// Says which storage the functions use, and which kinds of it were started for them and go with them.
    pub fn set_storage(&mut self, file: &StorageFile, started: Vec<StorageKind>) {
        self.storage = file.object.as_ref().map(|config| json!(config));
        self.nosql = file.nosql.as_ref().map(|config| json!(config));
        self.started_storage = started;
    }

    /// The storage that the functions use.
    ///
    /// # Errors
    /// A usage error: what the deployment's file says of it is not understood.
    pub fn storage_file(&self) -> Result<StorageFile> {
        let mut file = StorageFile::default();
        for (key, value) in [("storage", &self.storage), ("nosql", &self.nosql)] {
            if let Some(value) = value {
                let read = StorageFile::from_value(value);
                let read = read.context(|| format!("`{key}` of the deployment is not understood"))?;
                file = file.or(read);
            }
        }
        Ok(file)
    }

    /// Strikes the keys out, so that the deployment may be shown. Its file must have been written before.
    ///
    /// # Errors
    /// As [`Deployment::storage_file`].
    pub fn strike_out_keys(&mut self) -> Result<()> {
        let file = self.storage_file()?;
        self.storage = file.object.map(|config| config.without_secrets());
        self.nosql = file.nosql.map(|config| config.without_secrets());
        Ok(())
    }

    /// Is that the container of an instance, by its id, or a part of the storage that they use?
    pub(super) fn names(&self, name: &str) -> bool {
        let storage = self.storage_file().unwrap_or_default();
        self.instances().any(|(_, id)| id == name) || storage.kinds().any(|(_, config)| config.names(name))
    }

    /// Stops the storage that was started for the functions, with the volumes made for it; other storage is left alone.
    pub(super) fn stop_storage(&self, engine: &Engine) -> (Vec<StoppedStorage>, Vec<Error>) {
        let (mut stopped, mut failures) = (Vec::new(), Vec::new());
        if self.started_storage.is_empty() {
            return (stopped, failures);
        }
        let file = match self.storage_file() {
            Ok(file) => file,
            Err(error) => return (stopped, vec![error]),
        };
        for kind in &self.started_storage {
            let Some(config) = file.of(*kind) else { continue };
            let (storage, failure) = StoppedStorage::stop(engine, *kind, config, false);
            stopped.push(storage);
            failures.extend(failure);
        }
        (stopped, failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{EngineType, StorageConfig};

    fn config(engine: EngineType, id: &str) -> StorageConfig {
        StorageConfig {
            address: Some("172.17.0.9:9000".into()),
            instance_id: Some(id.into()),
            access_key: Some("name".into()),
            secret_key: Some("hush-hush".into()),
            ..StorageConfig::of(engine)
        }
    }

    #[test]
    fn storage_stands_flat_with_its_type_and_is_shown_without_keys() {
        let file = StorageFile {
            object: Some(config(EngineType::SeaweedFs, "o")),
            nosql: Some(config(EngineType::Dynoxide, "n")),
        };
        let mut deployment = Deployment::new(true);
        deployment.set_storage(&file, vec![StorageKind::Object]);
        let written = json!(deployment);
        assert_eq!(written["storage"]["type"], "seaweedfs");
        assert_eq!(written["storage"]["secret_key"], "hush-hush");
        assert_eq!(written["nosql"]["instance_id"], "n");
        assert_eq!(written["started_storage"], json!(["object"]));
        assert_eq!(deployment.storage_file().unwrap(), file);
        assert!(deployment.names("o") && deployment.names("n") && !deployment.names("x"));
        assert!(!format!("{deployment:?}").contains("hush"));
        deployment.strike_out_keys().unwrap();
        assert!(!json!(deployment).to_string().contains("hush"));
        assert_eq!(json!(deployment)["storage"]["address"], "172.17.0.9:9000");
    }

    #[test]
    fn sebs_own_minio_is_read_and_is_nobodys_to_stop() {
        let text = r#"{"functions": [], "inputs": [], "storage": {"address": "172.17.0.2:9000", "mapped_port": 9011,
            "access_key": "a", "secret_key": "s", "instance_id": "ab", "output_buckets": [], "input_buckets": [],
            "type": "minio", "data_volume": "minio-volume", "version": "R"}}"#;
        let deployment: Deployment = serde_json::from_str(text).unwrap();
        let object = deployment.storage_file().unwrap().object.unwrap();
        assert_eq!((object.engine, object.tool_address()), (EngineType::Minio, Some("172.17.0.2:9000")));
        assert!(deployment.started_storage.is_empty());
    }
}
