//! What can be typed: the words of the command line, and how they are brought into one form before they are read.

mod benchmark;
mod docker;
mod doctor;
mod local;
mod measure;
mod number;
mod profile;
mod resources;
mod storage;

use std::path::PathBuf;

use argh::{EarlyExit, FromArgs};

pub(crate) use benchmark::{Benchmark, BenchmarkCommand, Invoke, List, Package, Regression};
pub(crate) use docker::{BuildImage, Docker, DockerCommand, PullImage, PushImage};
pub(crate) use doctor::Doctor;
pub(crate) use local::{Local, LocalCommand, Start, Status, Stop};
pub(crate) use measure::Measure;
pub(crate) use profile::Profile;
pub(crate) use resources::{Cleanup, ListResources, Resources, ResourcesCommand};
pub(crate) use storage::{StartStorage, StatusOfStorage, StopStorage, Storage, StorageCommand};

/// Runs serverless benchmark functions in Docker containers on this machine, and measures them.
#[derive(FromArgs, Debug)]
#[argh(
    note = "Every command also takes:
  -v, --verbose        say more on standard error, and show what functions print
  -q, --quiet          say nothing but errors
  --cache DIR          where packages and records live (default: $SEBS_LITE_CACHE, else ./cache)
  --json               print JSON for programs instead of a table for people
  --output-file FILE   also write the log to FILE
Flags may be written --flag=value, and switches be taken back by --no-switch.

Containers run on the engine that $DOCKER_HOST or the docker context names, else on this machine's own. One that goes
away in the middle is waited for: for 60 s, or as $SEBS_LITE_ENGINE_WAIT says, for example 5m.",
    error_code(0, "done"),
    error_code(1, "failed"),
    error_code(2, "wrong usage or configuration"),
    error_code(
        3,
        "finished, but invocations failed, outputs are wrong, or a deployment or storage is not whole"
    ),
    error_code(130, "interrupted, after clean-up (143: by SIGTERM)"),
    example = "sebs-lite benchmark invoke 110.dynamic-html test --repetitions 5 --validate"
)]
pub(crate) struct TopLevel {
    /// print the version and end
    #[argh(switch)]
    pub(crate) version: bool,
    #[argh(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(crate) enum Command {
    Benchmark(Benchmark),
    Local(Local),
    Storage(Storage),
    Resources(Resources),
    Docker(Docker),
    Measure(Measure),
    Profile(Profile),
    Doctor(Doctor),
}

/// What every command takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Common {
    pub(crate) verbose: bool,
    pub(crate) quiet: bool,
    pub(crate) json: bool,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) output_file: Option<PathBuf>,
    /// Switches that were taken back by `--no-…`, by their names.
    pub(crate) negated: Vec<String>,
}

impl Common {
    /// A switch that a configuration file may set too: `None` if the command line says nothing of it.
    pub(crate) fn switch(&self, name: &str, is_given: bool) -> Option<bool> {
        if is_given {
            Some(true)
        } else {
            self.negated.iter().any(|negated| negated == name).then_some(false)
        }
    }
}

/// The switches of all commands.
const SWITCHES: [&str; 28] = [
    "version",
    "help",
    "verbose",
    "quiet",
    "json",
    "preserve-out",
    "update-code",
    "all-versions",
    "update-storage",
    "validate",
    "keep",
    "keep-alive",
    "keep-storage",
    "privileged",
    "cold",
    "remove-containers",
    "remove-volume",
    "realtime",
    "detach",
    "dry-run",
    "orphans",
    "functions",
    "packages",
    "images",
    "storage",
    "csv",
    "svg",
    "probe",
];

/// Reads the command line, without the program's name.
///
/// # Errors
/// The text to print, and whether it is help (exit 0) or an error (exit 2).
pub(crate) fn parse(arguments: &[String]) -> Result<(Common, TopLevel), EarlyExit> {
    let (common, rest) =
        normalise(arguments).map_err(|message| EarlyExit { output: message, status: Err(()) })?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    TopLevel::from_args(&["sebs-lite"], &rest).map(|top| (common, top))
}

/// Splits `--flag=value`, resolves `--no-switch`, and takes out what is common to all commands: argh knows none of these.
fn normalise(arguments: &[String]) -> Result<(Common, Vec<String>), String> {
    let mut common = Common::default();
    let mut rest: Vec<String> = Vec::new();
    let mut arguments = arguments.iter().cloned();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            rest.push(argument);
            rest.extend(arguments);
            break;
        }
        let Some(flag) = long_name(&argument) else {
            rest.push(argument);
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.to_string(), Some(value.to_string())),
            None => (flag, None),
        };
        let positive = name.strip_prefix("no-").filter(|positive| SWITCHES.contains(positive));
        if SWITCHES.contains(&name.as_str()) || positive.is_some() {
            let is_on = match value.as_deref() {
                None | Some("true") => positive.is_none(),
                Some("false") => positive.is_some(),
                Some(other) => {
                    return Err(format!("--{name} is a switch: `{other}` must be true or false\n"));
                }
            };
            let name = positive.unwrap_or(&name).to_string();
            set_switch(&name, is_on, &mut common, &mut rest)?;
            continue;
        }
        let is_common = name == "cache" || name == "output-file";
        if is_common {
            let value = value.or_else(|| arguments.next());
            let path = value.filter(|path| !path.is_empty()).ok_or(format!("--{name} needs a path\n"))?;
            let place = if name == "cache" { &mut common.cache } else { &mut common.output_file };
            *place = Some(PathBuf::from(path));
            continue;
        }
        rest.push(format!("--{name}"));
        // The next argument is this flag's value, even if it looks like a flag.
        rest.extend(value.or_else(|| arguments.next()));
    }
    Ok((common, rest))
}

