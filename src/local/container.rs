//! Starts one instance of a function in a container, and waits with a deadline until it answers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::docker::{
    ChosenNetwork, ContainerInspect, ContainerSpec, DEFAULT_NETWORK, Engine, HostConfig, Lifetime, Limit,
    LogConfig, OwnedContainer, Owner, PortBinding, is_port_taken,
};
use crate::error::{Error, Kind, Result};
use crate::faas::FunctionConfig;
use crate::files::{self, Access};
use crate::units::Bytes;

use super::LocalOptions;
use super::options::VARIABLES_LABEL;
use super::ready::Setback;
use super::whereabouts::{bridge_address, published_address};

/// The port that a function server listens on inside its container.
pub const DEFAULT_PORT: u16 = 9000;

/// The server's port, as the engine writes it.
pub(super) const PORT_KEY: &str = "9000/tcp";

/// The label of a runtime image of ours; its value is the hash of the function server in it.
const SERVER_LABEL: &str = "server";

/// What SeBS's own run images need as root: they make a user and switch to it.
const SEBS_ENTRY_CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"];

/// The name that SeBS's run images give to the user they make.
const SEBS_USER: &str = "docker_user";

/// The variable that tells a function server how many bytes a body may have.
pub(super) const MAX_PAYLOAD: &str = "SEBS_LITE_MAX_PAYLOAD_BYTES";

/// How often an instance is started whose engine goes away each time.
const STARTS: usize = 3;

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
    /// The package's folder; `None`: it is in the image.
    pub(crate) mounted: Option<&'a Path>,
    pub(crate) image_id: &'a str,
    pub(crate) config: &'a FunctionConfig,
    pub(crate) lifetime: &'a Lifetime,
}

/// An instance that answers.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) container: OwnedContainer,
    /// What the engine said of it after its start.
    pub(crate) inspected: ContainerInspect,
    pub(crate) address: SocketAddr,
    /// `None`: the engine went away meanwhile, so that they tell of that.
    pub(crate) phases: Option<StartPhases>,
}

/// How long the parts of an instance's start took, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StartPhases {
    /// The engine created the container.
    pub(crate) create: Duration,
    /// The engine started it.
    pub(crate) start: Duration,
    /// Its server came up: from the end of the engine's start to the first answer.
    pub(crate) ready: Duration,
}

/// Where instances are started, and how; several threads may start some at a time.
#[derive(Debug)]
pub(crate) struct Starter {
    pub(crate) engine: Engine,
    pub(crate) owner: Owner,
    pub(crate) options: LocalOptions,
    /// The network that instances are put on; `None`: the engine's default one.
    pub(crate) network: Option<ChosenNetwork>,
    pub(crate) cancel: Cancel,
    /// `uid:gid` by which a container's files are the caller's.
    pub(crate) caller: String,
    pub(crate) has_selinux: bool,
    /// What the engine cannot limit.
    pub(crate) unlimited: Vec<Limit>,
    /// Was an instance seen that could not be reached at its own address?
    pub(crate) has_no_bridge: AtomicBool,
    /// How often the engine had gone away when the functions' storage was last looked after.
    pub(crate) absences: Mutex<u64>,
}

impl Starter {
    /// Creates and starts a container and waits until its server answers; on any error the container is gone.
    ///
    /// # Errors
    /// `is_not_found`, with `AddressMode::Bridge`, where the container has no address there that this host reaches.
    pub(crate) fn start(&self, request: &InstanceRequest<'_>) -> Result<Started> {
        let mut mode = self.options.address;
        if mode == AddressMode::Auto && self.has_no_bridge.load(Ordering::Relaxed) {
            mode = AddressMode::Published;
        }
        match self.persist_start(request, mode).map_err(|error| self.explain_reach(error)) {
            Err(error) if error.is_not_found() && mode == AddressMode::Auto => {
                log::info!("{error}: publishing it on 127.0.0.1 instead");
                let started = self.persist_start(request, AddressMode::Published)?;
                self.has_no_bridge.store(true, Ordering::Relaxed);
                Ok(started)
            }
            outcome => outcome,
        }
    }

