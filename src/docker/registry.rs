//! Exchanges images with registries through the engine: pull, push, and a look at whether one is there.

use serde::Deserialize;

use super::call::{Call, escaped_reference};
use super::credentials::{self, Credentials, HUB};
use super::images::{follow, split};
use super::{Engine, RegistryImage};
use crate::error::{Context, Error, Kind, Result};
use crate::progress::Progress;

impl Engine {
    /// Has the engine fetch an image from its registry; a reference without tag and digest means `latest`.
    ///
    /// There is no time limit: an image may be large and the registry slow. The cancel token ends it. Credentials come
    /// from the docker CLI's configuration, as for all that speaks to a registry.
    ///
    /// # Errors
    /// When the registry cannot be reached, has no such image (`is_not_found`, where the engine can tell), or wants
    /// other credentials (`is_denied`).
    pub fn pull_image(&self, reference: &str, progress: &Progress) -> Result<()> {
        self.pull_image_for(reference, "", progress)
    }

    /// The same for a platform, `linux/arm64`; empty: the engine's own.
    ///
    /// # Errors
    /// Those of [`Engine::pull_image`].
    pub fn pull_image_for(&self, reference: &str, platform: &str, progress: &Progress) -> Result<()> {
        let (repository, version) = split(reference);
        let pull = |access: &Access| {
            let call = self.post("/images/create").query("fromImage", repository);
            let call =
                call.query("tag", version.unwrap_or("latest")).query_unless_empty("platform", platform);
            let answer = access.sign(call).without_limit().send()?;
            follow(answer, &format!("pulling image {reference}"), progress).map(drop)
        };
        // Layers that are there by then are not fetched again.
        let pulled = self.persist(|| self.with_access(reference, pull));
        pulled.context(|| format!("failed to pull image `{reference}`"))
    }

    /// Has the engine send an image to the registry that its reference names, and gives back the digest of what is
    /// there now. The cancel token ends it; what had been sent by then is of no consequence.
    ///
    /// # Errors
    /// `is_not_found` when there is no such image here, `is_denied` when the registry does not take it from whoever the
    /// docker CLI's configuration says we are.
    pub fn push_image(&self, reference: &str, progress: &Progress) -> Result<String> {
        let (repository, version) = split(reference);
        let push = |access: &Access| {
            let path = format!("/images/{}/push", escaped_reference(repository));
            let call = self.post(&path).query("tag", version.unwrap_or("latest"));
            let answer = access.sign(call).without_limit().send()?;
            let outcome = follow(answer, &format!("pushing image {reference}"), progress)?;
            outcome.digest.ok_or_else(|| Error::new("the engine did not say what the registry has now"))
        };
        let push = || {
            // An engine that has no such image says so only in the middle of its answer.
            self.inspect_image(reference)?;
            self.with_access(reference, push)
        };
        self.persist(push).context(|| format!("failed to push image `{reference}`"))
    }

    /// What the registry has by that name, without fetching it; `None`: nothing.
    ///
    /// # Errors
    /// When the registry cannot be reached or wants other credentials (`is_denied`), or the engine has no such call
    /// (`is_unavailable`).
    pub fn find_in_registry(&self, reference: &str) -> Result<Option<RegistryImage>> {
        let find = |access: &Access| {
            let call = self.get(&format!("/distribution/{}/json", escaped_reference(reference)));
            access.sign(call).fetch::<Distribution>()
        };
        match self.with_access(reference, find) {
            Ok(found) => {
                let platforms = found.platforms.unwrap_or_default().into_iter();
                let platforms =
                    platforms.map(|platform| format!("{}/{}", platform.os, platform.architecture));
                Ok(Some(RegistryImage { digest: found.descriptor.digest, platforms: platforms.collect() }))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.context(format!("failed to look for image `{reference}`"))),
        }
    }

