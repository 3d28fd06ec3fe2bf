//! What the container of each engine is made of: command, environment, port, rights, limits of time.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::keys::Keys;
use super::{EngineType, StorageConfig, StorageKind, dynoxide, minio, scylladb, seaweedfs};
use crate::docker::{
    ChosenNetwork, ContainerSpec, DEFAULT_NETWORK, HostConfig, LogConfig, PortBinding, VolumeMount,
};
use crate::files;
use crate::units::hexadecimal;

/// The label of containers and volumes of storage; its value is the engine.
pub(super) const LABEL: &str = "sebs-lite.storage";

/// How one engine is run.
#[derive(Default)]
pub(super) struct Server {
    /// Replaces the image's entry point; `None`: the image's own.
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Vec<String>,
    /// `NAME=value` each; secrets are among them.
    pub(super) env: Vec<String>,
    /// Where it listens in its container.
    pub(super) port: u16,
    /// Where its data are in its container.
    pub(super) data: &'static str,
    pub(super) capabilities: &'static [&'static str],
    /// Is `/tmp` a file system in memory? For sockets, and for images that have no such folder.
    pub(super) has_tmpfs: bool,
    /// How long it may take until it can be written to.
    pub(super) ready_within: Duration,
    /// How long it may take to end in peace.
    pub(super) stops_within: Duration,
}

/// What differs from one container of an engine to another.
pub(super) struct Placement<'a> {
    pub(super) image: &'a str,
    /// Where its data are.
    pub(super) mount: DataMount,
    /// `uid:gid`; empty: the image's own.
    pub(super) user: &'a str,
    /// The port of 127.0.0.1; `None`: the container engine chooses.
    pub(super) mapped_port: Option<u16>,
    /// The network that it is put on; `None`: the container engine's default one.
    pub(super) network: Option<&'a ChosenNetwork>,
}

/// What a container has at the place of its data.
#[derive(Clone, Debug)]
pub(super) enum DataMount {
    /// `/folder:/data`.
    Folder(String),
    Volume(VolumeMount),
}

impl Server {
    /// That of an engine which is run in a container; `None` of all others.
    pub(super) fn of(config: &StorageConfig, keys: &Keys) -> Option<Server> {
        match config.engine {
            EngineType::Minio => Some(minio::server(keys)),
            EngineType::SeaweedFs => Some(seaweedfs::server(keys)),
            EngineType::ScyllaDb => Some(scylladb::server(config)),
            EngineType::Dynoxide => Some(dynoxide::server(config)),
            EngineType::Auto | EngineType::S3 | EngineType::DynamoDb => None,
        }
    }

    /// Its port, as the container engine writes it.
    pub(super) fn port_key(&self) -> String {
        format!("{}/tcp", self.port)
    }

    /// The container, which has no rights but those it needs.
    pub(super) fn spec(&self, engine: EngineType, placement: &Placement<'_>) -> ContainerSpec {
        let host_port = placement.mapped_port.map(|port| port.to_string()).unwrap_or_default();
        let binding = PortBinding { host_ip: "127.0.0.1".to_string(), host_port };
        let (binds, mounts) = match placement.mount.clone() {
            DataMount::Folder(bind) => (vec![bind], Vec::new()),
            DataMount::Volume(mount) => (Vec::new(), vec![mount]),
        };
        let mut tmpfs = BTreeMap::new();
        if self.has_tmpfs {
            tmpfs.insert("/tmp".to_string(), "mode=1777".to_string());
        }
        let mut spec = ContainerSpec {
            image: placement.image.to_string(),
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: self.env.clone(),
            user: placement.user.to_string(),
            labels: BTreeMap::from([(LABEL.to_string(), engine.name().to_string())]),
            exposed_ports: vec![self.port_key()],
            host_config: HostConfig {
                binds,
                mounts,
                network_mode: DEFAULT_NETWORK.to_string(),
                port_bindings: BTreeMap::from([(self.port_key(), vec![binding])]),
                security_opt: vec!["no-new-privileges".to_string()],
                cap_drop: vec!["ALL".to_string()],
                cap_add: self.capabilities.iter().map(|name| name.to_string()).collect(),
                log_config: Some(LogConfig::readable()),
                tmpfs,
                ..HostConfig::default()
            },
            ..ContainerSpec::default()
        };
        if let Some(network) = placement.network {
            network.place(&mut spec);
        }
        spec
    }
}

