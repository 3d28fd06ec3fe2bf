//! `measure`: samples the memory of containers and processes, as a program of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd;
use sebs_lite::cgroup::Location;
use sebs_lite::docker::{ContainerInspect, Engine};
use sebs_lite::local::{Meter, MeterOptions, Ready, SourceChoice};
use sebs_lite::probe::{Ending, Output, Recording, TargetSummary};
use sebs_lite::process::Identity;
use sebs_lite::units::{Unit, parse_duration, show_duration};
use sebs_lite::{Error, Result, report};
use serde::Serialize;
use serde_json::json;

use crate::args::Measure;
use crate::exit::Exit;

use super::Context;
use super::settings::{interval, sampling_cpu};

/// How often the targets, the clock and the cancel token are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was typed, checked before anything is asked for.
struct Settings {
    options: MeterOptions,
    duration: Option<Duration>,
}

/// `measure`.
pub(crate) fn measure(context: &Context, args: &Measure) -> Result<Exit> {
    let settings = Settings::of(args)?;
    if args.detach {
        // A process that leads its group already, as under a shell with job control, cannot: it has what it needs.
        let _ = unistd::setsid();
    }
    let mut meter = Meter::new(settings.options);
    attach(context, args, &mut meter)?;
    let began = Instant::now();
    if args.detach {
        announce(&meter)?;
    } else {
        tell_begin(&meter, settings.duration);
    }
    while meter.active() > 0
        && !context.cancel.is_triggered()
        && settings.duration.is_none_or(|duration| began.elapsed() < duration)
    {
        let left = settings.duration.map_or(LOOK_EVERY, |duration| duration.saturating_sub(began.elapsed()));
        std::thread::sleep(left.min(LOOK_EVERY));
        meter.look();
    }
    let Some(recording) = meter.stop()? else { return Ok(Exit::Done) };
    recording.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if !args.detach {
        show(context, &recording)?;
    }
    Ok(verdict(&recording))
}

impl Settings {
    fn of(args: &Measure) -> Result<Settings> {
        if args.container_id.is_empty() && args.container.is_empty() && args.pid.is_empty() {
            return Err(Error::usage("nothing to sample: name it with --container-id, --container or --pid"));
        }
        let interval = match interval(args.measure_interval.as_deref())? {
            Some(interval) => interval,
            None if args.measure_interval.is_none() => Duration::from_millis(1),
            None => {
                return Err(Error::usage(
                    "--measure-interval -1 means not to sample: write one such as 1ms or 100us",
                ));
            }
        };
        let options = MeterOptions {
            realtime: args.realtime,
            cpu: sampling_cpu(args.cpu)?,
            output: output(args.format.as_deref(), args.measurement_file.as_deref())?,
            source: args.source.as_deref().map_or(Ok(SourceChoice::Auto), str::parse)?,
            expected_targets: args.container_id.len() + args.container.len() + args.pid.len(),
            ..MeterOptions::new(interval)
        };
        if options.source == SourceChoice::Engine && !args.pid.is_empty() {
            return Err(Error::usage(
                "--source engine is for containers: a process can be sampled by its cgroup alone",
            ));
        }
        let duration = args.duration.as_deref().map(duration).transpose()?;
        Ok(Settings { options, duration })
    }
}

fn duration(text: &str) -> Result<Duration> {
    let wrong = |cause: &str| {
        Error::usage(format!(
            "--duration {text}: {cause} (write one such as 90s or 5m; a bare number is in s)"
        ))
    };
    let duration = parse_duration(text, Unit::Seconds).map_err(|_| wrong("it is not a duration"))?;
    if duration.is_zero() {
        return Err(wrong("it leaves no time to sample"));
    }
    Ok(duration)
}

fn output(format: Option<&str>, file: Option<&Path>) -> Result<Output> {
    if let Some(file) = file {
        check_file(file)?;
    }
    let file = file.map(Path::to_path_buf);
    match (format.unwrap_or("recording"), file) {
        ("recording", Some(file)) => Ok(Output::Stream(file)),
        ("recording", None) => Ok(Output::Summary),
        ("sebs", Some(file)) => Ok(Output::Sebs(file)),
        ("sebs", None) => Err(Error::usage("--format sebs needs --measurement-file, where its lines go")),
        (other, _) => {
            Err(Error::usage(format!("format `{other}` is not known: it must be `recording` or `sebs`")))
        }
    }
}

/// Says early what is wrong with the file that was typed.
fn check_file(file: &Path) -> Result<()> {
    let wrong = |cause: &str| {
        let file = file.display();
        Error::usage(format!("--measurement-file {file}: {cause}: name a file that is new or empty"))
    };
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => Err(wrong("it is a folder")),
        // Opening one waits for whoever reads it, and nothing ends that.
        Ok(metadata) if metadata.file_type().is_fifo() => Err(wrong("it is a pipe")),
        Ok(metadata) if metadata.len() > 0 => Err(wrong("it holds something already")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
            match parent.is_none_or(Path::is_dir) {
                true => Ok(()),
                false => Err(wrong("its folder is not there")),
            }
        }
        _ => Ok(()),
    }
}