    /// Starts it again where the engine went away meanwhile, which ends what it was about to start, and once where somebody
    /// did something to its container.
    fn persist_start(&self, request: &InstanceRequest<'_>, mode: AddressMode) -> Result<Started> {
        let mut was_disturbed = false;
        for _ in 1..STARTS {
            // One that is about to end still answers on connections that were kept.
            self.engine.settle()?;
            let absences = self.engine.absences();
            let restored = self.restore_storage(absences).map_err(Setback::from);
            let setback = match restored.and_then(|()| self.start_at(request, mode)) {
                Ok(started) => return Ok(started),
                Err(setback) => setback,
            };
            let is_disturbed = matches!(setback, Setback::Disturbed(_));
            let error = setback.into_error();
            if error.is_cancelled() || error.is_disconnected() {
                return Err(error);
            }
            if self.engine.settle()? || self.engine.absences() != absences {
                log::warn!("{error}: the engine went away meanwhile, so it is started again");
            } else if is_disturbed && !std::mem::replace(&mut was_disturbed, true) {
                log::warn!("{error}: it seems that somebody did that, so it is started again");
            } else {
                return Err(error);
            }
        }
        self.start_at(request, mode).map_err(Setback::into_error)
    }

    fn start_at(&self, request: &InstanceRequest<'_>, mode: AddressMode) -> Result<Started, Setback> {
        let name = container_name(request.function_name);
        let mut spec = self.spec(request, mode)?;
        let absences = self.engine.absences();
        let mut begin = Instant::now();
        let (container, created) = loop {
            let container = self.create(request, &name, spec.clone());
            let created = Instant::now();
            let error = match container {
                Ok(container) => match self.engine.start_container(container.id()) {
                    Ok(()) => break (container, created),
                    Err(error) if spec.host_config.init && lacks_init(&error) => {
                        container.remove()?;
                        error
                    }
                    Err(error) if error.is_not_found() => {
                        // What is missing may be a network, too.
                        self.inspect(container.id(), &name)?;
                        return Err(self.explain_start(error).into());
                    }
                    Err(error) => return Err(self.explain_start(error).into()),
                },
                Err(error) if spec.host_config.init && lacks_init(&error) => error,
                Err(error) => return Err(error.into()),
            };
            log::warn!(
                "{error}: the function is started without, and processes that it leaves behind stay in its limit"
            );
            spec.host_config.init = false;
            begin = Instant::now();
        };
        let running = Instant::now();
        let inspected = self.inspect(container.id(), &name)?;
        let address = self.address(&inspected, mode)?;
        log::debug!("container `{name}` started, asking {address} until it answers");
        self.come_up(container.id(), &name, address)?;
        let phases = StartPhases {
            create: created.since(begin),
            start: running.since(created),
            ready: Instant::now().since(running),
        };
        let is_undisturbed = self.engine.absences() == absences;
        Ok(Started { container, inspected, address, phases: is_undisturbed.then_some(phases) })
    }

    fn create(
        &self,
        request: &InstanceRequest<'_>,
        name: &str,
        spec: ContainerSpec,
    ) -> Result<OwnedContainer> {
        let created = self.engine.create_owned(&self.owner, request.lifetime, name, spec);
        created.map_err(|error| self.explain_network(error))
    }

