//! The writer thread: takes events off the ring and writes them down, in memory or in a file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::encoding::{self, Encoder, FULL_PAYLOAD, MAX_TEXT};
use super::event::{Ending, Event, TargetId, What};
use super::grid::Grid;
use super::note::Note;
use super::recording::{End, Header, Recording, Source};
use super::ring::Consumer;
use super::sebs::Lines;
use super::summary::Summaries;
use crate::clock::{self, Instant};
use crate::error::{Context, Error, Kind, Result};

/// What was sampled is in the file after this long, and one pause of the writer.
const FLUSH: Duration = Duration::from_millis(500);

/// The writer looks into the ring at least this often.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// However fast the ring fills, the writer does not spin.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Where bytes go.
pub(super) enum Sink {
    Nowhere,
    Memory(Vec<u8>),
    File { file: File, path: PathBuf, length: u64 },
}

/// What bytes are made of events.
pub(super) enum Format {
    /// None: summaries are all that is kept.
    Nothing,
    /// Blocks behind a header; `check` is the check sum of the last block, at first that of the header.
    Recording { encoder: Encoder, check: u32 },
    /// SeBS's text.
    Sebs(Lines),
}

impl Format {
    /// Puts into the sink what stands before all events.
    pub(super) fn begin(&mut self, header: &Header, sink: &mut Sink) -> Result<()> {
        let Format::Recording { check, .. } = self else { return Ok(()) };
        let (lines, sum) = header.to_lines();
        *check = sum;
        sink.append(&lines)
    }

    /// Appends an event to a payload; `label` is that of a target that joins.
    fn append(&mut self, payload: &mut Vec<u8>, event: &Event, label: &str) {
        match self {
            Format::Nothing => {}
            Format::Recording { encoder, .. } => encoder.append(payload, event, label),
            Format::Sebs(lines) => lines.append(payload, event, label),
        }
    }

    /// Appends what earlier events left to be said, as far as there is room; `false` if there was nothing.
    fn settle(&mut self, payload: &mut Vec<u8>) -> bool {
        match self {
            Format::Nothing | Format::Recording { .. } => false,
            Format::Sebs(lines) => lines.settle(payload, FULL_PAYLOAD),
        }
    }
}

impl Sink {
    /// A file that is new or empty. A pipe is refused: to open one waits for its reader, and it has no place to write at.
    pub(super) fn create(path: &Path) -> Result<Sink> {
        let about = || format!("failed to create recording `{}`", path.display());
        let conflict = |cause| Error::with_kind(Kind::Conflict, format!("{}: {cause}", about()));
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            return Err(conflict("it is a pipe, and must be a file"));
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).context(about)?;
        // Held as long as the file is open. Of two that find it empty, one would write over the other.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(conflict("another recorder writes to it")),
            Err(TryLockError::Error(error)) => log::debug!("failed to lock `{}`: {error}", path.display()),
        }
        if file.metadata().context(about)?.len() > 0 {
            return Err(conflict("the file holds something already"));
        }
        Ok(Sink::File { file, path: path.to_path_buf(), length: 0 })
    }

    /// Appends all of it, or nothing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Sink::Nowhere => {}
            Sink::Memory(memory) => memory.extend_from_slice(bytes),
            Sink::File { file, path, length } => {
                if let Err(error) = file.write_all_at(bytes, *length) {
                    // What was written of it would be taken for a torn end, or for a line, and what follows for damage.
                    let _ = file.set_len(*length);
                    return Err(error).context(|| format!("failed to write recording `{}`", path.display()));
                }
                *length += bytes.len() as u64;
            }
        }
        Ok(())
    }
}

pub(super) struct Writer {
    grid: Grid,
    ring: Consumer,
    shared: Arc<Shared>,
    sink: Sink,
    format: Format,
    /// Records or lines that are not in the sink yet.
    payload: Vec<u8>,
    summaries: Summaries,
    /// Samples that are not in the sink yet.
    unwritten: BTreeMap<TargetId, u64>,
    /// Why the last attempt to write failed, if it did.
    failure: Option<String>,
    /// No attempt to write is made any more.
    has_given_up: bool,
}

impl Writer {
    /// `sink` holds the header already, where the format has one.
    pub(super) fn new(grid: Grid, ring: Consumer, shared: Arc<Shared>, sink: Sink, format: Format) -> Writer {
        Writer {
            grid,
            ring,
            shared,
            sink,
            format,
            payload: Vec::new(),
            summaries: Summaries::new(grid),
            unwritten: BTreeMap::new(),
            failure: None,
            has_given_up: false,
        }
    }