/// Samples all that was named, each cgroup once. The engine is let go of before sampling goes on.
fn attach(context: &Context, args: &Measure, meter: &mut Meter) -> Result<()> {
    let mut containers = Vec::new();
    let mut engine = None;
    if !args.container_id.is_empty() || !args.container.is_empty() {
        let engine = engine.insert(Engine::connect(&context.cancel)?);
        for typed in args.container_id.iter().chain(&args.container) {
            containers.push(look_up(engine, typed)?);
        }
    }
    let (mut ids, mut cgroups) = (BTreeSet::new(), BTreeSet::new());
    for container in containers {
        if !ids.insert(container.id.clone()) {
            log::warn!("container `{}` was named more than once, and is sampled once", container.name);
            continue;
        }
        cgroups.extend(cgroup_of(&container));
        if let Some(engine) = &engine {
            meter.attach_inspected(engine, &container)?;
        }
    }
    for pid in &args.pid {
        let location = Location::of_process(*pid, None).map_err(typed_wrong)?;
        if !cgroups.insert(location.memory) {
            let group = location.group;
            log::warn!("process {pid} is in cgroup `{group}`, which is sampled already, and is sampled once");
            continue;
        }
        meter.attach_process(*pid).map_err(typed_wrong)?;
    }
    Ok(())
}

/// Where a container's memory is counted, if that is on this machine.
fn cgroup_of(container: &ContainerInspect) -> Option<PathBuf> {
    let pid = i32::try_from(container.state.pid).ok()?;
    Location::of_process(pid, Some(&container.id)).ok().map(|location| location.memory)
}

fn look_up(engine: &Engine, typed: &str) -> Result<ContainerInspect> {
    if typed.is_empty() {
        return Err(Error::usage("a container's id or name cannot be empty"));
    }
    engine.inspect_container(typed).map_err(|error| {
        // Which the engine takes for a failure of its own.
        if error.to_string().contains("ultiple IDs found") {
            return Error::usage(format!("`{typed}` begins the ids of several containers: type more of it"));
        }
        typed_wrong(error)
    })
}

/// What was typed and is not there was typed wrong.
fn typed_wrong(error: Error) -> Error {
    if error.is_not_found() { Error::usage(error.to_string()) } else { error }
}

fn tell_begin(meter: &Meter, duration: Option<Duration>) {
    let Some(header) = meter.header() else { return };
    let until = match duration {
        Some(duration) => format!("for {}", show_duration(duration)),
        None => "until all has ended".to_string(),
    };
    let (interval, targets) = (show_duration(header.interval()), meter.active());
    let plural = if targets == 1 { "" } else { "s" };
    log::info!("sampling {targets} target{plural} every {interval} {until}; Ctrl-C ends it");
}

/// Tells the program that started this one that all is sampled, and lets go of its pipe.
fn announce(meter: &Meter) -> Result<()> {
    let header = meter.header().ok_or_else(|| Error::new("nothing is sampled"))?;
    let ready = Ready {
        identity: Identity::current()?,
        interval_ns: header.interval_ns,
        warnings: header.warnings.clone(),
    };
    let line = json!(ready);
    let failed = |error: std::io::Error| {
        Error::new(format!("failed to tell the caller that sampling has begun: {error}"))
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush()).map_err(failed)?;
    let null = fs::File::options().write(true).open("/dev/null").map_err(failed)?;
    unistd::dup2_stdout(&null).map_err(|error| failed(error.into()))
}

/// The summary, as JSON.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    report: &'a report::ProfileReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
}

fn show(context: &Context, recording: &Recording) -> Result<()> {
    let (report, file) = (report::ProfileReport::of_summaries(recording), recording.path());
    if context.common.json {
        return context.print_json(&Summary { report: &report, file });
    }
    let file = file.map(|file| format!("\nsamples: {}\n", file.display()));
    context.print(&(report.table() + &file.unwrap_or_default()))
}

/// Samples that are missing, other than those of ticks that passed, are a failure.
fn verdict(recording: &Recording) -> Exit {
    let is_whole = |target: &TargetSummary| {
        target.lost == 0 && !matches!(target.ending, Some(Ending::Failed { .. } | Ending::NotANumber))
    };
    if recording.warnings.is_empty() && recording.targets.iter().all(is_whole) {
        return Exit::Done;
    }
    log::error!("samples are missing: see what was lost, and how each target ended");
    Exit::Failed
}
