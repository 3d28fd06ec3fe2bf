//! One instance of a function as the platform knows it: how it is invoked, how it was started, what the kernel counts.

use std::time::Duration;

use crate::cgroup::Memory;
use crate::clock::Instant;
use crate::docker::{ContainerUsage, OwnedContainer};
use crate::faas::{ExecutionResult, Instance};
use crate::probe::TargetId;

use super::container::StartPhases;
use super::trigger::HttpTrigger;

/// An instance that is thought to live.
#[derive(Debug)]
pub(super) struct LiveInstance {
    /// What the function's record says of it.
    pub(super) record: Instance,
    /// Name of its function.
    pub(super) function: String,
    /// Which of its function's deployments it runs.
    pub(super) revision: u64,
    /// Its place in the order of starts.
    pub(super) serial: u64,
    pub(super) trigger: HttpTrigger,
    /// Has it been invoked, so that it is warm?
    pub(super) is_invoked: bool,
    /// Was it started so that its first invocation is a cold start, which the server has to confirm?
    pub(super) is_enforced: bool,
    /// When its last invocation ended.
    pub(super) idle_since: Instant,
    /// `None`: an earlier command kept it, and its removal is not ours.
    pub(super) container: Option<OwnedContainer>,
    /// What the meter knows it as.
    pub(super) target: Option<TargetId>,
    /// Its counters; `None` where they are not on this machine.
    pub(super) counters: Option<Memory>,
    /// What it had used when that was last read.
    pub(super) usage: Usage,
    /// `None`: an earlier command started it.
    pub(super) phases: Option<StartPhases>,
    /// An id that its server gives itself, and that the engine does not know.
    pub(super) stranger: Option<String>,
    /// How many invocations it has served or failed.
    pub(super) invocations: u64,
}

/// What an instance has used since its start; what is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu_us: Option<u64>,
    pub(super) throttled_us: Option<u64>,
    pub(super) throttled_periods: Option<u64>,
    pub(super) oom_kills: Option<u64>,
    pub(super) memory_peak_bytes: Option<u64>,
}

impl LiveInstance {
    pub(super) fn id(&self) -> &str {
        &self.record.instance_id
    }

    /// Reads what it has used so far; what cannot be read any more stays as it was read last.
    pub(super) fn read_usage(&mut self) -> Usage {
        let Some(counters) = &self.counters else { return self.usage };
        let cpu = counters.cpu().ok().and_then(|reading| reading.value());
        let events = counters.events().ok().and_then(|reading| reading.value());
        let known = self.usage;
        self.usage = Usage {
            cpu_us: cpu.as_ref().and_then(|cpu| cpu.usage_us.value()).or(known.cpu_us),
            throttled_us: cpu.as_ref().and_then(|cpu| cpu.throttled_us.value()).or(known.throttled_us),
            throttled_periods: cpu.and_then(|cpu| cpu.throttled_periods.value()).or(known.throttled_periods),
            oom_kills: events.and_then(|events| events.oom_kill.value()).or(known.oom_kills),
            memory_peak_bytes: known.memory_peak_bytes,
        };
        self.usage
    }

    /// Reads the most memory that it ever used, unless that is counted anew for each invocation.
    pub(super) fn read_peak(&mut self) {
        let peak = self.counters.as_ref().and_then(|counters| counters.peak().ok());
        let peak = peak.and_then(|reading| reading.value()).and_then(|peak| peak.value());
        self.usage.memory_peak_bytes = self.usage.memory_peak_bytes.max(peak);
    }

    /// Writes down how its start went, in the result of its first invocation.
    pub(super) fn note_start(&self, result: &mut ExecutionResult) {
        let invocation = &mut result.invocation;
        invocation.init_us = result.times.initialization;
        invocation.cold_start_counter = self.record.cold_start_counter;
        let Some(phases) = self.phases else { return };
        invocation.create_us = Some(micros(phases.create));
        invocation.start_us = Some(micros(phases.start));
        invocation.ready_us = Some(micros(phases.ready));
    }
}

impl Usage {
    /// Writes down what was used from `before` on, in the result of the invocation that it was for.
    pub(super) fn note_since(&self, before: &Usage, result: &mut ExecutionResult) {
        let difference = |after: Option<u64>, before: Option<u64>| {
            after.zip(before).map(|(after, before)| after.saturating_sub(before))
        };
        let invocation = &mut result.invocation;
        invocation.instance_cpu_us = difference(self.cpu_us, before.cpu_us);
        invocation.throttled_us = difference(self.throttled_us, before.throttled_us);
        invocation.throttled_periods = difference(self.throttled_periods, before.throttled_periods);
        invocation.oom_kills = invocation.oom_kills.max(difference(self.oom_kills, before.oom_kills));
    }
}

impl From<ContainerUsage> for Usage {
    fn from(usage: ContainerUsage) -> Usage {
        Usage {
            cpu_us: usage.cpu_us,
            throttled_us: usage.throttled_us,
            throttled_periods: usage.throttled_periods,
            oom_kills: None,
            memory_peak_bytes: usage.memory_peak_bytes,
        }
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
