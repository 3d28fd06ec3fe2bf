//! How well this machine keeps a schedule: a probe of two seconds, and how late its samples were.

use std::time::Duration;

use serde::Serialize;

use super::counters::own_memory;
use super::{Area, Finding};
use crate::cancel::Cancel;
use crate::clock::{self, Instant};
use crate::error::{Context, Result};
use crate::files::{self, Access, TempFolder};
use crate::host::CpuTime;
use crate::local::MeterOptions;
use crate::probe::{Lateness, Probe, ProbeOptions, Recording, Scheduling, Target};
use crate::units::show_duration;

/// How long is sampled, and how long at most where so many samples take longer.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(10);
const WANTED_SAMPLES: u32 = 100;

/// Upper ends of all buckets but the last, in ns.
const BUCKET_ENDS: [u64; 7] = [10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

/// What is warned of: 99 of 100 samples later than that part of the interval, more ticks missed than that, and more of a
/// processor taken or stolen than that.
const LATE_PART_OF_INTERVAL: u64 = 4;
const MISSED_PERCENT: f64 = 1.0;
const CPU_PERCENT: f64 = 10.0;
const STEAL_PERCENT: f64 = 1.0;

/// How a schedule was kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimerTest {
    /// The file that was read at each tick.
    pub counter: String,
    /// From one tick to the next.
    pub interval_ns: u64,
    /// How long was sampled.
    pub duration_ns: u64,
    /// Ticks that were planned.
    pub planned_ticks: u64,
    /// Ticks that passed without a sample, each an interval late or more.
    pub missed_ticks: u64,
    /// How late the samples were; absent where there are none.
    pub lateness_ns: Option<Lateness>,
    /// The same, counted.
    pub buckets: Vec<Bucket>,
    /// How much of a processor the sampling thread took.
    pub sampler_cpu_percent: Option<f64>,
    /// How much of all processors' time the hypervisor gave to others meanwhile.
    pub steal_percent: Option<f64>,
    /// How the kernel treated the sampling thread.
    pub scheduling: Scheduling,
    /// What was asked for and not granted, a sentence each.
    pub warnings: Vec<String>,
}

/// How many samples were so late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Later than that, or just so late.
    pub from_ns: u64,
    /// Less late than that; absent: no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_ns: Option<u64>,
    /// How many.
    pub samples: u64,
}

impl TimerTest {
    /// Samples the memory counter of this process's own control group, or where there is none a file.
    ///
    /// # Errors
    /// The interval is out of bounds, no thread or file can be had, or `cancel` was triggered.
    pub fn run(meter: &MeterOptions, cancel: &Cancel) -> Result<TimerTest> {
        let duration = (meter.interval * WANTED_SAMPLES).clamp(SHORTEST, LONGEST);
        let options =
            ProbeOptions { realtime: meter.realtime, cpu: meter.cpu, ..ProbeOptions::new(meter.interval) };
        // Lives as long as the probe, which holds a file in it open.
        let folder = TempFolder::create()?;
        let (counter, file) = match own_counter() {
            Ok(own) => own,
            Err(error) => {
                log::debug!("{error}: sampling a file instead");
                let path = folder.path().join("counter");
                files::write(&path, b"4096\n", Access::Owner)?;
                let file =
                    std::fs::File::open(&path).context(|| format!("failed to open `{}`", path.display()))?;
                ("a file".to_string(), file)
            }
        };
        let before = CpuTime::read();
        let probe = Probe::start(options)?;
        probe.add(Target { label: "doctor".to_string(), counter: file })?;
        clock::wait_until(Instant::now().after(duration), cancel)?;
        let recording = probe.stop()?;
        let after = CpuTime::read();
        let steal_percent = before.zip(after).and_then(|(before, after)| after.steal_percent_since(&before));
        TimerTest::of(&recording, counter, steal_percent)
    }

