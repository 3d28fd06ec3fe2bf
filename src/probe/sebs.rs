//! SeBS's text of a measurement: a line for each sample, and one for each tick without one.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use super::event::{Event, Gaps, TargetId, What};
use crate::error::{Context, Error, Result};

/// The line for a tick without a sample.
const MISSED: &str = "precision not met\n";

/// A write that a full disk or SIGKILL cuts short ends at a multiple of this many bytes of the file.
const PAGE: usize = 4096;

/// A line longer than this is none of SeBS's: it has a label of at most 4096 bytes, and a number.
const LONGEST: u64 = 3 * PAGE as u64;

/// Turns events into lines.
///
/// SeBS kills its sampler with SIGKILL and reads the file then. No line lies across a multiple of [`PAGE`], so that it never
/// finds a part of one, which it would take for a number or fail at; a blank line, which it skips, fills the gap.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Of targets that have not left.
    labels: BTreeMap<TargetId, String>,
    gaps: Gaps,
    /// Lines for ticks without a sample that are still to be made: how many is not bounded.
    owed: u64,
    /// How long all lines made so far are.
    length: usize,
}

impl Lines {
    /// Says whether a label can stand in a line: SeBS splits it at white space.
    pub(super) fn check_label(label: &str) -> Result<()> {
        if label.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::usage(format!(
                "SeBS's format has no place for label `{}`, which holds white space",
                label.escape_debug()
            )));
        }
        Ok(())
    }

    /// Appends the line of a sample. What an event says of ticks without one is kept for [`Lines::settle`]; the order of lines
    /// means nothing to SeBS. `label` is that of a target that joins.
    pub(super) fn append(&mut self, text: &mut Vec<u8>, event: &Event, label: &str) {
        if let Some(Event { what: What::Missed { first, last }, .. }) = self.gaps.before(event) {
            self.owed += last - first + 1;
        }
        match event.what {
            What::Joined { .. } => {
                self.labels.insert(event.target, label.to_string());
            }
            What::Sample(sample) => {
                let label = self.labels.get(&event.target).map_or("", String::as_str);
                let line = format!("{label} {}\n", sample.bytes.0);
                self.put(text, &line);
            }
            What::Lost { first, last, .. } => self.owed += last - first + 1,
            What::Left { .. } => {
                self.labels.remove(&event.target);
            }
            // Told twice where events come from a recording: the gap before this one's successor says it too.
            What::Missed { .. } => {}
        }
    }

    /// Appends lines that are still to be made, until the text has some `full` bytes; `false` if there was none.
    pub(super) fn settle(&mut self, text: &mut Vec<u8>, full: usize) -> bool {
        let before = self.owed;
        while self.owed > 0 && text.len() < full {
            self.put(text, MISSED);
            self.owed -= 1;
        }
        self.owed < before
    }

    fn put(&mut self, text: &mut Vec<u8>, line: &str) {
        let begin = text.len();
        let left = PAGE - self.length % PAGE;
        if line.len() > left {
            text.resize(begin + left - 1, b' ');
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        self.length += text.len() - begin;
    }
}

/// One line that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A label, and how many bytes were in use.
    Sample(&'a str, u64),
    /// A tick without a sample.
    Missed,
}

