//! The local platform: functions run in Docker containers on this machine.

mod container;
mod deployment;
mod feed;
mod measurement;
mod meter;
mod options;
mod prepare;
mod sampling;
mod trigger;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cache::{Cache, FunctionKey};
use crate::cancel::Cancel;
use crate::docker::{Engine, Lifetime, OwnedContainer, Owner};
use crate::error::{Error, Result};
use crate::faas::{
    CodePackage, ExecutionResult, Function, FunctionConfig, Instance, Language, System, Trigger, TriggerType,
};
use crate::host;
use crate::probe::{Recording, TargetId};

use container::{InstanceRequest, Starter};

pub use container::{AddressMode, DEFAULT_PORT};
pub use deployment::{
    Deployment, DeploymentFile, DeploymentStatus, InstanceEnd, InstanceStatus, MeasurementState,
    MeasurementStatus, Shutdown, ShutdownRequest, StoppedInstance,
};
pub use measurement::{MeasurementOptions, MemoryMeasurements, Ready, RecordingFormat};
pub use meter::{Meter, MeterOptions, SourceChoice};
pub use options::LocalOptions;
pub use prepare::{BuildChoices, Prepared, prepare};
pub use trigger::{Failure, HttpTrigger, PendingInvocation, TriggerOptions};

/// The local platform, and the instances it runs. Dropping it removes what was not kept; [`System::shutdown`] does the
/// same and reports errors.
#[derive(Debug)]
pub struct Local {
    engine: Engine,
    cache: Cache,
    cancel: Cancel,
    options: LocalOptions,
    owner: Owner,
    /// `uid:gid` by which a container's files are the caller's.
    caller: String,
    has_selinux: bool,
    functions: HashMap<String, Deployed>,
    instances: HashMap<String, LiveInstance>,
    /// Names of the functions that an earlier command kept.
    kept: HashSet<String>,
    /// `None` where memory is not sampled, or not any more.
    meter: Option<Meter>,
    has_warned_of_server: bool,
}

/// What a further instance of a function is started from.
#[derive(Clone, Debug)]
struct Deployed {
    package: CodePackage,
    config: FunctionConfig,
}

