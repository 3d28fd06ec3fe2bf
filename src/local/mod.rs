//! The local platform: functions run in Docker containers on this machine.

mod concurrent;
mod config;
mod container;
mod death;
mod deployment;
mod feed;
mod idle;
mod instance;
mod inventory;
mod invocation;
mod kept;
mod lifecycle;
mod measurement;
mod meter;
mod metrics;
mod network;
mod options;
mod pool;
mod prepare;
mod ready;
mod removal;
mod sampling;
mod silence;
mod storage;
mod trigger;
mod update;
mod watch;
mod whereabouts;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use crate::cache::{Cache, FunctionKey};
use crate::cancel::Cancel;
use crate::docker::{Engine, Lifetime, Limit, Owner};
use crate::error::{Error, Result};
use crate::faas::{
    CodePackage, Config, ExecutionResult, Function, FunctionConfig, Load, Runtime, StartKind, System,
    Trigger, TriggerType,
};
use crate::probe::Recording;

use container::Starter;
use kept::RecordClaim;
use pool::{Deployed, Pool};
use removal::remove_left_behind;
use watch::Watch;

pub use config::{PLATFORM, PLATFORMS, allocate_port, local_config};
pub use container::{AddressMode, DEFAULT_PORT};
pub use deployment::{
    Deployment, DeploymentFile, DeploymentStatus, InstanceEnd, InstanceStatus, MeasurementState,
    MeasurementStatus, Shutdown, ShutdownRequest, StoppedInstance,
};
pub use inventory::{Cleaned, CleanupRequest, FoundResource, Inventory, ResourceKind, Standing};
pub use invocation::Invoker;
pub use measurement::{MeasurementOptions, MemoryMeasurements, Ready, RecordingFormat};
pub use meter::{Meter, MeterOptions, SourceChoice};
pub use metrics::InstanceMetrics;
pub use options::LocalOptions;
pub use pool::Tally;
pub use prepare::{BuildChoices, ContainerChoices, Prepared, prepare};
pub use trigger::{Failure, HttpTrigger, PendingInvocation, TriggerOptions, check_trigger};

/// The local platform, and the instances it runs. Dropping it removes what was not kept; [`System::shutdown`] does the
/// same and reports errors.
#[derive(Debug)]
pub struct Local {
    pool: Arc<Pool>,
    cache: Cache,
    config: Config,
    /// Names of the functions that an earlier command kept.
    kept: HashSet<String>,
    /// Who has the functions that outlive commands, as far as it was asked, by name.
    claims: HashMap<String, RecordClaim>,
    /// None once the platform is at its end.
    watches: Vec<Watch>,
}

impl Local {
    /// The local platform on an engine. What commands that were killed left behind is removed first.
    ///
    /// # Errors
    /// The engine does not answer. A sweep that fails is logged only.
    pub fn new(engine: Engine, cache: Cache, options: LocalOptions, cancel: &Cancel) -> Result<Local> {
        let owner = Owner::current()?;
        let info = engine.info()?;
        remove_left_behind(&engine, &owner)?;
        let mut options = options;
        let network = network::settle(&mut options, &engine, &info)?;
        let unlimited = info.missing_limits();
        if !unlimited.is_empty() {
            let limits: Vec<String> = unlimited.iter().map(Limit::to_string).collect();
            log::warn!("the engine cannot limit {}: functions run without", limits.join(", "));
        }
        let meter = options.measure.clone().map(Meter::new);
        let (idle_timeout, patience) = (options.idle_timeout, options.patience);
        let starter = Starter {
            absences: Mutex::new(engine.absences()),
            has_selinux: info.has_selinux(),
            engine,
            owner,
            options,
            network,
            cancel: cancel.clone(),
            caller: info.caller(),
            unlimited,
            has_no_bridge: AtomicBool::new(false),
        };
        let pool = Arc::new(Pool::new(starter, meter));
        let config = local_config(&Value::Null, &cache)?;
        let silent = Watch::start(&pool, "silent instances", move |pool| silence::watch(pool, patience))?;
        let mut watches = vec![silent];
        if let Some(limit) = idle_timeout {
            watches.push(Watch::start(&pool, "idle instances", move |pool| idle::watch(pool, limit))?);
        }
        Ok(Local { pool, cache, config, kept: HashSet::new(), claims: HashMap::new(), watches })
    }

