//! A Docker engine of a test's own, which it may stop, kill and start again without harm to the machine's.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{Engine, Scope};

use crate::program::{Ended, Place};

/// How long the engine may take to come up, or to end all that runs in it.
const LIMIT: Duration = Duration::from_secs(60);

/// Its process, and what it leaves on this machine: folders, mounts, a bridge. All of it goes with this value.
pub(crate) struct OwnEngine {
    folder: PathBuf,
    /// Its place among those of this process.
    number: usize,
    /// The last one is in use.
    bridges: Vec<String>,
    daemon: Option<Child>,
    /// What is typed after `dockerd`, beside the places.
    pub(crate) flags: Vec<String>,
    /// A socket that outlives the engine, as systemd holds it.
    socket_held: Option<UnixListener>,
}

impl OwnEngine {
    /// One with a runtime image for Python; `None`, visibly, where this machine or this user cannot run one.
    pub(crate) fn start(flags: &[&str]) -> Option<OwnEngine> {
        let seed = seed()?;
        let mut own = OwnEngine::create(flags)?;
        copy_data(seed, &own.folder.join("data"));
        own.resume();
        Some(own)
    }

    /// One whose socket is held open by somebody else, as systemd does.
    pub(crate) fn start_behind_held_socket(flags: &[&str]) -> Option<OwnEngine> {
        let seed = seed()?;
        let mut own = OwnEngine::create(flags)?;
        copy_data(seed, &own.folder.join("data"));
        own.socket_held = Some(UnixListener::bind(own.socket()).unwrap());
        own.resume();
        Some(own)
    }

