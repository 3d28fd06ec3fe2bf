//! Starts instances for the pool and removes them, several at a time.

use std::sync::{Mutex, PoisonError};

use crate::cgroup::Memory;
use crate::clock::Instant;
use crate::docker::{ContainerInspect, Limit};
use crate::error::{Error, Result};
use crate::faas::Instance;
use crate::probe::TargetId;

use super::container::{InstanceRequest, save_log};
use super::death::{Suspect, cause_of_lapse};
use super::instance::{LiveInstance, Usage};
use super::pool::{Deployed, Pool, timeout};
use super::short;
use super::trigger::{HttpTrigger, TriggerOptions};

/// What became of an idle container whose engine was restarted, stopped or killed.
const ENDED_WITH_ENGINE: &str = "its container ended when the Docker engine went away";

/// So many instances are started or removed at a time: more would only wait in the engine.
const AT_ONCE: usize = 8;

impl Pool {
    /// Starts an instance and has it sampled.
    ///
    /// # Errors
    /// The engine refused, or it did not answer in time; its container is gone.
    pub(super) fn start(&self, function: &str, deployed: &Deployed) -> Result<LiveInstance> {
        self.start_as(function, deployed, self.cold_start_counter())
    }

    /// The same for the cold start of this number.
    ///
    /// # Errors
    /// Those of [`Pool::start`].
    pub(super) fn start_as(&self, function: &str, deployed: &Deployed, number: u64) -> Result<LiveInstance> {
        let request = InstanceRequest {
            function_name: function,
            mounted: deployed.package.container.is_none().then_some(deployed.package.location.as_path()),
            image_id: deployed.package.instance_image(),
            config: &deployed.config,
            lifetime: &deployed.lifetime,
        };
        let started = self
            .starter
            .start(&request)
            .map_err(|error| error.context(format!("failed to start an instance of `{function}`")))?;
        let id = started.container.id().to_string();
        log::info!("instance {} of `{function}` answers at {}", short(&id), started.address);
        self.count_start(function);
        let record = Instance {
            instance_id: id,
            url: started.address.to_string(),
            port: started.address.port(),
            cold_start_counter: Some(number),
        };
        let mut live = self.adopt(function, record, deployed, &started.inspected)?;
        live.is_invoked = false;
        live.container = Some(started.container);
        live.phases = started.phases;
        Ok(live)
    }

    /// An instance whose container runs, which was invoked by nobody knows whom, and is not ours to remove.
    ///
    /// # Errors
    /// Its address is none, or its memory is to be sampled and cannot be.
    pub(super) fn adopt(
        &self,
        function: &str,
        record: Instance,
        deployed: &Deployed,
        inspected: &ContainerInspect,
    ) -> Result<LiveInstance> {
        let address = record
            .url
            .parse()
            .map_err(|_| Error::new(format!("`{}` is not the address of an instance", record.url)))?;
        let options = &self.starter.options;
        let trigger_options = TriggerOptions {
            timeout: timeout(&deployed.config),
            keeps_connection: options.keeps_connection,
            max_payload: options.max_payload,
        };
        let target = self.attach(inspected)?;
        let pid = i32::try_from(inspected.state.pid).unwrap_or(0);
        let counters = Memory::of_process(pid, Some(&inspected.id))
            .inspect_err(|error| log::debug!("{error}: the engine is asked instead"));
        let mut live = LiveInstance {
            record,
            function: function.to_string(),
            revision: deployed.revision,
            serial: self.next_serial(),
            started_at: inspected.state.started_at.clone(),
            absences: self.starter.engine.absences(),
            trigger: HttpTrigger::new(address, trigger_options, &self.starter.cancel),
            is_invoked: true,
            has_served: false,
            is_enforced: false,
            idle_since: Instant::now(),
            container: None,
            target,
            counters: counters.ok(),
            usage: Usage::default(),
            phases: None,
            stranger: None,
            invocations: 0,
            last_request: String::new(),
            killed_above: None,
        };
        live.read_usage();
        Ok(live)
    }

