//! Tests of the path finders on what many kinds of hosts show.

use super::*;

/// The container's id in all texts, where `ID` stands.
const ID: &str = "9b1d3a7c5e2f4860a1b2c3d4e5f60718293a4b5c6d7e8f901a2b3c4d5e6f7081";

/// A container around ours, where `OUTER` stands.
const OUTER: &str = "0c4e8f1a2b3d5c6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6";

fn filled(text: &str) -> String {
    text.replace("ID", ID).replace("OUTER", OUTER)
}

/// The directories of the memory controller of container `ID`.
fn found(cgroups: &str, mountinfo: &str) -> Result<(Version, Vec<String>)> {
    found_of("memory", Some(ID), cgroups, mountinfo)
}

fn found_of(
    controller: &str,
    id: Option<&str>,
    cgroups: &str,
    mountinfo: &str,
) -> Result<(Version, Vec<String>)> {
    let group = group_of(&filled(cgroups), controller, id)?;
    let paths = directories(&group, &View::own(filled(mountinfo)))?;
    Ok((group.version, paths.iter().map(|path| path.display().to_string()).collect()))
}

#[track_caller]
fn assert_found(cgroups: &str, mountinfo: &str, version: Version, directory: &str) {
    let found = found(cgroups, mountinfo).unwrap();
    assert_eq!(found, (version, vec![filled(directory)]));
}

/// Ubuntu 20.04, Debian 10: systemd with v1, controllers mounted together, and `unified` beside them.
const V1_SYSTEMD: &str = "\
22 29 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
31 22 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:28 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
37 31 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
38 31 0:33 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory
39 31 0:34 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,net_cls,net_prio
";

/// Fedora 31 and later, Ubuntu 22.04, Debian 11: systemd with v2 alone.
const V2_SYSTEMD: &str = "\
23 61 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:2 - sysfs sysfs rw,seclabel
30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,seclabel,nsdelegate,memory_recursiveprot
61 1 0:33 /root / rw,relatime shared:1 - btrfs /dev/vda4 rw,seclabel,compress=zstd:1,subvol=/root
";

/// What a container with a cgroup namespace of its own sees of v2.
const V2_IN_CONTAINER: &str = "\
640 520 0:54 / / rw,relatime - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
642 640 0:61 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
643 642 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup ro,nsdelegate,memory_recursiveprot
";

#[test]
fn v1_on_ubuntu_with_both_drivers() {
    let named = "12:net_cls,net_prio:PATH\n11:memory:PATH\n9:cpu,cpuacct:PATH\n1:name=systemd:PATH\n0::/system.slice/containerd.service\n";
    for path in ["/docker/ID", "/system.slice/docker-ID.scope", "/my.slice/my-lab.slice/docker-ID.scope"] {
        let cgroups = named.replace("PATH", path);
        assert_found(&cgroups, V1_SYSTEMD, Version::V1, &format!("/sys/fs/cgroup/memory{path}"));
        for controller in ["cpu", "cpuacct"] {
            let expected = vec![filled(&format!("/sys/fs/cgroup/cpu,cpuacct{path}"))];
            let cpu = found_of(controller, Some(ID), &cgroups, V1_SYSTEMD).unwrap();
            assert_eq!(cpu, (Version::V1, expected));
        }
    }
}

#[test]
fn v2_with_both_drivers_and_parents_of_all_kinds() {
    let paths = [
        "/system.slice/docker-ID.scope",
        "/docker/ID",
        "/a/b/ID",
        "/test.slice/test-nested.slice/docker-ID.scope",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service/ID",
        "/system.slice/system-my\\x2dlab.slice/docker-ID.scope",
        "/machine.slice/libpod-ID.scope",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1f_2.slice/cri-containerd-ID.scope",
        "/kubepods/burstable/pod1f-2/ID",
        "/actions_job/ID",
    ];
    for path in paths {
        let directory = format!("/sys/fs/cgroup{path}");
        assert_found(&format!("0::{path}\n"), V2_SYSTEMD, Version::V2, &directory);
    }
}

