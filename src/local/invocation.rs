//! One invocation: an instance is claimed, invoked, looked after, and given back or given up.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::error::Result;
use crate::faas::{ExecutionResult, Language, StartKind};

use super::death::{Cause, Standing, Suspect, cause_of_death, cause_of_silence, standing};
use super::instance::{LiveInstance, forget_usage, micros};
use super::pool::{Claimed, Deployed, Pool};
use super::short;
use super::trigger::Failure;
use super::whereabouts::RESTARTED;

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

/// The engine is asked whether an instance was paused only after an invocation that took this long: it costs milliseconds.
const PAUSE_TOLD_FROM: Duration = Duration::from_millis(100);

/// How the cause ends where the engine was restarted, stopped or killed during the invocation.
const ENGINE_WENT_AWAY: &str = "the Docker engine went away meanwhile";

/// What is to become of an instance after an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Future {
    /// It serves the next one.
    Serves,
    /// Its handler is still at work, or it is dead: the next invocation gets another.
    IsOver,
}

/// What tells one end of an invocation from another, beside the instance's own counters.
#[derive(Clone, Copy, Debug)]
struct Scene {
    /// Had the instance served none before?
    is_first: bool,
    /// The function's limit; 0: none, or the engine cannot set it.
    memory_mb: u64,
    /// How many processes the kernel killed meanwhile in the control group above; `None`: the instance's own counter
    /// tells, or there is no such count.
    killed_above: Option<u64>,
    /// How often the engine had gone away before.
    absences: u64,
}

