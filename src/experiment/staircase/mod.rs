//! Compares the memory that was sampled of `051.memory-staircase` with what it tells that it held, and when.

mod climb;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::error::{Error, Kind, Result};
use crate::faas::Language;
use crate::probe::{Recording, TargetId};
use crate::stats;
use crate::units::Bytes;

pub use climb::{Climb, Climbed, LONGEST_INTERVAL};

/// Name of the bundled benchmark whose output is the ground truth.
pub const BENCHMARK: &str = "051.memory-staircase";

/// A page table maps so many bytes for each of its own.
const BYTES_PER_TABLE_BYTE: u64 = 512;

/// Why nothing is told of any step.
const NO_BASE: &str = "no sample was taken between the climb before and the first step: there is no base";

/// One step, by the function's own readings of `CLOCK_MONOTONIC`, which is the clock of the samples too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it held.
    pub bytes: Bytes,
    /// Before the first page was touched.
    pub allocation_began: Instant,
    /// After the last page was touched: from here on all is resident.
    pub begin: Instant,
    /// Until here all is resident.
    pub end: Instant,
    /// By then all was given back; `None`: not told.
    pub released: Option<Instant>,
}

/// What was held, and since when nothing else was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staircase {
    /// From here until the first step all that was held before, by an earlier climb for one, is given back.
    pub free_since: Instant,
    /// The steps, in the order of time.
    pub steps: Vec<Step>,
}

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The tick that it was taken for.
    pub tick: u64,
    /// When reading began.
    pub at: Instant,
    /// When reading had ended at the latest: when the next tick was due.
    pub until: Instant,
    /// What the counter said.
    pub bytes: Bytes,
}

/// How far a measured profile may be from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// From one planned sample to the next.
    pub interval: Duration,
    /// What the kernel charges in advance, as of [`charge_batch_bytes`](crate::cgroup::charge_batch_bytes). A reading
    /// is up to that much above what is used; so a difference of two readings is off by that much either way.
    pub charge_batch: Bytes,
    /// By how much the interpreter's own memory may grow or shrink meanwhile, as of [`interpreter_allowance`].
    pub interpreter: Bytes,
}

/// By how much an interpreter's own memory changes while it climbs, once it has climbed the same steps before.
///
/// Measured at 1 ms on two CPUs, where the kernel charges up to 512 KiB in advance: in 80 runs of Python 3.11, nearly half of
/// them beside four processes that took all CPU, every sample lay between 380 KiB below and 512 KiB above what was
/// planned; that charge explains it all, so nothing is allowed. In 40 runs of Node.js 20, V8 gave back up to 1.4 MiB of
/// its own heap in its collections between the steps: 2 MiB are allowed.
pub fn interpreter_allowance(language: Language) -> Bytes {
    match language {
        Language::Python => Bytes(0),
        Language::Nodejs => Bytes(2 << 20),
    }
}

impl Tolerance {
    /// How far below and above the step's bytes a reading less the base may be. Above, the page tables of the step
    /// come to it: they are charged to the container too.
    fn bounds(&self, step: &Step) -> (u64, u64) {
        let either_way = self.charge_batch.0 + self.interpreter.0;
        (either_way, either_way + step.bytes.0.div_ceil(BYTES_PER_TABLE_BYTE))
    }
}

/// Does what was measured agree with the truth?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// It lies within the bound.
    Within,
    /// The samples cannot tell.
    NotTold,
    /// It does not.
    Outside,
}

/// A staircase, measured and true.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// All steps together: outside if any is, else not told if any is not, or if there is none.
    pub agreement: Agreement,
    /// What was used just before the first step; absent where no sample was taken between
    /// [`Staircase::free_since`] and it, so that there is nothing to compare with.
    pub base_bytes: Option<u64>,
    /// Each step.
    pub steps: Vec<StepVerdict>,
}

impl Comparison {
    /// Is every step within its bounds?
    pub fn agrees(&self) -> bool {
        self.agreement == Agreement::Within
    }

    fn of(base_bytes: Option<u64>, steps: Vec<StepVerdict>) -> Comparison {
        let agreement = steps.iter().map(|step| step.agreement).max().unwrap_or(Agreement::NotTold);
        Comparison { agreement, base_bytes, steps }
    }
}

