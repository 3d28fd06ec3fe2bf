//! Connects ureq to the engine's Unix socket.
//!
//! The resolver looks nothing up, because `docker` in `http://docker/…` is the name of no host.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout};

use crate::wire::{self, Connection, Manners};

/// An agent whose every connection goes to one socket.
pub(super) fn agent(socket: Arc<PathBuf>, manners: Manners) -> ureq::Agent {
    ureq::Agent::with_parts(wire::config(), SocketConnector { socket, manners }, NoLookup)
}

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
    manners: Manners,
}

impl Connector for SocketConnector {
    type Out = Connection<UnixStream>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Connection<UnixStream>>, ureq::Error> {
        // A Unix socket connects at once or not at all, unless a stopped engine's backlog is full.
        let stream = UnixStream::connect(&*self.socket).map_err(explained)?;
        Ok(Some(Connection::new(stream, details.config, self.manners.clone())))
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
