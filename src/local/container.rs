//! Starts one instance of a function in a container, and waits with a deadline until it answers.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::docker::{
    ContainerInspect, ContainerSpec, Engine, HostConfig, Lifetime, LogConfig, OwnedContainer, Owner,
    PortBinding, is_port_taken, log_tail,
};
use crate::error::{Error, Kind, Result};
use crate::faas::FunctionConfig;
use crate::files::{self, Access};
use crate::http::{Client, Limits, Request};
use crate::units::Bytes;

use super::LocalOptions;

/// The port that a function server listens on inside its container.
pub const DEFAULT_PORT: u16 = 9000;

/// The server's port, as the engine writes it.
const PORT_KEY: &str = "9000/tcp";

/// The label of a runtime image of ours; its value is the hash of the function server in it.
const SERVER_LABEL: &str = "server";

/// What SeBS's own run images need as root: they make a user and switch to it.
const SEBS_ENTRY_CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"];

/// The name that SeBS's run images give to the user they make.
const SEBS_USER: &str = "docker_user";

/// The variable that tells a function server how many bytes a body may have.
pub(super) const MAX_PAYLOAD: &str = "SEBS_LITE_MAX_PAYLOAD_BYTES";

/// How soon an instance is asked again whether it answers: at first, and at most. Asking faster than each 1 to 2 ms
/// gains nothing.
const POLL_FIRST: Duration = Duration::from_millis(1);
const POLL_LAST: Duration = Duration::from_millis(50);

/// How long an address may be out of reach, rather than refuse, until it is taken for unreachable from this host.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(1);

/// How long the end of a container is waited for after its connection broke, before its server is asked whether it lives.
const END_SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How long a container may neither end nor answer: a busy engine tells of an end seconds after the process is gone.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Where an instance is invoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressMode {
    /// At its own address, unless that cannot be reached from this host.
    #[default]
    Auto,
    /// At its own address on the engine's bridge.
    Bridge,
    /// At a port of 127.0.0.1.
    Published,
}

impl std::str::FromStr for AddressMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<AddressMode> {
        match text {
            "auto" => Ok(AddressMode::Auto),
            "bridge" => Ok(AddressMode::Bridge),
            "published" => Ok(AddressMode::Published),
            _ => Err(Error::usage(format!(
                "address `{text}` is not known: it must be `auto`, `bridge` or `published`"
            ))),
        }
    }
}

/// What one instance is started from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InstanceRequest<'a> {
    pub(crate) function_name: &'a str,
    pub(crate) package: &'a Path,
    pub(crate) image_id: &'a str,
    pub(crate) config: &'a FunctionConfig,
    pub(crate) lifetime: &'a Lifetime,
    pub(crate) address: AddressMode,
}

/// An instance that answers.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) container: OwnedContainer,
    pub(crate) address: SocketAddr,
}

/// Where instances are started, and how.
#[derive(Debug)]
pub(crate) struct Starter<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) owner: &'a Owner,
    pub(crate) options: &'a LocalOptions,
    pub(crate) cancel: &'a Cancel,
    /// `uid:gid` by which a container's files are the caller's.
    pub(crate) caller: &'a str,
    pub(crate) has_selinux: bool,
}

