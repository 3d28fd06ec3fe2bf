//! From the text of `/proc/PID/cgroup` and of a `mountinfo` to the directory of a controller, as pure functions.
//!
//! The path in `/proc/PID/cgroup` and the root of a mount are both told from the reader's own cgroup namespace: `/a` is
//! below its root, `/../b` beside it. So a mount shows a control group if the mount's root begins the group's path, and
//! no other case can be decided from the text; cgroup_namespaces(7).

use std::path::{Path, PathBuf};

use super::mountinfo::{self, Mount};
use crate::error::{Error, Kind, Result};

/// The two generations of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A hierarchy for each controller, or for a few.
    V1,
    /// One unified hierarchy for all controllers.
    V2,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Version::V1 { "v1" } else { "v2" })
    }
}

/// A control group in the hierarchy of one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which generation the controller is in.
    pub version: Version,
    /// The controller: `memory`.
    pub controller: String,
    /// Its path as the kernel tells it to us: `/docker/ID`, from a cgroup namespace `/../ID`.
    pub path: String,
}

/// One process's view of the mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where the root folder of that process is for us: `/` for ourselves, `/proc/PID/root` for another.
    pub prefix: PathBuf,
    /// The text of its `mountinfo`.
    pub mountinfo: String,
}

/// The fewest digits of a container id that are accepted: what `docker ps` shows.
const MIN_ID: usize = 12;

/// The control group that a process is in, or with a container's id, the container's own group above it.
///
/// `cgroups` is the text of `/proc/PID/cgroup`. The group of a container is the topmost one named after its id, so that
/// what a container makes of its own below it (systemd's `init.scope`, Podman's `container`) counts as well. Without an
/// id it is the process's very group. A controller that has no v1 hierarchy is in the unified one, if in any.
///
/// # Errors
/// When the kernel has the controller in no hierarchy, when the group was removed (`is_not_found`), or when no part of
/// its path is named after the container: the engine gives containers no group of their own, or counts processes in
/// another namespace, and this process is a stranger. An id that is none is a usage error.
pub fn group_of(cgroups: &str, controller: &str, container_id: Option<&str>) -> Result<Group> {
    let (version, path) = hierarchy(cgroups, controller)?;
    if let Some(path) = path.strip_suffix(" (deleted)") {
        return Err(Error::with_kind(Kind::NotFound, format!("its cgroup {version} `{path}` was removed")));
    }
    let path = match container_id {
        None => path.to_string(),
        Some(id) => group_named_after(path, checked(id)?).ok_or_else(|| {
            Error::new(format!(
                "it is in cgroup {version} `{path}`, no part of which is named after the container: the engine gives \
                 containers no cgroup of their own (rootless without delegation), or runs in another process \
                 namespace or machine (we in a container without `--pid=host`, Docker Desktop)"
            ))
        })?,
    };
    Ok(Group { version, controller: controller.to_string(), path })
}

/// The directories in which a view shows a group: those that can be written first, most often only one.
///
/// # Errors
/// Why the view shows it nowhere: the hierarchy is not mounted there, or only other parts of it are.
pub fn directories(group: &Group, view: &View) -> Result<Vec<PathBuf>> {
    let mounts = shown(group, view)?;
    let found: Vec<PathBuf> = mounts
        .iter()
        .filter_map(|mount| {
            let rest = below_root(&group.path, &mount.root)?;
            let top = mountinfo::below(&view.prefix, &mount.mount_point);
            // To join nothing would add a slash.
            Some(if rest.as_os_str().is_empty() { top } else { top.join(rest) })
        })
        .collect();
    if found.is_empty() {
        let roots: Vec<String> = mounts
            .iter()
            .map(|mount| format!("`{}` shows `{}`", mount.mount_point.display(), mount.root))
            .collect();
        return Err(Error::new(format!(
            "cgroup {} `{}` is below none of the mounts ({}): we run in a container or cgroup namespace that does not \
             show it (`--cgroupns=host`, or the host's `/sys/fs/cgroup` mounted, would)",
            group.version,
            group.path,
            roots.join(", ")
        )));
    }
    Ok(found)
}

/// A mount that may show the group of a container: where it is, what it shows of which hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) version: Version,
    pub(super) root: String,
    pub(super) directory: PathBuf,
}

