//! What a recording says of each target, gathered from its events one by one in bounded memory.

use super::event::{Ending, Event, Gaps, TargetId, What};
use super::grid::Grid;
use super::lateness::{Histogram, Lateness};
use super::profile::{Accumulator, Profile};

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
}

#[derive(Debug)]
struct Building {
    summary: TargetSummary,
    lateness: Histogram,
    memory: Accumulator,
}

impl Summaries {
    pub(super) fn new(grid: Grid) -> Summaries {
        Summaries { grid, gaps: Gaps::default(), targets: Vec::new() }
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

    pub(super) fn finish(self) -> Vec<TargetSummary> {
        let finish = |target: Building| TargetSummary {
            lateness: target.summary.lateness.or_else(|| target.lateness.lateness()),
            profile: target.memory.profile(),
            ..target.summary
        };
        self.targets.into_iter().map(finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Instant;
    use crate::probe::Sample;
    use crate::units::Bytes;

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
        let summary = summaries.finish().remove(0);
        assert_eq!((summary.first_tick, summary.end_tick, summary.planned()), (10, 23, 13));
        assert_eq!((summary.taken, summary.missed, summary.lost), (7, 6, 4));
        assert_eq!(summary.ending, Some(Ending::Gone));
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
        summaries.add(&Event { target: TargetId(0), what: What::Joined { tick: 3 } }, "a");
        let left = What::Left { tick: 5, ending: Ending::Stopped };
        summaries.add(&Event { target: TargetId(0), what: left }, "");
        let summary = summaries.finish().remove(0);
        assert_eq!((summary.planned(), summary.missed, summary.taken), (2, 2, 0));
        assert_eq!((summary.lateness, summary.profile), (None, None));
    }
}