    /// One without any image, which does not run yet.
    fn create(flags: &[&str]) -> Option<OwnEngine> {
        if std::env::var("SEBS_LITE_NO_DOCKER").is_ok_and(|value| value == "1") {
            eprintln!("SKIPPED: SEBS_LITE_NO_DOCKER=1");
            return None;
        }
        let has = |name: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
        };
        if !nix::unistd::getuid().is_root() || !has("dockerd") || !has("ip") {
            eprintln!("SKIPPED: an engine of its own needs root, `dockerd` and `ip`");
            return None;
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Short: the paths of sockets are below it.
        let folder = std::env::temp_dir().join(format!("sl-engine-{pid}-{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("daemon.json"), "{}").unwrap();
        let flags = flags.iter().map(|flag| flag.to_string()).collect();
        let mut own =
            OwnEngine { folder, number, bridges: Vec::new(), daemon: None, flags, socket_held: None };
        own.move_away();
        Some(own)
    }

    /// Gives it another bridge, with addresses that begin with what this gives back; while it does not run.
    pub(crate) fn move_away(&mut self) -> String {
        // As long as the kernel takes.
        let name = format!("so{}-{}{}", std::process::id(), self.number, self.bridges.len());
        run("ip", &["link", "add", &name, "type", "bridge"]);
        let prefix =
            format!("10.{}.{}.", 64 + std::process::id() % 128, 2 * self.number + self.bridges.len());
        run("ip", &["address", "add", &format!("{prefix}1/24"), "dev", &name]);
        run("ip", &["link", "set", &name, "up"]);
        self.bridges.push(name);
        prefix
    }

    /// Takes the bridge's IPv4 address away from under the engine, which does not notice.
    pub(crate) fn forget_ipv4(&self) {
        run("ip", &["-4", "address", "flush", "dev", self.bridge()]);
    }

    /// The bridge in use.
    fn bridge(&self) -> &str {
        self.bridges.last().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("sock")
    }

    pub(crate) fn connect(&self) -> sebs_lite::Result<Engine> {
        Engine::connect_to(&self.socket(), &Cancel::new())
    }

    pub(crate) fn engine(&self) -> Engine {
        self.connect().unwrap()
    }

    /// The program, for this engine.
    pub(crate) fn command(&self, place: &Place, words: &[&str]) -> Command {
        let mut command = place.command(words);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, place: &Place, words: &[&str]) -> Ended {
        Ended::from(self.command(place, words).output().unwrap())
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn resume(&mut self) {
        self.try_resume().unwrap();
    }

    fn try_resume(&mut self) -> Result<(), String> {
        let path = |name: &str| text(&self.folder.join(name));
        let host =
            if self.socket_held.is_some() { "fd://".to_string() } else { format!("unix://{}", path("sock")) };
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let mut command = Command::new("/bin/sh");
        // A socket that is handed over is descriptor 3.
        let script = match &self.socket_held {
            Some(_) => r#"exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec dockerd "$@""#,
            None => r#"exec dockerd "$@""#,
        };
        command.args(["-c", script, "sh", "--config-file", &path("daemon.json"), "--host", &host]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["--bridge", self.bridge(), "--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        command.args(&self.flags);
        command.stdin(match &self.socket_held {
            Some(listener) => Stdio::from(OwnedFd::from(listener.try_clone().unwrap())),
            None => Stdio::null(),
        });
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = command.spawn().unwrap();
        let deadline = Instant::now() + LIMIT;
        while self.connect().is_err() {
            let has_ended = daemon.try_wait().unwrap().is_some();
            if has_ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let _ = daemon.kill();
                return Err(format!("the engine does not come up: {log}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + LIMIT;
        while daemon.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = daemon.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it, as the kernel does for want of memory.
    pub(crate) fn crash(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        // Its containerd was killed with it, and may be a zombie that nobody collects.
        for file in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.folder.join(file));
        }
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if self.folder.join("data").is_dir() {
            // Only an engine that runs ends what runs in it.
            if self.daemon.is_none()
                && let Err(error) = self.try_resume()
            {
                eprintln!("{error}");
            }
            match self.connect().and_then(|engine| Ok((engine.list_containers(&[], Scope::All)?, engine))) {
                Ok((containers, engine)) => {
                    for container in containers {
                        let _ = engine.remove_container(&container.id);
                    }
                }
                Err(error) => eprintln!("{error}"),
            }
        }
        self.stop();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let below: Vec<&str> = points.filter(|point| Path::new(point).starts_with(&self.folder)).collect();
        for point in below.iter().rev() {
            run("umount", &["-l", point]);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
        for bridge in &self.bridges {
            run("ip", &["link", "delete", bridge]);
        }
    }
}

/// The data folder of an engine that has a runtime image for Python; it is made once, and stays below `target`.
fn seed() -> Option<&'static PathBuf> {
    static SEED: OnceLock<Option<PathBuf>> = OnceLock::new();
    SEED.get_or_init(make_seed).as_ref()
}

fn make_seed() -> Option<PathBuf> {
    let mut own = OwnEngine::create(&[])?;
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut hasher = DefaultHasher::new();
    for name in ["server.py", "run_server.sh"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime/python").join(name);
        std::fs::read(file).unwrap_or_default().hash(&mut hasher);
    }
    let seed = tmp.join(format!("own-engine-{:016x}", hasher.finish()));
    if seed.is_dir() {
        return Some(seed);
    }
    own.resume();
    let place = Place::create("seed");
    own.run(&place, &["docker", "build", "--kind", "run", "--language", "python", "--image-source", "host"])
        .expect(0, &[]);
    own.stop();
    let half = tmp.join(format!("own-engine-half-{}", std::process::id()));
    copy_data(&own.folder.join("data"), &half);
    // Another test program may have been faster.
    if std::fs::rename(&half, &seed).is_err() {
        std::fs::remove_dir_all(&half).unwrap();
    }
    Some(seed)
}

/// Copies the data folder of an engine that does not run. Layers, which nobody changes, are the same files in both.
fn copy_data(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let is_of_layers =
            ["overlay2", "fuse-overlayfs", "vfs"].iter().any(|name| entry.file_name() == *name);
        let how = if is_of_layers { "-al" } else { "-a" };
        run("cp", &[how, &text(&entry.path()), &text(to)]);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[track_caller]
fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !std::thread::panicking() {
        panic!("{program} {}: {errors}", words.join(" "));
    }
}
