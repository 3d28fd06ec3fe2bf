//! `memory_stats.json`: what SeBS's `local stop` says of each container's memory, and how precisely it was measured.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Recording;
use super::event::What;
use super::lateness::{Histogram, Lateness};
use super::profile::{Accumulator, Profile};
use super::recording::ANY_VERSION;
use super::scheduling::Scheduling;
use super::sebs::{self, Line};
use crate::clock::Instant;
use crate::error::{Context, Error, Result};
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
    /// What a recording knows beyond that, and SeBS's text does not.
    #[serde(flatten)]
    pub series: Option<SeriesStats>,
}

/// How one container was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesStats {
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
    /// What was read, such as `cgroup v2 memory.current`; absent where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    /// What a file says, be it a recording or SeBS's text: its first bytes tell.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is neither.
    pub fn read(path: &Path) -> Result<MemoryStats> {
        let about = || format!("failed to read measurements `{}`", path.display());
        let mut reader = BufReader::with_capacity(64 * 1024, File::open(path).context(about)?);
        if reader.fill_buf().context(about)?.starts_with(ANY_VERSION) {
            return MemoryStats::of_recording(&Recording::open(path)?);
        }
        MemoryStats::of_sebs_text(&mut reader).context(about)
    }

    /// What a recording says. Targets of one label are told as one.
    ///
    /// # Errors
    /// The recording cannot be read.
    pub fn of_recording(recording: &Recording) -> Result<MemoryStats> {
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
            let mut series = SeriesStats {
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
                series.missed_ticks += target.missed;
                series.lost_samples += target.lost;
                series.kernel_peak_bytes =
                    series.kernel_peak_bytes.max(target.kernel_peak.map(|peak| peak.0));
                series.source = target.source.clone().or(series.source);
            }
            precision_errors += series.missed_ticks + series.lost_samples;
            let sebs = ContainerStats::new(gathering.memory.profile(), gathering.profile_bytes);
            stats.containers.insert(label.to_string(), ContainerStats { series: Some(series), ..sebs });
        }
        stats.precision_errors = (precision_errors > 0).then_some(precision_errors);
        Ok(stats)
    }

    /// What SeBS's text says, which knows no more than SeBS's own keys. A last line that was cut is left out.
    ///
    /// # Errors
    /// The text cannot be read, or holds none of SeBS's lines.
    pub fn of_sebs_text(reader: &mut impl BufRead) -> Result<MemoryStats> {
        let mut gathered: BTreeMap<String, Gathering> = BTreeMap::new();
        let mut precision_errors = 0;
        let strange = sebs::read(reader, |line| match line {
            Line::Missed => precision_errors += 1,
            Line::Sample(label, bytes) => {
                if !gathered.contains_key(label) {
                    gathered.insert(label.to_string(), Gathering::default());
                }
                if let Some(gathering) = gathered.get_mut(label) {
                    gathering.profile_bytes.push(bytes);
                    gathering.memory.add(Instant(0), Bytes(bytes));
                }
            }
        })?;
        if strange > 0 && gathered.is_empty() && precision_errors == 0 {
            return Err(Error::usage(
                "it is no recording, and none of its lines is `<label> <bytes>` as SeBS writes them",
            ));
        }
        if strange > 0 {
            log::warn!("{strange} lines among SeBS's are none of its and were left out");
        }
        let finish = |(label, gathering): (String, Gathering)| {
            (label, ContainerStats::new(gathering.memory.profile(), gathering.profile_bytes))
        };
        Ok(MemoryStats {
            containers: gathered.into_iter().map(finish).collect(),
            precision_errors: (precision_errors > 0).then_some(precision_errors),
        })
    }
}

impl ContainerStats {
    fn new(profile: Option<Profile>, profile_bytes: Vec<u64>) -> ContainerStats {
        let megabytes = |bytes: f64| format!("{:?} MB", bytes / 1e6);
        ContainerStats {
            mean: profile.map(|profile| megabytes(profile.mean_bytes)),
            max: profile.map(|profile| megabytes(profile.peak.0 as f64)),
            measurements: profile_bytes.len() as u64,
            profile_bytes,
            series: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sebs_text_gives_sebs_keys_and_no_others() {
        let text = b"ab 1500000\nprecision not met\ncd 7\n\nab 2500000\nprecision not met\nab 99";
        let stats = MemoryStats::of_sebs_text(&mut text.as_slice()).unwrap();
        let json = serde_json::to_value(&stats).unwrap();
        let expected = serde_json::json!({
            "ab": {"mean mem. usage": "2.0 MB", "max mem. usage": "2.5 MB", "number of measurements": 2,
                   "full profile (in bytes)": [1_500_000, 2_500_000]},
            "cd": {"mean mem. usage": "7e-6 MB", "max mem. usage": "7e-6 MB", "number of measurements": 1,
                   "full profile (in bytes)": [7]},
            "precision_errors": 2,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<MemoryStats>(json).unwrap(), stats);
    }

    #[test]
    fn an_empty_text_has_no_containers_and_any_other_file_is_refused() {
        assert_eq!(MemoryStats::of_sebs_text(&mut &b""[..]).unwrap(), MemoryStats::default());
        assert!(MemoryStats::of_sebs_text(&mut &b"{\"a\": 1}\nx\n"[..]).unwrap_err().is_usage());
    }
}
