//! Who owns what we made in an engine: labels that say so, a guard that removes it, a sweep for what dead owners left.
//!
//! The labels fit containers, networks and volumes alike. Only an owner of this boot and this process namespace can be
//! looked up; one of an earlier boot of this host is dead; of any other nothing is known, and nothing of it is removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{ContainerSpec, Engine, Scope, Volume};
use crate::error::{Context, Error, Kind, Result};
use crate::files;
use crate::process::{self, Found, Identity};

/// The label of all that we make; its value is `1`.
const OURS: &str = "sebs-lite";
const SESSION: &str = "sebs-lite.session";
const PID: &str = "sebs-lite.owner.pid";
const START: &str = "sebs-lite.owner.start";
const BOOT: &str = "sebs-lite.owner.boot";
const PIDNS: &str = "sebs-lite.owner.pidns";
const HOST: &str = "sebs-lite.owner.host";
const LIFETIME: &str = "sebs-lite.lifetime";
const FILE: &str = "sebs-lite.file";

/// How long a guard that is dropped lets the engine remove its container: it kills within ten seconds or not at all, and
/// a program that ends should not hang.
const DROP_LIMIT: Duration = Duration::from_secs(30);

/// How long a container is looked for whose creation was asked for, but never confirmed.
pub(crate) const LOST_LIMIT: Duration = Duration::from_secs(5);

/// A process that makes things in an engine, as their labels name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Random, one for each process.
    pub session: String,
    /// Its process id, in its own namespace.
    pub pid: i32,
    /// When it was started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start: u64,
    /// The kernel's boot id.
    pub boot: String,
    /// The process namespace: `pid:[4026531836]`.
    pub pidns: String,
    /// The host's name.
    pub host: String,
}

/// How long a thing is meant to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as its owner.
    Run,
    /// Longer, until somebody removes it by means of a file that names it.
    Kept {
        /// That file's absolute path.
        file: PathBuf,
    },
}

/// Does an owner still live?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It does.
    Alive,
    /// It does not.
    Dead,
    /// It cannot be told from here: another host, another container, or not ours to see.
    Unknown,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn current() -> Result<Owner> {
        static SESSION: OnceLock<String> = OnceLock::new();
        let session = SESSION.get_or_init(|| files::random_hex(16)).clone();
        let Identity { pid, start_ticks, boot_id } = Identity::current()?;
        let namespace = fs::read_link("/proc/self/ns/pid")
            .context(|| "failed to read `/proc/self/ns/pid`".to_string())?;
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname")
            .context(|| "failed to read `/proc/sys/kernel/hostname`".to_string())?;
        Ok(Owner {
            session,
            pid,
            start: start_ticks,
            boot: boot_id,
            pidns: namespace.display().to_string(),
            host: hostname.trim().to_string(),
        })
    }

    /// The labels that make a container, network or volume this owner's.
    pub fn labels(&self, lifetime: &Lifetime) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from(
            [
                (OURS, "1".to_string()),
                (SESSION, self.session.clone()),
                (PID, self.pid.to_string()),
                (START, self.start.to_string()),
                (BOOT, self.boot.clone()),
                (PIDNS, self.pidns.clone()),
                (HOST, self.host.clone()),
            ]
            .map(|(name, value)| (name.to_string(), value)),
        );
        let word = match lifetime {
            Lifetime::Run => "run",
            Lifetime::Kept { file } => {
                labels.insert(FILE.to_string(), file.display().to_string());
                "kept"
            }
        };
        labels.insert(LIFETIME.to_string(), word.to_string());
        labels
    }

    /// Whom labels name; `None` where they are not ours, or not whole.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Option<Owner> {
        let text = |name| labels.get(name).cloned();
        (labels.get(OURS)? == "1").then_some(())?;
        Some(Owner {
            session: text(SESSION)?,
            pid: labels.get(PID)?.parse().ok()?,
            start: labels.get(START)?.parse().ok()?,
            boot: text(BOOT)?,
            pidns: text(PIDNS)?,
            host: text(HOST)?,
        })
    }

    /// Does `other`, whom labels name, still live, as far as this process can tell?
    pub fn liveness_of(&self, other: &Owner) -> Liveness {
        self.judge(other, process::look_up)
    }

    fn judge(&self, other: &Owner, look_up: impl Fn(i32) -> Found) -> Liveness {
        if other.boot != self.boot {
            // Many a machine is called that, and an engine may be reached from more than one.
            let has_a_name = !matches!(self.host.as_str(), "" | "localhost" | "(none)");
            let same_host = has_a_name && other.host == self.host;
            return if same_host { Liveness::Dead } else { Liveness::Unknown };
        }
        if other.pidns != self.pidns {
            return Liveness::Unknown;
        }
        match look_up(other.pid) {
            Found::Started(start) if start == other.start => Liveness::Alive,
            // The id was given to another process since.
            Found::Started(_) | Found::Gone => Liveness::Dead,
            Found::Hidden => Liveness::Unknown,
        }
    }
}

