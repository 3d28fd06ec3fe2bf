//! A storage that was started before: is it the one that is asked for, and where is it by now?

use std::net::IpAddr;
use std::path::Path;

use super::{StorageConfig, StorageKind, folder};
use crate::docker::ContainerInspect;

impl StorageConfig {
    /// Was this storage started as `wish` says? What `wish` leaves open fits anything; relative paths in it are below
    /// `folder`.
    pub(crate) fn fits(&self, wish: &StorageConfig, folder: &Path) -> bool {
        fn is_as<T: PartialEq>(found: &Option<T>, wished: &Option<T>) -> bool {
            wished.is_none() || found == wished
        }
        (wish.engine.kind().is_none() || self.engine == wish.engine)
            && is_as(&self.mapped_port, &wish.mapped_port)
            && is_as(&self.version, &wish.version)
            && is_as(&self.image, &wish.image)
            && is_as(&self.cpus, &wish.cpus)
            && is_as(&self.memory, &wish.memory)
            && is_as(&self.secret_key, &wish.secret_key)
            && is_as(&self.data_volume, &self.volume_of(wish, folder))
    }

    /// The volume that `wish` names, as a storage that was started has it.
    fn volume_of(&self, wish: &StorageConfig, folder: &Path) -> Option<String> {
        let name = wish.data_volume.clone()?;
        match self.engine.kind() {
            Some(StorageKind::Object) => {
                let path = folder::absolute(&folder.join(&name));
                Some(path.map_or(name, |path| path.display().to_string()))
            }
            _ => Some(name),
        }
    }

    /// The same storage, where its container has it: one that was started again may have got another address, and where
    /// the container engine chooses the port, another port.
    pub(crate) fn at(&self, found: &ContainerInspect) -> StorageConfig {
        let mut config = self.clone();
        let network = &found.network_settings;
        let Some((host, port)) = self.address.as_deref().and_then(|address| address.rsplit_once(':')) else {
            return config;
        };
        // A name is the user's own, and so is an address that the container still has.
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if let (true, false, Some(now)) = (is_address, network.has(host), network.address()) {
            let now = if now.contains(':') { format!("[{now}]") } else { now.to_string() };
            config.address = Some(format!("{now}:{port}"));
        }
        if let (Some(_), Some(now)) = (&self.host_address, network.published(port)) {
            config.mapped_port = Some(now);
            config.host_address = Some(format!("127.0.0.1:{now}"));
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::EngineType;

    fn kept() -> StorageConfig {
        StorageConfig {
            mapped_port: Some(9011),
            data_volume: Some("/data/objects".into()),
            secret_key: Some("hush".into()),
            address: Some("172.17.0.9:9000".into()),
            host_address: Some("127.0.0.1:9011".into()),
            ..StorageConfig::of(EngineType::SeaweedFs)
        }
    }

    #[test]
    fn what_a_wish_leaves_open_fits_anything() {
        let fits = |wish: StorageConfig| kept().fits(&wish, Path::new("/data"));
        let seaweedfs = || StorageConfig::of(EngineType::SeaweedFs);
        assert!(fits(StorageConfig::of(EngineType::Auto)) && fits(seaweedfs()));
        let port = |port| StorageConfig { mapped_port: Some(port), ..seaweedfs() };
        assert!(fits(port(9011)) && !fits(port(9012)));
        let volume = |name: &str| StorageConfig { data_volume: Some(name.into()), ..seaweedfs() };
        assert!(fits(volume("objects")) && fits(volume("/data/objects")) && !fits(volume("others")));
        let secret = |text: &str| StorageConfig { secret_key: Some(text.into()), ..seaweedfs() };
        assert!(fits(secret("hush")) && !fits(secret("other")));
        assert!(!fits(StorageConfig::of(EngineType::Minio)));
        assert!(!fits(StorageConfig { version: Some("4.48".into()), ..seaweedfs() }));
        let tables =
            StorageConfig { data_volume: Some("v".into()), ..StorageConfig::of(EngineType::Dynoxide) };
        assert!(tables.fits(&tables, Path::new("/data")));
    }

    #[test]
    fn a_storage_is_where_its_container_is_by_now() {
        let found = |address: &str| {
            let text = format!(
                r#"{{"Id": "a", "NetworkSettings": {{"IPAddress": "{address}",
                    "Ports": {{"9000/tcp": [{{"HostIp": "127.0.0.1", "HostPort": "9099"}}], "1/tcp": null}}}}}}"#
            );
            serde_json::from_str::<ContainerInspect>(&text).unwrap()
        };
        let moved = kept().at(&found("172.17.0.3"));
        assert_eq!(moved.address.as_deref(), Some("172.17.0.3:9000"));
        assert_eq!((moved.tool_address(), moved.mapped_port), (Some("127.0.0.1:9099"), Some(9099)));
        assert_eq!(kept().at(&found("172.17.0.9")).address, kept().address);
        // It does not run, or has a name.
        assert_eq!(kept().at(&found("")).address, kept().address);
        let named = StorageConfig { address: Some("objects:9000".into()), host_address: None, ..kept() };
        assert_eq!(named.at(&found("172.17.0.3")), named);
    }
}
