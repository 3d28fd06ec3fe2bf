//! What the tests of storage engines share: a session of their own, starts in it, and what it has left in the engine.

use std::path::{Path, PathBuf};

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{Engine, Lifetime, Owner, Scope};
use sebs_lite::progress::Progress;
use sebs_lite::storage::{
    DynamoClient, DynamoOptions, EngineType, RunningStorage, S3Client, S3Options, StartRequest,
    StorageConfig, StorageKind, start,
};

use crate::support::{Folder, storage_image, unique};

/// A session that no other test has, with a folder of its own.
pub(crate) struct Session {
    pub(crate) engine: Engine,
    pub(crate) owner: Owner,
    pub(crate) folder: Folder,
    pub(crate) cancel: Cancel,
    pub(crate) lifetime: Lifetime,
    pub(crate) keeps_data: bool,
}

impl Session {
    pub(crate) fn new(engine: &Engine) -> Session {
        let owner = Owner { session: unique("session"), ..Owner::current().unwrap() };
        Session {
            engine: engine.clone(),
            owner,
            folder: Folder::create(),
            cancel: Cancel::new(),
            lifetime: Lifetime::Run,
            keeps_data: false,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        std::fs::canonicalize(self.folder.path()).unwrap().join(name)
    }

    pub(crate) fn start(
        &self,
        kind: StorageKind,
        config: &StorageConfig,
    ) -> sebs_lite::Result<RunningStorage> {
        let progress = Progress::quiet();
        let request = StartRequest {
            engine: &self.engine,
            owner: &self.owner,
            lifetime: &self.lifetime,
            folder: self.folder.path(),
            keeps_data: self.keeps_data,
            progress: &progress,
            cancel: &self.cancel,
        };
        start(kind, config, &request)
    }

    /// The names of the containers and volumes that have its label.
    pub(crate) fn left(&self) -> Vec<String> {
        let label = format!("sebs-lite.session={}", self.owner.session);
        let containers = self.engine.list_containers(&[&label], Scope::All).unwrap();
        let volumes = self.engine.list_volumes(&[&label]).unwrap();
        let names = containers.into_iter().flat_map(|container| container.names);
        names.chain(volumes.into_iter().map(|volume| volume.name)).collect()
    }

    /// The names in its folder.
    pub(crate) fn files(&self) -> Vec<String> {
        names(self.folder.path())
    }

    pub(crate) fn has_container(&self, id: &str) -> bool {
        self.engine.inspect_container(id).is_ok()
    }

    pub(crate) fn has_volume(&self, name: &str) -> bool {
        self.engine.inspect_volume(name).is_ok()
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An engine of objects. MinIO's part is played by JuiceFS, whose front end is MinIO's.
pub(crate) fn objects_of(engine: &Engine, kind: EngineType) -> StorageConfig {
    let config = StorageConfig::of(kind);
    match kind {
        EngineType::Minio => StorageConfig { image: Some(storage_image(engine, "juicefs")), ..config },
        _ => {
            storage_image(engine, "seaweedfs");
            config
        }
    }
}

/// dynoxide on a volume of its own.
pub(crate) fn dynoxide(engine: &Engine) -> StorageConfig {
    storage_image(engine, "dynoxide");
    StorageConfig::of(EngineType::Dynoxide)
}

pub(crate) fn s3(config: &StorageConfig) -> S3Client {
    let options = S3Options {
        address: config.host_address.clone().unwrap(),
        access_key: config.access_key.clone().unwrap(),
        secret_key: config.secret_key.clone().unwrap(),
        region: config.region.clone().unwrap(),
    };
    S3Client::new(options, &Cancel::new()).unwrap()
}

pub(crate) fn tables(config: &StorageConfig) -> DynamoClient {
    let options = DynamoOptions {
        address: config.host_address.clone().unwrap(),
        access_key: config.access_key.clone().unwrap(),
        secret_key: config.secret_key.clone().unwrap(),
        region: config.region.clone().unwrap(),
    };
    DynamoClient::new(options, &Cancel::new()).unwrap()
}
