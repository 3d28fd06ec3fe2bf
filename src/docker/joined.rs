//! The network that containers are to join beside the engine's default bridge: looked up, refused where nothing on it could
//! be reached, and found again on a container.

use std::collections::BTreeMap;

use super::{ContainerInspect, ContainerSpec, EndpointSettings, Engine, Info, Network, NetworkSettings};
use crate::error::{Error, Result};
use crate::host;

/// The engine's default network, which containers join that are put on no other.
pub(crate) const DEFAULT_NETWORK: &str = "bridge";

/// The label of a container that was put on a network of the user's; its value is the network's name.
const LABEL: &str = "sebs-lite.network";

/// A network of the user's that containers are to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenNetwork {
    /// Its name.
    pub name: String,
    /// Who makes it: `bridge`, `macvlan`, `overlay`…
    pub driver: String,
    /// Is there no way from it to anywhere but this host?
    pub is_internal: bool,
}

impl ChosenNetwork {
    /// The network that is called so, by its name, its id or the first digits of that; `None`: the engine's default one.
    ///
    /// # Errors
    /// A usage error: there is none, with the names of those there are, or containers of ours cannot do with it, and why.
    pub fn find(engine: &Engine, called: Option<&str>) -> Result<Option<ChosenNetwork>> {
        let Some(called) = called.filter(|called| *called != DEFAULT_NETWORK) else { return Ok(None) };
        check_name(called)?;
        let found = match engine.inspect_network(called) {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Err(missing(engine, called)),
            Err(error) => return Err(error),
        };
        if found.name == DEFAULT_NETWORK {
            return Ok(None);
        }
        choose(found).map(Some)
    }

    /// Puts a container on it that is to be created.
    pub(crate) fn place(&self, spec: &mut ContainerSpec) {
        spec.host_config.network_mode.clone_from(&self.name);
        spec.labels.insert(LABEL.to_string(), self.name.clone());
    }

    /// Does the engine publish ports of containers that are on it alone?
    pub fn publishes(&self) -> bool {
        !self.is_internal && !self.is_apart()
    }

    /// Does this host, where the engine's bridges are on it, reach a container at its address there?
    pub fn is_reached(&self) -> bool {
        self.driver != "overlay" && !self.is_apart()
    }

    /// Does the kernel keep the containers on it from their own host?
    fn is_apart(&self) -> bool {
        matches!(self.driver.as_str(), "macvlan" | "ipvlan")
    }

    /// What kind of network it is, with its article: `an internal bridge network`.
    pub(crate) fn kind(&self) -> String {
        let internal = if self.is_internal { "internal " } else { "" };
        let kind = format!("{internal}{} network", self.driver);
        let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        format!("{article} {kind}")
    }
}

/// What is no network of its own, and cannot be asked for.
fn check_name(called: &str) -> Result<()> {
    let why = match called {
        "" => "a network has a name: leave the choice out to have the engine's default one",
        "host" => {
            "network `host` cannot be had: every container would listen at the same port of this host, so that no two could \
             run (the default network has an address for each)"
        }
        "none" => "network `none` cannot be had: a container on it has no address to be reached at",
        _ if called.starts_with("container:") => {
            "the network of another container cannot be had: a container of ours would have no address of its own"
        }
        _ => return Ok(()),
    };
    Err(Error::usage(why))
}

fn choose(found: Network) -> Result<ChosenNetwork> {
    let name = &found.name;
    // By an id, too.
    check_name(name)?;
    if found.config_only {
        return Err(Error::usage(format!(
            "no container can join network `{name}`: it holds the configuration of others alone"
        )));
    }
    if found.scope == "swarm" && !found.attachable {
        return Err(Error::usage(format!(
            "no container can join network `{name}`: it is a swarm's, and was not made with --attachable"
        )));
    }
    let chosen = ChosenNetwork { driver: found.driver, is_internal: found.internal, name: found.name };
    if !chosen.publishes() && !chosen.is_reached() {
        return Err(Error::usage(format!(
            "network `{}` cannot be used: this host reaches no container on {}, and nothing on it is published (a bridge \
             network has neither fault)",
            chosen.name,
            chosen.kind()
        )));
    }
    Ok(chosen)
}

fn missing(engine: &Engine, called: &str) -> Error {
    let networks = match engine.list_networks(&[]) {
        Ok(networks) => networks,
        Err(error) => return error,
    };
    let usable = networks.into_iter().filter(|network| choose(network.clone()).is_ok());
    let mut names: Vec<String> = usable.map(|network| format!("`{}`", network.name)).collect();
    names.sort();
    Error::usage(format!(
        "there is no network `{called}`: the engine has {} (`docker network create {called}` makes one)",
        if names.is_empty() { "none that containers could join".to_string() } else { names.join(", ") }
    ))
}

impl ContainerInspect {
    /// The network that it was put on when it was created; `None`: the engine's default one.
    pub fn own_network(&self) -> Option<&str> {
        network_of(&self.config.labels)
    }

