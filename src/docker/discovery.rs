//! Finds out from the environment which sockets an engine may listen on, in which order.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

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
}

/// A socket, and who says that an engine listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) socket: PathBuf,
    pub(super) origin: String,
}

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

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
        }
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
        return Ok(vec![chosen(host, "DOCKER_HOST")?]);
    }
    if let Some((name, host)) = context_host(environment, read)? {
        return Ok(vec![chosen(&host, &format!("docker context `{name}`"))?]);
    }
    let mut candidates = vec![Candidate { socket: DEFAULT_SOCKET.into(), origin: "the default".to_string() }];
    if let Some(folder) = &environment.xdg_runtime_dir {
        let origin = "XDG_RUNTIME_DIR, a rootless engine's".to_string();
        candidates.push(Candidate { socket: folder.join("docker.sock"), origin });
    }
    Ok(candidates)
}

fn chosen(host: &str, origin: &str) -> Result<Candidate> {
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => {
            Ok(Candidate { socket: path.into(), origin: origin.to_string() })
        }
        _ => Err(Error::usage(format!(
            "{origin} names the engine `{host}`, but only Unix sockets are supported: unix:///path/to/docker.sock"
        ))),
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
        for host in ["tcp://10.0.0.1:2375", "ssh://me@lab", "unix://", "/var/run/docker.sock"] {
            let environment = Environment { docker_host: Some(host.into()), ..home() };
            let error = sockets(&environment, &[]).unwrap_err();
            assert!(error.is_usage());
            assert!(error.to_string().contains(host) && error.to_string().contains("unix:///"), "{error}");
        }
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
    fn a_broken_configuration_is_named() {
        let error = sockets(&home(), &[("/home/me/.docker/config.json", "{")]).unwrap_err();
        assert!(error.to_string().contains("/home/me/.docker/config.json"), "{error}");
    }
}
