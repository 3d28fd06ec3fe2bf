//! Finds out by which credentials the docker CLI would speak to a registry: its configuration file and its helpers.
//!
//! The file is the one that `docker login` writes (<https://docs.docker.com/reference/cli/docker/login/>); a helper is a
//! program `docker-credential-<name>` that answers on its standard output. Nothing of what is found is ever shown.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::error::{Context, Error, Kind, Result};

/// The registry of a reference that names none.
pub(super) const HUB: &str = "docker.io";

/// The name by which the docker CLI keeps the credentials of that registry.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How long a helper may take, which may ask the user to open a keychain.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// How often the wait for a helper looks at the cancel token.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// More than any helper has to say.
const MOST_HELPER_BYTES: u64 = 1 << 20;

/// The user name by which a helper says that its secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What a registry is to be told about who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password { username: String, password: String },
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// The value of the engine's `X-Registry-Auth` header: without credentials, those of nobody, which some engines insist
/// on being told.
pub(super) fn header(credentials: Option<&Credentials>, registry: &str) -> String {
    let told = credentials.map_or(serde_json::json!({}), |credentials| credentials.told_to(key(registry)));
    URL_SAFE.encode(told.to_string())
}

/// The value of the engine's `X-Registry-Config` header, for an image whose base images may be in any of some registries.
pub(super) fn config_header(known: &BTreeMap<String, Credentials>) -> String {
    let told = known.iter().map(|(registry, credentials)| {
        let server = key(registry);
        (server.to_string(), credentials.told_to(server))
    });
    URL_SAFE.encode(serde_json::Value::Object(told.collect()).to_string())
}

impl Credentials {
    fn told_to(&self, server: &str) -> serde_json::Value {
        match self {
            Credentials::Password { username, password } => {
                serde_json::json!({"username": username, "password": password, "serveraddress": server})
            }
            Credentials::IdentityToken(token) => {
                serde_json::json!({"identitytoken": token, "serveraddress": server})
            }
        }
    }
}

/// The credentials for a registry in the docker CLI's folder; `None`: there are none.
///
/// A helper that fails is a warning: the registry may not want any.
///
/// # Errors
/// The configuration file is there but cannot be read or understood; `is_cancelled`.
pub(super) fn find(folder: &Path, registry: &str, cancel: &Cancel) -> Result<Option<Credentials>> {
    let config = read(&config_file(folder))?;
    config.credentials(folder, registry, cancel)
}

/// The credentials for every registry that the docker CLI's folder names, as the CLI sends them for a build: which of
/// them a Dockerfile is about, the engine finds out.
///
/// # Errors
/// The configuration file is there but cannot be read or understood; `is_cancelled`.
pub(super) fn find_all(folder: &Path, cancel: &Cancel) -> Result<BTreeMap<String, Credentials>> {
    let config = read(&config_file(folder))?;
    let mut known = BTreeMap::new();
    for registry in config.auths.keys().chain(config.helpers.keys()).map(|name| registry_named(name)) {
        if known.contains_key(registry) {
            continue;
        }
        match config.credentials(folder, registry, cancel) {
            Ok(Some(credentials)) => drop(known.insert(registry.to_string(), credentials)),
            Ok(None) => {}
            Err(error) if error.is_cancelled() => return Err(error),
            // The build may have nothing to do with that registry.
            Err(error) => log::warn!("no credentials for registry `{registry}`: {error}"),
        }
    }
    Ok(known)
}

/// The CLI's configuration; without a file, an empty one.
fn read(path: &Path) -> Result<Config> {
    match std::fs::read(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(error).context(|| format!("failed to read `{}`", path.display())),
    }
}

/// The file in the docker CLI's folder that has credentials.
pub(super) fn config_file(folder: &Path) -> PathBuf {
    folder.join("config.json")
}

/// The name that the docker CLI keeps a registry's credentials by.
fn key(registry: &str) -> &str {
    if registry == HUB { HUB_KEY } else { registry }
}

/// What of the CLI's configuration is about credentials.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Stored>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

/// What the file itself says of a registry; empty: nothing.
#[derive(Default, Deserialize)]
struct Stored {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

fn parse(path: &Path, text: &[u8]) -> Result<Config> {
    serde_json::from_slice(text).map_err(|error| {
        // The reason tells place and type alone, never a value.
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::usage(format!("`{}` is not a docker configuration ({place})", path.display()))
    })
}

impl Config {
    /// What its helper or it itself has for a registry.
    fn credentials(&self, folder: &Path, registry: &str, cancel: &Cancel) -> Result<Option<Credentials>> {
        if let Some(helper) = self.helper(registry) {
            match ask_helper(helper, key(registry), cancel) {
                Ok(Some(credentials)) => return Ok(Some(credentials)),
                Ok(None) => {}
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => log::warn!("no credentials for registry `{registry}`: {error}"),
            }
        }
        let about = || format!("`{}` is damaged (log in again)", config_file(folder).display());
        self.stored(registry).context(about)
    }