    /// Its address on the network that it was put on; `None`: it has none there.
    pub fn own_address(&self) -> Option<&str> {
        self.address_on(self.own_network())
    }

    /// Its address on a network, `None` being the engine's default one.
    pub(crate) fn address_on(&self, network: Option<&str>) -> Option<&str> {
        match (network, self.own_network()) {
            (Some(network), _) => self.network_settings.address_on(network),
            // Engines have had several ways to tell of that one.
            (None, None) => self.network_settings.address(),
            (None, Some(_)) => self.network_settings.address_on(DEFAULT_NETWORK),
        }
    }

    /// Was it taken off a network of the user's that it was put on?
    pub(crate) fn has_left_its_network(&self) -> bool {
        self.own_network().is_some_and(|network| self.network_settings.endpoint(network).is_none())
    }
}

impl NetworkSettings {
    /// The address on one network, an IPv6 one only where there is no other; `None`: there is none.
    pub(crate) fn address_on(&self, network: &str) -> Option<&str> {
        let endpoint = self.endpoint(network)?;
        [&endpoint.ip_address, &endpoint.global_ipv6_address]
            .into_iter()
            .map(String::as_str)
            .find(|address| !address.is_empty())
    }

    fn endpoint(&self, network: &str) -> Option<&EndpointSettings> {
        let by_id = || self.networks.values().find(|endpoint| endpoint.network_id == network);
        self.networks.get(network).or_else(by_id)
    }
}

impl Info {
    /// Are the engine's bridges out of this host's reach?
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.is_rootless() || self.operating_system.contains("Docker Desktop") || host::is_wsl()
    }
}

/// The network that a container was put on, by its labels; `None`: the engine's default one.
pub(crate) fn network_of(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(LABEL).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, driver: &str) -> Network {
        let text = format!(r#"{{"Name": "{name}", "Driver": "{driver}", "Scope": "local", "Labels": null}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_network_is_chosen_only_where_something_on_it_can_be_reached() {
        let bridge = choose(network("lab", "bridge")).unwrap();
        assert!(bridge.publishes() && bridge.is_reached());
        let internal = choose(Network { internal: true, ..network("lab", "bridge") }).unwrap();
        assert!(!internal.publishes() && internal.is_reached());
        assert_eq!(internal.kind(), "an internal bridge network");
        let swarm = Network { scope: "swarm".into(), ..network("lab", "overlay") };
        let overlay = choose(Network { attachable: true, ..swarm.clone() }).unwrap();
        assert!(overlay.publishes() && !overlay.is_reached());
        let plug_in = choose(network("lab", "weave")).unwrap();
        assert!(plug_in.publishes() && plug_in.is_reached());
        for (refused, told) in [
            (network("host", "host"), "same port of this host"),
            (network("none", "null"), "no address"),
            (network("lab", "macvlan"), "reaches no container on a macvlan network"),
            (network("lab", "ipvlan"), "nothing on it is published"),
            (swarm.clone(), "--attachable"),
            (Network { attachable: true, internal: true, ..swarm }, "internal overlay network"),
            (Network { config_only: true, ..network("lab", "bridge") }, "configuration of others"),
        ] {
            let error = choose(refused).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(told), "{error}");
        }
        for (called, told) in [("", "has a name"), ("container:x", "no address of its own")] {
            let error = check_name(called).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn a_container_is_found_at_its_address_on_the_network_it_was_put_on() {
        let container = |label: &str, networks: &str| {
            let text = format!(
                r#"{{"Config": {{"Labels": {{{label}}}}}, "NetworkSettings": {{"IPAddress": "", "Networks": {{{networks}}}}}}}"#
            );
            serde_json::from_str::<ContainerInspect>(&text).unwrap()
        };
        let own = r#""sebs-lite.network": "lab""#;
        let lab = r#""lab": {"NetworkID": "ab", "IPAddress": "172.18.0.2", "GlobalIPv6Address": "fd00::2"}"#;
        let bridge = r#""bridge": {"NetworkID": "cd", "IPAddress": "172.17.0.2"}"#;
        let on_both = container(own, &format!("{bridge}, {lab}"));
        assert_eq!((on_both.own_network(), on_both.own_address()), (Some("lab"), Some("172.18.0.2")));
        assert_eq!(on_both.address_on(None), Some("172.17.0.2"));
        assert_eq!(on_both.address_on(Some("ab")), Some("172.18.0.2"));
        assert!(!on_both.has_left_its_network());
        let moved = container(own, bridge);
        assert_eq!(moved.own_address(), None);
        assert!(moved.has_left_its_network());
        let only_v6 = container(own, r#""lab": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}"#);
        assert_eq!(only_v6.own_address(), Some("fd00::2"));
        let default = container("", &format!("{bridge}, {lab}"));
        assert_eq!((default.own_network(), default.own_address()), (None, Some("172.17.0.2")));
        assert!(!container("", "").has_left_its_network());
    }
}
