//! What a platform tells of invocations and instances after they were: times, memory, processor time, throttling, kills.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::faas::{ExecutionResult, Function};

use super::instance::{LiveInstance, Usage, micros};
use super::pool::{Pool, Tally};
use super::short;

/// What one instance was, and has used since its start; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InstanceMetrics {
    /// Id of its container.
    pub instance_id: String,
    /// The platform's count of enforced cold starts when it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_start_counter: Option<u64>,
    /// How many invocations it served or failed.
    pub invocations: u64,
    /// µs until the engine had created its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_us: Option<u64>,
    /// µs until the engine had started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_us: Option<u64>,
    /// µs from then on to the first answer of its server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_us: Option<u64>,
    /// Processor time of all its processes, in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// µs that its CPU limit kept it from running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_us: Option<u64>,
    /// In how many of the scheduler's periods that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_periods: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// The most memory that it used, page cache included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// Who counted: `cgroup v2` or `engine`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Pool {
    /// What an instance has used, as far as it can be read now.
    pub(super) fn measure(&self, live: &mut LiveInstance) -> InstanceMetrics {
        let mut source =
            live.counters.as_ref().map(|counters| format!("cgroup {}", counters.location().version));
        if live.counters.is_some() {
            live.read_usage();
            live.read_peak();
        } else {
            match self.starter.engine.without_cancel().container_usage(live.id()) {
                Ok(usage) => {
                    let known = live.usage;
                    live.usage = Usage {
                        oom_kills: known.oom_kills,
                        memory_peak_bytes: known.memory_peak_bytes.max(usage.memory_peak_bytes),
                        ..Usage::from(usage)
                    };
                    source = live.usage.cpu_us.map(|_| "engine".to_string());
                }
                Err(error) => log::debug!("instance {}: {error}", short(live.id())),
            }
        }
        let usage = live.usage;
        InstanceMetrics {
            instance_id: live.id().to_string(),
            cold_start_counter: live.record.cold_start_counter,
            invocations: live.invocations,
            create_us: live.phases.map(|phases| micros(phases.create)),
            start_us: live.phases.map(|phases| micros(phases.start)),
            ready_us: live.phases.map(|phases| micros(phases.ready)),
            cpu_us: usage.cpu_us,
            throttled_us: usage.throttled_us,
            throttled_periods: usage.throttled_periods,
            oom_kills: usage.oom_kills,
            memory_peak_bytes: usage.memory_peak_bytes,
            source,
        }
    }

    /// What all instances of a function that are idle, or are no more, have used.
    pub(super) fn instance_metrics(&self, function: &str) -> Vec<InstanceMetrics> {
        let mut all = self.lock().ended.get(function).cloned().unwrap_or_default();
        // Out of the pool while they are read: the engine may take its time.
        for mut live in self.take_out(|live| live.function == function) {
            all.push(self.measure(&mut live));
            self.give_back(live);
        }
        all
    }

    /// How a function's invocations went so far.
    pub(super) fn tally(&self, function: &str) -> Tally {
        *self.lock().tally(function)
    }
}

/// Fills in what the platform says of each invocation, and gives what it says of the function.
pub(super) fn download(
    pool: &Pool,
    function: &Function,
    invocations: &mut dyn Iterator<Item = &mut ExecutionResult>,
) -> Result<Map<String, Value>> {
    for result in invocations {
        let invocation = &result.invocation;
        let parts = [
            invocation.create_us,
            invocation.start_us,
            invocation.ready_us,
            invocation.init_us.or(result.times.initialization),
        ];
        // The engine went away during the start, so that its time is not known: a part of it is not the whole.
        let is_disturbed = invocation.init_us.is_some() && invocation.create_us.is_none();
        let initialization: u64 = parts.into_iter().flatten().sum();
        result.provider_times.initialization =
            (initialization > 0 && !is_disturbed).then_some(initialization);
        result.provider_times.execution = invocation.handler_us;
        result.bill(function.config.memory);
    }
    let tally = pool.tally(&function.name);
    let metrics = json!({
        "cold": tally.cold,
        "warm": tally.warm,
        "failed": tally.failed,
        "instances_started": tally.started,
        "instances_removed": tally.removed,
        "most_instances": tally.most_instances,
        "instances": pool.instance_metrics(&function.name),
    });
    let Value::Object(metrics) = metrics else { unreachable!("it is written as an object") };
    Ok(metrics)
}
