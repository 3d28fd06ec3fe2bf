//! Attributes a recording of memory to the invocations that ran meanwhile, by the one clock of client and probe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::faas::ExecutionResult;
use crate::probe::{Header, Lateness, Recording, Scheduling, TargetId, Window};

use super::result::ExperimentResult;

/// How the memory of an experiment's instances was sampled, and how well that went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// From one tick to the next.
    pub interval_ns: u64,
    /// The clock of the schedule, and of `begin_monotonic_ns` and `end_monotonic_ns` of each invocation.
    pub clock: String,
    /// How the kernel treated the sampling thread.
    pub scheduling: Scheduling,
    /// How far the kernel's counter may be above the memory in use; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_batch_bytes: Option<u64>,
    /// Name of the file with all samples, beside the result; absent where they were not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
    /// Ticks that were planned, of all instances together.
    pub planned_ticks: u64,
    /// Ticks that passed without a sample.
    pub missed_ticks: u64,
    /// Samples that were taken and could not be kept.
    pub lost_samples: u64,
    /// How late samples were: of each figure that of the instance for which it was the largest. Absent without a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_ns: Option<Lateness>,
    /// Processor time of the sampling thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler_cpu_ns: Option<u64>,
    /// What went wrong or was not granted, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Measurement {
    fn of(recording: &Recording, file_name: Option<String>) -> Measurement {
        let Header { interval_ns, clock, scheduling, charge_batch_bytes, warnings, .. } =
            recording.header.clone();
        let sum = |count: fn(&crate::probe::TargetSummary) -> u64| recording.targets.iter().map(count).sum();
        let latenesses = recording.targets.iter().filter_map(|target| target.lateness);
        Measurement {
            interval_ns,
            clock,
            scheduling,
            charge_batch_bytes,
            recording: file_name,
            planned_ticks: sum(|target| target.planned()),
            missed_ticks: sum(|target| target.missed),
            lost_samples: sum(|target| target.lost),
            lateness_ns: latenesses.reduce(|one, other| Lateness {
                p50_ns: one.p50_ns.max(other.p50_ns),
                p99_ns: one.p99_ns.max(other.p99_ns),
                max_ns: one.max_ns.max(other.max_ns),
            }),
            sampler_cpu_ns: recording.end.map(|end| end.sampler_cpu_ns),
            warnings: warnings.into_iter().chain(recording.warnings.iter().cloned()).collect(),
        }
    }
}

/// Fills in what the samples say of each invocation: how many there are, their peak and mean, and whether others ran on
/// the same instance meanwhile. `file_name` is where the recording is kept, if it is.
///
/// Targets are told from each other by their labels, which are the ids of instances.
///
/// # Errors
/// The recording cannot be read.
pub fn attribute_memory(
    result: &mut ExperimentResult,
    recording: &Recording,
    file_name: Option<String>,
) -> Result<()> {
    result.measurement = Some(Measurement::of(recording, file_name));
    let limit_mb = result.config.function.as_ref().map_or(0, |function| function.limits.memory);
    let targets: BTreeMap<&str, TargetId> =
        recording.targets.iter().map(|target| (target.label.as_str(), target.id)).collect();
    let mut of_target: BTreeMap<TargetId, Vec<&mut ExecutionResult>> = BTreeMap::new();
    for invocation in result.invocations.values_mut().flat_map(|invocations| invocations.values_mut()) {
        let target = invocation.invocation.instance_id.as_deref().and_then(|id| targets.get(id));
        if let Some((target, _)) = target.zip(invocation.invocation.window()) {
            of_target.entry(*target).or_default().push(invocation);
        }
    }
    let windows: BTreeMap<TargetId, Vec<Window>> = of_target
        .iter()
        .map(|(target, all)| {
            (*target, all.iter().filter_map(|invocation| invocation.invocation.window()).collect())
        })
        .collect();
    let mut profiles = recording.profiles_by_target(&windows)?;
    for (target, invocations) in of_target {
        let overlapping = overlapping(&windows[&target]);
        let profiles = profiles.remove(&target).unwrap_or_default();
        for ((invocation, profile), overlapping) in invocations.into_iter().zip(profiles).zip(overlapping) {
            invocation.invocation.overlapping = Some(overlapping);
            invocation.invocation.memory_samples = Some(profile.map_or(0, |profile| profile.samples));
            invocation.invocation.memory_mean_bytes = profile.map(|profile| profile.mean_bytes);
            if let Some(profile) = profile {
                let borders =
                    invocation.invocation.memory_before_bytes.max(invocation.invocation.memory_after_bytes);
                invocation.raise_memory_peak(borders.max(Some(profile.peak.0)));
            }
            invocation.bill(limit_mb);
        }
    }
    Ok(())
}

/// For each window, whether another one has an instant in common with it.
fn overlapping(windows: &[Window]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..windows.len()).collect();
    order.sort_by_key(|place| windows[*place].begin_ns);
    let mut overlapping = vec![false; windows.len()];
    // The window that ends last among those that have begun.
    let mut longest: Option<usize> = None;
    for place in order {
        if let Some(other) = longest
            && windows[place].begin_ns <= windows[other].end_ns
        {
            overlapping[place] = true;
            overlapping[other] = true;
        }
        if longest.is_none_or(|other| windows[place].end_ns > windows[other].end_ns) {
            longest = Some(place);
        }
    }
    overlapping
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_share_an_instant_overlap() {
        let windows = |pairs: &[(u64, u64)]| -> Vec<Window> {
            pairs.iter().map(|(begin_ns, end_ns)| Window { begin_ns: *begin_ns, end_ns: *end_ns }).collect()
        };
        assert_eq!(overlapping(&windows(&[(0, 9), (10, 19), (20, 29)])), [false, false, false]);
        assert_eq!(overlapping(&windows(&[(20, 29), (0, 9), (9, 12)])), [false, true, true]);
        // The long one meets both short ones, which do not meet each other.
        assert_eq!(
            overlapping(&windows(&[(0, 100), (10, 20), (30, 40), (101, 102)])),
            [true, true, true, false]
        );
        assert_eq!(overlapping(&[]), [false; 0]);
    }
}
