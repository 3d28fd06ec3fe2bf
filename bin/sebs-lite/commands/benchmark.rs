//! `benchmark list`, `package` and `invoke`.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use sebs_lite::benchmark::{Benchmark, InputProcess, InputPython, InputRequest, NoStorage, Source, Verdict};
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::experiment::{
    Environment, ExperimentResult, FunctionSettings, Repetitions, ResultConfig, ResultStore, repeat,
};
use sebs_lite::faas::{Function, FunctionConfig, Language, System, TriggerType, Validation};
use sebs_lite::host::Host;
use sebs_lite::local::{AddressMode, Local, LocalOptions, Prepared, check_trigger, prepare};
use sebs_lite::units::{self, Bytes, Unit};
use sebs_lite::{Error, Result, clock, report};

use crate::args::{Invoke, List, Package};
use crate::exit::Exit;

use super::settings::BuildSettings;
use super::{Context, VERSION};

/// `benchmark list`.
pub(crate) fn list(context: &Context, args: &List) -> Result<Exit> {
    let listings = Benchmark::list(&args.benchmarks)?;
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
        }))?;
    } else {
        let state = if package.rebuilt { "built" } else { "unchanged" };
        context.print(&format!(
            "{} ({}, {state})\n",
            package.location.display(),
            Bytes(package.size_bytes)
        ))?;
    }
    Ok(Exit::Done)
}

/// `benchmark invoke`.
pub(crate) fn invoke(context: &Context, args: &Invoke) -> Result<Exit> {
    check_size(&args.size)?;
    if args.repetitions == Some(0) {
        return Err(Error::usage("--repetitions 0 would measure nothing: it must be at least 1"));
    }
    let settings = BuildSettings::of_invoke(&context.common, args)?;
    check_trigger(args.trigger.as_deref().map_or(Ok(TriggerType::Http), str::parse)?)?;
    let limits = Limits::of_invoke(args)?;
    let output_dir = args.output_dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let options = local_options(args, &output_dir)?;
    let own_input = args.input.as_deref().map(|name| read_input(name, &context.cancel)).transpose()?;

    let cache = context.cache()?;
    let benchmark = settings.find_benchmark(&cache)?;
    let mut store = ResultStore::claim(&output_dir, clock::epoch_seconds())?;
    let engine = Engine::connect(&context.cancel)?;
    let (payload, input) = make_input(context, args, &engine, &benchmark, own_input)?;
    let prepared =
        prepare(&benchmark, &settings.choices, &engine, &cache, &context.cancel, &context.line.callback())?;
    let config = limits.over(FunctionConfig::from_package(&prepared.package));
    check_payload(&payload, &options)?;

    let function_settings = function_settings(args, &prepared, &config, &options);
    let mut local = Local::new(engine.clone(), cache, options, &context.cancel)?;
    let result_config = ResultConfig {
        deployment: local.description(),
        experiments: settings.as_recorded(&prepared.package),
        function: Some(function_settings),
    };
    let environment = environment(&engine, &prepared)?;
    let mut result = ExperimentResult::begin(result_config, environment, clock::epoch_seconds());
    let outcome = run(context, args, &mut local, &prepared, &config, &payload, &mut result, &mut store);
    let outcome = outcome.and_then(|function| {
        if args.validate {
            let judged = validate(&mut result, &function, input, &payload, prepared.package.runtime.language);
            store.save(&result)?;
            judged?;
        }
        if local.is_kept(&function) {
            keep(&mut local, &function)?;
        }
        Ok(function)
    });
    let closed = local.shutdown();
    show(context, &result, store.saved_path(), outcome.as_ref().ok())?;
    outcome?;
    closed?;
    Ok(verdict(&result))
}

/// Deploys the function and invokes it.
#[expect(clippy::too_many_arguments, reason = "a step of one command, called once")]
fn run(
    context: &Context,
    args: &Invoke,
    local: &mut Local,
    prepared: &Prepared,
    config: &FunctionConfig,
    payload: &str,
    result: &mut ExperimentResult,
    store: &mut ResultStore,
) -> Result<Function> {
    let progress = context.line.callback();
    progress.step("starting the function", "");
    let mut function = local.get_function(&prepared.package, args.function_name.as_deref(), config)?;
    let repetitions =
        Repetitions { payload, warmup: args.warmup.unwrap_or(0), count: args.repetitions.unwrap_or(1) };
    progress.count("invoking", 0, repetitions.count.into());
    let mut told = |number: u32, _: &_| progress.count("invoking", number.into(), repetitions.count.into());
    repeat(local, &mut function, &repetitions, result, store, &mut told)?;
    Ok(function)
}