impl Starter<'_> {
    /// Creates and starts a container and waits until its server answers; on any error the container is gone.
    ///
    /// # Errors
    /// `is_not_found`, with `AddressMode::Auto` and `AddressMode::Bridge`, where the container has no address there that this host reaches.
    pub(crate) fn start(&self, request: &InstanceRequest<'_>) -> Result<Started> {
        let name = container_name(request.function_name);
        let mut spec = self.spec(request)?;
        let mut container = self.engine.create_owned(self.owner, request.lifetime, &name, spec.clone())?;
        let mut started = self.engine.start_container(container.id());
        if started.as_ref().is_err_and(|error| error.to_string().contains("docker-init")) {
            log::warn!(
                "the engine has no `docker-init`: processes that a function leaves behind stay in its limit"
            );
            container.remove()?;
            spec.host_config.init = false;
            container = self.engine.create_owned(self.owner, request.lifetime, &name, spec)?;
            started = self.engine.start_container(container.id());
        }
        started.map_err(|error| self.explain_start(error))?;
        let address = self.address(container.id(), request.address)?;
        log::debug!("container `{name}` started, asking {address} until it answers");
        self.wait_until_ready(container.id(), &name, address)?;
        Ok(Started { container, address })
    }

    fn spec(&self, request: &InstanceRequest<'_>) -> Result<ContainerSpec> {
        let image = self.engine.inspect_image(request.image_id)?;
        let is_ours = image.config.labels.get(SERVER_LABEL).is_some_and(|hash| !hash.is_empty());
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let mut env = vec![
            format!("CONTAINER_UID={uid}"),
            format!("CONTAINER_GID={gid}"),
            format!("CONTAINER_USER={SEBS_USER}"),
            format!("{MAX_PAYLOAD}={}", self.options.max_payload.0),
        ];
        if is_ours {
            // The caller's uid has no home in the image.
            env.push("HOME=/tmp".to_string());
        }
        env.extend(self.options.variables().map(|(name, value)| format!("{name}={value}")));
        let mut host_config = HostConfig {
            binds: vec![self.package_mount(request.package)?],
            memory: Bytes::from_limit_mb(request.config.memory).0,
            // Equal to the memory limit: no swap, which would hide both the peak and the kill.
            memory_swap: Bytes::from_limit_mb(request.config.memory).0,
            nano_cpus: request.config.cpus.map_or(0, |cpus| (cpus * 1e9) as u64),
            pids_limit: Some(request.config.pids_limit),
            network_mode: "bridge".to_string(),
            log_config: Some(LogConfig::readable()),
            init: true,
            ..HostConfig::default()
        };
        if self.options.privileged {
            host_config.privileged = true;
            host_config.security_opt = vec!["seccomp=unconfined".to_string()];
        } else {
            host_config.security_opt = vec!["no-new-privileges".to_string()];
            host_config.cap_drop = vec!["ALL".to_string()];
            if !is_ours {
                host_config.cap_add = SEBS_ENTRY_CAPABILITIES.map(str::to_string).to_vec();
            }
        }
        let mut exposed_ports = Vec::new();
        if request.address == AddressMode::Published {
            let host_port = self.options.host_port.map(|port| port.to_string()).unwrap_or_default();
            let binding = PortBinding { host_ip: "127.0.0.1".to_string(), host_port };
            host_config.port_bindings.insert(PORT_KEY.to_string(), vec![binding]);
            exposed_ports.push(PORT_KEY.to_string());
        }
        // SeBS's own images start as root, and become the caller themselves.
        let user = if is_ours { self.caller.to_string() } else { String::new() };
        Ok(ContainerSpec {
            image: request.image_id.to_string(),
            cmd: vec!["/bin/bash".to_string(), "/sebs/run_server.sh".to_string(), DEFAULT_PORT.to_string()],
            env,
            user,
            exposed_ports,
            host_config,
            ..ContainerSpec::default()
        })
    }

    fn package_mount(&self, package: &Path) -> Result<String> {
        let path = package.display().to_string();
        if path.contains(':') {
            return Err(Error::usage(format!(
                "the engine cannot mount `{path}`: its path has a colon (choose another --cache, or name for the benchmark)"
            )));
        }
        Ok(format!("{path}:/function:{}", if self.has_selinux { "ro,z" } else { "ro" }))
    }

    /// Names the port where the engine only says that some address is in use.
    fn explain_start(&self, error: Error) -> Error {
        match self.options.host_port {
            Some(port) if is_port_taken(&error) => Error::from_source(
                Kind::Conflict,
                format!(
                    "port {port} of 127.0.0.1 is taken (choose another --port, or leave the choice to the engine)"
                ),
                error,
            ),
            _ => error,
        }
    }

    fn address(&self, id: &str, mode: AddressMode) -> Result<SocketAddr> {
        let inspected = self.engine.inspect_container(id)?;
        if !inspected.state.running {
            return Err(self.died(id, &inspected));
        }
        let found = if mode == AddressMode::Published {
            published_address(&inspected)
        } else {
            bridge_address(&inspected)
        };
        found.ok_or_else(|| {
            let place =
                if mode == AddressMode::Published { "published port" } else { "address on the bridge" };
            Error::with_kind(Kind::NotFound, format!("container `{}` has no {place}", inspected.name))
        })
    }

    /// Asks `/alive` until there is any HTTP answer: SeBS's Node.js server answers 404.
    fn wait_until_ready(&self, id: &str, name: &str, address: SocketAddr) -> Result<()> {
        let begin = Instant::now();
        let deadline = begin.after(self.options.start_timeout);
        let mut pause = POLL_FIRST;
        let mut next_look = begin.after(POLL_LAST);
        let mut unreachable_since = None;
        loop {
            if answers(address, self.options.start_timeout, self.cancel)? {
                return Ok(());
            }
            let now = Instant::now();
            if now >= next_look {
                let inspected = self.engine.inspect_container(id)?;
                if !inspected.state.running {
                    return Err(self.died(id, &inspected));
                }
                if is_unreachable(address) {
                    let since = *unreachable_since.get_or_insert(now);
                    if now.since(since) >= UNREACHABLE_AFTER {
                        let text =
                            format!("container `{name}` cannot be reached at {address} from this host");
                        return Err(Error::with_kind(Kind::NotFound, text));
                    }
                } else {
                    unreachable_since = None;
                }
                next_look = Instant::now().after(POLL_LAST);
            }
            if now >= deadline {
                let waited = self.options.start_timeout.as_secs_f64();
                let text =
                    format!("the function server in container `{name}` did not answer within {waited} s");
                return Err(Error::with_kind(Kind::Timeout, text + &self.log_tail(id)));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(POLL_LAST);
        }
    }

    fn died(&self, id: &str, inspected: &ContainerInspect) -> Error {
        let code = inspected.state.exit_code;
        let text = format!("container `{}` ended with exit code {code} before it answered", inspected.name);
        Error::new(text + &self.log_tail(id))
    }

    fn log_tail(&self, id: &str) -> String {
        log_tail(&self.engine.without_cancel(), id)
    }
}

