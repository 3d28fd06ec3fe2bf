//! How late ticks were, counted in bounded memory so that a recording of any length has its percentiles.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How late the samples of one target were: from when each tick was due to when its read began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// Half of the samples were no later, in ns; exact to 1 %.
    #[serde(rename = "p50")]
    pub p50_ns: u64,
    /// 99 of 100 were no later, in ns; exact to 1 %.
    #[serde(rename = "p99")]
    pub p99_ns: u64,
    /// The latest, in ns; exact.
    #[serde(rename = "max")]
    pub max_ns: u64,
}

/// Counts of times in buckets whose width is at most 1/64 of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    /// As many as the longest time so far needs.
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

/// Times below 2⁷ ns have buckets of their own; from there on each power of two has 2⁶.
const BITS: u32 = 6;

impl Histogram {
    pub(super) fn add(&mut self, lateness: Duration) {
        let nanoseconds = lateness.as_nanos() as u64;
        let bucket = bucket_of(nanoseconds);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max_ns = self.max_ns.max(nanoseconds);
    }

    /// `None` if nothing was added.
    pub(super) fn lateness(&self) -> Option<Lateness> {
        let lateness =
            Lateness { p50_ns: self.percentile(50), p99_ns: self.percentile(99), max_ns: self.max_ns };
        (self.total > 0).then_some(lateness)
    }

    /// The middle of the bucket that holds the nearest-rank percentile.
    fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.total * percent).div_ceil(100);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        let bucket = bucket.unwrap_or(0);
        (first_of(bucket) + (first_of(bucket + 1) - first_of(bucket)) / 2).min(self.max_ns)
    }
}

fn bucket_of(nanoseconds: u64) -> usize {
    let shift = (64 - nanoseconds.leading_zeros()).saturating_sub(BITS + 1);
    ((u64::from(shift) << BITS) + (nanoseconds >> shift)) as usize
}

/// The shortest time of a bucket.
fn first_of(bucket: usize) -> u64 {
    let shift = (bucket as u64 >> BITS).saturating_sub(1);
    (bucket as u64 - (shift << BITS)) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_buckets_are_narrow() {
        let times = (0..10_000).chain((10..50).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (3 << bit) + 7]));
        for time in times {
            let bucket = bucket_of(time);
            let (first, next) = (first_of(bucket), first_of(bucket + 1));
            assert!(first <= time && time < next, "{time}: {first}..{next}");
            assert!((next - first - 1) * 64 <= first, "{first}..{next}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_numbers() {
        assert_eq!(Histogram::default().lateness(), None);
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|n| histogram.add(Duration::from_micros(n)));
        let lateness = histogram.lateness().unwrap();
        assert!(lateness.p50_ns.abs_diff(500_000) <= 5_000, "{lateness:?}");
        assert!(lateness.p99_ns.abs_diff(990_000) <= 9_900, "{lateness:?}");
        assert_eq!(lateness.max_ns, 1_000_000);
        let mut one = Histogram::default();
        one.add(Duration::from_nanos(40_001));
        assert_eq!(one.lateness(), Some(Lateness { p50_ns: 40_001, p99_ns: 40_001, max_ns: 40_001 }));
    }
}
