//! Where an engine keeps its data: a folder of this host, a volume that stays, or one that goes with the storage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::folder::{self, DataFolder};
use super::keys::Keys;
use super::server::{DataMount, LABEL};
use super::{EngineType, StartRequest, StorageConfig, StorageKind};
use crate::docker::{ContainerSummary, Engine, Liveness, Mount, OwnedVolume, Owner, Scope, VolumeMount};
use crate::error::{Error, Result};
use crate::files::{self, Claim};

/// The place of an engine's data while it is started; until it is kept, dropping this removes what was made.
#[derive(Debug)]
pub(super) enum Data {
    Folder(DataFolder),
    /// A volume that stays.
    Named(NamedVolume),
    /// A volume that goes with the storage, and the keys to it, which are nowhere else.
    Own(OwnedVolume, Keys),
}

/// A volume that stays once it is kept.
#[derive(Debug)]
pub(super) struct NamedVolume {
    name: String,
    /// Removes the volume, if this start made it and fails.
    engine: Option<Engine>,
    keys: Keys,
    /// No other process of this user starts storage on it meanwhile. Those of other users are found by their containers.
    _claim: Claim,
}

/// What containers mount, to find those that have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Folder(PathBuf),
    Volume(String),
}

/// Where data are to be, as configured.
enum Wish {
    Folder(PathBuf),
    Named(String),
    Own,
}

impl Data {
    /// The place that `config` says, made if it is not there.
    ///
    /// # Errors
    /// A usage error: the place cannot be meant, or holds the data of another engine. Or something cannot be made.
    pub(super) fn claim(engine: &Engine, config: &StorageConfig, request: &StartRequest<'_>) -> Result<Data> {
        match wish(config, request)? {
            Wish::Folder(path) => Ok(Data::Folder(DataFolder::claim(&path, config)?)),
            Wish::Named(name) => Ok(Data::Named(NamedVolume::claim(engine, &name, config)?)),
            Wish::Own => {
                let keys = Keys::configured(config)?.unwrap_or_else(Keys::fresh);
                let name = format!("sebs-lite-{}", files::random_hex(8));
                let labels = labels(config.engine);
                let volume = engine.create_owned_volume(request.owner, request.lifetime, &name, labels)?;
                Ok(Data::Own(volume, keys))
            }
        }
    }

    pub(super) fn keys(&self) -> &Keys {
        match self {
            Data::Folder(folder) => &folder.keys,
            Data::Named(volume) => &volume.keys,
            Data::Own(_, keys) => keys,
        }
    }

    /// What the container has at `target`.
    pub(super) fn mount(
        &self,
        engine: EngineType,
        target: &str,
        request: &StartRequest<'_>,
        has_selinux: bool,
    ) -> DataMount {
        let mut labels = labels(engine);
        let name = match self {
            Data::Folder(folder) => {
                let option = if has_selinux { ":z" } else { "" };
                return DataMount::Folder(format!("{}:{target}{option}", folder.path.display()));
            }
            Data::Named(named) => named.name.clone(),
            Data::Own(own, _) => {
                labels.extend(request.owner.labels(request.lifetime));
                own.name().to_string()
            }
        };
        DataMount::Volume(VolumeMount { name, target: target.to_string(), labels })
    }

    pub(super) fn source(&self) -> Source {
        match self {
            Data::Folder(folder) => Source::Folder(folder.path.clone()),
            Data::Named(volume) => Source::Volume(volume.name.clone()),
            Data::Own(volume, _) => Source::Volume(volume.name().to_string()),
        }
    }

    /// Leaves what stays as it is, and gives back the guard of a volume that goes with the storage.
    ///
    /// # Errors
    /// Keys that replace others cannot be written.
    pub(super) fn settle(self) -> Result<Option<OwnedVolume>> {
        match self {
            Data::Folder(folder) => folder.keep()?,
            Data::Named(mut volume) => volume.engine = None,
            Data::Own(volume, _) => return Ok(Some(volume)),
        }
        Ok(None)
    }
}

