//! How dynoxide is run, which keeps its tables in one file.

use std::time::Duration;

use super::StorageConfig;
use super::server::{Server, any_address};

/// The version of which `scripts/storage-images` makes an image.
const VERSION: &str = "3.2.0";

/// The image of one version, which no registry has.
pub(super) fn image(version: Option<&str>) -> String {
    format!("sebs-lite:storage.dynoxide.{}", version.unwrap_or(VERSION))
}

/// The server, whose entry point says where it listens and which file it has.
pub(super) fn server(config: &StorageConfig) -> Server {
    let listens = if any_address() == "::" { "[::]" } else { "0.0.0.0" };
    let words = ["/dynoxide", "serve", "--host", listens, "--port", "8000", "--db-path", "/data/d.db"];
    // Another image may have the program elsewhere.
    let entrypoint = config.image.is_none().then(|| words.map(str::to_string).to_vec());
    Server {
        entrypoint,
        port: 8000,
        data: "/data",
        ready_within: Duration::from_secs(60),
        stops_within: Duration::from_secs(10),
        ..Server::default()
    }
}