/// An instance that is thought to live.
#[derive(Debug)]
struct LiveInstance {
    function: String,
    trigger: HttpTrigger,
    /// Has it been invoked, so that it is warm?
    is_invoked: bool,
    /// `None`: an earlier command kept it, and its removal is not ours.
    container: Option<OwnedContainer>,
    /// What the meter knows it as.
    target: Option<TargetId>,
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
        let has_option = |name: &str| info.security_options.iter().any(|option| option.contains(name));
        let mut options = options;
        if options.host_port.is_some() {
            options.address = AddressMode::Published;
        }
        let is_elsewhere =
            info.is_rootless() || info.operating_system.contains("Docker Desktop") || host::is_wsl();
        if options.address == AddressMode::Auto && is_elsewhere {
            log::info!("the engine's bridge is not on this host: instances are published on 127.0.0.1");
            options.address = AddressMode::Published;
        }
        Ok(Local {
            has_selinux: has_option("name=selinux"),
            engine,
            cache,
            cancel: cancel.clone(),
            meter: options.measure.clone().map(Meter::new),
            options,
            owner,
            caller: info.caller(),
            functions: HashMap::new(),
            instances: HashMap::new(),
            kept: HashSet::new(),
            has_warned_of_server: false,
        })
    }

    /// Lets a function outlive the command: it is recorded in the cache, and its instances are not removed.
    ///
    /// # Errors
    /// The record could not be written; the instances are then removed as if the function had not been kept.
    pub fn keep(&mut self, function: &Function) -> Result<()> {
        if !self.kept.contains(&function.name) && self.cache.function(&self.key(function))?.is_some() {
            log::warn!(
                "another command has kept a function `{}` meanwhile: this one's is removed",
                function.name
            );
            return Ok(());
        }
        self.record(function)?;
        self.release(function);
        Ok(())
    }

    /// Lets the instances of a function outlive this value, which is not answerable for them any more.
    pub fn release(&mut self, function: &Function) {
        for instance in &function.instances {
            if let Some(container) =
                self.instances.get_mut(&instance.instance_id).and_then(|live| live.container.take())
            {
                container.keep();
            }
        }
    }

    /// Was this function kept by an earlier command, or is it by this one?
    pub fn is_kept(&self, function: &Function) -> bool {
        self.options.keep || self.kept.contains(&function.name)
    }

    /// Ends the sampling of memory, and gives what was recorded; `None` if there was nothing to sample.
    ///
    /// # Errors
    /// Those of [`Meter::stop`].
    pub fn finish_measurement(&mut self) -> Result<Option<Recording>> {
        self.meter.take().map_or(Ok(None), Meter::stop)
    }

    fn attach(&mut self, id: &str) -> Result<Option<TargetId>> {
        self.meter.as_mut().map(|meter| meter.attach_container(&self.engine, id)).transpose()
    }

    fn record(&mut self, function: &Function) -> Result<()> {
        let record = serde_json::to_value(function).expect("a function is made of text and numbers");
        self.cache.put_function(&self.key(function), record)?;
        self.kept.insert(function.name.clone());
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

    fn start_instance(&mut self, name: &str, deployed: &Deployed) -> Result<Instance> {
        let lifetime = match &self.options.deployment_file {
            Some(file) => Lifetime::Kept { file: file.clone() },
            None if self.options.keep || self.kept.contains(name) => {
                Lifetime::Kept { file: self.cache.record_file(&deployed.package.benchmark) }
            }
            None => Lifetime::Run,
        };
        let mut request = InstanceRequest {
            function_name: name,
            package: &deployed.package.location,
            image_id: &deployed.package.image_id,
            config: &deployed.config,
            lifetime: &lifetime,
            address: self.options.address,
        };
        let starter = Starter {
            engine: &self.engine,
            owner: &self.owner,
            options: &self.options,
            cancel: &self.cancel,
            caller: &self.caller,
            has_selinux: self.has_selinux,
        };
        let started = match starter.start(&request) {
            Err(error) if error.is_not_found() && request.address == AddressMode::Auto => {
                log::info!("{error}: publishing it on 127.0.0.1 instead");
                request.address = AddressMode::Published;
                starter.start(&request).inspect(|_| self.options.address = AddressMode::Published)
            }
            outcome => outcome,
        };
        let started =
            started.map_err(|error| error.context(format!("failed to start an instance of `{name}`")))?;
        let id = started.container.id().to_string();
        log::info!("instance {} of `{name}` answers at {}", short(&id), started.address);
        let target = self.attach(&id)?;
        let trigger = self.trigger(started.address, &deployed.config);
        let live = LiveInstance {
            function: name.to_string(),
            trigger,
            is_invoked: false,
            container: Some(started.container),
            target,
        };
        self.instances.insert(id.clone(), live);
        Ok(Instance { instance_id: id, url: started.address.to_string(), port: started.address.port() })
    }

    fn trigger(&self, address: SocketAddr, config: &FunctionConfig) -> HttpTrigger {
        let options = TriggerOptions {
            timeout: (config.timeout > 0).then(|| Duration::from_secs(config.timeout)),
            keeps_connection: self.options.keeps_connection,
            max_payload: self.options.max_payload,
        };
        HttpTrigger::new(address, options, &self.cancel)
    }

    /// Swaps all instances of a function for one that runs `deployed`, and only then retires the old ones, unless both
    /// are to have the same port.
    fn replace_instances(&mut self, function: &mut Function, deployed: Deployed) -> Result<()> {
        if self.options.host_port.is_some() {
            for instance in std::mem::take(&mut function.instances) {
                self.retire(&instance.instance_id)?;
            }
        }
        let instance = self.start_instance(&function.name, &deployed)?;
        let retired = std::mem::replace(&mut function.instances, vec![instance]);
        function.code_package_hash = deployed.package.hash.clone();
        function.config = deployed.config.clone();
        self.functions.insert(function.name.clone(), deployed);
        self.renew_triggers(function);
        if self.kept.contains(&function.name) {
            self.keep(function)?;
        }
        for instance in retired {
            self.retire(&instance.instance_id)?;
        }
        Ok(())
    }

    fn renew_triggers(&self, function: &mut Function) {
        let url = function.instances.first().map(|instance| instance.url.clone()).unwrap_or_default();
        for trigger in &mut function.triggers {
            trigger.url.clone_from(&url);
        }
    }

    /// Removes an instance, after its log has been saved.
    fn retire(&mut self, id: &str) -> Result<()> {
        let engine = self.engine.without_cancel();
        let live = self.instances.remove(id);
        if let Some(mut live) = live {
            // A socket that outlives its container stalls the next one that is given the same address.
            live.trigger.close();
            // The log of a function that prints without end has one only when the function has.
            if let Err(error) = engine.kill_container(id, "SIGKILL") {
                log::debug!("{error}");
            }
            self.save_log(&live.function, id);
            if let Some(container) = live.container {
                return container.remove();
            }
        }
        engine.remove_container(id)
    }

    /// Writes what an instance printed to its file; a log that cannot be had costs no result.
    fn save_log(&self, function: &str, id: &str) {
        let Some(folder) = &self.options.logs else { return };
        if let Err(error) = container::save_log(&self.engine.without_cancel(), folder, function, id) {
            log::warn!("failed to save the log of instance {}: {error}", short(id));
        }
    }

    /// SeBS's Python server encloses the import of the function, not its handler: its `benchmark` is no handler time.
    fn warn_of_server(&mut self, result: &ExecutionResult, language: Language) {
        let is_sebs = !result.stats.failure && result.invocation.handler_us.is_none();
        if is_sebs && language == Language::Python && !self.has_warned_of_server {
            self.has_warned_of_server = true;
            log::warn!(
                "the image's function server does not time the handler: `benchmark` is the time of the import, and \
                 no invocation is known to be cold"
            );
        }
    }

    /// Invokes one instance, which is given up if its handler may still be at work or it is dead.
    fn invoke_instance(
        &mut self,
        function: &mut Function,
        id: &str,
        payload: &str,
    ) -> Result<ExecutionResult> {
        let live = self
            .instances
            .get_mut(id)
            .ok_or_else(|| Error::new(format!("instance {} is not run by this platform", short(id))))?;
        let address = live.trigger.address();
        let is_first = !std::mem::replace(&mut live.is_invoked, true);
        let mut metered = self.meter.as_mut().zip(live.target);
        let before = metered.as_mut().and_then(|(meter, target)| meter.before_invocation(*target));
        let (mut result, failure) = live.trigger.sync_invoke(payload)?;
        if let Some(((meter, target), before)) = metered.as_mut().zip(before) {
            meter.after_invocation(*target, &before, &mut result);
        }
        result.invocation.instance_id = Some(id.to_string());
        if result.stats.failure && result.request_id.is_empty() {
            // The server could not say so.
            result.stats.cold_start = is_first;
        }
        self.warn_of_server(&result, function.config.runtime.language);
        let cause = match failure {
            None | Some(Failure::Answered) => return Ok(result),
            Some(Failure::TimedOut) => None,
            Some(Failure::Disconnected) => match container::cause_of_death(
                &self.engine,
                &self.cancel,
                id,
                address,
                function.config.memory,
            ) {
                Ok(None) => return Ok(result),
                Ok(cause) => cause,
                Err(error) if error.is_cancelled() => return Err(error),
                // The invocation failed, and is recorded, even where nobody can say why.
                Err(error) => {
                    log::warn!("{error}");
                    return Ok(result);
                }
            },
        };
        if let Some(cause) = cause {
            result.fail(cause);
        }
        // Its handler is still at work, or it is dead: the next invocation gets an instance of its own.
        function.instances.retain(|instance| instance.instance_id != id);
        if let Err(error) = self.retire(id) {
            log::warn!("failed to remove instance {}: {error}", short(id));
        }
        Ok(result)
    }

    /// The instance to invoke next: the function's own, or a new one where that died.
    fn instance_for(&mut self, function: &mut Function) -> Result<String> {
        if let Some(instance) = function.instances.first() {
            return Ok(instance.instance_id.clone());
        }
        let deployed = self.functions.get(&function.name).cloned().ok_or_else(|| {
            Error::new(format!(
                "function `{}` is not deployed here: ask `get_function` for it",
                function.name
            ))
        })?;
        let instance = self.start_instance(&function.name, &deployed)?;
        let id = instance.instance_id.clone();
        function.instances.push(instance);
        self.renew_triggers(function);
        if self.kept.contains(&function.name) {
            self.keep(function)?;
        }
        Ok(id)
    }
}

