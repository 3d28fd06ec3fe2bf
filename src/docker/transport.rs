//! Connects ureq to the engine's Unix socket.
//!
//! The resolver looks nothing up, because `docker` in `http://docker/…` is the name of no host.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Group, User};
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
        let stream = UnixStream::connect(&*self.socket).map_err(|error| explained(error, &self.socket))?;
        Ok(Some(Connection::new(stream, details.config, self.manners.clone())))
    }
}

/// Does this error of a connect say that there is no engine? While one comes up, its socket may be there already, and
/// not be everybody's yet.
pub(super) fn is_nobody_there(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied)
}

/// What to do about a socket that cannot be connected to.
fn explained(error: io::Error, socket: &Path) -> io::Error {
    let reason = match error.kind() {
        ErrorKind::NotFound => "there is no such socket".to_string(),
        ErrorKind::PermissionDenied => format!("no permission: {}", who_may(socket)),
        ErrorKind::ConnectionRefused => match fs::metadata(socket) {
            Ok(file) if !file.file_type().is_socket() => "that is no socket".to_string(),
            _ => "nobody listens there: is the daemon running?".to_string(),
        },
        _ => return error,
    };
    io::Error::new(error.kind(), reason)
}

/// By which group a socket may be used, or by whom alone.
fn who_may(socket: &Path) -> String {
    const GROUP_MAY_WRITE: u32 = 0o020;
    let Ok(file) = fs::metadata(socket) else {
        return "its folder is not yours to look into: ask whom it belongs to".to_string();
    };
    if file.mode() & GROUP_MAY_WRITE != 0 && file.gid() != 0 {
        let group = Group::from_gid(file.gid().into()).ok().flatten();
        let name = group.map_or_else(|| file.gid().to_string(), |group| group.name);
        return format!("add yourself to the {name} group, and log in anew");
    }
    let owner = User::from_uid(file.uid().into()).ok().flatten();
    let name = owner.map_or_else(|| file.uid().to_string(), |user| user.name);
    format!("only {name} may use it")
}
