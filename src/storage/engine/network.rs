//! Where functions on a network reach a storage: it was put there, or its container has joined the network since.

use std::net::IpAddr;

use super::stop::inspect;
use super::{StorageConfig, StorageKind};
use crate::docker::{ChosenNetwork, DEFAULT_NETWORK, Engine, Network};
use crate::error::{Error, Result};

/// The network that a storage is to be put on; `None`: the container engine's default one.
pub(super) fn choose(engine: &Engine, config: &StorageConfig) -> Result<Option<ChosenNetwork>> {
    let Some(network) = ChosenNetwork::find(engine, config.network.as_deref())? else { return Ok(None) };
    if network.publishes() {
        return Ok(Some(network));
    }
    let (name, kind) = (&network.name, network.kind());
    if let Some(port) = config.mapped_port {
        return Err(Error::usage(format!(
            "storage on network `{name}`, {kind}, cannot be published at port {port}: leave `mapped_port` out"
        )));
    }
    if engine.info()?.is_elsewhere() {
        return Err(Error::usage(format!(
            "storage on network `{name}`, {kind}, can neither be published nor be reached at its address: the engine's \
             bridges are not on this host"
        )));
    }
    Ok(Some(network))
}

impl StorageConfig {
    /// The network that it is on, or is to be put on; `None`: the container engine's default one.
    pub(crate) fn own_network(&self) -> Option<&str> {
        self.network.as_deref().filter(|network| *network != DEFAULT_NETWORK)
    }
}

/// A storage that runs, as functions on `network` reach it, `None` being the container engine's default one. Nothing can be
/// said of one whose container is not known here: it is given back as it is.
///
/// # Errors
/// A usage error: its container is not on that network, and how it gets there. The engine cannot be asked.
pub(crate) fn on_network(
    engine: &Engine,
    kind: StorageKind,
    config: &StorageConfig,
    network: Option<&str>,
) -> Result<StorageConfig> {
    if config.instance_id.is_some() && network.is_none() && config.own_network().is_none() {
        return Ok(config.clone());
    }
    let found = config.instance_id.as_deref().map(|id| inspect(engine, id)).transpose()?.flatten();
    let Some(found) = found else {
        if let Some(doubt) = doubt(&engine.list_networks(&[])?, config, network) {
            log::warn!("functions will not reach the {kind} storage at its address, {doubt}");
        }
        return Ok(config.clone());
    };
    config.seen_from(&found, network).ok_or_else(|| {
        let name = &found.name;
        Error::usage(match network {
            Some(network) => format!(
                "container `{name}` of storage `{}` is not on network `{network}`, where the functions run: start storage \
                 there (`sebs-lite storage start {kind} --network {network}`), or have it join (`docker network connect \
                 {network} {name}`)",
                config.engine
            ),
            None => format!(
                "container `{name}` of storage `{}` is on network `{}`, and the functions run on the default one: run \
                 them there (--network), or have it join that (`docker network connect bridge {name}`)",
                config.engine,
                config.network.as_deref().unwrap_or_default()
            ),
        })
    })
}

/// Why functions on `network` do not reach the address of a storage of which nothing else is known, as far as the engine's
/// networks tell: those that it makes have no way to each other. `None`: nothing speaks against it.
fn doubt(networks: &[Network], config: &StorageConfig, network: Option<&str>) -> Option<String> {
    let shown = config.address.as_deref()?;
    let host =
        address(shown.rsplit_once(':').map_or(shown, |(host, _)| host)).filter(|host| !host.is_loopback())?;
    let name = network.unwrap_or(DEFAULT_NETWORK);
    let own = networks.iter().find(|network| network.name == name)?;
    if own.has(host) || own.ipam.config.iter().any(|range| range.gateway.parse() == Ok(host)) {
        return None;
    }
    let other = networks.iter().find(|other| other.driver == "bridge" && other.has(host));
    match other {
        Some(other) => {
            Some(format!("{shown}, which is on network `{}`, while they run on `{name}`", other.name))
        }
        None if own.internal => {
            Some(format!("{shown}: nothing beyond network `{name}`, which is internal, is reached from it"))
        }
        None => None,
    }
}

/// Each `host:port` that functions may have been told a storage is at: one for each network that its container is on.
///
/// # Errors
/// The engine cannot be asked.
pub fn addresses(engine: &Engine, config: &StorageConfig) -> Result<Vec<String>> {
    let mut all: Vec<String> = config.address.iter().cloned().collect();
    let port = config.address.as_deref().and_then(|address| address.rsplit_once(':')).map(|(_, port)| port);
    let Some((id, port)) = config.instance_id.as_deref().zip(port) else { return Ok(all) };
    let Some(found) = inspect(engine, id)? else { return Ok(all) };
    for endpoint in found.network_settings.networks.values() {
        let own = [&endpoint.ip_address, &endpoint.global_ipv6_address].into_iter();
        all.extend(own.filter(|host| !host.is_empty()).map(|host| host_port(host, port)));
    }
    Ok(all)
}

/// `host:port`, of an IPv6 address in brackets.
pub(super) fn host_port(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Is that an address, and not a name?
pub(super) fn is_address(host: &str) -> bool {
    address(host).is_some()
}

/// Is that an address of this host alone?
pub(super) fn is_loopback(host: &str) -> bool {
    address(host).is_some_and(|address| address.is_loopback())
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::EngineType;

    #[test]
    fn what_functions_cannot_reach_is_doubted() {
        let network = |name: &str, range: &str, internal: bool| {
            let text = format!(
                r#"{{"Name": "{name}", "Driver": "bridge", "Internal": {internal}, "IPAM": {{"Config":
                    [{{"Subnet": "{range}.0/16", "Gateway": "{range}.1"}}]}}}}"#
            );
            serde_json::from_str::<Network>(&text).unwrap()
        };
        let networks = [
            network("bridge", "172.17.0", false),
            network("lab", "172.18.0", false),
            network("closed", "172.19.0", true),
        ];
        let doubted = |address: &str, network: Option<&str>| {
            let config = StorageConfig { address: Some(address.into()), ..StorageConfig::of(EngineType::S3) };
            doubt(&networks, &config, network).unwrap_or_default()
        };
        assert!(
            doubted("172.17.0.2:9000", Some("lab")).contains("on network `bridge`, while they run on `lab`")
        );
        assert!(doubted("172.18.0.2:9000", None).contains("on network `lab`, while they run on `bridge`"));
        assert!(doubted("10.0.0.1:9000", Some("closed")).contains("which is internal"));
        for (address, network) in [
            ("172.18.0.2:9000", Some("lab")),
            ("172.17.0.2:9000", None),
            ("10.0.0.1:9000", Some("lab")),
            ("172.19.0.9:9000", Some("closed")),
            ("172.19.0.1:9000", Some("closed")),
            ("172.17.0.1:9000", Some("lab")),
            ("storage:9000", Some("closed")),
            ("127.0.0.1:9000", None),
        ] {
            assert_eq!(doubted(address, network), "", "{address}");
        }
    }
}
