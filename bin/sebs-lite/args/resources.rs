//! What can be typed after `sebs-lite resources`.

use std::path::PathBuf;

use argh::FromArgs;

/// Tell what this program has on this machine, and remove what nobody needs.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "resources")]
pub(crate) struct Resources {
    #[argh(subcommand)]
    pub(crate) command: ResourcesCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(crate) enum ResourcesCommand {
    List(ListResources),
    Cleanup(Cleanup),
}

/// List containers, kept functions, volumes, networks, code packages, images, buckets and tables, and who needs each.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "list",
    note = "in use: a command that runs, or a container, has it. kept: a file names it. orphan: its file is gone or does not
name it; the file may have been moved. idle: it only saves the next command time. leftover: nobody needs it.
unknown: it cannot be told.",
    example = "sebs-lite resources list"
)]
pub(crate) struct ListResources {
    /// file that says where storage is, whose buckets and tables are listed (repeatable; default: storage that was kept)
    #[argh(option, arg_name = "file")]
    pub(crate) storage_configuration: Vec<PathBuf>,
    /// configuration file in SeBS's format
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
}

/// Remove what is left over, and what else is asked for; never what somebody needs.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "cleanup",
    note = "Left over is what was made for a command that is dead, what a build that was killed left, and what the cache
records of functions that are gone. Orphans may serve a deployment whose file was moved: look at `resources list`
first.",
    example = "sebs-lite resources cleanup --dry-run",
    example = "sebs-lite resources cleanup --orphans --older-than 2d",
    example = "sebs-lite resources cleanup sebd-110.dynamic-html-python-3.11"
)]
pub(crate) struct Cleanup {
    /// ids or names of what is to be removed, and nothing else
    #[argh(positional)]
    pub(crate) id: Vec<String>,
    /// only say what would be removed
    #[argh(switch)]
    pub(crate) dry_run: bool,
    /// leave alone what is younger, or of unknown age: 2d, 12h; a bare number is in s
    #[argh(option, arg_name = "age")]
    pub(crate) older_than: Option<String>,
    /// also remove what no file names any more
    #[argh(switch)]
    pub(crate) orphans: bool,
    /// also remove the functions that were kept
    #[argh(switch)]
    pub(crate) functions: bool,
    /// also remove the code packages that nobody uses
    #[argh(switch)]
    pub(crate) packages: bool,
    /// also remove the images that no container is made of
    #[argh(switch)]
    pub(crate) images: bool,
    /// also remove the buckets and tables of this cache's resources, with all in them
    #[argh(switch)]
    pub(crate) storage: bool,
    /// file that says where that storage is (repeatable; default: storage that was kept)
    #[argh(option, arg_name = "file")]
    pub(crate) storage_configuration: Vec<PathBuf>,
    /// configuration file in SeBS's format
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
}