#[test]
fn v2_on_alpine_with_openrc() {
    // OpenRC makes the named hierarchy `openrc` even beside v2, in its hybrid mode.
    let mountinfo = "\
20 1 254:3 / / rw,relatime - ext4 /dev/vda3 rw
21 20 0:19 / /sys rw,nosuid,nodev,noexec,relatime - sysfs sysfs rw
29 21 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 none rw,nsdelegate
";
    assert_found("0::/docker/ID\n", mountinfo, Version::V2, "/sys/fs/cgroup/docker/ID");
    let mountinfo = "\
20 1 254:3 / / rw,relatime - ext4 /dev/vda3 rw
29 20 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs cgroup_root rw,size=10240k,mode=755
30 29 0:26 / /sys/fs/cgroup/openrc rw,nosuid,nodev,noexec,relatime - cgroup openrc rw,release_agent=/lib/rc/sh/cgroup-release-agent.sh,name=openrc
31 29 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime - cgroup2 none rw,nsdelegate
38 29 0:34 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime - cgroup memory rw,memory
";
    let cgroups = "8:memory:/docker/ID\n1:name=openrc:/docker\n0::/docker/ID\n";
    assert_found(cgroups, mountinfo, Version::V1, "/sys/fs/cgroup/memory/docker/ID");
}

#[test]
fn a_hybrid_host_has_memory_where_its_line_says() {
    let with_v1 = "4:memory:/docker/ID\n1:name=systemd:/docker/ID\n0::/docker/ID\n";
    assert_found(with_v1, V1_SYSTEMD, Version::V1, "/sys/fs/cgroup/memory/docker/ID");
    // `cgroup_no_v1=memory`: the controller is in `unified`, while others are on v1.
    let without = "9:cpu,cpuacct:/docker/ID\n1:name=systemd:/docker/ID\n0::/docker/ID\n";
    assert_found(without, V1_SYSTEMD, Version::V2, "/sys/fs/cgroup/unified/docker/ID");
    // A hierarchy that is only named like the controller is none.
    let named = "3:name=memory:/else\n0::/docker/ID\n";
    assert_found(named, V1_SYSTEMD, Version::V2, "/sys/fs/cgroup/unified/docker/ID");
}

#[test]
fn the_container_is_the_topmost_group_of_its_name() {
    for below in [
        "/init.scope",
        "/container",
        "/system.slice/cron.service",
        "/docker/OUTER",
        "/user.slice/user-0.slice/session-1.scope",
    ] {
        let cgroups = format!("0::/machine.slice/libpod-ID.scope{below}\n");
        assert_found(&cgroups, V2_SYSTEMD, Version::V2, "/sys/fs/cgroup/machine.slice/libpod-ID.scope");
    }
    let rootless = "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container\n";
    let directory = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope";
    assert_found(rootless, V2_SYSTEMD, Version::V2, directory);
    // Without an id it is the group of the process and nothing above it.
    let process = found_of("memory", None, "0::/docker/ID/init.scope\n", V2_SYSTEMD).unwrap();
    assert_eq!(process.1, [filled("/sys/fs/cgroup/docker/ID/init.scope")]);
}

#[test]
fn docker_in_docker() {
    // v1 has no namespace by default: the inner daemon sees whole paths, and mounts that show its own part.
    let mountinfo = "\
900 800 0:50 / / rw,relatime - overlay overlay rw
910 900 0:60 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
911 910 0:33 /docker/OUTER /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime - cgroup cgroup rw,memory
";
    let cgroups = "11:memory:/docker/OUTER/docker/ID\n0::/docker/OUTER/docker/ID\n";
    assert_found(cgroups, mountinfo, Version::V1, "/sys/fs/cgroup/memory/docker/ID");
    // v2 has one: the inner containers are below its root.
    assert_found("0::/docker/ID\n", V2_IN_CONTAINER, Version::V2, "/sys/fs/cgroup/docker/ID");
}

