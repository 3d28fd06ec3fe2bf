//! Storage engines in containers: chosen, started on their volumes, asked how they are, and stopped.

mod again;
mod config;
mod data;
mod dynoxide;
mod folder;
mod image;
mod keys;
mod minio;
mod network;
mod ready;
mod scylladb;
mod seaweedfs;
mod server;
mod stop;

use std::path::Path;

use serde::Serialize;

use crate::cancel::Cancel;
use crate::docker::{
    ChosenNetwork, ContainerInspect, Engine, Lifetime, OwnedContainer, OwnedVolume, Owner, is_port_taken,
};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::progress::Progress;
use data::{Data, Source};
use image::Choice;
use ready::Wait;
use server::{Placement, Server};

pub use config::{EngineType, StorageConfig, StorageFile, StorageKind};
pub use network::addresses;
pub(crate) use network::on_network;

/// Who starts storage, and how.
#[derive(Clone, Copy, Debug)]
pub struct StartRequest<'a> {
    /// Where the container runs.
    pub engine: &'a Engine,
    /// Whose it is.
    pub owner: &'a Owner,
    /// How long it is meant to live.
    pub lifetime: &'a Lifetime,
    /// The folder that relative paths of `data_volume` are below.
    pub folder: &'a Path,
    /// Where `data_volume` is not configured: are data to outlive the storage, in the volume that this engine has by
    /// default, or do they go with it?
    pub keeps_data: bool,
    /// Told each step: a pull, the wait.
    pub progress: &'a Progress,
    /// Gives up, and removes what was made.
    pub cancel: &'a Cancel,
}

/// A storage that answers; dropped, it is stopped, and removed with a volume of its own.
///
/// One that was there before, an external endpoint or a storage that an earlier start has kept, is left as it is.
#[derive(Debug)]
#[must_use = "the storage is stopped when this is dropped"]
pub struct RunningStorage {
    /// Where it is, and the keys to it.
    pub config: StorageConfig,
    /// Why this engine: a sentence for people.
    pub reason: String,
    /// What this start made; `None`: nothing.
    made: Option<Made>,
}

/// What a start made and a stop removes; the container is the first to go.
#[derive(Debug)]
struct Made {
    container: OwnedContainer,
    volume: Option<OwnedVolume>,
    /// Looks at no cancel token.
    engine: Engine,
}

impl RunningStorage {
    /// Lets it live on, and gives back where it is.
    pub fn keep(self) -> StorageConfig {
        if let Some(made) = self.made {
            made.container.keep();
            made.volume.map(OwnedVolume::keep);
        }
        self.config
    }

    /// Stops and removes it, and its volume where that is its own; data that stay are written down before.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn remove(self) -> Result<()> {
        let Some(Made { container, volume, engine }) = self.made else { return Ok(()) };
        let stopped = match &volume {
            Some(_) => Ok(()),
            None => engine.stop_container(container.id(), stop::stop_limit(&self.config)),
        };
        let removed = container.remove();
        stopped.and(removed).and(volume.map_or(Ok(()), OwnedVolume::remove))
    }
}

/// Starts storage of one kind as `config` says, and waits until it can be written to.
///
/// Where `config` is of an endpoint that is there, or of a storage that was started before, nothing is started: it is
/// asked by a signed request whether it answers, and given back as it is.
///
/// # Errors
/// A usage error where the configuration cannot be meant: an external engine without keys, a folder that another storage
/// uses, a network that is not there. No image can be had (`is_not_found`): the text names `scripts/storage-images`. It does
/// not answer in time: its last lines are shown. On any error nothing that was made is left.
pub fn start(
    kind: StorageKind,
    config: &StorageConfig,
    request: &StartRequest<'_>,
) -> Result<RunningStorage> {
    if config.engine.kind().is_some_and(|of_engine| of_engine != kind) {
        return Err(Error::usage(format!("`{}` is no engine for `{kind}` storage", config.engine)));
    }
    let engine = request.engine.with_cancel(request.cancel);
    if config.engine.is_external() || config.is_running() {
        return find(&engine, kind, config, request.cancel);
    }
    request.cancel.check()?;
    let network = network::choose(&engine, config)?;
    let choice = image::choose(&engine, kind, config, request)?;
    log::debug!("storage `{kind}` is {}", choice.reason);
    let about = format!("failed to start storage `{}`", choice.engine);
    launch(&engine, config, choice, network, request).map_err(|error| error.context(about))
}

