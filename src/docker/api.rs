//! The Docker Engine's JSON as plain structs that hold only what this crate uses.
//!
//! Names are the Engine API's own (<https://docs.docker.com/reference/api/engine/>), turned into snake case.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::VolumeMount;

/// What to create a container from (`POST /containers/create`).
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerSpec {
    /// Reference or id of the image.
    pub image: String,
    /// The command and its arguments; empty: the image's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Replaces the image's entry point; `None`: the image's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// `uid:gid`, or a name; empty: the image's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Directory the command starts in; empty: the image's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// `9000/tcp` each.
    #[serde(serialize_with = "as_empty_objects")]
    pub exposed_ports: Vec<String>,
    /// What the host grants and restricts.
    pub host_config: HostConfig,
}

/// What the host grants a container, and restricts.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    /// `/host/path:/container/path:ro` each.
    pub binds: Vec<String>,
    /// Volumes, which are made with their labels where they are not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<VolumeMount>,
    /// Memory limit in bytes; 0: none.
    pub memory: u64,
    /// Memory and swap together, in bytes; equal to `memory`: no swap; 0: the engine's default.
    pub memory_swap: u64,
    /// CPU limit in 10⁻⁹ CPUs; 0: none.
    pub nano_cpus: u64,
    /// CPUs the container may run on (`0-1,3`); empty: all.
    pub cpuset_cpus: String,
    /// How many processes and threads it may have; `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// `bridge`, `host`, `none`, or a network's name; empty: the engine's default.
    pub network_mode: String,
    /// `9000/tcp` -> where it is published on the host.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    /// All capabilities, and the host's devices.
    pub privileged: bool,
    /// `no-new-privileges` and its like.
    pub security_opt: Vec<String>,
    /// Capabilities beyond the engine's default set.
    pub cap_add: Vec<String>,
    /// Capabilities taken away; `ALL`: all of them.
    pub cap_drop: Vec<String>,
    /// Is the container removed by the engine when it ends?
    pub auto_remove: bool,
    /// Does a small process come before the command, which passes signals on and reaps what nobody waits for?
    pub init: bool,
    /// Where what it prints is kept; `None`: as the engine is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_config: Option<LogConfig>,
    /// Path in the container -> mount options of a tmpfs there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
}

/// Where what a container prints is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LogConfig {
    /// Name of the logging driver: `json-file`.
    #[serde(rename = "Type")]
    pub driver: String,
    /// Options of that driver: `max-size`.
    pub config: BTreeMap<String, String>,
}

impl LogConfig {
    /// A file that the engine can always read back, whatever it is configured to, up to the size at which it would
    /// rather fill the disk than tell anything.
    pub fn readable() -> LogConfig {
        let config = [("max-size", "100m"), ("max-file", "1")];
        let config = config.map(|(name, value)| (name.to_string(), value.to_string()));
        LogConfig { driver: "json-file".to_string(), config: config.into() }
    }
}

/// Where a container's port appears on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortBinding {
    /// The host's address.
    pub host_ip: String,
    /// The host's port, as text; empty: chosen by the engine.
    pub host_port: String,
}

/// The engine's answer to a creation.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    /// Id of the container, 64 hexadecimal digits.
    pub id: String,
    /// What the engine could not do as asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub warnings: Vec<String>,
}

/// A container as it is now (`GET /containers/{id}/json`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerInspect {
    /// Id, 64 hexadecimal digits.
    pub id: String,
    /// Name, without the slash that the engine puts before it.
    #[serde(deserialize_with = "without_slash")]
    pub name: String,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Id of the image, `sha256:…`.
    pub image: String,
    /// Whether it runs, and how it ended.
    pub state: ContainerState,
    /// What it was created from.
    #[serde(deserialize_with = "null_as_default")]
    pub config: ContainerConfig,
    /// What the host grants it.
    #[serde(deserialize_with = "null_as_default")]
    pub host_config: InspectedHostConfig,
    /// Addresses and published ports.
    #[serde(deserialize_with = "null_as_default")]
    pub network_settings: NetworkSettings,
    /// What of the host it sees.
    #[serde(deserialize_with = "null_as_default")]
    pub mounts: Vec<Mount>,
}

/// Whether a container runs, and how it ended.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// Is there a process? A paused container counts as running.
    pub running: bool,
    /// Is it frozen?
    pub paused: bool,
    /// Did the kernel kill it, or a process in it, for want of memory?
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// How its process ended; 0 as long as it runs, 128 + the signal's number where one killed it.
    pub exit_code: i64,
    /// Why it could not be started; empty: it could.
    pub error: String,
    /// The process on the engine's host; 0: none.
    pub pid: i64,
    /// When it was started, RFC 3339; year 1: never.
    pub started_at: String,
    /// When it ended, RFC 3339; year 1: it has not.
    pub finished_at: String,
}

