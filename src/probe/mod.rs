//! `Probe`: samples counters, such as the memory of containers, on one precise schedule.
//!
//! One thread reads every target at each tick of one absolute grid (tick *n* is due at start + *n* · interval by
//! `CLOCK_MONOTONIC`), by one `pread` a target on a descriptor that is held open, and does nothing else: what it reads
//! goes through a bounded ring to a writer thread. A tick that could not be sampled before the next one was due is
//! missed: it is never caught up with and never hidden. Every sample keeps how late it was.
//!
//! ```
//! use std::time::Duration;
//! use sebs_lite::probe::{Probe, ProbeOptions, Target};
//!
//! # fn main() -> sebs_lite::Result<()> {
//! # let path = std::env::temp_dir().join(format!("sebs-lite-doc-{}", std::process::id()));
//! # std::fs::write(&path, "4096\n").expect("there is a temporary folder");
//! let probe = Probe::start(ProbeOptions::new(Duration::from_millis(1)))?;
//! let counter = std::fs::File::open(&path).expect("the counter is there");
//! let target = probe.add(Target { label: "a container's id".to_string(), counter })?;
//! std::thread::sleep(Duration::from_millis(20));
//! let recording = probe.stop()?;
//! let summary = &recording.targets[target.index()];
//! assert_eq!(summary.taken + summary.missed, summary.planned());
//! # std::fs::remove_file(&path).expect("it was there before");
//! # Ok(())
//! # }
//! ```

mod encoding;
mod event;
mod grid;
mod lateness;
mod memory_stats;
mod note;
mod profile;
mod recording;
mod ring;
mod sampler;
mod scheduling;
mod sebs;
mod summary;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use event::{Ending, Event, Sample, TargetId, What};
pub use lateness::Lateness;
pub use memory_stats::{ContainerStats, MemoryStats, SeriesStats};
pub use note::{About, Note};
pub use profile::{Profile, Window};
pub use recording::{End, Events, Header, Recording};
pub use scheduling::{Scheduling, usable_cpus};
pub use summary::TargetSummary;

use encoding::Encoder;
use grid::Grid;
use sampler::{Command, MAX_TARGETS, Sampler};
use sebs::Lines;
use writer::{Format, Sink, Writer};

use crate::clock::{self, Instant};
use crate::error::{Context, Error, Result};
use crate::units::{Bytes, show_duration};

/// The shortest interval that can be asked for; below it a timer alone takes longer than the interval.
pub const SHORTEST_INTERVAL: Duration = Duration::from_micros(20);

/// The longest interval that can be asked for.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// How to sample, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// From one tick to the next, 20 µs to 24 h.
    pub interval: Duration,
    /// Ask for SCHED_FIFO and locked memory; what is not granted becomes a warning in the recording's header. With more
    /// targets than can be read within an interval, the thread then takes a whole CPU from all others.
    pub realtime: bool,
    /// Keep the sampling thread on this CPU, counted from 0; absent: the kernel chooses.
    pub cpu: Option<usize>,
    /// How many samples may wait for the writer; beyond that they are lost, and counted. One takes 24 bytes. Rounded up
    /// to a power of two.
    pub ring_samples: usize,
    /// Where the samples go.
    pub output: Output,
    /// How far the kernel's counter may be from the truth, for the recording's header; absent: not known.
    pub charge_batch: Option<Bytes>,
    /// What the caller wished for and had to do without, a sentence each, for the recording's header.
    pub warnings: Vec<String>,
}

impl ProbeOptions {
    /// Every `interval`, into memory, without special rights, with a ring that takes 1.5 MB.
    pub fn new(interval: Duration) -> ProbeOptions {
        ProbeOptions {
            interval,
            realtime: false,
            cpu: None,
            ring_samples: 1 << 16,
            output: Output::Memory,
            charge_batch: None,
            warnings: Vec::new(),
        }
    }
}

/// Where samples go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Into memory that grows by some 7 bytes a sample, until the probe is stopped.
    Memory,
    /// Into this file, which is new or empty, while sampling goes on; memory stays bounded.
    Stream(PathBuf),
    /// Into this file, which is new or empty, while sampling goes on, as the lines that SeBS's sampler writes:
    /// `<label> <bytes>` a sample, and `precision not met` for each tick that was missed or whose sample was lost. No line
    /// is ever there in part. Labels are then words without white space.
    Sebs(PathBuf),
    /// Nowhere: all that is kept is the summary of each target.
    Summary,
}

