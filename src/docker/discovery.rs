//! Finds out from the environment which sockets an engine may listen on, in which order.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::units::{self, Unit};

/// What the environment says of engines.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    /// `DOCKER_HOST`.
    pub(super) docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub(super) docker_context: Option<String>,
    /// `DOCKER_CONFIG`.
    pub(super) docker_config: Option<PathBuf>,
    /// `HOME`.
    pub(super) home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub(super) xdg_runtime_dir: Option<PathBuf>,
    /// `SEBS_LITE_ENGINE_WAIT`.
    pub(super) engine_wait: Option<String>,
}

/// A socket, and who says that an engine listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) socket: PathBuf,
    pub(super) origin: String,
}

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// That of a Podman that root's systemd starts.
const PODMAN_SOCKET: &str = "/run/podman/podman.sock";

impl Environment {
    /// The environment of this process; an empty variable is none.
    pub(super) fn current() -> Environment {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Environment {
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_config: text("DOCKER_CONFIG").map(PathBuf::from),
            home: text("HOME").map(PathBuf::from),
            xdg_runtime_dir: text("XDG_RUNTIME_DIR").map(PathBuf::from),
            engine_wait: text("SEBS_LITE_ENGINE_WAIT"),
        }
    }

    /// How long an engine is waited for that goes away; `None`: nobody says.
    ///
    /// # Errors
    /// `is_usage`: what the variable has is no duration.
    pub(super) fn patience(&self) -> Result<Option<Duration>> {
        let Some(text) = &self.engine_wait else { return Ok(None) };
        let read = units::parse_duration(text, Unit::Seconds);
        read.map(Some).map_err(|error| error.context("SEBS_LITE_ENGINE_WAIT is not as it should be"))
    }

    /// The docker CLI's folder.
    pub(super) fn config_folder(&self) -> Option<PathBuf> {
        self.docker_config.clone().or_else(|| Some(self.home.as_ref()?.join(".docker")))
    }
}

/// The sockets to try, best first; `read` gives the text of a file.
///
/// What the user chose, by `DOCKER_HOST` or by a docker context, is the only one: another engine would do the work in
/// a place where nobody looks for it.
///
/// # Errors
/// `is_usage` when that choice is not a Unix socket, or does not exist.
pub(super) fn candidates(
    environment: &Environment,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Vec<Candidate>> {
    if let Some(host) = &environment.docker_host {
        return Ok(vec![chosen(host, "DOCKER_HOST", environment)?]);
    }
    if let Some((name, host)) = context_host(environment, read)? {
        return Ok(vec![chosen(&host, &format!("docker context `{name}`"), environment)?]);
    }
    let mut candidates = vec![Candidate { socket: DEFAULT_SOCKET.into(), origin: "the default".to_string() }];
    if let Some(folder) = &environment.xdg_runtime_dir {
        let origin = "XDG_RUNTIME_DIR, a rootless engine's".to_string();
        candidates.push(Candidate { socket: folder.join("docker.sock"), origin });
    }
    Ok(candidates)
}

/// Where Podman's service listens, best first. It is never taken of itself: what was measured on one engine is not what
/// was measured on another, and which one runs today is no choice.
pub(super) fn podman_sockets(environment: &Environment) -> Vec<PathBuf> {
    let own = environment.xdg_runtime_dir.iter().map(|folder| folder.join("podman/podman.sock"));
    own.chain([PathBuf::from(PODMAN_SOCKET)]).collect()
}

fn chosen(host: &str, origin: &str, environment: &Environment) -> Result<Candidate> {
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => {
            Ok(Candidate { socket: path.into(), origin: origin.to_string() })
        }
        _ => Err(Error::usage(format!(
            "{origin} names the engine `{host}`, but {}",
            advice(host, environment)
        ))),
    }
}

