//! Where the counters of a process or container are on this machine: reads `/proc`, looks which directory is there.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::locate::{self, Group, Tree, Version, View};
use crate::error::{Context, Error, Kind, Result};
use crate::process::StatFields;

/// Whose control group it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A container's own, found by its id: its peak may be reset.
    Container,
    /// One that a process happens to be in, maybe with many others, perhaps a whole user session: never written to.
    Process,
}

/// The directories in which the kernel counts for one container or process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The control group's path as the kernel tells it: `/system.slice/docker-ID.scope`.
    pub group: String,
    /// The generation of the memory controller.
    pub version: Version,
    /// Whose it is.
    pub subject: Subject,
    /// The directory with `memory.current` (v2) or `memory.usage_in_bytes` (v1).
    pub memory: PathBuf,
    /// The directory with `cpu.stat` of the unified hierarchy, or `cpuacct.usage` of v1; or why there is none.
    pub cpu_usage: Result<(Version, PathBuf), String>,
    /// The directory with the quota's `cpu.stat`; or why there is none.
    pub cpu_quota: Result<(Version, PathBuf), String>,
}

/// No hierarchy is this deep; a search for a container gives up there.
const MAX_DEPTH: usize = 16;

/// `PF_EXITING` of `/proc/PID/stat`: the process has begun to end, and v1 tells that it is in `/`.
const EXITING: u64 = 0x4;

impl Location {
    /// Finds the control group that a process is in; with the full id of a container, the container's own.
    ///
    /// The process is looked for in our own mounts, then in its own and in those of process 1 (through `/proc/PID/root`,
    /// which needs privileges, and helps where we run in a container with the host's processes). Where the process cannot
    /// be seen from here, a mounted control group named after the container does as well.
    ///
    /// # Errors
    /// `is_not_found` when the process has ended or is not of our process namespace; otherwise what was looked for, where,
    /// and why it is not there: the memory controller is off or not delegated, our container does not show it, or it is the
    /// root cgroup.
    pub fn of_process(pid: i32, container_id: Option<&str>) -> Result<Location> {
        Search { proc: Path::new("/proc"), pid, container_id }.location()
    }
}

/// What is looked for, and in which `/proc`.
struct Search<'a> {
    proc: &'a Path,
    pid: i32,
    container_id: Option<&'a str>,
}

/// A directory of a controller that is really there.
struct Found {
    group: String,
    version: Version,
    directory: PathBuf,
}

