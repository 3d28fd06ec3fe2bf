//! One instance of a function as the platform knows it: how it is invoked, how it was started, what the kernel counts.

use std::time::Duration;

use crate::cgroup::{Memory, PeakReset, Reading, is_gone};
use crate::clock::Instant;
use crate::docker::{ContainerUsage, OwnedContainer};
use crate::faas::{ExecutionResult, Instance};
use crate::probe::TargetId;

use super::container::StartPhases;
use super::death::Place;
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
    /// When its container was started, in the engine's words: another time tells that somebody started it again.
    pub(super) started_at: String,
    /// How often the engine had gone away when it was last seen to serve, or to be started.
    pub(super) absences: u64,
    pub(super) trigger: HttpTrigger,
    /// Has it been invoked, so that it is warm?
    pub(super) is_invoked: bool,
    /// Was it seen to serve an invocation since it was started, so that it is warm for sure?
    pub(super) has_served: bool,
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
    /// Id of the last of them; empty: its server did not tell, or there was none.
    pub(super) last_request: String,
    /// How many processes had been killed for want of memory in the control group above when that one ended.
    pub(super) killed_above: Option<u64>,
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

/// The kernel's peak of memory before an invocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeakBefore {
    /// `None`: it cannot be read, or a meter does so.
    bytes: Option<u64>,
    /// Is it counted anew since?
    is_reset: bool,
}

impl LiveInstance {
    pub(super) fn id(&self) -> &str {
        &self.record.instance_id
    }

    /// What it is known by.
    pub(super) fn place(&self) -> Place<'_> {
        Place { id: self.id(), address: self.trigger.address(), started_at: &self.started_at }
    }

    /// Has its container ended, whatever was started in its place since?
    pub(super) fn has_ended(&self) -> bool {
        self.counters.as_ref().is_some_and(|counters| counters.current().is_err_and(|error| is_gone(&error)))
    }

    /// Reads what it has used so far. What cannot be read is absent, as all is once its control group is gone; `usage` keeps
    /// what was read of it last.
    pub(super) fn read_usage(&mut self) -> Usage {
        let read = self.counters.as_ref().map(Usage::read).unwrap_or_default();
        self.usage = read.or(self.usage);
        read
    }

    /// Reads how many processes were killed for want of memory in the control group above its own, where that counts them.
    pub(super) fn kills_above(&self) -> Option<u64> {
        self.counters.as_ref()?.oom_kills_above().ok()?.value()?.value()
    }

    /// Reads the kernel's peak, which is a part of the most that it ever used.
    pub(super) fn read_peak(&mut self) -> Option<u64> {
        let peak = self.counters.as_ref()?.peak().ok()?.value()?.value();
        self.usage.memory_peak_bytes = self.usage.memory_peak_bytes.max(peak);
        peak
    }

    /// Has the kernel count its peak anew for an invocation, where it can and no meter does.
    pub(super) fn begin_peak(&mut self) -> PeakBefore {
        if self.target.is_some() {
            return PeakBefore { bytes: None, is_reset: false };
        }
        let bytes = self.read_peak();
        let reset = self.counters.as_ref().map(Memory::reset_peak);
        PeakBefore { bytes, is_reset: matches!(reset, Some(Ok(PeakReset::Done))) }
    }

    /// Writes down the peak of an invocation, if it is its own: what was counted anew, or is higher than ever before.
    pub(super) fn note_peak(&mut self, before: &PeakBefore, result: &mut ExecutionResult) {
        let Some(known) = before.bytes else { return };
        let Some(peak) = self.read_peak().filter(|peak| before.is_reset || *peak > known) else { return };
        result.invocation.memory_kernel_peak_bytes = Some(peak);
        result.invocation.memory_source = self.counters.as_ref().map(Memory::peak_source);
        result.raise_memory_peak(Some(peak));
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
    fn read(counters: &Memory) -> Usage {
        let cpu = counters.cpu().ok().and_then(Reading::value);
        let oom_kills = counters.oom_kills().ok().and_then(Reading::value);
        Usage {
            cpu_us: cpu.as_ref().and_then(|cpu| cpu.usage_us.value()),
            throttled_us: cpu.as_ref().and_then(|cpu| cpu.throttled_us.value()),
            throttled_periods: cpu.and_then(|cpu| cpu.throttled_periods.value()),
            oom_kills: oom_kills.and_then(|kills| kills.value()),
            memory_peak_bytes: None,
        }
    }

    /// What is known of either, rather of this one.
    fn or(self, known: Usage) -> Usage {
        Usage {
            cpu_us: self.cpu_us.or(known.cpu_us),
            throttled_us: self.throttled_us.or(known.throttled_us),
            throttled_periods: self.throttled_periods.or(known.throttled_periods),
            oom_kills: self.oom_kills.or(known.oom_kills),
            memory_peak_bytes: self.memory_peak_bytes.or(known.memory_peak_bytes),
        }
    }

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

/// Takes back what was written down of an invocation that another start of the container served than its counters are of.
pub(super) fn forget_usage(result: &mut ExecutionResult) {
    let invocation = &mut result.invocation;
    (invocation.instance_cpu_us, invocation.oom_kills) = (None, None);
    (invocation.throttled_us, invocation.throttled_periods) = (None, None);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_at_the_end_of_an_instance_is_remembered_and_is_no_use_of_the_last_invocation() {
        let before = Usage {
            cpu_us: Some(700),
            throttled_us: Some(0),
            throttled_periods: Some(0),
            oom_kills: Some(1),
            memory_peak_bytes: Some(9),
        };
        let gone = Usage::default();
        assert_eq!(gone.or(before), before);
        let mut result = ExecutionResult::empty();
        gone.note_since(&before, &mut result);
        let told = &result.invocation;
        assert_eq!((told.instance_cpu_us, told.throttled_us, told.throttled_periods), (None, None, None));
        assert_eq!(told.oom_kills, None);

        let after = Usage { cpu_us: Some(900), oom_kills: Some(3), ..before };
        assert_eq!(after.or(before), after);
        after.note_since(&before, &mut result);
        assert_eq!((result.invocation.instance_cpu_us, result.invocation.throttled_us), (Some(200), Some(0)));
        assert_eq!(result.invocation.oom_kills, Some(2));
    }
}
