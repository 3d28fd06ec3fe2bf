//! Reads the numbers that can be typed, and says of a text that is none what would be right.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A whole number of that range.
fn whole<T: FromStr + PartialOrd + Display>(text: &str, range: RangeInclusive<T>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (least, most) = range.into_inner();
    number.ok_or_else(|| format!("it must be a whole number, at least {least} and at most {most}"))
}

/// How many of what must not be none.
pub(super) fn count(text: &str) -> Result<u32, String> {
    whole(text, 1..=u32::MAX)
}

/// How many of what may be none.
pub(super) fn count_or_none(text: &str) -> Result<u32, String> {
    whole(text, 0..=u32::MAX)
}

/// A port of TCP.
pub(super) fn port(text: &str) -> Result<u16, String> {
    whole(text, 1..=u16::MAX)
}

/// The id of a process.
pub(super) fn pid(text: &str) -> Result<i32, String> {
    whole(text, 1..=i32::MAX)
}

/// A memory limit; which are taken is checked later.
pub(super) fn megabytes(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "it must be a whole number of MB such as 256, or 0 for no limit".to_string())
}

/// A time limit.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "it must be a whole number of seconds such as 60, or 0 for no limit".to_string())
}

/// A CPU limit; which are taken is checked later.
pub(super) fn cpus(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "it must be a number of CPUs such as 0.5, or 0 for no limit".to_string())
}

/// The number of a CPU; whether there is one is checked later.
pub(super) fn cpu(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "it must be the number of a CPU, counted from 0".to_string())
}
