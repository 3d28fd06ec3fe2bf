//! The core on Podman: an engine of its own in a folder, and what the program and the client do with it.
//!
//! Podman's service answers as Docker does, and differs in what nobody looks at: these tests hold it to what we need.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, Engine, Lifetime, Owner, sweep};
use sebs_lite::progress::Progress;
use serde_json::Value;

use crate::program::{Ended, Place};
use crate::support::{self, Folder, TestImage, unique};

/// A Podman service with a store, networks and a socket of its own, all of which end when it is dropped.
struct Podman {
    process: Child,
    folder: Folder,
}

/// Where its programs are: on the path, or unpacked below a folder.
struct Programs {
    /// `None`: Podman is installed.
    root: Option<PathBuf>,
}

impl Podman {
    /// `None`: there is none to run, or nobody who may, which has been said.
    fn start() -> Option<Podman> {
        support::engine()?;
        if !nix::unistd::getuid().is_root() {
            eprintln!(
                "SKIPPED: a Podman of its own needs root here (its rootless kind: scripts/engine-check)"
            );
            return None;
        }
        let programs = Programs::find()?;
        let folder = Folder::create();
        programs.configure(&folder);
        let mut command = programs.command(folder.path(), "podman");
        let store = ["root", "run", "tmp"].map(|name| folder.path().join(name).display().to_string());
        command.args(["--root", &store[0], "--runroot", &store[1], "--tmpdir", &store[2]]);
        command.args(["--storage-driver", "overlay", "system", "service", "--time", "0"]);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.arg(format!("unix://{}", folder.path().join("podman.sock").display()));
        // Its monitor of a container that is out of memory leaves a file where it runs.
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut podman = Podman { process: command.spawn().unwrap(), folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(podman.socket()).is_err() {
            let log = || fs::read_to_string(podman.folder.path().join("log")).unwrap_or_default();
            assert!(podman.process.try_wait().unwrap().is_none(), "Podman ended at once: {}", log());
            assert!(Instant::now() < deadline, "Podman does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(podman)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("podman.sock")
    }

    fn engine(&self) -> Engine {
        Engine::connect_to(&self.socket(), &Cancel::new()).unwrap()
    }

    /// Runs the program on it.
    fn run(&self, place: &Place, arguments: &[&str]) -> Ended {
        let mut command = place.command(arguments);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        Ended::from(command.output().unwrap())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // It mounts its store onto itself, and the layers of containers that a failed test left.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let mut ours: Vec<&Path> = places.filter(|place| place.starts_with(self.folder.path())).collect();
        ours.sort();
        for place in ours.iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(place).status();
        }
    }
}

impl Programs {
    /// Podman as it is installed, else Debian's packages, fetched once, which stay below `target`.
    fn find() -> Option<&'static Programs> {
        static FOUND: OnceLock<Option<Programs>> = OnceLock::new();
        let find = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if std::env::split_paths(&path).any(|folder| folder.join("podman").is_file()) {
                return Some(Programs { root: None });
            }
            let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("podman");
            let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("podman"));
            if !place.join("usr/bin/podman").is_file() {
                fs::create_dir_all(&scratch).unwrap();
                let unpacked = unpack_packages(&scratch);
                // Another process may have been faster.
                let _ = fs::rename(scratch.join("root"), &place);
                fs::remove_dir_all(&scratch).unwrap();
                if let Err(reason) = unpacked {
                    eprintln!("SKIPPED: there is no `podman`, and none to be had: {reason}");
                    return None;
                }
            }
            Some(Programs { root: Some(place) })
        };
        FOUND.get_or_init(find).as_ref()
    }

    /// One of its programs, which takes its configuration from a folder.
    fn command(&self, folder: &Path, name: &str) -> Command {
        let mut command = Command::new(self.path(&format!("usr/bin/{name}")));
        command.env("CONTAINERS_CONF", folder.join("containers.conf")).env("HOME", folder);
        command.env("LD_LIBRARY_PATH", self.libraries());
        command
    }

    fn libraries(&self) -> PathBuf {
        self.path(&format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
    }

    fn path(&self, below: &str) -> PathBuf {
        match &self.root {
            Some(root) => root.join(below),
            None => Path::new("/").join(below),
        }
    }

    /// A configuration that touches nothing of the machine: a network of its own, files instead of systemd and journal,
    /// no limits above those of this process.
    fn configure(&self, folder: &Folder) {
        // Crun takes no machine whose cgroups are of both kinds.
        let is_on_path = |name: &str| {
            Path::new("/usr/bin").join(name).is_file() || Path::new("/usr/sbin").join(name).is_file()
        };
        let runtime = if is_on_path("runc") { "runc" } else { "crun" };
        let files = hard_limit("Max open files");
        let pids: u64 = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
        // What Podman gives itself.
        let processes = hard_limit("Max processes").min(pids);
        let shown = |path: &str| self.path(path).display().to_string();
        let networks = folder.path().join("networks").display().to_string();
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n\
             [engine]\ninit_path = \"{init}\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"{runtime}\"\n\
             conmon_env_vars = [\"PATH=/usr/sbin:/usr/bin:/sbin:/bin\", \"LD_LIBRARY_PATH={libraries}\"]\n\
             conmon_path = [\"{conmon}\"]\nhelper_binaries_dir = [\"{helpers}\"]\n\
             [engine.runtimes]\ncrun = [\"{crun}\"]\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{networks}\"\n",
            init = shown("usr/bin/catatonit"),
            libraries = self.libraries().display(),
            conmon = shown("usr/bin/conmon"),
            helpers = shown("usr/lib/podman"),
            crun = shown("usr/bin/crun"),
        );
        folder.put("containers.conf", text);
        folder.put(".config/containers/policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        // Of a bridge and addresses that no other Podman has.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id().wrapping_mul(4) + NEXT.fetch_add(1, Ordering::Relaxed);
        let subnet = format!("10.{}.{}", 128 + number / 256 % 64, number % 256);
        let network = serde_json::json!({
            "name": "podman",
            "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
            "driver": "bridge",
            "network_interface": format!("sl{number}"),
            "subnets": [{"subnet": format!("{subnet}.0/24"), "gateway": format!("{subnet}.1")}],
            "ipam_options": {"driver": "host-local"},
        });
        folder.put("networks/podman.json", network.to_string());
    }
}

