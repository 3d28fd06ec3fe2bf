//! Asks the engine once what a container has used so far.

use serde::Deserialize;

use super::Engine;
use super::containers::{named, path};
use crate::error::{Context, Result};

/// What a running container has used since its start, as the engine counts; what it does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Processor time, over all processors, in µs.
    pub cpu_us: Option<u64>,
    /// How long its CPU limit kept it from running, in µs.
    pub throttled_us: Option<u64>,
    /// In how many of the scheduler's periods that was.
    pub throttled_periods: Option<u64>,
    /// The most memory that was ever used, page cache included; absent on a host with cgroup v2.
    pub memory_peak_bytes: Option<u64>,
}

impl Engine {
    /// What a running container has used so far; nothing of it is known of one that does not run.
    ///
    /// # Errors
    /// When it is not there (`is_not_found`), the engine cannot be reached, or containers have no control group of their
    /// own.
    pub fn container_usage(&self, id: &str) -> Result<ContainerUsage> {
        // Without `one-shot`, which engines before 1.41 do not know, the engine waits a second for another reading.
        let ask = || {
            self.check_counts()?;
            let call = self.get(&path(id, "/stats")).query("stream", "false").query("one-shot", "true");
            call.fetch::<Stats>()
        };
        let stats = ask().context(|| format!("failed to ask what {} has used", named(id)))?;
        Ok(stats.usage())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stats {
    cpu_stats: CpuStats,
    memory_stats: MemoryStats,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CpuStats {
    cpu_usage: CpuUsage,
    throttling_data: Throttling,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CpuUsage {
    total_usage: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Throttling {
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MemoryStats {
    max_usage: Option<u64>,
}

impl Stats {
    /// A container that runs has used some time: the zeros of others are none.
    fn usage(self) -> ContainerUsage {
        let CpuStats { cpu_usage, throttling_data } = self.cpu_stats;
        if cpu_usage.total_usage == 0 {
            return ContainerUsage::default();
        }
        ContainerUsage {
            cpu_us: Some(cpu_usage.total_usage / 1000),
            throttled_us: Some(throttling_data.throttled_time / 1000),
            throttled_periods: Some(throttling_data.throttled_periods),
            memory_peak_bytes: self.memory_stats.max_usage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_nanoseconds_are_told_in_microseconds_and_its_zeros_are_not() {
        let text = r#"{"cpu_stats": {"cpu_usage": {"total_usage": 47000500}, "throttling_data":
            {"periods": 9, "throttled_periods": 3, "throttled_time": 2500000}}, "memory_stats": {"max_usage": 4096}}"#;
        let expected = ContainerUsage {
            cpu_us: Some(47_000),
            throttled_us: Some(2_500),
            throttled_periods: Some(3),
            memory_peak_bytes: Some(4096),
        };
        assert_eq!(serde_json::from_str::<Stats>(text).unwrap().usage(), expected);
        let ended = r#"{"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}"#;
        assert_eq!(serde_json::from_str::<Stats>(ended).unwrap().usage(), ContainerUsage::default());
    }
}