fn set_switch(name: &str, is_on: bool, common: &mut Common, rest: &mut Vec<String>) -> Result<(), String> {
    match name {
        "verbose" => common.verbose = is_on,
        "quiet" => common.quiet = is_on,
        "json" => common.json = is_on,
        "preserve-out" if !is_on => {
            return Err(
                "nothing in the output folder is ever deleted: --no-preserve-out is not supported\n".into()
            );
        }
        _ => {
            let flag = format!("--{name}");
            rest.retain(|argument| *argument != flag);
            common.negated.retain(|negated| negated != name);
            if is_on { rest.push(flag) } else { common.negated.push(name.to_string()) }
        }
    }
    Ok(())
}

/// The name of a long flag, also where its short form was typed.
fn long_name(argument: &str) -> Option<String> {
    match argument {
        "-v" => Some("verbose".to_string()),
        "-q" => Some("quiet".to_string()),
        "-h" => Some("help".to_string()),
        _ => argument.strip_prefix("--").map(str::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_string).collect()
    }

    fn invoke(line: &str) -> (Common, Box<Invoke>) {
        let (common, top) = parse(&words(line)).unwrap();
        match top.command {
            Some(Command::Benchmark(Benchmark { command: BenchmarkCommand::Invoke(invoke) })) => {
                (common, invoke)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_may_be_written_in_sebs_ways() {
        let (common, invoke) = invoke(
            "benchmark invoke 110.dynamic-html test --repetitions=5 --cache=/c --no-validate --verbose --env A=b=c --env=D=e",
        );
        assert_eq!((invoke.repetitions, invoke.validate), (Some(5), false));
        assert_eq!(invoke.env, ["A=b=c", "D=e"]);
        assert_eq!(common.cache, Some(PathBuf::from("/c")));
        assert!(common.verbose && !common.quiet);
        assert_eq!(common.switch("validate", invoke.validate), Some(false));
        assert_eq!(common.switch("update-code", invoke.update_code), None);
    }

    #[test]
    fn the_last_word_on_a_switch_counts() {
        assert!(invoke("benchmark invoke x test --no-keep --keep").1.keep);
        assert!(!invoke("benchmark invoke x test --keep --no-keep").1.keep);
        assert!(!invoke("benchmark invoke x test --keep=false").1.keep);
        assert!(invoke("-v benchmark invoke x test").0.verbose);
        let (common, invoke) = invoke("benchmark invoke x test --keep-storage=false --no-update-storage");
        assert!(!invoke.keep_storage);
        assert_eq!(common.switch("update-storage", invoke.update_storage), Some(false));
    }

    #[test]
    fn storage_configurations_add_up() {
        let line = "benchmark invoke x test --storage-configuration a.json --storage-configuration=b.json";
        assert_eq!(invoke(line).1.storage_configuration, [PathBuf::from("a.json"), PathBuf::from("b.json")]);
    }

    #[test]
    fn what_looks_like_a_flag_behind_a_flag_is_its_value() {
        assert_eq!(invoke("benchmark invoke x test --input -").1.input.as_deref(), Some("-"));
        assert_eq!(
            invoke("benchmark invoke x test --function-name --keep").1.function_name.as_deref(),
            Some("--keep")
        );
    }

    #[test]
    fn a_number_that_is_none_is_told_what_would_be_right() {
        for (words, told) in [
            ("benchmark invoke x test --repetitions -1", "whole number, at least 1 and at most 4294967295"),
            ("benchmark invoke x test --repetitions 0", "at least 1"),
            ("benchmark invoke x test --warmup 4294967296", "at least 0"),
            ("benchmark invoke x test --port 70000", "at least 1 and at most 65535"),
            ("benchmark invoke x test --memory -5", "whole number of MB such as 256"),
            ("benchmark invoke x test --timeout 1.5", "whole number of seconds such as 60"),
            ("benchmark invoke x test --cpus abc", "number of CPUs such as 0.5"),
            ("benchmark invoke x test --cpu -1", "counted from 0"),
            ("local start x test o.json --deployments many", "at least 1"),
            ("measure --pid 0", "at least 1 and at most 2147483647"),
        ] {
            let words = self::words(words);
            let early = parse(&words).unwrap_err();
            let [.., flag, value] = words.as_slice() else { panic!("{words:?}") };
            assert!(early.status.is_err());
            for part in [flag, value, told] {
                assert!(early.output.contains(part), "{}", early.output);
            }
        }
    }

    #[test]
    fn wrong_words_are_errors_and_help_is_not() {
        for wrong in [
            "benchmark invoke x",
            "benchmark invoke x test --repetitions many",
            "benchmark invoke x test --no-such-flag 1",
            "benchmark invoke x test --keep=perhaps",
            "benchmark invoke x test --no-preserve-out",
            "benchmark fly",
            "storage start",
            "storage stop all",
            "storage stop all f --remove-volume=perhaps",
            "benchmark list --cache",
            "resources",
            "resources cleanup --older-than",
        ] {
            assert!(parse(&words(wrong)).unwrap_err().status.is_err(), "{wrong}");
        }
        assert!(parse(&words("benchmark invoke --help")).unwrap_err().status.is_ok());
    }
}
