//! Where a package's tools run: in a container of the runtime image, or on this host that the image was imported from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{self, Outcome, on_path};
use super::layout::log_line;
use crate::cancel::Cancel;
use crate::docker::{ContainerSpec, Engine, HostConfig, Lifetime, LogConfig, Owner};
use crate::error::{Error, Kind, Result};
use crate::files::{self, Access};
use crate::runtime::RuntimeImage;

/// Where a container sees the build folder: the place the function will see it at.
const FUNCTION: &str = "/function";
/// Where a container sees the folder with our scripts.
const TOOLS: &str = "/sebs-lite-tools";
/// Where a container sees the user's certificates.
const CERTIFICATES: &str = "/sebs-lite-certificates";

/// Runs the tools that fill one build folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Installer<'a> {
    /// The engine for containers; `None`: there is none, and only a host's interpreter will do.
    pub(super) engine: Option<&'a Engine>,
    /// The image that the package is for.
    pub(super) image: &'a RuntimeImage,
    /// The build folder, absolute.
    pub(super) folder: &'a Path,
    /// A folder for scripts of ours and what they fetch, absolute; it outlives the build.
    pub(super) tools: &'a Path,
    pub(super) cancel: &'a Cancel,
    pub(super) verbose: bool,
}

/// One command, run in the build folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    pub(super) program: &'a str,
    pub(super) arguments: &'a [&'a str],
    /// Added to the settings of the user that hold anyway.
    pub(super) environment: &'a [(&'a str, &'a str)],
    /// What its output is logged under.
    pub(super) name: &'a str,
}

impl Installer<'_> {
    /// The path of the build folder, as the tools see it.
    pub(super) fn root(&self) -> String {
        if self.is_on_host() { self.folder.to_string_lossy().into_owned() } else { FUNCTION.to_string() }
    }

    /// The interpreter to call: the host's own, or the one called `name` in the image.
    pub(super) fn interpreter(&self, name: &str) -> String {
        match &self.image.interpreter {
            Some(path) => path.to_string_lossy().into_owned(),
            None => name.to_string(),
        }
    }

    /// The npm to call.
    pub(super) fn npm(&self) -> Result<String> {
        let missing = |place: String| {
            Error::with_kind(
                Kind::NotFound,
                format!("`npm` is needed to install what its `package.json` asks for, and {place} has none"),
            )
        };
        match &self.image.interpreter {
            Some(node) => {
                let beside = node.with_file_name("npm");
                let npm = if beside.is_file() { Ok(beside) } else { on_path("npm") };
                let npm =
                    npm.map_err(|_| missing("this machine, where the runtime image is from,".to_string()))?;
                Ok(npm.to_string_lossy().into_owned())
            }
            None if self.has_programs(&["npm"])? => Ok("npm".to_string()),
            None => Err(missing(format!("the runtime image `{}`", self.image.reference))),
        }
    }

    /// Puts a script of ours where the tools see it, and gives its path and that of its folder as they see them.
    pub(super) fn tool(&self, name: &str, content: &str) -> Result<(String, String)> {
        files::write(&self.tools.join(name), content.as_bytes(), Access::Everyone)?;
        let folder =
            if self.is_on_host() { self.tools.to_string_lossy().into_owned() } else { TOOLS.to_string() };
        Ok((format!("{folder}/{name}"), folder))
    }

    /// Are all these programs there where the tools run? On the host they are taken to be.
    pub(super) fn has_programs(&self, names: &[&str]) -> Result<bool> {
        if self.is_on_host() {
            return Ok(true);
        }
        let script = r#"for name in "$@"; do command -v "$name" >/dev/null || exit 1; done"#;
        let arguments: Vec<&str> = ["-c", script, "sh"].iter().chain(names).copied().collect();
        let task = Task { program: "/bin/sh", arguments: &arguments, environment: &[], name: "sh" };
        Ok(self.run(&task)?.success)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// It cannot be started, or the caller's cancel token was triggered. A failure of its own is in the outcome.
    pub(super) fn run(&self, task: &Task<'_>) -> Result<Outcome> {
        if self.is_on_host() { self.run_on_host(task) } else { self.run_in_container(task) }
    }

    /// Runs a command on this host, wherever the others run.
    ///
    /// # Errors
    /// As [`run`](Installer::run).
    pub(super) fn run_on_host(&self, task: &Task<'_>) -> Result<Outcome> {
        let mut command = Command::new(task.program);
        command.args(task.arguments).envs(task.environment.iter().copied()).current_dir(self.folder);
        if let Some(folder) = self.image.interpreter.as_deref().and_then(Path::parent) {
            // npm starts whatever `node` comes first.
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path));
            if let Ok(path) = std::env::join_paths(folders) {
                command.env("PATH", path);
            }
        }
        command::run(command, self.cancel, |line| log_line(self.verbose, task.name, line))
    }

    fn is_on_host(&self) -> bool {
        self.image.interpreter.is_some()
    }

    fn run_in_container(&self, task: &Task<'_>) -> Result<Outcome> {
        let Some(engine) = self.engine else {
            return Err(Error::new(
                "a Docker engine is needed to install dependencies with this runtime image",
            ));
        };
        let settings = Settings::of(std::env::vars(), |path| path.exists());
        let mut environment = settings.environment;
        environment.push(("HOME".to_string(), "/tmp".to_string()));
        environment
            .extend(task.environment.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        files::create_folder(self.tools)?;
        let mut binds = settings.binds;
        binds.push(format!("{}:{FUNCTION}", self.folder.display()));
        binds.push(format!("{}:{TOOLS}", self.tools.display()));
        let spec = ContainerSpec {
            image: self.image.id.clone(),
            entrypoint: Some(vec![task.program.to_string()]),
            cmd: task.arguments.iter().map(|argument| argument.to_string()).collect(),
            env: environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
            user: engine.info()?.caller(),
            working_dir: FUNCTION.to_string(),
            host_config: confined(binds),
            ..ContainerSpec::default()
        };
        let name = format!("sebs-lite-build-{}", files::random_hex(12));
        let container = engine.create_owned(&Owner::current()?, &Lifetime::Run, &name, spec)?;
        engine.start_container(container.id())?;
        let mut lines = Lines::default();
        let mut report = |line: &str| log_line(self.verbose, task.name, line);
        engine.follow_logs(container.id(), &mut |_, bytes| lines.push(bytes, &mut report))?;
        let code = engine.wait_container(container.id(), None)?;
        container.remove()?;
        let lines = lines.finish();
        Ok(Outcome { success: code == 0, status: format!("exit status: {code}"), lines })
    }
}

