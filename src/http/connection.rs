//! A connection whose reads and writes wait in slices short enough that a deadline and a token are heard.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{KeepAlive, TcpKeepCount, TcpKeepIdle, TcpKeepInterval};

use super::disconnected;
use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::error::{Error, Kind, Result};

/// How often a wait looks at its deadline and its tokens.
const SLICE: Duration = Duration::from_millis(100);

/// How long a peer may be silent before the kernel asks it for a sign of life, and from one asking to the next. A peer
/// that is on no network any more sends no reset, either.
const PROBE_EVERY_S: u32 = 5;

/// How many askings may go unanswered: the peer's kernel answers, even where all its processes are frozen.
const PROBES: u32 = 4;

/// What ends a wait before the peer does.
pub(super) struct Watch<'a> {
    pub(super) deadline: Option<Instant>,
    pub(super) cancel: &'a Cancel,
    /// Triggered once it is known that the peer will not answer.
    pub(super) peer_lost: Option<&'a Cancel>,
}

impl Watch<'_> {
    pub(super) fn check(&self) -> Result<()> {
        self.cancel.check()?;
        if self.peer_lost.is_some_and(Cancel::is_triggered) {
            return Err(Error::with_kind(Kind::Disconnected, "no answer can come any more"));
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::with_kind(Kind::Timeout, "timed out")),
            _ => Ok(()),
        }
    }

    /// How long to wait before the next look: never zero, which would mean for ever.
    pub(super) fn slice(&self) -> Duration {
        let left = self.deadline.map_or(SLICE, |deadline| deadline.since(Instant::now()));
        left.clamp(Duration::from_micros(100), SLICE)
    }
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// How long a read waits, as the kernel was told last; `None`: it was not.
    read_slice: Option<Duration>,
    /// The same of a write.
    write_slice: Option<Duration>,
    /// Does the kernel look after a peer that is silent?
    is_probed: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Connection {
        Connection { stream, read_slice: None, write_slice: None, is_probed: false }
    }

    /// Has the server neither said anything nor hung up since the last exchange?
    pub(super) fn is_quiet(&self) -> bool {
        let mut watched = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut watched, PollTimeout::ZERO), Ok(0))
    }

    pub(super) fn write_all(&mut self, mut message: &[u8], watch: &Watch<'_>) -> Result<()> {
        while !message.is_empty() {
            watch.check()?;
            let slice = Some(watch.slice());
            if self.write_slice != slice {
                self.stream.set_write_timeout(slice).map_err(disconnected)?;
                self.write_slice = slice;
            }
            match self.stream.write(message) {
                Ok(sent) => message = &message[sent..],
                Err(error) if is_pause(&error) => self.probe_peer(),
                Err(error) => return Err(disconnected(error)),
            }
        }
        Ok(())
    }

    /// Appends what comes next to `received`, by way of `piece`; 0 bytes at the end.
    pub(super) fn read_some(
        &mut self,
        received: &mut Vec<u8>,
        piece: &mut [u8],
        watch: &Watch<'_>,
    ) -> Result<usize> {
        loop {
            // Each time, for a server that sends a little now and then leaves no wait that runs out.
            watch.check()?;
            let slice = Some(watch.slice());
            if self.read_slice != slice {
                self.stream.set_read_timeout(slice).map_err(disconnected)?;
                self.read_slice = slice;
            }
            match self.stream.read(piece) {
                Ok(read) => {
                    received.extend_from_slice(&piece[..read]);
                    return Ok(read);
                }
                Err(error) if is_pause(&error) => self.probe_peer(),
                Err(error) => return Err(disconnected(error)),
            }
        }
    }

    /// Has the kernel look after a peer that makes us wait. Not before, since it would be a part of what is measured.
    fn probe_peer(&mut self) {
        if std::mem::replace(&mut self.is_probed, true) {
            return;
        }
        let set = setsockopt(&self.stream, TcpKeepIdle, &PROBE_EVERY_S)
            .and_then(|()| setsockopt(&self.stream, TcpKeepInterval, &PROBE_EVERY_S))
            .and_then(|()| setsockopt(&self.stream, TcpKeepCount, &PROBES))
            .and_then(|()| setsockopt(&self.stream, KeepAlive, &true));
        if let Err(error) = set {
            log::debug!("the kernel does not look after a silent peer: {error}");
        }
    }
}

/// A slice has passed, or a signal came. A peer that did not answer the kernel is another error, `TimedOut`.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn a_peer_that_makes_us_wait_is_looked_after_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut connection = Connection::new(stream);
        let cancel = Cancel::new();
        let soon = Instant::now().after(SLICE / 2);
        let watch = Watch { deadline: Some(soon), cancel: &cancel, peer_lost: None };
        connection.write_all(b"x", &watch).unwrap();
        assert!(!getsockopt(&connection.stream, KeepAlive).unwrap());
        let error = connection.read_some(&mut Vec::new(), &mut [0; 8], &watch).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert!(getsockopt(&connection.stream, KeepAlive).unwrap());
        assert_eq!(getsockopt(&connection.stream, TcpKeepIdle).unwrap(), PROBE_EVERY_S);
        assert_eq!(getsockopt(&connection.stream, TcpKeepCount).unwrap(), PROBES);
    }
}