/// A payload that the function server would refuse is refused here.
fn check_payload(payload: &str, options: &LocalOptions) -> Result<()> {
    let (size, most) = (Bytes(payload.len() as u64), options.max_payload);
    if size <= most {
        return Ok(());
    }
    Err(Error::usage(format!("the input has {size}, and may have {most}: allow more with --max-payload")))
}

fn check_size(size: &str) -> Result<()> {
    if ["test", "small", "large"].contains(&size) {
        return Ok(());
    }
    Err(Error::usage(format!("size `{size}` is not known: it must be `test`, `small` or `large`")))
}

fn local_options(args: &Invoke, output_dir: &Path) -> Result<LocalOptions> {
    let mut options = LocalOptions {
        keep: args.keep,
        host_port: args.port,
        keeps_connection: args.keep_alive,
        privileged: args.privileged,
        logs: Some(output_dir.join("logs")),
        env: args.env.iter().map(|text| assignment(text)).collect::<Result<_>>()?,
        ..LocalOptions::default()
    };
    if let Some(address) = &args.address {
        options.address = address.parse()?;
    }
    if let Some(timeout) = &args.start_timeout {
        options.start_timeout = units::parse_duration(timeout, Unit::Seconds)?;
        if options.start_timeout.is_zero() {
            return Err(Error::usage("--start-timeout 0 leaves no time to start: write one such as 60s"));
        }
    }
    if options.host_port.is_some() && options.address == AddressMode::Bridge {
        return Err(Error::usage(
            "--port publishes the function, and --address bridge does not: leave one out",
        ));
    }
    if let Some(size) = &args.max_payload {
        options.max_payload = units::parse_bytes(size)?;
    }
    Ok(options)
}

fn assignment(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(Error::usage(format!("`{text}` is not an environment variable: write `NAME=VALUE`"))),
    }
}

/// The limits that were typed, checked before anything is started.
struct Limits {
    memory: Option<u64>,
    timeout: Option<u64>,
    /// `Some(None)`: typed as 0, which means none.
    cpus: Option<Option<f64>>,
}

impl Limits {
    fn of_invoke(args: &Invoke) -> Result<Limits> {
        // The engine's own bounds: 6 MB, and the kernel's shortest quota of 1 ms in 100 ms.
        const LEAST_MEMORY_MB: u64 = 6;
        const LEAST_CPUS: f64 = 0.01;
        const MOST_MEMORY_MB: u64 = 1 << 40;
        if let Some(memory) = args.memory
            && memory != 0
            && !(LEAST_MEMORY_MB..=MOST_MEMORY_MB).contains(&memory)
        {
            let least = LEAST_MEMORY_MB;
            return Err(Error::usage(format!(
                "--memory {memory} cannot be had: it must be at least {least} MB, or 0"
            )));
        }
        if let Some(cpus) = args.cpus {
            let most = Host::read().cores.map_or(f64::INFINITY, f64::from);
            if cpus != 0.0 && !(LEAST_CPUS..=most).contains(&cpus) {
                let range = format!("a number from {LEAST_CPUS} to {most}, or 0");
                return Err(Error::usage(format!("--cpus {cpus} cannot be had: it must be {range}")));
            }
        }
        let cpus = args.cpus.map(|cpus| (cpus != 0.0).then_some(cpus));
        Ok(Limits { memory: args.memory, timeout: args.timeout, cpus })
    }

    fn over(&self, config: FunctionConfig) -> FunctionConfig {
        FunctionConfig {
            memory: self.memory.unwrap_or(config.memory),
            timeout: self.timeout.unwrap_or(config.timeout),
            cpus: self.cpus.unwrap_or(config.cpus),
            ..config
        }
    }
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
        environment_names: options.env.iter().map(|(name, _)| name.clone()).collect(),
        privileged: options.privileged,
        keep_alive: options.keeps_connection,
        warmup: args.warmup.unwrap_or(0),
    }
}

