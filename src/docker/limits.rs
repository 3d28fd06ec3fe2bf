//! Changes what a container may use while it runs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::api::null_as_default;
use super::containers::{named, path};
use crate::error::{Context, Result};

/// The limits that a running container can be given; see [`HostConfig`](super::HostConfig). The engine leaves alone what
/// is `None`: a limit can be changed, and not be lifted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerLimits {
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Memory and swap together, in bytes; to be given with `memory`, below which it cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<u64>,
    /// In 10⁻⁹ CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<u64>,
    /// `0-1,3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
}

impl fmt::Display for ContainerLimits {
    /// `memory 256 MiB, 0.5 CPUs, on CPUs 0-1, 64 processes`: what is to change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.memory.map(|bytes| format!("memory {} MiB", bytes as f64 / f64::from(1 << 20))),
            self.nano_cpus.map(|cpus| format!("{} CPUs", cpus as f64 / 1e9)),
            self.cpuset_cpus.as_ref().map(|list| format!("on CPUs {list}")),
            self.pids_limit.map(|most| format!("{most} processes")),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<String>>().join(", "))
    }
}

impl Engine {
    /// Changes the limits of a container, running or not.
    ///
    /// # Errors
    /// When it is not there (`is_not_found`), or the kernel does not take a limit: one on memory below what is in use.
    pub fn update_container(&self, id: &str, limits: &ContainerLimits) -> Result<()> {
        let update = || self.post(&path(id, "/update")).json(limits)?.repeatable().fetch::<Updated>();
        let updated = update().context(|| format!("failed to change the limits of {}", named(id)))?;
        updated.warnings.iter().for_each(|warning| log::warn!("{}: {warning}", named(id)));
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Updated {
    #[serde(default, deserialize_with = "null_as_default")]
    warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_stay_is_not_mentioned() {
        let limits = ContainerLimits { nano_cpus: Some(500_000_000), ..ContainerLimits::default() };
        assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"NanoCpus":500000000}"#);
        assert_eq!(limits.to_string(), "0.5 CPUs");
        let limits = ContainerLimits {
            memory: Some(256 << 20),
            memory_swap: Some(256 << 20),
            cpuset_cpus: Some("0-1".to_string()),
            pids_limit: Some(64),
            ..limits
        };
        assert_eq!(limits.to_string(), "memory 256 MiB, 0.5 CPUs, on CPUs 0-1, 64 processes");
        assert_eq!(ContainerLimits::default().to_string(), "");
    }
}
