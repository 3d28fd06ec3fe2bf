//! What happens to a target, as the sampling thread says it and as a recording tells it again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::grid::Grid;
use crate::clock::Instant;
use crate::units::Bytes;

/// One target of one probe; counted from 0 in the order in which they were added, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetId(pub(super) u32);

impl TargetId {
    /// Place of the target among all of its probe, counted from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One reading of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The tick that it was taken for.
    pub tick: u64,
    /// From when the tick was due to when the read began; always less than the interval.
    pub lateness: Duration,
    /// What the counter said.
    pub bytes: Bytes,
}

/// One thing that happened to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// To which target.
    pub target: TargetId,
    /// What happened.
    pub what: What,
}

/// What can happen to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is sampled from that tick on.
    Joined {
        /// The first tick planned for it.
        tick: u64,
    },
    /// It was sampled.
    Sample(Sample),
    /// Ticks passed, and it was not sampled.
    Missed {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// Samples were taken of it that could not be kept, since nobody took them off the sampling thread in time.
    Lost {
        /// Tick of the first lost sample.
        first: u64,
        /// Tick of the last lost sample.
        last: u64,
        /// How many samples: those of the range, but for the ticks in it that were missed.
        samples: u64,
    },
    /// It is not sampled any more.
    Left {
        /// The first tick that is not planned for it any more.
        tick: u64,
        /// Why it ended.
        ending: Ending,
    },
}

/// Why the series of a target ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It was removed from the probe.
    Removed,
    /// The probe was stopped.
    Stopped,
    /// The counter is no more, for its container ended: the normal end of a series.
    Gone,
    /// Reading failed with that error number.
    Failed {
        /// As in `errno(3)`.
        errno: i32,
    },
    /// What was read is not a number.
    NotANumber,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Removed => f.write_str("removed"),
            Ending::Stopped => f.write_str("stopped"),
            Ending::Gone => f.write_str("gone"),
            Ending::Failed { errno } => {
                write!(f, "reading failed: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Ending::NotANumber => f.write_str("its counter holds no number"),
        }
    }
}

impl Ending {
    /// A small number for it, and the error number or 0.
    pub(super) fn to_code(self) -> (u8, u32) {
        match self {
            Ending::Removed => (0, 0),
            Ending::Stopped => (1, 0),
            Ending::Gone => (2, 0),
            Ending::Failed { errno } => (3, errno.unsigned_abs()),
            Ending::NotANumber => (4, 0),
        }
    }

    pub(super) fn from_code(code: u8, errno: u32) -> Option<Ending> {
        Some(match code {
            0 => Ending::Removed,
            1 => Ending::Stopped,
            2 => Ending::Gone,
            3 => Ending::Failed { errno: i32::try_from(errno).ok()? },
            4 => Ending::NotANumber,
            _ => return None,
        })
    }
}

/// An event as the ring carries it. `Missed` is not among them: it is the gap between the others.
pub(super) type Words = [u64; 3];

const JOINED: u64 = 0;
const SAMPLE: u64 = 1;
const LOST: u64 = 2;
const LEFT: u64 = 3;

/// Bits of the first word: 2 of the kind, 20 of the target, 42 of a count or a reason.
const TARGET_SHIFT: u32 = 2;
const EXTRA_SHIFT: u32 = 22;

/// The most targets that one probe can be given in its life.
pub(super) const MAX_IDS: usize = 1 << (EXTRA_SHIFT - TARGET_SHIFT);

impl Event {
    /// A sample as words: the instant alone says the tick and the lateness, so that the sampling thread divides nothing.
    pub(super) fn sample_words(target: TargetId, began: Instant, bytes: u64) -> Words {
        [SAMPLE | u64::from(target.0) << TARGET_SHIFT, began.0, bytes]
    }

    pub(super) fn to_words(self, grid: &Grid) -> Words {
        let head = |kind: u64, extra: u64| {
            kind | u64::from(self.target.0) << TARGET_SHIFT
                | extra.min((1 << (64 - EXTRA_SHIFT)) - 1) << EXTRA_SHIFT
        };
        match self.what {
            What::Joined { tick } => [head(JOINED, 0), tick, 0],
            What::Sample(Sample { tick, lateness, bytes }) => {
                Event::sample_words(self.target, grid.due(tick).after(lateness), bytes.0)
            }
            What::Lost { first, last, samples } => [head(LOST, samples), first, last],
            What::Left { tick, ending } => {
                let (code, errno) = ending.to_code();
                [head(LEFT, u64::from(code)), tick, u64::from(errno)]
            }
            What::Missed { .. } => unreachable!("a missed tick is told by the gap that it leaves"),
        }
    }