/// Where a server listens that is to be reached at each address of its container: `::` takes IPv4 too, but is not to be had
/// where the kernel has no IPv6.
pub(super) fn any_address() -> &'static str {
    if Path::new("/proc/net/if_inet6").exists() { "::" } else { "0.0.0.0" }
}

impl EngineType {
    /// The image that is run: as configured, else the engine's own of the version that is configured; `None` where none
    /// is.
    pub(super) fn image(self, config: &StorageConfig) -> Option<String> {
        let version = config.version.as_deref();
        let own = match self {
            EngineType::Minio => minio::image(version),
            EngineType::SeaweedFs => seaweedfs::image(version),
            EngineType::ScyllaDb => scylladb::image(version),
            EngineType::Dynoxide => dynoxide::image(version),
            EngineType::Auto | EngineType::S3 | EngineType::DynamoDb => return None,
        };
        Some(config.image.clone().unwrap_or(own))
    }

    /// Where data are kept that are to outlive the storage, if nothing else is configured: below `folder` a folder for
    /// objects; for tables the name of a volume, which no other folder has.
    pub(super) fn default_volume(self, folder: &Path) -> String {
        if self.kind() != Some(StorageKind::Nosql) {
            return format!("{self}-volume");
        }
        let folder = files::canonical(folder).unwrap_or_else(|_| folder.to_path_buf());
        let hash = hexadecimal(&Sha256::digest(folder.as_os_str().as_bytes()));
        format!("{self}-volume-{}", &hash[..8])
    }
}

impl StorageKind {
    /// The engines that can be run for it, in the order of preference.
    pub(super) fn engines(self) -> [EngineType; 2] {
        match self {
            StorageKind::Object => [EngineType::Minio, EngineType::SeaweedFs],
            StorageKind::Nosql => [EngineType::ScyllaDb, EngineType::Dynoxide],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_published_on_loopback_alone_and_has_the_rights_of_its_engine() {
        let keys = Keys { access_key: "who".into(), secret_key: "hush-hush".into() };
        let placement = Placement {
            image: "x:y",
            mount: DataMount::Folder("/a:/data".into()),
            user: "1:2",
            mapped_port: Some(9011),
            network: None,
        };
        for (engine, port, capabilities) in [
            (EngineType::Minio, "9000/tcp", 0),
            (EngineType::SeaweedFs, "9000/tcp", 0),
            (EngineType::ScyllaDb, "8000/tcp", 6),
            (EngineType::Dynoxide, "8000/tcp", 0),
        ] {
            let server = Server::of(&StorageConfig::of(engine), &keys).unwrap();
            let spec = server.spec(engine, &placement);
            let host = &spec.host_config;
            assert_eq!(host.port_bindings.len(), 1);
            let binding = &host.port_bindings[port][0];
            assert_eq!((binding.host_ip.as_str(), binding.host_port.as_str()), ("127.0.0.1", "9011"));
            assert_eq!(host.cap_drop, ["ALL"]);
            assert_eq!(host.cap_add.len(), capabilities, "{engine}");
            assert_eq!(host.security_opt, ["no-new-privileges"]);
            assert_eq!(host.binds, ["/a:/data"]);
            assert_eq!(spec.labels[LABEL], engine.name());
            assert_eq!(spec.user, "1:2");
            let arguments = format!("{:?}{:?}", spec.cmd, spec.entrypoint);
            assert!(!arguments.contains("hush"), "{arguments}");
        }
    }

    #[test]
    fn two_folders_have_no_volume_of_tables_in_common_and_one_folder_finds_its_own_again() {
        let volume = |folder: &str| EngineType::Dynoxide.default_volume(Path::new(folder));
        assert!(volume("/no/a").starts_with("dynoxide-volume-"));
        assert_eq!(volume("/no/a"), volume("/no/a"));
        assert_ne!(volume("/no/a"), volume("/no/b"));
        assert_eq!(EngineType::Minio.default_volume(Path::new("/no/a")), "minio-volume");
    }

    #[test]
    fn an_image_is_configured_whole_or_by_its_version() {
        let config = StorageConfig::of(EngineType::ScyllaDb);
        assert_eq!(config.engine.image(&config).unwrap(), "scylladb/scylla:6.0");
        let config = StorageConfig { version: Some("6.2".into()), ..config };
        assert_eq!(config.engine.image(&config).unwrap(), "scylladb/scylla:6.2");
        let config = StorageConfig { image: Some("mine:1".into()), ..config };
        assert_eq!(config.engine.image(&config).unwrap(), "mine:1");
        assert_eq!(EngineType::Auto.image(&config), None);
    }
}