/// What a container was created from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// Its labels and its image's.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// `NAME=value` each, its own and its image's.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The reference it was created with.
    #[serde(deserialize_with = "familiar")]
    pub image: String,
    /// Has it a terminal, so that its output is one raw stream?
    pub tty: bool,
}

/// What the host grants a container, as the engine holds it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InspectedHostConfig {
    /// Memory limit in bytes; 0: none.
    #[serde(deserialize_with = "null_as_default")]
    pub memory: i64,
    /// Memory and swap together, in bytes; 0: the engine's default; −1: no limit.
    #[serde(deserialize_with = "null_as_default")]
    pub memory_swap: i64,
    /// CPU limit in 10⁻⁹ CPUs; 0: none.
    #[serde(deserialize_with = "null_as_default")]
    pub nano_cpus: i64,
    /// CPUs it may run on; empty: all.
    pub cpuset_cpus: String,
    /// How many processes and threads it may have; `None`, 0 or −1: no limit.
    pub pids_limit: Option<i64>,
    /// `bridge`, `host`, `none`, or a network's name.
    pub network_mode: String,
    /// Has it all capabilities, and the host's devices?
    pub privileged: bool,
    /// Is it removed by the engine when it ends?
    pub auto_remove: bool,
    /// Cgroup it was put below; empty: the engine's default.
    pub cgroup_parent: String,
}

/// A container's addresses and published ports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Address on the default bridge, only told by older engines; empty: none. See [`NetworkSettings::address`].
    #[serde(rename = "IPAddress", deserialize_with = "null_as_default")]
    pub ip_address: String,
    /// IPv6 address on the default bridge, only told by older engines; empty: none.
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "null_as_default")]
    pub global_ipv6_address: String,
    /// `9000/tcp` -> where it is published; `None`: exposed alone.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    /// Name of each network it has joined -> its addresses there.
    #[serde(deserialize_with = "null_as_default")]
    pub networks: BTreeMap<String, EndpointSettings>,
}

impl NetworkSettings {
    /// An address the container has: the one on the default bridge, else that on the first network which has one; an
    /// IPv6 address only where there is no other.
    pub fn address(&self) -> Option<&str> {
        let networks = self.networks.values();
        let v4 = std::iter::once(&self.ip_address).chain(networks.clone().map(|network| &network.ip_address));
        let v6 = std::iter::once(&self.global_ipv6_address)
            .chain(networks.map(|network| &network.global_ipv6_address));
        v4.chain(v6).map(String::as_str).find(|address| !address.is_empty())
    }

    /// Is that one of its addresses? IPv6 may stand in brackets.
    pub(crate) fn has(&self, address: &str) -> bool {
        let address = address.trim_matches(['[', ']']);
        let joined = self.networks.values().flat_map(|one| [&one.ip_address, &one.global_ipv6_address]);
        joined.chain([&self.ip_address, &self.global_ipv6_address]).any(|known| known == address)
    }

    /// The port of the host at which that TCP port of the container is published; `None`: at none.
    pub(crate) fn published(&self, port: u16) -> Option<u16> {
        let bindings = self.ports.get(&format!("{port}/tcp"))?.as_ref()?;
        bindings.iter().find_map(|binding| binding.host_port.parse().ok())
    }
}

/// A container's addresses on one network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSettings {
    /// Id of the network.
    #[serde(rename = "NetworkID", deserialize_with = "null_as_default")]
    pub network_id: String,
    /// IPv4 address; empty: none.
    #[serde(rename = "IPAddress", deserialize_with = "null_as_default")]
    pub ip_address: String,
    /// IPv6 address; empty: none.
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "null_as_default")]
    pub global_ipv6_address: String,
}

/// One thing of the host that a container sees.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// The volume's name; empty: it is a folder of the host.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Path on the host, or a volume's folder.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// May the container write there?
    #[serde(rename = "RW")]
    pub rw: bool,
}

/// One line of a list of containers (`GET /containers/json`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSummary {
    /// Id, 64 hexadecimal digits.
    pub id: String,
    /// Names, without the slash that the engine puts before each.
    #[serde(deserialize_with = "without_slashes")]
    pub names: Vec<String>,
    /// The reference it was created with.
    #[serde(deserialize_with = "familiar")]
    pub image: String,
    /// Id of the image, `sha256:…`.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// Its labels and its image's.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// As [`ContainerState::status`].
    pub state: String,
    /// When it was created, in seconds since the epoch.
    pub created: i64,
    /// What of the host it sees.
    #[serde(deserialize_with = "null_as_default")]
    pub mounts: Vec<Mount>,
}

