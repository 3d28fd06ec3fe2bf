//! `benchmark list`, `package` and `invoke`.

use std::path::{Path, PathBuf};

use sebs_lite::benchmark::{Benchmark, InputProcess, ResultStorage, Source, Verdict};
use sebs_lite::docker::{Engine, Lifetime};
use sebs_lite::experiment::{
    Environment, ExperimentResult, FunctionSettings, Repetitions, ResultConfig, ResultStore, StorageUsed,
    attribute_memory, note_storage, repeat,
};
use sebs_lite::faas::{
    Function, FunctionConfig, Language, Resources, StartKind, System, SystemResources, TriggerType,
    Validation,
};
use sebs_lite::host::Host;
use sebs_lite::local::{Local, LocalOptions, Prepared, check_trigger, prepare};
use sebs_lite::probe::Output;
use sebs_lite::storage::StorageFile;
use sebs_lite::units::Bytes;
use sebs_lite::{Error, Result, clock, report};

use crate::args::{Invoke, List, Package};
use crate::exit::Exit;

use super::input::{InputChoices, check_payload, check_size, make_input, read_input};
use super::options::{Limits, TypedOptions, measuring, pool_limits};
use super::resources::Fate;
use super::settings::BuildSettings;
use super::{Context, VERSION, missing_is_usage};

/// `benchmark list`.
pub(crate) fn list(context: &Context, args: &List) -> Result<Exit> {
    let listings = Benchmark::list(&args.benchmarks).map_err(missing_is_usage)?;
    let mut rows = vec![["benchmark", "languages", "memory", "timeout", "from"].map(str::to_string).to_vec()];
    let mut json = Vec::new();
    for listing in &listings {
        let from = match &listing.source {
            Source::Bundled => "bundled".to_string(),
            Source::Folder { path, .. } => path.display().to_string(),
        };
        let mut row = vec![listing.name.clone()];
        match &listing.config {
            Ok(config) => {
                let languages: Vec<&str> =
                    config.languages.iter().map(|support| support.name.as_str()).collect();
                row.extend([
                    languages.join(", "),
                    format!("{} MB", config.memory_mb),
                    format!("{} s", config.timeout_s),
                ]);
                json.push(serde_json::json!({
                    "benchmark": listing.name, "from": from, "languages": languages,
                    "memory_mb": config.memory_mb, "timeout_s": config.timeout_s,
                }));
            }
            Err(error) => {
                row.extend(["-", "-", "-"].map(str::to_string));
                log::warn!("{error}");
                json.push(
                    serde_json::json!({"benchmark": listing.name, "from": from, "error": error.to_string()}),
                );
            }
        }
        row.push(from);
        rows.push(row);
    }
    if context.common.json {
        context.print_json(&json)?
    } else {
        context.print(&report::columns(&rows))?
    }
    Ok(Exit::Done)
}

/// `benchmark package`.
pub(crate) fn package(context: &Context, args: &Package) -> Result<Exit> {
    let settings = BuildSettings::of_package(&context.common, args)?;
    let cache = context.cache()?;
    let benchmark = settings.find_benchmark(&cache)?;
    let engine = Engine::connect(&context.cancel)?;
    let Prepared { package, image } =
        prepare(&benchmark, &settings.choices, &engine, &cache, &context.cancel, &context.line.callback())?;
    if context.common.json {
        context.print_json(&serde_json::json!({
            "benchmark": package.benchmark, "location": package.location, "size_bytes": package.size_bytes,
            "hash": package.hash, "rebuilt": package.rebuilt, "image": image.reference, "image_id": image.id,
            "container": package.container,
        }))?;
    } else {
        let state = if package.rebuilt { "built" } else { "unchanged" };
        context.print(&format!(
            "{} ({}, {state})\n",
            package.location.display(),
            Bytes(package.size_bytes)
        ))?;
        if let Some(image) = &package.container {
            context.print(&report::function_image(image))?;
        }
    }
    Ok(Exit::Done)
}

/// `benchmark invoke`.
pub(crate) fn invoke(context: &Context, args: &Invoke) -> Result<Exit> {
    let measured = measure(context, args, None)?;
    show(context, &measured.result, measured.path.as_deref(), measured.outcome.as_ref().ok())?;
    measured.outcome?;
    measured.closed?;
    Ok(verdict(&measured.result))
}

