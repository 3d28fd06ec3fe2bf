//! What can be typed after `sebs-lite doctor`.

use argh::FromArgs;

use super::number;

/// Tell whether this machine can run benchmarks, and what on it makes measurements noisy.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "doctor",
    error_code(0, "nothing is bad; warnings do not count"),
    error_code(1, "something is bad: benchmarks cannot run, or cannot be measured"),
    error_code(
        3,
        "with --probe: what was measured is not true, or samples are missing to tell (it says which)"
    ),
    example = "sebs-lite doctor",
    example = "sebs-lite doctor --probe --measure-interval 100us --realtime"
)]
pub(crate) struct Doctor {
    /// run 051.memory-staircase and compare what is measured with what it allocates; exit 3 unless they agree
    #[argh(switch)]
    pub(crate) probe: bool,
    /// from one sample to the next: 100us, 1ms; a bare number is ms (default: 1ms)
    #[argh(option, arg_name = "interval")]
    pub(crate) measure_interval: Option<String>,
    /// ask for real-time scheduling and locked memory; what is not granted is a warning
    #[argh(switch)]
    pub(crate) realtime: bool,
    /// keep the sampling thread on this CPU, counted from 0
    #[argh(option, arg_name = "n", from_str_fn(number::cpu))]
    pub(crate) cpu: Option<usize>,
    /// where the runtime image comes from: auto, local, pull, build or host (default: auto)
    #[argh(option, arg_name = "source")]
    pub(crate) image_source: Option<String>,
}
