//! `storage start`, `stop` and `status`.

use std::path::{Path, PathBuf};

use sebs_lite::docker::{ChosenNetwork, Engine, Lifetime, Owner};
use sebs_lite::storage::{
    self, EngineType, RunningStorage, StartRequest, StorageConfig, StorageFile, StorageKind, StorageRecord,
};
use sebs_lite::{Error, Result, report};

use crate::args::{StartStorage, StatusOfStorage, StopStorage};
use crate::exit::Exit;

use super::{Context, missing_is_usage};

/// `storage start`.
pub(crate) fn start(context: &Context, args: &StartStorage) -> Result<Exit> {
    let kinds = kinds(&args.kind)?;
    let mut wanted = wanted(args, &kinds)?;
    let output = args.output_json.clone().unwrap_or_else(|| PathBuf::from("storage.json"));
    let engine = Engine::connect(&context.cancel)?;
    check_networks(&engine, &mut wanted)?;
    let mut record = StorageRecord::claim(&output)?;
    record.make_free(&engine)?;
    let (started, running) = start_all(context, &engine, &wanted, &mut record)?;
    running.into_iter().for_each(|storage| drop(storage.keep()));
    let path = record.path().to_path_buf();
    record.confirm();
    if context.common.json {
        context.print_json(&started.without_secrets())?;
    } else {
        context.print(&report::storage(&started, &path))?;
    }
    Ok(Exit::Done)
}

/// Starts each kind. The file is written before each step, so that `storage stop` can undo what a killed command did.
fn start_all(
    context: &Context,
    engine: &Engine,
    wanted: &StorageFile,
    record: &mut StorageRecord,
) -> Result<(StorageFile, Vec<RunningStorage>)> {
    let lifetime = Lifetime::Kept { file: record.path().to_path_buf() };
    let request = StartRequest {
        engine,
        owner: &Owner::current()?,
        lifetime: &lifetime,
        folder: &current_folder()?,
        keeps_data: true,
        progress: &context.line.callback(),
        cancel: &context.cancel,
    };
    let (mut file, mut running) = (wanted.clone(), Vec::new());
    record.write(&file)?;
    for (kind, config) in wanted.kinds() {
        let started = storage::start(kind, config, &request)?;
        log::info!("{kind} storage: {}", started.reason);
        *file.place(kind) = Some(started.config.clone());
        record.write(&file)?;
        running.push(started);
    }
    context.cancel.check()?;
    Ok((file, running))
}

/// `storage stop`.
pub(crate) fn stop(context: &Context, args: &StopStorage) -> Result<Exit> {
    let kinds = kinds(&args.kind)?;
    let record = StorageRecord::open(&args.input, &context.cancel).map_err(missing_is_usage)?;
    context.line.callback().step("stopping", &record.path().display().to_string());
    let engine = Engine::connect(&context.cancel)?;
    let mut shutdown = record.stop(&kinds, args.remove_volume, &engine)?;
    shutdown.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let failures = std::mem::take(&mut shutdown.failures);
    if context.common.json {
        context.print_json(&serde_json::json!({
            "storage": shutdown.storage, "left_behind": shutdown.left_behind, "warnings": shutdown.warnings,
        }))?;
    } else {
        context.print(&report::storage_shutdown(&shutdown))?;
    }
    super::end_with(failures)
}

/// `storage status`.
pub(crate) fn status(context: &Context, args: &StatusOfStorage) -> Result<Exit> {
    let file = StorageFile::read(&args.input)?;
    let engine = Engine::connect(&context.cancel)?;
    let status = file.kinds().map(|(kind, config)| storage::status(&engine, kind, config, &context.cancel));
    let status = status.collect::<Result<Vec<_>>>()?;
    if status.is_empty() {
        return Err(Error::usage(format!("`{}` names no storage", args.input.display())));
    }
    if context.common.json {
        context.print_json(&status)?;
    } else {
        context.print(&report::storage_status(&status))?;
    }
    let all_answer = status.iter().all(|storage| storage.answers);
    Ok(if all_answer { Exit::Done } else { Exit::Unsatisfied })
}

/// The folder that relative paths of a configuration are below, as SeBS has it.
pub(super) fn current_folder() -> Result<PathBuf> {
    std::env::current_dir()
        .map_err(|error| Error::new(format!("failed to find the folder that this runs in: {error}")))
}

