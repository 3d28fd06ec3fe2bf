//! What can be typed: the words of the command line, and how they are brought into one form before they are read.

use std::path::PathBuf;

use argh::{EarlyExit, FromArgs};

/// Runs serverless benchmark functions in Docker containers on this machine, and measures them.
#[derive(FromArgs, Debug)]
#[argh(
    note = "Every command also takes:
  -v, --verbose        say more on standard error, and show what functions print
  -q, --quiet          say nothing but errors
  --cache DIR          where packages and records live (default: $SEBS_LITE_CACHE, else ./cache)
  --json               print JSON for programs instead of a table for people
  --output-file FILE   also write the log to FILE
Flags may be written --flag=value, and switches be taken back by --no-switch.",
    error_code(0, "done"),
    error_code(1, "failed"),
    error_code(2, "wrong usage or configuration"),
    error_code(3, "finished, but invocations failed or outputs are wrong"),
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
}

/// List, package and invoke benchmarks.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "benchmark")]
pub(crate) struct Benchmark {
    #[argh(subcommand)]
    pub(crate) command: BenchmarkCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(crate) enum BenchmarkCommand {
    List(List),
    Package(Box<Package>),
    Invoke(Box<Invoke>),
}

/// List the benchmarks there are, with their languages and limits.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "list", example = "sebs-lite benchmark list --benchmarks ~/SeBS/benchmarks")]
pub(crate) struct List {
    /// folder with benchmarks, looked through before the bundled ones (repeatable)
    #[argh(option, arg_name = "dir")]
    pub(crate) benchmarks: Vec<PathBuf>,
}

/// Build a benchmark's code package without running it, and print where it is.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "package",
    example = "sebs-lite benchmark package 110.dynamic-html --language nodejs"
)]
pub(crate) struct Package {
    /// name of the benchmark, or path of its folder
    #[argh(positional)]
    pub(crate) benchmark: String,
    /// folder with benchmarks, looked through before the bundled ones (repeatable)
    #[argh(option, arg_name = "dir")]
    pub(crate) benchmarks: Vec<PathBuf>,
    /// configuration file in SeBS's format
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// platform: local
    #[argh(option, arg_name = "name")]
    pub(crate) deployment: Option<String>,
    /// python or nodejs (default: the benchmark's first that has an image)
    #[argh(option, arg_name = "name")]
    pub(crate) language: Option<String>,
    /// version of the language (default: the newest with an image here, else this host's)
    #[argh(option, arg_name = "version")]
    pub(crate) language_version: Option<String>,
    /// variant of the benchmark's code (default: default)
    #[argh(option, arg_name = "name")]
    pub(crate) language_variant: Option<String>,
    /// x64 or arm64 (default: this machine's)
    #[argh(option, arg_name = "name")]
    pub(crate) architecture: Option<String>,
    /// package (container is not supported)
    #[argh(option, arg_name = "name")]
    pub(crate) system_variant: Option<String>,
    /// build the package even if nothing changed
    #[argh(switch)]
    pub(crate) update_code: bool,
    /// where the runtime image comes from: auto, local, pull, build or host (default: auto)
    #[argh(option, arg_name = "source")]
    pub(crate) image_source: Option<String>,
    /// run this image instead, SeBS's own for example
    #[argh(option, arg_name = "name")]
    pub(crate) image: Option<String>,
    /// repository that runtime images are named after and pulled from
    #[argh(option, arg_name = "name")]
    pub(crate) repository: Option<String>,
}

