//! A storage that was started before: is it the one that is asked for, and where is it by now?

use std::path::Path;

use super::network::{host_port, is_address, is_loopback};
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
        if let (true, false, Some(now)) =
            (is_address(host), network.has(host), found.address_on(self.own_network()))
        {
            config.address = Some(host_port(now, port));
        }
        let reached = self.host_address.as_deref().and_then(|address| address.rsplit_once(':'));
        let published = port.parse().ok().and_then(|port| network.published(port));
        match (reached, published, found.own_address()) {
            // It is on an internal network, or has IPv6 alone: it is reached at its own address.
            (Some((host, _)), _, Some(now)) if is_address(host) && !is_loopback(host) => {
                config.host_address = Some(host_port(now, port));
            }
            (Some(_), Some(now), _) => {
                config.mapped_port = Some(now);
                config.host_address = Some(format!("127.0.0.1:{now}"));
            }
            _ => {}
        }
        config
    }

    /// The same storage as functions on `network` reach it, `None` being the container engine's default one, if its
    /// container is on that; else `None`.
    pub(super) fn seen_from(&self, found: &ContainerInspect, network: Option<&str>) -> Option<StorageConfig> {
        let (host, port) = self.address.as_deref()?.rsplit_once(':')?;
        let on_network = || StorageConfig { network: network.map(str::to_string), ..self.clone() };
        // Who gives it a name knows where that is known.
        if !is_address(host) {
            return Some(on_network());
        }
        let address = host_port(found.address_on(network)?, port);
        Some(StorageConfig { address: Some(address), ..on_network() })
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
        let unpublished = StorageConfig { host_address: kept().address, ..kept() };
        let moved = unpublished.at(&found("fd00::3"));
        assert_eq!(
            (moved.address.as_deref(), moved.tool_address()),
            (Some("[fd00::3]:9000"), Some("[fd00::3]:9000"))
        );
        let named = StorageConfig { address: Some("objects:9000".into()), host_address: None, ..kept() };
        assert_eq!(named.at(&found("172.17.0.3")), named);
    }
}