#[test]
fn a_tool_in_a_container_sees_the_hosts_groups_through_a_mount() {
    // `-v /sys/fs/cgroup:/host/cgroup:ro --pid=host`, systemd driver.
    let mountinfo = format!(
        "{V2_IN_CONTAINER}660 640 0:26 /../.. /host/cgroup ro,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
    );
    let cgroups = "0::/../../system.slice/docker-ID.scope\n";
    assert_found(cgroups, &mountinfo, Version::V2, "/host/cgroup/system.slice/docker-ID.scope");
    // A neighbour under the same slice: which slice that is, the text does not tell.
    let neighbour = found("0::/../docker-ID.scope\n", &mountinfo).unwrap_err().to_string();
    assert!(
        neighbour.contains("/../docker-") && neighbour.contains("`/host/cgroup` shows `/../..`"),
        "{neighbour}"
    );
    // `--cgroupns=host`: whole paths, and a mount of everything.
    assert_found("0::/docker/ID\n", V2_IN_CONTAINER, Version::V2, "/sys/fs/cgroup/docker/ID");
    // A namespace and no such mount.
    let unseen = found("0::/../ID\n", V2_IN_CONTAINER).unwrap_err().to_string();
    assert!(unseen.contains("--cgroupns=host") && unseen.contains("`/sys/fs/cgroup` shows `/`"), "{unseen}");
}

#[test]
fn another_processs_mounts_are_reached_through_its_root() {
    let group = group_of(&filled("0::/../ID\n"), "memory", Some(ID)).unwrap();
    let mountinfo = filled("30 20 0:26 /../ID /sys/fs/cgroup ro - cgroup2 cgroup ro\n");
    let view = View { prefix: "/proc/812/root".into(), mountinfo };
    let paths = directories(&group, &view).unwrap();
    // As text, since paths are equal with and without a last slash.
    assert_eq!(paths[0].as_os_str(), "/proc/812/root/sys/fs/cgroup");
    assert_eq!(paths.len(), 1);
}

#[test]
fn kubernetes_with_containerd_and_crio_and_the_old_docker() {
    // GKE with Container-Optimized OS before its change to v2.
    let gke = "\
100 1 8:1 / / ro,relatime - ext2 /dev/root ro
110 100 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec - tmpfs tmpfs ro,mode=755
112 110 0:30 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:13 - cgroup cgroup rw,memory
";
    for path in [
        "/kubepods/burstable/pod8f1d2c3b-0a9e-4b7c-8d6e-5f4a3b2c1d0e/ID",
        "/kubepods/pod8f1d2c3b-0a9e-4b7c-8d6e-5f4a3b2c1d0e/ID",
        "/system.slice/containerd.service/kubepods-besteffort-pod8f1d.slice:cri-containerd:ID",
    ] {
        let directory = format!("/sys/fs/cgroup/memory{path}");
        assert_found(&format!("8:memory:{path}\n"), gke, Version::V1, &directory);
    }
    let crio = "0::/kubepods.slice/kubepods-pod8f1d.slice/crio-ID.scope/container\n";
    let directory = "/sys/fs/cgroup/kubepods.slice/kubepods-pod8f1d.slice/crio-ID.scope";
    assert_found(crio, V2_SYSTEMD, Version::V2, directory);
    let watcher = found("0::/machine.slice/libpod-conmon-ID.scope\n", V2_SYSTEMD).unwrap_err();
    assert!(watcher.to_string().contains("no part of which is named after"), "{watcher}");
}

#[test]
fn wsl2_in_its_two_kinds() {
    // Before 2023: all v1 controllers apart, without systemd.
    let old = "\
55 45 8:32 / / rw,relatime - ext4 /dev/sdc rw,discard
68 55 0:22 / /sys rw,nosuid,nodev,noexec,noatime - sysfs sysfs rw
69 68 0:23 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
70 69 0:24 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate
73 69 0:27 / /sys/fs/cgroup/cpuacct rw,nosuid,nodev,noexec,relatime - cgroup cgroup rw,cpuacct
75 69 0:29 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime - cgroup cgroup rw,memory
";
    assert_found("5:memory:/docker/ID\n0::/\n", old, Version::V1, "/sys/fs/cgroup/memory/docker/ID");
    let accounted = found_of("cpuacct", Some(ID), "3:cpuacct:/docker/ID\n0::/\n", old).unwrap();
    assert_eq!(accounted.1, [filled("/sys/fs/cgroup/cpuacct/docker/ID")]);
    let new = "\
80 70 8:32 / / rw,relatime shared:1 - ext4 /dev/sdc rw,discard,errors=remount-ro
92 80 0:22 / /sys rw,nosuid,nodev,noexec,noatime shared:8 - sysfs sysfs rw
95 92 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
";
    assert_found(
        "0::/system.slice/docker-ID.scope\n",
        new,
        Version::V2,
        "/sys/fs/cgroup/system.slice/docker-ID.scope",
    );
    // Docker Desktop's containers live in another guest: the number is that of a stranger, or of nobody.
    let stranger = found("0::/init.scope\n", new).unwrap_err().to_string();
    assert!(stranger.contains("`/init.scope`") && stranger.contains("Docker Desktop"), "{stranger}");
}