/// What a run gave, be it all or the part before a failure.
pub(super) struct Measured {
    pub(super) result: ExperimentResult,
    /// Where it was saved; `None`: nothing was measured.
    pub(super) path: Option<PathBuf>,
    pub(super) outcome: Result<Function>,
    /// Was all released that was not to be kept?
    pub(super) closed: Result<()>,
}

/// Runs a benchmark, with storage of its own unless it is given some, which its giver releases.
pub(super) fn measure(
    context: &Context,
    args: &Invoke,
    shared: Option<&mut SystemResources>,
) -> Result<Measured> {
    check_size(&args.size)?;
    let settings = BuildSettings::of_invoke(&context.common, args)?;
    check_trigger(args.trigger.as_deref().map_or(Ok(TriggerType::Http), str::parse)?)?;
    let limits = Limits::check(args.memory, args.timeout, args.cpus, args.cpuset.as_deref())?;
    let output_dir = args.output_dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let mut options = local_options(args, &output_dir)?;
    let own_input = args.input.as_deref().map(|name| read_input(name, &context.cancel)).transpose()?;

    let cache = context.cache()?;
    let benchmark = settings.find_benchmark(&cache)?;
    let begin_time = clock::epoch_seconds();
    let mut store = ResultStore::claim(&output_dir, begin_time)?;
    if let Some(measure) = &mut options.measure {
        measure.output = Output::Stream(store.recording_path(begin_time));
    }
    let engine = Engine::connect(&context.cancel)?;
    options.check_network(&engine)?;
    // Dropped after the platform is: functions may use it to their end.
    let mut own;
    let is_shared = shared.is_some();
    let resources: &mut SystemResources = match shared {
        Some(shared) => shared,
        None => {
            own = settings.storage.resources(context, &engine, &cache, fate_of_storage(args, &options))?;
            &mut own
        }
    };
    let choices = InputChoices {
        size: &args.size,
        own: own_input,
        python: args.input_python.as_deref(),
        validates: args.validate,
        demanded: &settings.storage.typed,
    };
    let (payload, input) = make_input(context, &engine, &benchmark, choices, resources)?;
    options.storage_env = resources.envs(&benchmark.name);
    options.storage = resources.in_use();
    let prepared =
        prepare(&benchmark, &settings.choices, &engine, &cache, &context.cancel, &context.line.callback())?;
    let config = limits.over(FunctionConfig::from_package(&prepared.package));
    check_payload(&payload, &options)?;

    let function_settings = function_settings(args, &prepared, &config, &options);
    let mut local = Local::new(engine.clone(), cache, options, &context.cancel)?;
    let result_config = ResultConfig {
        deployment: describe(&local, resources)?,
        experiments: settings.as_recorded(&prepared.package),
        function: Some(function_settings),
    };
    let environment = environment(&engine, &prepared, resources)?;
    let mut result = ExperimentResult::begin(result_config, environment, clock::epoch_seconds());
    context.line.callback().step("starting the function", "");
    let mut function = local.get_function(&prepared.package, args.function_name.as_deref(), &config);
    let invoked = match &mut function {
        Ok(function) => run(context, args, &mut local, function, &payload, &mut result, &mut store),
        Err(_) => Ok(()),
    };
    let attributed = attribute(&mut local, &mut result, &mut store);
    // Of a run that broke off, the invocations that were made are told of in full, too.
    let told = match &function {
        Ok(function) if result.invocations_of(&function.name).next().is_some() => {
            download_metrics(&mut local, function, &mut result, &mut store)
        }
        _ => Ok(()),
    };
    let outcome = function.and_then(|mut function| {
        first_error([invoked, attributed, told])?;
        if args.validate {
            resources.follow().unwrap_or_else(|error| log::warn!("{error}"));
            let storage = &mut ResultStorage(resources);
            let language = prepared.package.runtime.language;
            let judged = validate(&mut result, &function, input, &payload, language, storage);
            store.save(&result)?;
            judged?;
        }
        if local.is_kept(&function) {
            // Of a run of cold starts none is left.
            local.ensure_instances(&mut function, 1)?;
            if keep(&mut local, &function)? {
                warn_of_lost_storage(resources, args);
            }
        }
        Ok(function)
    });
    let closed = local.shutdown();
    let released = if is_shared { Ok(()) } else { resources.shutdown() };
    let path = store.saved_path().map(Path::to_path_buf);
    Ok(Measured { result, path, outcome, closed: closed.and(released) })
}

