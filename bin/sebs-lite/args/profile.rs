//! What can be typed after `sebs-lite profile`.

use std::path::PathBuf;

use argh::FromArgs;

/// Turn a recording into a table, or into CSV, JSON or a picture, on standard output.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "profile",
    note = "--json prints what the table says, with exact numbers, and each invocation.",
    example = "sebs-lite profile memory.recording",
    example = "sebs-lite profile memory.recording --svg > memory.svg"
)]
pub(crate) struct Profile {
    /// recording of `sebs-lite measure`, `benchmark invoke --measure-interval` or `local start --measure-interval`
    #[argh(positional)]
    pub(crate) file: PathBuf,
    /// print CSV: a row a sample, and one for each stretch of missed ticks or lost samples
    #[argh(switch)]
    pub(crate) csv: bool,
    /// print a picture: memory over time, invocations as bands, the kernel's peak as a line
    #[argh(switch)]
    pub(crate) svg: bool,
}
