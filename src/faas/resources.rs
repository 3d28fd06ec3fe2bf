//! The storage that a platform gives to functions: what is configured, else what is remembered, else what it starts.

use std::path::PathBuf;

use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::docker::{Engine, Lifetime, Owner};
use crate::error::{Context, Error, Result};
use crate::progress::Progress;
use crate::storage::{
    self, EngineType, RunningStorage, StartRequest, StorageConfig, StorageFile, StorageKind,
};

use super::config::Resources;
use super::dynamo_storage::{self, DynamoStorage};
use super::nosql::NoSqlStorage;
use super::remembered::{self, PlannedStorage, Remembered};
use super::s3_storage::{self, S3Storage};
use super::storage::PersistentStorage;

/// The platform whose storage this is, as the cache calls it.
const PLATFORM: &str = "local";

/// Which storage to use, and what becomes of it.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// What is configured of each kind; one that is not running is started so.
    pub configured: StorageFile,
    /// How long storage that is started lives.
    pub lifetime: Lifetime,
    /// Is storage that is started there for later commands, which find it by the cache?
    pub keeps_storage: bool,
    /// Are input files uploaded that are there already?
    pub update_storage: bool,
    /// The resources id that is configured; `None`: see [`SystemResources::resources_id`].
    pub resources_id: Option<String>,
    /// What a resources id that is found contains, and one that is made up begins with.
    pub resource_prefix: String,
    /// The folder that relative paths in the configuration are below.
    pub folder: PathBuf,
    /// The network of the engine's that functions run on, by its name: storage that is started is put there, and other
    /// storage must be on it; `None`: the engine's default one.
    pub network: Option<String>,
}

/// The storage of a platform that hosts its own: each kind had when it is first asked for, and released by
/// [`SystemResources::shutdown`]. Dropped, it stops what it started for the run.
#[derive(Debug)]
pub struct SystemResources {
    engine: Engine,
    cache: Cache,
    options: StorageOptions,
    progress: Progress,
    cancel: Cancel,
    in_use: StorageFile,
    object: Option<S3Storage>,
    nosql: Option<DynamoStorage>,
    /// What is stopped when this is dropped.
    running: Vec<RunningStorage>,
    started: Vec<StorageKind>,
}

impl SystemResources {
    /// Nothing is started or asked yet.
    pub fn new(
        engine: &Engine,
        cache: &Cache,
        options: StorageOptions,
        progress: &Progress,
        cancel: &Cancel,
    ) -> SystemResources {
        SystemResources {
            engine: engine.clone(),
            cache: cache.clone(),
            options,
            progress: progress.clone(),
            cancel: cancel.clone(),
            in_use: StorageFile::default(),
            object: None,
            nosql: None,
            running: Vec::new(),
            started: Vec::new(),
        }
    }

    /// The id that sets this user's resources apart: the configured one, else that of the cache, else that of the first
    /// bucket `sebs-benchmarks-<id>` in the storage, where one is in use, whose id contains the prefix, else one that is
    /// made up. It is recorded in the cache, unless that has another.
    ///
    /// # Errors
    /// The cache or the storage cannot be asked.
    pub fn resources_id(&mut self) -> Result<String> {
        Ok(self.resources()?.id()?.to_string())
    }

    /// The object storage, started where it must be. `replaces_existing` decides for uploads; `None`: as configured.
    ///
    /// # Errors
    /// None can be had.
    pub fn get_storage(&mut self, replaces_existing: Option<bool>) -> Result<&mut dyn PersistentStorage> {
        if self.object.is_none() {
            let config = self.config_of(StorageKind::Object)?;
            let resources = self.load_resources()?;
            let has_id = resources.has_resources_id();
            let mut storage = S3Storage::new(&config, &self.cache, resources, &self.cancel)?;
            let found = if has_id { Vec::new() } else { storage.find_deployments()? };
            let state = storage.state_mut();
            state.resources.choose_id(&self.cache, &self.options.resource_prefix, &found)?;
            state.replaces_existing = self.options.update_storage;
            self.object = Some(storage);
        }
        let storage = self.object.as_mut().expect("it was had above");
        if let Some(replaces_existing) = replaces_existing {
            storage.state_mut().replaces_existing = replaces_existing;
        }
        Ok(storage)
    }

