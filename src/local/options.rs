//! How functions are run on the local platform.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::docker::ContainerInspect;
use crate::storage::StorageFile;
use crate::units::{self, Bytes};

use super::container::{self, AddressMode};
use super::meter::MeterOptions;
use super::whereabouts::published_address;

/// The label of an instance that tells its variables apart from others; see [`LocalOptions::variables_digest`].
pub(super) const VARIABLES_LABEL: &str = "sebs-lite.variables";

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
            && container.config.labels.get(VARIABLES_LABEL) == Some(&self.variables_digest())
            && has(container::MAX_PAYLOAD, &payload)
            && match self.address {
                AddressMode::Auto => true,
                AddressMode::Bridge => published.is_none(),
                AddressMode::Published => published.is_some(),
            }
            && self.host_port.is_none_or(|port| published == Some(port))
    }

    /// What all variables of the function come to, names and values, without telling any; 64 hexadecimal digits.
    pub(super) fn variables_digest(&self) -> String {
        let mut variables: Vec<(&str, &str)> = self.variables().collect();
        // Of two that have one name, it counts which is the later one.
        variables.sort_by_key(|(name, _)| *name);
        let mut hash = Sha256::new();
        for text in variables.into_iter().flat_map(|(name, value)| [name, value]) {
            // No variable has a zero in it.
            hash.update(text);
            hash.update([0]);
        }
        units::hexadecimal(&hash.finalize())
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
    fn a_container_holds_for_the_very_variables_it_was_started_with() {
        let options = |env: &[(String, String)], address: Option<&str>| LocalOptions {
            env: env.to_vec(),
            storage_env: address.map(|address| variable("MINIO_ADDRESS", address)).into_iter().collect(),
            ..LocalOptions::default()
        };
        let container = |options: &LocalOptions| {
            let mut container = ContainerInspect::default();
            container.config.env = vec![format!("{}={}", container::MAX_PAYLOAD, options.max_payload.0)];
            container.config.labels.insert(VARIABLES_LABEL.to_string(), options.variables_digest());
            container
        };
        let (a, b) = (variable("A", "1"), variable("B", "2"));
        let all = [
            options(&[], None),
            options(&[], Some("172.17.0.2:9000")),
            options(&[], Some("172.17.0.3:9000")),
            options(std::slice::from_ref(&a), None),
            options(&[variable("A", "2")], None),
            options(&[variable("A1", "")], None),
            options(&[a.clone(), b.clone()], None),
            options(&[a.clone(), b.clone()], Some("172.17.0.2:9000")),
        ];
        for (wanted, one) in all.iter().enumerate() {
            for (had, other) in all.iter().enumerate() {
                assert_eq!(one.hold_for(&container(other)), wanted == had, "{wanted} {had}");
            }
        }
        assert!(options(&[b, a], None).hold_for(&container(&all[6])));
        // An earlier version of this program has told nothing of them.
        let mut unlabelled = container(&all[0]);
        unlabelled.config.labels.clear();
        assert!(!all[0].hold_for(&unlabelled));
    }
}
