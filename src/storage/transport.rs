//! Carries ureq's HTTP over TCP, in waits short enough that a cancel token is heard.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use crate::cancel::Cancel;

/// How long a wait may last before the cancel token is looked at again.
const SLICE: Duration = Duration::from_millis(100);

/// How long a server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long a server may say nothing, or take nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// An agent without a proxy, whose answers are answers whatever their status.
pub(super) fn agent(cancel: &Cancel) -> ureq::Agent {
    let config = Config::builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("sebs-lite/", env!("CARGO_PKG_VERSION")))
        .build();
    ureq::Agent::with_parts(config, TcpConnector { cancel: cancel.clone() }, DefaultResolver::default())
}

#[derive(Debug)]
struct TcpConnector {
    cancel: Cancel,
}

impl Connector for TcpConnector {
    type Out = TcpTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<TcpTransport>, ureq::Error> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in details.addrs.iter() {
            match TcpStream::connect_timeout(address, CONNECT_LIMIT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let config = details.config;
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    let cancel = self.cancel.clone();
                    return Ok(Some(TcpTransport { stream, buffers, cancel, is_deaf: false }));
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }
}

/// One connection, kept by ureq for the next request where the last one was read to its end.
#[derive(Debug)]
struct TcpTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    cancel: Cancel,
    /// Has the server stopped reading what we send?
    is_deaf: bool,
}

impl TcpTransport {
    /// The error that ends a wait which began then.
    fn check(&self, began: Instant) -> io::Result<()> {
        if self.cancel.is_triggered() {
            return Err(io::Error::other("interrupted"));
        }
        if began.elapsed() > SILENCE_LIMIT {
            return Err(io::Error::new(ErrorKind::TimedOut, "the server is silent"));
        }
        Ok(())
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// Sends, and goes on as if it had been sent where the server has hung up: its answer, which says why it refused,
    /// may wait in the socket, and reading tells of a lost connection if there is none.
    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let mut began = Instant::now();
        let mut sent = 0;
        self.stream.set_write_timeout(Some(SLICE))?;
        while sent < amount && !self.is_deaf {
            self.check(began)?;
            match self.stream.write(&self.buffers.output()[sent..amount]) {
                Ok(written) => {
                    sent += written;
                    began = Instant::now();
                }
                Err(error) if is_pause(&error) => {}
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.is_deaf = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let began = Instant::now();
        self.stream.set_read_timeout(Some(SLICE))?;
        loop {
            self.check(began)?;
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