impl System for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn cache(&self) -> &Cache {
        &self.cache
    }

    fn description(&self) -> Value {
        json!({"name": "local", "region": "", "resources": {"allocated_ports": []}})
    }

    fn create_function(
        &mut self,
        package: &CodePackage,
        name: &str,
        config: &FunctionConfig,
    ) -> Result<Function> {
        let deployed = Deployed { package: package.clone(), config: config.clone() };
        let instance = self.start_instance(name, &deployed)?;
        self.functions.insert(name.to_string(), deployed);
        Ok(Function {
            name: name.to_string(),
            benchmark: package.benchmark.clone(),
            code_package_hash: package.hash.clone(),
            config: config.clone(),
            instances: vec![instance],
            triggers: Vec::new(),
            updated_code: false,
        })
    }

    fn cached_function(&mut self, function: &mut Function, package: &CodePackage) -> Result<bool> {
        let mut living = Vec::new();
        for instance in std::mem::take(&mut function.instances) {
            let is_running = match self.engine.inspect_container(&instance.instance_id) {
                Ok(inspected) if inspected.state.running && !self.options.hold_for(&inspected) => {
                    log::info!("function `{}` is there with other options: starting it anew", function.name);
                    self.retire(&instance.instance_id)?;
                    self.kept.insert(function.name.clone());
                    false
                }
                Ok(inspected) if !inspected.state.running || inspected.state.paused => {
                    log::info!(
                        "an instance of `{}` is {}: removing it",
                        function.name,
                        inspected.state.status
                    );
                    self.retire(&instance.instance_id)?;
                    false
                }
                Ok(_) => true,
                Err(error) if error.is_not_found() => false,
                Err(error) => return Err(error),
            };
            let Some(address) = instance.url.parse().ok().filter(|_| is_running) else { continue };
            let live = LiveInstance {
                function: function.name.clone(),
                trigger: self.trigger(address, &function.config),
                is_invoked: true,
                container: None,
                target: self.attach(&instance.instance_id)?,
            };
            self.instances.insert(instance.instance_id.clone(), live);
            living.push(instance);
        }
        function.instances = living;
        if function.instances.is_empty() {
            self.cache.remove_function(&self.key(function))?;
            return Ok(false);
        }
        self.kept.insert(function.name.clone());
        let deployed = Deployed { package: package.clone(), config: function.config.clone() };
        self.functions.insert(function.name.clone(), deployed);
        Ok(true)
    }

    fn update_function(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()> {
        let deployed = Deployed { package: package.clone(), config: config.clone() };
        self.replace_instances(function, deployed)
    }

    fn update_function_configuration(
        &mut self,
        function: &mut Function,
        package: &CodePackage,
        config: &FunctionConfig,
    ) -> Result<()> {
        self.update_function(function, package, config)
    }

    fn create_trigger(&mut self, function: &mut Function, kind: TriggerType) -> Result<()> {
        check_trigger(kind)?;
        function.triggers.push(Trigger { kind, url: String::new() });
        self.renew_triggers(function);
        Ok(())
    }

    fn invoke(&mut self, function: &mut Function, payload: &str) -> Result<ExecutionResult> {
        self.cancel.check()?;
        let id = self.instance_for(function)?;
        let target = self.instances.get(&id).and_then(|live| live.target);
        let mut result = self.invoke_instance(function, &id, payload)?;
        result.bill(function.config.memory);
        if let Some((meter, target)) = self.meter.as_ref().zip(target) {
            meter.note_invocation(target, &result);
        }
        Ok(result)
    }

    fn shutdown(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        let ids: Vec<String> = self.instances.keys().cloned().collect();
        for id in ids {
            let is_ours = self.instances.get(&id).is_some_and(|live| live.container.is_some());
            let done = if is_ours {
                self.retire(&id)
            } else {
                self.instances.remove(&id).into_iter().for_each(|live| self.save_log(&live.function, &id));
                Ok(())
            };
            outcome = outcome.and(done);
        }
        outcome
    }
}

/// Says whether functions can be invoked that way here.
///
/// # Errors
/// A usage error: only HTTP is supported.
pub fn check_trigger(kind: TriggerType) -> Result<()> {
    if kind == TriggerType::Http {
        return Ok(());
    }
    Err(Error::usage(format!("trigger `{kind}` is not supported on the local platform: it has `HTTP` alone")))
}

/// Removes the containers that killed commands left. That this fails is no reason not to go on.
fn remove_left_behind(engine: &Engine, owner: &Owner) -> Result<()> {
    match crate::docker::sweep(engine, owner) {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => log::info!("removed what a killed command left: {}", removed.join(", ")),
        Err(error) if error.is_cancelled() => return Err(error),
        Err(error) => log::warn!("failed to look for what killed commands left: {error}"),
    }
    Ok(())
}

/// The first digits of a container's id, as people know it.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