impl Lifetime {
    /// What labels say; `None` where they are not ours, or not whole.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Option<Lifetime> {
        match labels.get(LIFETIME)?.as_str() {
            "run" => Some(Lifetime::Run),
            "kept" => Some(Lifetime::Kept { file: labels.get(FILE)?.into() }),
            _ => None,
        }
    }
}

/// What the labels of all have that is ours and kept by means of that file, `name=value` each.
pub(crate) fn labels_of_file(file: &Path) -> [String; 2] {
    [format!("{OURS}=1"), format!("{FILE}={}", file.display())]
}

/// A volume that is removed, at the latest, when this value is dropped: after the containers that have it.
#[derive(Debug)]
#[must_use = "the volume is removed when this is dropped"]
pub struct OwnedVolume {
    engine: Engine,
    name: String,
    is_armed: bool,
}

/// A container that is removed, at the latest, when this value is dropped.
#[derive(Debug)]
#[must_use = "the container is removed when this is dropped"]
pub struct OwnedContainer {
    /// Removal happens even after the caller has been asked to give up.
    engine: Engine,
    id: String,
    is_armed: bool,
}

impl Engine {
    /// Creates a container with the labels of its owner, which does not run yet.
    ///
    /// # Errors
    /// As [`create_container`](Engine::create_container). Where the answer is lost, by a cancel token, a time limit or
    /// the connection, a container that was made all the same is looked for by its name, and removed.
    pub fn create_owned(
        &self,
        owner: &Owner,
        lifetime: &Lifetime,
        name: &str,
        mut spec: ContainerSpec,
    ) -> Result<OwnedContainer> {
        spec.labels.extend(owner.labels(lifetime));
        let mut asked = 0;
        let created = self.persist(|| {
            if asked > 0 {
                // The name is this container's alone: one that was made all the same, whole or not, is in its way.
                self.without_cancel().remove_lost(owner, name, Duration::ZERO);
            }
            let creation = self.creation(name, &spec)?;
            // From here on the engine is asked; what it never was asked for need not be looked for.
            self.check_cancel()?;
            asked += 1;
            creation.run()
        });
        match created {
            Ok(created) => {
                for warning in &created.warnings {
                    log::warn!("container `{name}`: {warning}");
                }
                Ok(OwnedContainer { engine: self.without_cancel(), id: created.id, is_armed: true })
            }
            Err(error) => {
                let is_lost = error.is_cancelled() || error.is_timeout() || error.is_disconnected();
                if is_lost && asked > 0 {
                    self.without_cancel().remove_lost(owner, name, LOST_LIMIT);
                }
                Err(error)
            }
        }
    }