    fn of(recording: &Recording, counter: String, steal_percent: Option<f64>) -> Result<TimerTest> {
        let header = &recording.header;
        let mut latenesses = Vec::new();
        for target in &recording.targets {
            for sample in recording.samples(target.id)? {
                latenesses.push(sample?.lateness.as_nanos() as u64);
            }
        }
        let end = recording.end.as_ref();
        let duration_ns = end.map_or(0, |end| end.end_ns.saturating_sub(header.start_ns));
        let sampler_cpu_percent =
            end.filter(|_| duration_ns > 0).map(|end| end.sampler_cpu_ns as f64 * 100.0 / duration_ns as f64);
        Ok(TimerTest {
            counter,
            interval_ns: header.interval_ns,
            duration_ns,
            planned_ticks: recording.targets.iter().map(|target| target.planned()).sum(),
            missed_ticks: recording.targets.iter().map(|target| target.missed).sum(),
            lateness_ns: recording.targets.first().and_then(|target| target.lateness),
            buckets: buckets(&latenesses),
            sampler_cpu_percent,
            steal_percent,
            scheduling: header.scheduling.clone(),
            warnings: header.warnings.clone(),
        })
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let area = Area::Timer;
        let interval = show_duration(Duration::from_nanos(self.interval_ns));
        let mut findings = vec![self.lateness(&interval), self.missed()];
        let cpu = self.sampler_cpu_percent.unwrap_or(0.0);
        let value = format!("{cpu:.1} % of a CPU at {interval}");
        findings.push(if cpu <= CPU_PERCENT {
            Finding::ok(area, "sampling thread", value)
        } else {
            let advice =
                format!("sample less often: more than {CPU_PERCENT:.0} % is taken from what is measured");
            Finding::warn(area, "sampling thread", value, advice)
        });
        findings.push(self.scheduling());
        if let Some(steal) = self.steal_percent {
            let value = format!("{steal:.1} % of the time meanwhile");
            findings.push(if steal <= STEAL_PERCENT {
                Finding::ok(area, "stolen", value)
            } else {
                let advice = format!(
                    "use a machine, or a class of virtual machines, of your own: more than \
                     {STEAL_PERCENT:.0} % went to others"
                );
                Finding::warn(area, "stolen", value, advice)
            });
        }
        findings
    }

    fn lateness(&self, interval: &str) -> Finding {
        let show = |ns: u64| show_duration(Duration::from_nanos(ns));
        let Some(lateness) = self.lateness_ns else {
            let advice = "ask for a shorter interval: no tick was met in the time of the test";
            return Finding::warn(Area::Timer, "lateness", "no sample was taken", advice);
        };
        let most = self.interval_ns / LATE_PART_OF_INTERVAL;
        let value = format!(
            "p50 {}, p99 {}, max {} at {interval} (warned of: p99 above {})",
            show(lateness.p50_ns),
            show(lateness.p99_ns),
            show(lateness.max_ns),
            show(most)
        );
        if lateness.p99_ns <= most {
            return Finding::ok(Area::Timer, "lateness", value);
        }
        let advice = "sample less often, stop what else runs, or try --realtime and --cpu: each sample \
                      keeps its own time";
        Finding::warn(Area::Timer, "lateness", value, advice)
    }

    fn missed(&self) -> Finding {
        let percent = self.missed_ticks as f64 * 100.0 / self.planned_ticks.max(1) as f64;
        let taken = self.planned_ticks - self.missed_ticks;
        let value = format!(
            "{taken} taken of {} planned, {percent:.2} % missed (warned of: above {MISSED_PERCENT:.0} %)",
            self.planned_ticks
        );
        if percent <= MISSED_PERCENT {
            return Finding::ok(Area::Timer, "ticks", value);
        }
        let advice = "sample less often, stop what else runs, or try --realtime and --cpu: what is \
                      missed is counted, not made up";
        Finding::warn(Area::Timer, "ticks", value, advice)
    }

    fn scheduling(&self) -> Finding {
        let scheduling = &self.scheduling;
        let policy = scheduling.policy.as_deref().unwrap_or("policy not known");
        let slack =
            scheduling.timer_slack_ns.map_or(String::new(), |slack| format!(", timer slack {slack} ns"));
        let locked = if scheduling.memory_locked { ", memory locked" } else { "" };
        let cpus: Vec<String> = scheduling.cpus.iter().map(usize::to_string).collect();
        let rank = match scheduling.priority {
            0 => format!("nice {}", scheduling.nice),
            priority => format!("priority {priority}"),
        };
        let value = format!("{policy}, {rank}{slack}{locked}, on CPU {}", cpus.join(","));
        match self.warnings.is_empty() {
            true => Finding::ok(Area::Timer, "scheduling", value),
            false => Finding::warn(Area::Timer, "scheduling", value, self.warnings.join("; ")),
        }
    }
}