    /// The tables, started where they must be.
    ///
    /// # Errors
    /// None can be had.
    pub fn get_nosql_storage(&mut self) -> Result<&mut dyn NoSqlStorage> {
        if self.nosql.is_none() {
            let config = self.config_of(StorageKind::Nosql)?;
            let resources = self.resources()?;
            self.nosql = Some(DynamoStorage::new(&config, &self.cache, resources, &self.cancel)?);
        }
        Ok(self.nosql.as_mut().expect("it was had above"))
    }

    /// Has storage of that kind in use where one is configured and runs, or was kept by an earlier command; none is
    /// started, and none forgotten. Says whether there is one.
    ///
    /// # Errors
    /// The configured one cannot be used; the cache or the engine cannot be asked.
    pub fn find(&mut self, kind: StorageKind) -> Result<bool> {
        if self.in_use.of(kind).is_some() {
            return Ok(true);
        }
        let found = match self.options.configured.of(kind).cloned() {
            Some(config) if config.is_running() => Some(self.find_configured(kind, &config)?),
            _ => self.kept(kind)?,
        };
        self.in_use.place(kind).clone_from(&found);
        Ok(found.is_some())
    }

    /// The object storage that is in use; `None`: none was asked for yet.
    pub fn storage_in_use(&self) -> Option<&dyn PersistentStorage> {
        self.object.as_ref().map(|storage| storage as &dyn PersistentStorage)
    }

    /// What a benchmark's functions are told of the storage in use, as environment variables.
    pub fn envs(&self, benchmark: &str) -> Vec<(String, String)> {
        let object = self.object.iter().flat_map(|storage| storage.envs());
        object.chain(self.nosql.iter().flat_map(|storage| storage.envs(benchmark))).collect()
    }

    /// The secrets among [`SystemResources::envs`], so that they can be struck out of what is shown.
    pub fn secrets(&self) -> Vec<String> {
        let in_use = [&self.in_use.object, &self.in_use.nosql].into_iter().flatten();
        in_use.filter_map(|config| config.secret_key.clone()).collect()
    }

    /// The storage that is in use.
    pub fn in_use(&self) -> StorageFile {
        self.in_use.clone()
    }

    /// The kinds that were started here, rather than found running.
    pub fn started(&self) -> Vec<StorageKind> {
        self.started.clone()
    }