/// A function that is kept would be lost without its storage.
fn fate_of_storage(args: &Invoke, options: &LocalOptions) -> Fate {
    Fate { lifetime: Lifetime::Run, is_kept: keeps_storage(args), network: options.network.clone() }
}

fn keeps_storage(args: &Invoke) -> bool {
    args.keep || args.keep_storage
}

/// A function that an earlier command kept outlives this one, which was not asked to keep anything.
fn warn_of_lost_storage(resources: &SystemResources, args: &Invoke) {
    if !resources.started().is_empty() && !keeps_storage(args) {
        log::warn!(
            "the function is kept, but the storage that was started for this run is not: add --keep-storage"
        );
    }
}

/// What the result says of the platform, and of the storage that is in use.
fn describe(local: &Local, resources: &mut SystemResources) -> Result<serde_json::Value> {
    let mut description = local.description();
    let in_use = resources.in_use();
    if in_use != StorageFile::default() {
        let id = resources.resources_id()?;
        let known = Resources::load(local.name(), Some(&id), local.cache())?;
        note_storage(&mut description, &in_use, &known);
    }
    Ok(description)
}

/// The first error; those after it are warnings.
fn first_error(outcomes: [Result<()>; 3]) -> Result<()> {
    let mut errors = outcomes.into_iter().filter_map(Result::err);
    let Some(first) = errors.next() else { return Ok(()) };
    errors.filter(|error| !error.is_cancelled()).for_each(|error| log::warn!("{error}"));
    Err(first)
}

/// Invokes the function.
fn run(
    context: &Context,
    args: &Invoke,
    local: &mut Local,
    function: &mut Function,
    payload: &str,
    result: &mut ExperimentResult,
    store: &mut ResultStore,
) -> Result<()> {
    let progress = context.line.callback();
    local.ensure_instances(function, args.deployments.unwrap_or(1) as usize)?;
    let repetitions = Repetitions {
        payload,
        warmup: args.warmup.unwrap_or(0),
        count: args.repetitions.unwrap_or(1),
        concurrency: args.concurrency.unwrap_or(1),
        start: if args.cold { StartKind::Cold } else { StartKind::Any },
    };
    progress.count("invoking", 0, repetitions.count.into());
    let mut told = |number: u32, _: &_| progress.count("invoking", number.into(), repetitions.count.into());
    repeat(local, function, &repetitions, result, store, &mut told)
}

/// Ends the sampling of memory, and writes into the result what it says of each invocation.
fn attribute(local: &mut Local, result: &mut ExperimentResult, store: &mut ResultStore) -> Result<()> {
    let Some(recording) = local.finish_measurement()? else { return Ok(()) };
    let name = recording.path().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    attribute_memory(result, &recording, name)?;
    store.save(result)
}

/// Asks the platform what it knows of the invocations and of the function's instances.
fn download_metrics(
    local: &mut Local,
    function: &Function,
    result: &mut ExperimentResult,
    store: &mut ResultStore,
) -> Result<()> {
    let invocations = result.invocations.0.iter_mut().filter(|(name, _)| *name == function.name);
    let metrics = local
        .download_metrics(function, &mut invocations.flat_map(|(_, invocations)| invocations.values_mut()))?;
    result.metrics.insert(function.name.clone(), metrics.into());
    store.save(result)
}

fn local_options(args: &Invoke, output_dir: &Path) -> Result<LocalOptions> {
    let typed = TypedOptions {
        function_name: args.function_name.as_deref(),
        env: &args.env,
        address: args.address.as_deref(),
        port: args.port,
        network: args.network.as_deref(),
        start_timeout: args.start_timeout.as_deref(),
        max_payload: args.max_payload.as_deref(),
        privileged: args.privileged,
    };
    let (max_instances, idle_timeout) = pool_limits(args)?;
    Ok(LocalOptions {
        keep: args.keep,
        max_instances: Some(max_instances as usize),
        idle_timeout,
        keeps_connection: args.keep_alive,
        logs: Some(output_dir.join("logs")),
        measure: measuring(args.measure_interval.as_deref(), args.realtime, args.cpu)?,
        ..typed.check()?
    })
}