    /// Creates a volume with the labels of its owner, and `labels` beside them.
    ///
    /// # Errors
    /// As [`create_volume`](Engine::create_volume); `is_conflict` when there is one of that name. Where the answer is
    /// lost, a volume that was made all the same is removed.
    pub fn create_owned_volume(
        &self,
        owner: &Owner,
        lifetime: &Lifetime,
        name: &str,
        mut labels: BTreeMap<String, String>,
    ) -> Result<OwnedVolume> {
        labels.extend(owner.labels(lifetime));
        self.check_cancel()?;
        // It takes milliseconds; given up half-way, nobody would know what became of it.
        let engine = self.without_cancel();
        let is_ours = |volume: &Volume| volume.labels.get(SESSION) == Some(&owner.session);
        let guard = || OwnedVolume { engine: engine.clone(), name: name.to_string(), is_armed: true };
        match engine.create_volume(name, &labels) {
            Ok(volume) if is_ours(&volume) => Ok(guard()),
            // The engine gives back one that was there before as if it had been made.
            Ok(_) => Err(Error::with_kind(Kind::Conflict, format!("there is a volume `{name}` already"))),
            Err(error) => {
                if engine.inspect_volume(name).is_ok_and(|volume| is_ours(&volume)) {
                    drop(guard());
                }
                Err(error)
            }
        }
    }

    /// Removes the container of that name, if it turns up and is this very owner's.
    fn remove_lost(&self, owner: &Owner, name: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            match self.inspect_container(name) {
                Ok(found) => {
                    let session = found.config.labels.get(SESSION);
                    if session != Some(&owner.session) {
                        // The name was taken, so nothing was made.
                        return;
                    }
                    if let Err(error) = self.remove_container_within(&found.id, DROP_LIMIT) {
                        log::warn!("{error}");
                    }
                    return;
                }
                // The engine may still be at work on it.
                Err(error) if error.is_not_found() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) if error.is_not_found() => return,
                Err(error) => {
                    log::warn!("container `{name}` may have been left behind: {error}");
                    return;
                }
            }
        }
    }
}

impl OwnedContainer {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Removes the container, running or not.
    ///
    /// # Errors
    /// When the engine cannot be reached or cannot remove it; it is then left to the next [`sweep`].
    pub fn remove(mut self) -> Result<()> {
        self.is_armed = false;
        self.engine.remove_container(&self.id)
    }

    /// Lets the container live on, and gives back its id.
    pub fn keep(mut self) -> String {
        self.is_armed = false;
        std::mem::take(&mut self.id)
    }
}

impl OwnedVolume {
    /// The volume's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes the volume.
    ///
    /// # Errors
    /// When the engine cannot be reached, or a container has it; it is then left to the next [`sweep`].
    pub fn remove(mut self) -> Result<()> {
        self.is_armed = false;
        self.engine.remove_volume(&self.name)
    }

    /// Lets the volume live on, and gives back its name.
    pub fn keep(mut self) -> String {
        self.is_armed = false;
        std::mem::take(&mut self.name)
    }
}

impl Drop for OwnedVolume {
    fn drop(&mut self) {
        if self.is_armed
            && let Err(error) = self.engine.remove_volume(&self.name)
        {
            log::warn!("{error}; the next run will try again");
        }
    }
}

impl Drop for OwnedContainer {
    fn drop(&mut self) {
        if self.is_armed
            && let Err(error) = self.engine.remove_container_within(&self.id, DROP_LIMIT)
        {
            log::warn!("{error}; the next run will try again");
        }
    }
}