/// Reads the JSON object that `--input` names.
fn read_input(name: &str, cancel: &Cancel) -> Result<String> {
    let read = if name == "-" {
        read_whole(std::io::stdin().lock(), cancel)
    } else {
        std::fs::File::open(name).and_then(|file| read_whole(file, cancel))
    };
    cancel.check()?;
    let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    let text = text.map_err(|error| Error::usage(format!("failed to read the input `{name}`: {error}")))?;
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
        .map_err(|error| Error::usage(format!("the input `{name}` is not a JSON object: {error}")))?;
    Ok(text)
}

/// Reads to the end, or until the token is triggered: a terminal or a pipe may not come to its end.
fn read_whole(mut source: impl Read + AsFd, cancel: &Cancel) -> std::io::Result<Vec<u8>> {
    const LOOK_EVERY_MS: u8 = 100;
    let (mut text, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    while !cancel.is_triggered() {
        let mut watched = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, LOOK_EVERY_MS) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match source.read(&mut piece)? {
            0 => break,
            read => text.extend_from_slice(&piece[..read]),
        }
    }
    Ok(text)
}

/// The payload, and the process that runs the benchmark's `input.py` if it has work to do.
fn make_input(
    context: &Context,
    args: &Invoke,
    engine: &Engine,
    benchmark: &Benchmark,
    own_input: Option<String>,
) -> Result<(String, Option<InputProcess>)> {
    if let Some(payload) = own_input.clone().filter(|_| !args.validate) {
        return Ok((payload, None));
    }
    context.line.callback().step("making the input", &args.size);
    let request = InputRequest {
        benchmark,
        python: args.input_python.as_deref().map_or(InputPython::Any, InputPython::Program),
        engine: Some(engine),
        verbose: context.common.verbose,
        cancel: &context.cancel,
        progress: &context.line.callback(),
    };
    let Some(mut process) = InputProcess::start(&request)? else {
        return Ok((own_input.unwrap_or_else(|| "{}".to_string()), None));
    };
    if let Some(payload) = own_input {
        return Ok((payload, Some(process)));
    }
    check_needs(benchmark, &mut process)?;
    let input = process.generate_input(&args.size, None, &[], &[], &mut NoStorage)?.to_string();
    if args.validate {
        return Ok((input, Some(process)));
    }
    // It has no more to do, and would only sit beside what is measured.
    process.stop()?;
    Ok((input, None))
}

/// Says at once what the benchmark needs and cannot have.
fn check_needs(benchmark: &Benchmark, process: &mut InputProcess) -> Result<()> {
    let name = &benchmark.name;
    let buckets = process.buckets_count()?;
    if buckets.is_some_and(|(inputs, outputs)| inputs + outputs > 0) {
        return Err(Error::usage(format!(
            "benchmark `{name}` needs object storage, and none can be configured yet"
        )));
    }
    if process.allocate_nosql()?.is_some() {
        return Err(Error::usage(format!(
            "benchmark `{name}` needs NoSQL tables, and none can be configured yet"
        )));
    }
    Ok(())
}

fn environment(engine: &Engine, prepared: &Prepared) -> Result<Environment> {
    Ok(Environment {
        host: Host::read(),
        engine_version: Some(engine.version()?.version),
        image_id: Some(prepared.image.id.clone()),
        image_source: Some(prepared.image.source.to_string()),
        interpreter: Some(prepared.image.build.clone()).filter(|build| !build.is_empty()),
        libc: Some(prepared.image.libc.clone()).filter(|libc| !libc.is_empty()),
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
            Some(process) => process.validate_output(&payload, output.get(), language, &mut NoStorage),
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

fn keep(local: &mut Local, function: &Function) -> Result<()> {
    local.keep(function)?;
    for instance in &function.instances {
        log::info!(
            "function `{}` is kept at http://{} (`docker rm -f {:.12}` removes it)",
            function.name,
            instance.url,
            instance.instance_id
        );
    }
    Ok(())
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
            if let Some(path) = path {
                context.print(&format!("results: {}\n", path.display()))?;
            }
        }
    }
    Ok(())
}

fn verdict(result: &ExperimentResult) -> Exit {
    let mut invocations = result.invocations.values().flat_map(|invocations| invocations.values());
    let is_bad = invocations.any(|invocation| {
        invocation.stats.failure || matches!(invocation.invocation.validation, Some(Validation::Invalid(_)))
    });
    if is_bad { Exit::Unsatisfied } else { Exit::Done }
}