impl Search<'_> {
    fn location(&self) -> Result<Location> {
        let about = || match self.container_id {
            Some(id) => {
                format!("failed to find the memory cgroup of container `{id}` by its process {}", self.pid)
            }
            None => format!("failed to find the memory cgroup of process {}", self.pid),
        };
        let memory = self.controller("memory").context(about)?;
        // Only there has v1 this file. v2 keeps no memory counter for it at all.
        if memory.directory.join("cgroup.sane_behavior").exists() {
            let text = "it is in the root cgroup, which is no group but the whole machine";
            return Err(Error::new(format!("{}: {text}", about())));
        }
        let other = |controller| {
            let found = self.controller(controller).map_err(|error| error.to_string())?;
            Ok((found.version, found.directory))
        };
        Ok(Location {
            group: memory.group,
            version: memory.version,
            subject: if self.container_id.is_some() { Subject::Container } else { Subject::Process },
            memory: memory.directory,
            cpu_usage: other("cpuacct"),
            cpu_quota: other("cpu"),
        })
    }

    fn controller(&self, controller: &str) -> Result<Found> {
        let by_process = self.group(controller).and_then(|group| self.by_group(&group));
        match by_process {
            Err(error) if self.container_id.is_some() && !error.is_usage() => {
                self.by_name(controller).ok_or(error)
            }
            other => other,
        }
    }

    fn process(&self, file: &str) -> PathBuf {
        self.proc.join(self.pid.to_string()).join(file)
    }

    /// The group that the process is in.
    fn group(&self, controller: &str) -> Result<Group> {
        if self.pid <= 0 {
            return Err(Error::with_kind(Kind::NotFound, "it has no process: it does not run"));
        }
        let cgroups = lossy_text(&self.process("cgroup")).map_err(|error| match error.is_not_found() {
            true => error.context("it has ended, or is of another process namespace than we"),
            false => error,
        })?;
        let ended = lossy_text(&self.process("stat")).map_or(true, |stat| has_ended(&stat));
        if ended {
            return Err(Error::with_kind(Kind::NotFound, "the process has ended"));
        }
        locate::group_of(&cgroups, controller, self.container_id)
    }

    /// The first directory that shows the group, in the first view that has one.
    fn by_group(&self, group: &Group) -> Result<Found> {
        let file = counter_of(group.version, &group.controller);
        let mut tried = Vec::new();
        for (name, view) in self.views() {
            let directories = match view.and_then(|view| locate::directories(group, &view)) {
                Ok(directories) => directories,
                Err(error) => {
                    tried.push(format!("in {name}, {error}"));
                    continue;
                }
            };
            for directory in directories {
                if directory.join(file).exists() {
                    let (group, version) = (group.path.clone(), group.version);
                    return Ok(Found { group, version, directory });
                }
                tried.push(self.why_missing(&directory, group, file));
            }
        }
        // What the mounts of others lack is only of interest where ours are no reason.
        tried.truncate(1);
        let ended = !self.process("cgroup").exists();
        let kind = if ended { Kind::NotFound } else { Kind::Other };
        Err(Error::with_kind(kind, tried.join("; ")))
    }

    /// Our own mounts, those of the process, and those of process 1; the latter two only when they are asked for.
    fn views(&self) -> impl Iterator<Item = (String, Result<View>)> {
        let pids = [self.pid, 1].into_iter().filter(|pid| *pid > 0);
        let others = pids.map(|pid| {
            let folder = self.proc.join(pid.to_string());
            let view = lossy_text(&folder.join("mountinfo"))
                .map(|mountinfo| View { prefix: folder.join("root"), mountinfo });
            (format!("`{}`", folder.join("mountinfo").display()), view)
        });
        let own = self.proc.join("self/mountinfo");
        let name = format!("`{}`", own.display());
        std::iter::once_with(move || (name, lossy_text(&own).map(View::own))).chain(others)
    }

    /// Why a directory that should show the group has not the counter.
    fn why_missing(&self, directory: &Path, group: &Group, file: &str) -> String {
        let is_disabled = fs::read_to_string(self.proc.join("cgroups"))
            .is_ok_and(|cgroups| locate::is_disabled(&cgroups, &group.controller));
        let place = directory.display();
        let Group { version, controller, .. } = group;
        if !directory.exists() {
            format!("cgroup {version} directory `{place}` is not there")
        } else if is_disabled {
            format!(
                "`{place}` has no `{file}`: the kernel was started with the {controller} controller off \
                 (`cgroup_disable={controller}`; on a Raspberry Pi it needs `cgroup_enable={controller}`)"
            )
        } else if *version == Version::V2 && !directory.join("cgroup.type").exists() {
            format!("`{place}` has no `{file}`: it is the root cgroup, for which the kernel keeps none")
        } else if let Ok(controllers) = fs::read_to_string(directory.join("cgroup.controllers")) {
            format!(
                "`{place}` has no `{file}`: of the controllers it was only given `{}` (rootless: systemd's \
                 `Delegate={controller}` is needed)",
                controllers.trim()
            )
        } else {
            format!("`{place}` has no `{file}`")
        }
    }

    /// The only directory named after the container, wherever its hierarchy is mounted.
    fn by_name(&self, controller: &str) -> Option<Found> {
        let id = self.container_id?;
        for (_, view) in self.views() {
            let Ok(view) = view else { continue };
            for tree in locate::trees(controller, &view) {
                if let Some(found) = search(&tree, controller, id) {
                    log::debug!("found container `{id}` by its name, at `{}`", found.directory.display());
                    return Some(found);
                }
            }
        }
        None
    }
}

/// Looks for a group named after a container, level by level.
fn search(tree: &Tree, controller: &str, id: &str) -> Option<Found> {
    let file = counter_of(tree.version, controller);
    let mut level = vec![tree.directory.clone()];
    for _ in 0..MAX_DEPTH {
        let below: Vec<PathBuf> = level.iter().flat_map(|directory| folders_in(directory)).collect();
        let is_fit = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            locate::is_named_after(&name, id) && path.join(file).exists()
        };
        if let Some(directory) = below.iter().find(is_fit).cloned() {
            let rest = directory.strip_prefix(&tree.directory).unwrap_or(&directory);
            let group = format!("{}/{}", tree.root.trim_end_matches('/'), rest.display());
            return Some(Found { group, version: tree.version, directory });
        }
        level = below;
    }
    None
}

fn folders_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The file that shows that a directory is one of a controller.
fn counter_of(version: Version, controller: &str) -> &'static str {
    match (version, controller) {
        (Version::V1, "memory") => "memory.usage_in_bytes",
        (Version::V1, "cpuacct") => "cpuacct.usage",
        (Version::V2, "memory") => "memory.current",
        _ => "cpu.stat",
    }
}

/// The text of a file of `/proc`, which may hold names in any encoding; those of others do not matter.
fn lossy_text(path: &Path) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // The process ended while its file was read.
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {
            Err(std::io::Error::from(ErrorKind::NotFound))
                .context(|| format!("failed to read `{}`", path.display()))
        }
        Err(error) => Err(error).context(|| format!("failed to read `{}`", path.display())),
    }
}

