//! `Bytes`, and the reading and showing of sizes and durations for people.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A number of bytes; shown in decimal units, 1 MB being 10⁶ bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// How many bytes a function's memory limit of that many MB means: SeBS and the clouds count 2²⁰ bytes each.
    pub fn from_limit_mb(megabytes: u64) -> Bytes {
        Bytes(megabytes.saturating_mul(1 << 20))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} B", self.0),
            1_000..1_000_000 => write!(f, "{:.1} kB", bytes / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB", bytes / 1e6),
            _ => write!(f, "{:.2} GB", bytes / 1e9),
        }
    }
}

/// Two hexadecimal digits a byte, lower case.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a size: `512`, `100kB`, `256 MiB`, `1GB`; a bare number is bytes.
///
/// # Errors
/// A usage error that shows what is understood.
pub fn parse_bytes(text: &str) -> Result<Bytes> {
    let wrong = || {
        Error::usage(format!(
            "`{text}` is not a size: write a number of bytes, or one with kB, MB, GB, KiB, MiB or GiB"
        ))
    };
    let (number, unit) = split_unit(text);
    let factor: f64 = match unit {
        "" | "B" => 1.0,
        "k" | "kB" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "Ki" | "KiB" => 1024.0,
        "Mi" | "MiB" => 1024.0 * 1024.0,
        "Gi" | "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let value = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if !value.is_finite() || value < 0.0 || value >= u64::MAX as f64 || value.fract() != 0.0 {
        return Err(wrong());
    }
    Ok(Bytes(value as u64))
}

/// Reads a duration: `100us`, `1.5ms`, `2s`, `1m`, `1h`, `2d`; a bare number is in `bare` units.
///
/// # Errors
/// A usage error that shows what is understood; negative and unbounded durations are not.
pub fn parse_duration(text: &str, bare: Unit) -> Result<Duration> {
    let wrong = || {
        Error::usage(format!(
            "`{text}` is not a duration: write a number with ns, us, ms, s, m, h or d (a bare number is in {})",
            bare.name()
        ))
    };
    let (number, unit) = split_unit(text);
    let nanoseconds: f64 = match unit {
        "" => bare.nanoseconds(),
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        "d" => 86_400e9,
        _ => return Err(wrong()),
    };
    let value = (number.parse::<f64>().map_err(|_| wrong())? * nanoseconds).round();
    if !value.is_finite() || value < 0.0 || value >= u64::MAX as f64 {
        return Err(wrong());
    }
    Ok(Duration::from_nanos(value as u64))
}

/// The unit that a bare number is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 10⁻³ s.
    Milliseconds,
    /// 1 s.
    Seconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
        }
    }

    fn nanoseconds(self) -> f64 {
        match self {
            Unit::Milliseconds => 1e6,
            Unit::Seconds => 1e9,
        }
    }
}

/// Shows a duration with three or four digits and the unit that fits: `9 ns`, `84.2 µs`, `1.003 s`, `1000 s`.
pub fn show_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos() as f64;
    let (value, unit) = match nanoseconds {
        n if n < 1e3 => return format!("{n} ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    match value {
        v if v < 10.0 => format!("{v:.3} {unit}"),
        v if v < 100.0 => format!("{v:.2} {unit}"),
        v if v < 1000.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_decimal_and_binary_units() {
        assert_eq!(parse_bytes("512").unwrap(), Bytes(512));
        assert_eq!(parse_bytes("1.5 kB").unwrap(), Bytes(1500));
        assert_eq!(parse_bytes("256MiB").unwrap(), Bytes(256 << 20));
        for wrong in ["", "MB", "-1", "1.5", "3 parsecs", "1e400", "nan"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_read_with_a_unit_or_in_the_bare_one() {
        let bare = |text| parse_duration(text, Unit::Milliseconds).unwrap();
        assert_eq!(bare("0.1"), Duration::from_micros(100));
        assert_eq!(bare("100us"), Duration::from_micros(100));
        assert_eq!(bare("1 h"), Duration::from_secs(3600));
        assert_eq!(bare("2d"), Duration::from_secs(2 * 86_400));
        assert_eq!(parse_duration("30", Unit::Seconds).unwrap(), Duration::from_secs(30));
        for wrong in ["", "ms", "-1", "1 week", "1.2.3s"] {
            assert!(parse_duration(wrong, Unit::Seconds).unwrap_err().is_usage(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_shown_in_the_unit_that_fits() {
        assert_eq!(show_duration(Duration::from_nanos(9)), "9 ns");
        assert_eq!(show_duration(Duration::from_nanos(84_230)), "84.23 µs");
        assert_eq!(show_duration(Duration::from_micros(1_003_100)), "1.003 s");
        assert_eq!(show_duration(Duration::from_secs(1000)), "1000 s");
    }

    #[test]
    fn a_limit_in_megabytes_counts_binary_ones() {
        assert_eq!(Bytes::from_limit_mb(128), Bytes(134_217_728));
        assert_eq!(Bytes(134_217_728).to_string(), "134.2 MB");
    }
}