/// Reads lines to the end of the text, in bounded memory; blank ones and a last one that is cut are left out. Gives how many
/// were not understood.
pub(super) fn read(reader: &mut impl BufRead, mut take: impl FnMut(Line<'_>)) -> Result<u64> {
    let (mut line, mut strange) = (Vec::new(), 0);
    loop {
        line.clear();
        reader
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .context(|| "failed to read SeBS's lines".to_string())?;
        if !line.ends_with(b"\n") {
            // Longer than any of SeBS's, or the last one, which was cut: its number may lack digits.
            let is_cut = (line.len() as u64) < LONGEST;
            if !is_cut {
                strange += 1;
                reader.skip_until(b'\n').context(|| "failed to read SeBS's lines".to_string())?;
                continue;
            }
            return Ok(strange);
        }
        match parse(&line) {
            Some(Some(line)) => take(line),
            Some(None) => {}
            None => strange += 1,
        }
    }
}

/// What a line says: nothing if it is blank. `None` if it is none of SeBS's.
fn parse(line: &[u8]) -> Option<Option<Line<'_>>> {
    if line == MISSED.as_bytes() {
        return Some(Some(Line::Missed));
    }
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let Some(label) = words.next() else { return Some(None) };
    Some(Some(Line::Sample(label, words.next()?.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::{Ending, Sample};
    use crate::units::Bytes;

    fn event(target: u32, what: What) -> Event {
        Event { target: TargetId(target), what }
    }

    fn sample(tick: u64, bytes: u64) -> What {
        What::Sample(Sample { tick, lateness: Duration::ZERO, bytes: Bytes(bytes) })
    }

    fn counted(text: &[u8]) -> (Vec<(String, u64)>, u64, u64) {
        let (mut samples, mut missed) = (Vec::new(), 0);
        let strange = read(&mut &text[..], |line| match line {
            Line::Sample(label, bytes) => samples.push((label.to_string(), bytes)),
            Line::Missed => missed += 1,
        });
        (samples, missed, strange.unwrap())
    }

    #[test]
    fn each_tick_is_a_line() {
        let (mut lines, mut text) = (Lines::default(), Vec::new());
        for (target, what) in [
            (0, What::Joined { tick: 3 }),
            (1, What::Joined { tick: 3 }),
            (0, sample(3, 10)),
            (1, sample(5, u64::MAX)),
            (0, What::Lost { first: 5, last: 8, samples: 2 }),
            (0, What::Left { tick: 10, ending: Ending::Gone }),
        ] {
            lines.append(&mut text, &event(target, what), if target == 0 { "abc" } else { "d" });
        }
        assert_eq!(text, b"abc 10\nd 18446744073709551615\n");
        // 3, 4 of `d`; 4, 5 to 8, 9 of `abc`.
        assert!(lines.settle(&mut text, 60));
        assert!(lines.settle(&mut text, usize::MAX) && !lines.settle(&mut text, usize::MAX));
        let samples = vec![("abc".to_string(), 10), ("d".to_string(), u64::MAX)];
        assert_eq!(counted(&text), (samples, 8, 0));
    }

    #[test]
    fn no_line_lies_across_a_page() {
        let (mut lines, mut text) = (Lines::default(), Vec::new());
        let id = "0f".repeat(32);
        lines.append(&mut text, &event(0, What::Joined { tick: 0 }), &id);
        for n in 0..1_000 {
            lines.append(&mut text, &event(0, sample(n * 3, 10_u64.pow(n as u32 % 12))), "");
            lines.settle(&mut text, usize::MAX);
        }
        let (samples, missed, strange) = counted(&text);
        assert_eq!((samples.len(), missed, strange), (1_000, 2 * 999, 0));
        for page in text.chunks(PAGE) {
            assert!(page.ends_with(b"\n"));
        }
    }

    #[test]
    fn what_is_none_of_sebs_lines_is_counted_and_a_cut_one_is_not_believed() {
        let samples = vec![("a".to_string(), 1), ("a".to_string(), 2)];
        assert_eq!(
            counted(b"a 1\n\n  \na 2 more\nprecision not met\na\na x\na -1\n\xff 1\na 12"),
            (samples, 1, 4)
        );
        let long = [vec![b'x'; 3 * PAGE + 7], b" 1\na 1\n".to_vec()].concat();
        assert_eq!(counted(&long), (vec![("a".to_string(), 1)], 0, 1));
        assert_eq!(counted(b"precision not met"), (Vec::new(), 0, 0));
    }

    #[test]
    fn a_label_is_one_word() {
        assert!(Lines::check_label("pid-4").is_ok());
        for wrong in ["a b", "a\n", "\u{a0}", "a\u{1c}b"] {
            assert!(Lines::check_label(wrong).unwrap_err().is_usage());
        }
    }
}