    /// The helper to ask about a registry.
    fn helper(&self, registry: &str) -> Option<&str> {
        let own =
            self.helpers.iter().find(|(name, _)| registry_named(name) == registry).map(|(_, helper)| helper);
        own.or(Some(&self.store)).map(String::as_str).filter(|helper| !helper.is_empty())
    }

    /// What the file itself has for a registry.
    fn stored(&self, registry: &str) -> Result<Option<Credentials>> {
        let exact = self.auths.get(key(registry));
        let alike =
            || self.auths.iter().find(|(name, _)| registry_named(name) == registry).map(|(_, stored)| stored);
        exact.or_else(alike).map_or(Ok(None), Stored::credentials)
    }
}

/// The registry that a name in the file is about: it may have scheme and path, as older versions of the CLI wrote it.
fn registry_named(name: &str) -> &str {
    let bare = name.strip_prefix("https://").or(name.strip_prefix("http://")).unwrap_or(name);
    match bare.split('/').next().unwrap_or_default() {
        "index.docker.io" | "docker.io" | "registry-1.docker.io" => HUB,
        host => host,
    }
}

impl Stored {
    fn credentials(&self) -> Result<Option<Credentials>> {
        if !self.identity_token.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identity_token.clone())));
        }
        if self.auth.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            let is_told = !username.is_empty() && !password.is_empty();
            return Ok(is_told.then_some(Credentials::Password { username, password }));
        }
        let decoded = STANDARD.decode(&self.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((username, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
            return Err(Error::usage("an `auth` in it is not the base64 form of `user:password`"));
        };
        // Older versions of the CLI filled it up with zeros.
        let password = password.trim_end_matches('\0').to_string();
        Ok(Some(Credentials::Password { username: username.to_string(), password }))
    }
}

