//! What can be typed after `sebs-lite storage`.

use std::path::PathBuf;

use argh::FromArgs;

/// Start storage for benchmarks to use, look after it, and stop it.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "storage")]
pub(crate) struct Storage {
    #[argh(subcommand)]
    pub(crate) command: StorageCommand,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(crate) enum StorageCommand {
    Start(StartStorage),
    Stop(StopStorage),
    Status(StatusOfStorage),
}

/// Start storage in containers that go on running, and write where they are, and the keys, to a file.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "start",
    example = "sebs-lite storage start all --output-json storage.json",
    example = "sebs-lite storage start object --engine seaweedfs",
    example = "sebs-lite storage start all --network lab"
)]
pub(crate) struct StartStorage {
    /// object, nosql or all
    #[argh(positional)]
    pub(crate) kind: String,
    /// configuration in SeBS's format; what it does not say is chosen here
    #[argh(positional)]
    pub(crate) config: Option<PathBuf>,
    /// file that will say what was started, for its owner alone (default: storage.json)
    #[argh(option, arg_name = "file")]
    pub(crate) output_json: Option<PathBuf>,
    /// minio or seaweedfs for object, scylladb or dynoxide for nosql (default: the first that can be had)
    #[argh(option, arg_name = "name")]
    pub(crate) engine: Option<String>,
    /// network of the engine's that it is put on, for functions there, by name or id (default: the engine's own bridge)
    #[argh(option, arg_name = "name")]
    pub(crate) network: Option<String>,
}

/// Stop storage that `storage start` started; its data stay.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "stop", example = "sebs-lite storage stop all storage.json")]
pub(crate) struct StopStorage {
    /// object, nosql or all
    #[argh(positional)]
    pub(crate) kind: String,
    /// file that `storage start` wrote, or SeBS's own
    #[argh(positional)]
    pub(crate) input: PathBuf,
    /// remove the data, too
    #[argh(switch)]
    pub(crate) remove_volume: bool,
}

/// Tell whether storage answers; exit 3 if any does not.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "status", example = "sebs-lite storage status storage.json")]
pub(crate) struct StatusOfStorage {
    /// file that `storage start` wrote, or SeBS's own
    #[argh(positional)]
    pub(crate) input: PathBuf,
}