/// Fetches the packages that Podman needs and this machine lacks, 14 MB on Debian 12, and unpacks them in `root`.
fn unpack_packages(scratch: &Path) -> Result<(), String> {
    let run = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(name);
        let ended = command.args(arguments).current_dir(scratch).stdin(Stdio::null()).output();
        let ended = ended.map_err(|error| format!("{name}: {error}"))?;
        let errors = String::from_utf8_lossy(&ended.stderr).trim().to_string();
        ended.status.success().then_some(ended.stdout).ok_or(format!("{name} {arguments:?}: {errors}"))
    };
    let wanted = ["install", "-s", "--no-install-recommends", "podman", "netavark", "catatonit"];
    let planned = String::from_utf8(run("apt-get", &wanted)?).unwrap();
    // `Inst name (version …`, or `Inst name [old version] (…` of what is only upgraded.
    let lines = planned.lines().filter_map(|line| line.strip_prefix("Inst "));
    let named = lines.filter_map(|line| line.split_once(' '));
    let missing = named.filter(|(_, rest)| rest.starts_with('(')).map(|(name, _)| name);
    // Another way to make networks, of 45 MB.
    let missing = missing.filter(|name| *name != "containernetworking-plugins");
    let download = [&["download"], missing.collect::<Vec<_>>().as_slice()].concat();
    // A mirror may be busy.
    run("apt-get", &download).or_else(|_| run("apt-get", &download))?;
    for entry in fs::read_dir(scratch).unwrap() {
        let package = entry.unwrap().path().display().to_string();
        if package.ends_with(".deb") {
            run("dpkg", &["-x", &package, "root"])?;
        }
    }
    Ok(())
}

/// One of this process's, which nobody without privileges can exceed.
fn hard_limit(name: &str) -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap_or(1 << 20)
}

/// One that has ended: no process has that id.
fn dead_owner() -> Owner {
    Owner { pid: 1 << 23, session: unique("dead"), ..Owner::current().unwrap() }
}

