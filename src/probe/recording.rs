//! A recording: its header, what it says of each target, and its events read again from memory or a file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::encoding::{Decoder, FULL_PAYLOAD, Record, crc32};
use super::event::{Event, Gaps, Sample, TargetId, What};
use super::grid::Grid;
#[cfg(test)]
use super::note::About;
use super::note::Note;
use super::scheduling::Scheduling;
use super::sebs::Lines;
use super::summary::{Summaries, TargetSummary};
use crate::clock::{Anchor, Instant};
use crate::error::{Context, Error, Kind, Result};
use crate::units::Bytes;
use crate::{files, process};

/// What the first line of a recording begins with; the number is the version of the format.
const MAGIC: &str = "sebs-lite recording 1";

/// What the recordings of every version begin with.
pub(super) const ANY_VERSION: &[u8] = b"sebs-lite recording ";

/// The longest header, in bytes, that is believed to be one.
const MAX_HEADER: u64 = 1 << 20;

/// What is known of a recording when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The program that recorded, with its version.
    pub program: String,
    /// The clock of all instants: `CLOCK_MONOTONIC`, which counts from the start of the machine.
    pub clock: String,
    /// From one tick to the next, in ns.
    pub interval_ns: u64,
    /// When tick 0 was due, by that clock, in ns.
    pub start_ns: u64,
    /// The same instant in wall-clock time: RFC 3339, UTC.
    pub start_time: String,
    /// The same instant in ns since 1970-01-01 UTC.
    pub start_epoch_ns: u64,
    /// Which start of the machine the clock counts from: `/proc/sys/kernel/random/boot_id`; absent where it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// How the kernel treats the sampling thread.
    pub scheduling: Scheduling,
    /// How far the kernel's counter may be above the memory in use, in bytes; absent where the caller did not say. Linux charges memory to each CPU in batches of 64 pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge_batch_bytes: Option<u64>,
    /// What was wished for and not granted, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Header {
    pub(super) fn new(grid: Grid, scheduling: Scheduling, charge_batch: Option<Bytes>) -> Header {
        let anchor = Anchor::now();
        Header {
            program: concat!("sebs-lite ", env!("CARGO_PKG_VERSION")).to_string(),
            clock: "CLOCK_MONOTONIC".to_string(),
            interval_ns: grid.interval_ns,
            start_ns: grid.start.0,
            start_time: anchor.rfc3339(grid.start),
            start_epoch_ns: anchor.epoch_ns(grid.start),
            boot_id: process::boot_id().ok(),
            scheduling,
            charge_batch_bytes: charge_batch.map(|bytes| bytes.0),
            warnings: Vec::new(),
        }
    }

    /// From one tick to the next.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval_ns)
    }

    /// When that tick was due.
    pub fn due(&self, tick: u64) -> Instant {
        self.grid().due(tick)
    }

    /// When that sample was taken.
    pub fn instant(&self, sample: &Sample) -> Instant {
        self.due(sample.tick).after(sample.lateness)
    }

    fn grid(&self) -> Grid {
        Grid { start: Instant(self.start_ns), interval_ns: self.interval_ns }
    }

    /// The two lines that a recording begins with, and the check sum that the first block goes on from.
    pub(super) fn to_lines(&self) -> (Vec<u8>, u32) {
        let json = serde_json::to_string(self).expect("a header is texts and numbers");
        let check = crc32(&[json.as_bytes()]);
        (format!("{MAGIC} {check:08x}\n{json}\n").into_bytes(), check)
    }

    fn read(reader: &mut impl BufRead) -> Result<(Header, u32)> {
        let mut line = || {
            let mut line = Vec::new();
            let read = reader.take(MAX_HEADER).read_until(b'\n', &mut line);
            read.context(|| "failed to read the header".to_string())?;
            Ok::<_, Error>(String::from_utf8_lossy(&line).into_owned())
        };
        let first = line()?;
        let Some(sum) = first.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' ')) else {
            let about = match first.strip_prefix("sebs-lite recording ") {
                Some(rest) if first.ends_with('\n') => {
                    let version = rest.split(' ').next().unwrap_or(rest).trim();
                    format!("its format is `{version}`, and this program knows 1: read it with a newer one")
                }
                _ => format!("it does not begin with `{MAGIC}`"),
            };
            return Err(Error::usage(format!("this is no recording that can be read: {about}")));
        };
        let second = line()?;
        let (Some(sum), Some(json)) = (sum.strip_suffix('\n'), second.strip_suffix('\n')) else {
            return Err(Error::usage("the recording ends within its header, so nothing was recorded"));
        };
        let check = crc32(&[json.as_bytes()]);
        if sum != format!("{check:08x}") {
            return Err(Error::new("the recording is damaged in its header"));
        }
        let header: Header = serde_json::from_str(json).map_err(|error| {
            Error::from_source(Kind::Other, "failed to read the recording's header", error)
        })?;
        if header.interval_ns == 0 {
            return Err(Error::new("the recording's header says an interval of 0"));
        }
        Ok((header, check))
    }
}