    fn spec(&self, request: &InstanceRequest<'_>, mode: AddressMode) -> Result<ContainerSpec> {
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
            binds: request
                .mounted
                .map(|package| self.package_mount(package))
                .transpose()?
                .into_iter()
                .collect(),
            memory: Bytes::from_limit_mb(request.config.memory).0,
            // Equal to the memory limit: no swap, which would hide both the peak and the kill.
            memory_swap: Bytes::from_limit_mb(request.config.memory).0,
            nano_cpus: request.config.cpus.map_or(0, |cpus| (cpus * 1e9) as u64),
            cpuset_cpus: request.config.cpuset.clone().unwrap_or_default(),
            pids_limit: Some(request.config.pids_limit),
            network_mode: DEFAULT_NETWORK.to_string(),
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
        self.leave_out_limits(&mut host_config)?;
        let mut exposed_ports = Vec::new();
        if mode == AddressMode::Published {
            let host_port = self.options.host_port.map(|port| port.to_string()).unwrap_or_default();
            let binding = PortBinding { host_ip: "127.0.0.1".to_string(), host_port };
            host_config.port_bindings.insert(PORT_KEY.to_string(), vec![binding]);
            exposed_ports.push(PORT_KEY.to_string());
        }
        // SeBS's own images start as root, and become the caller themselves.
        let user = if is_ours { self.caller.clone() } else { String::new() };
        let mut spec = ContainerSpec {
            image: request.image_id.to_string(),
            cmd: vec!["/bin/bash".to_string(), "/sebs/run_server.sh".to_string(), DEFAULT_PORT.to_string()],
            env,
            user,
            exposed_ports,
            labels: [(VARIABLES_LABEL.to_string(), self.options.variables_digest())].into(),
            host_config,
            ..ContainerSpec::default()
        };
        if let Some(network) = &self.network {
            network.place(&mut spec);
        }
        Ok(spec)
    }

    /// Of the limits that the engine cannot set, some are asked for by nobody and left out, since they would fail the
    /// start: a warning tells of that. One on processors is the user's own wish.
    fn leave_out_limits(&self, host_config: &mut HostConfig) -> Result<()> {
        for limit in &self.unlimited {
            match limit {
                Limit::Memory => (host_config.memory, host_config.memory_swap) = (0, 0),
                Limit::Processes => host_config.pids_limit = None,
                Limit::Cpus if host_config.nano_cpus == 0 => {}
                Limit::Cpuset if host_config.cpuset_cpus.is_empty() => {}
                Limit::Cpus | Limit::Cpuset => {
                    return Err(Error::usage(format!(
                        "the engine cannot limit {limit}, which the function's configuration asks for (without \
                         --cpus and --cpuset, or on an engine that has the controllers, it runs)"
                    )));
                }
            }
        }
        Ok(())
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
            _ => self.explain_network(error),
        }
    }

    /// That a network is not there any more is no sign of an address that cannot be reached.
    fn explain_network(&self, error: Error) -> Error {
        match &self.network {
            Some(_) if error.is_not_found() => Error::new(error.to_string()),
            _ => error,
        }
    }

    /// Says of an address that cannot be reached what its network has to do with that.
    fn explain_reach(&self, error: Error) -> Error {
        let advice = "choose another network, or leave --network out";
        match &self.network {
            Some(network) if error.is_not_found() && !network.publishes() => Error::with_kind(
                Kind::NotFound,
                format!("{error}, and nothing on {} is published ({advice})", network.kind()),
            ),
            _ => error,
        }
    }

    fn address(&self, inspected: &ContainerInspect, mode: AddressMode) -> Result<SocketAddr, Setback> {
        if !inspected.state.running {
            return Err(self.died(inspected));
        }
        if inspected.has_left_its_network() {
            let text = format!(
                "container `{}` was disconnected from its network before it answered",
                inspected.name
            );
            return Err(Setback::Disturbed(Error::new(text)));
        }
        let found = if mode == AddressMode::Published {
            published_address(inspected)
        } else {
            bridge_address(inspected)
        };
        found.ok_or_else(|| {
            let place = match (mode, &self.network) {
                (AddressMode::Published, _) => "published port".to_string(),
                (_, Some(network)) => format!("address on network `{}`", network.name),
                (_, None) => "address on the bridge".to_string(),
            };
            Error::with_kind(Kind::NotFound, format!("container `{}` has no {place}", inspected.name)).into()
        })
    }
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

/// Does this error of a creation (Podman) or start (Docker) say that the engine has no small first process for containers?
fn lacks_init(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("docker-init") || text.contains("container-init")
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
