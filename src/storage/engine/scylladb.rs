//! How ScyllaDB is run with its Alternator, which speaks DynamoDB's protocol.

use std::time::Duration;

use super::StorageConfig;
use super::server::Server;

/// The version that SeBS runs.
const VERSION: &str = "6.0";

/// How many CPUs and MB it has where nothing is configured, as SeBS has it.
const CPUS: u64 = 1;
const MEMORY_MB: u64 = 750;

/// What the entry point needs as root: it writes to folders that belong to the server's user, becomes that user, and
/// ends its processes.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"];

/// The image of one version.
pub(super) fn image(version: Option<&str>) -> String {
    format!("scylladb/scylla:{}", version.unwrap_or(VERSION))
}

/// The server.
pub(super) fn server(config: &StorageConfig) -> Server {
    let memory = format!("{}M", config.memory.unwrap_or(MEMORY_MB));
    let cpus = config.cpus.unwrap_or(CPUS).to_string();
    let cmd = [
        "--smp",
        &cpus,
        "--memory",
        &memory,
        "--overprovisioned",
        "1",
        "--alternator-port",
        "8000",
        "--alternator-write-isolation=only_rmw_uses_lwt",
    ];
    Server {
        cmd: cmd.map(str::to_string).to_vec(),
        port: 8000,
        data: "/var/lib/scylla/",
        capabilities: &CAPABILITIES,
        // It joins its ring of one first, which takes a minute on a small machine.
        ready_within: Duration::from_secs(180),
        stops_within: Duration::from_secs(60),
        ..Server::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::EngineType;

    #[test]
    fn cpus_and_memory_are_configured_or_those_of_sebs() {
        let config = StorageConfig::of(EngineType::ScyllaDb);
        assert_eq!(
            server(&config).cmd.join(" "),
            "--smp 1 --memory 750M --overprovisioned 1 --alternator-port 8000 --alternator-write-isolation=only_rmw_uses_lwt"
        );
        let config = StorageConfig { cpus: Some(2), memory: Some(2000), ..config };
        assert!(server(&config).cmd.join(" ").starts_with("--smp 2 --memory 2000M "));
        assert_eq!(image(None), "scylladb/scylla:6.0");
    }
}