#[test]
fn functions_run_and_are_measured_on_podman() {
    let Some(podman) = Podman::start() else { return };
    let place = Place::create("podman");
    let engine = podman.engine();

    let report = podman.run(&place, &["doctor", "--json"]).expect(0, &[]);
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let told = |name: &str| &findings.iter().find(|finding| finding["name"] == name).unwrap()["value"];
    assert!(told("engine").as_str().unwrap().starts_with("Podman "), "{findings:?}");
    assert!(!told("engine").as_str().unwrap().contains("rootless"), "{findings:?}");

    let benchmark = crate::program::function(
        &place,
        "holder",
        "def handler(event):\n    held = b'x' * (event['mb'] << 20)\n    return {'held': len(held)}\n",
    );
    place.write(
        "holder/input.py",
        "def buckets_count():\n    return 0, 0\n\
         def generate_input(data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func):\n\
         \x20   return {'mb': 40}\n\
         def validate_output(data_dir, input_config, output, language, storage):\n\
         \x20   return None if str(40 << 20) in str(output) else 'another size'\n",
    );
    let name = unique("podman-holder");
    let words = crate::program::words(
        &benchmark,
        &name,
        &[
            "--validate",
            "--repetitions",
            "2",
            "--keep",
            "--measure-interval",
            "1ms",
            "--image-source",
            "host",
        ],
    );
    podman.run(&place, &words).expect(0, &["2 right, 0 wrong", "is kept at"]);
    let invocations = place.invocations();
    let starts: Vec<bool> =
        invocations.iter().map(|one| one["stats"]["cold_start"].as_bool().unwrap()).collect();
    assert_eq!(starts, [true, false]);
    for invocation in &invocations {
        let memory = &invocation["invocation"];
        assert!(memory["memory_source"].as_str().unwrap().starts_with("cgroup v"), "{memory}");
        let peak = memory["memory_peak_bytes"].as_u64().unwrap();
        assert!((40 << 20..80 << 20).contains(&peak), "{memory}");
    }
    assert_eq!(place.experiments()["environment"]["engine"], "Podman");

    // A later command finds it warm, and the memory limit is the kernel's.
    let more = crate::program::words(&benchmark, &name, &["--keep"]);
    podman.run(&place, &more).expect(0, &["using it as it is"]);
    assert_eq!(place.invocations()[0]["stats"]["cold_start"], false);
    podman.run(&place, &["resources", "cleanup", &name]).expect(0, &[&name]);
    let tight = crate::program::words(&benchmark, &name, &["--memory", "32"]);
    podman.run(&place, &tight).expect(3, &["for want of memory", "32 MiB"]);
    let all = engine.list_containers(&[], sebs_lite::docker::Scope::All).unwrap();
    assert!(all.is_empty(), "{all:?}");
}

#[test]
fn podman_is_held_to_what_the_client_says_of_engines() {
    let Some(podman) = Podman::start() else { return };
    let engine = podman.engine();
    let info = engine.info().unwrap();
    assert_eq!((info.product.as_str(), info.is_rootless()), ("Podman", false));
    assert!(info.missing_limits().is_empty(), "{:?}", info.missing_limits());

    // A tag is kept, and names come back as they were given.
    let image = TestImage::import(&engine);
    let other = image.reference.replace(":latest", ":other.1");
    let changes =
        ["ENV PATH=/bin".to_string(), format!("LABEL sebs-lite.test={other}"), "LABEL x=1".to_string()];
    let id = engine.import_image(&mut support::root_folder(), &other, &changes, &Progress::quiet()).unwrap();
    let inspected = engine.inspect_image(&other).unwrap();
    assert_eq!((inspected.id.as_str(), inspected.repo_tags.as_slice()), (id.as_str(), &[other.clone()][..]));
    assert_eq!(engine.inspect_image(&image.reference).unwrap().id, image.id);
    let listed = engine.list_images(&["x=1", &format!("sebs-lite.test={other}")]).unwrap();
    assert_eq!(listed.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), [id]);
    assert_eq!(engine.list_images(&[]).unwrap().len(), 2);

    // What a dead owner kept stays, and what was to live as long as it goes.
    let owner = dead_owner();
    let kept = Lifetime::Kept { file: "/no/such/file".into() };
    let names = [unique("kept"), unique("run")];
    for (name, lifetime) in names.iter().zip([&kept, &Lifetime::Run]) {
        engine.create_owned_volume(&owner, lifetime, name, BTreeMap::new()).unwrap().keep();
    }
    let spec = ContainerSpec {
        image: image.reference.clone(),
        cmd: vec!["sleep".to_string(), "600".to_string()],
        ..ContainerSpec::default()
    };
    let container = unique("container");
    let guard = engine.create_owned(&owner, &Lifetime::Run, &container, spec.clone()).unwrap();
    let taken = engine.create_container(&container, &spec).unwrap_err();
    assert!(taken.is_conflict() && taken.to_string().contains(&container), "{taken}");
    engine.start_container(guard.id()).unwrap();
    engine.pause_container(guard.id()).unwrap();
    assert!(engine.pause_container(guard.id()).unwrap_err().is_conflict());
    engine.stop_container(guard.id(), Duration::ZERO).unwrap();
    assert!(!engine.inspect_container(guard.id()).unwrap().state.running);
    let mut removed = sweep(&engine, &Owner::current().unwrap()).unwrap();
    removed.sort();
    let mut expected = [container, names[1].clone()];
    expected.sort();
    assert_eq!(removed, expected);
    assert_eq!(engine.inspect_volume(&names[0]).unwrap().labels["sebs-lite.lifetime"], "kept");
    drop(guard);
}
