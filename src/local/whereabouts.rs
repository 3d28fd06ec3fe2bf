//! Where the server of a container is by now, and what somebody did to one that is not where it was.

use std::net::{IpAddr, SocketAddr};

use crate::docker::{ContainerInspect, DEFAULT_NETWORK};

use super::container::DEFAULT_PORT;

/// What became of a container that has ended meanwhile, and runs again.
pub(super) const RESTARTED: &str = "its container was started again by somebody else";

const DISCONNECTED: &str = "its container was disconnected from its network";
const MOVED: &str = "its container was given another address by somebody else";

/// Where a container that was started as an instance is invoked now; `None`: nowhere.
pub(super) fn present_address(inspected: &ContainerInspect) -> Option<SocketAddr> {
    if !inspected.state.running || inspected.has_left_its_network() {
        return None;
    }
    published_address(inspected).or_else(|| bridge_address(inspected))
}

/// Its own address on the network that it was put on.
pub(super) fn bridge_address(inspected: &ContainerInspect) -> Option<SocketAddr> {
    let address = inspected.own_address()?.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(address, DEFAULT_PORT))
}

/// Where on 127.0.0.1 it is published.
pub(super) fn published_address(inspected: &ContainerInspect) -> Option<SocketAddr> {
    let port = inspected.network_settings.published(DEFAULT_PORT)?;
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Does a container run that was started at another time than it was known to be?
pub(super) fn was_restarted(inspected: &ContainerInspect, started_at: &str) -> bool {
    inspected.state.running && inspected.state.started_at != started_at
}

/// Why a container that runs is not what was at `address` since `started_at`; `None`: it is.
pub(super) fn loss(
    inspected: &ContainerInspect,
    address: SocketAddr,
    started_at: &str,
) -> Option<&'static str> {
    if !inspected.state.running {
        return None;
    }
    if was_restarted(inspected, started_at) {
        return Some(RESTARTED);
    }
    let mut own = [bridge_address(inspected), published_address(inspected)].into_iter().flatten();
    let network = inspected.own_network().unwrap_or(DEFAULT_NETWORK);
    match (inspected.has_left_its_network(), own.any(|own| own == address)) {
        (true, _) => Some(DISCONNECTED),
        (false, true) => None,
        (false, false) if inspected.address_on(Some(network)).is_some() => Some(MOVED),
        (false, false) => Some(DISCONNECTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(networks: &str) -> ContainerInspect {
        let text = format!(
            r#"{{"State": {{"Running": true, "StartedAt": "10:00"}}, "Config": {{"Labels": {{"sebs-lite.network": "lab"}}}},
                "NetworkSettings": {{"Ports": {{"9000/tcp": [{{"HostIp": "127.0.0.1", "HostPort": "9001"}}]}},
                "Networks": {{{networks}}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn who_left_its_network_is_not_found_on_another_nor_at_its_port() {
        let (lab, other) =
            (r#""lab": {"IPAddress": "172.18.0.2"}"#, r#""other": {"IPAddress": "172.18.0.2"}"#);
        for address in ["172.18.0.2:9000", "127.0.0.1:9001"] {
            let lost = |networks| loss(&container(networks), address.parse().unwrap(), "10:00");
            assert_eq!(lost(lab), None);
            assert_eq!(lost(other), Some(DISCONNECTED));
        }
        let elsewhere = loss(&container(lab), "172.18.0.9:9000".parse().unwrap(), "10:00");
        assert_eq!(elsewhere, Some(MOVED));
        assert_eq!(present_address(&container(other)), None);
        assert_eq!(present_address(&container(lab)), "127.0.0.1:9001".parse().ok());
    }

    #[test]
    fn who_was_started_again_is_another_wherever_it_is() {
        let mut found = container(r#""lab": {"IPAddress": "172.18.0.2"}"#);
        for address in ["172.18.0.2:9000", "172.18.0.3:9000"] {
            assert_eq!(loss(&found, address.parse().unwrap(), "09:00"), Some(RESTARTED));
        }
        assert!(!was_restarted(&found, "10:00"));
        found.state.running = false;
        assert!(!was_restarted(&found, "09:00"));
        assert_eq!(loss(&found, "172.18.0.2:9000".parse().unwrap(), "09:00"), None);
        assert_eq!(present_address(&found), None);
    }
}