fn kinds(name: &str) -> Result<Vec<StorageKind>> {
    if name == "all" {
        return Ok(StorageKind::ALL.to_vec());
    }
    match StorageKind::ALL.into_iter().find(|kind| kind.name() == name) {
        Some(kind) => Ok(vec![kind]),
        None => Err(Error::usage(format!("storage `{name}` is not known: it must be object, nosql or all"))),
    }
}

/// How each kind that was asked for is to be started.
fn wanted(args: &StartStorage, kinds: &[StorageKind]) -> Result<StorageFile> {
    let configured = args.config.as_deref().map(StorageFile::read).transpose()?;
    if let Some((configured, path)) = configured.as_ref().zip(args.config.as_deref()) {
        check_configured(configured, kinds, path)?;
    }
    let configured = configured.unwrap_or_default();
    let mut wanted = StorageFile::default();
    for kind in kinds {
        let mut config = match &args.engine {
            Some(name) => StorageConfig::of(engine_for(name, kinds, args.config.as_deref())?),
            None => configured.of(*kind).cloned().unwrap_or_default(),
        };
        if let Some(network) = &args.network {
            check_started(config.engine)?;
            config.network = Some(network.clone());
        }
        // A file of storage that was started once tells how to start it again.
        *wanted.place(*kind) = Some(match config.engine.is_external() {
            true => config,
            false => StorageConfig { address: None, host_address: None, instance_id: None, ..config },
        });
    }
    Ok(wanted)
}

/// Sees that each is to be put on a network that is there, before anything is started.
fn check_networks(engine: &Engine, wanted: &mut StorageFile) -> Result<()> {
    for kind in StorageKind::ALL {
        if let Some(config) = wanted.place(kind) {
            let network = ChosenNetwork::find(engine, config.network.as_deref())?;
            config.network = network.map(|network| network.name);
        }
    }
    Ok(())
}

fn check_started(engine: EngineType) -> Result<()> {
    if engine.is_external() {
        return Err(Error::usage(format!(
            "--network is for storage that is started, and `{engine}` is an endpoint that is there already: leave it out"
        )));
    }
    Ok(())
}

fn check_configured(configured: &StorageFile, kinds: &[StorageKind], path: &Path) -> Result<()> {
    if configured.kinds().any(|(kind, _)| kinds.contains(&kind)) {
        return Ok(());
    }
    let kinds = kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or ");
    Err(Error::usage(format!("`{}` says nothing of {kinds} storage", path.display())))
}

fn engine_for(name: &str, kinds: &[StorageKind], config: Option<&Path>) -> Result<EngineType> {
    if let Some(config) = config {
        let text = format!("--engine and `{}` both say which engine: leave one out", config.display());
        return Err(Error::usage(text));
    }
    let [kind] = kinds else {
        return Err(Error::usage("--engine is for object or nosql alone: a configuration file names both"));
    };
    let engine: EngineType = name.parse()?;
    if engine.is_external() {
        return Err(Error::usage(format!(
            "`{engine}` is an endpoint that is there already, and is not started: a configuration file says its address \
             and keys, for --storage-configuration of the commands that use it"
        )));
    }
    match engine.kind() {
        Some(of_engine) if of_engine != *kind => {
            Err(Error::usage(format!("`{engine}` is no engine for {kind} storage, but for {of_engine}")))
        }
        _ => Ok(engine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(kind: &str, engine: Option<&str>) -> StartStorage {
        StartStorage {
            kind: kind.to_string(),
            config: None,
            output_json: None,
            engine: engine.map(str::to_string),
            network: None,
        }
    }

    fn engines(kind: &str, engine: Option<&str>) -> Result<Vec<EngineType>> {
        let wanted = wanted(&typed(kind, engine), &kinds(kind)?)?;
        Ok(wanted.kinds().map(|(_, config)| config.engine).collect())
    }

    #[test]
    fn what_is_to_be_started_is_what_was_typed() {
        assert_eq!(engines("all", None).unwrap(), [EngineType::Auto, EngineType::Auto]);
        assert_eq!(engines("object", Some("seaweedfs")).unwrap(), [EngineType::SeaweedFs]);
        for (kind, engine, told) in [
            ("tables", None, "object, nosql or all"),
            ("all", Some("minio"), "object or nosql alone"),
            ("object", Some("dynoxide"), "no engine for object"),
            ("object", Some("redis"), "must be one of"),
            ("object", Some("s3"), "--storage-configuration"),
        ] {
            let error = engines(kind, engine).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(told), "{error}");
        }
    }
}
