//! What engine and host can do: which product it is, whether it is rootless, what of a container it limits.

use serde::{Deserialize, Serialize};

use super::api::null_as_default;
use super::{Engine, libpod};
use crate::error::{Context, Result};

/// What engine and host can do (`GET /info`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Info {
    /// Identifies the engine, as long as its data folder lives.
    #[serde(rename = "ID", deserialize_with = "null_as_default")]
    pub id: String,
    /// Its host's name.
    pub name: String,
    /// The engine's own version: `20.10.24`.
    pub server_version: String,
    /// For people: `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// `linux` or `windows`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// As the kernel names it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// How many CPUs its host has.
    #[serde(rename = "NCPU")]
    pub ncpu: u64,
    /// Bytes of memory its host has.
    pub mem_total: u64,
    /// `cgroupfs`, `systemd` or `none`.
    pub cgroup_driver: String,
    /// `1` or `2`; empty: not told.
    pub cgroup_version: String,
    /// `name=seccomp,profile=default`, `name=rootless`, `name=selinux` and their like.
    #[serde(deserialize_with = "null_as_default")]
    pub security_options: Vec<String>,
    /// `overlay2` and its like.
    #[serde(rename = "Driver")]
    pub storage_driver: String,
    /// Can memory be limited?
    pub memory_limit: bool,
    /// Can swap be limited?
    pub swap_limit: bool,
    /// Can the number of processes be limited?
    pub pids_limit: bool,
    /// Can processor time be limited? `None`: not told.
    pub cpu_cfs_quota: Option<bool>,
    /// Can processors be chosen? `None`: not told.
    #[serde(rename = "CPUSet")]
    pub cpu_set: Option<bool>,
    /// `Docker` or `Podman`, as the head of its answer says.
    #[serde(skip)]
    pub product: String,
    /// The engine's data folder.
    pub docker_root_dir: String,
}

/// What of a container an engine limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// How much memory it has.
    Memory,
    /// How many processes and threads it has.
    Processes,
    /// How much processor time it gets.
    Cpus,
    /// Which processors it runs on.
    Cpuset,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Limit::Memory => "memory",
            Limit::Processes => "processes",
            Limit::Cpus => "CPU time",
            Limit::Cpuset => "the choice of CPUs",
        })
    }
}

impl Info {
    /// Does the engine run without root's rights?
    pub fn is_rootless(&self) -> bool {
        self.security_options.iter().any(|option| option.split(',').any(|part| part == "name=rootless"))
    }

    /// Does the engine label what it mounts for SELinux?
    pub fn has_selinux(&self) -> bool {
        self.security_options.iter().any(|option| option.contains("name=selinux"))
    }

    /// Has each container a control group of its own? Without one nothing is limited, and what the engine tells of a
    /// container's use is that of others, too.
    pub fn has_cgroups(&self) -> bool {
        self.cgroup_driver != "none"
    }

    /// What of a container the engine cannot limit.
    pub fn missing_limits(&self) -> Vec<Limit> {
        let limits = [
            (self.memory_limit, Limit::Memory),
            (self.pids_limit, Limit::Processes),
            (self.cpu_cfs_quota.unwrap_or(true), Limit::Cpus),
            (self.cpu_set.unwrap_or(true), Limit::Cpuset),
        ];
        limits.into_iter().filter(|(is_there, _)| !is_there).map(|(_, limit)| limit).collect()
    }

    /// The `uid:gid` by which a container's files are the caller's: a rootless engine maps its root to the caller.
    pub fn caller(&self) -> String {
        if self.is_rootless() {
            return "0:0".to_string();
        }
        format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid())
    }
}

impl Engine {
    /// What engine and host can do: asked once, since it takes some engines half a second.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn info(&self) -> Result<Info> {
        if let Some(info) = self.info.get() {
            return Ok(info.clone());
        }
        let ask = || self.persist(|| self.ask_for_info());
        let info = ask().context(|| "failed to ask the engine what it can do".to_string())?;
        Ok(self.info.get_or_init(|| info).clone())
    }

    fn ask_for_info(&self) -> Result<Info> {
        let answer = self.get("/info").send()?;
        let podman = answer.header(libpod::API_HEADER).map(str::to_string);
        let product = if podman.is_some() { "Podman" } else { "Docker" };
        let mut info = Info { product: product.to_string(), ..answer.json()? };
        if let Some(api) = podman {
            libpod::correct(self, &api, &mut info)?;
        }
        Ok(info)
    }
}