    /// Makes a call with the credentials for the registry of `reference`, and puts into words what it says of them.
    fn with_access<T>(&self, reference: &str, call: impl FnOnce(&Access) -> Result<T>) -> Result<T> {
        let registry = registry_of(reference).unwrap_or(HUB);
        let credentials = match self.docker_config() {
            Some(folder) => credentials::find(&folder, registry, &self.cancel())?,
            None => None,
        };
        let access = Access { registry, credentials };
        call(&access).map_err(|error| self.explain(error, &access))
    }

    /// Tells a call of the credentials for all registries that the docker CLI's configuration names.
    ///
    /// # Errors
    /// `is_cancelled` alone.
    pub(super) fn with_all_access<'a>(&self, call: Call<'a>) -> Result<Call<'a>> {
        let Some(folder) = self.docker_config() else { return Ok(call) };
        match credentials::find_all(&folder, &self.cancel()) {
            Ok(known) => Ok(call.header("X-Registry-Config", credentials::config_header(&known))),
            Err(error) if error.is_cancelled() => Err(error),
            // The base image may be here, or for everybody.
            Err(error) => {
                log::warn!("no credentials for base images: {error}");
                Ok(call)
            }
        }
    }

    fn explain(&self, error: Error, access: &Access<'_>) -> Error {
        let registry = access.registry;
        match Refusal::of(&error) {
            None => error,
            Some(Refusal::Missing) => {
                Error::from_source(Kind::NotFound, format!("registry `{registry}` has no such image"), error)
            }
            Some(Refusal::Denied) => {
                let file = self.docker_config().map(|folder| credentials::config_file(&folder));
                let file = file.map_or("the docker configuration".to_string(), |file| format!("`{}`", file.display()));
                let login = if registry == HUB { "docker login".to_string() } else { format!("docker login {registry}") };
                let text = match access.credentials {
                    Some(_) => format!("registry `{registry}` does not grant that to the credentials of {file} (log in again by `{login}`)"),
                    None => format!("registry `{registry}` wants credentials, and {file} has none for it (run `{login}`)"),
                };
                Error::from_source(Kind::Denied, text, error)
            }
            Some(Refusal::Plain) => error.context(format!(
                "registry `{registry}` speaks no TLS (add it to `insecure-registries` of Docker's daemon.json, or with \
                 `insecure = true` to Podman's registries.conf)"
            )),
            Some(Refusal::Unreachable) => {
                error.context(format!("registry `{registry}` cannot be reached by the engine (is it running?)"))
            }
        }
    }
}

/// The registry that a reference names, if it does: its first part, where that has a dot or a port, or is `localhost`.
pub fn registry_of(reference: &str) -> Option<&str> {
    let (first, _) = reference.split_once('/')?;
    let is_registry = first == "localhost" || first.contains(['.', ':']);
    match first {
        "index.docker.io" => Some(HUB),
        _ => is_registry.then_some(first),
    }
}

/// Is this the name of a repository, with its registry or without, and without tag and digest?
/// (<https://github.com/distribution/reference>)
pub fn is_repository(name: &str) -> bool {
    const LONGEST: usize = 255;
    let path = match registry_of(name) {
        Some(_) => {
            let (registry, path) = name.split_once('/').unwrap_or_default();
            if !is_registry_name(registry) {
                return false;
            }
            path
        }
        None => name,
    };
    name.len() <= LONGEST && path.split('/').all(is_path_part)
}

/// A host, and its port where it has one.
fn is_registry_name(registry: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, rest)) = registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let has_port = rest.strip_prefix(':').is_some_and(is_port);
        return address.parse::<std::net::Ipv6Addr>().is_ok() && (rest.is_empty() || has_port);
    }
    let (host, port) = registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(is_allowed)
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Lower-case letters and digits, in words that one period, one or two underscores, or dashes join.
fn is_path_part(part: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between: Vec<&str> = part.split(is_word).filter(|separator| !separator.is_empty()).collect();
    let is_separator =
        |text: &&str| matches!(*text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    part.starts_with(is_word) && part.ends_with(is_word) && between.iter().all(is_separator)
}

/// A registry, and what it is told of who asks.
struct Access<'a> {
    registry: &'a str,
    credentials: Option<Credentials>,
}