impl NamedVolume {
    fn claim(engine: &Engine, name: &str, config: &StorageConfig) -> Result<NamedVolume> {
        let keys = Keys::configured(config)?.unwrap_or_else(Keys::fresh);
        let name = name.to_string();
        let user = nix::unistd::getuid();
        let path = std::env::temp_dir().join(format!("sebs-lite-{user}-{name}.starting"));
        let Some(claim) = files::try_claim(&path)? else {
            return Err(Error::usage(format!("another process is starting storage on volume `{name}`")));
        };
        match engine.inspect_volume(&name) {
            Ok(found) => {
                if let Some(theirs) = found.labels.get(LABEL)
                    && theirs != config.engine.name()
                {
                    return Err(Error::usage(format!(
                        "volume `{name}` holds data of `{theirs}`, not of `{}`: choose type `{theirs}`, or another \
                         `data_volume`",
                        config.engine
                    )));
                }
                Ok(NamedVolume { name, engine: None, keys, _claim: claim })
            }
            Err(error) if error.is_not_found() => {
                // It has no owner, so that no sweep ever takes it for something left behind.
                // Nor is it given up half-way, after which nobody would know of it.
                let engine = engine.without_cancel();
                engine.create_volume(&name, &labels(config.engine))?;
                Ok(NamedVolume { name, engine: Some(engine), keys, _claim: claim })
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for NamedVolume {
    fn drop(&mut self) {
        if let Some(engine) = &self.engine
            && let Err(error) = engine.remove_volume(&self.name)
        {
            log::warn!("{error}");
        }
    }
}

impl Source {
    /// Where data are that `config` says a storage has; `None`: it says nothing of them.
    pub(super) fn of(kind: StorageKind, config: &StorageConfig) -> Option<Source> {
        let name = config.data_volume.clone()?;
        let is_folder = kind == StorageKind::Object && !config.owns_volume;
        Some(if is_folder { Source::Folder(name.into()) } else { Source::Volume(name) })
    }

    fn is_mounted_by(&self, container: &ContainerSummary) -> bool {
        let is_storage = container.labels.contains_key(LABEL);
        container.mounts.iter().filter(|mount| mount.rw).any(|mount| self.is(mount, is_storage))
    }

    /// Is it that mount? One of another storage may be neither above nor below it; of others nothing is known but that
    /// they mount the very same.
    fn is(&self, mount: &Mount, is_storage: bool) -> bool {
        match self {
            Source::Volume(name) => mount.name == *name,
            Source::Folder(path) => {
                let other = Path::new(&mount.source);
                other == path
                    || (is_storage
                        && mount.name.is_empty()
                        && (other.starts_with(path) || path.starts_with(other)))
            }
        }
    }

    /// Says whether no container has it but, where there is one, `own`: two servers on the same data destroy them.
    ///
    /// Each start asks this after its container was created and before it runs, so of two at once one sees the other.
    ///
    /// # Errors
    /// A usage error that names the container.
    pub(super) fn check_alone(&self, engine: &Engine, owner: &Owner, own: Option<&str>) -> Result<()> {
        for other in engine.list_containers(&[], Scope::All)? {
            if Some(other.id.as_str()) == own || !self.is_mounted_by(&other) {
                continue;
            }
            match state_of(&other, owner) {
                State::Live => {
                    let name = other.names.first().unwrap_or(&other.id);
                    return Err(Error::usage(format!(
                        "{self} is in use by container `{name}`: stop that first, or choose another `data_volume`"
                    )));
                }
                // The last that a killed process asked for may have been to start it.
                State::Abandoned => engine.remove_container(&other.id)?,
                State::Ended => {}
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Folder(path) => write!(f, "folder `{}`", path.display()),
            Source::Volume(name) => write!(f, "volume `{name}`"),
        }
    }
}

/// What a container is to the data that it has.
enum State {
    /// It runs, or is about to.
    Live,
    /// It is storage that was never started, of a process that is dead.
    Abandoned,
    /// It does not run.
    Ended,
}

fn state_of(container: &ContainerSummary, owner: &Owner) -> State {
    match container.state.as_str() {
        "running" | "paused" | "restarting" => State::Live,
        "created" if container.labels.contains_key(LABEL) => match Owner::from_labels(&container.labels) {
            Some(theirs) if owner.liveness_of(&theirs) == Liveness::Dead => State::Abandoned,
            _ => State::Live,
        },
        _ => State::Ended,
    }
}

/// The engine whose data are where `config` says, or where engines keep data by default, as far as we know of them, and
/// the name of that place.
///
/// # Errors
/// What says so cannot be read.
pub(super) fn engine_of_data(
    kind: StorageKind,
    config: &StorageConfig,
    request: &StartRequest<'_>,
) -> Result<Option<(EngineType, String)>> {
    let places = match configured_volume(config) {
        Some(name) => vec![name],
        None if request.keeps_data => {
            kind.engines().map(|engine| engine.default_volume(request.folder)).to_vec()
        }
        None => Vec::new(),
    };
    for place in places {
        let found = match kind {
            StorageKind::Object => folder::engine_of(&request.folder.join(&place))?,
            StorageKind::Nosql => engine_of_volume(request.engine, &place)?,
        };
        if let Some(engine) = found.filter(|engine| kind.engines().contains(engine)) {
            return Ok(Some((engine, place)));
        }
    }
    Ok(None)
}

fn engine_of_volume(engine: &Engine, name: &str) -> Result<Option<EngineType>> {
    match engine.inspect_volume(name) {
        Ok(found) => Ok(found.labels.get(LABEL).and_then(|name| name.parse().ok())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A volume that was made for an earlier start went with it.
fn configured_volume(config: &StorageConfig) -> Option<String> {
    config.data_volume.clone().filter(|_| !config.owns_volume)
}

fn wish(config: &StorageConfig, request: &StartRequest<'_>) -> Result<Wish> {
    let default = || request.keeps_data.then(|| config.engine.default_volume(request.folder));
    let Some(name) = configured_volume(config).or_else(default) else { return Ok(Wish::Own) };
    if config.engine.kind() == Some(StorageKind::Object) {
        return Ok(Wish::Folder(request.folder.join(name)));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(fits) {
        return Err(Error::usage(format!(
            "`{name}` cannot be the `data_volume` of `{}`: that is the name of a volume, of letters, digits and `_.-`",
            config.engine
        )));
    }
    Ok(Wish::Named(name))
}

fn labels(engine: EngineType) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL.to_string(), engine.name().to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(source: &str, name: &str, labels: BTreeMap<String, String>) -> ContainerSummary {
        let mount = Mount { source: source.into(), name: name.into(), rw: true, ..Mount::default() };
        ContainerSummary { mounts: vec![mount], labels, ..ContainerSummary::default() }
    }

    #[test]
    fn a_mount_is_the_same_folder_or_in_storage_one_above_or_below() {
        let source = Source::Folder("/data/objects".into());
        let ours = || labels(EngineType::Minio);
        for (folder, of_storage, of_others) in [
            ("/data/objects", true, true),
            ("/data/objects/deep", true, false),
            ("/data", true, false),
            ("/data/objects2", false, false),
        ] {
            assert_eq!(source.is_mounted_by(&container(folder, "", ours())), of_storage, "{folder}");
            assert_eq!(source.is_mounted_by(&container(folder, "", BTreeMap::new())), of_others, "{folder}");
        }
        let volume = Source::Volume("tables".into());
        assert!(volume.is_mounted_by(&container("/var/lib/docker/volumes/tables/_data", "tables", ours())));
        assert!(!volume.is_mounted_by(&container("tables", "", ours())));
    }
}
