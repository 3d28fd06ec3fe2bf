//! Where in a picture samples are missing: per column of pixels, how many of the planned ticks.

/// What became of the ticks of each column of pixels, of all targets together.
#[derive(Debug)]
pub(super) struct GapMap {
    columns: Vec<Ticks>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    kept: f64,
    missed: f64,
    lost: f64,
}

/// Neighbouring columns that lack about as much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gap {
    /// The first of them.
    pub(super) first: usize,
    /// The last of them.
    pub(super) last: usize,
    /// Were samples lost, and not ticks missed alone?
    pub(super) is_loss: bool,
    /// How much is missing: 1 a little, 2 more than a tenth, 3 more than half.
    pub(super) degree: u8,
    /// How many ticks have no sample.
    pub(super) ticks: f64,
}

impl GapMap {
    pub(super) fn new(columns: usize) -> GapMap {
        GapMap { columns: vec![Ticks::default(); columns] }
    }

    /// A tick that has a sample, from when it was due to when the next one was.
    pub(super) fn keep(&mut self, from: f64, to: f64) {
        self.spread(from, to, |ticks, share| ticks.kept += share);
    }

    /// Ticks that were missed, and samples that were lost, somewhere from one place to another.
    pub(super) fn lack(&mut self, from: f64, to: f64, missed: f64, lost: f64) {
        self.spread(from, to, |ticks, share| {
            ticks.missed += missed * share;
            ticks.lost += lost * share;
        });
    }

    /// Gives each column that lies from one place to another its share of 1.
    fn spread(&mut self, from: f64, to: f64, add: impl Fn(&mut Ticks, f64)) {
        let end = self.columns.len() - 1;
        let (first, last) = ((from as usize).min(end), (to as usize).min(end));
        if first == last {
            return add(&mut self.columns[first], 1.0);
        }
        for column in first..=last {
            let left = from.max(column as f64);
            let right = if column == end { to } else { to.min(column as f64 + 1.0) };
            // None of its own for a column that is only touched.
            if right > left {
                add(&mut self.columns[column], (right - left) / (to - from));
            }
        }
    }

    /// The gaps, from left to right.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = Vec::new();
        for (column, ticks) in self.columns.iter().enumerate() {
            let missing = ticks.missed + ticks.lost;
            if missing <= 0.0 {
                continue;
            }
            let degree = match missing / (missing + ticks.kept) {
                share if share > 0.5 => 3,
                share if share > 0.1 => 2,
                _ => 1,
            };
            let is_loss = ticks.lost > 0.0;
            match gaps.last_mut() {
                Some(gap) if gap.last + 1 == column && (gap.is_loss, gap.degree) == (is_loss, degree) => {
                    gap.last = column;
                    gap.ticks += missing;
                }
                _ => gaps.push(Gap { first: column, last: column, is_loss, degree, ticks: missing }),
            }
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_is_spread_over_its_columns_and_told_by_degree() {
        let mut map = GapMap::new(10);
        (0..200).for_each(|tick| map.keep(f64::from(tick) / 20.0, f64::from(tick + 1) / 20.0));
        map.lack(0.5, 0.5, 1.0, 0.0);
        map.lack(4.0, 6.0, 80.0, 0.0);
        map.lack(9.9, 100.0, 0.0, 5.0);
        let gap = |first, last, is_loss, degree, ticks| Gap { first, last, is_loss, degree, ticks };
        assert_eq!(
            map.gaps(),
            [gap(0, 0, false, 1, 1.0), gap(4, 5, false, 3, 80.0), gap(9, 9, true, 2, 5.0)]
        );
    }

    #[test]
    fn a_tick_that_is_wider_than_a_column_fills_its_columns() {
        let mut map = GapMap::new(30);
        map.keep(0.0, 10.0);
        map.lack(10.0, 20.0, 1.0, 0.0);
        map.keep(20.0, 30.0);
        let [gap] = map.gaps()[..] else { panic!("{:?}", map.gaps()) };
        assert_eq!((gap.first, gap.last, gap.degree), (10, 19, 3));
        assert!((gap.ticks - 1.0).abs() < 1e-9);
    }
}
