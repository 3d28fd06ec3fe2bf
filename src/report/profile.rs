//! What a recording says, gathered for JSON and for a table: the schedule, each target, each invocation.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::table::{Align, Quantity, UNKNOWN, aligned, columns, spread};
use crate::docker::short_id;
use crate::error::Result;
use crate::probe::{About, End, Ending, Header, Lateness, Recording, TargetId, Window};
use crate::units::{Bytes, show_duration};

/// With more invocations than this the table says only what they have in common.
const MOST_ROWS: usize = 50;

/// What a recording says; as JSON, keys are in the order of these fields, and what is absent has no key.
///
/// A key that ends in `_time_ns` is in ns since the recording's start, which the header tells in both clocks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileReport {
    /// Version of this shape.
    pub schema_version: u32,
    /// What was known when the recording began.
    pub header: Header,
    /// From its start to its end; where it was cut, to the last tick that it knows of.
    pub duration_ns: u64,
    /// Does its end lack, since it was cut, as by SIGKILL, or is still being written?
    pub cut: bool,
    /// What was known at its end; absent if it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// CPU time of the sampling thread, in percent of the duration; absent if the recording was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler_cpu_percent: Option<f64>,
    /// CPU time of the writer, in percent of the duration; absent if the recording was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer_cpu_percent: Option<f64>,
    /// What went wrong while it was recorded, a sentence each; known only to who recorded it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Each target, in the order in which they joined.
    pub targets: Vec<TargetReport>,
    /// Each invocation, in the order in which they began.
    pub invocations: Vec<InvocationReport>,
}

/// One target of a recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetReport {
    /// Its number, counted from 0.
    pub target: TargetId,
    /// Its label, such as a container's id.
    pub label: String,
    /// The name that people know it by; absent where nobody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was read, such as `cgroup v2 memory.current`; absent where nobody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The first tick planned for it.
    pub first_tick: u64,
    /// The first tick after it that was not.
    pub end_tick: u64,
    /// How many ticks were planned: those taken and those missed.
    pub planned_ticks: u64,
    /// Ticks at which it was sampled.
    pub taken_ticks: u64,
    /// Ticks that passed unsampled.
    pub missed_ticks: u64,
    /// Of those taken, how many samples are not in the recording.
    pub lost_samples: u64,
    /// How late its samples were; absent without one, as all that follows up to the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lateness_ns: Option<Lateness>,
    /// The largest sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// When the first sample as large as that was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_time_ns: Option<u64>,
    /// Arithmetic mean of the samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_bytes: Option<f64>,
    /// The largest peak that the kernel itself counted since the target began to exist, be it before it was sampled; absent
    /// where it was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_peak_bytes: Option<u64>,
    /// Had the kernel counted that peak already when sampling began?
    pub kernel_peak_is_older: bool,
    /// Why its series ended; absent where the recording was cut before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

impl TargetReport {
    /// The kernel's peak, unless it is one that was reached before sampling began and never again.
    pub(super) fn kernel_peak_meanwhile(&self) -> Option<u64> {
        self.kernel_peak_bytes.filter(|peak| !self.kernel_peak_is_older || Some(*peak) <= self.peak_bytes)
    }

    /// The kernel's peak, as a part of a sentence on the target's samples.
    pub(super) fn told_kernel_peak(&self) -> Option<String> {
        let when = if self.kernel_peak_meanwhile().is_none() { " before it was sampled" } else { "" };
        self.kernel_peak_bytes.map(|peak| format!("by the kernel {}{when}", Bytes(peak)))
    }

    /// What people know it by, on one line: its name and its label, an id of 64 digits as its first 12.
    pub(super) fn shown_name(&self) -> String {
        let label = short_id(&self.label).unwrap_or(&self.label);
        match &self.name {
            Some(name) if name != label => one_line(&format!("{name} ({label})")),
            _ => one_line(label),
        }
    }
}

/// One invocation that ran while a target was sampled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InvocationReport {
    /// On which target.
    pub target: TargetId,
    /// The function server's id of the request; empty where none came.
    pub request_id: String,
    /// Was it the first that its instance served?
    pub is_cold: bool,
    /// Did it fail?
    pub is_failed: bool,
    /// When it began.
    pub begin_time_ns: u64,
    /// When it ended.
    pub end_time_ns: u64,
    /// The kernel's own peak of this invocation alone; absent where the kernel did not count it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_peak_bytes: Option<u64>,
    /// How many samples were taken of its target meanwhile.
    pub samples: u64,
    /// The largest of them; absent without one, as all that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// When the first sample as large as that was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_time_ns: Option<u64>,
    /// Arithmetic mean of those samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_bytes: Option<f64>,
}