/// A storage that is there already.
fn find(
    engine: &Engine,
    kind: StorageKind,
    config: &StorageConfig,
    cancel: &Cancel,
) -> Result<RunningStorage> {
    let config = match config.engine.is_external() {
        true => ready::with_region(config),
        false => stop::located(engine, config, cancel)?,
    };
    let address = config.tool_address().unwrap_or_default();
    ready::ask(kind, &config, cancel)
        .map_err(|error| error.context(format!("storage `{}` at {address} cannot be used", config.engine)))?;
    let reason = format!("{}: it is there already, at {address}", config.engine);
    Ok(RunningStorage { config, reason, made: None })
}

/// A storage that is there to be asked, where it is by now: its container, if it has one that is known, runs, and something
/// answers. A client would go on trying for minutes where a container is paused.
///
/// # Errors
/// It is not there: why, and what to do. The engine cannot be reached, or the cancel token was triggered.
pub(crate) fn located(engine: &Engine, config: &StorageConfig, cancel: &Cancel) -> Result<StorageConfig> {
    stop::located(&engine.with_cancel(cancel), config, cancel)
}

/// Starts the container of a storage again that ended when its engine went away, and waits until it answers. One that runs,
/// is gone, or is no container of this engine's is left as it is.
///
/// # Errors
/// It cannot be started, does not answer, or has another address than `config` says. The cancel token was triggered.
pub(crate) fn restore(engine: &Engine, config: &StorageConfig, cancel: &Cancel) -> Result<()> {
    stop::restore(&engine.with_cancel(cancel), config, cancel)
}

fn launch(
    engine: &Engine,
    config: &StorageConfig,
    choice: Choice,
    network: Option<ChosenNetwork>,
    request: &StartRequest<'_>,
) -> Result<RunningStorage> {
    let Choice { engine: engine_type, image, reason } = choice;
    let name_of_network = network.as_ref().map(|network| network.name.clone());
    let config = StorageConfig { engine: engine_type, network: name_of_network, ..config.clone() };
    let info = engine.info()?;
    let data = Data::claim(engine, &config, request)?;
    let Some(server) = Server::of(&config, data.keys()) else {
        return Err(Error::usage(format!("`{engine_type}` is not run in a container")));
    };
    let source = data.source();
    // Files in a folder of the caller's are the caller's; in a volume they are whose the image has them be.
    let user = if matches!(source, Source::Folder(_)) { info.caller() } else { String::new() };
    let mount = data.mount(engine_type, server.data, request, info.has_selinux());
    let placement = Placement {
        image: &image,
        mount,
        user: &user,
        mapped_port: config.mapped_port,
        network: network.as_ref(),
    };
    let name = format!("sebs-lite-{engine_type}-{}", files::random_hex(8));
    let spec = server.spec(engine_type, &placement);
    let container = engine.create_owned(request.owner, request.lifetime, &name, spec)?;
    source.check_alone(engine, request.owner, Some(container.id()))?;
    engine.start_container(container.id()).map_err(|error| explain_start(error, config.mapped_port))?;
    let folder = match &source {
        Source::Folder(path) => Some(path.as_path()),
        Source::Volume(_) => None,
    };
    let wait = Wait {
        engine,
        cancel: request.cancel,
        progress: request.progress,
        engine_type,
        container: container.id(),
        keys: data.keys(),
        folder,
        limit: server.ready_within,
    };
    let config = placed(&config, &server, &data, &wait.check_running()?)?;
    wait.until_ready(&config)?;
    let volume = data.settle()?;
    let made = Made { container, volume, engine: engine.without_cancel() };
    Ok(RunningStorage { config, reason, made: Some(made) })
}