    /// Lets a function outlive the command: it is recorded in the cache, and its instances are not removed. One that has
    /// none is no use to a later command: see [`Local::ensure_instances`]. `false`: another command has kept one of that
    /// name, or uses it, so that this one's instances are removed; a warning tells of that.
    ///
    /// # Errors
    /// The record could not be written; the instances are then removed as if the function had not been kept.
    pub fn keep(&mut self, function: &Function) -> Result<bool> {
        if !self.claim(function)? {
            log::warn!("another command uses a kept function `{}`: this one's is removed", function.name);
            return Ok(false);
        }
        let is_kept = self.record(function)?;
        if is_kept {
            self.release(function);
        }
        Ok(is_kept)
    }

    /// Lets the idle instances of a function outlive this value, which is not answerable for them any more.
    pub fn release(&mut self, function: &Function) {
        for mut live in self.pool.take_out(|live| live.function == function.name) {
            if let Some(container) = live.container.take() {
                container.keep();
            }
            self.pool.give_back(live);
        }
    }

    /// Was this function kept by an earlier command, or is it by this one?
    pub fn is_kept(&self, function: &Function) -> bool {
        self.options().keep || self.kept.contains(&function.name)
    }

    /// Ends the sampling of memory, and gives what was recorded; `None` if there was nothing to sample.
    ///
    /// # Errors
    /// Those of [`Meter::stop`].
    pub fn finish_measurement(&mut self) -> Result<Option<Recording>> {
        let meter = self.pool.meter().take();
        meter.map_or(Ok(None), Meter::stop)
    }

    /// What invokes a function from other threads, while it is updated here.
    pub fn invoker(&self, function: &Function) -> Invoker {
        Invoker { pool: self.pool.clone(), function: function.name.clone() }
    }

    /// How a function's invocations went so far, and how many instances it had.
    pub fn tally(&self, function: &Function) -> Tally {
        self.pool.tally(&function.name)
    }

    /// Starts instances until a function has `count`. Their time of having nothing to do begins when all are there.
    ///
    /// # Errors
    /// The function is not deployed here, or one could not be started.
    pub fn ensure_instances(&mut self, function: &mut Function, count: usize) -> Result<()> {
        if self.pool.records(&function.name).len() < count {
            let deployed = self.deployed(function)?;
            self.pool.fill(&function.name, &deployed, count)?;
        }
        self.renew(function)
    }

    /// Ends all instances of a function at once, without a time to end by themselves. It stays deployed: the next
    /// invocation starts one.
    ///
    /// # Errors
    /// An instance could not be removed.
    pub fn stop(&mut self, function: &mut Function) -> Result<()> {
        let stopped = self.pool.retire_many(self.pool.take_out(|live| live.function == function.name));
        stopped.and(self.renew(function))
    }

    fn engine(&self) -> &Engine {
        &self.pool.starter.engine
    }

    fn options(&self) -> &LocalOptions {
        &self.pool.starter.options
    }

    fn deployed(&self, function: &Function) -> Result<Arc<Deployed>> {
        self.pool.deployed(&function.name).ok_or_else(|| {
            Error::new(format!(
                "function `{}` is not deployed here: ask `get_function` for it",
                function.name
            ))
        })
    }

    /// What instances are started from, of a function that is deployed for the first time.
    fn deployment(&self, name: &str, package: &CodePackage, config: &FunctionConfig) -> Deployed {
        let lifetime = match &self.options().deployment_file {
            Some(file) => Lifetime::Kept { file: file.clone() },
            None if self.is_anothers(name) => Lifetime::Run,
            None if self.options().keep || self.kept.contains(name) => {
                Lifetime::Kept { file: self.cache.record_file(&package.benchmark) }
            }
            None => Lifetime::Run,
        };
        Deployed { package: package.clone(), config: config.clone(), lifetime, revision: 0 }
    }

    /// Brings a function's instances and triggers, and its record if it is kept, in line with what is there.
    fn renew(&mut self, function: &mut Function) -> Result<()> {
        if self.pool.has_records(&function.name, &function.instances) {
            return Ok(());
        }
        function.instances = self.pool.records(&function.name);
        renew_triggers(function);
        if self.kept.contains(&function.name) && self.record(function)? {
            self.release(function);
        }
        Ok(())
    }

