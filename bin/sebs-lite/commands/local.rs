//! `local start`, `stop` and `status`.

use std::path::{Path, PathBuf};

use sebs_lite::docker::{Engine, Lifetime};
use sebs_lite::faas::{FunctionConfig, System, TriggerType};
use sebs_lite::local::{
    Deployment, DeploymentFile, Local, LocalOptions, MeasurementOptions, MemoryMeasurements, MeterOptions,
    Prepared, RecordingFormat, Shutdown, ShutdownRequest, prepare,
};
use sebs_lite::{Error, Result, report};

use crate::args::{Start, Status, Stop};
use crate::exit::Exit;

use super::input::{InputChoices, check_payload, check_size, make_input, read_input};
use super::options::{Limits, TypedOptions, measuring};
use super::resources::Fate;
use super::settings::BuildSettings;
use super::{Context, missing_is_usage};

/// `local start`.
pub(crate) fn start(context: &Context, args: &Start) -> Result<Exit> {
    check_size(&args.size)?;
    let count = args.deployments.unwrap_or(1);
    let settings = BuildSettings::of_start(&context.common, args)?;
    let limits = Limits::check(args.memory, args.timeout, args.cpus, args.cpuset.as_deref())?;
    let metering = measuring(args.measure_interval.as_deref(), args.realtime, args.cpu)?;
    let format = recording_format(args, metering.is_some())?;
    let mut options = typed_options(args).check()?;
    let own = args.input.as_deref().map(|name| read_input(name, &context.cancel)).transpose()?;

    let cache = context.cache()?;
    let benchmark = settings.find_benchmark(&cache)?;
    let engine = Engine::connect(&context.cancel)?;
    options.check_network(&engine)?;
    let mut file = DeploymentFile::claim(&args.output)?;
    file.make_free(&engine)?;
    let mut deployment = Deployment::new(removes_containers(context));
    deployment.network.clone_from(&options.network);
    let fate = Fate {
        lifetime: Lifetime::Kept { file: file.path().to_path_buf() },
        is_kept: false,
        network: options.network.clone(),
    };
    // Dropped before the file is, as all that is started: what was started goes first.
    let mut resources = settings.storage.resources(context, &engine, &cache, fate)?;
    let choices = InputChoices {
        size: &args.size,
        own,
        python: args.input_python.as_deref(),
        validates: false,
        demanded: &settings.storage.typed,
    };
    // Storage may be started from here on.
    file.write(&deployment)?;
    let (payload, _) = make_input(context, &engine, &benchmark, choices, &mut resources)?;
    deployment.set_storage(&resources.in_use(), resources.started());
    deployment.add_input(&payload)?;
    file.write(&deployment)?;
    check_payload(&payload, &options)?;
    let prepared =
        prepare(&benchmark, &settings.choices, &engine, &cache, &context.cancel, &context.line.callback())?;
    let base_name = match &args.function_name {
        Some(name) => name.clone(),
        None => prepared.package.function_name(Some(&resources.resources_id()?)),
    };
    let measurement = match metering {
        Some(metering) => Some(measurement_options(&metering, format, file.reserve_recording(format)?)?),
        None => None,
    };
    deployment.memory_measurements = measurement.as_ref().map(MemoryMeasurements::planned);
    let options = LocalOptions {
        deployment_file: Some(file.path().to_path_buf()),
        storage_env: resources.envs(&benchmark.name),
        storage: resources.in_use(),
        ..options
    };
    let plan = Plan {
        prepared: &prepared,
        config: limits.over(FunctionConfig::from_package(&prepared.package)),
        names: (1..=count).map(|number| name_of(&base_name, number)).collect(),
        measurement,
    };
    let deployed = Local::new(engine, cache, options, &context.cancel).and_then(|mut local| {
        deploy(context, &plan, &mut local, &mut deployment, &mut file)?;
        deployment.functions.iter().for_each(|function| local.release(function));
        Ok(())
    });
    if let Err(error) = deployed {
        deployment.abandon();
        return Err(error);
    }
    let path = file.path().to_path_buf();
    resources.release();
    file.confirm();
    deployment.strike_out_keys()?;
    if context.common.json {
        context.print_json(&deployment)?;
    } else {
        context.print(&report::deployment(&deployment, &path))?;
    }
    Ok(Exit::Done)
}

/// What is to be started.
struct Plan<'a> {
    prepared: &'a Prepared,
    config: FunctionConfig,
    names: Vec<String>,
    measurement: Option<MeasurementOptions>,
}

/// Starts the functions and the sampling. The file is written before each step, so that `local stop` can undo what a
/// killed command did.
fn deploy(
    context: &Context,
    plan: &Plan<'_>,
    local: &mut Local,
    deployment: &mut Deployment,
    file: &mut DeploymentFile,
) -> Result<()> {
    let progress = context.line.callback();
    file.write(deployment)?;
    for (done, name) in plan.names.iter().enumerate() {
        progress.count("starting the functions", done as u64, plan.names.len() as u64);
        let mut function = local.create_function(&plan.prepared.package, name, &plan.config)?;
        local.create_trigger(&mut function, TriggerType::Http)?;
        deployment.add_function(function);
        file.write(deployment)?;
    }
    if let Some(options) = &plan.measurement {
        progress.step("starting the sampling of memory", "");
        deployment.start_measurement(options, &context.cancel)?;
        file.write(deployment)?;
    }
    context.cancel.check()?;
    deployment.complete();
    file.write(deployment)
}

