//! Sees that nothing is removed which a command that lives still needs, and removes what dead ones left.

use std::path::Path;

use super::Local;
use super::config::release_ports;
use crate::benchmark::is_package_held;
use crate::docker::{Engine, Owner};
use crate::error::{Error, Kind, Result};
use crate::faas::Function;

impl Local {
    /// Removes all instances of a function, and forgets the ports that they had. It may be one that an earlier command kept.
    ///
    /// # Errors
    /// `is_conflict`: a command that runs uses one. One could not be removed.
    pub(super) fn delete(&mut self, function: &Function) -> Result<()> {
        let own = self.pool.records(&function.name);
        let is_own = |id: &str| own.iter().any(|record| record.instance_id == id);
        let ids = function.instances.iter().map(|instance| instance.instance_id.as_str());
        let others: Vec<&str> = ids.filter(|id| !is_own(id)).collect();
        let was_claimed = self.claims.contains_key(&function.name);
        if !others.is_empty() && !self.claim(function)? {
            let text = format!("function `{}` is used by a command that runs", function.name);
            return Err(Error::with_kind(Kind::Conflict, text));
        }
        let removed = self.remove_instances(function, &others);
        if removed.is_ok() || !was_claimed {
            self.claims.remove(&function.name);
        }
        removed
    }

    /// Removes those of its own, and those that an earlier command kept.
    fn remove_instances(&mut self, function: &Function, others: &[&str]) -> Result<()> {
        others.iter().try_for_each(|id| check_idle(self.engine(), id))?;
        self.pool.retire_many(self.pool.take_out(|live| live.function == function.name))?;
        others.iter().try_for_each(|id| self.remove_unknown(&function.name, id))?;
        self.pool.undeploy(&function.name);
        self.kept.remove(&function.name);
        release_ports(&mut self.config.resources, &self.cache, function)
    }
}

/// Removes the containers that killed commands left. That this fails is no reason not to go on.
pub(super) fn remove_left_behind(engine: &Engine, owner: &Owner) -> Result<()> {
    match crate::docker::sweep(engine, owner) {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => log::info!("removed what a killed command left: {}", removed.join(", ")),
        Err(error) if error.is_cancelled() => return Err(error),
        Err(error) => log::warn!("failed to look for what killed commands left: {error}"),
    }
    Ok(())
}

/// Sees that a container which a record names is ours, and that no command which lives uses it. One that is gone is fine.
///
/// # Errors
/// A usage error: it is not ours. `is_conflict`: it is in use.
pub(super) fn check_idle(engine: &Engine, id: &str) -> Result<()> {
    let found = match engine.inspect_container(id) {
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    let name = &found.name;
    if Owner::from_labels(&found.config.labels).is_none() {
        return Err(Error::usage(format!(
            "container `{name}` is not removed: its labels do not say that this program made it"
        )));
    }
    let is_held = found.mounts.iter().any(|mount| is_package_held(Path::new(&mount.source)));
    match is_held {
        true => Err(Error::with_kind(
            Kind::Conflict,
            format!("container `{name}` is used by a command that runs"),
        )),
        false => Ok(()),
    }
}
