//! Where the functions of a platform are invoked, as far as their network and the place of the engine decide it.

use crate::docker::{ChosenNetwork, Engine, Info};
use crate::error::{Error, Result};

use super::{AddressMode, LocalOptions};

impl LocalOptions {
    /// Looks up the network that functions are to run on, and sees that they can be invoked there as these options have
    /// it. [`Local::new`](super::Local::new) does the same; whoever builds or starts something before asks here first.
    ///
    /// # Errors
    /// A usage error: there is no such network, with the names of those there are; or functions on it cannot be invoked so,
    /// and why. The engine does not answer.
    pub fn check_network(&mut self, engine: &Engine) -> Result<()> {
        if self.network.is_none() {
            return Ok(());
        }
        settle(self, engine, &engine.info()?).map(drop)
    }
}

/// The network that functions run on; `None`: the engine's default one. The options then have its name as the engine has
/// it, and where instances are invoked.
pub(super) fn settle(
    options: &mut LocalOptions,
    engine: &Engine,
    info: &Info,
) -> Result<Option<ChosenNetwork>> {
    let network = ChosenNetwork::find(engine, options.network.as_deref())?;
    options.network = network.as_ref().map(|network| network.name.clone());
    if options.host_port.is_some() {
        options.address = AddressMode::Published;
    }
    if let Some(network) = &network {
        options.address = address_on(network, options.address, info.is_elsewhere())?;
    }
    if options.address == AddressMode::Auto && info.is_elsewhere() {
        log::info!("the engine's bridge is not on this host: instances are published on 127.0.0.1");
        options.address = AddressMode::Published;
    }
    Ok(network)
}

fn address_on(network: &ChosenNetwork, wanted: AddressMode, is_elsewhere: bool) -> Result<AddressMode> {
    let (name, kind) = (&network.name, network.kind());
    match wanted {
        AddressMode::Bridge if !network.is_reached() => Err(Error::usage(format!(
            "instances on network `{name}`, {kind}, cannot be invoked at their addresses, which this host does not \
             reach: publish them (--address published)"
        ))),
        AddressMode::Published if !network.publishes() => Err(Error::usage(format!(
            "instances on network `{name}`, {kind}, cannot be published (--port, --address published): they are invoked \
             at their addresses there"
        ))),
        AddressMode::Auto if !network.publishes() && is_elsewhere => Err(Error::usage(format!(
            "instances on network `{name}`, {kind}, can neither be published nor be invoked at their addresses: the \
             engine's bridges are not on this host"
        ))),
        AddressMode::Auto if !network.is_reached() => Ok(AddressMode::Published),
        AddressMode::Auto if !network.publishes() => Ok(AddressMode::Bridge),
        wanted => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_network_cannot_do_is_refused_and_what_it_can_is_chosen() {
        use AddressMode::{Auto, Bridge, Published};
        let network = |driver: &str, is_internal| ChosenNetwork {
            name: "lab".to_string(),
            driver: driver.to_string(),
            is_internal,
        };
        let (bridge, internal, overlay) =
            (network("bridge", false), network("bridge", true), network("overlay", false));
        for wanted in [Auto, Bridge, Published] {
            assert_eq!(address_on(&bridge, wanted, false).unwrap(), wanted);
        }
        assert_eq!(address_on(&internal, Auto, false).unwrap(), Bridge);
        assert_eq!(address_on(&internal, Bridge, false).unwrap(), Bridge);
        assert_eq!(address_on(&overlay, Auto, false).unwrap(), Published);
        assert_eq!(address_on(&overlay, Published, false).unwrap(), Published);
        for (network, wanted, is_elsewhere, told) in [
            (&internal, Published, false, "an internal bridge network, cannot be published"),
            (&internal, Auto, true, "not on this host"),
            (&overlay, Bridge, false, "publish them"),
        ] {
            let error = address_on(network, wanted, is_elsewhere).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(told), "{error}");
        }
    }
}