/// What a helper knows of a registry.
fn ask_helper(helper: &str, server: &str, cancel: &Cancel) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{helper}");
    let about = || format!("failed to run credential helper `{program}`");
    if helper.contains('/') {
        return Err(Error::new(format!("`{program}` is no name of a credential helper")));
    }
    let mut command = Command::new(&program);
    // What it writes to standard error might hold what nobody is to see.
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut group = Group(command.spawn().context(about)?);
    let mut stdin = group.0.stdin.take().expect("it is piped");
    let stdout = group.0.stdout.take().expect("it is piped");
    // One that does not want to know has hung up, and its answer says why.
    let _ = stdin.write_all(server.as_bytes());
    drop(stdin);
    let (sender, answers) = mpsc::channel();
    let reader = std::thread::Builder::new().name("credentials".to_string()).spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.take(MOST_HELPER_BYTES).read_to_end(&mut answer);
        let _ = sender.send(read.map(|_| answer));
    });
    reader.context(about)?;
    let deadline = Instant::now().after(HELPER_LIMIT);
    let answer = loop {
        match answers.recv_timeout(LOOK_EVERY) {
            Ok(answer) => break answer.context(about)?,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::new(about())),
            Err(RecvTimeoutError::Timeout) => cancel.check()?,
        }
        if Instant::now() >= deadline {
            let limit = HELPER_LIMIT.as_secs();
            let text = format!("credential helper `{program}` did not answer within {limit} s");
            return Err(Error::with_kind(Kind::Timeout, text));
        }
    };
    understand(&program, &answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// A helper's answer: JSON, or a sentence that says that there is nothing.
fn understand(program: &str, answer: &[u8]) -> Result<Option<Credentials>> {
    if let Ok(HelperAnswer { username, secret }) = serde_json::from_slice(answer) {
        return Ok(Some(match username.as_str() {
            TOKEN_USER => Credentials::IdentityToken(secret),
            _ => Credentials::Password { username, password: secret },
        }));
    }
    if String::from_utf8_lossy(answer).contains("credentials not found") {
        return Ok(None);
    }
    Err(Error::new(format!("credential helper `{program}` gave no answer that it should give")))
}

/// A helper and what it started, which end with this.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { username: username.to_string(), password: password.to_string() })
    }

    fn config(text: &str) -> Config {
        parse(Path::new("config.json"), text.as_bytes()).unwrap()
    }

    #[test]
    fn a_registry_is_found_under_each_name_it_was_ever_kept_by() {
        // `ada:se:cret`, `bob:hush` and two zeros, `hub:x`.
        let config = config(
            r#"{"auths": {"127.0.0.1:5000": {"auth": "YWRhOnNlOmNyZXQ="},
                          "https://old.example/v1/": {"auth": "Ym9iOmh1c2gAAA=="},
                          "https://index.docker.io/v1/": {"auth": "aHViOng="},
                          "token.example": {"auth": "aHViOng=", "identitytoken": "t0"},
                          "elsewhere.example": {}, "plain.example": {"username": "u", "password": "p"}},
                "currentContext": "other"}"#,
        );
        let stored = |registry| config.stored(registry).unwrap();
        assert_eq!(stored("127.0.0.1:5000"), password("ada", "se:cret"));
        assert_eq!(stored("old.example"), password("bob", "hush"));
        assert_eq!(stored(HUB), password("hub", "x"));
        assert_eq!(stored("token.example"), Some(Credentials::IdentityToken("t0".to_string())));
        assert_eq!(stored("plain.example"), password("u", "p"));
        for none in ["elsewhere.example", "127.0.0.1:5001", "127.0.0.1", "example"] {
            assert_eq!(stored(none), None, "{none}");
        }
        assert_eq!(config.helper(HUB), None);
    }

    #[test]
    fn a_build_is_told_of_all_that_there_are() {
        let folder = std::env::temp_dir().join(format!("sebs-lite-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHViOng="}, "none.example": {},
            "damaged.example": {"auth": "aHVzaA=="}, "token.example": {"identitytoken": "t0"}}}"#;
        std::fs::write(config_file(&folder), text).unwrap();
        let known = find_all(&folder, &Cancel::new()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), [HUB, "token.example"]);
        let told = URL_SAFE.decode(config_header(&known)).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told[HUB_KEY]["username"], "hub");
        assert_eq!(told["token.example"]["identitytoken"], "t0");
        assert_eq!(find_all(&folder, &Cancel::new()).unwrap(), BTreeMap::new());
    }

    #[test]
    fn a_registry_s_own_helper_comes_before_the_store() {
        let config = config(r#"{"credHelpers": {"ecr.example": "ecr"}, "credsStore": "pass"}"#);
        assert_eq!(config.helper("ecr.example"), Some("ecr"));
        assert_eq!(config.helper("other.example"), Some("pass"));
    }

    #[test]
    fn what_is_damaged_is_told_without_a_word_of_it() {
        for damaged in [r#"{"auths": {"r": {"auth": ["hush"]}}}"#, r#"{"auths": {"r": {"auth": "hush"}"#] {
            let error = parse(Path::new("c.json"), damaged.as_bytes()).err().unwrap().to_string();
            assert!(error.contains("c.json") && !error.contains("hush"), "{error}");
        }
        let error = config(r#"{"auths": {"r": {"auth": "aHVzaA=="}}}"#).stored("r").unwrap_err().to_string();
        assert!(error.contains("user:password") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn a_helper_answers_with_a_password_a_token_or_nothing() {
        let understand = |answer: &str| understand("docker-credential-x", answer.as_bytes());
        let answer = r#"{"ServerURL": "r", "Username": "ada", "Secret": "secret"}"#;
        assert_eq!(understand(answer).unwrap(), password("ada", "secret"));
        let token = understand(r#"{"ServerURL": "r", "Username": "<token>", "Secret": "t0"}"#).unwrap();
        assert_eq!(token, Some(Credentials::IdentityToken("t0".to_string())));
        assert_eq!(understand("credentials not found in native keychain\n").unwrap(), None);
        assert!(understand("").is_err());
    }

    #[test]
    fn the_header_is_padded_base64_that_an_address_may_hold() {
        let decoded = |text: &str| String::from_utf8(URL_SAFE.decode(text).unwrap()).unwrap();
        assert_eq!(decoded(&header(None, "r")), "{}");
        let told: serde_json::Value =
            serde_json::from_str(&decoded(&header(password("a", "b").as_ref(), HUB))).unwrap();
        assert_eq!(
            told,
            serde_json::json!({"username": "a", "password": "b", "serveraddress": "https://index.docker.io/v1/"})
        );
        assert_eq!(format!("{:?}", password("ada", "hush")), "Some(Credentials(hidden))");
    }
}