impl InvocationReport {
    /// `cold`, `warm` or `failed`.
    pub(super) fn start(&self) -> &'static str {
        match (self.is_failed, self.is_cold) {
            (true, _) => "failed",
            (false, true) => "cold",
            (false, false) => "warm",
        }
    }
}

impl ProfileReport {
    /// Gathers what a recording says, in two more passes over it at most.
    ///
    /// # Errors
    /// The recording cannot be read.
    pub fn new(recording: &Recording) -> Result<ProfileReport> {
        let mut report = ProfileReport::of_summaries(recording);
        let header = &recording.header;
        let since_start = |ns: u64| ns.saturating_sub(header.start_ns);
        let mut windows: BTreeMap<TargetId, Vec<Window>> = BTreeMap::new();
        let mut invocations = Vec::new();
        for note in recording.notes()? {
            let About::Invocation { request_id, begin_ns, end_ns, is_cold, is_failed, kernel_peak_bytes } =
                note.about
            else {
                continue;
            };
            if report.targets.get(note.target.index()).is_none() {
                continue;
            }
            windows.entry(note.target).or_default().push(Window { begin_ns, end_ns });
            invocations.push(InvocationReport {
                target: note.target,
                request_id,
                is_cold,
                is_failed,
                begin_time_ns: since_start(begin_ns),
                end_time_ns: since_start(end_ns),
                kernel_peak_bytes,
                samples: 0,
                peak_bytes: None,
                peak_time_ns: None,
                mean_bytes: None,
            });
        }
        if !windows.is_empty() {
            let profiles = recording.profiles_by_target(&windows)?;
            // Those of one target come in the order of its notes.
            let mut profiles: BTreeMap<_, _> =
                profiles.into_iter().map(|(target, profiles)| (target, profiles.into_iter())).collect();
            for invocation in &mut invocations {
                let profile = profiles.get_mut(&invocation.target).and_then(Iterator::next).flatten();
                let Some(profile) = profile else { continue };
                invocation.samples = profile.samples;
                invocation.peak_bytes = Some(profile.peak.0);
                invocation.peak_time_ns = Some(since_start(profile.peak_at.0));
                invocation.mean_bytes = Some(profile.mean_bytes);
            }
        }
        invocations.sort_by_key(|invocation| invocation.begin_time_ns);
        report.invocations = invocations;
        Ok(report)
    }

    /// What is known of a recording without reading it: all but its invocations. For one whose samples were not kept, too.
    pub fn of_summaries(recording: &Recording) -> ProfileReport {
        let header = &recording.header;
        let since_start = |ns: u64| ns.saturating_sub(header.start_ns);
        let targets: Vec<TargetReport> = recording
            .targets
            .iter()
            .map(|summary| TargetReport {
                target: summary.id,
                label: summary.label.clone(),
                name: summary.name.clone(),
                source: summary.source.clone(),
                first_tick: summary.first_tick,
                end_tick: summary.end_tick,
                planned_ticks: summary.planned(),
                taken_ticks: summary.taken,
                missed_ticks: summary.missed,
                lost_samples: summary.lost,
                lateness_ns: summary.lateness,
                peak_bytes: summary.profile.map(|profile| profile.peak.0),
                peak_time_ns: summary.profile.map(|profile| since_start(profile.peak_at.0)),
                mean_bytes: summary.profile.map(|profile| profile.mean_bytes),
                kernel_peak_bytes: summary.kernel_peak.map(|peak| peak.0),
                kernel_peak_is_older: summary.kernel_peak_is_older,
                ending: summary.ending,
            })
            .collect();
        let last_tick = targets.iter().map(|target| target.end_tick).max().unwrap_or(0);
        let known_until = header.due(last_tick).0;
        let duration_ns = since_start(recording.end.map_or(known_until, |end| end.end_ns));
        let percent = |cpu_ns: u64| (duration_ns > 0).then(|| cpu_ns as f64 / duration_ns as f64 * 100.0);
        ProfileReport {
            schema_version: 1,
            header: header.clone(),
            duration_ns,
            cut: recording.end.is_none(),
            end: recording.end,
            sampler_cpu_percent: recording.end.and_then(|end| percent(end.sampler_cpu_ns)),
            writer_cpu_percent: recording.end.and_then(|end| percent(end.writer_cpu_ns)),
            warnings: recording.warnings.clone(),
            targets,
            invocations: Vec::new(),
        }
    }