    fn key<'a>(&self, function: &'a Function) -> FunctionKey<'a> {
        FunctionKey {
            benchmark: &function.benchmark,
            platform: "local",
            language: function.config.runtime.language.name(),
            name: &function.name,
        }
    }

    /// Removes an instance of an earlier command, after its log has been saved.
    fn remove_unknown(&self, function: &str, id: &str) -> Result<()> {
        let engine = self.engine().without_cancel();
        if let Err(error) = engine.kill_container(id, "SIGKILL") {
            log::debug!("{error}");
        }
        self.pool.save_log(function, id);
        engine.remove_container(id)
    }

    /// Ends all threads of its own, and nobody gets an instance any more.
    fn close(&mut self) {
        self.pool.close();
        self.watches.drain(..).for_each(Watch::join);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.close();
        // An invoker may outlive this: what the pool still holds goes now.
        drop(self.pool.take_out(|_| true));
    }
}

impl System for Local {
    fn name(&self) -> &'static str {
        PLATFORM.name
    }

    fn cache(&self) -> &Cache {
        &self.cache
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn is_supported(&self, runtime: &Runtime) -> bool {
        // Its package was built on an image of that version: a newer one than the list has is this host's or the user's.
        runtime.language.is_recent_enough(&runtime.version)
    }

    fn create_function(
        &mut self,
        package: &CodePackage,
        name: &str,
        config: &FunctionConfig,
    ) -> Result<Function> {
        let deployed = self.deployment(name, package, config);
        self.make_room(name)?;
        let live = self.pool.start(name, &deployed)?;
        self.pool.deploy(name, deployed);
        self.pool.add_idle(live);
        let function = Function {
            name: name.to_string(),
            benchmark: package.benchmark.clone(),
            code_package_hash: package.hash.clone(),
            config: config.clone(),
            instances: self.pool.records(name),
            triggers: Vec::new(),
            updated_code: false,
        };
        self.supersede(&function)?;
        Ok(function)
    }

    fn cached_function(&mut self, function: &mut Function, package: &CodePackage) -> Result<bool> {
        self.take_over(function, package)
    }

    fn update_function(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()> {
        self.replace_instances(function, package, config)
    }

    fn update_function_configuration(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()> {
        self.change_configuration(function, package, config)
    }

    fn create_trigger(&mut self, function: &mut Function, kind: TriggerType) -> Result<()> {
        check_trigger(kind)?;
        function.add_trigger(Trigger { kind, url: String::new() });
        renew_triggers(function);
        Ok(())
    }

    fn invoke(&mut self, function: &mut Function, payload: &str) -> Result<ExecutionResult> {
        let result = self.pool.invoke(&function.name, payload, StartKind::Any);
        self.renew(function)?;
        result
    }

    fn invoke_many(
        &mut self,
        function: &mut Function,
        load: &Load<'_>,
        sink: &mut dyn FnMut(ExecutionResult) -> Result<()>,
    ) -> Result<()> {
        let outcome = concurrent::invoke_many(&self.pool, &function.name, load, sink);
        outcome.and(self.renew(function))
    }

    fn enforce_cold_start(&mut self, function: &mut Function) -> Result<()> {
        self.start_anew(function)
    }

    fn cold_start_counter(&self) -> u64 {
        self.pool.cold_start_counter()
    }

    fn delete_instances(&mut self, function: &Function) -> Result<()> {
        self.delete(function)
    }

    fn download_metrics(
        &mut self,
        function: &Function,
        invocations: &mut dyn Iterator<Item = &mut ExecutionResult>,
    ) -> Result<Map<String, Value>> {
        metrics::download(&self.pool, function, invocations)
    }

    fn shutdown(&mut self) -> Result<()> {
        self.close();
        let mut ours = Vec::new();
        for live in self.pool.take_out(|_| true) {
            if live.container.is_some() {
                ours.push(live);
            } else {
                self.pool.save_log(&live.function, live.id());
            }
        }
        let retired = self.pool.retire_many(ours);
        self.claims.clear();
        retired
    }
}

/// The triggers of a function are those of its first instance; a function without any keeps the last address.
fn renew_triggers(function: &mut Function) {
    let Some(first) = function.instances.first() else { return };
    for trigger in &mut function.triggers {
        trigger.url.clone_from(&first.url);
    }
}

/// The first digits of a container's id, as people know it.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
