//! Carries ureq's HTTP over a stream, in waits short enough that a cancel token is heard.
//!
//! `ureq::unversioned` lets a program bring its own connector and transport; the connectors stand with the clients that
//! know whom to connect to, and this is the transport of them all.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{error, fmt};

use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use crate::cancel::Cancel;

/// How long a wait may last before the cancel token is looked at again.
const SLICE: Duration = Duration::from_millis(100);

/// The settings of an agent without a proxy, whose answers are answers whatever their status.
pub(crate) fn config() -> Config {
    Config::builder()
        .http_status_as_error(false)
        .proxy(None)
        // A redirection is an answer like any other that was not hoped for: it has been addressed wrongly.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("sebs-lite/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Says why ureq gave up: the caller's cancel token was triggered.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl error::Error for Interrupted {}

/// The error that ends a call once `cancel` has been triggered.
pub(crate) fn check(cancel: Option<&Cancel>) -> Result<(), ureq::Error> {
    match cancel {
        Some(cancel) if cancel.is_triggered() => Err(ureq::Error::Other(Box::new(Interrupted))),
        _ => Ok(()),
    }
}

/// What bytes go through, on this machine or to another.
pub(crate) trait Stream: Read + Write + fmt::Debug + Send + Sync + 'static {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()>;
    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()>;
    fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        UnixStream::set_read_timeout(self, limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        UnixStream::set_write_timeout(self, limit)
    }

    fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        UnixStream::set_nonblocking(self, is_nonblocking)
    }
}

impl Stream for TcpStream {
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        TcpStream::set_read_timeout(self, limit)
    }

    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        TcpStream::set_write_timeout(self, limit)
    }

    fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        TcpStream::set_nonblocking(self, is_nonblocking)
    }
}

/// When a connection is given up, beside ureq's own time-outs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    /// Ends each wait once it is triggered.
    pub(crate) cancel: Option<Cancel>,
    /// How long the peer may say nothing, or take nothing; `None`: for ever.
    pub(crate) silence: Option<Duration>,
    /// Set once the peer has closed a connection in the middle of a request.
    pub(crate) peer_stopped_reading: Arc<AtomicBool>,
}

/// One connection, kept by ureq for the next request where the last one was read to its end.
pub(crate) struct Connection<S> {
    stream: S,
    buffers: LazyBuffers,
    manners: Manners,
    /// Has the peer stopped reading what we send?
    is_deaf: bool,
    armed: Armed,
}

/// The time-outs that the stream has now, so that setting the same again costs no system call.
#[derive(Default)]
struct Armed {
    read: Option<Duration>,
    write: Option<Duration>,
}

impl<S: Stream> Connection<S> {
    pub(crate) fn new(stream: S, config: &Config, manners: Manners) -> Connection<S> {
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Connection { stream, buffers, manners, is_deaf: false, armed: Armed::default() }
    }
}

impl<S: Stream> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// When to give up, and what to call it.
struct Patience {
    deadline: Option<Instant>,
    timeout: NextTimeout,
    silence: Option<Duration>,
    last_progress: Instant,
}

impl Patience {
    fn new(timeout: NextTimeout, silence: Option<Duration>) -> Patience {
        let now = Instant::now();
        // A deadline beyond what the clock can say is none.
        let limit = (!timeout.after.is_not_happening()).then_some(*timeout.after);
        let deadline = limit.and_then(|limit| now.checked_add(limit));
        Patience { deadline, timeout, silence, last_progress: now }
    }

    /// How long the next wait may last.
    fn slice(&self) -> Result<Duration, ureq::Error> {
        if self.silence.is_some_and(|limit| self.last_progress.elapsed() > limit) {
            return Err(io::Error::new(ErrorKind::TimedOut, "the server is silent").into());
        }
        let Some(deadline) = self.deadline else { return Ok(SLICE) };
        let left = deadline.saturating_duration_since(Instant::now());
        // The kernel takes a time-out of zero for none.
        if left < Duration::from_micros(1) {
            return Err(ureq::Error::Timeout(self.timeout.reason));
        }
        Ok(left.min(SLICE))
    }
}

/// Has a wait ended only so that the cancel token can be looked at?
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl<S: Stream> Transport for Connection<S> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends, and goes on as if it had been sent where the peer has hung up.
    ///
    /// Who refuses an upload early answers and closes without reading the rest. Its answer, which says why, waits in
    /// the stream: reading comes next, and tells of a lost connection if there is none.
    ///
    /// The cancel token is looked at only when the peer makes us wait. A request is therefore sent whole or not at all,
    /// and whoever lost the answer knows that the peer has begun. What is uploaded looks at the token by itself.
    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let mut patience = Patience::new(timeout, self.manners.silence);
        let mut sent = 0;
        while sent < amount && !self.is_deaf {
            let slice = patience.slice()?;
            if self.armed.write != Some(slice) {
                self.stream.set_write_timeout(Some(slice))?;
                self.armed.write = Some(slice);
            }
            match self.stream.write(&self.buffers.output()[sent..amount]) {
                Ok(written) => {
                    sent += written;
                    patience.last_progress = Instant::now();
                }
                Err(error) if is_pause(&error) => check(self.manners.cancel.as_ref())?,
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.is_deaf = true;
                    self.manners.peer_stopped_reading.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let patience = Patience::new(timeout, self.manners.silence);
        loop {
            check(self.manners.cancel.as_ref())?;
            let slice = patience.slice()?;
            if self.armed.read != Some(slice) {
                self.stream.set_read_timeout(Some(slice))?;
                self.armed.read = Some(slice);
            }
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A kept connection is good if nothing is there to read: neither an end nor an answer that nobody asked for.
    fn is_open(&mut self) -> bool {
        if self.is_deaf || self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let waits = matches!(self.stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        waits && self.stream.set_nonblocking(false).is_ok()
    }
}
