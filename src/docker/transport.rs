//! Carries ureq's HTTP over the engine's Unix socket, in waits short enough that a cancel token is heard.
//!
//! `ureq::unversioned` lets a program bring its own connector and transport; this is one of each, and a resolver
//! that looks nothing up, because `docker` in `http://docker/…` is the name of no host.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{error, fmt};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use crate::cancel::Cancel;

/// How long a wait may last before the cancel token is looked at again.
const SLICE: Duration = Duration::from_millis(100);

/// An agent whose every connection goes to one socket.
///
/// `peer_stopped_reading` is set once the engine has closed a connection in the middle of a request.
pub(super) fn agent(
    socket: Arc<PathBuf>,
    cancel: Option<Cancel>,
    peer_stopped_reading: Arc<AtomicBool>,
) -> ureq::Agent {
    let config = Config::builder()
        .http_status_as_error(false)
        .proxy(None)
        // The engine redirects only what was not addressed well: an answer like any other that was not hoped for.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("sebs-lite/", env!("CARGO_PKG_VERSION")))
        .build();
    ureq::Agent::with_parts(config, SocketConnector { socket, cancel, peer_stopped_reading }, NoLookup)
}

/// Says why ureq gave up: the caller's cancel token was triggered.
#[derive(Debug)]
pub(super) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl error::Error for Interrupted {}

/// Answers every name with an address that nobody connects to.
#[derive(Debug)]
struct NoLookup;

impl Resolver for NoLookup {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

#[derive(Debug)]
struct SocketConnector {
    socket: Arc<PathBuf>,
    cancel: Option<Cancel>,
    peer_stopped_reading: Arc<AtomicBool>,
}

impl Connector for SocketConnector {
    type Out = SocketTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<SocketTransport>, ureq::Error> {
        // A Unix socket connects at once or not at all, unless a stopped engine's backlog is full.
        let stream = UnixStream::connect(&*self.socket).map_err(explained)?;
        let config = details.config;
        Ok(Some(SocketTransport {
            stream,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            cancel: self.cancel.clone(),
            peer_stopped_reading: self.peer_stopped_reading.clone(),
            deaf: false,
            armed: Armed::default(),
        }))
    }
}

/// What to do about a socket that cannot be connected to.
fn explained(error: io::Error) -> io::Error {
    let reason = match error.kind() {
        ErrorKind::NotFound => "there is no such socket",
        ErrorKind::PermissionDenied => "no permission: add yourself to the docker group, and log in anew",
        ErrorKind::ConnectionRefused => "nobody listens there: is the daemon running?",
        _ => return error,
    };
    io::Error::new(error.kind(), reason)
}

/// One connection, kept by ureq for the next request where the last one was read to its end.
struct SocketTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
    cancel: Option<Cancel>,
    peer_stopped_reading: Arc<AtomicBool>,
    /// Has the engine stopped reading what we send?
    deaf: bool,
    armed: Armed,
}

/// The time-outs that the socket has now, so that setting the same again costs no system call.
#[derive(Default)]
struct Armed {
    read: Option<Duration>,
    write: Option<Duration>,
}

impl fmt::Debug for SocketTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketTransport").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// When to give up, and what to call it.
struct Patience {
    deadline: Option<Instant>,
    timeout: NextTimeout,
}

impl Patience {
    fn new(timeout: NextTimeout) -> Patience {
        // A deadline beyond what the clock can say is none.
        let limit = (!timeout.after.is_not_happening()).then_some(*timeout.after);
        Patience { deadline: limit.and_then(|limit| Instant::now().checked_add(limit)), timeout }
    }

    /// How long the next wait may last.
    fn slice(&self) -> Result<Duration, ureq::Error> {
        let Some(deadline) = self.deadline else { return Ok(SLICE) };
        let left = deadline.saturating_duration_since(Instant::now());
        // The kernel takes a time-out of zero for none.
        if left < Duration::from_micros(1) {
            return Err(ureq::Error::Timeout(self.timeout.reason));
        }
        Ok(left.min(SLICE))
    }
}

/// The error that ends a call once `cancel` has been triggered.
pub(super) fn check(cancel: Option<&Cancel>) -> Result<(), ureq::Error> {
    match cancel {
        Some(cancel) if cancel.is_triggered() => Err(ureq::Error::Other(Box::new(Interrupted))),
        _ => Ok(()),
    }
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends, and goes on as if it had been sent where the engine has hung up.
    ///
    /// An engine that refuses an upload early answers and closes without reading the rest. Its answer, which says
    /// why, waits in the socket: reading comes next, and tells of a lost connection if there is none.
    ///
    /// The cancel token is looked at only when the engine makes us wait. A request is therefore sent whole or not at
    /// all, and whoever lost the answer knows that the engine has begun.
    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let patience = Patience::new(timeout);
        let mut sent = 0;
        while sent < amount && !self.deaf {
            let slice = patience.slice()?;
            if self.armed.write != Some(slice) {
                self.stream.set_write_timeout(Some(slice))?;
                self.armed.write = Some(slice);
            }
            match self.stream.write(&self.buffers.output()[sent..amount]) {
                Ok(written) => sent += written,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                        check(self.cancel.as_ref())?;
                    }
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                        self.deaf = true;
                        self.peer_stopped_reading.store(true, Ordering::Relaxed);
                    }
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let patience = Patience::new(timeout);
        loop {
            check(self.cancel.as_ref())?;
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
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// A kept connection is good if nothing is there to read: neither an end nor an answer that nobody asked for.
    fn is_open(&mut self) -> bool {
        if self.deaf || self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let waits = matches!(self.stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        waits && self.stream.set_nonblocking(false).is_ok()
    }
}