/// One step, measured and true.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepVerdict {
    /// What the function held.
    pub planned_bytes: u64,
    /// What was measured meanwhile; absent where no sample was taken.
    pub held: Option<Held>,
    /// So much less than planned may be measured, at each sample.
    pub bound_below_bytes: u64,
    /// So much more than planned may be measured, at each sample.
    pub bound_above_bytes: u64,
    /// Is every sample within these bounds?
    pub level: Agreement,
    /// When the samples show the step's beginning. An error is counted from when the last page had been touched:
    /// negative, the pages touched so far were within the bound of all.
    pub start: Edge,
    /// When they show its end. An error is counted from when the function began to give the pages back.
    pub end: Edge,
    /// All of it: outside if any part is, not told if the level is not.
    pub agreement: Agreement,
    /// What limits the verdict, a sentence each.
    pub remarks: Vec<String>,
}

/// What was measured while a step was held, less the base.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Held {
    /// How many samples.
    pub samples: u64,
    /// Their median.
    pub median_bytes: f64,
    /// The lowest.
    pub min_bytes: i64,
    /// The highest.
    pub max_bytes: i64,
    /// Median less planned.
    pub difference_bytes: f64,
}

/// A beginning or an end, as the samples show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// From the event to the first sample that shows it; absent where none does.
    pub error_ns: Option<i64>,
    /// How late it may show: one interval and the lateness of the tick, or, where ticks were missed around it, the time
    /// between the two samples that were taken; for an end, also what giving back took. Absent where it is not known.
    pub bound_ns: Option<u64>,
    /// Ticks that were missed between the sample before and the sample after.
    pub missed_ticks: u64,
    /// Does it show in time?
    pub agreement: Agreement,
}

/// Reads the steps from what the handler returned.
///
/// # Errors
/// It is not what `051.memory-staircase` returns.
pub fn steps_of(output: &str) -> Result<Vec<Step>> {
    #[derive(Deserialize)]
    struct Output {
        result: Climbed,
    }
    #[derive(Deserialize)]
    struct Climbed {
        steps: Vec<Told>,
    }
    #[derive(Deserialize)]
    struct Told {
        bytes: u64,
        allocation_us: f64,
        begin_monotonic_ns: u64,
        end_monotonic_ns: u64,
        release_us: Option<f64>,
    }
    let output: Output = serde_json::from_str(output).map_err(|error| {
        Error::from_source(Kind::Other, format!("the output is not what `{BENCHMARK}` returns"), error)
    })?;
    let nanoseconds = |microseconds: f64| (microseconds * 1e3).round() as u64;
    let step = |told: Told| Step {
        bytes: Bytes(told.bytes),
        allocation_began: Instant(told.begin_monotonic_ns.saturating_sub(nanoseconds(told.allocation_us))),
        begin: Instant(told.begin_monotonic_ns),
        end: Instant(told.end_monotonic_ns),
        released: told.release_us.map(|us| Instant(told.end_monotonic_ns + nanoseconds(us))),
    };
    Ok(output.result.steps.into_iter().map(step).collect())
}

/// The samples of one target, in the order of time.
///
/// # Errors
/// The recording cannot be read.
pub fn readings(recording: &Recording, target: TargetId) -> Result<Vec<Reading>> {
    let header = &recording.header;
    let reading = |sample: crate::probe::Sample| Reading {
        tick: sample.tick,
        at: header.instant(&sample),
        until: header.due(sample.tick + 1),
        bytes: sample.bytes,
    };
    recording.samples(target)?.map(|sample| sample.map(reading)).collect()
}

/// Compares what was sampled, in the order of time, with what was held.
///
/// The base is the last reading that lies wholly between [`Staircase::free_since`] and the first allocation. Each reading
/// that lies wholly within a step must be its bytes above the base, within the bounds of [`Tolerance`]. The first reading
/// after a step's beginning must show it, and none that ended before its allocation began may; the first reading after
/// its bytes were given back must show that, unless the next step's may have come by then. No more is claimed than the
/// samples can tell: where ticks were missed the bounds in time are as wide as the gap, and what has no sample of its own
/// is not told.
pub fn compare(staircase: &Staircase, readings: &[Reading], tolerance: &Tolerance) -> Comparison {
    let steps = &staircase.steps;
    let Some(base) = base(staircase, readings) else {
        let untold = |step| StepComparison { tolerance, step, next: None, base: 0 }.untold();
        return Comparison::of(None, steps.iter().map(untold).collect());
    };
    let mut free_since = base.at;
    let mut verdicts = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let next = steps.get(number + 1);
        let comparison = StepComparison { tolerance, step, next, base: base.bytes.0 };
        verdicts.push(comparison.verdict(readings, free_since));
        free_since = comparison.released().unwrap_or(step.end);
    }
    Comparison::of(Some(base.bytes.0), verdicts)
}

