//! What the samples of one target say of its memory, as a whole and within windows of time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Recording;
use super::event::{Event, TargetId, What};
use crate::clock::Instant;
use crate::error::Result;
use crate::units::Bytes;

/// What some samples of one target say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// How many samples; never zero.
    pub samples: u64,
    /// The largest sample. What lay between two ticks is not in it: see the kernel's own peak counter.
    pub peak: Bytes,
    /// When the first sample as large as that was taken.
    pub peak_at: Instant,
    /// Arithmetic mean of the samples, in bytes; ticks that were missed weigh nothing.
    pub mean_bytes: f64,
    /// When the first sample was taken.
    pub first: Instant,
    /// When the last sample was taken.
    pub last: Instant,
}

/// A stretch of time, such as that of an invocation; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The monotonic clock when it begins, in ns.
    pub begin_ns: u64,
    /// The monotonic clock when it ends, in ns.
    pub end_ns: u64,
}

impl Window {
    /// From one instant to another.
    pub fn between(begin: Instant, end: Instant) -> Window {
        Window { begin_ns: begin.0, end_ns: end.0 }
    }
}

/// Gathers a [`Profile`].
#[derive(Clone, Debug, Default)]
pub(super) struct Accumulator {
    sum: u128,
    profile: Option<Profile>,
}

impl Accumulator {
    /// Takes in a sample; they come in the order of time.
    pub(super) fn add(&mut self, at: Instant, bytes: Bytes) {
        self.sum += u128::from(bytes.0);
        let begun = Profile { samples: 0, peak: bytes, peak_at: at, mean_bytes: 0.0, first: at, last: at };
        let profile = self.profile.get_or_insert(begun);
        profile.samples += 1;
        profile.last = at;
        if bytes > profile.peak {
            profile.peak = bytes;
            profile.peak_at = at;
        }
    }

    /// `None` if there was no sample.
    pub(super) fn profile(&self) -> Option<Profile> {
        let profile = self.profile?;
        Some(Profile { mean_bytes: self.sum as f64 / profile.samples as f64, ..profile })
    }
}

/// Profiles of many windows, in one pass over samples that come in the order of time.
struct Windows<'a> {
    windows: &'a [Window],
    /// Places of windows that have not begun, the one that begins first last.
    waiting: Vec<usize>,
    /// Places of windows that have begun and may not have ended.
    open: Vec<usize>,
    gathered: Vec<Accumulator>,
}

impl Windows<'_> {
    fn new(windows: &[Window]) -> Windows<'_> {
        let mut waiting: Vec<usize> = (0..windows.len()).collect();
        waiting.sort_by_key(|place| std::cmp::Reverse(windows[*place].begin_ns));
        Windows { windows, waiting, open: Vec::new(), gathered: vec![Accumulator::default(); windows.len()] }
    }

    fn add(&mut self, at: Instant, bytes: Bytes) {
        while let Some(place) = self.waiting.pop_if(|place| self.windows[*place].begin_ns <= at.0) {
            self.open.push(place);
        }
        self.open.retain(|place| at.0 <= self.windows[*place].end_ns);
        for place in &self.open {
            self.gathered[*place].add(at, bytes);
        }
    }
}

impl Recording {
    /// What a target's samples within each window say; `None` for a window without one. Windows may overlap.
    ///
    /// # Errors
    /// The recording cannot be read.
    pub fn profiles(&self, target: TargetId, windows: &[Window]) -> Result<Vec<Option<Profile>>> {
        let windows = BTreeMap::from([(target, windows.to_vec())]);
        Ok(self.profiles_by_target(&windows)?.remove(&target).unwrap_or_default())
    }

    /// As [`Recording::profiles`] for several targets, each with windows of its own, in one pass over the recording.
    ///
    /// # Errors
    /// The recording cannot be read.
    pub fn profiles_by_target(
        &self,
        windows: &BTreeMap<TargetId, Vec<Window>>,
    ) -> Result<BTreeMap<TargetId, Vec<Option<Profile>>>> {
        let mut gathering: BTreeMap<_, _> =
            windows.iter().map(|(target, windows)| (*target, Windows::new(windows))).collect();
        for event in self.events()? {
            let Event { target, what: What::Sample(sample) } = event? else { continue };
            if let Some(gathering) = gathering.get_mut(&target) {
                gathering.add(self.header.instant(&sample), sample.bytes);
            }
        }
        let profiles = |windows: Windows<'_>| windows.gathered.iter().map(Accumulator::profile).collect();
        Ok(gathering.into_iter().map(|(target, windows)| (target, profiles(windows))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_may_overlap_and_come_in_any_order() {
        let window = |begin_ns, end_ns| Window { begin_ns, end_ns };
        let windows = [window(30, 50), window(0, 100), window(41, 49), window(10, 30), window(200, 300)];
        let mut gathering = Windows::new(&windows);
        for at in (10..=90).step_by(10) {
            gathering.add(Instant(at), Bytes(if at == 40 { 1000 } else { at }));
        }
        let profiles: Vec<_> = gathering.gathered.iter().map(Accumulator::profile).collect();
        let expect = |samples, peak, peak_at, mean_bytes, first, last| {
            Some(Profile {
                samples,
                peak: Bytes(peak),
                peak_at: Instant(peak_at),
                mean_bytes,
                first: Instant(first),
                last: Instant(last),
            })
        };
        assert_eq!(profiles[0], expect(3, 1000, 40, 360.0, 30, 50));
        assert_eq!(profiles[1], expect(9, 1000, 40, 1410.0 / 9.0, 10, 90));
        assert_eq!(profiles[2], None);
        assert_eq!(profiles[3], expect(3, 30, 30, 20.0, 10, 30));
        assert_eq!(profiles[4], None);
    }

    #[test]
    fn the_first_of_equal_peaks_counts_and_nothing_overflows() {
        let mut gathered = Accumulator::default();
        assert_eq!(gathered.profile(), None);
        for at in 1..=4 {
            gathered.add(Instant(at), Bytes(u64::MAX));
        }
        let profile = gathered.profile().unwrap();
        assert_eq!((profile.peak_at, profile.mean_bytes), (Instant(1), u64::MAX as f64));
    }
}
