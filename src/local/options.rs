//! How functions are run on the local platform.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::docker::ContainerInspect;
use crate::storage::StorageFile;
use crate::units::Bytes;

use super::container::{self, AddressMode};
use super::meter::MeterOptions;
use super::whereabouts::published_address;

/// How the names of variables begin that tell functions of storage.
const STORAGE_PREFIXES: [&str; 3] = ["MINIO_", "NOSQL_STORAGE_", "SEBS_LITE_S3_"];

/// How functions are run.
#[derive(Clone)]
pub struct LocalOptions {
    /// Are new functions meant to outlive the command? [`Local::keep`](super::Local::keep) then records them.
    pub keep: bool,
    /// The network of the engine's that instances are put on, by its name or id, which must be there; `None`: the engine's
    /// default one. See [`LocalOptions::check_network`]. Storage that functions are told of must be on it, too.
    pub network: Option<String>,
    /// Where instances are invoked.
    pub address: AddressMode,
    /// The port of 127.0.0.1 that an instance is published at; `None`: the engine chooses a free one.
    pub host_port: Option<u16>,
    /// How long an instance may take until its server answers.
    pub start_timeout: Duration,
    /// Is the connection of one invocation left open for the next? SeBS opens one for each.
    pub keeps_connection: bool,
    /// The most bytes that a payload or an answer may have.
    pub max_payload: Bytes,
    /// The most instances that a function has at a time; `None`: as many as there are invocations at a time.
    pub max_instances: Option<usize>,
    /// How long an instance may have nothing to do until it is removed, be it the last; `None`: as long as it takes. One
    /// that was kept is not removed.
    pub idle_timeout: Option<Duration>,
    /// How long an instance may take to answer an invocation until the engine is asked whether it still can, and then
    /// from one time to the next. One that cannot fails its invocation, whatever the time-out.
    pub patience: Duration,
    /// Environment of the function, beside what the function server is told.
    pub env: Vec<(String, String)>,
    /// What the function is told of storage, keys among them; a variable of `env` that has the same name wins.
    pub storage_env: Vec<(String, String)>,
    /// That storage. What of it ended when the engine went away is started again before the next instance is.
    pub storage: StorageFile,
    /// Are containers privileged, as SeBS's are, so that functions may read performance counters?
    pub privileged: bool,
    /// The folder for what functions print, a file an instance; `None`: it is dropped.
    pub logs: Option<PathBuf>,
    /// The file that will name new functions, which outlive the command: that of a [`Deployment`](super::Deployment).
    pub deployment_file: Option<PathBuf>,
    /// How the memory of instances is sampled; `None`: it is not.
    pub measure: Option<MeterOptions>,
}

impl Default for LocalOptions {
    fn default() -> LocalOptions {
        LocalOptions {
            keep: false,
            network: None,
            address: AddressMode::Auto,
            host_port: None,
            start_timeout: Duration::from_secs(60),
            keeps_connection: false,
            max_payload: Bytes(256 << 20),
            max_instances: None,
            idle_timeout: None,
            patience: Duration::from_secs(5),
            env: Vec::new(),
            storage_env: Vec::new(),
            storage: StorageFile::default(),
            privileged: false,
            logs: None,
            deployment_file: None,
            measure: None,
        }
    }
}

impl fmt::Debug for LocalOptions {
    /// Variables by their names alone: their values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalOptions")
            .field("keep", &self.keep)
            .field("network", &self.network)
            .field("address", &self.address)
            .field("host_port", &self.host_port)
            .field("start_timeout", &self.start_timeout)
            .field("keeps_connection", &self.keeps_connection)
            .field("max_payload", &self.max_payload)
            .field("max_instances", &self.max_instances)
            .field("idle_timeout", &self.idle_timeout)
            .field("patience", &self.patience)
            .field("variables", &self.variables().map(|(name, _)| name).collect::<Vec<_>>())
            .field("storage", &self.storage)
            .field("privileged", &self.privileged)
            .field("logs", &self.logs)
            .field("deployment_file", &self.deployment_file)
            .field("measure", &self.measure)
            .finish()
    }
}

impl LocalOptions {
    /// All variables of the function beside what its server is told.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_free = |name: &str| !self.env.iter().any(|(own, _)| own == name);
        let of_storage = self.storage_env.iter().filter(move |(name, _)| is_free(name));
        self.env.iter().chain(of_storage).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Is a container, which an earlier command started, one that these options would have led to?
    pub(super) fn hold_for(&self, container: &ContainerInspect) -> bool {
        let has = |name: &str, value: &str| {
            container.config.env.iter().any(|known| known.strip_prefix(name) == Some(&format!("={value}")))
        };
        let payload = self.max_payload.0.to_string();
        let published = published_address(container).map(|address| address.port());
        self.privileged == container.host_config.privileged
            && self.network.as_deref() == container.own_network()
            && self.variables().all(|(name, value)| has(name, value))
            && self.tells_of_no_other_storage(container)
            && has(container::MAX_PAYLOAD, &payload)
            && match self.address {
                AddressMode::Auto => true,
                AddressMode::Bridge => published.is_none(),
                AddressMode::Published => published.is_some(),
            }
            && self.host_port.is_none_or(|port| published == Some(port))
    }

    /// Is all that a container was told of storage what these options tell?
    fn tells_of_no_other_storage(&self, container: &ContainerInspect) -> bool {
        let mut told = container.config.env.iter().filter_map(|variable| variable.split_once('='));
        told.all(|(name, value)| {
            !STORAGE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || self.variables().any(|known| known == (name, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> (String, String) {
        (name.to_string(), value.to_string())
    }

    #[test]
    fn the_users_own_variable_wins_and_no_value_is_shown() {
        let options = LocalOptions {
            env: vec![variable("MINIO_ADDRESS", "mine:1")],
            storage_env: vec![
                variable("MINIO_ADDRESS", "172.17.0.2:9000"),
                variable("MINIO_SECRET_KEY", "hush"),
            ],
            ..LocalOptions::default()
        };
        let variables: Vec<_> = options.variables().collect();
        assert_eq!(variables, [("MINIO_ADDRESS", "mine:1"), ("MINIO_SECRET_KEY", "hush")]);
        let shown = format!("{options:?}");
        assert!(shown.contains("MINIO_SECRET_KEY") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_container_that_knows_of_other_storage_does_not_hold() {
        let options = LocalOptions {
            storage_env: vec![variable("MINIO_ADDRESS", "172.17.0.2:9000")],
            ..LocalOptions::default()
        };
        let container = |address: &str| {
            let mut container = ContainerInspect::default();
            container.config.env = vec!["PATH=/bin".into(), format!("MINIO_ADDRESS={address}")];
            container
        };
        assert!(options.tells_of_no_other_storage(&container("172.17.0.2:9000")));
        assert!(!options.tells_of_no_other_storage(&container("172.17.0.3:9000")));
        assert!(!LocalOptions::default().tells_of_no_other_storage(&container("172.17.0.2:9000")));
    }
}