/// The last reading while nothing was held.
fn base<'r>(staircase: &Staircase, readings: &'r [Reading]) -> Option<&'r Reading> {
    let until = staircase.steps.first()?.allocation_began;
    let is_free = |reading: &&Reading| reading.at >= staircase.free_since && reading.until <= until;
    readings.iter().rfind(is_free)
}

struct StepComparison<'a> {
    tolerance: &'a Tolerance,
    step: &'a Step,
    next: Option<&'a Step>,
    base: u64,
}

impl StepComparison<'_> {
    fn untold(&self) -> StepVerdict {
        let (below, above) = self.tolerance.bounds(self.step);
        let edge = Edge { error_ns: None, bound_ns: None, missed_ticks: 0, agreement: Agreement::NotTold };
        StepVerdict {
            planned_bytes: self.step.bytes.0,
            held: None,
            bound_below_bytes: below,
            bound_above_bytes: above,
            level: Agreement::NotTold,
            start: edge,
            end: edge,
            agreement: Agreement::NotTold,
            remarks: vec![NO_BASE.to_string()],
        }
    }

    /// `free_since`: when the step before had been given back, so that only this one can raise the level.
    fn verdict(&self, readings: &[Reading], free_since: Instant) -> StepVerdict {
        let mut verdict = StepVerdict { remarks: Vec::new(), ..self.untold() };
        let levels: Vec<i64> = self.held(readings).map(|reading| self.level(reading)).collect();
        let planned = self.step.bytes.0 as i64;
        if let (Some(min), Some(max)) = (levels.iter().min(), levels.iter().max()) {
            let median = stats::median(&levels.iter().map(|level| *level as f64).collect::<Vec<f64>>());
            let median_bytes = median.expect("there is a lowest, so there are some");
            verdict.held = Some(Held {
                samples: levels.len() as u64,
                median_bytes,
                min_bytes: *min,
                max_bytes: *max,
                difference_bytes: median_bytes - planned as f64,
            });
            let allowed =
                planned - verdict.bound_below_bytes as i64..=planned + verdict.bound_above_bytes as i64;
            let is_within = allowed.contains(min) && allowed.contains(max);
            verdict.level = if is_within { Agreement::Within } else { Agreement::Outside };
        } else {
            verdict.remarks.push("no sample was taken while it was held".to_string());
        }
        if self.threshold().is_none() {
            verdict.remarks.push(
                "the kernel charges more in advance than the step holds: its start and end cannot be told"
                    .to_string(),
            );
        } else {
            verdict.start = self.start(readings, free_since);
            verdict.end = self.end(readings);
            self.remark_on_edges(&mut verdict);
        }
        let edges = [verdict.start, verdict.end].into_iter().map(|edge| edge.agreement);
        let is_outside = edges.chain([verdict.level]).any(|part| part == Agreement::Outside);
        verdict.agreement = if is_outside { Agreement::Outside } else { verdict.level };
        verdict
    }

    fn remark_on_edges(&self, verdict: &mut StepVerdict) {
        for (edge, name) in [(verdict.start, "start"), (verdict.end, "end")] {
            if edge.missed_ticks > 0 {
                let text = format!(
                    "{} ticks were missed around its {name}, which is told only as well as the samples around them",
                    edge.missed_ticks
                );
                verdict.remarks.push(text);
            }
        }
        if verdict.end.agreement == Agreement::NotTold {
            let reason = match self.next {
                Some(_) => "the next step had begun when the next sample was taken",
                None => "no sample was taken after it",
            };
            verdict.remarks.push(format!("its end does not show: {reason}"));
        }
    }

    fn level(&self, reading: &Reading) -> i64 {
        reading.bytes.0 as i64 - self.base as i64
    }

    /// Readings that began and ended while the step was held.
    fn held<'r>(&self, readings: &'r [Reading]) -> impl Iterator<Item = &'r Reading> {
        let (begin, end) = (self.step.begin, self.step.end);
        readings.iter().filter(move |reading| reading.at >= begin && reading.until <= end)
    }

    /// The lowest level at which the whole step may be there; `None`: the bound is as large as the step.
    fn threshold(&self) -> Option<i64> {
        let (below, _) = self.tolerance.bounds(self.step);
        self.step.bytes.0.checked_sub(below).filter(|least| *least > 0).map(|least| least as i64)
    }

    fn reached(&self, reading: &Reading) -> bool {
        self.threshold().is_some_and(|threshold| self.level(reading) >= threshold)
    }

    /// By when the step had been given back, as far as it is told.
    fn released(&self) -> Option<Instant> {
        self.step.released.or(self.next.map(|next| next.allocation_began))
    }

    fn start(&self, readings: &[Reading], free_since: Instant) -> Edge {
        let begin = self.step.begin;
        let Some(after) = self.held(readings).next() else {
            return Edge { error_ns: None, bound_ns: None, missed_ticks: 0, agreement: Agreement::NotTold };
        };
        let before = readings.iter().take_while(|reading| reading.at < begin).last();
        let (missed_ticks, gap) = self.gap(before, after);
        let shown = readings
            .iter()
            .skip_while(|reading| reading.at < free_since)
            .take_while(|reading| reading.at <= self.step.end)
            .find(|reading| self.reached(reading));
        let is_in_time =
            shown.is_some_and(|shown| shown.at <= after.at && shown.until > self.step.allocation_began);
        Edge {
            error_ns: shown.map(|shown| shown.at.0 as i64 - begin.0 as i64),
            bound_ns: Some(gap),
            missed_ticks,
            agreement: if is_in_time { Agreement::Within } else { Agreement::Outside },
        }
    }

    fn end(&self, readings: &[Reading]) -> Edge {
        let end = self.step.end;
        // What is read while the next step is held tells of that one.
        let is_own = |reading: &&Reading| self.next.is_none_or(|next| reading.at < next.begin);
        let shown = readings
            .iter()
            .skip_while(|reading| reading.until <= end)
            .take_while(is_own)
            .find(|reading| !self.reached(reading));
        let error_ns = shown.map(|shown| shown.at.0 as i64 - end.0 as i64);
        let untold = Edge { error_ns, bound_ns: None, missed_ticks: 0, agreement: Agreement::NotTold };
        let Some(released) = self.released() else { return untold };
        let after = readings.iter().find(|reading| reading.at >= released).filter(is_own);
        let Some(after) = after else { return untold };
        let before = readings.iter().take_while(|reading| reading.at < released).last();
        let (missed_ticks, gap) = self.gap(before, after);
        let agreement = match shown {
            Some(shown) if shown.at <= after.at => Agreement::Within,
            None if self.may_be_hidden(after) => Agreement::NotTold,
            _ => Agreement::Outside,
        };
        Edge { error_ns, bound_ns: Some(gap + released.0.saturating_sub(end.0)), missed_ticks, agreement }
    }

    /// May the next step have raised the level again by when this reading was taken?
    fn may_be_hidden(&self, reading: &Reading) -> bool {
        self.next.is_some_and(|next| {
            let (_, above) = self.tolerance.bounds(next);
            let reaches =
                self.threshold().is_some_and(|threshold| (next.bytes.0 + above) as i64 >= threshold);
            reaches && reading.until > next.allocation_began
        })
    }

    /// How many ticks were missed between two readings, and how late what happened between them may show.
    fn gap(&self, before: Option<&Reading>, after: &Reading) -> (u64, u64) {
        let interval = self.tolerance.interval.as_nanos() as u64;
        match before {
            Some(before) if after.tick - before.tick > 1 => {
                (after.tick - before.tick - 1, after.at.0 - before.at.0)
            }
            _ => {
                let rest = after.until.0.saturating_sub(after.at.0);
                (0, interval + interval.saturating_sub(rest))
            }
        }
    }
}

#[cfg(test)]
mod tests;
