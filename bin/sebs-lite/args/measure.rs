//! What can be typed after `sebs-lite measure`.

use std::path::PathBuf;

use argh::FromArgs;

use super::number;

/// Sample the memory of containers or processes until they end, a time has passed, or SIGINT or SIGTERM comes; then print a
/// summary.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "measure",
    note = "Each counter is read at every tick of one absolute grid. A tick that could not be read in time is missed: it is
counted and located, and never made up for.",
    error_code(0, "done, also when SIGINT or SIGTERM ended it"),
    error_code(1, "failed, or samples are missing, as when the disk is full"),
    error_code(2, "wrong usage, or what was named is not there"),
    example = "sebs-lite measure --container my-db --measure-interval 1ms --measurement-file db.recording",
    example = "sebs-lite measure --pid 4242 --measure-interval 100us --duration 10s"
)]
pub(crate) struct Measure {
    /// id of a container, whole or its beginning (repeatable)
    #[argh(option, arg_name = "id")]
    pub(crate) container_id: Vec<String>,
    /// name of a container (repeatable)
    #[argh(option, arg_name = "name")]
    pub(crate) container: Vec<String>,
    /// id of a process, whose whole cgroup is sampled (repeatable)
    #[argh(option, arg_name = "pid", from_str_fn(number::pid))]
    pub(crate) pid: Vec<i32>,
    /// from one sample to the next: 100us, 1ms; a bare number is ms (default: 1ms)
    #[argh(option, arg_name = "interval")]
    pub(crate) measure_interval: Option<String>,
    /// file for the samples, new or empty (default: none, the summary alone)
    #[argh(option, arg_name = "file")]
    pub(crate) measurement_file: Option<PathBuf>,
    /// recording, or sebs: the lines of text that SeBS reads (default: recording)
    #[argh(option, arg_name = "name")]
    pub(crate) format: Option<String>,
    /// where numbers come from: auto, cgroup, or engine, its one reading a second (default: auto)
    #[argh(option, arg_name = "name")]
    pub(crate) source: Option<String>,
    /// end after this time: 90s, 5m; a bare number is s (default: when all that is sampled has ended)
    #[argh(option, arg_name = "time")]
    pub(crate) duration: Option<String>,
    /// ask for real-time scheduling and locked memory; what is not granted is a warning
    #[argh(switch)]
    pub(crate) realtime: bool,
    /// keep the sampling thread on this CPU, counted from 0
    #[argh(option, arg_name = "n", from_str_fn(number::cpu))]
    pub(crate) cpu: Option<usize>,
    /// for programs that start this one: run in a session of its own, and print a line of JSON once sampling has begun
    #[argh(switch)]
    pub(crate) detach: bool,
}
