//! Connects ureq to a storage over TCP.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectionDetails, Connector};

use crate::cancel::Cancel;
use crate::wire::{self, Connection, Manners};

/// How long a server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long a server that is worked with may say nothing, or take nothing.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// An agent that gives up once `cancel` is triggered, and a server that says nothing, or takes nothing, for `silence`.
pub(super) fn agent(cancel: &Cancel, silence: Duration) -> ureq::Agent {
    let manners = Manners { cancel: Some(cancel.clone()), silence: Some(silence), ..Manners::default() };
    ureq::Agent::with_parts(wire::config(), TcpConnector { manners }, DefaultResolver::default())
}

#[derive(Debug)]
struct TcpConnector {
    manners: Manners,
}

impl Connector for TcpConnector {
    type Out = Connection<TcpStream>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Connection<TcpStream>>, ureq::Error> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in details.addrs.iter() {
            match TcpStream::connect_timeout(address, CONNECT_LIMIT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Some(Connection::new(stream, details.config, self.manners.clone())));
                }
                Err(error) => last = error,
            }
        }
        if last.kind() == ErrorKind::TimedOut {
            // Not to be taken for the silence of a server that was reached.
            return Err(ureq::Error::Timeout(ureq::Timeout::Connect));
        }
        Err(last.into())
    }
}
