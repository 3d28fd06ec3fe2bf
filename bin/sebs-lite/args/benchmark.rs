//! What can be typed after `sebs-lite benchmark`.

use std::path::PathBuf;

use argh::FromArgs;

use super::number;

/// List, package and invoke benchmarks, or try them all.
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
    Regression(Box<Regression>),
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
    /// package, or container: the function is baked into an image (default: package)
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
    /// repository that images are named after and pulled from; function images are pushed to one with a registry
    #[argh(option, arg_name = "name")]
    pub(crate) repository: Option<String>,
    /// word that sets the tag of a function image apart
    #[argh(option, arg_name = "word")]
    pub(crate) image_tag_prefix: Option<String>,
}

/// Run a benchmark: build it, start it in a container, invoke it, and write experiments.json.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "invoke",
    example = "sebs-lite benchmark invoke 110.dynamic-html test --repetitions 5 --validate",
    example = "sebs-lite benchmark invoke ./my-function test --input event.json --memory 256",
    example = "sebs-lite benchmark invoke 120.uploader test --storage-configuration storage.json",
    example = "sebs-lite benchmark invoke 110.dynamic-html test --system-variant container",
    example = "sebs-lite benchmark invoke 010.sleep test --concurrency 8 --repetitions 32 --cold",
    example = "sebs-lite benchmark invoke 120.uploader test --network lab"
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
    /// package, or container: the function is baked into an image (default: package)
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
    /// repository that images are named after and pulled from; function images are pushed to one with a registry
    #[argh(option, arg_name = "name")]
    pub(crate) repository: Option<String>,
    /// word that sets the tag of a function image apart
    #[argh(option, arg_name = "word")]
    pub(crate) image_tag_prefix: Option<String>,
    /// how many invocations are measured (default: 1)
    #[argh(option, arg_name = "n", from_str_fn(number::count))]
    pub(crate) repetitions: Option<u32>,
    /// how many invocations come first and are not recorded (default: 0)
    #[argh(option, arg_name = "n", from_str_fn(number::count_or_none))]
    pub(crate) warmup: Option<u32>,
    /// how many invocations are under way at a time, each on an instance of its own (default: 1)
    #[argh(option, arg_name = "n", from_str_fn(number::count))]
    pub(crate) concurrency: Option<u32>,
    /// most instances at a time; invocations beyond them wait (default: as --concurrency says)
    #[argh(option, arg_name = "n", from_str_fn(number::count))]
    pub(crate) instances: Option<u32>,
    /// how many instances are started before the first invocation (default: 1)
    #[argh(option, arg_name = "n", from_str_fn(number::count))]
    pub(crate) deployments: Option<u32>,
    /// make each invocation a cold start, on an instance that serves it alone; one that was warm has failed
    #[argh(switch)]
    pub(crate) cold: bool,
    /// remove an instance that had nothing to do for so long, for example 30s (default: never)
    #[argh(option, arg_name = "duration")]
    pub(crate) idle_timeout: Option<String>,
    /// memory limit in MB of 2^20 bytes; 0: none (default: the benchmark's)
    #[argh(option, arg_name = "mb", from_str_fn(number::megabytes))]
    pub(crate) memory: Option<u64>,
    /// CPU limit in CPUs, for example 0.5; 0: none (default: the benchmark's)
    #[argh(option, arg_name = "n", from_str_fn(number::cpus))]
    pub(crate) cpus: Option<f64>,
    /// CPUs the function may run on, for example 0-1,3 (default: all)
    #[argh(option, arg_name = "list")]
    pub(crate) cpuset: Option<String>,
    /// longest an invocation may take, in seconds; 0: no limit (default: the benchmark's)
    #[argh(option, arg_name = "s", from_str_fn(number::seconds))]
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
    /// file that says where storage is, or how to start it; storage start writes such (repeatable)
    #[argh(option, arg_name = "file")]
    pub(crate) storage_configuration: Vec<PathBuf>,
    /// leave storage that is started for this run to later commands
    #[argh(switch)]
    pub(crate) keep_storage: bool,
    /// upload input data even if they are there, and remove what other inputs left
    #[argh(switch)]
    pub(crate) update_storage: bool,
    /// how the name of resources in storage begins that no file and no cache knows (default: local)
    #[argh(option, arg_name = "prefix")]
    pub(crate) resource_prefix: Option<String>,
    /// environment variable of the function, NAME=VALUE (repeatable)
    #[argh(option, arg_name = "assignment")]
    pub(crate) env: Vec<String>,
    /// leave the function running, and the storage it uses, for a later command to use again
    #[argh(switch)]
    pub(crate) keep: bool,
    /// keep one connection for all invocations, rather than open one for each as SeBS does
    #[argh(switch)]
    pub(crate) keep_alive: bool,
    /// invoke the function at its bridge address or at a port published on 127.0.0.1: auto, bridge or published
    #[argh(option, arg_name = "where")]
    pub(crate) address: Option<String>,
    /// publish the function at this port of 127.0.0.1 (default: the engine chooses)
    #[argh(option, arg_name = "port", from_str_fn(number::port))]
    pub(crate) port: Option<u16>,
    /// network of the engine's that the function is put on, by name or id (default: the engine's own bridge)
    #[argh(option, arg_name = "name")]
    pub(crate) network: Option<String>,
    /// how long an instance may take until it answers, for example 90s (default: 60s)
    #[argh(option, arg_name = "duration")]
    pub(crate) start_timeout: Option<String>,
    /// most bytes of an input or an answer, for example 1GiB (default: 256MiB)
    #[argh(option, arg_name = "size")]
    pub(crate) max_payload: Option<String>,
    /// run containers privileged, as SeBS does, so that functions may read performance counters
    #[argh(switch)]
    pub(crate) privileged: bool,
    /// sample the memory of the instance: 100us, 1ms; a bare number is ms; -1: off (default: -1)
    #[argh(option, arg_name = "interval")]
    pub(crate) measure_interval: Option<String>,
    /// ask for real-time scheduling of the sampling thread; what is not granted is a warning
    #[argh(switch)]
    pub(crate) realtime: bool,
    /// keep the sampling thread on this CPU, counted from 0
    #[argh(option, arg_name = "n", from_str_fn(number::cpu))]
    pub(crate) cpu: Option<usize>,
}