/// What the host grants a container that does our work on the user's files.
pub(super) fn confined(binds: Vec<String>) -> HostConfig {
    // Where SELinux is on, a container may read the user's files only after they are labelled anew, which is not ours to
    // do with certificates and data: such a container goes without a label of its own.
    let security_opt = vec!["no-new-privileges".to_string(), "label=disable".to_string()];
    let log_config = Some(LogConfig::readable());
    HostConfig { binds, cap_drop: vec!["ALL".to_string()], security_opt, log_config, ..HostConfig::default() }
}

/// Pieces of output put together to lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    lines: Vec<String>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(&str)) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_string();
            on_line(&line);
            self.lines.push(line);
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.rest.is_empty() {
            self.lines.push(String::from_utf8_lossy(&self.rest).into_owned());
        }
        self.lines
    }
}

/// The user's settings for proxies, certificates and package indexes, as a container can have them.
#[derive(Debug, Default)]
struct Settings {
    environment: Vec<(String, String)>,
    binds: Vec<String>,
}

/// Passed on as they are, besides proxies and npm's.
const PLAIN: [&str; 13] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_TRUSTED_HOST",
    "PIP_PROXY",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_TIMEOUT",
    "PIP_RETRIES",
    "PIP_PRE",
    "PIP_ONLY_BINARY",
    "PIP_NO_BINARY",
    "PIP_PREFER_BINARY",
    "PIP_DISABLE_PIP_VERSION_CHECK",
];
/// Name a file, which is mounted.
const FILES: [&str; 8] = [
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONSTRAINT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
];
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];
/// npm's settings about its registry; the others are about places of this host.
const NPM: [&str; 10] = [
    "registry",
    "proxy",
    "https_proxy",
    "noproxy",
    "strict_ssl",
    "ca",
    "fetch_retries",
    "fetch_timeout",
    "replace_registry_host",
    "offline",
];