    /// Why an idle instance is not to be invoked, though nobody has seen it fail; `None`: it is.
    ///
    /// Its counters tell that it has ended, whatever was started in its place since: that is one read. Only the cause is
    /// asked of the engine. A kill for want of memory is counted as the instance's, and as no invocation's.
    ///
    /// # Errors
    /// The cancel token was triggered.
    pub(super) fn lapse(&self, live: &mut LiveInstance, deployed: &Deployed) -> Result<Option<String>> {
        if !live.has_ended() {
            return Ok(None);
        }
        let engine = &self.starter.engine;
        let ended_with_engine = || Ok(Some(ENDED_WITH_ENGINE.to_string()));
        if engine.absences() != live.absences {
            return ended_with_engine();
        }
        let suspect = Suspect {
            place: live.place(),
            begin: live.idle_since,
            memory_mb: self.memory_limit(deployed),
            earlier_kills: live.usage.oom_kills.unwrap_or(0),
            oom_kills: None,
            killed_above: live
                .kills_above()
                .zip(live.killed_above)
                .map(|(now, before)| now.saturating_sub(before)),
        };
        // An engine that ends takes its containers along before it is away.
        let cause = engine.settle().and_then(|_| cause_of_lapse(engine, &suspect));
        if engine.absences() != live.absences {
            return ended_with_engine();
        }
        match cause {
            Ok(cause) => {
                if cause.is_out_of_memory {
                    live.usage.oom_kills = Some(live.usage.oom_kills.unwrap_or(0) + 1);
                }
                Ok(Some(cause.text))
            }
            Err(error) if error.is_cancelled() => Err(error),
            // That it has ended is known all the same.
            Err(error) => Ok(Some(format!("its container has ended ({error})"))),
        }
    }

    /// The memory that an instance may use, in MB; 0: the engine cannot limit it, or there is no limit.
    pub(super) fn memory_limit(&self, deployed: &Deployed) -> u64 {
        let is_limited = !self.starter.unlimited.contains(&Limit::Memory);
        if is_limited { deployed.config.memory } else { 0 }
    }

    fn attach(&self, inspected: &ContainerInspect) -> Result<Option<TargetId>> {
        let mut meter = self.meter();
        meter.as_mut().map(|meter| meter.attach_inspected(&self.starter.engine, inspected)).transpose()
    }

    /// Starts several instances, some at a time.
    ///
    /// # Errors
    /// One could not be started; those that were are gone.
    pub(super) fn start_many(
        &self,
        function: &str,
        deployed: &Deployed,
        count: usize,
    ) -> Result<Vec<LiveInstance>> {
        let number = self.cold_start_counter();
        let start = |_| self.start_as(function, deployed, number);
        let outcomes = at_once("start", (0..count).collect(), start)?;
        let mut started = Vec::new();
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok(live) => started.push(live),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let Some(failure) = failure else {
            started.sort_by_key(|live| live.serial);
            return Ok(started);
        };
        if let Err(error) = self.retire_many(started) {
            log::warn!("{error}");
        }
        Err(failure)
    }

    /// Removes several instances, some at a time.
    ///
    /// # Errors
    /// One could not be removed; the others were.
    pub(super) fn retire_many(&self, instances: Vec<LiveInstance>) -> Result<()> {
        at_once("removal", instances, |live| self.retire(live))?.into_iter().collect()
    }

    /// Removes an instance, after its log has been saved and its counters were read.
    ///
    /// # Errors
    /// The engine could not remove it.
    pub(super) fn retire(&self, mut live: LiveInstance) -> Result<()> {
        let engine = self.starter.engine.without_cancel();
        let id = live.id().to_string();
        // A socket that outlives its container stalls the next one that is given the same address.
        live.trigger.close();
        let metrics = self.measure(&mut live);
        // The log of a function that prints without end has one only when the function has.
        if let Err(error) = engine.kill_container(&id, "SIGKILL") {
            log::debug!("{error}");
        }
        self.save_log(&live.function, &id);
        // The kernel's group goes with the container, and the descriptors with this.
        live.counters = None;
        let removed = match live.container.take() {
            Some(container) => container.remove(),
            None => engine.remove_container(&id),
        };
        self.forget(live, metrics);
        removed
    }

    /// As [`Pool::retire`], for whom a failure is no reason not to go on.
    pub(super) fn retire_or_warn(&self, live: LiveInstance) {
        let id = live.id().to_string();
        if let Err(error) = self.retire(live) {
            log::warn!("failed to remove instance {}: {error}", short(&id));
        }
    }

    /// Writes what an instance printed to its file; a log that cannot be had costs no result.
    pub(super) fn save_log(&self, function: &str, id: &str) {
        let Some(folder) = &self.starter.options.logs else { return };
        if let Err(error) = save_log(&self.starter.engine.without_cancel(), folder, function, id) {
            log::warn!("failed to save the log of instance {}: {error}", short(id));
        }
    }
}

/// Does something for each of some things, on a few threads; the outcomes come in any order.
fn at_once<T: Send, R: Send>(name: &str, things: Vec<T>, work: impl Fn(T) -> R + Sync) -> Result<Vec<R>> {
    if things.len() < 2 {
        return Ok(things.into_iter().map(work).collect());
    }
    let threads = things.len().min(AT_ONCE);
    let (queue, done) = (Mutex::new(things), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            std::thread::Builder::new()
                .name(name.to_string())
                .spawn_scoped(scope, || {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                        let Some(thing) = next else { return };
                        let outcome = work(thing);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                    }
                })
                .map_err(|error| Error::new(format!("failed to start a thread: {error}")))?;
        }
        Ok::<(), Error>(())
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}