    /// Turns to where the containers of the storage in use have it by now: one that was started again meanwhile may be at
    /// another port of this host.
    ///
    /// # Errors
    /// It does not run any more, or does not answer. The engine or the cache cannot be asked.
    pub fn follow(&mut self) -> Result<()> {
        let in_use = self.in_use.clone();
        for (kind, known) in in_use.kinds().filter(|(_, known)| known.instance_id.is_some()) {
            let found = storage::located(&self.engine, known, &self.cancel)?;
            if found == *known {
                continue;
            }
            *self.in_use.place(kind) = Some(found);
            match kind {
                StorageKind::Object if self.object.take().is_some() => self.get_storage(None).map(drop)?,
                StorageKind::Nosql if self.nosql.take().is_some() => self.get_nosql_storage().map(drop)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets what was started live on, as its lifetime says.
    pub fn release(&mut self) {
        self.running.drain(..).for_each(|running| drop(running.keep()));
    }

    /// Stops what was started for the run, and forgets the rest.
    ///
    /// # Errors
    /// Something could not be stopped; the rest was.
    pub fn shutdown(&mut self) -> Result<()> {
        (self.object, self.nosql) = (None, None);
        self.in_use = StorageFile::default();
        if self.options.lifetime != Lifetime::Run {
            self.release();
        }
        let mut outcome = Ok(());
        for running in self.running.drain(..) {
            match (running.remove(), &outcome) {
                (Err(error), Ok(())) => outcome = Err(error),
                (Err(error), Err(_)) => log::warn!("{error}"),
                (Ok(()), _) => {}
            }
        }
        outcome
    }

    /// The resources, whose id no storage is asked for: object storage was, when it was first had.
    fn resources(&self) -> Result<Resources> {
        let mut resources = self.load_resources()?;
        resources.choose_id(&self.cache, &self.options.resource_prefix, &[])?;
        Ok(resources)
    }

    fn load_resources(&self) -> Result<Resources> {
        Resources::load(PLATFORM, self.options.resources_id.as_deref(), &self.cache)
    }

    /// Where storage of that kind is, which is had where none is in use yet.
    fn config_of(&mut self, kind: StorageKind) -> Result<StorageConfig> {
        if let Some(config) = self.in_use.of(kind) {
            return Ok(config.clone());
        }
        let config = self.acquire(kind)?;
        *self.in_use.place(kind) = Some(config.clone());
        Ok(config)
    }

    fn acquire(&mut self, kind: StorageKind) -> Result<StorageConfig> {
        // Of commands that keep storage at once, the second finds that of the first.
        let _lock = match self.options.keeps_storage {
            true => Some(self.cache.lock(&format!("storage-{kind}"))?),
            false => None,
        };
        remembered::clear_abandoned(&self.engine, &self.cache, kind)?;
        match self.options.configured.of(kind).cloned() {
            Some(config) if config.is_running() => {
                let config = self.find_configured(kind, &config)?;
                let seen = self.on_network(kind, &config);
                seen.context(|| format!("the configured {kind} storage cannot be used"))
            }
            wish => {
                let wish = wish.unwrap_or_else(|| StorageConfig::of(EngineType::Auto));
                match self.recall(kind, &wish)? {
                    Some(config) => Ok(config),
                    None => self.start(kind, &wish),
                }
            }
        }
    }

    /// The configured storage, which runs already, where it is by now.
    fn find_configured(&self, kind: StorageKind, config: &StorageConfig) -> Result<StorageConfig> {
        let (engine, address) = (config.engine, config.tool_address().unwrap_or_default());
        let config = self.reach(kind, config).context(|| {
            format!(
                "the configured {kind} storage, `{engine}` at {address}, cannot be used (is it running, and are its \
                 address and keys right?)"
            )
        })?;
        let address = config.tool_address().unwrap_or_default();
        log::info!("using the configured {kind} storage, `{engine}` at {address}");
        if config.address.as_deref().is_some_and(is_loopback) {
            log::warn!(
                "the address of the {kind} storage, {}, is in a function's container the container itself: functions \
                 will not reach it; configure as `address` what they can, and as `host_address` this one",
                config.address.as_deref().unwrap_or_default()
            );
        }
        Ok(config)
    }

    /// Sends a signed request that changes nothing to a storage that is there, and gives where it is by now.
    fn reach(&self, kind: StorageKind, config: &StorageConfig) -> Result<StorageConfig> {
        let config = storage::located(&self.engine, config, &self.cancel)?;
        match kind {
            StorageKind::Object => s3_storage::client(&config, &self.cancel)?.list_buckets().map(drop)?,
            StorageKind::Nosql => dynamo_storage::client(&config, &self.cancel)?.list_tables().map(drop)?,
        }
        Ok(config)
    }

    /// The storage that the cache remembers, if it was started as `wish` says, and still runs and answers. One that does
    /// not run or answer is forgotten.
    fn recall(&self, kind: StorageKind, wish: &StorageConfig) -> Result<Option<StorageConfig>> {
        let Some(remembered) = Remembered::read(&self.cache, PLATFORM, kind)? else { return Ok(None) };
        let why = match remembered.look_up(&self.engine, kind)? {
            Ok(config) if !config.fits(wish, &self.options.folder) => {
                log::info!("the {kind} storage that was kept, `{}`, is not as configured", config.engine);
                return Ok(None);
            }
            Ok(config) => match self.reach(kind, &config) {
                Ok(config) => {
                    let config = match self.on_network(kind, &config) {
                        Err(error) if error.is_usage() => {
                            log::info!("the {kind} storage that was kept is not used: {error}");
                            return Ok(None);
                        }
                        config => config?,
                    };
                    let (engine, file) = (config.engine, remembered.file.display());
                    log::info!(
                        "using the {kind} storage that was kept, `{engine}` (`sebs-lite storage stop all {file}` \
                         stops it)"
                    );
                    return Ok(Some(config));
                }
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => {
                    format!("{error} (`sebs-lite storage stop all {}` stops it)", remembered.file.display())
                }
            },
            Err(why) => why,
        };
        log::info!("the {kind} storage that was kept is not used any more: {why}");
        remembered.forget(&self.cache, PLATFORM, kind)?;
        Ok(None)
    }

    /// The storage that the cache remembers, if it was started as is configured, and runs and answers. None is forgotten.
    fn kept(&self, kind: StorageKind) -> Result<Option<StorageConfig>> {
        let Some(remembered) = Remembered::read(&self.cache, PLATFORM, kind)? else { return Ok(None) };
        let wish = self.options.configured.of(kind);
        match remembered.look_up(&self.engine, kind)? {
            Ok(config) if wish.is_none_or(|wish| config.fits(wish, &self.options.folder)) => {
                match self.reach(kind, &config) {
                    Err(error) if error.is_cancelled() => Err(error),
                    outcome => Ok(outcome.ok()),
                }
            }
            _ => Ok(None),
        }
    }

    /// A storage that runs, as the functions reach it.
    fn on_network(&self, kind: StorageKind, config: &StorageConfig) -> Result<StorageConfig> {
        storage::on_network(&self.engine, kind, config, self.options.network.as_deref())
    }

    fn start(&mut self, kind: StorageKind, config: &StorageConfig) -> Result<StorageConfig> {
        let network = self.options.network.clone();
        if let Some(other) = config.own_network().filter(|other| network.as_deref() != Some(other)) {
            return Err(Error::usage(format!(
                "the configuration puts {kind} storage on network `{other}`, and the functions run on {}: say one for both",
                network.map_or("the engine's default one".to_string(), |network| format!("`{network}`"))
            )));
        }
        let config = &StorageConfig { network, ..config.clone() };
        let kept = match self.options.keeps_storage {
            true => Some(PlannedStorage::write(&self.cache, kind, config)?),
            false => None,
        };
        let lifetime = match &kept {
            Some(planned) => Lifetime::Kept { file: planned.path().to_path_buf() },
            None => self.options.lifetime.clone(),
        };
        let request = StartRequest {
            engine: &self.engine,
            owner: &Owner::current()?,
            lifetime: &lifetime,
            folder: &self.options.folder,
            keeps_data: false,
            progress: &self.progress,
            cancel: &self.cancel,
        };
        let running = storage::start(kind, config, &request)?;
        log::info!("started {kind} storage {}", running.reason);
        let config = running.config.clone();
        match kept {
            Some(planned) => {
                let file = planned.path().display().to_string();
                planned.note(&self.cache, PLATFORM, &config)?;
                log::info!("the {kind} storage is kept: `sebs-lite storage stop all {file}` stops it");
                drop(running.keep());
            }
            None => self.running.push(running),
        }
        self.started.push(kind);
        Ok(config)
    }
}

/// Is `host:port` an address that each container has for itself?
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let ip = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_may_be_handed_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<SystemResources>();
    }

    #[test]
    fn addresses_of_the_container_itself_are_known() {
        for address in ["127.0.0.1:9000", "localhost:1", "LOCALHOST", "127.8.8.8:1", "[::1]:9", "0.0.0.0:9"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["172.17.0.2:9000", "storage:9000", "localhost.lab:9", "[fd00::1]:9"] {
            assert!(!is_loopback(address), "{address}");
        }
    }
}