/// Removes the containers and volumes meant to live as long as their owner, whose owner is dead, and gives back their
/// names.
///
/// `owner` is the process that looks. Any number of sweeps may go on at once: what another one removes is fine. What
/// cannot be removed is logged, and left to the next.
///
/// # Errors
/// When the engine's containers or volumes cannot be listed.
pub fn sweep(engine: &Engine, owner: &Owner) -> Result<Vec<String>> {
    let (ours, run) = (format!("{OURS}=1"), format!("{LIFETIME}=run"));
    let is_left = |labels: &BTreeMap<String, String>| {
        Owner::from_labels(labels).is_some_and(|other| owner.liveness_of(&other) == Liveness::Dead)
    };
    let mut removed = Vec::new();
    let mut note = |name: String, outcome: Result<()>| match outcome {
        Ok(()) => {
            removed.push(name);
            Ok(())
        }
        Err(error) if error.is_cancelled() || error.is_disconnected() => Err(error),
        Err(error) => {
            log::warn!("{error}");
            Ok(())
        }
    };
    for container in engine.list_containers(&[&ours, &run], Scope::All)? {
        if is_left(&container.labels) {
            let outcome = engine.remove_container(&container.id);
            note(container.names.into_iter().next().unwrap_or(container.id), outcome)?;
        }
    }
    // After the containers: a volume that one has cannot be removed.
    for volume in engine.list_volumes(&[&ours, &run])? {
        if is_left(&volume.labels) {
            let outcome = engine.remove_volume(&volume.name);
            note(volume.name, outcome)?;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            session: "0123456789abcdef".into(),
            pid: 4242,
            start: 9000,
            boot: "boot-1".into(),
            pidns: "pid:[1]".into(),
            host: "lab".into(),
        }
    }

    fn judged(change: impl FnOnce(&mut Owner), found: Found) -> Liveness {
        let mut other = owner();
        change(&mut other);
        owner().judge(&other, |pid| {
            assert_eq!(pid, 4242);
            found
        })
    }

    #[test]
    fn only_who_can_be_looked_up_is_judged_and_what_is_unknown_is_not_dead() {
        assert_eq!(judged(|_| (), Found::Started(9000)), Liveness::Alive);
        assert_eq!(judged(|_| (), Found::Started(9001)), Liveness::Dead);
        assert_eq!(judged(|_| (), Found::Gone), Liveness::Dead);
        assert_eq!(judged(|_| (), Found::Hidden), Liveness::Unknown);
        assert_eq!(judged(|other| other.pidns = "pid:[2]".into(), Found::Gone), Liveness::Unknown);
        assert_eq!(judged(|other| other.boot = "boot-0".into(), Found::Started(9000)), Liveness::Dead);
        let elsewhere = |other: &mut Owner| (other.boot, other.host) = ("boot-0".into(), "desk".into());
        assert_eq!(judged(elsewhere, Found::Gone), Liveness::Unknown);
        let nameless = Owner { host: "localhost".into(), ..owner() };
        let other = Owner { boot: "boot-0".into(), ..nameless.clone() };
        assert_eq!(nameless.judge(&other, |_| Found::Gone), Liveness::Unknown);
    }

    #[test]
    fn labels_name_their_owner_and_lifetime() {
        let kept = Lifetime::Kept { file: "/home/me/deployment.json".into() };
        for lifetime in [Lifetime::Run, kept] {
            let labels = owner().labels(&lifetime);
            assert_eq!(Owner::from_labels(&labels), Some(owner()));
            assert_eq!(Lifetime::from_labels(&labels), Some(lifetime));
            for name in [OURS, SESSION, PID, START, BOOT, PIDNS, HOST] {
                let mut fewer = labels.clone();
                fewer.remove(name);
                assert_eq!(Owner::from_labels(&fewer), None, "{name}");
            }
        }
        let labels = owner().labels(&Lifetime::Run);
        assert_eq!(labels["sebs-lite"], "1");
        assert_eq!(labels["sebs-lite.lifetime"], "run");
        assert!(!labels.contains_key("sebs-lite.file"));
    }

    #[test]
    fn this_process_lives_and_has_one_session() {
        let current = Owner::current().unwrap();
        assert_eq!(current.liveness_of(&current), Liveness::Alive);
        assert_eq!(Owner::current().unwrap(), current);
        assert_eq!(current.session.len(), 16);
        let older = Owner { start: current.start + 1, ..current.clone() };
        assert_eq!(current.liveness_of(&older), Liveness::Dead);
        // Beyond what the kernel gives out (pid_max is 2²² at most).
        let never = Owner { pid: 1 << 23, ..current.clone() };
        assert_eq!(current.liveness_of(&never), Liveness::Dead);
    }
}
