//! What the counters say, and the parsing of the kernel's texts into it.

use std::borrow::Cow;

/// One number, or why the kernel does not offer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counter {
    /// It counts this much.
    Value(u64),
    /// There is no such number here, for this reason.
    Absent(Cow<'static, str>),
}

impl Counter {
    /// The number, if there is one.
    pub fn value(&self) -> Option<u64> {
        match self {
            Counter::Value(value) => Some(*value),
            Counter::Absent(_) => None,
        }
    }

    /// Why there is no number.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Counter::Value(_) => None,
            Counter::Absent(reason) => Some(reason),
        }
    }

    pub(super) fn or_absent(value: Option<u64>, reason: &'static str) -> Counter {
        value.map_or(Counter::Absent(Cow::Borrowed(reason)), Counter::Value)
    }

    pub(super) fn map(self, change: impl FnOnce(u64) -> u64) -> Counter {
        match self {
            Counter::Value(value) => Counter::Value(change(value)),
            absent => absent,
        }
    }
}

/// What came of reading a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// It was read.
    Value(T),
    /// The control group was removed: its container has ended.
    Gone,
}

impl<T> Reading<T> {
    /// What was read; `None` once the control group is gone.
    pub fn value(self) -> Option<T> {
        match self {
            Reading::Value(value) => Some(value),
            Reading::Gone => None,
        }
    }
}

/// What came of asking the kernel to count its peak anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeakReset {
    /// From now on the peak is that since now.
    Done,
    /// Not here, for this reason: the peak goes on to be that of the group's whole life.
    Unsupported(Cow<'static, str>),
    /// The control group was removed.
    Gone,
}

/// What the memory of a control group and those below it consists of; `memory.stat`.
///
/// The kernel refreshes these figures every 2 s or after enough changes, so they may lag behind `current`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Anonymous memory: heap, stacks, private mappings. v2 `anon`, v1 `total_rss`.
    pub anon_bytes: Counter,
    /// Page cache, with shared memory and tmpfs. v2 `file`, v1 `total_cache`.
    pub file_bytes: Counter,
    /// Page cache that the kernel would drop first. `inactive_file`, v1 `total_inactive_file`.
    pub inactive_file_bytes: Counter,
    /// Memory of the kernel on behalf of the group. v2 `kernel` (since 5.18), v1 `memory.kmem.usage_in_bytes`.
    pub kernel_bytes: Counter,
    /// What is swapped out. v2 `memory.swap.current`, v1 `total_swap`.
    pub swap_bytes: Counter,
}

/// How often a control group met its limits, since it was made.
///
/// v2 (`memory.events`) counts the groups below it too, v1 the group alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// How often memory ran out at the limit, and could not be won back. v2 `oom`.
    pub oom: Counter,
    /// How many processes were killed for it. v2 `oom_kill`, v1 `oom_kill` of `memory.oom_control` (since 4.13).
    pub oom_kill: Counter,
    /// How often the limit was about to be exceeded. v2 `max`, v1 `memory.failcnt` and `memory.memsw.failcnt` together.
    pub max: Counter,
    /// How often processes were slowed down for being above `memory.high`. v2 `high`.
    pub high: Counter,
}

/// How much processor time a control group and those below it took, since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuUsage {
    /// Processor time in µs, over all processors. v2 `usage_usec` of `cpu.stat`, v1 `cpuacct.usage`.
    pub usage_us: Counter,
    /// How long it was kept from running by its quota, in µs. v2 `throttled_usec`, v1 `throttled_time` of `cpu.stat`.
    pub throttled_us: Counter,
    /// In how many periods its quota was used up. `nr_throttled` of `cpu.stat`.
    pub throttled_periods: Counter,
}

/// As many digits as any number that fits into 64 bits may have without a look at overflow.
const SAFE_DIGITS: usize = 19;

/// The number in a file that holds one and a line end, in bytes or whatever the file counts.
///
/// It does not allocate. `None` for anything else, like the `max` of a limit.
#[inline]
pub fn parse_counter(text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    let (safe, rest) = digits.split_at(digits.len().min(SAFE_DIGITS));
    let mut number = 0;
    for byte in safe {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    let number = rest.iter().try_fold(number, |number: u64, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    (!digits.is_empty()).then_some(number)
}

/// The number after a name, in a file with lines of `name number`; it does not allocate.
pub(super) fn field(text: &[u8], name: &str) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let number = line.strip_prefix(name.as_bytes())?.strip_prefix(b" ")?;
        parse_counter(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_digits_and_nothing_else() {
        assert_eq!(parse_counter(b"9203712\n"), Some(9_203_712));
        assert_eq!(parse_counter(b"0"), Some(0));
        assert_eq!(parse_counter(b"18446744073709551615\n"), Some(u64::MAX));
        for wrong in ["", "\n", "max\n", "-1\n", "18446744073709551616\n", "1\n2\n", " 1\n", "1 \n"] {
            assert_eq!(parse_counter(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let stat = b"anon 67108864\nanon_thp 2097152\nfile 4096\ninactive_file 12\n";
        assert_eq!(field(stat, "anon"), Some(67_108_864));
        assert_eq!(field(stat, "file"), Some(4096));
        assert_eq!(field(stat, "kernel"), None);
        assert_eq!(field(b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
    }
}