impl Access<'_> {
    fn sign<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.header("X-Registry-Auth", credentials::header(self.credentials.as_ref(), self.registry))
    }
}

/// Why a registry was of no use, as far as the engine's words tell: most come with a status that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Missing,
    Denied,
    Plain,
    Unreachable,
}

impl Refusal {
    fn of(error: &Error) -> Option<Refusal> {
        if error.is_not_found() || error.is_cancelled() || error.is_timeout() || error.is_disconnected() {
            return None;
        }
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["manifest unknown", "name unknown"]) {
            return Some(Refusal::Missing);
        }
        if says(&[
            "no basic auth credentials",
            "unauthorized",
            "authentication required",
            "denied",
            "403 Forbidden",
        ]) {
            return Some(Refusal::Denied);
        }
        if says(&["server gave HTTP response to HTTPS client"]) {
            return Some(Refusal::Plain);
        }
        says(&[
            "dial tcp",
            "connection refused",
            "no such host",
            "i/o timeout",
            "TLS handshake timeout",
            ": EOF",
        ])
        .then_some(Refusal::Unreachable)
    }
}

/// The engine's word on what a registry has (`GET /distribution/{name}/json`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Distribution {
    descriptor: Descriptor,
    platforms: Option<Vec<Platform>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_told_from_a_repository() {
        for (reference, registry) in [
            ("busybox:1", None),
            ("sebs-lite:run.local.python.3.11", None),
            ("ada/functions", None),
            ("docker.io/ada/functions", Some("docker.io")),
            ("index.docker.io/ada/functions", Some("docker.io")),
            ("localhost/a", Some("localhost")),
            ("127.0.0.1:5000/a/b:c", Some("127.0.0.1:5000")),
            ("registry.example/a@sha256:0f", Some("registry.example")),
        ] {
            assert_eq!(registry_of(reference), registry, "{reference}");
        }
    }

    #[test]
    fn a_repository_is_told_from_what_no_engine_takes_for_one() {
        for name in [
            "sebs-lite",
            "ada/functions",
            "a.b/c_d/e__f/g---h",
            "localhost:5999/str",
            "Registry.Example:443/a/b",
            "[::1]:5000/a",
        ] {
            assert!(is_repository(name), "{name}");
        }
        let long = "a".repeat(256);
        for name in [
            "",
            "Bad Name",
            "Upper/case",
            "a:1",
            "localhost:5000/a:1",
            "a@sha256:0f",
            "a//b",
            "/a",
            "localhost:x/a",
            "-a.b/c",
            "[::x]:5000/a",
            "a..b",
            "a___b",
            "a._b",
            "a-",
            "ä",
            &long,
        ] {
            assert!(!is_repository(name), "{name}");
        }
    }

    #[test]
    fn what_engines_say_of_registries_is_told_apart() {
        for (text, refusal) in [
            ("Head \"http://r/v2/t/manifests/1\": no basic auth credentials", Some(Refusal::Denied)),
            ("unauthorized: authentication required", Some(Refusal::Denied)),
            ("denied: requested access to the resource is denied", Some(Refusal::Denied)),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                Some(Refusal::Unreachable),
            ),
            ("Get \"https://r/v2/\": http: server gave HTTP response to HTTPS client", Some(Refusal::Plain)),
            (
                "initializing source docker://r/nope:1: reading manifest 1 in r/nope: manifest unknown: manifest unknown",
                Some(Refusal::Missing),
            ),
            ("blob upload invalid", None),
        ] {
            assert_eq!(Refusal::of(&Error::new(text)), refusal, "{text}");
        }
        let missing = Error::with_kind(Kind::NotFound, "pull access denied for x, repository does not exist");
        assert_eq!(Refusal::of(&missing), None);
    }
}