/// What the function is run with, for the result.
fn function_settings(
    args: &Invoke,
    prepared: &Prepared,
    config: &FunctionConfig,
    options: &LocalOptions,
) -> FunctionSettings {
    FunctionSettings {
        limits: config.clone(),
        code_package_hash: prepared.package.hash.clone(),
        container: prepared.package.container.clone(),
        environment_names: options.variables().map(|(name, _)| name.to_string()).collect(),
        privileged: options.privileged,
        network: options.network.clone(),
        keep_alive: options.keeps_connection,
        warmup: args.warmup.unwrap_or(0),
        concurrency: args.concurrency.unwrap_or(1),
        max_instances: options.max_instances.and_then(|limit| limit.try_into().ok()),
        cold: args.cold,
    }
}

fn environment(engine: &Engine, prepared: &Prepared, resources: &SystemResources) -> Result<Environment> {
    let info = engine.info()?;
    Ok(Environment {
        host: Host::read(),
        engine: Some(info.product.clone()),
        engine_version: Some(engine.version()?.version),
        is_engine_rootless: Some(info.is_rootless()),
        limits_not_set: info.missing_limits(),
        image_id: Some(prepared.image.id.clone()),
        image_source: Some(prepared.image.source.to_string()),
        interpreter: Some(prepared.image.build.clone()).filter(|build| !build.is_empty()),
        libc: Some(prepared.image.libc.clone()).filter(|libc| !libc.is_empty()),
        storage: StorageUsed::of(engine, &resources.in_use())?,
        tool: Some(VERSION.to_string()),
    })
}

/// Has every output judged, after the last was measured.
fn validate(
    result: &mut ExperimentResult,
    function: &Function,
    input: Option<InputProcess>,
    payload: &str,
    language: Language,
    storage: &mut ResultStorage<'_>,
) -> Result<()> {
    let payload = serde_json::from_str(payload).map_err(|error| Error::new(error.to_string()))?;
    let mut input = input;
    let invocations = result.invocations.0.iter_mut().filter(|(name, _)| *name == function.name);
    for invocation in invocations.flat_map(|(_, invocations)| invocations.values_mut()) {
        let Some(output) = invocation.handler_output().filter(|_| !invocation.stats.failure) else {
            continue;
        };
        let verdict = match &mut input {
            None => Ok(Verdict::NotValidated),
            Some(process) => process.validate_output(&payload, output.get(), language, storage),
        };
        invocation.invocation.validation = Some(match verdict {
            Ok(Verdict::Valid) => Validation::Valid,
            Ok(Verdict::Invalid(reason)) => Validation::Invalid(reason),
            Ok(Verdict::NotValidated) => Validation::NotValidated,
            Err(error) if error.is_cancelled() => return Err(error),
            // A validator that cannot judge has not found the output right.
            Err(error) => Validation::Invalid(error.to_string()),
        });
    }
    input.map_or(Ok(()), InputProcess::stop)
}

/// `false`: another command has kept one of that name.
fn keep(local: &mut Local, function: &Function) -> Result<bool> {
    if !local.keep(function)? {
        return Ok(false);
    }
    let urls: Vec<String> =
        function.instances.iter().map(|instance| format!("http://{}", instance.url)).collect();
    log::info!(
        "function `{0}` is kept at {1} (`sebs-lite resources cleanup {0}` removes it)",
        function.name,
        urls.join(", ")
    );
    Ok(true)
}

/// Prints what was measured, be it all or the part before a failure.
fn show(
    context: &Context,
    result: &ExperimentResult,
    path: Option<&Path>,
    function: Option<&Function>,
) -> Result<()> {
    if context.common.json {
        return if function.is_some() { context.print_json(result) } else { Ok(()) };
    }
    for (name, invocations) in &result.invocations.0 {
        if !invocations.0.is_empty() {
            context.print(&format!("{name}\n{}\n", report::invocations(result, name)))?;
            let measurement = result.measurement.as_ref().map(report::measurement).unwrap_or_default();
            context.print(&measurement)?;
            if let Some(path) = path {
                context.print(&format!("results: {}\n", path.display()))?;
            }
        }
    }
    Ok(())
}

pub(super) fn verdict(result: &ExperimentResult) -> Exit {
    let mut invocations = result.invocations.values().flat_map(|invocations| invocations.values());
    let is_bad = invocations.any(|invocation| {
        invocation.stats.failure || matches!(invocation.invocation.validation, Some(Validation::Invalid(_)))
    });
    if is_bad {
        return Exit::Unsatisfied;
    }
    if result.measurement.as_ref().is_some_and(|measurement| measurement.lost_samples > 0) {
        log::error!("samples of memory could not be kept: see the warnings");
        return Exit::Failed;
    }
    Exit::Done
}
