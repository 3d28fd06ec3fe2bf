//! `memory_stats.json`: what SeBS's `local stop` says of each container's memory, and how precisely it was measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Recording;
use super::event::What;
use super::lateness::{Histogram, Lateness};
use super::profile::Accumulator;
use super::scheduling::Scheduling;
use crate::error::Result;
use crate::units::Bytes;

/// The whole of `memory_stats.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// By label, which is the container's id.
    #[serde(flatten)]
    pub containers: BTreeMap<String, ContainerStats>,
    /// Ticks without a measurement, of all containers together; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision_errors: Option<u64>,
}

/// One container in `memory_stats.json`: SeBS's four keys, and ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// `12.3 MB`, a MB being 10⁶ bytes, unrounded; absent without a measurement.
    #[serde(rename = "mean mem. usage", default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<String>,
    /// `45.6 MB`; absent without a measurement.
    #[serde(rename = "max mem. usage", default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    /// How many measurements there are.
    #[serde(rename = "number of measurements")]
    pub measurements: u64,
    /// All measurements, in bytes, in the order of time.
    #[serde(rename = "full profile (in bytes)")]
    pub profile_bytes: Vec<u64>,
    /// From one tick to the next.
    pub interval_ns: u64,
    /// What `timestamps_ns` count from: RFC 3339, UTC.
    pub start_time: String,
    /// When each measurement was taken.
    pub timestamps_ns: Vec<u64>,
    /// The peak that the kernel itself counted; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_peak_bytes: Option<u64>,
    /// Ticks that passed without a sample.
    pub missed_ticks: u64,
    /// Samples that were taken and could not be kept.
    pub lost_samples: u64,
    /// How late the measurements were; absent without a measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_ns: Option<Lateness>,
    /// The clock of the schedule and of `timestamps_ns`.
    pub clock: String,
    /// How the kernel treated the sampling thread.
    pub scheduling: Scheduling,
    /// What was read; absent where the caller did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What a recording does not know of a counter, and `memory_stats.json` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterFacts {
    /// The peak that the kernel itself counted; absent where it is not known.
    pub kernel_peak: Option<Bytes>,
    /// What was read, such as `cgroup v2 memory.current`; absent where that is not known.
    pub source: Option<String>,
}

/// What is gathered of one label.
#[derive(Default)]
struct Gathering {
    profile_bytes: Vec<u64>,
    timestamps_ns: Vec<u64>,
    memory: Accumulator,
    lateness: Histogram,
}

impl MemoryStats {
    /// What a recording says, with `facts` by label. Targets of one label are told as one.
    ///
    /// # Errors
    /// The recording cannot be read.
    pub fn new(recording: &Recording, facts: &BTreeMap<String, CounterFacts>) -> Result<MemoryStats> {
        let header = &recording.header;
        let mut gathered: BTreeMap<&str, Gathering> = BTreeMap::new();
        for event in recording.events()? {
            let event = event?;
            let Some(target) = recording.targets.get(event.target.index()) else { continue };
            let gathering = gathered.entry(&target.label).or_default();
            if let What::Sample(sample) = event.what {
                let at = header.instant(&sample);
                gathering.profile_bytes.push(sample.bytes.0);
                gathering.timestamps_ns.push(at.0 - header.start_ns);
                gathering.memory.add(at, sample.bytes);
                gathering.lateness.add(sample.lateness);
            }
        }
        let mut stats = MemoryStats::default();
        let mut precision_errors = 0;
        for (label, gathering) in gathered {
            let profile = gathering.memory.profile();
            let megabytes = |bytes: f64| format!("{:?} MB", bytes / 1e6);
            let mut container = ContainerStats {
                mean: profile.map(|profile| megabytes(profile.mean_bytes)),
                max: profile.map(|profile| megabytes(profile.peak.0 as f64)),
                measurements: gathering.profile_bytes.len() as u64,
                profile_bytes: gathering.profile_bytes,
                interval_ns: header.interval_ns,
                start_time: header.start_time.clone(),
                timestamps_ns: gathering.timestamps_ns,
                kernel_peak_bytes: None,
                missed_ticks: 0,
                lost_samples: 0,
                lateness_ns: gathering.lateness.lateness(),
                clock: header.clock.clone(),
                scheduling: header.scheduling.clone(),
                source: None,
            };
            for target in recording.targets.iter().filter(|target| target.label == label) {
                container.missed_ticks += target.missed;
                container.lost_samples += target.lost;
            }
            if let Some(facts) = facts.get(label) {
                container.kernel_peak_bytes = facts.kernel_peak.map(|bytes| bytes.0);
                container.source = facts.source.clone();
            }
            precision_errors += container.missed_ticks + container.lost_samples;
            stats.containers.insert(label.to_string(), container);
        }
        stats.precision_errors = (precision_errors > 0).then_some(precision_errors);
        Ok(stats)
    }
}