    /// Writes until the sampling thread has ended; gives what was recorded.
    pub(super) fn run(mut self, header: Header) -> Recording {
        let mut pause = SHORTEST_PAUSE;
        let mut flushed = Instant::now();
        loop {
            // Before the ring is drained: what the sampling thread put in before it was done is seen.
            let is_done = self.shared.done.load(Ordering::Acquire);
            let taken = self.drain();
            self.take_notes();
            if is_done || Instant::now().since(flushed) >= FLUSH {
                self.flush();
                flushed = Instant::now();
            }
            if self.failure.is_some() && (is_done || self.shared.stopping.load(Ordering::Relaxed)) {
                // The sampling thread waits for room in the ring to say its last words.
                self.has_given_up = true;
                self.drain();
            }
            if is_done {
                break;
            }
            if taken > self.ring.capacity() / 4 {
                pause = (pause / 2).max(SHORTEST_PAUSE);
            } else if taken < self.ring.capacity() / 16 {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            std::thread::park_timeout(pause);
        }
        self.finish(header)
    }

    /// Takes events off the ring, as long as they can be kept; says how many.
    fn drain(&mut self) -> usize {
        let mut taken = 0;
        // A disk that is full leaves them in the ring, and a full ring makes the sampling thread count what it loses.
        while self.has_given_up || self.payload.len() < FULL_PAYLOAD || self.flush() {
            if !self.has_given_up && self.format.settle(&mut self.payload) {
                continue;
            }
            let Some(words) = self.ring.pop() else { break };
            self.take(&Event::from_words(words, &self.grid));
            taken += 1;
        }
        taken
    }

    /// Writes down what was told beside the samples, as far as it can be kept.
    fn take_notes(&mut self) {
        if self.payload.len() >= FULL_PAYLOAD && !self.flush() {
            return;
        }
        for note in self.shared.take_notes() {
            self.summaries.note(&note);
            if matches!(self.format, Format::Recording { .. }) {
                self.take_note(&note);
            }
        }
    }

    fn take_note(&mut self, note: &Note) {
        let json = serde_json::to_vec(note).expect("a note is texts and numbers");
        if json.len() > MAX_TEXT {
            log::warn!("a note of {} bytes is too long for a recording", json.len());
        } else if self.has_given_up || (self.payload.len() >= FULL_PAYLOAD && !self.flush()) {
            log::warn!("a note could not be written: {note:?}");
        } else {
            Encoder::append_note(&mut self.payload, &json);
        }
    }

    fn take(&mut self, event: &Event) {
        let mut label = String::new();
        match event.what {
            What::Joined { .. } => label = self.shared.take_label(event.target),
            What::Left { ending: ending @ (Ending::Failed { .. } | Ending::NotANumber), .. } => {
                log::warn!("target {} of the probe: {ending}", event.target.index());
            }
            What::Sample(_) => *self.unwritten.entry(event.target).or_default() += 1,
            _ => {}
        }
        self.summaries.add(event, &label);
        if !self.has_given_up {
            self.format.append(&mut self.payload, event, &label);
        }
    }

    /// Writes what is there; `false` if that fails.
    fn flush(&mut self) -> bool {
        if self.has_given_up {
            return false;
        }
        match self.write() {
            Ok(()) => {
                self.payload.clear();
                self.unwritten.clear();
                if self.failure.take().is_some() {
                    log::info!("the recording can be written again");
                }
                true
            }
            Err(error) => {
                if self.failure.is_none() {
                    log::warn!("{error}; samples will be lost unless this ends soon");
                }
                self.failure = Some(error.to_string());
                false
            }
        }
    }

    fn write(&mut self) -> Result<()> {
        if self.payload.is_empty() {
            return Ok(());
        }
        let Format::Recording { check: last, .. } = &mut self.format else {
            return self.sink.append(&self.payload);
        };
        let mut check = *last;
        self.sink.append(&encoding::block(&self.payload, &mut check))?;
        *last = check;
        Ok(())
    }

    fn finish(mut self, header: Header) -> Recording {
        let end = End {
            end_ns: Instant::now().0,
            sampler_cpu_ns: self.shared.sampler_cpu_ns.load(Ordering::Relaxed),
            writer_cpu_ns: clock::thread_cpu().as_nanos() as u64,
        };
        if !self.has_given_up {
            if matches!(self.format, Format::Recording { .. }) {
                let json = serde_json::to_vec(&end).expect("an end is numbers");
                Encoder::append_end(&mut self.payload, &json);
            }
            while self.flush() && self.format.settle(&mut self.payload) {}
        }
        let mut targets = self.summaries.finish();
        let mut warnings = Vec::new();
        if let Some(failure) = self.failure {
            let mut lost = 0;
            for (target, samples) in &self.unwritten {
                targets[target.index()].lost += samples;
                lost += samples;
            }
            warnings.push(format!("{failure}; the last {lost} samples and the end are missing in it"));
        }
        let source = match (self.sink, self.format) {
            (Sink::Nowhere, _) => Source::Nothing,
            (Sink::Memory(bytes), _) => Source::Memory(bytes),
            (Sink::File { path, .. }, Format::Sebs(_)) => Source::Sebs(path),
            (Sink::File { path, .. }, _) => Source::File(path),
        };
        Recording { header, targets, end: Some(end), warnings, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;

    #[test]
    fn a_file_has_one_recorder() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("recording");
        let sink = Sink::create(&path).unwrap();
        // It is empty still.
        let error = Sink::create(&path).map(|_| ()).unwrap_err();
        assert!(error.to_string().ends_with("another recorder writes to it"), "{error}");
        drop(sink);
        let mut sink = Sink::create(&path).unwrap();
        sink.append(b"x").unwrap();
        drop(sink);
        let error = Sink::create(&path).map(|_| ()).unwrap_err();
        assert!(error.to_string().ends_with("the file holds something already"), "{error}");
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Sink::create(&path).map(|_| ()).unwrap_err();
        assert!(error.to_string().ends_with("it is a pipe, and must be a file"), "{error}");
    }
}