fn own_counter() -> Result<(String, std::fs::File)> {
    let memory = own_memory()?;
    let place = memory.location().memory.display().to_string();
    Ok((format!("{place}/{}", memory.current_name()), memory.current_file()?))
}

fn buckets(latenesses: &[u64]) -> Vec<Bucket> {
    let ends = BUCKET_ENDS.into_iter().map(Some).chain([None]);
    let begins = [0].into_iter().chain(BUCKET_ENDS);
    let count = |from: u64, below: Option<u64>| {
        latenesses.iter().filter(|late| **late >= from && below.is_none_or(|below| **late < below)).count()
    };
    begins
        .zip(ends)
        .map(|(from_ns, below_ns)| Bucket { from_ns, below_ns, samples: count(from_ns, below_ns) as u64 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn test() -> TimerTest {
        TimerTest {
            counter: "a file".to_string(),
            interval_ns: 1_000_000,
            duration_ns: 2_000_000_000,
            planned_ticks: 2_000,
            missed_ticks: 20,
            lateness_ns: Some(Lateness { p50_ns: 40_000, p99_ns: 250_000, max_ns: 990_000 }),
            buckets: buckets(&[]),
            sampler_cpu_percent: Some(2.5),
            steal_percent: Some(0.0),
            scheduling: Scheduling {
                policy: Some("SCHED_FIFO".into()),
                priority: 10,
                cpus: vec![0, 1],
                ..Scheduling::default()
            },
            warnings: Vec::new(),
        }
    }

    fn warned(test: &TimerTest) -> Vec<&'static str> {
        let findings = test.findings();
        findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Warn)
            .map(|finding| finding.name)
            .collect()
    }

    #[test]
    fn a_schedule_that_is_kept_is_fine_up_to_the_thresholds_that_are_told() {
        assert_eq!(warned(&test()), [""; 0]);
        let findings = test().findings();
        assert!(findings[0].value.ends_with("(warned of: p99 above 250.0 µs)"), "{}", findings[0].value);
        assert_eq!(findings[1].value, "1980 taken of 2000 planned, 1.00 % missed (warned of: above 1 %)");
        assert_eq!(findings[3].value, "SCHED_FIFO, priority 10, on CPU 0,1");
    }

    #[test]
    fn beyond_each_threshold_there_is_a_warning() {
        let bad = TimerTest {
            missed_ticks: 21,
            lateness_ns: Some(Lateness { p50_ns: 1, p99_ns: 250_001, max_ns: 300_000 }),
            sampler_cpu_percent: Some(10.1),
            steal_percent: Some(1.1),
            warnings: vec!["memory cannot be locked".to_string()],
            ..test()
        };
        assert_eq!(warned(&bad), ["lateness", "ticks", "sampling thread", "scheduling", "stolen"]);
        assert_eq!(warned(&TimerTest { lateness_ns: None, ..test() }), ["lateness"]);
    }

    #[test]
    fn each_sample_is_in_one_bucket() {
        let counts: Vec<u64> = buckets(&[0, 9_999, 10_000, 60_000, 999_999, 1_000_000, u64::MAX])
            .iter()
            .map(|bucket| bucket.samples)
            .collect();
        assert_eq!(counts, [2, 1, 0, 1, 0, 0, 1, 2]);
    }

    #[test]
    fn a_probe_of_this_machine_is_told() {
        let probe = Probe::start(ProbeOptions::new(Duration::from_millis(1))).unwrap();
        let recording = probe.stop().unwrap();
        let empty = TimerTest::of(&recording, "a file".to_string(), None).unwrap();
        assert_eq!((empty.planned_ticks, empty.lateness_ns), (0, None));
    }
}