/// Does a function server give any HTTP answer at this address?
///
/// # Errors
/// `is_cancelled` alone.
pub(crate) fn answers(address: SocketAddr, limit: Duration, cancel: &Cancel) -> Result<bool> {
    let limits = Limits {
        connect: Duration::from_millis(250),
        // The server's one thread may be busy with its own start.
        total: Some(Duration::from_secs(2).min(limit)),
        max_body_bytes: 1 << 20,
        cancel,
    };
    let request = Request { method: "GET", path: "/alive", body: None };
    match Client::new(address, false).send(&request, &limits).1 {
        Ok(_) => Ok(true),
        Err(error) if error.is_cancelled() => Err(error),
        Err(_) => Ok(false),
    }
}

/// What became of an instance whose connection broke: `None` if it lives.
///
/// # Errors
/// The engine does not tell, or the cancel token was triggered.
pub(crate) fn cause_of_death(
    engine: &Engine,
    cancel: &Cancel,
    id: &str,
    address: SocketAddr,
    memory_mb: u64,
) -> Result<Option<String>> {
    let deadline = Instant::now().after(END_LIMIT);
    loop {
        match engine.wait_container(id, Some(END_SEEN_WITHIN)) {
            Ok(_) => break,
            Err(error) if error.is_not_found() => return Ok(Some("its container is gone".to_string())),
            Err(error) if !error.is_timeout() => return Err(error),
            Err(_) => {}
        }
        if answers(address, END_SEEN_WITHIN, cancel)? {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            let waited = END_LIMIT.as_secs();
            return Ok(Some(format!(
                "the connection to the function broke, and its server has not answered for {waited} s"
            )));
        }
    }
    let state = engine.inspect_container(id)?.state;
    let tail = log_tail(engine, id);
    let cause = match state.exit_code {
        _ if state.oom_killed => format!(
            "the kernel killed the function's process: it used more than its memory limit of {memory_mb} MB{tail}"
        ),
        137 if memory_mb > 0 => format!(
            "the function's process was killed (signal 9): by the kernel, if it used more than its memory limit of \
             {memory_mb} MB, or from outside{tail}"
        ),
        code => format!("the function's process ended with exit code {code}{tail}"),
    };
    Ok(Some(cause))
}

/// Writes what an instance printed to its file below `folder`, if it printed anything.
///
/// # Errors
/// The engine does not give it, or the file cannot be written.
pub(super) fn save_log(engine: &Engine, folder: &Path, function: &str, id: &str) -> Result<()> {
    let text = engine.container_logs(id, None)?.combined();
    if text.is_empty() {
        return Ok(());
    }
    let short = super::short(id);
    let path = folder.join(format!("{}-{short}.log", plain_name(function)));
    text.lines().for_each(|line| log::debug!("{short}: {line}"));
    log::info!("what instance {short} printed is in `{}`", path.display());
    files::write(&path, text.as_bytes(), Access::Everyone)
}

/// A name that says what the container is for and that no other container has.
fn container_name(function: &str) -> String {
    format!("{}-{}", plain_name(function), files::random_hex(8))
}

/// The function's name in letters that the engine takes, and that name no other folder.
fn plain_name(function: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    let name: String = function.chars().map(fit).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "function".to_string() } else { name.to_string() }
}

fn bridge_address(inspected: &ContainerInspect) -> Option<SocketAddr> {
    let address = inspected.network_settings.address()?.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(address, DEFAULT_PORT))
}

pub(super) fn published_address(inspected: &ContainerInspect) -> Option<SocketAddr> {
    let bindings = inspected.network_settings.ports.get(PORT_KEY)?.as_ref()?;
    let port = bindings.iter().find_map(|binding| binding.host_port.parse::<u16>().ok())?;
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Does a connection neither stand nor get refused?
fn is_unreachable(address: SocketAddr) -> bool {
    use std::io::ErrorKind;
    match TcpStream::connect_timeout(&address, Duration::from_millis(250)) {
        Ok(_) => false,
        Err(error) => matches!(
            error.kind(),
            ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_after_its_function_in_letters_the_engine_takes() {
        let name = container_name("sebd-110.dynamic-html-python-3.11");
        assert!(name.starts_with("sebd-110.dynamic-html-python-3.11-") && name.len() == 34 + 8, "{name}");
        assert!(container_name("äöü/x y").starts_with("x-y-"));
        assert!(container_name("--").starts_with("function-"));
    }

    #[test]
    fn an_address_mode_is_read_from_its_name() {
        assert_eq!("bridge".parse::<AddressMode>().unwrap(), AddressMode::Bridge);
        assert!("host".parse::<AddressMode>().unwrap_err().is_usage());
    }
}
