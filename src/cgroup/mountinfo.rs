//! The text of `/proc/PID/mountinfo` as a list of mounts, and which of them a path really leads to.

use std::path::{Path, PathBuf};

/// One mount, as far as finding control groups needs it; proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    id: u32,
    parent: u32,
    /// Which folder of the filesystem the mount shows; of a control group, seen from the reader's namespace: `/../..`.
    pub(super) root: String,
    /// Where it is mounted.
    pub(super) mount_point: PathBuf,
    /// Is nothing to be written through this mount?
    pub(super) is_read_only: bool,
    /// `cgroup`, `cgroup2`, `tmpfs`.
    pub(super) filesystem: String,
    /// Options of the filesystem: `rw,cpu,cpuacct`.
    super_options: String,
}

impl Mount {
    /// Does this mount show the v1 hierarchy of a controller?
    pub(super) fn is_v1_of(&self, controller: &str) -> bool {
        self.filesystem == "cgroup" && self.super_options.split(',').any(|option| option == controller)
    }

    /// Does this mount show the unified hierarchy?
    pub(super) fn is_v2(&self) -> bool {
        self.filesystem == "cgroup2"
    }
}

/// The mounts that a text names; a line that is none is left out, since it cannot be one that matters.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    // Any number of optional fields stands between the sixth field and a lone hyphen.
    let fields: Vec<&str> = line.split(' ').collect();
    let hyphen = 6 + fields.get(6..)?.iter().position(|field| *field == "-")?;
    Some(Mount {
        id: fields[0].parse().ok()?,
        parent: fields[1].parse().ok()?,
        root: unescaped(fields[3]),
        mount_point: PathBuf::from(unescaped(fields[4])),
        is_read_only: fields[5].split(',').any(|option| option == "ro"),
        filesystem: fields.get(hyphen + 1)?.to_string(),
        super_options: fields.get(hyphen + 3)?.to_string(),
    })
}

/// The kernel writes a space, tab, newline and backslash as a backslash with three octal digits.
fn unescaped(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(octal);
        match code {
            Some(code) if *first == b'\\' => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn octal(digits: &[u8]) -> Option<u8> {
    let text = digits.iter().all(|digit| (b'0'..=b'7').contains(digit)).then_some(digits)?;
    u8::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok()
}

/// Does the mount point of `mount` lead to it, or is another mount on top of it or in the way?
pub(super) fn is_visible(mounts: &[Mount], mount: &Mount) -> bool {
    // Goes the way the kernel goes: from a mount to the one that stands on it first on the way to the path.
    let mut at: Option<&Mount> = None;
    for _ in 0..=mounts.len() {
        let next = mounts
            .iter()
            .filter(|child| stands_on(mounts, child, at) && mount.mount_point.starts_with(&child.mount_point))
            .min_by_key(|child| child.mount_point.components().count());
        match next {
            Some(next) => at = Some(next),
            None => break,
        }
    }
    at == Some(mount)
}

/// Is `child` mounted on `parent`; on none, if its parent is outside of what this text shows?
fn stands_on(mounts: &[Mount], child: &Mount, parent: Option<&Mount>) -> bool {
    match parent {
        Some(parent) => child.parent == parent.id && child.id != parent.id,
        None => child.parent == child.id || !mounts.iter().any(|mount| mount.id == child.parent),
    }
}

/// A path below `prefix`, as a process with another root folder calls it.
pub(super) fn below(prefix: &Path, path: &Path) -> PathBuf {
    prefix.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_understood_with_any_number_of_optional_fields() {
        let text = "35 24 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
                    36 24 0:31 /docker/a\\040b\\134x2dc /mnt/my\\040groups ro,nosuid shared:9 master:3 \
                    - cgroup cgroup rw,cpu,cpuacct\n\
                    nonsense\n\
                    37 24 0:32 / /x rw\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert!(mounts[0].is_v1_of("memory") && !mounts[0].is_v1_of("cpu") && !mounts[0].is_read_only);
        assert_eq!(mounts[1].root, "/docker/a b\\x2dc");
        assert_eq!(mounts[1].mount_point, Path::new("/mnt/my groups"));
        assert!(mounts[1].is_v1_of("cpuacct") && mounts[1].is_read_only && !mounts[1].is_v2());
    }

    #[test]
    fn only_what_the_kernel_escapes_is_unescaped() {
        assert_eq!(unescaped("a\\040b\\011\\012\\134"), "a b\t\n\\");
        assert_eq!(unescaped("dev-disk-by\\x2duuid\\9"), "dev-disk-by\\x2duuid\\9");
        assert_eq!(unescaped("\\777\\04"), "\\777\\04");
        assert_eq!(unescaped("größe"), "größe");
    }

    #[test]
    fn a_mount_under_another_is_not_visible() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                    2 1 0:20 / /sys rw - sysfs sysfs rw\n\
                    3 2 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                    4 3 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    5 4 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    6 1 0:24 / /mnt/deep/a rw - cgroup2 cgroup2 rw\n\
                    7 1 0:25 / /mnt/deep rw - tmpfs tmpfs rw\n";
        let mounts = parse(text);
        let visible: Vec<u32> =
            mounts.iter().filter(|mount| is_visible(&mounts, mount)).map(|mount| mount.id).collect();
        assert_eq!(visible, [1, 2, 4, 5, 7]);
        // In a chroot the mount at the top is not shown.
        let mounts = parse("9 3 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert!(is_visible(&mounts, &mounts[0]));
    }
}
