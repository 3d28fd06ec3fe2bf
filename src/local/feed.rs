//! Feeds a file in memory with the engine's readings of a container, so that a probe samples it as any counter.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::cancel::Cancel;
use crate::docker::{Engine, MemoryReading};
use crate::error::{Context, Error, Kind, Result};

/// The engine reads each container once a second.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// How long the first reading may take: one or two seconds, unless the engine is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Follows the engine's readings of one container until it ends.
#[derive(Debug)]
pub(super) struct Feed {
    /// The last reading, as 20 digits and a line end, so that its length never changes; empty once the container has ended.
    counter: File,
    /// The kernel's peak by the last reading; 0: the engine does not tell it.
    peak: Arc<AtomicU64>,
    cancel: Cancel,
    /// `None` once it was joined.
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts the thread, and waits for the first reading.
    ///
    /// # Errors
    /// The engine gives no reading: the container has ended (`is_not_found`), or the engine cannot read it either.
    pub(super) fn start(engine: &Engine, id: &str) -> Result<Feed> {
        let about = || "failed to keep the engine's readings".to_string();
        let counter = memfd_create("sebs-lite-engine-stats", MFdFlags::MFD_CLOEXEC);
        let counter = File::from(counter.map_err(std::io::Error::from).context(about)?);
        let (cancel, peak) = (Cancel::new(), Arc::new(AtomicU64::new(0)));
        let (first, is_first) = sync_channel(1);
        let follower = Follower {
            engine: engine.with_cancel(&cancel),
            id: id.to_string(),
            counter: counter.try_clone().context(about)?,
            peak: Arc::clone(&peak),
            first: Some(first),
        };
        let thread = std::thread::Builder::new()
            .name("engine-stats".to_string())
            .spawn(move || follower.run())
            .context(|| "failed to start thread `engine-stats`".to_string())?;
        let feed = Feed { counter, peak, cancel, thread: Some(thread) };
        let deadline = Instant::now() + PATIENCE;
        let asked_for = engine.cancel();
        let outcome = loop {
            match is_first.recv_timeout(Duration::from_millis(50)) {
                Ok(outcome) => break outcome,
                Err(RecvTimeoutError::Disconnected) => break Err(Error::new("thread `engine-stats` ended")),
                Err(RecvTimeoutError::Timeout) if asked_for.is_triggered() => break asked_for.check(),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    let text = format!("the engine gave no reading within {} s", PATIENCE.as_secs());
                    break Err(Error::with_kind(Kind::Timeout, text));
                }
            }
        };
        if let Err(error) = outcome {
            feed.cancel();
            feed.join()?;
            return Err(error);
        }
        Ok(feed)
    }

    /// A descriptor for the probe.
    pub(super) fn counter(&self) -> Result<File> {
        self.counter.try_clone().context(|| "failed to keep the engine's readings".to_string())
    }

    /// The kernel's own peak, where the engine tells it.
    pub(super) fn peak(&self) -> Option<u64> {
        Some(self.peak.load(Ordering::Relaxed)).filter(|peak| *peak > 0)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks the thread to end, which it does within 100 ms.
    pub(super) fn cancel(&self) {
        self.cancel.trigger();
    }

    /// Waits for the end of the thread, which the container's end or [`Feed::cancel`] brings.
    pub(super) fn join(mut self) -> Result<()> {
        let joined = self.thread.take().map_or(Ok(()), JoinHandle::join);
        joined.map_err(|_| Error::new("thread `engine-stats` panicked"))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// What the thread has.
struct Follower {
    engine: Engine,
    id: String,
    counter: File,
    peak: Arc<AtomicU64>,
    /// `None` once it was told how the first reading went.
    first: Option<SyncSender<Result<()>>>,
}

impl Follower {
    fn run(mut self) {
        let id = self.id.clone();
        let followed = self.engine.clone().follow_memory(&id, |reading| match self.take(reading) {
            Ok(()) => {
                self.tell(Ok(()));
                ControlFlow::Continue(())
            }
            Err(error) => {
                self.tell(Err(error));
                ControlFlow::Break(())
            }
        });
        // An empty counter is what the probe knows as the end of a target.
        if let Err(error) = self.counter.set_len(0) {
            log::warn!("the end of container `{id}` cannot be shown to the probe: {error}");
        }
        match followed {
            Err(error) if self.first.is_some() => self.tell(Err(error)),
            Err(error) if !error.is_cancelled() => log::warn!("{error}; its sampling has ended"),
            Err(_) => {}
            Ok(()) => {
                self.tell(Err(Error::with_kind(Kind::NotFound, "the engine has no reading: it has ended")))
            }
        }
    }

    /// Writes a reading where the probe looks: in place and at its full length, so that no read finds the file empty. A read
    /// within the very nanoseconds of the write could find digits of both, and both are once a second.
    fn take(&self, reading: &MemoryReading) -> Result<()> {
        self.peak.fetch_max(reading.peak_bytes.unwrap_or(0), Ordering::Relaxed);
        let text = format!("{:020}\n", reading.usage_bytes);
        let written = self.counter.write_all_at(text.as_bytes(), 0);
        written.context(|| "failed to keep the engine's readings".to_string())
    }

    /// Says once how it began; later failures are logged.
    fn tell(&mut self, outcome: Result<()>) {
        match (self.first.take(), outcome) {
            // Nobody waits any more if the caller gave up.
            (Some(first), outcome) => drop(first.send(outcome)),
            (None, Err(error)) if !error.is_not_found() => log::warn!("{error}"),
            (None, _) => {}
        }
    }
}