#[test]
fn one_hierarchy_with_all_controllers_in_an_odd_place() {
    // cgroupfs-mount of old, and Android.
    let mountinfo = "\
1 0 0:1 / / rw - rootfs rootfs rw
40 1 0:30 / /dev/my\\040groups rw,relatime - cgroup none rw,cpuset,cpu,cpuacct,memory,blkio
";
    let cgroups = "2:cpuset,cpu,cpuacct,memory,blkio:/lab:1/docker/ID\n";
    assert_found(cgroups, mountinfo, Version::V1, "/dev/my groups/lab:1/docker/ID");
}

#[test]
fn the_mount_that_can_be_written_comes_first_and_hidden_ones_not_at_all() {
    let twice = format!(
        "{V2_SYSTEMD}70 61 0:26 / /mnt/cg ro - cgroup2 cgroup2 rw\n71 61 0:26 /docker /srv/d rw - cgroup2 cgroup2 rw\n"
    );
    let twice = twice.replace("/sys/fs/cgroup rw", "/sys/fs/cgroup ro");
    let found_twice = found("0::/docker/ID\n", &twice).unwrap().1;
    assert_eq!(found_twice, ["/srv/d/ID", "/sys/fs/cgroup/docker/ID", "/mnt/cg/docker/ID"].map(filled));
    // An outer tmpfs hides what was mounted before it.
    let hidden = format!("{V2_SYSTEMD}80 23 0:40 / /sys/fs rw - tmpfs tmpfs rw\n");
    assert!(found("0::/docker/ID\n", &hidden).unwrap_err().to_string().contains("mounted nowhere"));
}

#[test]
fn an_error_says_what_was_looked_for_and_why_it_is_not_there() {
    let failure = |cgroups: &str, mountinfo: &str| found(cgroups, mountinfo).unwrap_err();
    // `cgroup_disable=memory` on a v1 host without a unified hierarchy.
    let disabled = failure("3:cpu,cpuacct:/docker/ID\n1:name=systemd:/docker/ID\n", V1_SYSTEMD).to_string();
    assert!(
        disabled.contains("`memory`") && disabled.contains("`cpu,cpuacct`, `name=systemd`"),
        "{disabled}"
    );
    let unmounted = failure("4:memory:/docker/ID\n", V2_SYSTEMD).to_string();
    assert_eq!(unmounted, "a cgroup v1 hierarchy with controller `memory` is mounted nowhere");
    let unmounted = failure("0::/docker/ID\n", "1 0 8:1 / / rw - ext4 /dev/sda rw\n").to_string();
    assert_eq!(unmounted, "the cgroup v2 hierarchy is mounted nowhere");
    assert!(failure("0::/docker/ID (deleted)\n", V2_SYSTEMD).is_not_found());
    // Rootless without delegation: the engine's own group is not the container's.
    let rootless = failure("0::/user.slice/user-1000.slice/session-3.scope\n", V2_SYSTEMD).to_string();
    assert!(rootless.contains("session-3.scope") && rootless.contains("rootless"), "{rootless}");
    for wrong in ["", "web", "9b1d3a7c5e2", "9b1d3a7c5e2f/../.."] {
        let error = found_of("memory", Some(wrong), "0::/web\n", V2_SYSTEMD).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("no container id"), "{error}");
    }
}

#[test]
fn a_controller_that_is_off_is_told_from_one_that_is_not_listed() {
    let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t70\t1\nmemory\t0\t70\t0\n";
    assert!(is_disabled(text, "memory"));
    assert!(!is_disabled(text, "cpu") && !is_disabled(text, "pids"));
}
