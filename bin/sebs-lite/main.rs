//! The program `sebs-lite`: reads what was typed, does it, and ends with the exit code that fits.

mod args;
mod commands;
mod exit;
mod logging;
mod progress;
mod signals;

use std::io::Write;
use std::process::ExitCode;

use sebs_lite::Result;

use args::{BenchmarkCommand, Command, DockerCommand, LocalCommand, ResourcesCommand, StorageCommand};
use commands::Context;
use exit::Exit;
use progress::ProgressLine;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let (common, top) = match args::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(early) => return end_early(&early, &arguments),
    };
    if top.version {
        return say(&format!("sebs-lite {}\n", commands::VERSION));
    }
    let Some(command) = top.command else {
        return end_early(&args::parse(&["--help".to_string()]).expect_err("help is no command"), &[]);
    };
    let line = ProgressLine::new(common.quiet);
    if let Err(error) = logging::install(&common, &line) {
        return fail(&error);
    }
    let context = Context { common, line: line.clone(), cancel: signals::install() };
    let outcome = run(&context, &command);
    line.clear();
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => fail(&error),
    }
}

/// Each command, and what does it.
fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::Benchmark(benchmark) => match &benchmark.command {
            BenchmarkCommand::List(list) => commands::benchmark::list(context, list),
            BenchmarkCommand::Package(package) => commands::benchmark::package(context, package),
            BenchmarkCommand::Invoke(invoke) => commands::benchmark::invoke(context, invoke),
            BenchmarkCommand::Regression(regression) => commands::regression::regression(context, regression),
        },
        Command::Local(local) => match &local.command {
            LocalCommand::Start(start) => commands::local::start(context, start),
            LocalCommand::Stop(stop) => commands::local::stop(context, stop),
            LocalCommand::Status(status) => commands::local::status(context, status),
        },
        Command::Storage(storage) => match &storage.command {
            StorageCommand::Start(start) => commands::storage::start(context, start),
            StorageCommand::Stop(stop) => commands::storage::stop(context, stop),
            StorageCommand::Status(status) => commands::storage::status(context, status),
        },
        Command::Resources(resources) => match &resources.command {
            ResourcesCommand::List(list) => commands::cleanup::list(context, list),
            ResourcesCommand::Cleanup(cleanup) => commands::cleanup::cleanup(context, cleanup),
        },
        Command::Docker(docker) => match &docker.command {
            DockerCommand::Build(build) => commands::docker::build(context, build),
            DockerCommand::Push(push) => commands::docker::push(context, push),
            DockerCommand::Pull(pull) => commands::docker::pull(context, pull),
        },
        Command::Measure(measure) => commands::measure::measure(context, measure),
        Command::Profile(profile) => commands::profile::profile(context, profile),
        Command::Doctor(doctor) => commands::doctor::doctor(context, doctor),
    }
}

fn end_early(early: &argh::EarlyExit, arguments: &[String]) -> ExitCode {
    if early.status.is_ok() {
        return say(&early.output);
    }
    // The help of the command that was meant, as far as it was typed right.
    let typed: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let command = match typed.as_slice() {
        ["benchmark", below @ ("list" | "package" | "invoke" | "regression"), ..] => {
            format!("benchmark {below} ")
        }
        [group @ ("local" | "storage"), below @ ("start" | "stop" | "status"), ..] => {
            format!("{group} {below} ")
        }
        ["resources", below @ ("list" | "cleanup"), ..] => format!("resources {below} "),
        ["docker", below @ ("build" | "push" | "pull"), ..] => format!("docker {below} "),
        [
            group @ ("benchmark" | "local" | "storage" | "resources" | "docker" | "measure" | "profile"
            | "doctor"),
            ..,
        ] => {
            format!("{group} ")
        }
        _ => String::new(),
    };
    let told = early.output.trim_end();
    let _ = write!(std::io::stderr(), "sebs-lite: {told}\nSee `sebs-lite {command}--help`.\n");
    Exit::Usage.into()
}

fn say(text: &str) -> ExitCode {
    // A reader that has seen enough closes the pipe: no failure of ours.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Exit::Done.into()
}

fn fail(error: &sebs_lite::Error) -> ExitCode {
    let told = if error.is_cancelled() { "interrupted".to_string() } else { error.to_string() };
    let _ = writeln!(std::io::stderr(), "sebs-lite: {told}");
    Exit::of(error).into()
}