impl Output {
    fn begin(&self) -> Result<(Sink, Format)> {
        let recording = || Format::Recording { encoder: Encoder::default(), check: 0 };
        Ok(match self {
            Output::Memory => (Sink::Memory(Vec::new()), recording()),
            Output::Stream(path) => (Sink::create(path)?, recording()),
            Output::Sebs(path) => (Sink::create(path)?, Format::Sebs(Lines::default())),
            Output::Summary => (Sink::Nowhere, Format::Nothing),
        })
    }
}

/// A counter to be sampled.
#[derive(Debug)]
pub struct Target {
    /// How the recording names it, as by the container's id: 1 to 4096 bytes, the same for several if need be.
    pub label: String,
    /// A file from whose beginning a decimal number can be read again and again, such as `memory.current` of a cgroup.
    pub counter: File,
}

/// Samples targets until it is stopped. One that is dropped stops by itself soon after, and its file is complete.
#[derive(Debug)]
pub struct Probe {
    header: Header,
    output: Output,
    /// `None` once it was asked to stop.
    commands: Option<SyncSender<Command>>,
    threads: Option<Threads>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Threads {
    sampler: JoinHandle<()>,
    writer: JoinHandle<Recording>,
}

/// What the caller's threads, the sampling thread and the writer all know.
#[derive(Debug, Default)]
struct Shared {
    /// The probe was asked to stop.
    stopping: AtomicBool,
    /// The sampling thread puts no more into the ring.
    done: AtomicBool,
    /// How many targets are sampled or wait to be.
    active: AtomicUsize,
    sampler_cpu_ns: AtomicU64,
    /// Taken by callers and the writer, never by the sampling thread.
    labels: Mutex<Labels>,
    /// What is to be written beside the samples; as the labels.
    notes: Mutex<Vec<Note>>,
}

#[derive(Debug, Default)]
struct Labels {
    given: u32,
    /// Of targets that the writer does not know yet.
    waiting: BTreeMap<TargetId, String>,
}

impl Shared {
    fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_label(&self, target: TargetId) -> String {
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        labels.waiting.remove(&target).unwrap_or_default()
    }
}

/// Says when dropped, even by a panic, that the sampling thread is done.
struct Done(Arc<Shared>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.sampler_cpu_ns.store(clock::thread_cpu().as_nanos() as u64, Ordering::Relaxed);
        self.0.done.store(true, Ordering::Release);
    }
}

