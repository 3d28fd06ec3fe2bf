//! Connects to a peer in waits short enough that a deadline and a cancel token are heard.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, socket};

use super::connection::Watch;
use super::{Limits, disconnected};
use crate::clock::Instant;
use crate::error::{Error, Kind, Result};

pub(super) fn connect(address: SocketAddr, limits: &Limits<'_>, begin: Instant) -> Result<TcpStream> {
    let limit = limits.total.map_or(limits.connect, |total| total.min(limits.connect));
    let watch =
        Watch { deadline: Some(begin.after(limit)), cancel: limits.cancel, peer_lost: limits.peer_lost };
    limits.cancel.check()?;
    let stream = start_connecting(address).map_err(no_connection)?;
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    loop {
        let slice = PollTimeout::try_from(watch.slice()).unwrap_or(PollTimeout::ZERO);
        match poll(&mut watched, slice) {
            Ok(1..) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(no_connection(error.into())),
        }
        watch.check().map_err(|error| {
            let waited = Instant::now().since(begin).as_secs_f64();
            if error.is_timeout() {
                error.context(format!("no connection within {waited:.1} s"))
            } else {
                error
            }
        })?;
    }
    if let Some(error) = stream.take_error().map_err(no_connection)? {
        return Err(no_connection(error));
    }
    stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true)).map_err(disconnected)?;
    Ok(stream)
}

/// A socket that is on its way to be connected: `TcpStream::connect_timeout` would not look at a cancel token.
fn start_connecting(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = TcpStream::from(socket(family, SockType::Stream, flags, None)?);
    let started = match address {
        SocketAddr::V4(address) => nix::sys::socket::connect(stream.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => nix::sys::socket::connect(stream.as_raw_fd(), &SockaddrIn6::from(address)),
    };
    match started {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(stream),
        Err(error) => Err(error.into()),
    }
}

fn no_connection(error: io::Error) -> Error {
    Error::from_source(Kind::Disconnected, "no connection", error)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::super::{Client, Request};
    use super::*;
    use crate::cancel::Cancel;

    #[test]
    fn a_connection_that_nobody_takes_is_given_up_at_the_deadline_and_on_cancel() {
        // The kernel answers no SYN once the queue of a listener is full.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _queued: Vec<_> = (0..4).filter_map(|_| start_connecting(address).ok()).collect();
        let cancel = Cancel::new();
        let mut limits = Limits {
            connect: Duration::from_millis(50),
            total: None,
            max_body_bytes: 10,
            cancel: &cancel,
            peer_lost: None,
        };
        let request = Request { method: "GET", path: "/", body: None };
        let late = Client::new(address, false).send(&request, &limits).1.unwrap_err();
        assert!(late.is_timeout() && late.to_string().contains("no connection within"), "{late}");
        limits.connect = Duration::from_secs(3600);
        std::thread::scope(|scope| {
            scope.spawn(|| cancel.trigger());
            assert!(Client::new(address, false).send(&request, &limits).1.unwrap_err().is_cancelled());
        });
    }
}
