//! Updates a function while it may be invoked: other code, other limits, or instances that have served nothing.

use crate::docker::ContainerLimits;
use crate::error::Result;
use crate::faas::{CodePackage, Function, FunctionConfig};
use crate::units::Bytes;

use super::Local;
use super::instance::LiveInstance;
use super::pool::Deployed;

impl Local {
    /// Swaps all instances of a function for as many that run this package so, and only then retires the old ones, each
    /// after the invocation it serves; both cannot have the same port, so there the old one goes first.
    pub(super) fn replace_instances(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()> {
        self.replace(function, self.deployment(&function.name, package, config), false)
    }

    /// As [`System::enforce_cold_start`](crate::faas::System::enforce_cold_start).
    pub(super) fn start_anew(&mut self, function: &mut Function) -> Result<()> {
        let deployed = self.deployed(function)?.as_ref().clone();
        self.pool.count_cold_start();
        self.replace(function, deployed, true)
    }

    fn replace(&mut self, function: &mut Function, deployed: Deployed, is_enforced: bool) -> Result<()> {
        let name = function.name.clone();
        let revision = self.pool.deployed(&name).map_or(0, |old| old.revision + 1);
        let deployed = Deployed { revision, ..deployed };
        let (hash, config) = (deployed.package.hash.clone(), deployed.config.clone());
        let has_port = self.options().host_port.is_some();
        let retired = if has_port {
            self.pool.hold(&name);
            let replaced = self.replace_at_port(&name, deployed, is_enforced);
            self.pool.go_on(&name);
            replaced.map(|()| Vec::new())
        } else {
            let count = self.pool.records(&name).len().max(1);
            self.pool.start_many(&name, &deployed, count).map(|mut started| {
                started.iter_mut().for_each(|live| live.is_enforced = is_enforced);
                self.pool.swap(&name, deployed, started, &[])
            })
        };
        let retired = match retired {
            Ok(retired) => retired,
            Err(error) => {
                // What was retired for its port is not there any more.
                self.renew(function)?;
                return Err(error);
            }
        };
        function.code_package_hash = hash;
        function.config = config;
        self.renew(function)?;
        self.pool.retire_many(retired)?;
        self.pool.wait_until_drained(&name, revision)
    }

    fn replace_at_port(&self, name: &str, deployed: Deployed, is_enforced: bool) -> Result<()> {
        self.pool.wait_until_started(name)?;
        self.pool.wait_until_drained(name, deployed.revision)?;
        self.pool.retire_many(self.pool.take_out(|live| live.function == name))?;
        let mut live = self.pool.start(name, &deployed)?;
        live.is_enforced = is_enforced;
        self.pool.swap(name, deployed, vec![live], &[]);
        Ok(())
    }

    /// Changes the limits of the instances as they run, where the engine can; else replaces them.
    pub(super) fn change_configuration(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()> {
        let Some(limits) = limits_between(&function.config, config) else {
            return self.replace_instances(function, package, config);
        };
        let told = in_words(&limits, &function.config, config);
        let revision = self.pool.deployed(&function.name).map_or(0, |old| old.revision);
        let deployed = Deployed { revision, ..self.deployment(&function.name, package, config) };
        if limits == ContainerLimits::default() {
            self.pool.deploy(&function.name, deployed);
        } else if !self.change_limits(function, &limits, deployed)? {
            self.engine().cancel().check()?;
            return self.replace_instances(function, package, config);
        }
        log::info!("function `{}` goes on with other limits: {told}", function.name);
        function.config = config.clone();
        self.renew(function)?;
        if self.kept.contains(&function.name) {
            self.record(function)?;
        }
        Ok(())
    }

    /// Gives all instances of a function other limits, those included that serve an invocation, and deploys it so. `false`:
    /// one of them could not be given them, and the function goes on with the old ones.
    ///
    /// Meanwhile nobody gets an instance: one that is started then would have the old limits.
    fn change_limits(
        &self,
        function: &Function,
        limits: &ContainerLimits,
        deployed: Deployed,
    ) -> Result<bool> {
        self.pool.hold(&function.name);
        let started = self.pool.wait_until_started(&function.name);
        let is_done = started.map(|()| self.change_held(function, limits, deployed));
        self.pool.go_on(&function.name);
        is_done
    }

    fn change_held(&self, function: &Function, limits: &ContainerLimits, deployed: Deployed) -> bool {
        let (old, new) = (&function.config, &deployed.config);
        let (idle, busy) = self.pool.take_all(&function.name);
        let is_less_memory = limits.memory.is_some() && (old.memory == 0 || new.memory < old.memory);
        let fits = |live: &LiveInstance| {
            let used = live.counters.as_ref().and_then(|counters| counters.current().ok());
            used.zip(limits.memory).is_some_and(|(used, limit)| used < limit)
        };
        // The kernel would kill one that uses more already, or comes to do so in its invocation.
        if is_less_memory && !(busy.is_empty() && idle.iter().all(fits)) {
            idle.into_iter().for_each(|live| self.pool.give_back(live));
            return false;
        }
        let ids: Vec<String> = idle.iter().map(|live| live.id().to_string()).chain(busy).collect();
        let refuses = |id: &String| {
            let changed = self.engine().update_container(id, limits);
            changed.inspect_err(|error| log::info!("{error}: starting the function anew")).is_err()
        };
        let refused = ids.iter().position(refuses);
        let retired = match refused {
            Some(place) => self.change_back(function, &deployed, &ids, place),
            None => {
                let revision = deployed.revision + 1;
                self.pool.swap(&function.name, Deployed { revision, ..deployed }, Vec::new(), &ids)
            }
        };
        retired.into_iter().for_each(|live| self.pool.retire_or_warn(live));
        idle.into_iter().for_each(|live| self.pool.give_back(live));
        refused.is_none()
    }

    /// Gives the instances before the one at `place`, which refused other limits and so has the old ones, theirs again. One
    /// that cannot have them serves nothing more; those that are idle are the caller's to remove.
    fn change_back(
        &self,
        function: &Function,
        deployed: &Deployed,
        ids: &[String],
        place: usize,
    ) -> Vec<LiveInstance> {
        let Some(old) = self.pool.deployed(&function.name) else { return Vec::new() };
        let engine = self.engine().without_cancel();
        let limits = limits_between(&deployed.config, &function.config);
        let has_old = |id: &&String| {
            let changed = limits.as_ref().map(|limits| engine.update_container(id, limits));
            changed.is_some_and(|changed| changed.inspect_err(|error| log::info!("{error}")).is_ok())
        };
        let (changed, untouched) = ids.split_at(place);
        let mut staying = untouched.to_vec();
        staying.extend(changed.iter().filter(has_old).cloned());
        let old = Deployed { revision: old.revision + 1, ..old.as_ref().clone() };
        self.pool.swap(&function.name, old, Vec::new(), &staying)
    }
}

/// What the engine has to change of running instances; `None` where it cannot: it changes limits, and lifts none.
fn limits_between(old: &FunctionConfig, new: &FunctionConfig) -> Option<ContainerLimits> {
    let is_alike = FunctionConfig {
        timeout: new.timeout,
        memory: new.memory,
        cpus: new.cpus,
        cpuset: new.cpuset.clone(),
        pids_limit: new.pids_limit,
        ..old.clone()
    } == *new;
    let lifts = (old.memory > 0 && new.memory == 0)
        || (old.cpus.is_some() && new.cpus.is_none())
        || (old.cpuset.is_some() && new.cpuset.is_none());
    if !is_alike || lifts {
        return None;
    }
    let memory = (old.memory != new.memory).then(|| Bytes::from_limit_mb(new.memory).0);
    Some(ContainerLimits {
        memory,
        memory_swap: memory,
        nano_cpus: new.cpus.filter(|cpus| old.cpus != Some(*cpus)).map(|cpus| (cpus * 1e9) as u64),
        cpuset_cpus: new.cpuset.clone().filter(|_| old.cpuset != new.cpuset),
        pids_limit: (old.pids_limit != new.pids_limit).then_some(new.pids_limit),
    })
}

/// What changes, for people: the timeout is ours alone.
fn in_words(limits: &ContainerLimits, old: &FunctionConfig, new: &FunctionConfig) -> String {
    let timeout = match new.timeout {
        0 => "no timeout".to_string(),
        seconds => format!("timeout {seconds} s"),
    };
    let words = [limits.to_string(), if old.timeout == new.timeout { String::new() } else { timeout }];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<String>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faas::{Architecture, Language, Runtime};

    fn config(memory: u64, cpus: Option<f64>) -> FunctionConfig {
        let runtime =
            Runtime { language: Language::Python, version: "3.11".into(), variant: "default".into() };
        FunctionConfig {
            timeout: 10,
            memory,
            runtime,
            architecture: Architecture::X64,
            cpus,
            cpuset: None,
            pids_limit: 64,
        }
    }

    #[test]
    fn limits_are_changed_and_a_limit_that_goes_needs_another_instance() {
        let old = config(128, Some(1.0));
        let longer = FunctionConfig { timeout: 0, ..old.clone() };
        assert_eq!(limits_between(&old, &longer), Some(ContainerLimits::default()));
        assert_eq!(in_words(&ContainerLimits::default(), &old, &longer), "no timeout");
        let changed = limits_between(&old, &config(256, Some(0.5))).unwrap();
        assert_eq!((changed.memory, changed.memory_swap), (Some(256 << 20), Some(256 << 20)));
        assert_eq!(
            (changed.nano_cpus, changed.cpuset_cpus, changed.pids_limit),
            (Some(500_000_000), None, None)
        );
        assert_eq!(limits_between(&old, &config(0, Some(1.0))), None);
        assert_eq!(limits_between(&old, &config(128, None)), None);
        assert!(limits_between(&config(0, None), &old).is_some());
        let other = FunctionConfig { architecture: Architecture::Arm64, ..old.clone() };
        assert_eq!(limits_between(&old, &other), None);
    }
}
