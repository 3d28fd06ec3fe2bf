//! A client of the Docker Engine API over its Unix socket, by blocking `ureq` calls.
//!
//! An [`Engine`] is found, agrees with us on an API version, and then answers one method per call of the API. One that
//! goes away in the middle is waited for (a minute, or as [`Engine::with_patience`] says), and what it was asked for is
//! asked again where that does no harm. Every wait looks at the caller's [`Cancel`] token each 100 ms at the latest.
//! Errors carry the engine's own words and the name of what they are about; `is_not_found`, `is_conflict`, `is_timeout`,
//! `is_cancelled` and `is_disconnected` tell them apart.

mod api;
mod call;
mod containers;
mod credentials;
mod discovery;
mod events;
mod exec;
mod frames;
mod images;
mod info;
mod joined;
mod labels;
mod leftover;
mod libpod;
mod limits;
mod networks;
mod owned;
mod presence;
mod registry;
mod stats;
mod stream;
mod transport;
mod usage;
mod volumes;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::http::Method;

pub use api::*;
pub use containers::Logs;
pub(crate) use containers::{is_port_taken, log_tail, short_id};
pub use frames::Stream;
pub use info::{Info, Limit};
pub use joined::ChosenNetwork;
pub(crate) use joined::{DEFAULT_NETWORK, network_of};
pub(crate) use leftover::{Leftovers, containers_of};
pub use limits::ContainerLimits;
pub use networks::{Ipam, IpamConfig, Network};
pub use owned::{Lifetime, Liveness, OwnedContainer, OwnedVolume, Owner, sweep};
pub use registry::{is_repository, registry_of};
pub use stats::MemoryReading;
pub use usage::ContainerUsage;
pub use volumes::{Volume, VolumeMount};

use crate::cancel::Cancel;
use crate::error::{Context, Error, Kind, Result};
use crate::wire::Manners;
use call::QUICK;
use discovery::{Candidate, Environment};
use presence::{PATIENCE, Presence};

/// The lowest API version that has all we need (Docker 19.03).
const LOWEST_API: (u32, u32) = (1, 40);

/// The highest API version whose answers we know (Docker 27). Engines that speak more speak it, too.
const HIGHEST_API: (u32, u32) = (1, 47);

/// An engine, and the API version to speak with it; clones share their connections.
#[derive(Clone, Debug)]
pub struct Engine {
    agent: ureq::Agent,
    socket: Arc<PathBuf>,
    /// `None`: its calls are clean-up, which goes on.
    cancel: Option<Cancel>,
    /// The token that the caller gives up by; clean-up waits less for an engine that is away once it was triggered.
    given_up: Cancel,
    api_version: Arc<str>,
    presence: Arc<Presence>,
    /// How long the engine is waited for where it goes away.
    patience: Duration,
    /// The docker CLI's folder; `None`: the one of the environment.
    docker_config: Option<Arc<PathBuf>>,
    /// What it said of itself.
    info: Arc<OnceLock<Info>>,
}

impl Engine {
    /// Finds an engine: the one `DOCKER_HOST` names, else that of the docker context in use, else the one behind
    /// `/var/run/docker.sock`, else the one behind `$XDG_RUNTIME_DIR/docker.sock`. `SEBS_LITE_ENGINE_WAIT` says how long
    /// it is waited for where it goes away later; a bare number is seconds.
    ///
    /// # Errors
    /// `is_disconnected`, with each socket tried and why it would not do, and with Podman's, which is never taken of
    /// itself, where that is there; `is_usage` when the environment names an engine that is not behind a Unix socket, or no
    /// duration.
    pub fn connect(cancel: &Cancel) -> Result<Engine> {
        let environment = Environment::current();
        let patience = environment.patience()?.unwrap_or(PATIENCE);
        let candidates = discovery::candidates(&environment, &|path| fs::read_to_string(path))?;
        let podman = discovery::podman_sockets(&environment);
        let engine = Engine::connect_to_first(&candidates, &podman, cancel)?;
        Ok(engine.with_patience(patience))
    }

    /// `podman`: where one may listen, of which the error tells.
    fn connect_to_first(candidates: &[Candidate], podman: &[PathBuf], cancel: &Cancel) -> Result<Engine> {
        let mut failures = Vec::new();
        for candidate in candidates {
            match Engine::connect_to(&candidate.socket, cancel) {
                Err(error) if error.is_disconnected() => {
                    failures.push(format!("{error} ({})", candidate.origin));
                }
                other => return other,
            }
        }
        let mut text = format!("found no Docker engine: {}", failures.join("; "));
        // One that was named is no hint.
        let is_other = |socket: &&PathBuf| candidates.iter().all(|candidate| candidate.socket != **socket);
        if let Some(socket) = podman.iter().filter(is_other).find(|socket| socket.exists()) {
            text += &format!("; Podman's socket is there (DOCKER_HOST=unix://{} uses it)", socket.display());
        }
        Err(Error::with_kind(Kind::Disconnected, text))
    }

    /// The engine behind one socket.
    ///
    /// # Errors
    /// `is_disconnected` when nobody answers there; others when its API is too old, or none.
    pub fn connect_to(socket: &Path, cancel: &Cancel) -> Result<Engine> {
        let engine = Engine::new(Arc::new(socket.to_path_buf()), Some(cancel.clone()), "".into());
        let about = || format!("failed to use the engine at `{}`", socket.display());
        let ping = engine.ping().map_err(|error| match error.is_disconnected() || error.is_cancelled() {
            true => error,
            false => error.context(about()),
        })?;
        let api_version = agreed_version(&ping.api_version).context(about)?;
        log::debug!(
            "engine at `{}` speaks API {}, we speak {api_version}",
            socket.display(),
            ping.api_version
        );
        Ok(Engine { api_version: api_version.into(), ..engine })
    }