impl Probe {
    /// Starts both threads; there is nothing to sample yet.
    ///
    /// # Errors
    /// The interval is out of bounds, or the file cannot be written or is not empty.
    pub fn start(options: ProbeOptions) -> Result<Probe> {
        if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&options.interval) {
            return Err(Error::usage(format!(
                "a sampling interval of {} is out of bounds: it lies between 20 µs and 24 h",
                show_duration(options.interval)
            )));
        }
        let (mut sink, mut format) = options.output.begin()?;
        let grid = Grid { start: Instant::now(), interval_ns: options.interval.as_nanos() as u64 };
        let shared = Arc::new(Shared::default());
        let (producer, consumer) = ring::ring(options.ring_samples);
        let (commands, receiver) = sync_channel(MAX_TARGETS);
        let (arranged, arrangement) = sync_channel(1);
        let sampler = {
            let done = Done(Arc::clone(&shared));
            let sampler = Sampler::new(grid, producer, receiver, Arc::clone(&shared));
            spawn("probe-sampler", move || {
                let done = done;
                // Nobody waits for it any more if the caller gave up.
                let _ = arranged.send(scheduling::arrange(options.realtime, options.cpu));
                sampler.run();
                drop(done);
            })?
        };
        let (scheduling, warnings) =
            arrangement.recv().map_err(|_| Error::new("the sampling thread ended before it began"))?;
        warnings.iter().for_each(|warning| log::warn!("{warning}"));
        let warnings = [options.warnings.clone(), warnings].concat();
        let header = Header { warnings, ..Header::new(grid, scheduling, options.charge_batch) };
        let begun = format.begin(&header, &mut sink).and_then(|()| {
            let writer = Writer::new(grid, consumer, Arc::clone(&shared), sink, format);
            let header = header.clone();
            spawn("probe-writer", move || writer.run(header))
        });
        let writer = match begun {
            Ok(writer) => writer,
            Err(error) => {
                drop(commands);
                sampler.thread().unpark();
                return Err(error);
            }
        };
        Ok(Probe {
            header,
            output: options.output,
            commands: Some(commands),
            threads: Some(Threads { sampler, writer }),
            shared,
        })
    }

    /// What is known already: the schedule, and what the kernel granted.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Samples a counter from the next tick on.
    ///
    /// # Errors
    /// The label is empty, too long or not fit for the output's format, or there are 1024 targets already.
    pub fn add(&self, target: Target) -> Result<TargetId> {
        let Target { label, counter } = target;
        if label.is_empty() || label.len() > encoding::MAX_TEXT {
            return Err(Error::usage(format!("the label of a target has 1 to {} bytes", encoding::MAX_TEXT)));
        }
        if matches!(self.output, Output::Sebs(_)) {
            Lines::check_label(&label)?;
        }
        let too_many =
            || Error::new(format!("failed to sample `{label}`: there are too many targets already"));
        // Held until the command is sent, so that targets join in the order of their numbers.
        let mut labels = self.shared.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if self.active() >= MAX_TARGETS || labels.given as usize >= event::MAX_IDS {
            return Err(too_many());
        }
        let id = TargetId(labels.given);
        labels.waiting.insert(id, label.clone());
        self.shared.active.fetch_add(1, Ordering::Relaxed);
        if self.send(Command::Add(id, counter)).is_err() {
            labels.waiting.remove(&id);
            self.shared.active.fetch_sub(1, Ordering::Relaxed);
            return Err(too_many());
        }
        labels.given += 1;
        Ok(id)
    }

    /// Ends the series of a target, before the next tick at the latest; no harm if it has ended already.
    ///
    /// # Errors
    /// More commands wait than the probe can take up between two ticks: try again.
    pub fn remove(&self, target: TargetId) -> Result<()> {
        self.send(Command::Remove(target))
    }

    fn send(&self, command: Command) -> Result<()> {
        let Some(commands) = &self.commands else { return Err(Error::new("the probe was stopped")) };
        let sent = commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => Error::new("the probe has not taken up the last 1024 commands yet"),
            TrySendError::Disconnected(_) => Error::new("the sampling thread has ended"),
        });
        if let Some(threads) = &self.threads {
            threads.sampler.thread().unpark();
        }
        sent
    }

    /// Writes a note into the recording, beside the samples; nothing on the sampling thread's way changes. One of more than
    /// 4096 bytes as JSON is left out, with a warning in the log.
    pub fn note(&self, note: Note) {
        self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// How many targets have not ended yet: those that are gone or removed do not count.
    pub fn active(&self) -> usize {
        self.shared.active.load(Ordering::Relaxed)
    }

    /// Ends all series, waits until all is written, and gives the recording. A file that could not be written to the end
    /// is no error: the recording's `warnings` and each target's `lost` say so, and what was written can be read.
    ///
    /// # Errors
    /// One of the threads panicked.
    pub fn stop(mut self) -> Result<Recording> {
        self.ask_to_stop();
        let threads = self.threads.take().ok_or_else(|| Error::new("the probe was stopped"))?;
        let sampled = threads.sampler.join();
        threads.writer.thread().unpark();
        let recording = threads.writer.join().map_err(|_| Error::new("the probe's writer panicked"))?;
        sampled.map_err(|_| Error::new("the sampling thread panicked"))?;
        Ok(recording)
    }

    fn ask_to_stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.commands = None;
        if let Some(threads) = &self.threads {
            threads.sampler.thread().unpark();
            threads.writer.thread().unpark();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let spawned = std::thread::Builder::new().name(name.to_string()).spawn(run);
    spawned.context(|| format!("failed to start thread `{name}`"))
}