/// What is known of a recording only at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The monotonic clock when it ended, in ns.
    pub end_ns: u64,
    /// CPU time that the sampling thread used in all, in ns.
    pub sampler_cpu_ns: u64,
    /// CPU time that the writer used in all, in ns.
    pub writer_cpu_ns: u64,
}

/// What was recorded, and where it can be read again: nowhere if the probe wrote SeBS's text, or kept summaries alone.
#[derive(Debug)]
pub struct Recording {
    /// What was known when it began.
    pub header: Header,
    /// Each target that ever joined, in that order.
    pub targets: Vec<TargetSummary>,
    /// What was known at its end; absent if the recording was cut, as by SIGKILL.
    pub end: Option<End>,
    /// What went wrong while it was recorded, a sentence each; beyond the header's, known only to who recorded it.
    pub warnings: Vec<String>,
    pub(super) source: Source,
}

/// Where the bytes of a recording are.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Vec<u8>),
    File(PathBuf),
    /// SeBS's text.
    Sebs(PathBuf),
    Nothing,
}

impl Recording {
    /// Reads a recording from a file, once as a whole, in bounded memory. One that was cut is read up to the cut.
    ///
    /// # Errors
    /// The file cannot be read, is no recording, or is damaged anywhere but at a torn end.
    pub fn open(path: &Path) -> Result<Recording> {
        Recording::load(Source::File(path.to_path_buf()))
    }

    /// Reads a recording from the bytes of a file.
    ///
    /// # Errors
    /// As of [`Recording::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Recording> {
        Recording::load(Source::Memory(bytes))
    }

    fn load(source: Source) -> Result<Recording> {
        let (header, mut decoder) = source.read()?;
        let mut summaries = Summaries::new(header.grid());
        let mut end = None;
        while let Some(record) = decoder.next().context(|| source.about())? {
            match record {
                Record::Joined(event, label) => summaries.add(&event, &label),
                Record::Event(event) => summaries.add(&event, ""),
                Record::Note(json) => {
                    if let Some(note) = parse_note(&json) {
                        summaries.note(&note);
                    }
                }
                Record::End(json) => {
                    let parsed = serde_json::from_slice(&json);
                    end = Some(parsed.map_err(|error| {
                        Error::from_source(Kind::Other, format!("{}: its end", source.about()), error)
                    })?);
                }
            }
        }
        drop(decoder);
        Ok(Recording { header, targets: summaries.finish(), end, warnings: Vec::new(), source })
    }

    /// The file that it, or SeBS's text of it, is in; `None` if it is in none.
    pub fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::Memory(_) | Source::Nothing => None,
            Source::File(path) | Source::Sebs(path) => Some(path),
        }
    }

    /// What happened, target by target mixed, in the order of time; missed ticks stand where they show, which is before
    /// the next thing that happened to their target.
    ///
    /// # Errors
    /// The recording cannot be opened, or, as the last item, cannot be read on; `is_usage` if the probe's output holds no
    /// events.
    pub fn events(&self) -> Result<Events<'_>> {
        let (_, decoder) = self.source.read()?;
        Ok(Events { decoder: Some(decoder), gaps: Gaps::default(), following: None, source: &self.source })
    }

    /// The samples of one target, in the order of time.
    ///
    /// # Errors
    /// As of [`Recording::events`].
    pub fn samples(&self, target: TargetId) -> Result<impl Iterator<Item = Result<Sample>> + '_> {
        let events = self.events()?;
        Ok(events.filter_map(move |event| match event {
            Ok(Event { target: of, what: What::Sample(sample) }) => (of == target).then_some(Ok(sample)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }))
    }

    /// What the recording says beside its samples, in the order in which it was told. A kind of note that this program
    /// does not know is left out.
    ///
    /// # Errors
    /// As of [`Recording::events`].
    pub fn notes(&self) -> Result<Vec<Note>> {
        let (_, mut decoder) = self.source.read()?;
        let mut notes = Vec::new();
        while let Some(record) = decoder.next().context(|| self.source.about())? {
            if let Record::Note(json) = record {
                notes.extend(parse_note(&json));
            }
        }
        Ok(notes)
    }

    /// Writes the lines that SeBS's sampler writes: `<label> <bytes>` a sample, and `precision not met` for each tick that
    /// was missed or whose sample was lost.
    ///
    /// # Errors
    /// The recording cannot be read, a label holds white space, or `out` cannot be written.
    pub fn write_sebs(&self, out: &mut dyn Write) -> Result<()> {
        self.targets.iter().try_for_each(|target| Lines::check_label(&target.label))?;
        let about = || "failed to write SeBS's lines".to_string();
        let (mut lines, mut text) = (Lines::default(), Vec::new());
        for event in self.events()? {
            let event = event?;
            let label = self.targets.get(event.target.index()).map_or("", |target| &target.label);
            lines.append(&mut text, &event, label);
            loop {
                lines.settle(&mut text, FULL_PAYLOAD);
                if text.len() < FULL_PAYLOAD {
                    break;
                }
                out.write_all(&text).context(about)?;
                text.clear();
            }
        }
        out.write_all(&text).context(about)
    }

    /// Writes the recording to a file, in the format in which it is streamed.
    ///
    /// # Errors
    /// The recording cannot be read, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        match &self.source {
            Source::Memory(bytes) => files::write(path, bytes, files::Access::Everyone),
            Source::File(source) => files::copy_file(source, path),
            Source::Sebs(_) | Source::Nothing => Err(self.source.unreadable()),
        }
    }
}