    /// The report for people: how it was recorded, a row a target, and a row an invocation with median and range of cold
    /// and warm ones, or, with more than 50, only these.
    pub fn table(&self) -> String {
        let mut text = columns(&self.head());
        text.push('\n');
        if self.targets.is_empty() {
            text.push_str("nothing was sampled\n");
        } else {
            text.push_str(&self.target_table());
        }
        if !self.invocations.is_empty() {
            text.push('\n');
            text.push_str(&self.invocation_table());
        }
        text
    }

    fn head(&self) -> Vec<Vec<String>> {
        let header = &self.header;
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push(vec![name.to_string(), one_line(&value)]);
        row(
            "recorded",
            format!("{}, {} long, by {}", header.start_time, ns(self.duration_ns), header.program),
        );
        row("interval", format!("{} by {}", ns(header.interval_ns), header.clock));
        row("scheduling", show_scheduling(header));
        if let Some(bytes) = header.charge_batch_bytes {
            row(
                "uncertainty",
                format!(
                    "a reading is up to {} above what is used: the kernel charges memory in advance",
                    Bytes(bytes)
                ),
            );
        }
        if let (Some(sampler), Some(writer)) = (self.sampler_cpu_percent, self.writer_cpu_percent) {
            row("CPU used", format!("sampler {sampler:.2} %, writer {writer:.2} % of the time"));
        }
        if let Some(source) = self.common_source() {
            row("source", source.to_string());
        }
        if self.cut {
            row("cut", "the end is missing: the recorder was killed, or still runs".to_string());
        }
        for warning in header.warnings.iter().chain(&self.warnings) {
            row("warning", warning.clone());
        }
        rows
    }

    /// What was read of every target, where that is the same.
    fn common_source(&self) -> Option<&str> {
        let source = self.targets.first()?.source.as_deref()?;
        self.targets.iter().all(|target| target.source.as_deref() == Some(source)).then_some(source)
    }

    fn target_table(&self) -> String {
        let shows_source =
            self.common_source().is_none() && self.targets.iter().any(|target| target.source.is_some());
        let shows_kernel_peak = self.targets.iter().any(|target| target.kernel_peak_bytes.is_some());
        let mut head = vec!["#", "target", "planned", "taken", "missed", "lost"];
        head.extend(["late p50", "p99", "max", "mean", "peak", "peak at"]);
        head.extend(shows_kernel_peak.then_some("kernel peak"));
        let numbers = head.len() - 2;
        head.push("ended");
        head.extend(shows_source.then_some("source"));
        let mut rows = vec![head.into_iter().map(str::to_string).collect()];
        for target in &self.targets {
            let mut row = vec![target.target.index().to_string(), target.shown_name()];
            let counts = [target.planned_ticks, target.taken_ticks, target.missed_ticks, target.lost_samples];
            row.extend(counts.map(|count| count.to_string()));
            let late = |which: fn(Lateness) -> u64| or_unknown(target.lateness_ns.map(which), ns);
            row.extend([late(|late| late.p50_ns), late(|late| late.p99_ns), late(|late| late.max_ns)]);
            row.push(or_unknown(target.mean_bytes, bytes));
            row.push(or_unknown(target.peak_bytes, |peak| Bytes(peak).to_string()));
            row.push(or_unknown(target.peak_time_ns, ns));
            if shows_kernel_peak {
                row.push(or_unknown(target.kernel_peak_bytes, |peak| Bytes(peak).to_string()));
            }
            row.push(target.ending.map_or("cut".to_string(), |ending| ending.to_string()));
            if shows_source {
                row.push(target.source.as_deref().map_or(UNKNOWN.to_string(), one_line));
            }
            rows.push(row);
        }
        let mut alignment = vec![Align::Right, Align::Left];
        alignment.extend(vec![Align::Right; numbers]);
        aligned(&rows, &alignment)
    }

