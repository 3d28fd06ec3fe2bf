//! The monotonic clock, and how an instant of it is told in wall-clock time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

use crate::cancel::Cancel;
use crate::error::Result;

/// An instant of `CLOCK_MONOTONIC`, in nanoseconds since the machine started.
///
/// Every instant that is measured is one of these, so that those of the client and of the probe lie on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Now.
    #[inline]
    pub fn now() -> Instant {
        Instant(read(ClockId::CLOCK_MONOTONIC))
    }

    /// How much later this is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant that much later.
    pub fn after(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration.as_nanos().try_into().unwrap_or(u64::MAX)))
    }
}

/// Sleeps until an absolute instant of `CLOCK_MONOTONIC`; never less, and not at all if it has passed.
pub(crate) fn sleep_until(deadline: Instant) {
    let time = TimeSpec::new((deadline.0 / 1_000_000_000) as _, (deadline.0 % 1_000_000_000) as _);
    // A signal that a handler caught ends the sleep early.
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &time)
        == Err(Errno::EINTR)
    {}
}

/// Sleeps until an absolute instant of `CLOCK_MONOTONIC`, unless the job is given up before.
///
/// # Errors
/// `cancel` was triggered.
pub(crate) fn wait_until(deadline: Instant, cancel: &Cancel) -> Result<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    while Instant::now() < deadline {
        cancel.check()?;
        sleep_until(Instant::now().after(LOOK_EVERY).min(deadline));
    }
    cancel.check()
}

/// CPU time that the calling thread has used, in the kernel too.
pub(crate) fn thread_cpu() -> Duration {
    Duration::from_nanos(read(ClockId::CLOCK_THREAD_CPUTIME_ID))
}

#[inline]
fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("Linux has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// One pair of readings of both clocks; tells all instants of one job in wall-clock time, so that a step of the wall
/// clock in the middle of it changes no duration.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    monotonic: Instant,
    epoch_ns: u64,
}

impl Anchor {
    /// Reads both clocks now: the wall clock between two readings of the monotonic one, the closest of five tries.
    pub fn now() -> Anchor {
        let attempt = || {
            let before = read(ClockId::CLOCK_MONOTONIC);
            let epoch_ns = read(ClockId::CLOCK_REALTIME);
            let after = read(ClockId::CLOCK_MONOTONIC);
            (after - before, Anchor { monotonic: Instant(before + (after - before) / 2), epoch_ns })
        };
        let closest = (0..5).map(|_| attempt()).min_by_key(|(width, _)| *width);
        closest.expect("five is more than none").1
    }

    /// Nanoseconds since 1970-01-01 UTC.
    pub fn epoch_ns(&self, instant: Instant) -> u64 {
        (self.epoch_ns + instant.0).saturating_sub(self.monotonic.0)
    }

    /// RFC 3339, in UTC, with six digits: `2026-11-21T09:20:48.123456Z`.
    pub fn rfc3339(&self, instant: Instant) -> String {
        rfc3339(self.epoch_ns(instant))
    }
}

/// Seconds since 1970-01-01 UTC, by the wall clock.
pub fn epoch_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The present moment, as [`rfc3339`] writes it.
pub(crate) fn timestamp() -> String {
    rfc3339((epoch_seconds() * 1e9) as u64)
}

/// RFC 3339, in UTC, with six digits, of a number of nanoseconds since 1970-01-01 UTC.
pub fn rfc3339(epoch_ns: u64) -> String {
    let (seconds, microseconds) = (epoch_ns / 1_000_000_000, epoch_ns % 1_000_000_000 / 1_000);
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Digit by digit: each invocation tells two instants, and a formatter would take a microsecond for it.
    let mut text = String::with_capacity("2026-11-21T09:20:48.123456Z".len());
    for (number, digits, end) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (hour, 2, ':'),
        (minute, 2, ':'),
        (second, 2, '.'),
        (microseconds, 6, 'Z'),
    ] {
        let mut unit = 10_u64.pow(digits - 1);
        while unit > 0 {
            text.push(char::from(b'0' + (number / unit % 10) as u8));
            unit /= 10;
        }
        text.push(end);
    }
    text
}