/// What is wrong with the name of an engine, and what would be right.
fn advice(host: &str, environment: &Environment) -> String {
    let example = format!("unix://{DEFAULT_SOCKET}");
    let Some((scheme, rest)) = host.split_once("://") else {
        let path = absolute(host, environment);
        return format!("it has to begin with `unix://`: unix://{path}");
    };
    match scheme {
        "unix" if rest.is_empty() => format!("no path follows: {example}"),
        "unix" => format!("its path has to be absolute: unix://{}", absolute(rest, environment)),
        "ssh" => format!(
            "only Unix sockets are supported: run this program over there, or forward its socket \
             (`ssh -nNT -L /tmp/engine.sock:{DEFAULT_SOCKET} {rest}`) and name that: unix:///tmp/engine.sock"
        ),
        "fd" => format!(
            "that is how a daemon names a socket it was given; its clients name the socket: {example}"
        ),
        "npipe" => format!("only Unix sockets are supported, and that is Windows' own kind: {example}"),
        _ => format!(
            "only Unix sockets are supported: run this program on that machine, where memory can be sampled, and name \
             its socket: {example}"
        ),
    }
}

/// A path as the user will have meant it, from the root on.
fn absolute(path: &str, environment: &Environment) -> String {
    let home = || environment.home.clone().unwrap_or_else(|| "/home/you".into());
    match path.strip_prefix("~/") {
        Some(rest) => home().join(rest).display().to_string(),
        None => Path::new("/path/to").join(path).display().to_string(),
    }
}

/// Name and address of the docker context that is in use, unless it is the default one.
fn context_host(
    environment: &Environment,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Option<(String, String)>> {
    let Some(folder) = environment.config_folder() else { return Ok(None) };
    let name = match &environment.docker_context {
        Some(name) => Some(name.clone()),
        None => configured_context(&folder.join("config.json"), read)?,
    };
    let Some(name) = name.filter(|name| !name.is_empty() && name != "default") else { return Ok(None) };
    let path = folder.join("contexts/meta").join(hex_sha256(&name)).join("meta.json");
    let text = read(&path).map_err(|error| {
        let message = format!("there is no docker context `{name}`: failed to read `{}`", path.display());
        Error::from_source(Kind::Usage, message, error)
    })?;
    let context: Context = parse(&path, &text)?;
    Ok(Some((name, context.endpoints.docker.host)))
}

/// The context that the docker CLI was told to use; without its configuration, or one we may read, none.
fn configured_context(path: &Path, read: &dyn Fn(&Path) -> io::Result<String>) -> Result<Option<String>> {
    let Ok(text) = read(path) else { return Ok(None) };
    let config: CliConfig = parse(path, &text)?;
    Ok(config.current_context)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::from_source(Kind::Usage, format!("failed to read `{}` as JSON", path.display()), error)
    })
}

fn hex_sha256(text: &str) -> String {
    crate::units::hexadecimal(&Sha256::digest(text.as_bytes()))
}

/// `~/.docker/config.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CliConfig {
    current_context: Option<String>,
}

