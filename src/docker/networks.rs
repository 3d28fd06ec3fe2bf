//! Networks: list, inspect, remove.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::Engine;
use super::call::escaped;
use super::labels::{self, Labelled};
use crate::error::{Context, Result};

/// A network as the engine has it (`GET /networks`, `GET /networks/{id}`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made: RFC 3339.
    pub created: String,
    /// `local`, or `swarm` where the engine shares it with others.
    pub scope: String,
    /// Who makes it: `bridge`, `host`, `null`, `macvlan`, `ipvlan`, `overlay`, or a plug-in.
    pub driver: String,
    /// Is there no way from it to anywhere but this host?
    pub internal: bool,
    /// May containers join it that are no part of a swarm's service?
    pub attachable: bool,
    /// Does it hold the configuration of other networks alone?
    pub config_only: bool,
    /// Which addresses it gives out.
    #[serde(rename = "IPAM", deserialize_with = "super::api::null_as_default")]
    pub ipam: Ipam,
    /// Its labels.
    #[serde(deserialize_with = "super::api::null_as_default")]
    pub labels: BTreeMap<String, String>,
}

impl Labelled for Network {
    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

/// Which addresses a network gives out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ipam {
    /// Each range of them.
    #[serde(deserialize_with = "super::api::null_as_default")]
    pub config: Vec<IpamConfig>,
}

/// A range of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IpamConfig {
    /// `172.18.0.0/16`, or of IPv6 addresses.
    pub subnet: String,
    /// This host's own address in it; empty: it has none, or it is not told.
    pub gateway: String,
}

impl Network {
    /// Is that one of the addresses that it gives out to containers?
    pub fn has(&self, address: IpAddr) -> bool {
        let is_hosts = |range: &IpamConfig| range.gateway.parse() == Ok(address);
        self.ipam.config.iter().any(|range| is_in(address, &range.subnet) == Some(true) && !is_hosts(range))
    }
}

/// `None`: that is no range of addresses.
fn is_in(address: IpAddr, range: &str) -> Option<bool> {
    let (first, length) = range.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    let difference = match (address, first.parse().ok()?) {
        (IpAddr::V4(one), IpAddr::V4(other)) => u128::from(one.to_bits() ^ other.to_bits()) << 96,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
        _ => return Some(false),
    };
    Some(difference.leading_zeros() >= length)
}

impl Engine {
    /// The networks that have all these labels, `name` or `name=value` each.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub fn list_networks(&self, labels: &[&str]) -> Result<Vec<Network>> {
        let list = || labels::filter(self.get("/networks"), labels)?.fetch();
        let listed = labels::listed(list).context(|| "failed to list networks".to_string())?;
        Ok(labels::with_all(listed, labels))
    }

    /// A network, by its id, the first digits of that, or its name.
    ///
    /// # Errors
    /// `is_not_found` when there is none.
    pub fn inspect_network(&self, name: &str) -> Result<Network> {
        let inspect = || self.get(&format!("/networks/{}", escaped(name))).fetch();
        inspect().context(|| format!("failed to inspect network `{name}`"))
    }

    /// Removes a network. One that is not there is fine.
    ///
    /// # Errors
    /// When a container has joined it.
    pub fn remove_network(&self, id: &str) -> Result<()> {
        let remove = || self.delete(&format!("/networks/{}", escaped(id))).perform();
        let removed = match remove() {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        };
        removed.context(|| format!("failed to remove network `{id}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_a_network_s_ranges_or_none() {
        let text = r#"{"Name": "lab", "Created": "", "Labels": null, "IPAM": {"Config": [{"Subnet": "172.18.0.0/16",
            "Gateway": "172.18.0.1"},
            {"Subnet": "fd00:1::/64"}, {"Subnet": "odd"}]}}"#;
        let network: Network = serde_json::from_str(text).unwrap();
        let has = |address: &str| network.has(address.parse().unwrap());
        assert!(has("172.18.0.2") && has("172.18.255.255") && has("fd00:1::9"));
        assert!(
            !has("172.18.0.1")
                && !has("172.17.255.255")
                && !has("172.19.0.0")
                && !has("fd00:2::9")
                && !has("::")
        );
        let none: Network = serde_json::from_str(r#"{"IPAM": {"Config": null}}"#).unwrap();
        assert!(!none.has("172.18.0.1".parse().unwrap()));
    }
}
