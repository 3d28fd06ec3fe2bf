//! A function that outlives its command: whose it is, which of its instances can still serve, and where they are by now.

use std::net::SocketAddr;

use serde_json::Value;

use crate::docker::ContainerInspect;
use crate::error::Result;
use crate::faas::{CodePackage, Function, Instance};
use crate::files::Claim;

use super::whereabouts::{present_address, published_address};
use super::{Local, config, renew_triggers, short};

/// Who has a function that outlives commands.
#[derive(Debug)]
pub(super) enum RecordClaim {
    /// This platform: no other command uses its instances or records it.
    Ours {
        /// Held for its lock alone.
        _claim: Claim,
        /// What is recorded of it.
        record: Option<Value>,
        /// Its instances that were started with other options, and go as soon as there is one with these.
        outdated: Vec<Outdated>,
    },
    /// Another command.
    Others,
}

/// An instance that serves, but not as it is wanted.
#[derive(Debug)]
pub(super) struct Outdated {
    id: String,
    /// Where on 127.0.0.1 it is published.
    port: Option<u16>,
}

impl Local {
    /// Has a function for this platform alone, of those that outlive commands. `false`: another command has it, or had it
    /// when it was asked for first.
    pub(super) fn claim(&mut self, function: &Function) -> Result<bool> {
        if let Some(known) = self.claims.get(&function.name) {
            return Ok(matches!(known, RecordClaim::Ours { .. }));
        }
        let claimed = match self.cache.claim_function(&self.key(function))? {
            Some(claim) => RecordClaim::Ours { _claim: claim, record: None, outdated: Vec::new() },
            None => RecordClaim::Others,
        };
        let is_ours = matches!(claimed, RecordClaim::Ours { .. });
        self.claims.insert(function.name.clone(), claimed);
        Ok(is_ours)
    }

    /// Has another command the function that is kept by that name?
    pub(super) fn is_anothers(&self, name: &str) -> bool {
        matches!(self.claims.get(name), Some(RecordClaim::Others))
    }

    /// Records a function that this platform has claimed. `false`: another command has recorded one meanwhile, of which a
    /// warning tells.
    pub(super) fn record(&mut self, function: &Function) -> Result<bool> {
        let key = self.key(function);
        let before = match self.claims.get(key.name) {
            Some(RecordClaim::Ours { record, .. }) => record.clone(),
            Some(RecordClaim::Others) | None => None,
        };
        let now = serde_json::to_value(function).expect("a function is made of text and numbers");
        if !self.cache.replace_function(&key, before.as_ref(), now.clone())? {
            log::warn!(
                "another command has kept a function `{}` meanwhile: this one's is removed",
                function.name
            );
            self.kept.remove(&function.name);
            self.claims.insert(function.name.clone(), RecordClaim::Others);
            return Ok(false);
        }
        if let Some(RecordClaim::Ours { record, .. }) = self.claims.get_mut(&function.name) {
            *record = Some(now);
        }
        config::renew_ports(&mut self.config.resources, &self.cache, function, before)?;
        self.kept.insert(function.name.clone());
        Ok(true)
    }

    /// As [`System::cached_function`](crate::faas::System::cached_function).
    pub(super) fn take_over(&mut self, function: &mut Function, package: &CodePackage) -> Result<bool> {
        let name = function.name.clone();
        if !self.claim(function)? {
            log::warn!(
                "kept function `{name}` is used by another command: this one starts instances of its own, and removes them"
            );
            return Ok(false);
        }
        let own = self.pool.records(&name);
        if self.kept.contains(&name) && !own.is_empty() {
            function.instances = own;
            return Ok(true);
        }
        // Only now nobody else changes it.
        let record = self.cache.function(&self.key(function))?;
        let Some(known) = record.clone().and_then(|known| Function::deserialize_record(known).ok()) else {
            return Ok(self.give_up(function));
        };
        *function = known;
        let (mut living, mut outdated, recorded) = (Vec::new(), Vec::new(), function.clone());
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
                let port = published_address(&inspected).map(|address| address.port());
                outdated.push(Outdated { id: id.to_string(), port });
                continue;
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
        if living.is_empty() && outdated.is_empty() {
            self.cache.remove_function(&self.key(function))?;
            config::release_ports(&mut self.config.resources, &self.cache, &recorded)?;
            return Ok(self.give_up(function));
        }
        let is_served = !living.is_empty();
        if is_served {
            outdated.drain(..).try_for_each(|old| self.remove_unknown(&name, &old.id))?;
        }
        if let Some(RecordClaim::Ours { record: known, outdated: going, .. }) = self.claims.get_mut(&name) {
            (*known, *going) = (record, outdated);
        }
        if !is_served {
            return Ok(false);
        }
        self.kept.insert(name.clone());
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

    /// Lets others have a function of which nothing is left.
    fn give_up(&mut self, function: &Function) -> bool {
        log::info!("function `{}` was kept, but is gone", function.name);
        self.claims.remove(&function.name);
        false
    }

    /// Removes the instances of a function that has to be started anew whose port the next one is to have. The others
    /// stay until that one serves.
    pub(super) fn make_room(&mut self, name: &str) -> Result<()> {
        let Some(port) = self.options().host_port else { return Ok(()) };
        let Some(RecordClaim::Ours { outdated, .. }) = self.claims.get_mut(name) else { return Ok(()) };
        let going: Vec<Outdated> = outdated.extract_if(.., |old| old.port == Some(port)).collect();
        going.iter().try_for_each(|old| self.remove_unknown(name, &old.id))
    }

    /// Has a function that was started anew recorded, and then removes the instances that it takes the place of.
    pub(super) fn supersede(&mut self, function: &Function) -> Result<()> {
        if !self.kept.contains(&function.name) || !self.record(function)? {
            return Ok(());
        }
        self.release(function);
        let Some(RecordClaim::Ours { outdated, .. }) = self.claims.get_mut(&function.name) else {
            return Ok(());
        };
        for old in std::mem::take(outdated) {
            if let Err(error) = self.remove_unknown(&function.name, &old.id) {
                log::warn!("failed to remove instance {}: {error}", short(&old.id));
            }
        }
        Ok(())
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
