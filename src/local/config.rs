//! The local platform's configuration: no credentials, no region, and the ports of this host that functions have.

use std::net::{Ipv4Addr, TcpListener};

use serde_json::Value;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::faas::{Config, Function, Platform, Resources};

use super::DEFAULT_PORT;

/// The local platform: it runs as the user, and needs no credentials.
pub const PLATFORM: Platform = Platform { name: "local", credentials: &[] };

/// The platforms that this program knows.
pub const PLATFORMS: [Platform; 1] = [PLATFORM];

/// How many ports are looked at from [`DEFAULT_PORT`] on.
const PORTS: u16 = 1000;

/// The local platform's configuration, from `configured`, `deployment.local` in a configuration file (null: there is
/// none), and from the cache.
///
/// # Errors
/// The cache cannot be read.
pub fn local_config(configured: &Value, cache: &Cache) -> Result<Config> {
    Config::deserialize(PLATFORM, configured, cache, &|name| std::env::var(name).ok())
}

/// Allocates the first port from [`DEFAULT_PORT`] on that no function has and nobody listens at on 127.0.0.1. It is noted
/// in the cache until [`Resources::release_port`] is called.
///
/// # Errors
/// None is free; the cache cannot be read or written.
pub fn allocate_port(resources: &mut Resources, cache: &Cache) -> Result<u16> {
    for port in DEFAULT_PORT..DEFAULT_PORT + PORTS {
        let is_known = resources.allocated_ports.contains(&port);
        if !is_known && is_free(port) && resources.allocate_port(cache, port)? {
            return Ok(port);
        }
    }
    let last = DEFAULT_PORT + PORTS - 1;
    Err(Error::new(format!(
        "no port of 127.0.0.1 from {DEFAULT_PORT} to {last} is free: remove functions that are kept with \
         `sebs-lite resources cleanup --functions`"
    )))
}

/// Notes the ports of 127.0.0.1 that a function which outlives its command has, instead of those that it had by what was
/// recorded of it before.
pub(super) fn renew_ports(
    resources: &mut Resources,
    cache: &Cache,
    function: &Function,
    before: Option<Value>,
) -> Result<()> {
    if let Some(before) = before.and_then(|record| Function::deserialize_record(record).ok()) {
        release_ports(resources, cache, &before)?;
    }
    ports(function).try_for_each(|port| resources.allocate_port(cache, port).map(drop))
}

/// Forgets them.
pub(super) fn release_ports(resources: &mut Resources, cache: &Cache, function: &Function) -> Result<()> {
    ports(function).try_for_each(|port| resources.release_port(cache, port))
}

fn ports(function: &Function) -> impl Iterator<Item = u16> {
    let published = function.instances.iter().filter(|instance| instance.url.starts_with("127.0.0.1:"));
    published.map(|instance| instance.port)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::files::TempFolder;

    #[test]
    fn no_two_functions_are_given_one_port_nor_one_that_is_taken() {
        let folder = TempFolder::create().unwrap();
        let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
        let config = || local_config(&Value::Null, &cache).unwrap();
        assert_eq!((config().region.as_str(), config().credentials.get("any")), ("", None));
        let (mut one, mut other) = (config().resources, config().resources);
        let first = allocate_port(&mut one, &cache).unwrap();
        // The other has read the cache before.
        let second = allocate_port(&mut other, &cache).unwrap();
        assert_ne!(first, second);
        one.release_port(&cache, first).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first));
        let again = allocate_port(&mut one, &cache).unwrap();
        // Somebody else may have taken it in the meantime: then it is not given out either.
        assert!(again != first, "{again} is taken: {listener:?}");
        assert_eq!(config().resources.allocated_ports, [second, again].into());
    }
}