/// The note that a record holds, if this program knows its kind.
fn parse_note(json: &[u8]) -> Option<Note> {
    let note = serde_json::from_slice(json);
    note.inspect_err(|error| log::debug!("a note in the recording is not understood: {error}")).ok()
}

/// The events of a recording; see [`Recording::events`].
pub struct Events<'a> {
    /// `None` after an error.
    decoder: Option<Decoder<Box<dyn Read + 'a>>>,
    gaps: Gaps,
    /// What comes after the missed ticks that were just given.
    following: Option<Event>,
    source: &'a Source,
}

impl Iterator for Events<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        if let Some(event) = self.following.take() {
            return Some(Ok(event));
        }
        loop {
            let event = match self.decoder.as_mut()?.next().context(|| self.source.about()) {
                Ok(Some(Record::Event(event) | Record::Joined(event, _))) => event,
                Ok(Some(Record::End(_) | Record::Note(_))) => continue,
                Ok(None) => return None,
                Err(error) => {
                    self.decoder = None;
                    return Some(Err(error));
                }
            };
            return Some(Ok(match self.gaps.before(&event) {
                Some(missed) => {
                    self.following = Some(event);
                    missed
                }
                None => event,
            }));
        }
    }
}

impl Source {
    fn read(&self) -> Result<(Header, Decoder<Box<dyn Read + '_>>)> {
        let mut reader: Box<dyn BufRead + '_> = match self {
            Source::Memory(bytes) => Box::new(bytes.as_slice()),
            Source::File(path) => Box::new(BufReader::new(File::open(path).context(|| self.about())?)),
            Source::Sebs(_) | Source::Nothing => return Err(self.unreadable()),
        };
        let (header, check) = Header::read(&mut reader).context(|| self.about())?;
        Ok((header, Decoder::new(Box::new(reader), check)))
    }

    fn unreadable(&self) -> Error {
        let told = match self {
            Source::Sebs(path) => format!("`{}` is in SeBS's format, which holds no times", path.display()),
            _ => "samples were not kept, only the summary of each target".to_string(),
        };
        Error::usage(format!("there is nothing to be read again: {told}; sample into a recording instead"))
    }

    fn about(&self) -> String {
        match self {
            Source::Memory(_) | Source::Nothing => "failed to read a recording".to_string(),
            Source::File(path) | Source::Sebs(path) => {
                format!("failed to read recording `{}`", path.display())
            }
        }
    }
}

#[cfg(test)]
impl Recording {
    /// A recording of just these events and notes, each with the number of its target, as if a probe had written it.
    pub(crate) fn literal(
        header: Header,
        labels: &[&str],
        events: &[(u32, What)],
        notes: &[(u32, About)],
        end: Option<End>,
    ) -> Recording {
        use super::encoding::{Encoder, block};
        let (mut bytes, mut check) = header.to_lines();
        let mut encoder = Encoder::default();
        let mut append = |write: &mut dyn FnMut(&mut Vec<u8>)| {
            let mut payload = Vec::new();
            write(&mut payload);
            bytes.extend(block(&payload, &mut check));
        };
        for (target, what) in events {
            let event = Event { target: TargetId(*target), what: *what };
            append(&mut |payload| encoder.append(payload, &event, labels[*target as usize]));
        }
        for (target, about) in notes {
            let note = Note { target: TargetId(*target), about: about.clone() };
            append(&mut |payload| Encoder::append_note(payload, &serde_json::to_vec(&note).unwrap()));
        }
        if let Some(end) = end {
            append(&mut |payload| Encoder::append_end(payload, &serde_json::to_vec(&end).unwrap()));
        }
        Recording::from_bytes(bytes).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_written_and_one_that_is_damaged_or_cut_is_refused() {
        let grid = Grid { start: Instant(5), interval_ns: 1_000_000 };
        let header = Header::new(grid, Scheduling::default(), Some(Bytes(262_144)));
        let (bytes, check) = header.to_lines();
        assert_eq!(Header::read(&mut bytes.as_slice()).unwrap(), (header, check));
        for cut in 0..bytes.len() {
            assert!(Recording::from_bytes(bytes[..cut].to_vec()).unwrap_err().is_usage(), "cut at {cut}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 2;
            assert!(Recording::from_bytes(damaged).is_err(), "byte {place}");
        }
        let newer = String::from_utf8(bytes).unwrap().replace("recording 1 ", "recording 2 ");
        let error = Recording::from_bytes(newer.into_bytes()).unwrap_err().to_string();
        assert!(error.contains("its format is `2`"), "{error}");
    }
}