/// Run a benchmark: build it, start it in a container, invoke it, and write experiments.json.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "invoke",
    example = "sebs-lite benchmark invoke 110.dynamic-html test --repetitions 5 --validate",
    example = "sebs-lite benchmark invoke ./my-function test --input event.json --memory 256"
)]
pub(crate) struct Invoke {
    /// name of the benchmark, or path of its folder
    #[argh(positional)]
    pub(crate) benchmark: String,
    /// size of the input: test, small or large
    #[argh(positional)]
    pub(crate) size: String,
    /// folder with benchmarks, looked through before the bundled ones (repeatable)
    #[argh(option, arg_name = "dir")]
    pub(crate) benchmarks: Vec<PathBuf>,
    /// folder with the benchmarks' input data (default: benchmarks-data beside --benchmarks)
    #[argh(option, arg_name = "dir")]
    pub(crate) data: Option<PathBuf>,
    /// configuration file in SeBS's format
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// folder for experiments.json and logs/ (default: the current one)
    #[argh(option, arg_name = "dir")]
    pub(crate) output_dir: Option<PathBuf>,
    /// leave what is in the output folder alone: always so
    #[argh(switch)]
    #[expect(dead_code, reason = "SeBS's word for what this program always does")]
    pub(crate) preserve_out: bool,
    /// platform: local
    #[argh(option, arg_name = "name")]
    pub(crate) deployment: Option<String>,
    /// python or nodejs (default: the benchmark's first that has an image)
    #[argh(option, arg_name = "name")]
    pub(crate) language: Option<String>,
    /// version of the language (default: the newest with an image here, else this host's)
    #[argh(option, arg_name = "version")]
    pub(crate) language_version: Option<String>,
    /// variant of the benchmark's code (default: default)
    #[argh(option, arg_name = "name")]
    pub(crate) language_variant: Option<String>,
    /// x64 or arm64 (default: this machine's)
    #[argh(option, arg_name = "name")]
    pub(crate) architecture: Option<String>,
    /// package (container is not supported)
    #[argh(option, arg_name = "name")]
    pub(crate) system_variant: Option<String>,
    /// build the package even if nothing changed
    #[argh(switch)]
    pub(crate) update_code: bool,
    /// where the runtime image comes from: auto, local, pull, build or host (default: auto)
    #[argh(option, arg_name = "source")]
    pub(crate) image_source: Option<String>,
    /// run this image instead, SeBS's own for example
    #[argh(option, arg_name = "name")]
    pub(crate) image: Option<String>,
    /// repository that runtime images are named after and pulled from
    #[argh(option, arg_name = "name")]
    pub(crate) repository: Option<String>,
    /// how many invocations are measured (default: 1)
    #[argh(option, arg_name = "n")]
    pub(crate) repetitions: Option<u32>,
    /// how many invocations come first and are not recorded (default: 0)
    #[argh(option, arg_name = "n")]
    pub(crate) warmup: Option<u32>,
    /// memory limit in MB of 2^20 bytes; 0: none (default: the benchmark's)
    #[argh(option, arg_name = "mb")]
    pub(crate) memory: Option<u64>,
    /// CPU limit in CPUs, for example 0.5; 0: none (default: the benchmark's)
    #[argh(option, arg_name = "n")]
    pub(crate) cpus: Option<f64>,
    /// longest an invocation may take, in seconds; 0: no limit (default: the benchmark's)
    #[argh(option, arg_name = "s")]
    pub(crate) timeout: Option<u64>,
    /// name of the function (default: sebd-BENCHMARK-LANGUAGE-VERSION)
    #[argh(option, arg_name = "name")]
    pub(crate) function_name: Option<String>,
    /// have each output judged by the benchmark's own validator; exit 3 if one is wrong
    #[argh(switch)]
    pub(crate) validate: bool,
    /// way to invoke the function: http
    #[argh(option, arg_name = "type")]
    pub(crate) trigger: Option<String>,
    /// JSON object to invoke the function with instead of the benchmark's input; -: standard input
    #[argh(option, arg_name = "file")]
    pub(crate) input: Option<String>,
    /// python that runs the benchmark's input.py (default: this host's, from 3.10 on)
    #[argh(option, arg_name = "path")]
    pub(crate) input_python: Option<PathBuf>,
    /// environment variable of the function, NAME=VALUE (repeatable)
    #[argh(option, arg_name = "assignment")]
    pub(crate) env: Vec<String>,
    /// leave the function running, for a later command to use again
    #[argh(switch)]
    pub(crate) keep: bool,
    /// keep one connection for all invocations, rather than open one for each as SeBS does
    #[argh(switch)]
    pub(crate) keep_alive: bool,
    /// invoke the function at its bridge address or at a port published on 127.0.0.1: auto, bridge or published
    #[argh(option, arg_name = "where")]
    pub(crate) address: Option<String>,
    /// publish the function at this port of 127.0.0.1 (default: the engine chooses)
    #[argh(option, arg_name = "port")]
    pub(crate) port: Option<u16>,
    /// how long an instance may take until it answers, for example 90s (default: 60s)
    #[argh(option, arg_name = "duration")]
    pub(crate) start_timeout: Option<String>,
    /// most bytes of an input or an answer, for example 1GiB (default: 256MiB)
    #[argh(option, arg_name = "size")]
    pub(crate) max_payload: Option<String>,
    /// run containers privileged, as SeBS does, so that functions may read performance counters
    #[argh(switch)]
    pub(crate) privileged: bool,
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
const SWITCHES: [&str; 11] = [
    "version",
    "help",
    "verbose",
    "quiet",
    "json",
    "preserve-out",
    "update-code",
    "validate",
    "keep",
    "keep-alive",
    "privileged",
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
    fn wrong_words_are_errors_and_help_is_not() {
        for wrong in [
            "benchmark invoke x",
            "benchmark invoke x test --repetitions many",
            "benchmark invoke x test --no-such-flag 1",
            "benchmark invoke x test --keep=perhaps",
            "benchmark invoke x test --no-preserve-out",
            "benchmark fly",
            "benchmark list --cache",
        ] {
            assert!(parse(&words(wrong)).unwrap_err().status.is_err(), "{wrong}");
        }
        assert!(parse(&words("benchmark invoke --help")).unwrap_err().status.is_ok());
    }
}
