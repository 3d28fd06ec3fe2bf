//! How functions are run on the local platform.

use std::path::PathBuf;
use std::time::Duration;

use crate::docker::ContainerInspect;
use crate::units::Bytes;

use super::container::{self, AddressMode};
use super::meter::MeterOptions;

/// How functions are run.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Are new functions meant to outlive the command? [`Local::keep`](super::Local::keep) then records them.
    pub keep: bool,
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
    /// Environment of the function, beside what the function server is told.
    pub env: Vec<(String, String)>,
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
            address: AddressMode::Auto,
            host_port: None,
            start_timeout: Duration::from_secs(60),
            keeps_connection: false,
            max_payload: Bytes(256 << 20),
            env: Vec::new(),
            privileged: false,
            logs: None,
            deployment_file: None,
            measure: None,
        }
    }
}

impl LocalOptions {
    /// Is a container, which an earlier command started, one that these options would have led to?
    pub(super) fn hold_for(&self, container: &ContainerInspect) -> bool {
        let has = |name: &str, value: &str| {
            container.config.env.iter().any(|known| known.strip_prefix(name) == Some(&format!("={value}")))
        };
        let payload = self.max_payload.0.to_string();
        let published = container::published_address(container).map(|address| address.port());
        self.privileged == container.host_config.privileged
            && self.env.iter().all(|(name, value)| has(name, value))
            && has(container::MAX_PAYLOAD, &payload)
            && match self.address {
                AddressMode::Auto => true,
                AddressMode::Bridge => published.is_none(),
                AddressMode::Published => published.is_some(),
            }
            && self.host_port.is_none_or(|port| published == Some(port))
    }
}
