//! What a recording says of each target, gathered from its events one by one in bounded memory.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{Ending, Event, Gaps, TargetId, What};
use super::grid::Grid;
use super::lateness::{Histogram, Lateness};
use super::note::{About, Note};
use super::profile::{Accumulator, Profile};
use crate::units::Bytes;

/// One target of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetSummary {
    /// Which target of the probe it was.
    pub id: TargetId,
    /// The label that it was given.
    pub label: String,
    /// The first tick planned for it.
    pub first_tick: u64,
    /// The first tick after it that was not planned for it; in a recording that was cut, the one after the last that
    /// the recording knows of.
    pub end_tick: u64,
    /// Why it ended; absent where the recording was cut before that.
    pub ending: Option<Ending>,
    /// Ticks at which it was sampled. With `missed` it makes up all that were planned.
    pub taken: u64,
    /// Ticks that passed unsampled: no read began and ended between when one was due and when the next one was.
    pub missed: u64,
    /// Of those taken, how many are not in the recording, for want of room in the ring or on the disk.
    pub lost: u64,
    /// How late its samples were; absent where there are none.
    pub lateness: Option<Lateness>,
    /// What its samples were; absent where there are none.
    pub profile: Option<Profile>,
    /// What was read, as [`About::Source`] says it; absent where nobody said.
    pub source: Option<String>,
    /// A name that people know it by, if its label is none.
    pub name: Option<String>,
    /// The largest of the kernel's own peaks that were noted, each over another time, which may have begun before the target
    /// was sampled; absent where none was.
    pub kernel_peak: Option<Bytes>,
    /// Had the kernel counted that peak already when sampling began?
    pub kernel_peak_is_older: bool,
}

impl TargetSummary {
    /// How many ticks were planned for it: those taken and those missed.
    pub fn planned(&self) -> u64 {
        self.end_tick - self.first_tick
    }
}

/// The summaries of all targets, as far as their events were told.
#[derive(Debug)]
pub(super) struct Summaries {
    grid: Grid,
    gaps: Gaps,
    targets: Vec<Building>,
    /// A note may come before its target has joined.
    noted: BTreeMap<TargetId, Noted>,
}

/// What was noted of a target.
#[derive(Debug, Default)]
struct Noted {
    source: Option<String>,
    name: Option<String>,
    kernel_peak: Option<Bytes>,
    /// When the kernel had counted that peak, or later.
    kernel_peak_at_ns: u64,
}

/// So long after a target's first tick was due its counters have been read for the first time.
const FIRST_LOOK: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct Building {
    summary: TargetSummary,
    lateness: Histogram,
    memory: Accumulator,
}

impl Summaries {
    pub(super) fn new(grid: Grid) -> Summaries {
        Summaries { grid, gaps: Gaps::default(), targets: Vec::new(), noted: BTreeMap::new() }
    }

    /// Takes in an event; `label` is that of a target that joins. Targets join in the order of their numbers.
    pub(super) fn add(&mut self, event: &Event, label: &str) {
        if let Some(missed) = self.gaps.before(event) {
            self.count(&missed);
        }
        match event.what {
            What::Joined { tick } => self.targets.push(Building {
                summary: TargetSummary {
                    id: event.target,
                    label: label.to_string(),
                    first_tick: tick,
                    end_tick: tick,
                    ending: None,
                    taken: 0,
                    missed: 0,
                    lost: 0,
                    lateness: None,
                    profile: None,
                    source: None,
                    name: None,
                    kernel_peak: None,
                    kernel_peak_is_older: false,
                },
                lateness: Histogram::default(),
                memory: Accumulator::default(),
            }),
            _ => self.count(event),
        }
    }

    fn count(&mut self, event: &Event) {
        let Some(target) = self.targets.get_mut(event.target.index()) else { return };
        let summary = &mut target.summary;
        match event.what {
            What::Sample(sample) => {
                summary.taken += 1;
                summary.end_tick = sample.tick + 1;
                target.lateness.add(sample.lateness);
                target.memory.add(self.grid.due(sample.tick).after(sample.lateness), sample.bytes);
            }
            What::Missed { first, last } => {
                summary.missed += last - first + 1;
                summary.end_tick = last + 1;
            }
            What::Lost { first, last, samples } => {
                summary.taken += samples;
                summary.lost += samples;
                summary.missed += (last - first + 1).saturating_sub(samples);
                summary.end_tick = last + 1;
            }
            What::Left { tick, ending } => {
                summary.end_tick = tick;
                summary.ending = Some(ending);
                // Of targets that have ended, however many, little is kept.
                summary.lateness = std::mem::take(&mut target.lateness).lateness();
            }
            What::Joined { .. } => {}
        }
    }