/// Seconds since 1970-01-01 UTC of a time as RFC 3339 has it, in whatever zone; `None`: it is none.
pub(crate) fn parse_rfc3339(text: &str) -> Option<f64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut date = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let clock = |text: &str| -> Option<f64> {
        text.split(':')
            .zip([3600.0, 60.0, 1.0])
            .map(|(part, unit)| Some(part.parse::<f64>().ok()? * unit))
            .sum()
    };
    let offset_s = match zone.strip_prefix(['+', '-']) {
        Some(offset) if zone.starts_with('-') => -clock(offset)?,
        Some(offset) => clock(offset)?,
        None => 0.0,
    };
    // The first day at or after the guess, which is never a year late, that has this date.
    let guess = year.checked_sub(1970)? * 365;
    let days = (guess..guess + 366 * 2 + year / 4).find(|days| civil_date(*days) == (year, month, day))?;
    Some(days as f64 * 86_400.0 + clock(time)? - offset_s)
}

/// An instant as a part of a file's name: `20261121T092048Z`, of a number of seconds since 1970-01-01 UTC.
pub(crate) fn stamp(epoch_seconds: f64) -> String {
    let text = rfc3339((epoch_seconds * 1e9) as u64);
    let seconds = text.chars().take_while(|c| *c != '.').filter(|c| c.is_ascii_alphanumeric());
    seconds.chain(['Z']).collect()
}

/// Year, month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar.
fn civil_date(days: u64) -> (u64, u64, u64) {
    // The year begins on 1 March, so that the leap day is its last; 719 468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(rfc3339(1_795_252_848_123_456_789), "2026-11-21T09:20:48.123456Z");
        assert_eq!(rfc3339(4_107_542_399_999_999_999), "2100-02-28T23:59:59.999999Z");
        assert_eq!(rfc3339(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000000Z");
    }

    #[test]
    fn a_time_is_read_in_its_own_zone() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some(0.0));
        assert_eq!(parse_rfc3339("2026-11-21T09:20:48.500000000Z"), Some(1_795_252_848.5));
        assert_eq!(parse_rfc3339("2026-11-21T10:20:48+01:00"), Some(1_795_252_848.0));
        assert_eq!(parse_rfc3339("2024-02-29T00:00:00-00:30"), Some(1_709_164_800.0 + 1800.0));
        for wrong in ["", "yesterday", "2026-02-30T00:00:00Z", "2026-11-21", "1969-01-01T00:00:00Z"] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_sleep_ends_after_its_deadline() {
        let deadline = Instant::now().after(Duration::from_millis(2));
        sleep_until(deadline);
        assert!(Instant::now() >= deadline);
        sleep_until(Instant(0));
    }

    #[test]
    fn a_wait_ends_with_its_deadline_or_with_the_job() {
        let deadline = Instant::now().after(Duration::from_millis(2));
        wait_until(deadline, &Cancel::new()).unwrap();
        assert!(Instant::now() >= deadline);
        let given_up = Cancel::new();
        given_up.trigger();
        let far = Instant::now().after(Duration::from_secs(3600));
        assert!(wait_until(far, &given_up).unwrap_err().is_cancelled());
    }

    #[test]
    fn an_anchor_keeps_the_distance_of_instants() {
        let anchor = Anchor::now();
        let instant = Instant::now();
        let later = instant.after(Duration::from_micros(1_500));
        assert_eq!(anchor.epoch_ns(later) - anchor.epoch_ns(instant), 1_500_000);
        assert_eq!(later.since(instant), Duration::from_micros(1_500));
        assert_eq!(instant.since(later), Duration::ZERO);
    }
}
