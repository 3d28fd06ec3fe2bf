//! One invocation: an instance is claimed, invoked, looked after, and given back or given up.

use std::sync::Arc;

use crate::clock::Instant;
use crate::error::Result;
use crate::faas::{ExecutionResult, Language, StartKind};

use super::death::{OUT_OF_MEMORY, Suspect, cause_of_death, cause_of_silence};
use super::instance::{LiveInstance, micros};
use super::pool::{Claimed, Deployed, Pool};
use super::short;
use super::trigger::Failure;

/// Invokes one function from any thread, at the same time as others do, and while the function is updated.
#[derive(Clone, Debug)]
pub struct Invoker {
    pub(super) pool: Arc<Pool>,
    pub(super) function: String,
}

impl Invoker {
    /// Invokes the function with a JSON object and waits for its answer, on an instance that it has for itself. A failed
    /// invocation is a result too.
    ///
    /// # Errors
    /// The job was given up, the platform was shut down, or no instance could be had.
    pub fn invoke(&self, payload: &str, start: StartKind) -> Result<ExecutionResult> {
        self.pool.invoke(&self.function, payload, start)
    }
}

/// What is to become of an instance after an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Future {
    /// It serves the next one.
    Serves,
    /// Its handler is still at work, or it is dead: the next invocation gets another.
    IsOver,
}

impl Pool {
    pub(super) fn invoke(&self, function: &str, payload: &str, start: StartKind) -> Result<ExecutionResult> {
        let asked = Instant::now();
        let Claimed { mut live, deployed } = self.claim(function, start)?;
        let waited = Instant::now().since(asked);
        live.is_enforced |= start == StartKind::Cold;
        let (mut result, future) = match self.exchange(&mut live, &deployed, payload) {
            Ok(done) => done,
            Err(error) => {
                // Its handler is still at work, and a later command would wait for it.
                self.retire_or_warn(live);
                return Err(error);
            }
        };
        result.invocation.instance_wait_us = Some(micros(waited));
        result.bill(deployed.config.memory);
        self.note(&live, &deployed, &result);
        if start == StartKind::Cold || future == Future::IsOver {
            self.retire_or_warn(live);
        } else {
            self.give_back(live);
        }
        Ok(result)
    }

    /// The exchange itself, with readings of the counters just before and just after it.
    fn exchange(
        &self,
        live: &mut LiveInstance,
        deployed: &Deployed,
        payload: &str,
    ) -> Result<(ExecutionResult, Future)> {
        let is_first = !std::mem::replace(&mut live.is_invoked, true);
        let target = live.target;
        let before = live.read_usage();
        let metered = target.and_then(|target| self.meter().as_mut()?.before_invocation(target));
        let (mut result, failure) = live.trigger.sync_invoke(payload)?;
        if let Some((target, before)) = target.zip(metered)
            && let Some(meter) = self.meter().as_mut()
        {
            meter.after_invocation(target, &before, &mut result);
        }
        live.read_usage().note_since(&before, &mut result);
        live.invocations += 1;
        live.usage.memory_peak_bytes = live.usage.memory_peak_bytes.max(result.invocation.memory_peak_bytes);
        result.invocation.instance_id = Some(live.id().to_string());
        if result.stats.failure && result.request_id.is_empty() {
            // The server could not say so.
            result.stats.cold_start = is_first;
        }
        if is_first {
            live.note_start(&mut result);
        }
        if std::mem::take(&mut live.is_enforced) {
            result.demand_cold_start();
        }
        let future = self.look_after(live, deployed, failure, &mut result)?;
        Ok((result, future))
    }

    /// Says why an invocation got no answer, and whether its instance will serve another.
    fn look_after(
        &self,
        live: &mut LiveInstance,
        deployed: &Deployed,
        failure: Option<Failure>,
        result: &mut ExecutionResult,
    ) -> Result<Future> {
        let engine = &self.starter.engine;
        let suspect = Suspect {
            id: live.id(),
            address: live.trigger.address(),
            memory_mb: deployed.config.memory,
            oom_kills: result.invocation.oom_kills.unwrap_or(0),
        };
        let cause = match failure {
            None | Some(Failure::Answered) => return Ok(self.check_identity(live, result)),
            Some(Failure::TimedOut) => cause_of_silence(engine, &suspect).map(|cause| {
                let told = result.invocation.error.as_deref().unwrap_or("timed out");
                Some(cause.map_or(told.to_string(), |cause| format!("{told}: {cause}")))
            }),
            Some(Failure::Disconnected) => cause_of_death(engine, &self.starter.cancel, &suspect),
        };
        match cause {
            Ok(None) => return Ok(Future::Serves),
            Ok(Some(cause)) => {
                if cause.contains(OUT_OF_MEMORY) {
                    let kills = result.invocation.oom_kills.unwrap_or(0).max(1);
                    result.invocation.oom_kills = Some(kills);
                    live.usage.oom_kills = live.usage.oom_kills.max(Some(kills));
                }
                result.fail(cause);
            }
            Err(error) if error.is_cancelled() => return Err(error),
            // The invocation failed, and is recorded, even where nobody can say why.
            Err(error) => {
                log::warn!("{error}");
                return Ok(if failure == Some(Failure::TimedOut) { Future::IsOver } else { Future::Serves });
            }
        }
        Ok(Future::IsOver)
    }

    /// An address that a container has lost is given to another: what that answers is no result.
    fn check_identity(&self, live: &mut LiveInstance, result: &mut ExecutionResult) -> Future {
        let told = result.invocation.container_id.take();
        let is_id = |text: &String| text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(told) = told.filter(is_id).filter(|told| !live.id().starts_with(told)) else {
            return Future::Serves;
        };
        if live.stranger.as_ref() == Some(&told) {
            return Future::Serves;
        }
        if self.starter.engine.inspect_container(&told).is_err() {
            // An engine in a container: the server may have found the id of the outer one.
            live.stranger = Some(told);
            return Future::Serves;
        }
        let other = short(&told);
        result.fail(format!("its container lost its address, at which container {other} answered"));
        Future::IsOver
    }

    /// Counts an invocation, and has the recording know of it.
    fn note(&self, live: &LiveInstance, deployed: &Deployed, result: &ExecutionResult) {
        if let Some((target, meter)) = live.target.zip(self.meter().as_ref()) {
            meter.note_invocation(target, result);
        }
        let mut state = self.lock();
        let tally = state.tally(&live.function);
        if result.stats.cold_start {
            tally.cold += 1;
        } else {
            tally.warm += 1;
        }
        tally.failed += u64::from(result.stats.failure);
        // SeBS's Python server encloses the import of the function, not its handler: its `benchmark` is no handler time.
        let is_sebs = !result.stats.failure && result.invocation.handler_us.is_none();
        let is_python = deployed.config.runtime.language == Language::Python;
        if is_sebs && is_python && !std::mem::replace(&mut state.has_warned_of_server, true) {
            log::warn!(
                "the image's function server does not time the handler: `benchmark` is the time of the import, and \
                 no invocation is known to be cold"
            );
        }
        log::trace!("instance {} has served {} invocations", short(live.id()), live.invocations);
    }
}
