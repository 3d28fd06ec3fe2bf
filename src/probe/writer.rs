//! The writer thread: takes events off the ring and makes blocks of them, in memory or in a file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::encoding::{self, Encoder, FULL_PAYLOAD};
use super::event::{Ending, Event, TargetId, What};
use super::grid::Grid;
use super::recording::{End, Header, Recording, Source};
use super::ring::Consumer;
use super::summary::Summaries;
use crate::clock::{self, Instant};
use crate::error::{Context, Error, Kind, Result};

/// What was sampled is in the file after this long, and one pause of the writer.
const FLUSH: Duration = Duration::from_millis(500);

/// The writer looks into the ring at least this often.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// However fast the ring fills, the writer does not spin.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Where blocks go.
pub(super) enum Sink {
    Memory(Vec<u8>),
    File { file: File, path: PathBuf, length: u64 },
}

impl Sink {
    /// A file that is new or empty.
    pub(super) fn create(path: &Path) -> Result<Sink> {
        let about = || format!("failed to create recording `{}`", path.display());
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).context(about)?;
        if file.metadata().context(about)?.len() > 0 {
            let message = format!("{}: the file holds something already", about());
            return Err(Error::with_kind(Kind::Conflict, message));
        }
        Ok(Sink::File { file, path: path.to_path_buf(), length: 0 })
    }

    /// Appends all of it, or nothing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Sink::Memory(memory) => memory.extend_from_slice(bytes),
            Sink::File { file, path, length } => {
                if let Err(error) = file.write_all_at(bytes, *length) {
                    // What was written of it would be taken for a torn end, and what follows for damage.
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
    encoder: Encoder,
    /// Records that are not in the sink yet.
    payload: Vec<u8>,
    /// Check sum of the last block.
    check: u32,
    summaries: Summaries,
    /// Samples that are not in the sink yet.
    unwritten: BTreeMap<TargetId, u64>,
    /// Why the last attempt to write failed, if it did.
    failure: Option<String>,
    /// No attempt to write is made any more.
    has_given_up: bool,
}

impl Writer {
    /// `sink` holds the header already, whose check sum is `check`.
    pub(super) fn new(grid: Grid, ring: Consumer, shared: Arc<Shared>, sink: Sink, check: u32) -> Writer {
        Writer {
            grid,
            ring,
            shared,
            sink,
            encoder: Encoder::default(),
            payload: Vec::new(),
            check,
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
            let Some(words) = self.ring.pop() else { break };
            self.take(&Event::from_words(words, &self.grid));
            taken += 1;
        }
        taken
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
            self.encoder.append(&mut self.payload, event, &label);
        }
    }

    /// Writes what is there as a block; `false` if that fails.
    fn flush(&mut self) -> bool {
        if self.payload.is_empty() || self.has_given_up {
            return !self.has_given_up;
        }
        let mut check = self.check;
        match self.sink.append(&encoding::block(&self.payload, &mut check)) {
            Ok(()) => {
                self.check = check;
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

    fn finish(mut self, header: Header) -> Recording {
        let end = End {
            end_ns: Instant::now().0,
            sampler_cpu_ns: self.shared.sampler_cpu_ns.load(Ordering::Relaxed),
            writer_cpu_ns: clock::thread_cpu().as_nanos() as u64,
        };
        if !self.has_given_up {
            let json = serde_json::to_vec(&end).expect("an end is numbers");
            Encoder::append_end(&mut self.payload, &json);
            self.flush();
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
        let source = match self.sink {
            Sink::Memory(bytes) => Source::Memory(bytes),
            Sink::File { path, .. } => Source::File(path),
        };
        Recording { header, targets, end: Some(end), warnings, source }
    }
}