/// Run every benchmark in every language it is written in, each once, and have each output judged.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "regression",
    note = "What this machine cannot run, for want of an image or a program, is skipped, and says why. Storage is started
once for all of them.",
    error_code(0, "all passed, but for what was skipped"),
    error_code(3, "a benchmark failed, or its output is wrong"),
    example = "sebs-lite benchmark regression",
    example = "sebs-lite benchmark regression small --benchmark-name 110 --language python --output-dir out"
)]
pub(crate) struct Regression {
    /// size of the input: test, small or large (default: test)
    #[argh(positional)]
    pub(crate) size: Option<String>,
    /// name of a benchmark, or a part of it, instead of all (repeatable)
    #[argh(option, arg_name = "name")]
    pub(crate) benchmark_name: Vec<String>,
    /// folder with benchmarks, run before the bundled ones (repeatable)
    #[argh(option, arg_name = "dir")]
    pub(crate) benchmarks: Vec<PathBuf>,
    /// folder with the benchmarks' input data (default: benchmarks-data beside --benchmarks)
    #[argh(option, arg_name = "dir")]
    pub(crate) data: Option<PathBuf>,
    /// configuration file in SeBS's format; its choice of a language is not asked
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// folder for the results, each in BENCHMARK-LANGUAGE/experiments.json (default: regression)
    #[argh(option, arg_name = "dir")]
    pub(crate) output_dir: Option<PathBuf>,
    /// platform: local
    #[argh(option, arg_name = "name")]
    pub(crate) deployment: Option<String>,
    /// python or nodejs alone (default: all that a benchmark is written in)
    #[argh(option, arg_name = "name")]
    pub(crate) language: Option<String>,
    /// version of that language (default: the newest with an image here, else this host's)
    #[argh(option, arg_name = "version")]
    pub(crate) language_version: Option<String>,
    /// build packages even if nothing changed
    #[argh(switch)]
    pub(crate) update_code: bool,
    /// where runtime images come from: auto, local, pull, build or host (default: auto)
    #[argh(option, arg_name = "source")]
    pub(crate) image_source: Option<String>,
    /// network of the engine's that functions are put on, by name or id (default: the engine's own bridge)
    #[argh(option, arg_name = "name")]
    pub(crate) network: Option<String>,
    /// python that runs the benchmarks' input.py (default: this host's, from 3.10 on)
    #[argh(option, arg_name = "path")]
    pub(crate) input_python: Option<PathBuf>,
    /// file that says where storage is, or how to start it; storage start writes such (repeatable)
    #[argh(option, arg_name = "file")]
    pub(crate) storage_configuration: Vec<PathBuf>,
    /// upload input data even if they are there
    #[argh(switch)]
    pub(crate) update_storage: bool,
    /// how the name of resources in storage begins that no file and no cache knows (default: local)
    #[argh(option, arg_name = "prefix")]
    pub(crate) resource_prefix: Option<String>,
}