impl Settings {
    /// What of `variables` holds in a container too; `exists` says whether a path is there on this host.
    fn of(variables: impl Iterator<Item = (String, String)>, exists: impl Fn(&Path) -> bool) -> Settings {
        let mut settings = Settings::default();
        let mut mounts: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut mount = |path: &Path, at: String| mounts.entry(path.to_path_buf()).or_insert(at).clone();
        for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
            let upper = name.to_uppercase();
            if FILES.contains(&upper.as_str()) {
                let path = Path::new(&value);
                if path.is_absolute() && exists(path) {
                    let inside = mount(path, format!("{CERTIFICATES}/{upper}"));
                    settings.environment.push((name, inside));
                }
            } else if name == "PIP_FIND_LINKS" {
                let there: Vec<&str> = value
                    .split_whitespace()
                    .filter(|place| place.contains("://") || exists(Path::new(place)))
                    .collect();
                for folder in there.iter().filter(|place| Path::new(place).is_absolute()) {
                    mount(Path::new(folder), folder.to_string());
                }
                if !there.is_empty() {
                    settings.environment.push((name, there.join(" ")));
                }
            } else if PLAIN.contains(&name.as_str()) || PROXIES.contains(&upper.as_str()) || is_npm(&upper) {
                settings.environment.push((name, value));
            }
        }
        settings.environment.sort();
        settings.binds =
            mounts.into_iter().map(|(path, inside)| format!("{}:{inside}:ro", path.display())).collect();
        settings
    }
}

fn is_npm(upper: &str) -> bool {
    let Some(setting) = upper.strip_prefix("NPM_CONFIG_") else { return false };
    let setting = setting.to_lowercase().replace('-', "_");
    // `@scope:registry` and `//host/:_authToken` are about registries too.
    NPM.contains(&setting.as_str()) || setting.starts_with('@') || setting.starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_given_proxies_indexes_and_certificates_and_nothing_else() {
        let variables = [
            ("https_proxy", "http://proxy:3128"),
            ("NO_PROXY", "localhost"),
            ("PIP_INDEX_URL", "https://index/simple"),
            ("PIP_TARGET", "/home/me"),
            ("PIP_CERT", "/etc/ca.pem"),
            ("SSL_CERT_FILE", "/etc/ca.pem"),
            ("NODE_EXTRA_CA_CERTS", "/gone.pem"),
            ("PIP_FIND_LINKS", "/wheels /gone https://links/"),
            ("npm_config_registry", "https://npm/"),
            ("npm_config_//npm/:_authToken", "t"),
            ("npm_config_prefix", "/usr/local"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("HTTP_PROXY", ""),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let settings =
            Settings::of(variables, |path| path == Path::new("/etc/ca.pem") || path == Path::new("/wheels"));
        let environment: Vec<_> =
            settings.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            environment,
            [
                ("NO_PROXY", "localhost"),
                ("PIP_CERT", "/sebs-lite-certificates/PIP_CERT"),
                ("PIP_FIND_LINKS", "/wheels https://links/"),
                ("PIP_INDEX_URL", "https://index/simple"),
                ("SSL_CERT_FILE", "/sebs-lite-certificates/PIP_CERT"),
                ("https_proxy", "http://proxy:3128"),
                ("npm_config_//npm/:_authToken", "t"),
                ("npm_config_registry", "https://npm/"),
            ]
        );
        assert_eq!(settings.binds, ["/etc/ca.pem:/sebs-lite-certificates/PIP_CERT:ro", "/wheels:/wheels:ro"]);
    }

    #[test]
    fn pieces_of_output_become_lines() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in ["on", "e\ntwo\r\nth", "ree"] {
            lines.push(piece.as_bytes(), &mut |line| seen.push(line.to_string()));
        }
        assert_eq!(seen, ["one", "two"]);
        assert_eq!(lines.finish(), ["one", "two", "three"]);
    }
}
