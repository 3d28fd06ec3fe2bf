//! A function that an earlier command kept: which of its instances can still serve, and where they are by now.

use std::net::SocketAddr;

use crate::docker::ContainerInspect;
use crate::error::Result;
use crate::faas::{CodePackage, Function, Instance};

use super::whereabouts::present_address;
use super::{Local, config, renew_triggers, short};

impl Local {
    /// As [`System::cached_function`](crate::faas::System::cached_function).
    pub(super) fn take_over(&mut self, function: &mut Function, package: &CodePackage) -> Result<bool> {
        let (mut living, recorded) = (Vec::new(), function.clone());
        for record in std::mem::take(&mut function.instances) {
            let id = record.instance_id.as_str();
            let inspected = match self.engine().inspect_container(id) {
                Ok(inspected) => inspected,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let (name, state) = (&function.name, &inspected.state);
            let address = present_address(&inspected);
            if state.running && !state.paused && address.is_none() {
                log::info!(
                    "instance {} of `{name}` was disconnected from its network: removing it",
                    short(id)
                );
            } else if state.running && !self.is_as_wanted(&inspected, function, package) {
                log::info!("function `{name}` is there with other options: starting it anew");
                self.kept.insert(name.clone());
            } else if !state.running || state.paused {
                log::info!("an instance of `{name}` is {}: removing it", state.status);
            } else if let Some(address) = address
                && let Some(record) = self.found_again(name, &record, &inspected, address)?
            {
                living.push((record, inspected));
                continue;
            }
            self.remove_unknown(&function.name, id)?;
        }
        if living.is_empty() {
            self.cache.remove_function(&self.key(function))?;
            config::release_ports(&mut self.config.resources, &self.cache, &recorded)?;
            return Ok(false);
        }
        self.kept.insert(function.name.clone());
        let deployed = self.deployment(&function.name, package, &function.config);
        for (record, inspected) in living {
            let live = self.pool.adopt(&function.name, record, &deployed, &inspected)?;
            self.pool.add_idle(live);
        }
        self.pool.deploy(&function.name, deployed);
        function.instances = self.pool.records(&function.name);
        let has_moved = function.instances.iter().any(|now| !recorded.instances.contains(now));
        if has_moved {
            renew_triggers(function);
            self.record(function)?;
        }
        Ok(true)
    }

    /// The record of an instance whose container runs, with where it is by now; `None`: it does not answer where it has
    /// moved to.
    fn found_again(
        &self,
        name: &str,
        record: &Instance,
        inspected: &ContainerInspect,
        address: SocketAddr,
    ) -> Result<Option<Instance>> {
        let id = &record.instance_id;
        if address.to_string() == record.url {
            return Ok(Some(record.clone()));
        }
        log::info!("instance {} of `{name}` is at {address} now, no more at {}", short(id), record.url);
        match self.pool.starter.wait_until_ready(id, &inspected.name, address) {
            Ok(()) => {}
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => {
                log::info!("{error}: removing it");
                return Ok(None);
            }
        }
        Ok(Some(Instance { url: address.to_string(), port: address.port(), ..record.clone() }))
    }

    /// Is a container what these options and a package lead to? Another package brings another image, and is no reason yet.
    fn is_as_wanted(&self, container: &ContainerInspect, function: &Function, package: &CodePackage) -> bool {
        let has_image =
            function.code_package_hash != package.hash || container.image == package.instance_image();
        has_image && self.options().hold_for(container)
    }
}