impl Pool {
    pub(super) fn invoke(&self, function: &str, payload: &str, start: StartKind) -> Result<ExecutionResult> {
        let asked = Instant::now();
        let Claimed { mut live, mut deployed } = self.claim(function, start)?;
        loop {
            match self.lapse(&mut live, &deployed) {
                Ok(None) => break,
                Ok(Some(why)) => {
                    warn_of_lapse(&live, &why);
                    self.retire_or_warn(live);
                }
                Err(error) => {
                    self.retire_or_warn(live);
                    return Err(error);
                }
            }
            Claimed { live, deployed } = self.claim(function, start)?;
        }
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
        self.note_pause(&live, &mut result);
        result.invocation.instance_wait_us = Some(micros(waited));
        result.bill(deployed.config.memory);
        self.note(&live, &deployed, &result);
        if start == StartKind::Cold || future == Future::IsOver {
            self.retire_or_warn(live);
        } else {
            live.last_request.clone_from(&result.request_id);
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
        let wait = self.waits.begin(live);
        let peak = live.begin_peak();
        let before = live.read_usage();
        let killed_above = live.kills_above();
        let metered = target.and_then(|target| self.meter().as_mut()?.before_invocation(target));
        let absences = self.starter.engine.absences();
        let invoked = live.trigger.invoke_unless(payload, Some(&wait.lost));
        let seen = self.waits.end(&wait);
        let (mut result, failure) = invoked?;
        if let Some((target, before)) = target.zip(metered)
            && let Some(meter) = self.meter().as_mut()
        {
            meter.after_invocation(target, &before, &mut result);
        }
        live.note_peak(&peak, &mut result);
        live.read_usage().note_since(&before, &mut result);
        live.killed_above = killed_above.map(|before| before + result.invocation.oom_kills.unwrap_or(0));
        let killed_above = match result.invocation.oom_kills {
            Some(_) => None,
            None => live.kills_above().zip(killed_above).map(|(after, before)| after.saturating_sub(before)),
        };
        live.invocations += 1;
        live.usage.memory_peak_bytes = live.usage.memory_peak_bytes.max(result.invocation.memory_peak_bytes);
        result.invocation.instance_id = Some(live.id().to_string());
        result.invocation.was_paused = seen.was_paused.then_some(true);
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
        let scene = Scene { is_first, memory_mb: self.memory_limit(deployed), killed_above, absences };
        let future = match (failure, seen.loss) {
            (None, _) => self.check_identity(live, &scene, &mut result),
            (Some(Failure::Answered), _) => match self.check_identity(live, &scene, &mut result) {
                // What answered did not do so as a function server does: it may be anybody's.
                Future::Serves if result.request_id.is_empty() => {
                    self.look_after(live, &scene, Failure::Answered, &mut result)?
                }
                future => future,
            },
            (Some(_), Some(loss)) => {
                result.fail(loss);
                Future::IsOver
            }
            (Some(failure), None) => self.look_after(live, &scene, failure, &mut result)?,
        };
        if result.stats.failure {
            return Ok((result, future));
        }
        if live.has_served && result.stats.cold_start {
            // Where its counters are not on this machine, nothing else tells.
            warn_of_lapse(live, RESTARTED);
            forget_usage(&mut result);
            return Ok((result, Future::IsOver));
        }
        live.has_served = true;
        Ok((result, future))
    }

    /// Says why an invocation got no answer of a function server's, and whether its instance will serve another.
    fn look_after(
        &self,
        live: &mut LiveInstance,
        scene: &Scene,
        failure: Failure,
        result: &mut ExecutionResult,
    ) -> Result<Future> {
        let engine = &self.starter.engine;
        // An engine that ends tells nothing of use, and would end what it starts now.
        let settled = engine.settle();
        let suspect = suspect(live, scene, result);
        let timed_out = failure == Failure::TimedOut;
        let cause = match failure {
            Failure::Answered | Failure::TimedOut => cause_of_silence(engine, &suspect),
            Failure::Disconnected => cause_of_death(engine, &self.starter.cancel, &suspect),
        };
        let was_away = *settled.as_ref().unwrap_or(&true) || engine.absences() != scene.absences;
        let future = match settled.and(cause) {
            Ok(None) if !timed_out => Future::Serves,
            // Its handler is still at work.
            Ok(None) => Future::IsOver,
            Ok(Some(cause)) => {
                note_kill(&cause, live, result);
                result.fail(match &result.invocation.error {
                    Some(told) if timed_out => format!("{told}: {}", cause.text),
                    _ => cause.text,
                });
                Future::IsOver
            }
            Err(error) if error.is_cancelled() => return Err(error),
            // The invocation failed, and is recorded, even where nobody can say why.
            Err(error) => {
                log::warn!("{error}");
                if was_away || timed_out { Future::IsOver } else { Future::Serves }
            }
        };
        if was_away {
            let told = result.invocation.error.take().unwrap_or_default();
            result.fail(format!("{told}; {ENGINE_WENT_AWAY}"));
        }
        Ok(future)
    }

    /// An address that a container has lost is given to another: what that answers is no result.
    fn check_identity(&self, live: &mut LiveInstance, scene: &Scene, result: &mut ExecutionResult) -> Future {
        let told = result.invocation.container_id.take();
        let is_id = |text: &String| text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(told) = told.filter(is_id).filter(|told| !live.id().starts_with(told)) else {
            return match result.stats.failure {
                true => self.check_failure(live, scene, result),
                false => Future::Serves,
            };
        };
        if live.stranger.as_ref() == Some(&told) {
            return Future::Serves;
        }
        match self.starter.engine.inspect_container(&told) {
            // An engine in a container: the server may have found the id of the outer one.
            Err(error) if error.is_not_found() => {
                live.stranger = Some(told);
                return Future::Serves;
            }
            Err(error) if error.is_cancelled() => return Future::Serves,
            // Nobody can say that it is the instance's own.
            Err(error) => log::warn!("{error}"),
            Ok(_) => {}
        }
        result.disown_answer(scene.is_first);
        let other = format!("container {} answered at its address", short(&told));
        match cause_of_silence(&self.starter.engine, &suspect(live, scene, result)) {
            Ok(Some(cause)) => {
                note_kill(&cause, live, result);
                result.fail(format!("{}, and {other}", cause.text));
            }
            Ok(None) => result.fail(other),
            Err(error) => {
                log::warn!("{error}");
                result.fail(other);
            }
        }
        Future::IsOver
    }

    /// The same for an answer that says that the function failed, but not whose it is.
    fn check_failure(&self, live: &LiveInstance, scene: &Scene, result: &mut ExecutionResult) -> Future {
        match standing(&self.starter.engine, live.place()) {
            Ok(Standing::Lost(why)) => {
                result.disown_answer(scene.is_first);
                result.fail(format!("{why}, and another answered at its address"));
                Future::IsOver
            }
            // After its own answer.
            Ok(Standing::Ended) => Future::IsOver,
            Ok(Standing::Able | Standing::Paused) => Future::Serves,
            Err(error) => {
                log::debug!("{error}");
                Future::Serves
            }
        }
    }

    /// Marks an invocation whose instance was paused meanwhile, however shortly. An engine on another machine has a clock of
    /// its own, and is not asked.
    fn note_pause(&self, live: &LiveInstance, result: &mut ExecutionResult) {
        let Some(window) = result.invocation.window() else { return };
        let (begin, end) = (Instant(window.begin_ns), Instant(window.end_ns));
        let is_known = result.invocation.was_paused.is_some() || live.counters.is_none();
        if is_known || end.since(begin) < PAUSE_TOLD_FROM {
            return;
        }
        match self.starter.engine.was_paused(live.id(), begin, end) {
            Ok(was_paused) => result.invocation.was_paused = was_paused.then_some(true),
            Err(error) => log::debug!("{error}"),
        }
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

/// An instance after an invocation.
fn suspect<'a>(live: &'a LiveInstance, scene: &Scene, result: &ExecutionResult) -> Suspect<'a> {
    Suspect {
        place: live.place(),
        begin: Instant(result.invocation.begin_monotonic_ns.unwrap_or(0)),
        memory_mb: scene.memory_mb,
        earlier_kills: live.usage.oom_kills.unwrap_or(0),
        oom_kills: result.invocation.oom_kills,
        killed_above: scene.killed_above,
    }
}

/// Counts a kill that the engine knows of where the kernel's counter has gone.
fn note_kill(cause: &Cause, live: &mut LiveInstance, result: &mut ExecutionResult) {
    if cause.is_out_of_memory && result.invocation.oom_kills.is_none() {
        result.invocation.oom_kills = Some(1);
        live.usage.oom_kills = Some(live.usage.oom_kills.unwrap_or(0) + 1);
    }
}

fn warn_of_lapse(live: &LiveInstance, why: &str) {
    let idle_since = match live.last_request.as_str() {
        "" => String::new(),
        request => format!(", idle since invocation {request}"),
    };
    log::warn!("instance {}{idle_since}: {why}, so another takes its place", short(live.id()));
}
