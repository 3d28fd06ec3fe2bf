//! The storage that a command's functions are given: as typed, as configured, else what the benchmark needs.

use std::path::PathBuf;

use sebs_lite::cache::Cache;
use sebs_lite::docker::{Engine, Lifetime};
use sebs_lite::experiment::Configuration;
use sebs_lite::faas::{StorageOptions, SystemResources};
use sebs_lite::storage::{StorageFile, StorageKind};
use sebs_lite::{Error, Result};

use crate::args::Common;

use super::Context;
use super::storage::current_folder;

/// How the id of resources begins that nobody chose.
const DEFAULT_PREFIX: &str = "local";

/// What was typed of storage.
#[derive(Clone, Copy, Default)]
pub(super) struct TypedStorage<'a> {
    pub(super) files: &'a [PathBuf],
    pub(super) update_storage: bool,
    pub(super) resource_prefix: Option<&'a str>,
}

/// What was typed and configured of storage, brought together.
#[derive(Default)]
pub(crate) struct StorageSettings {
    /// What was typed, which functions are told of whether or not their benchmark needs it.
    pub(crate) typed: StorageFile,
    /// That, and what the configuration file says beside it.
    configured: StorageFile,
    pub(super) update_storage: bool,
    resource_prefix: Option<String>,
    resources_id: Option<String>,
}

/// Where storage is put that is started, and what becomes of it.
pub(crate) struct Fate {
    pub(crate) lifetime: Lifetime,
    /// Is it there for later commands?
    pub(crate) is_kept: bool,
    /// The network that functions run on, by its name; `None`: the engine's default one.
    pub(crate) network: Option<String>,
}

impl StorageSettings {
    /// Brings together what was typed and what the configuration file says.
    pub(super) fn resolve(
        common: &Common,
        typed: TypedStorage<'_>,
        configuration: &Configuration,
    ) -> Result<StorageSettings> {
        if typed.resource_prefix == Some("") {
            return Err(Error::usage(
                "--resource-prefix cannot be empty: leave it out to have the usual one",
            ));
        }
        let from_files = read(typed.files)?;
        Ok(StorageSettings {
            configured: from_files.clone().or(configuration.storage()?),
            typed: from_files,
            update_storage: common
                .switch("update-storage", typed.update_storage)
                .or(configuration.experiments.update_storage)
                .unwrap_or(false),
            resource_prefix: typed.resource_prefix.map(str::to_string),
            resources_id: configuration.resources_id().map(str::to_string),
        })
    }

    /// The storage for the functions of a command; nothing is started yet.
    pub(crate) fn resources(
        &self,
        context: &Context,
        engine: &Engine,
        cache: &Cache,
        fate: Fate,
    ) -> Result<SystemResources> {
        let options = StorageOptions {
            configured: self.configured.clone(),
            lifetime: fate.lifetime,
            keeps_storage: fate.is_kept,
            update_storage: self.update_storage,
            resources_id: self.resources_id.clone(),
            resource_prefix: self.resource_prefix.clone().unwrap_or_else(|| DEFAULT_PREFIX.to_string()),
            folder: current_folder()?,
            network: fate.network,
        };
        Ok(SystemResources::new(engine, cache, options, &context.line.callback(), &context.cancel))
    }
}

/// What several files say; each kind may stand in one of them.
fn read(files: &[PathBuf]) -> Result<StorageFile> {
    let mut all = StorageFile::default();
    for path in files {
        let file = StorageFile::read(path)?;
        let twice: Option<StorageKind> =
            file.kinds().map(|(kind, _)| kind).find(|kind| all.of(*kind).is_some());
        if let Some(kind) = twice {
            return Err(Error::usage(format!(
                "`{}` says where {kind} storage is, and so does another --storage-configuration: leave one out",
                path.display()
            )));
        }
        if file == StorageFile::default() {
            return Err(Error::usage(format!("`{}` says nothing of storage", path.display())));
        }
        all = all.or(file);
    }
    Ok(all)
}