    pub(super) fn from_words(words: Words, grid: &Grid) -> Event {
        let [head, first, second] = words;
        let extra = head >> EXTRA_SHIFT;
        let what = match head & 3 {
            JOINED => What::Joined { tick: first },
            SAMPLE => What::Sample(Sample {
                tick: grid.tick_at(Instant(first)).unwrap_or(0),
                lateness: grid.lateness(Instant(first)),
                bytes: Bytes(second),
            }),
            LOST => What::Lost { first, last: second, samples: extra },
            _ => {
                let ending = Ending::from_code(extra as u8, second as u32);
                What::Left { tick: first, ending: ending.unwrap_or(Ending::NotANumber) }
            }
        };
        Event { target: TargetId((head >> TARGET_SHIFT) as u32 & (MAX_IDS as u32 - 1)), what }
    }
}

/// Finds the missed ticks, which nobody reports, in what is reported.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// The tick that is expected next, of each target that is sampled.
    next: BTreeMap<TargetId, u64>,
}

impl Gaps {
    /// The ticks that passed unsampled before this event of their target.
    pub(super) fn before(&mut self, event: &Event) -> Option<Event> {
        let (until, next) = match event.what {
            What::Joined { tick } => {
                self.next.insert(event.target, tick);
                return None;
            }
            What::Missed { .. } => return None,
            What::Sample(Sample { tick, .. }) => (tick, Some(tick + 1)),
            What::Lost { first, last, .. } => (first, Some(last + 1)),
            What::Left { tick, .. } => (tick, None),
        };
        let expected = match next {
            Some(next) => self.next.insert(event.target, next),
            None => self.next.remove(&event.target),
        }?;
        let what = What::Missed { first: expected, last: until.checked_sub(1)? };
        (expected < until).then_some(Event { target: event.target, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(target: u32, what: What) -> Event {
        Event { target: TargetId(target), what }
    }

    #[test]
    fn an_event_survives_its_way_through_the_ring() {
        let grid = Grid { start: Instant(77), interval_ns: 1_000_000 };
        let sample = Sample { tick: 9, lateness: Duration::from_nanos(999_999), bytes: Bytes(u64::MAX) };
        for what in [
            What::Joined { tick: u64::MAX },
            What::Sample(sample),
            What::Lost { first: 4, last: 1 << 50, samples: 1 << 39 },
            What::Left { tick: 1 << 50, ending: Ending::Failed { errno: 5 } },
            What::Left { tick: 0, ending: Ending::Stopped },
        ] {
            let event = event(MAX_IDS as u32 - 1, what);
            assert_eq!(Event::from_words(event.to_words(&grid), &grid), event);
        }
    }

    #[test]
    fn gaps_are_missed_ticks() {
        let sample = |tick| What::Sample(Sample { tick, lateness: Duration::ZERO, bytes: Bytes(1) });
        let mut gaps = Gaps::default();
        let mut before = |target, what| gaps.before(&event(target, what)).map(|event| event.what);
        assert_eq!(before(0, What::Joined { tick: 5 }), None);
        assert_eq!(before(1, What::Joined { tick: 6 }), None);
        assert_eq!(before(0, sample(5)), None);
        assert_eq!(before(1, sample(8)), Some(What::Missed { first: 6, last: 7 }));
        assert_eq!(before(0, sample(7)), Some(What::Missed { first: 6, last: 6 }));
        let lost = What::Lost { first: 9, last: 12, samples: 2 };
        assert_eq!(before(0, lost), Some(What::Missed { first: 8, last: 8 }));
        assert_eq!(before(0, sample(13)), None);
        assert_eq!(before(0, What::Left { tick: 14, ending: Ending::Gone }), None);
        let left = What::Left { tick: 20, ending: Ending::Stopped };
        assert_eq!(before(1, left), Some(What::Missed { first: 9, last: 19 }));
        assert_eq!(before(1, left), None);
    }
}