/// All mounts that may show a controller's groups, for a search by name where no path is to be had.
pub(super) fn trees(controller: &str, view: &View) -> Vec<Tree> {
    [Version::V1, Version::V2]
        .into_iter()
        .flat_map(|version| {
            let group = Group { version, controller: controller.to_string(), path: String::new() };
            shown(&group, view).unwrap_or_default().into_iter().map(move |mount| Tree {
                version,
                directory: mountinfo::below(&view.prefix, &mount.mount_point),
                root: mount.root,
            })
        })
        .collect()
}

/// The mounts of a group's hierarchy that can be reached, those that can be written first.
fn shown(group: &Group, view: &View) -> Result<Vec<Mount>> {
    let all = mountinfo::parse(&view.mountinfo);
    let is_fit = |mount: &&Mount| match group.version {
        Version::V1 => mount.is_v1_of(&group.controller),
        Version::V2 => mount.is_v2(),
    };
    let mut fit: Vec<Mount> =
        all.iter().filter(is_fit).filter(|mount| mountinfo::is_visible(&all, mount)).cloned().collect();
    fit.sort_by_key(|mount| mount.is_read_only);
    if fit.is_empty() {
        let what = match group.version {
            Version::V1 => format!("a cgroup v1 hierarchy with controller `{}`", group.controller),
            Version::V2 => "the cgroup v2 hierarchy".to_string(),
        };
        return Err(Error::new(format!("{what} is mounted nowhere")));
    }
    Ok(fit)
}

/// The version and path of the hierarchy that has a controller; `hierarchy:controllers:path` a line, cgroups(7).
fn hierarchy<'a>(cgroups: &'a str, controller: &str) -> Result<(Version, &'a str)> {
    let lines = || {
        cgroups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
    };
    // `name=systemd` is a hierarchy without controllers, whatever its name.
    let has = |controllers: &str| controllers.split(',').any(|name| name == controller);
    if let Some((_, _, path)) = lines().find(|(_, controllers, _)| has(controllers)) {
        return Ok((Version::V1, path));
    }
    if let Some((_, _, path)) = lines().find(|(id, controllers, _)| *id == "0" && controllers.is_empty()) {
        return Ok((Version::V2, path));
    }
    let names: Vec<&str> = lines().map(|(_, controllers, _)| controllers).collect();
    Err(Error::new(format!(
        "it is in no hierarchy with controller `{controller}`, and there is no unified one (there are: `{}`)",
        names.join("`, `")
    )))
}

fn checked(id: &str) -> Result<&str> {
    let is_id = id.len() >= MIN_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id).ok_or_else(|| {
        Error::usage(format!("`{id}` is no container id: that has {MIN_ID} or more hexadecimal digits"))
    })
}

/// A group's path up to its first part that is named after a container.
fn group_named_after(path: &str, id: &str) -> Option<String> {
    let parts: Vec<&str> = parts(path).collect();
    let top = parts.iter().position(|part| is_named_after(part, id))?;
    Some(format!("/{}", parts[..=top].join("/")))
}

/// Is a group of this name a container's: `ID`, `docker-ID.scope`, `libpod-ID.scope`, `cri-containerd-ID.scope`,
/// and not that of the process that watches it, `libpod-conmon-ID.scope`?
pub(super) fn is_named_after(name: &str, id: &str) -> bool {
    name.contains(id) && !name.contains("conmon")
}

/// What is left of a path below the root of a mount; `None` if it is not below it.
fn below_root(path: &str, root: &str) -> Option<PathBuf> {
    let mut path = parts(path);
    for part in parts(root) {
        if path.next()? != part {
            return None;
        }
    }
    let rest: PathBuf = path.collect();
    // Above the root of the mount, and so outside of it.
    (!rest.starts_with("..")).then_some(rest)
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// Was the kernel started with a controller switched off? From the text of `/proc/cgroups`.
///
/// A controller that is not listed tells nothing: kernels without v1 controllers list none.
pub fn is_disabled(proc_cgroups: &str, controller: &str) -> bool {
    let fields = proc_cgroups.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.into_iter().any(|fields| matches!(fields[..], [name, .., "0"] if name == controller))
}

impl View {
    /// Our own mounts, from the text of `/proc/self/mountinfo`.
    pub fn own(mountinfo: impl Into<String>) -> View {
        View { prefix: Path::new("/").to_path_buf(), mountinfo: mountinfo.into() }
    }
}

#[cfg(test)]
mod tests;