    fn invocation_table(&self) -> String {
        let shows_target = self.targets.len() > 1;
        // A quantity that no invocation has is left out.
        let shown: Vec<InvocationQuantity> = QUANTITIES
            .into_iter()
            .filter(|quantity| {
                self.invocations.iter().any(|invocation| (quantity.value)(invocation).is_some())
            })
            .collect();
        let mut head = vec!["#", "invocation"];
        head.extend(shown.iter().map(|quantity| quantity.name));
        head.push("began");
        head.extend(shows_target.then_some("target"));
        let columns = head.len();
        let mut rows = vec![head.into_iter().map(str::to_string).collect()];
        let has_rows = self.invocations.len() <= MOST_ROWS;
        for (number, invocation) in self.invocations.iter().enumerate().filter(|_| has_rows) {
            let mut row = vec![(number + 1).to_string(), invocation.start().to_string()];
            row.extend(shown.iter().map(|quantity| or_unknown((quantity.value)(invocation), quantity.show)));
            row.push(ns(invocation.begin_time_ns));
            if shows_target {
                row.push(invocation.target.index().to_string());
            }
            rows.push(row);
        }
        let mut counts = Vec::new();
        for start in ["cold", "warm", "failed"] {
            let group: Vec<&InvocationReport> =
                self.invocations.iter().filter(|invocation| invocation.start() == start).collect();
            if group.is_empty() {
                continue;
            }
            counts.push(format!("{} {start}", group.len()));
            if start != "failed" && (group.len() > 1 || !has_rows) {
                let quantities: Vec<Quantity> = shown
                    .iter()
                    .map(|quantity| {
                        let values = group.iter().filter_map(|invocation| (quantity.value)(invocation));
                        (quantity.show, values.collect())
                    })
                    .collect();
                rows.extend((rows.len() > 1).then(|| vec![String::new()]));
                rows.extend(spread(start, &quantities));
            }
        }
        let mut alignment = vec![Align::Right, Align::Left];
        alignment.extend(vec![Align::Right; columns - 2]);
        let table = aligned(&rows, &alignment);
        if has_rows {
            return table;
        }
        let counts = counts.join(", ");
        format!("{table}\n{} invocations: {counts}; `--json` tells each\n", self.invocations.len())
    }
}

/// One measured quantity of an invocation.
struct InvocationQuantity {
    name: &'static str,
    value: fn(&InvocationReport) -> Option<f64>,
    show: fn(f64) -> String,
}

/// In the order of the table's columns.
const QUANTITIES: [InvocationQuantity; 5] = [
    InvocationQuantity {
        name: "duration",
        value: |invocation| Some(invocation.end_time_ns.saturating_sub(invocation.begin_time_ns) as f64),
        show: |value| ns(value as u64),
    },
    InvocationQuantity {
        name: "samples",
        value: |invocation| Some(invocation.samples as f64),
        show: |samples| format!("{samples}"),
    },
    InvocationQuantity {
        name: "peak",
        value: |invocation| invocation.peak_bytes.map(|peak| peak as f64),
        show: bytes,
    },
    InvocationQuantity {
        name: "kernel peak",
        value: |invocation| invocation.kernel_peak_bytes.map(|peak| peak as f64),
        show: bytes,
    },
    InvocationQuantity { name: "mean", value: |invocation| invocation.mean_bytes, show: bytes },
];

fn or_unknown<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or(UNKNOWN.to_string(), show)
}

fn ns(ns: u64) -> String {
    show_duration(Duration::from_nanos(ns))
}

fn bytes(bytes: f64) -> String {
    Bytes(bytes as u64).to_string()
}

fn show_scheduling(header: &Header) -> String {
    let scheduling = &header.scheduling;
    let policy = scheduling.policy.as_deref().unwrap_or("policy unknown");
    let mut text = match scheduling.priority {
        0 => format!("{policy}, nice {}", scheduling.nice),
        priority => format!("{policy}, priority {priority}"),
    };
    if let Some(slack_ns) = scheduling.timer_slack_ns {
        text.push_str(&format!(", timer slack {slack_ns} ns"));
    }
    if !scheduling.cpus.is_empty() {
        text.push_str(&format!(", CPU {}", cpu_list(&scheduling.cpus)));
    }
    text.push_str(if scheduling.memory_locked { ", memory locked" } else { ", memory not locked" });
    text
}

/// Ascending numbers as the kernel writes lists of CPUs: `0-3,8`.
pub fn cpu_list(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let shown: Vec<String> = ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    shown.join(",")
}

/// A text without control characters, which could end a line or command a terminal: they are shown as `\n` or `\u{1b}`.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests;