/// `~/.docker/contexts/meta/<SHA-256 of the name>/meta.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Endpoint,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    host: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `rootless`, by `printf rootless | sha256sum`.
    const META: &str = "/home/me/.docker/contexts/meta/\
                        12b961af5feb3e9d39f93b2cefb9a1a944f18d02cca0cac2f04f5a982240605f/meta.json";

    fn sockets(environment: &Environment, files: &[(&str, &str)]) -> Result<Vec<String>> {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| text.to_string()).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        let found = candidates(environment, &read)?;
        Ok(found.into_iter().map(|candidate| candidate.socket.display().to_string()).collect())
    }

    fn home() -> Environment {
        Environment { home: Some("/home/me".into()), ..Environment::default() }
    }

    #[test]
    fn without_a_choice_the_default_comes_before_the_rootless_socket() {
        let environment = Environment { xdg_runtime_dir: Some("/run/user/1000".into()), ..home() };
        let default = ["/var/run/docker.sock", "/run/user/1000/docker.sock"];
        assert_eq!(sockets(&environment, &[]).unwrap(), default);
        let config = [("/home/me/.docker/config.json", r#"{"auths":{},"currentContext":"default"}"#)];
        assert_eq!(sockets(&environment, &config).unwrap(), default);
    }

    #[test]
    fn docker_host_wins_over_everything() {
        let environment = Environment {
            docker_host: Some("unix:///tmp/d.sock".into()),
            docker_context: Some("missing".into()),
            ..home()
        };
        assert_eq!(sockets(&environment, &[]).unwrap(), ["/tmp/d.sock"]);
    }

    #[test]
    fn what_is_no_unix_socket_is_refused_and_the_user_told_what_would_do() {
        for (host, right) in [
            ("tcp://10.0.0.1:2375", "run this program on that machine"),
            ("https://10.0.0.1:2376", "unix:///var/run/docker.sock"),
            ("ssh://me@lab", "`ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock me@lab`"),
            ("npipe:////./pipe/docker_engine", "Windows"),
            ("fd://", "its clients name the socket: unix:///var/run/docker.sock"),
            ("unix://", "no path follows"),
            ("unix://~/engine.sock", "has to be absolute: unix:///home/me/engine.sock"),
            ("unix://run/engine.sock", "has to be absolute: unix:///path/to/run/engine.sock"),
            ("/var/run/docker.sock", "has to begin with `unix://`: unix:///var/run/docker.sock"),
            ("~/engine.sock", "unix:///home/me/engine.sock"),
        ] {
            let environment = Environment { docker_host: Some(host.into()), ..home() };
            let error = sockets(&environment, &[]).unwrap_err();
            assert!(error.is_usage());
            assert!(error.to_string().contains(host) && error.to_string().contains(right), "{error}");
        }
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let odd = "/tmp/my engine%20/~/d.sock";
        let environment = Environment { docker_host: Some(format!("unix://{odd}")), ..home() };
        assert_eq!(sockets(&environment, &[]).unwrap(), [odd]);
    }

    #[test]
    fn podmans_own_sockets_are_known_and_not_tried() {
        let environment = Environment { xdg_runtime_dir: Some("/run/user/7".into()), ..home() };
        let known = podman_sockets(&environment);
        assert_eq!(
            known,
            [Path::new("/run/user/7/podman/podman.sock"), Path::new("/run/podman/podman.sock")]
        );
        assert!(sockets(&environment, &[]).unwrap().iter().all(|socket| !socket.contains("podman")));
    }

    #[test]
    fn the_docker_context_in_use_is_followed() {
        let meta =
            r#"{"Name":"rootless","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///run/r.sock"}}}"#;
        let config = ("/home/me/.docker/config.json", r#"{"currentContext":"rootless"}"#);
        assert_eq!(sockets(&home(), &[config, (META, meta)]).unwrap(), ["/run/r.sock"]);

        let chosen = Environment { docker_context: Some("rootless".into()), ..home() };
        assert_eq!(sockets(&chosen, &[(META, meta)]).unwrap(), ["/run/r.sock"]);
        let error = sockets(&chosen, &[]).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("no docker context `rootless`"), "{error}");

        let remote = r#"{"Name":"rootless","Endpoints":{"docker":{"Host":"ssh://me@lab"}}}"#;
        let error = sockets(&chosen, &[(META, remote)]).unwrap_err();
        assert!(
            error.to_string().contains("docker context `rootless` names the engine `ssh://me@lab`"),
            "{error}"
        );
    }

    #[test]
    fn how_long_an_engine_is_waited_for_is_a_duration() {
        let wait = |text: Option<&str>| {
            Environment { engine_wait: text.map(str::to_string), ..Environment::default() }.patience()
        };
        assert_eq!(wait(None).unwrap(), None);
        assert_eq!(wait(Some("90")).unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(wait(Some("0s")).unwrap(), Some(Duration::ZERO));
        let error = wait(Some("long")).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("SEBS_LITE_ENGINE_WAIT"), "{error}");
    }

    #[test]
    fn a_broken_configuration_is_named() {
        let error = sockets(&home(), &[("/home/me/.docker/config.json", "{")]).unwrap_err();
        assert!(error.to_string().contains("/home/me/.docker/config.json"), "{error}");
    }
}