    fn new(socket: Arc<PathBuf>, cancel: Option<Cancel>, api_version: Arc<str>) -> Engine {
        let agent =
            transport::agent(socket.clone(), Manners { cancel: cancel.clone(), ..Manners::default() });
        let given_up = cancel.clone().unwrap_or_default();
        Engine {
            agent,
            socket,
            cancel,
            given_up,
            api_version,
            presence: Arc::default(),
            patience: PATIENCE,
            docker_config: None,
            info: Arc::default(),
        }
    }

    /// One that nobody answers for.
    #[cfg(test)]
    pub(crate) fn unreachable(socket: &Path) -> Engine {
        Engine::new(Arc::new(socket.to_path_buf()), None, "1.41".into()).with_patience(Duration::ZERO)
    }

    /// The token that calls of this engine look at.
    pub(crate) fn cancel(&self) -> Cancel {
        self.cancel.clone().unwrap_or_default()
    }

    /// The same engine, whose calls look at another token.
    pub fn with_cancel(&self, cancel: &Cancel) -> Engine {
        let engine = Engine { cancel: Some(cancel.clone()), given_up: cancel.clone(), ..self.clone() };
        engine.with_own_connections()
    }

    /// The same engine, for clean-up: its calls do not look at the cancel token.
    pub fn without_cancel(&self) -> Engine {
        Engine { cancel: None, ..self.clone() }.with_own_connections()
    }

    /// The same engine, on connections that no other value has.
    fn with_own_connections(&self) -> Engine {
        let manners = Manners { cancel: self.cancel.clone(), ..Manners::default() };
        Engine { agent: transport::agent(self.socket.clone(), manners), ..self.clone() }
    }

    /// The same engine, for which credentials for registries come from the `config.json` in `folder`, rather than from
    /// the one in `$DOCKER_CONFIG` or `~/.docker`.
    pub fn with_docker_config(&self, folder: &Path) -> Engine {
        Engine { docker_config: Some(Arc::new(folder.to_path_buf())), ..self.clone() }
    }

    /// The docker CLI's folder; `None`: the environment knows of none.
    fn docker_config(&self) -> Option<PathBuf> {
        let own = self.docker_config.as_deref().cloned();
        own.or_else(|| Environment::current().config_folder())
    }

    /// The socket the engine listens on.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The API version that we and the engine have agreed on: `1.41`.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// `is_disconnected` or `is_timeout` when there is none.
    pub fn ping(&self) -> Result<Ping> {
        self.ping_within(QUICK)
    }

    /// It is the one call that does not wait for an engine that is away.
    fn ping_within(&self, limit: Duration) -> Result<Ping> {
        let answer = self.call_unversioned(Method::GET, "/_ping").within(limit).send_once()?;
        let header = |name| answer.header(name).unwrap_or_default().to_string();
        let ping = Ping { api_version: header("Api-Version"), os_type: header("Ostype") };
        answer.done()?;
        Ok(ping)
    }

    /// Which engine this is.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn version(&self) -> Result<Version> {
        let ask = || self.get("/version").fetch();
        ask().context(|| "failed to ask the engine for its version".to_string())
    }
}

/// The highest version that both speak, given the engine's highest.
fn agreed_version(highest: &str) -> Result<String> {
    let parsed = highest
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
    let Some(theirs) = parsed else {
        return Err(Error::new(format!(
            "it says that its API version is `{highest}`: is it a Docker engine?"
        )));
    };
    if theirs < LOWEST_API {
        let (major, minor) = LOWEST_API;
        return Err(Error::new(format!(
            "it speaks API {highest} and we need {major}.{minor}: upgrade Docker to 19.03, or Podman to 3.0, or newer"
        )));
    }
    let (major, minor) = theirs.min(HIGHEST_API);
    Ok(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::files::TempFolder;

    #[test]
    fn each_socket_tried_is_told_with_who_named_it_and_why_it_would_not_do() {
        let folder = TempFolder::create().unwrap();
        let dead = folder.path().join("dead.sock");
        drop(UnixListener::bind(&dead).unwrap());
        let candidates = [
            Candidate { socket: folder.path().join("missing.sock"), origin: "the default".into() },
            Candidate { socket: dead, origin: "XDG_RUNTIME_DIR".into() },
        ];
        let podman = [folder.path().join("no/podman.sock"), folder.path().join("podman.sock")];
        let failure = || {
            let error = Engine::connect_to_first(&candidates, &podman, &Cancel::new()).unwrap_err();
            assert!(error.is_disconnected());
            error.to_string()
        };
        assert!(!failure().contains("Podman"));
        let _listening = UnixListener::bind(&podman[1]).unwrap();
        let text = failure();
        assert!(text.contains(&format!("(DOCKER_HOST=unix://{} uses it)", podman[1].display())), "{text}");
        assert!(text.contains("missing.sock`: there is no such socket (the default)"), "{text}");
        assert!(
            text.contains("dead.sock`: nobody listens there: is the daemon running? (XDG_RUNTIME_DIR)"),
            "{text}"
        );
    }

    #[test]
    fn the_highest_version_that_both_know_is_spoken() {
        for (theirs, spoken) in [("1.40", "1.40"), ("1.41", "1.41"), ("1.47", "1.47"), ("1.52", "1.47")] {
            assert_eq!(agreed_version(theirs).unwrap(), spoken);
        }
        let error = agreed_version("1.39").unwrap_err().to_string();
        assert!(error.contains("1.39") && error.contains("upgrade Docker"), "{error}");
        assert!(agreed_version("").unwrap_err().to_string().contains("is it a Docker engine?"));
    }
}