    /// Takes in a note.
    pub(super) fn note(&mut self, note: &Note) {
        match &note.about {
            About::Source { source, name } => {
                let noted = self.noted.entry(note.target).or_default();
                (noted.source, noted.name) = (Some(source.clone()), name.clone());
            }
            About::KernelPeak { bytes, at_ns, .. } => {
                let noted = self.noted.entry(note.target).or_default();
                let peak = Some(Bytes(*bytes));
                if peak > noted.kernel_peak {
                    (noted.kernel_peak, noted.kernel_peak_at_ns) = (peak, *at_ns);
                }
            }
            About::Invocation { .. } => {}
        }
    }

    pub(super) fn finish(mut self) -> Vec<TargetSummary> {
        let finish = |target: Building| {
            let noted = self.noted.remove(&target.summary.id).unwrap_or_default();
            let first_look = self.grid.due(target.summary.first_tick).after(FIRST_LOOK);
            TargetSummary {
                lateness: target.summary.lateness.or_else(|| target.lateness.lateness()),
                profile: target.memory.profile(),
                source: noted.source,
                name: noted.name,
                kernel_peak: noted.kernel_peak,
                kernel_peak_is_older: noted.kernel_peak.is_some() && noted.kernel_peak_at_ns <= first_look.0,
                ..target.summary
            }
        };
        self.targets.into_iter().map(finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Instant;
    use crate::probe::Sample;

    #[test]
    fn what_was_taken_and_missed_is_what_was_planned() {
        let mut summaries = Summaries::new(Grid { start: Instant(0), interval_ns: 1_000 });
        let sample = |tick, bytes| {
            What::Sample(Sample { tick, lateness: Duration::from_nanos(tick), bytes: Bytes(bytes) })
        };
        let mut add = |what| summaries.add(&Event { target: TargetId(0), what }, "a");
        add(What::Joined { tick: 10 });
        add(sample(10, 5));
        add(sample(13, 9));
        add(What::Lost { first: 15, last: 20, samples: 4 });
        add(sample(21, 7));
        add(What::Left { tick: 23, ending: Ending::Gone });
        for (bytes, at_ns) in [(12, 5), (20, 5_020_000), (11, 5_030_000)] {
            let about = About::KernelPeak { bytes, from_ns: None, at_ns };
            summaries.note(&Note { target: TargetId(0), about });
        }
        let summary = summaries.finish().remove(0);
        assert_eq!((summary.first_tick, summary.end_tick, summary.planned()), (10, 23, 13));
        assert_eq!((summary.taken, summary.missed, summary.lost), (7, 6, 4));
        assert_eq!(summary.ending, Some(Ending::Gone));
        assert_eq!((summary.kernel_peak, summary.source), (Some(Bytes(20)), None));
        assert!(!summary.kernel_peak_is_older);
        assert_eq!(summary.lateness.unwrap().max_ns, 21);
        let profile = summary.profile.unwrap();
        assert_eq!((profile.samples, profile.peak, profile.mean_bytes), (3, Bytes(9), 7.0));
        assert_eq!(
            (profile.first, profile.peak_at, profile.last),
            (Instant(10_010), Instant(13_013), Instant(21_021))
        );
    }

    #[test]
    fn a_target_that_was_never_sampled_has_no_figures() {
        let mut summaries = Summaries::new(Grid { start: Instant(0), interval_ns: 1_000 });
        let about = About::Source { source: "a file".to_string(), name: Some("x".to_string()) };
        summaries.note(&Note { target: TargetId(0), about });
        let about = About::KernelPeak { bytes: 7, from_ns: None, at_ns: 5 };
        summaries.note(&Note { target: TargetId(0), about });
        summaries.add(&Event { target: TargetId(0), what: What::Joined { tick: 3 } }, "a");
        let left = What::Left { tick: 5, ending: Ending::Stopped };
        summaries.add(&Event { target: TargetId(0), what: left }, "");
        let summary = summaries.finish().remove(0);
        assert_eq!((summary.planned(), summary.missed, summary.taken), (2, 2, 0));
        assert_eq!((summary.lateness, summary.profile), (None, None));
        // Its source was told before it joined.
        assert_eq!((summary.source.as_deref(), summary.name.as_deref()), (Some("a file"), Some("x")));
        assert_eq!((summary.kernel_peak, summary.kernel_peak_is_older), (Some(Bytes(7)), true));
    }
}
