//! What can be typed after `sebs-lite local`.

use std::path::PathBuf;

use argh::FromArgs;

use super::number;

/// Start a benchmark for others to invoke, look after it, and stop it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "local")]
pub(crate) struct Local {
    #[argh(subcommand)]
    pub(crate) command: LocalCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(crate) enum LocalCommand {
    Start(Box<Start>),
    Stop(Stop),
    Status(Status),
}

/// Start a benchmark in containers that go on running, and write where they are to a file.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "start",
    example = "sebs-lite local start 110.dynamic-html test out.json --deployments 4 --measure-interval 1ms"
)]
pub(crate) struct Start {
    /// name of the benchmark, or path of its folder
    #[argh(positional)]
    pub(crate) benchmark: String,
    /// size of the input: test, small or large
    #[argh(positional)]
    pub(crate) size: String,
    /// file that will say what was started
    #[argh(positional)]
    pub(crate) output: PathBuf,
    /// how many instances are started, each a function of its own (default: 1)
    #[argh(option, arg_name = "n", from_str_fn(number::count))]
    pub(crate) deployments: Option<u32>,
    /// sample the memory of all of them: 100us, 1ms; a bare number is ms; -1: off (default: -1)
    #[argh(option, arg_name = "interval")]
    pub(crate) measure_interval: Option<String>,
    /// recording, or sebs: the lines of text that SeBS's own `local stop` reads (default: recording)
    #[argh(option, arg_name = "name")]
    pub(crate) format: Option<String>,
    /// ask for real-time scheduling of the sampling thread; what is not granted is a warning
    #[argh(switch)]
    pub(crate) realtime: bool,
    /// keep the sampling thread on this CPU, counted from 0
    #[argh(option, arg_name = "n", from_str_fn(number::cpu))]
    pub(crate) cpu: Option<usize>,
    /// have `local stop` remove the containers: the default, which --no-remove-containers takes back
    #[argh(switch)]
    #[expect(dead_code, reason = "only its opposite says anything, and that is among the common flags")]
    pub(crate) remove_containers: bool,
    /// folder with benchmarks, looked through before the bundled ones (repeatable)
    #[argh(option, arg_name = "dir")]
    pub(crate) benchmarks: Vec<PathBuf>,
    /// folder with the benchmarks' input data (default: benchmarks-data beside --benchmarks)
    #[argh(option, arg_name = "dir")]
    pub(crate) data: Option<PathBuf>,
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
    /// name of the function (default: sebs-RESOURCES-BENCHMARK-LANGUAGE-VERSION)
    #[argh(option, arg_name = "name")]
    pub(crate) function_name: Option<String>,
    /// JSON object that the file gives as the input, instead of the benchmark's input; -: standard input
    #[argh(option, arg_name = "file")]
    pub(crate) input: Option<String>,
    /// python that runs the benchmark's input.py (default: this host's, from 3.10 on)
    #[argh(option, arg_name = "path")]
    pub(crate) input_python: Option<PathBuf>,
    /// file that says where storage is, or how to start it; storage start writes such (repeatable)
    #[argh(option, arg_name = "file")]
    pub(crate) storage_configuration: Vec<PathBuf>,
    /// upload input data even if they are there, and remove what other inputs left
    #[argh(switch)]
    pub(crate) update_storage: bool,
    /// how the name of resources in storage begins that no file and no cache knows (default: local)
    #[argh(option, arg_name = "prefix")]
    pub(crate) resource_prefix: Option<String>,
    /// environment variable of the function, NAME=VALUE (repeatable)
    #[argh(option, arg_name = "assignment")]
    pub(crate) env: Vec<String>,
    /// invoke the function at its bridge address or at a port published on 127.0.0.1: auto, bridge or published
    #[argh(option, arg_name = "where")]
    pub(crate) address: Option<String>,
    /// network of the engine's that functions are put on, by name or id (default: the engine's own bridge)
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
}

/// Stop what `local start` started, its storage too, and write what was measured to a file.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "stop", example = "sebs-lite local stop out.json memory_stats.json")]
pub(crate) struct Stop {
    /// file that `local start` wrote
    #[argh(positional)]
    pub(crate) input: PathBuf,
    /// file for what was measured (default: memory_stats.json)
    #[argh(positional)]
    pub(crate) output: Option<PathBuf>,
}

/// Tell what of a deployment runs; exit 3 if a part of it does not.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status", example = "sebs-lite local status out.json")]
pub(crate) struct Status {
    /// file that `local start` wrote
    #[argh(positional)]
    pub(crate) input: PathBuf,
}