/// Has a process ended, or begun to, by its `/proc/PID/stat`? The state is field 3, the flags are field 9.
fn has_ended(stat: &str) -> bool {
    let Some(fields) = StatFields::of(stat) else { return false };
    let flags: u64 = fields.number(9).unwrap_or(0);
    matches!(fields.text(3), Some("Z" | "X" | "x")) || flags & EXITING != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;

    const ID: &str = "3f2a9c0d1e4b5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8";
    const RUNNING: &str = "77 (a (b) c) S 1 77 77 0 -1 4194560 1 2 3";

    /// A `/proc` and a `/sys/fs/cgroup` made of files.
    struct Host(TempFolder);

    impl Host {
        fn create() -> Host {
            let host = Host(TempFolder::create().unwrap());
            host.put("proc/77/stat", RUNNING);
            host
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// Mounts the unified hierarchy at a folder, for a process.
        fn mount_v2(&self, process: &str, root: &str, at: &str) {
            let at = if process == "self" { self.path(at).display().to_string() } else { at.to_string() };
            let line = format!("30 20 0:26 {root} {at} rw,nosuid - cgroup2 cgroup2 rw\n");
            self.put(&format!("proc/{process}/mountinfo"), &line);
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn search(&self, container_id: Option<&str>) -> Result<Location> {
            Search { proc: &self.path("proc"), pid: 77, container_id }.location()
        }
    }

    #[test]
    fn a_container_is_found_by_its_process() {
        let host = Host::create();
        host.mount_v2("self", "/", "cg");
        host.put("proc/77/cgroup", &format!("0::/system.slice/docker-{ID}.scope/init.scope\n"));
        host.put(&format!("cg/system.slice/docker-{ID}.scope/memory.current"), "1\n");
        host.put(&format!("cg/system.slice/docker-{ID}.scope/cpu.stat"), "");
        let found = host.search(Some(ID)).unwrap();
        let directory = host.path(&format!("cg/system.slice/docker-{ID}.scope"));
        assert_eq!(found.group, format!("/system.slice/docker-{ID}.scope"));
        assert_eq!((found.version, found.subject), (Version::V2, Subject::Container));
        assert_eq!((&found.memory, found.cpu_usage), (&directory, Ok((Version::V2, directory.clone()))));
    }

    #[test]
    fn the_mounts_of_the_process_do_where_ours_show_nothing() {
        let host = Host::create();
        host.mount_v2("self", "/", "cg");
        host.put("proc/77/cgroup", &format!("0::/../{ID}\n"));
        host.mount_v2("77", &format!("/../{ID}"), "/sys/fs/cgroup");
        host.put("proc/77/root/sys/fs/cgroup/memory.current", "1\n");
        let found = host.search(Some(ID)).unwrap();
        assert_eq!(found.memory, host.path("proc/77/root/sys/fs/cgroup"));
        assert!(found.cpu_usage.unwrap_err().contains("below none of the mounts"));
    }

    #[test]
    fn a_container_whose_process_is_not_ours_to_see_is_found_by_name() {
        let host = Host::create();
        host.mount_v2("self", "/../..", "host/cg");
        // A stranger has the number that the engine told.
        host.put("proc/77/cgroup", "0::/\n");
        host.put(&format!("host/cg/machine.slice/libpod-conmon-{ID}.scope/memory.current"), "1\n");
        host.put(&format!("host/cg/machine.slice/libpod-{ID}.scope/container/memory.current"), "1\n");
        host.put(&format!("host/cg/machine.slice/libpod-{ID}.scope/memory.current"), "1\n");
        let found = host.search(Some(ID)).unwrap();
        assert_eq!(found.memory, host.path(&format!("host/cg/machine.slice/libpod-{ID}.scope")));
        assert_eq!(found.group, format!("/../../machine.slice/libpod-{ID}.scope"));
        // Nobody but that name speaks for it.
        let other = host.search(Some(&ID.replace('3', "4"))).unwrap_err().to_string();
        assert!(other.contains("no part of which is named after"), "{other}");
    }

    #[test]
    fn a_process_that_has_ended_is_not_found() {
        let host = Host::create();
        host.mount_v2("self", "/", "cg");
        assert!(host.search(None).unwrap_err().is_not_found());
        host.put("proc/77/cgroup", "4:memory:/\n0::/\n");
        for stat in ["77 (x) Z 1 77 77 0 -1 4194304 1", "77 (x) R 1 77 77 0 -1 4194564 1"] {
            host.put("proc/77/stat", stat);
            assert!(host.search(None).unwrap_err().is_not_found(), "{stat}");
        }
        let stopped = Search { proc: &host.path("proc"), pid: 0, container_id: Some(ID) };
        assert!(stopped.location().unwrap_err().is_not_found());
    }

    #[test]
    fn an_error_says_why_the_counter_is_missing() {
        let host = Host::create();
        host.mount_v2("self", "/", "cg");
        host.put("proc/77/cgroup", "0::/user.slice\n");
        let reason = || host.search(None).unwrap_err().to_string();
        assert!(reason().ends_with("cg/user.slice` is not there"), "{}", reason());
        host.put("cg/user.slice/cgroup.controllers", "cpu pids\n");
        assert!(reason().contains("it is the root cgroup"), "{}", reason());
        host.put("cg/user.slice/cgroup.type", "domain\n");
        assert!(reason().contains("only given `cpu pids`"), "{}", reason());
        host.put("proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t90\t0\n");
        assert!(reason().contains("cgroup_disable=memory"), "{}", reason());
        assert!(reason().starts_with("failed to find the memory cgroup of process 77: "));
    }
}