/// The configuration with all that is known once the container runs.
fn placed(
    config: &StorageConfig,
    server: &Server,
    data: &Data,
    inspected: &ContainerInspect,
) -> Result<StorageConfig> {
    let about = |what: &str| Error::new(format!("container `{}` has no {what}", inspected.name));
    let own = inspected.own_address().ok_or_else(|| about("address on its network"))?;
    let address = network::host_port(own, server.port);
    let port = inspected.network_settings.published(server.port);
    let host_address = match port {
        Some(port) => format!("127.0.0.1:{port}"),
        // Of what is on an internal network nothing is published, and a port of 127.0.0.1 leads to no container that has
        // IPv6 alone: its own address does, from this host too.
        None if config.network.is_some() || own.contains(':') => address.clone(),
        None => return Err(about("published port")),
    };
    let keys = data.keys();
    let is_nosql = config.engine.kind() == Some(StorageKind::Nosql);
    let region = if is_nosql { keys::NO_KEY } else { ready::REGION };
    Ok(StorageConfig {
        mapped_port: port,
        data_volume: Some(match data.source() {
            Source::Folder(path) => path.display().to_string(),
            Source::Volume(name) => name,
        }),
        owns_volume: matches!(data, Data::Own(..)),
        address: Some(address),
        host_address: Some(host_address),
        access_key: Some(keys.access_key.clone()),
        secret_key: Some(keys.secret_key.clone()),
        instance_id: Some(inspected.id.clone()),
        region: Some(region.to_string()),
        alternator_port: is_nosql.then_some(server.port),
        remove_containers: Some(config.remove_containers.unwrap_or(true)),
        ..config.clone()
    })
}

/// Names the port where the engine only says that some address is in use.
fn explain_start(error: Error, mapped_port: Option<u16>) -> Error {
    match mapped_port {
        Some(port) if is_port_taken(&error) => {
            let text = format!(
                "port {port} of 127.0.0.1 is taken (choose another `mapped_port`, or -1, for which the container engine \
                 chooses one)"
            );
            Error::from_source(Kind::Conflict, text, error)
        }
        _ => error,
    }
}

/// What became of a storage that was to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageEnd {
    /// Its container was stopped, and removed.
    Removed,
    /// Its container was stopped, and is there.
    Stopped,
    /// Its container had been removed before.
    Gone,
    /// It is not ours to stop.
    External,
}

/// Stops a storage; doing it twice does no harm. Its data stay, unless the volume is its own or `removes_volume`.
///
/// A container that is not to be removed (`remove_containers`) keeps its volume; `removes_volume` removes both.
///
/// # Errors
/// A usage error, and nothing is removed, where the container is none of ours, or the volume or folder is not, or another
/// container uses it. The container or the volume cannot be removed.
pub fn stop(engine: &Engine, config: &StorageConfig, removes_volume: bool) -> Result<StorageEnd> {
    stop::stop(engine, config, removes_volume)
}

/// How a storage is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StorageStatus {
    /// Which kind.
    pub kind: StorageKind,
    /// Which engine.
    #[serde(rename = "type")]
    pub engine: EngineType,
    /// Its container, as the engine has it: `running`, `exited`, `gone`; `None`: it has none that is known.
    pub state: Option<String>,
    /// `host:port` that functions use.
    pub address: Option<String>,
    /// The network of the container engine's that `address` is on; absent: the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `host:port` that was asked.
    pub host_address: Option<String>,
    /// Does it answer a signed request with the keys that are known?
    pub answers: bool,
    /// What it or the connection to it said instead; `None`: it answers.
    pub error: Option<String>,
}

/// Asks a storage how it is.
///
/// # Errors
/// The engine cannot be reached, or the cancel token was triggered; that the storage does not answer is no error.
pub fn status(
    engine: &Engine,
    kind: StorageKind,
    config: &StorageConfig,
    cancel: &Cancel,
) -> Result<StorageStatus> {
    stop::status(engine, kind, config, cancel)
}