/// `local stop`.
pub(crate) fn stop(context: &Context, args: &Stop) -> Result<Exit> {
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from("memory_stats.json"));
    let (file, mut deployment) = open(context, &args.input)?;
    check_output(&output, file.path(), &deployment)?;
    let logs = output.parent().unwrap_or(Path::new("")).join("logs");
    context.line.callback().step("stopping", &file.path().display().to_string());
    let request = ShutdownRequest { output_json: &output, file: Some(file.path()), logs: Some(&logs) };
    let mut shutdown = deployment.shutdown(&request, || Engine::connect(&context.cancel));
    shutdown.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let failures = std::mem::take(&mut shutdown.failures);
    show_stop(context, &deployment, shutdown, &output)?;
    super::end_with(failures)
}

/// `local status`.
pub(crate) fn status(context: &Context, args: &Status) -> Result<Exit> {
    let deployment = Deployment::deserialize(&args.input).map_err(missing_is_usage)?;
    let engine = Engine::connect(&context.cancel)?;
    let status = deployment.status(&engine, &context.cancel)?;
    if context.common.json {
        context.print_json(&status)?;
    } else {
        context.print(&report::deployment_status(&status))?;
    }
    Ok(if status.is_running() { Exit::Done } else { Exit::Unsatisfied })
}

fn open(context: &Context, input: &Path) -> Result<(DeploymentFile, Deployment)> {
    let file = DeploymentFile::open(input, &context.cancel).map_err(missing_is_usage)?;
    let deployment = Deployment::deserialize(file.path()).map_err(missing_is_usage).inspect_err(|_| {
        // Should it be one of ours that was damaged.
        let path = file.path().display();
        log::info!(
            "containers that were started for that file: docker ps -a --filter 'label=sebs-lite.file={path}'"
        );
    })?;
    Ok((file, deployment))
}

/// The statistics must not take the place of what they are made of.
fn check_output(output: &Path, file: &Path, deployment: &Deployment) -> Result<()> {
    let recording = deployment.memory_measurements.as_ref().map(|measurements| measurements.file.as_path());
    let Ok(there) = output.canonicalize() else { return Ok(()) };
    if there == file || recording.is_some_and(|recording| recording == there) {
        let text = format!(
            "`{}` belongs to the deployment: the statistics need a file of their own",
            output.display()
        );
        return Err(Error::usage(text));
    }
    Ok(())
}

fn typed_options(args: &Start) -> TypedOptions<'_> {
    TypedOptions {
        function_name: args.function_name.as_deref(),
        env: &args.env,
        address: args.address.as_deref(),
        port: None,
        network: args.network.as_deref(),
        start_timeout: args.start_timeout.as_deref(),
        max_payload: args.max_payload.as_deref(),
        privileged: args.privileged,
    }
}

fn recording_format(args: &Start, is_measured: bool) -> Result<RecordingFormat> {
    match &args.format {
        Some(_) if !is_measured => Err(Error::usage("--format is for sampling: add --measure-interval")),
        Some(name) => name.parse(),
        None => Ok(RecordingFormat::default()),
    }
}

fn measurement_options(
    metering: &MeterOptions,
    format: RecordingFormat,
    file: PathBuf,
) -> Result<MeasurementOptions> {
    let program = std::env::current_exe()
        .map_err(|error| Error::new(format!("failed to find this program's own file: {error}")))?;
    let MeterOptions { interval, realtime, cpu, .. } = *metering;
    Ok(MeasurementOptions { program, interval, file, format, realtime, cpu })
}

/// `--remove-containers` is the default.
fn removes_containers(context: &Context) -> bool {
    context.common.switch("remove-containers", false) != Some(false)
}

fn name_of(base: &str, number: u32) -> String {
    if number == 1 { base.to_string() } else { format!("{base}-{number}") }
}

fn show_stop(
    context: &Context,
    deployment: &Deployment,
    mut shutdown: Shutdown,
    output: &Path,
) -> Result<()> {
    if !context.common.json {
        return context.print(&report::shutdown(deployment, &shutdown, output));
    }
    // The series themselves are in the file: as JSON values they would take many times their room.
    for container in shutdown.stats.iter_mut().flat_map(|stats| stats.containers.values_mut()) {
        container.profile_bytes = Vec::new();
        if let Some(series) = &mut container.series {
            series.timestamps_ns = Vec::new();
        }
    }
    let stats = shutdown.stats.as_ref();
    let mut memory = stats.map(|stats| serde_json::json!(stats)).unwrap_or_default();
    for container in memory.as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        if let Some(container) = container.as_object_mut() {
            container.remove("full profile (in bytes)");
            container.remove("timestamps_ns");
        }
    }
    context.print_json(&serde_json::json!({
        "instances": shutdown.instances, "storage": shutdown.storage, "left_behind": shutdown.left_behind, "memory": memory,
        "memory_stats": stats.map(|_| output), "stopped_at": deployment.stopped_at,
        "stopped_before": shutdown.stopped_before.is_some(), "warnings": shutdown.warnings,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_a_deployment_have_names_of_their_own() {
        assert_eq!([1, 2, 10].map(|number| name_of("f", number)), ["f", "f-2", "f-10"]);
    }
}
