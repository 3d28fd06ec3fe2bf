//! `resources list` and `resources cleanup`.

use std::path::{Path, PathBuf};

use sebs_lite::cache::Cache;
use sebs_lite::docker::{Engine, Lifetime};
use sebs_lite::experiment::Configuration;
use sebs_lite::faas::{Resources, SystemResources};
use sebs_lite::local::{CleanupRequest, Inventory, PLATFORM};
use sebs_lite::storage::{self, StorageKind};
use sebs_lite::units::{Unit, parse_duration};
use sebs_lite::{Error, Result, report};

use crate::args::{Cleanup, ListResources};
use crate::exit::Exit;

use super::Context;
use super::resources::{Fate, StorageSettings, TypedStorage};

/// `resources list`.
pub(crate) fn list(context: &Context, args: &ListResources) -> Result<Exit> {
    let cache = context.cache()?;
    let engine = Engine::connect(&context.cancel)?;
    context.line.callback().step("looking", "");
    let inventory = Inventory::take(&engine, &cache)?;
    let mut data = Data::find(context, &args.storage_configuration, args.config.as_deref(), &engine, &cache)?;
    let (buckets, tables) = data.clean(IsDry::Yes)?;
    if context.common.json {
        context.print_json(&serde_json::json!({
            "resources_id": data.resources_id, "resources": inventory, "buckets": buckets, "tables": tables,
        }))?;
    } else {
        context.print(&report::inventory(&inventory.items))?;
        context.print(&report::stored(&buckets, &tables))?;
    }
    Ok(Exit::Done)
}

/// `resources cleanup`.
pub(crate) fn cleanup(context: &Context, args: &Cleanup) -> Result<Exit> {
    let request = request(args)?;
    let cache = context.cache()?;
    let engine = Engine::connect(&context.cancel)?;
    context.line.callback().step("looking", "");
    let inventory = Inventory::take(&engine, &cache)?;
    let mut data = match args.storage {
        true => Data::find(context, &args.storage_configuration, args.config.as_deref(), &engine, &cache)?,
        false => Data::default(),
    };
    // What cannot be done is said before anything is.
    let selected = request.select(&inventory)?;
    if args.dry_run {
        let (buckets, tables) = data.clean(IsDry::Yes)?;
        let selected: Vec<_> = selected.into_iter().cloned().collect();
        show(context, args, &selected, &buckets, &tables)?;
        return Ok(Exit::Done);
    }
    let users = data.users(&inventory, &engine)?;
    if let Some(user) = users.first() {
        return Err(Error::usage(format!(
            "--storage would take the data of container `{user}`, whose command runs: nothing was removed"
        )));
    }
    let mut cleaned = request.run(&inventory, &engine, &cache, &context.cancel)?;
    let (buckets, tables) = data.clean(IsDry::No)?;
    show(context, args, &cleaned.removed, &buckets, &tables)?;
    super::end_with(std::mem::take(&mut cleaned.failures))
}

fn show(
    context: &Context,
    args: &Cleanup,
    removed: &[sebs_lite::local::FoundResource],
    buckets: &[String],
    tables: &[String],
) -> Result<()> {
    if context.common.json {
        return context.print_json(&serde_json::json!({
            "dry_run": args.dry_run, "removed": removed, "buckets": buckets, "tables": tables,
        }));
    }
    let count = removed.len() + buckets.len() + tables.len();
    if count == 0 {
        return context.print("nothing to remove\n");
    }
    let what = if args.dry_run { "would be removed" } else { "removed" };
    context.print(&format!("{what}:\n{}", report::inventory(removed)))?;
    context.print(&report::stored(buckets, tables))
}

fn request(args: &Cleanup) -> Result<CleanupRequest> {
    let asks = args.orphans || args.functions || args.packages || args.images || args.storage;
    if !args.id.is_empty() && asks {
        return Err(Error::usage(
            "ids name all that is to be removed: leave --orphans, --functions, --packages, --images and --storage out",
        ));
    }
    if !args.storage && !args.storage_configuration.is_empty() {
        return Err(Error::usage("--storage-configuration is for --storage: add that, or leave it out"));
    }
    if args.storage && args.older_than.is_some() {
        return Err(Error::usage("buckets and tables have no age: leave --storage or --older-than out"));
    }
    Ok(CleanupRequest {
        functions: args.functions,
        orphans: args.orphans,
        packages: args.packages,
        images: args.images,
        older_than: args.older_than.as_deref().map(|age| parse_duration(age, Unit::Seconds)).transpose()?,
        called: args.id.clone(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IsDry {
    Yes,
    No,
}

/// The buckets and tables of the resources that the cache, or the configuration, names.
#[derive(Default)]
struct Data {
    /// `None`: there are no such resources.
    resources_id: Option<String>,
    storage: Option<SystemResources>,
    has: Vec<StorageKind>,
}

impl Data {
    /// Looks for storage that is configured or was kept; none is started.
    fn find(
        context: &Context,
        files: &[PathBuf],
        config: Option<&Path>,
        engine: &Engine,
        cache: &Cache,
    ) -> Result<Data> {
        let configuration = config.map(Configuration::read).transpose()?.unwrap_or_default();
        let typed = TypedStorage { files, ..TypedStorage::default() };
        let settings = StorageSettings::resolve(&context.common, typed, &configuration)?;
        let known = Resources::load(PLATFORM.name, configuration.resources_id(), cache)?;
        if !known.has_resources_id() {
            return Ok(Data::default());
        }
        let fate = Fate { lifetime: Lifetime::Run, is_kept: false, network: None };
        let mut storage = settings.resources(context, engine, cache, fate)?;
        let mut has = Vec::new();
        for kind in StorageKind::ALL {
            if storage.find(kind)? {
                has.push(kind);
            }
        }
        Ok(Data { resources_id: known.resources_id, storage: Some(storage), has })
    }

    /// Removes the buckets and tables, or only says which there are.
    fn clean(&mut self, is_dry: IsDry) -> Result<(Vec<String>, Vec<String>)> {
        let (mut buckets, mut tables) = (Vec::new(), Vec::new());
        let dry_run = is_dry == IsDry::Yes;
        if let Some(storage) = &mut self.storage {
            if self.has.contains(&StorageKind::Object) {
                buckets = storage.get_storage(None)?.cleanup_buckets(dry_run)?;
            }
            if self.has.contains(&StorageKind::Nosql) {
                tables = storage.get_nosql_storage()?.cleanup_tables(dry_run)?;
            }
        }
        Ok((buckets, tables))
    }

    /// The containers of commands that run whose functions are told of this storage.
    fn users(&self, inventory: &Inventory, engine: &Engine) -> Result<Vec<String>> {
        let Some(storage) = &self.storage else { return Ok(Vec::new()) };
        let in_use = storage.in_use();
        let addresses = in_use.kinds().map(|(_, config)| storage::addresses(engine, config));
        let addresses = addresses.collect::<Result<Vec<_>>>()?.concat();
        inventory.told_of(&addresses.iter().map(String::as_str).collect::<Vec<_>>(), engine)
    }
}
