//! What the tests of a platform's storage share: servers given as configured, a cache, and benchmarks that use them.

use std::path::{Path, PathBuf};

use sebs_lite::Result;
use sebs_lite::benchmark::{Benchmark, InputProcess, Needs, prepare_input};
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{Engine, Lifetime};
use sebs_lite::faas::{StorageOptions, SystemResources};
use sebs_lite::progress::Progress;
use sebs_lite::storage::{
    DynamoClient, EngineType, RunningStorage, S3Client, StorageConfig, StorageFile, StorageKind,
};
use serde_json::Value;

use crate::benchmark::find;
use crate::engine_support::{Session, dynoxide, objects_of, s3, tables};
use crate::input::start;
use crate::support::Folder;

/// The first lines of a script that uploads or writes.
pub(crate) const GENERATE: &str =
    "import os\ndef generate_input(data_dir, size, bucket, inputs, outputs, upload, nosql):\n";

/// A storage of a test's own, removed when dropped.
pub(crate) struct Server {
    session: Session,
    running: RunningStorage,
}

impl Server {
    pub(crate) fn of_objects(engine: &Engine, kind: EngineType) -> Server {
        Server::start(engine, StorageKind::Object, &objects_of(engine, kind))
    }

    pub(crate) fn of_tables(engine: &Engine) -> Server {
        Server::start(engine, StorageKind::Nosql, &dynoxide(engine))
    }

    fn start(engine: &Engine, kind: StorageKind, config: &StorageConfig) -> Server {
        let session = Session::new(engine);
        let running = session.start(kind, config).unwrap();
        Server { session, running }
    }

    /// As somebody else would configure it, who has started it. Functions know it by another address.
    pub(crate) fn external(&self, engine: EngineType) -> StorageConfig {
        let config = &self.running.config;
        let address = config.host_address.clone().unwrap();
        StorageConfig {
            address: Some(format!("storage.invalid{}", &address[address.rfind(':').unwrap()..])),
            host_address: Some(address),
            access_key: config.access_key.clone(),
            secret_key: config.secret_key.clone(),
            ..StorageConfig::of(engine)
        }
    }

    pub(crate) fn objects(&self) -> S3Client {
        s3(&self.running.config)
    }

    pub(crate) fn tables(&self) -> DynamoClient {
        tables(&self.running.config)
    }

    pub(crate) fn kill(&self) {
        let id = self.running.config.instance_id.as_ref().unwrap();
        self.session.engine.kill_container(id, "KILL").unwrap();
    }

    pub(crate) fn remove(self) {
        self.running.remove().unwrap();
    }
}

/// A cache and the folder of a benchmark's script and data, with what is configured.
pub(crate) struct Setting {
    pub(crate) folder: Folder,
    pub(crate) options: StorageOptions,
    engine: Engine,
}

impl Setting {
    pub(crate) fn new(engine: &Engine, configured: StorageFile) -> Setting {
        let folder = Folder::create();
        let options = StorageOptions {
            network: None,
            configured,
            lifetime: Lifetime::Run,
            keeps_storage: false,
            update_storage: false,
            resources_id: None,
            resource_prefix: "local".to_string(),
            folder: folder.path().to_path_buf(),
        };
        Setting { folder, options, engine: engine.clone() }
    }

    pub(crate) fn cache_folder(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// What another command has of the storage.
    pub(crate) fn resources(&self) -> SystemResources {
        let cache = Cache::open(&self.cache_folder(), &Cancel::new()).unwrap();
        let options = self.options.clone();
        SystemResources::new(&self.engine, &cache, options, &Progress::quiet(), &Cancel::new())
    }

    /// The benchmark `100.x`, with that text as its `input.py`.
    pub(crate) fn benchmark(&self, script: &str) -> Benchmark {
        self.folder.put("root/g/100.x/function.py", "");
        self.folder.put("root/g/100.x/input.py", script);
        find(&self.folder.path().join("root/g/100.x"))
    }

    /// The process that has loaded the script.
    pub(crate) fn process(&self, script: &str) -> InputProcess {
        start(&self.benchmark(script), &Cancel::new()).unwrap().unwrap()
    }

    /// The input that the script makes, once it has filled the storage.
    pub(crate) fn prepare(&self, script: &str, resources: &mut SystemResources) -> Result<Value> {
        let mut process = self.process(script);
        let needs = Needs::of(&mut process).unwrap();
        let input = prepare_input(&mut process, "100.x", &needs, "test", resources, &Progress::quiet());
        process.stop().unwrap();
        input
    }
}

/// What stands in a file of a cache.
pub(crate) fn record(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
