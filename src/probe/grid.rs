//! The absolute grid of sampling times: which tick is due when.

use std::time::Duration;

use crate::clock::Instant;

/// Tick *n* is due at `start` + *n* · `interval`, whatever happened to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// When tick 0 is due.
    pub(super) start: Instant,
    /// Nanoseconds from one tick to the next; never zero.
    pub(super) interval_ns: u64,
}

impl Grid {
    /// When that tick is due.
    pub(super) fn due(&self, tick: u64) -> Instant {
        Instant(self.start.0.saturating_add(tick.saturating_mul(self.interval_ns)))
    }

    /// The last tick that is due by then; `None` before the first.
    pub(super) fn tick_at(&self, instant: Instant) -> Option<u64> {
        Some(instant.0.checked_sub(self.start.0)? / self.interval_ns)
    }

    /// The first tick that is not due yet.
    pub(super) fn next_tick(&self, now: Instant) -> u64 {
        self.tick_at(now).map_or(0, |tick| tick + 1)
    }

    /// How long after the last tick that was due this instant is.
    pub(super) fn lateness(&self, instant: Instant) -> Duration {
        Duration::from_nanos(instant.0.saturating_sub(self.start.0) % self.interval_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_belongs_to_the_last_tick_that_was_due() {
        let grid = Grid { start: Instant(1_000), interval_ns: 100 };
        assert_eq!(grid.due(3), Instant(1_300));
        assert_eq!(grid.tick_at(Instant(999)), None);
        assert_eq!(grid.next_tick(Instant(999)), 0);
        assert_eq!(grid.tick_at(Instant(1_299)), Some(2));
        assert_eq!(grid.tick_at(Instant(1_300)), Some(3));
        assert_eq!(grid.next_tick(Instant(1_300)), 4);
        assert_eq!(grid.lateness(Instant(1_299)), Duration::from_nanos(99));
    }
}
