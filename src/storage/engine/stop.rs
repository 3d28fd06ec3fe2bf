//! Stops a storage with what goes with it, or says how it is.

use std::time::Duration;

use super::data::Source;
use super::keys::Keys;
use super::server::{LABEL, Server};
use super::{EngineType, StorageConfig, StorageEnd, StorageKind, StorageStatus, folder, ready};
use crate::cancel::Cancel;
use crate::docker::{ContainerInspect, Engine, Owner};
use crate::error::{Error, Result};

/// How long a server may take to answer whose container runs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// As [`stop`](super::stop()) documents it.
pub(super) fn stop(engine: &Engine, config: &StorageConfig, removes_volume: bool) -> Result<StorageEnd> {
    let Some(id) = config.instance_id.as_deref().filter(|_| !config.engine.is_external()) else {
        return Ok(StorageEnd::External);
    };
    let found = inspect(engine, id)?;
    found.as_ref().map_or(Ok(()), |found| check_ours(found, config))?;
    let container_stays = config.remove_containers == Some(false) && !removes_volume;
    let goes = removes_volume || (config.owns_volume && !container_stays);
    let doomed = if goes { removable(engine, config)? } else { None };
    if let Some(doomed) = &doomed {
        let own = found.as_ref().map(|found| found.id.as_str());
        doomed.check_alone(engine, &Owner::current()?, own)?;
    }
    let end = match &found {
        None => StorageEnd::Gone,
        Some(found) => {
            // What goes with its data need not write them down first.
            if doomed.is_none() {
                engine.stop_container(&found.id, stop_limit(config))?;
            }
            if container_stays {
                StorageEnd::Stopped
            } else {
                engine.remove_container(&found.id)?;
                StorageEnd::Removed
            }
        }
    };
    match &doomed {
        None => {}
        Some(Source::Folder(path)) => folder::remove_data(path)?,
        Some(Source::Volume(name)) => engine.remove_volume(name)?,
    }
    Ok(end)
}

/// As [`status`](super::status) documents it.
pub(super) fn status(
    engine: &Engine,
    kind: StorageKind,
    config: &StorageConfig,
    cancel: &Cancel,
) -> Result<StorageStatus> {
    let container = match &config.instance_id {
        Some(id) => Some(inspect(&engine.with_cancel(cancel), id)?),
        None => None,
    };
    let state = container.as_ref().map(|found| match found {
        Some(found) => found.state.status.clone(),
        None => "gone".to_string(),
    });
    let here = container.as_ref().and_then(|found| found.as_ref());
    let config = &here.map_or_else(|| config.clone(), |found| config.at(found));
    let ended = container.as_ref().and_then(|found| why_not_running(found.as_ref(), config));
    let asked = match ended {
        Some(why) => Err(Error::new(why)),
        None => ready::ask(kind, config, cancel),
    };
    let error = match asked {
        Ok(()) => None,
        Err(error) if error.is_cancelled() => return Err(error),
        Err(error) => Some(error.to_string()),
    };
    Ok(StorageStatus {
        kind,
        engine: config.engine,
        state,
        address: config.address.clone(),
        network: config.network.clone(),
        host_address: config.host_address.clone(),
        answers: error.is_none(),
        error,
    })
}

/// A storage that was started before, where its container has it by now. One whose container is not here, which may run in
/// another engine, is asked where its configuration says.
///
/// # Errors
/// It does not run, or does not answer: why, and what to do.
pub(super) fn located(engine: &Engine, config: &StorageConfig, cancel: &Cancel) -> Result<StorageConfig> {
    let found = match &config.instance_id {
        Some(id) => inspect(engine, id)?,
        None => None,
    };
    let why = config.instance_id.as_ref().and_then(|_| why_not_running(found.as_ref(), config));
    let why = why.map(|why| format!("{why}: start storage anew, which finds its data"));
    match (found, why) {
        (Some(_), Some(why)) => Err(Error::new(why)),
        (None, Some(gone)) => {
            ready::check_answers(config, cancel).map_err(|error| error.context(gone))?;
            Ok(config.clone())
        }
        (Some(found), None) => {
            let config = config.at(&found);
            ready::wait_until_answers(&config, ANSWER_LIMIT, cancel)?;
            Ok(config)
        }
        (None, None) => {
            ready::check_answers(config, cancel)?;
            Ok(config.clone())
        }
    }
}