/// Which containers a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that run.
    Running,
    /// Those that run, those that have ended, and those never started.
    All,
}

/// A command to run in a running container.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    /// The program and its arguments; no shell reads it.
    pub cmd: Vec<String>,
    /// `NAME=value` each, beyond the container's own.
    pub env: Vec<String>,
    /// `uid:gid`, or a name; empty: the container's own.
    pub user: String,
    /// Directory it starts in; empty: the container's own.
    pub working_dir: String,
}

/// How a command in a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// 0: well; 126 and 127: it could not be started.
    pub exit_code: i64,
    /// All it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// An image as the engine holds it (`GET /images/{name}/json`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageInspect {
    /// Id, `sha256:…`.
    pub id: String,
    /// Its references, `repository:tag` each.
    #[serde(deserialize_with = "familiar_all")]
    pub repo_tags: Vec<String>,
    /// What registries have of it, `repository@sha256:…` each.
    #[serde(deserialize_with = "null_as_default")]
    pub repo_digests: Vec<String>,
    /// Bytes of all its layers.
    pub size: u64,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// When it was made, RFC 3339.
    #[serde(deserialize_with = "null_as_default")]
    pub created: String,
    /// What its containers inherit.
    #[serde(deserialize_with = "null_as_default")]
    pub config: ImageConfig,
}

/// What an image's containers inherit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// Labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// `NAME=value` each.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Entry point; empty: none.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// Command; empty: none.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// `uid:gid`, or a name; empty: root.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
}

/// One line of a list of images (`GET /images/json`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageSummary {
    /// Id, `sha256:…`.
    pub id: String,
    /// Its references, `repository:tag` each.
    #[serde(deserialize_with = "familiar_all")]
    pub repo_tags: Vec<String>,
    /// Labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Bytes of all its layers.
    pub size: u64,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
}

/// What a registry has by a name (`GET /distribution/{name}/json`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryImage {
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// `linux/amd64` each; empty: not told.
    pub platforms: Vec<String>,
}

/// How to build an image.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The reference the image gets.
    pub tag: String,
    /// Path of the Dockerfile in the context; empty: `Dockerfile`.
    pub dockerfile: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Values of the Dockerfile's `ARG`s, and the proxy settings that the engine knows (`HTTP_PROXY`…).
    pub build_args: BTreeMap<String, String>,
    /// Is a registry asked for a newer base image?
    pub pull: bool,
    /// `linux/amd64`; empty: the engine's own.
    pub platform: String,
}

/// What an engine says of itself at once (`GET /_ping`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// The highest API version that it speaks.
    pub api_version: String,
    /// `linux` or `windows`; empty: not told.
    pub os_type: String,
}

/// Which engine this is (`GET /version`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// The engine's own version: `20.10.24`.
    pub version: String,
    /// The highest API version that it speaks.
    pub api_version: String,
    /// The lowest API version that it speaks.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// Its host's operating system: `linux`.
    pub os: String,
    /// Its host's architecture, as Go names it: `amd64`.
    pub arch: String,
    /// Its host's kernel.
    pub kernel_version: String,
}

fn as_empty_objects<S: serde::Serializer>(names: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(names.iter().map(|name| (name, serde_json::Map::new())))
}

/// The engine, written in Go, says `null` where an empty list or map is meant.
pub(super) fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The engine puts a slash before a name; only links, which nobody makes any more, had a second one.
fn without_slash<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(trimmed(Option::deserialize(deserializer)?.unwrap_or_default()))
}

fn without_slashes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names: Option<Vec<String>> = Option::deserialize(deserializer)?;
    Ok(names.unwrap_or_default().into_iter().map(trimmed).collect())
}

/// References as people write them: `docker.io/library/a:1`, as Podman has it, is `a:1`.
fn familiar<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(without_hub(Option::deserialize(deserializer)?.unwrap_or_default()))
}

fn familiar_all<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let references: Option<Vec<String>> = Option::deserialize(deserializer)?;
    Ok(references.unwrap_or_default().into_iter().map(without_hub).collect())
}

fn without_hub(reference: String) -> String {
    let bare = reference.strip_prefix("docker.io/").map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
    bare.map(str::to_string).unwrap_or(reference)
}

fn trimmed(name: String) -> String {
    name.strip_prefix('/').map(str::to_string).unwrap_or(name)
}