/// As [`restore`](super::restore) documents it.
pub(super) fn restore(engine: &Engine, config: &StorageConfig, cancel: &Cancel) -> Result<()> {
    let Some(id) = &config.instance_id else { return Ok(()) };
    let Some(found) = inspect(engine, id)?.filter(|found| !found.state.running) else { return Ok(()) };
    log::warn!("storage `{}` has ended with the engine: it is started again", config.engine);
    engine.start_container(&found.id)?;
    let now = config.at(&engine.inspect_container(&found.id)?);
    let address = |config: &StorageConfig| config.address.clone().unwrap_or_default();
    if now.address != config.address {
        return Err(Error::new(format!(
            "storage `{}`, which was at {}, is at {} since the engine came back, which functions are not told: run the \
             command again",
            config.engine,
            address(config),
            address(&now)
        )));
    }
    let limit = server_of(config).map_or(ANSWER_LIMIT, |server| server.ready_within);
    ready::wait_until_answers(&now, limit, cancel)
}

/// How long a server may take to end in peace.
pub(super) fn stop_limit(config: &StorageConfig) -> Duration {
    server_of(config).map_or(Duration::from_secs(10), |server| server.stops_within)
}

/// How its server is run, without keys; `None`: in no container.
fn server_of(config: &StorageConfig) -> Option<Server> {
    Server::of(config, &Keys { access_key: String::new(), secret_key: String::new() })
}

fn why_not_running(found: Option<&ContainerInspect>, config: &StorageConfig) -> Option<String> {
    let engine = config.engine;
    match found {
        None => {
            let id = config.instance_id.as_deref().unwrap_or_default();
            let id = crate::docker::short_id(id).unwrap_or(id);
            Some(format!("container `{id}` of storage `{engine}` is gone"))
        }
        Some(found) if found.state.paused => {
            Some(format!("container `{}` of storage `{engine}` is paused", found.name))
        }
        Some(found) if found.state.running => None,
        Some(found) => Some(format!(
            "container `{}` of storage `{engine}` does not run: it is {}, with exit code {}",
            found.name, found.state.status, found.state.exit_code
        )),
    }
}

pub(super) fn inspect(engine: &Engine, id: &str) -> Result<Option<ContainerInspect>> {
    match engine.inspect_container(id) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file may name any container. Those of SeBS have no label of ours, but the image of their engine.
fn check_ours(found: &ContainerInspect, config: &StorageConfig) -> Result<()> {
    let repository = match config.engine {
        EngineType::Minio => Some("minio/minio"),
        EngineType::ScyllaDb => Some("scylladb/scylla"),
        _ => None,
    };
    let image = found.config.image.rsplit_once(':').map_or(found.config.image.as_str(), |(name, _)| name);
    let is_sebs = repository.is_some_and(|repository| image.ends_with(repository));
    if is_sebs || found.config.labels.contains_key(LABEL) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "container `{}` is not stopped: it has no label `{LABEL}`, so it was not started as storage by this program, and \
         its image is not one of SeBS's storage",
        found.name
    )))
}

/// The place of the data, which may be removed; `None`: it is gone, or not known.
fn removable(engine: &Engine, config: &StorageConfig) -> Result<Option<Source>> {
    let Some(source) = config.engine.kind().and_then(|kind| Source::of(kind, config)) else {
        return Ok(None);
    };
    match &source {
        Source::Folder(path) => folder::check_ours(path)?,
        Source::Volume(name) => match engine.inspect_volume(name) {
            Ok(found) if found.labels.contains_key(LABEL) => {}
            Ok(_) => {
                return Err(Error::usage(format!(
                    "volume `{name}` is not removed: it has no label `{LABEL}`, so it was not made for storage by this \
                     program"
                )));
            }
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        },
    }
    Ok(Some(source))
}
