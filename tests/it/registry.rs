//! A real registry on loopback, and what the engine client does with it: push, find, pull, credentials, cancel.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::progress::Progress;

use crate::support::{self, Folder, TestImage, unique};

/// `ada` with the password `secret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "ada:$2b$04$h6qKC5WTvlVfl9p52CY.F.ScySWxcTJTCxax7Khq6V6viOjSq2KXC\n";

/// Who may use a registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody.
    Open,
    /// `ada`, by the password `secret`.
    Password,
}

/// A registry with an empty store, which ends when dropped.
pub(crate) struct Registry {
    /// `127.0.0.1:<port>`.
    pub(crate) name: String,
    process: Child,
    folder: Folder,
}

impl Registry {
    /// `None`: there is no program to run, which has been said.
    pub(crate) fn start(access: Access) -> Option<Registry> {
        let program = program()?;
        let folder = Folder::create();
        // Told by the kernel to be free; another process may take it in between, which the wait below would show.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let name = format!("127.0.0.1:{port}");
        let store = folder.path().join("store");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: \"{}\"}}}}\nhttp: {{addr: \"{name}\"}}\n",
            store.display()
        );
        if access == Access::Password {
            let users = folder.put("htpasswd", HTPASSWD);
            config += &format!("auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}\n", users.display());
        }
        let config = folder.put("config.yml", config);
        let mut command = Command::new(program);
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let address: SocketAddr = name.parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "the registry ended at once");
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Registry { name, process, folder })
    }

    /// Makes it forget a repository.
    pub(crate) fn forget(&self, repository: &str) {
        let place = self.folder.path().join("store/docker/registry/v2/repositories").join(repository);
        std::fs::remove_dir_all(place).unwrap();
    }

    /// A folder of the docker CLI that has these credentials for it.
    pub(crate) fn login(&self, user: &str, password: &str) -> Folder {
        let folder = Folder::create();
        folder.put("config.json", config(&self.name, user, password));
        folder
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config(registry: &str, user: &str, password: &str) -> String {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    serde_json::json!({"auths": {registry: {"auth": auth}}}).to_string()
}

/// Debian's `docker-registry`: the one on the path, else the package's, which is fetched once and stays below `target`.
fn program() -> Option<PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|folder| folder.join("docker-registry"));
        if let Some(program) = on_path.into_iter().find(|program| program.is_file()) {
            return Some(program);
        }
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker-registry");
        let program = place.join("usr/bin/docker-registry");
        if program.is_file() {
            return Some(program);
        }
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique("docker-registry"));
        std::fs::create_dir_all(&scratch).unwrap();
        let run = |name: &str, arguments: &[&str]| {
            let ended =
                Command::new(name).args(arguments).current_dir(&scratch).stdin(Stdio::null()).output();
            ended.ok().map(|ended| {
                let text = String::from_utf8_lossy(&ended.stderr).into_owned();
                assert!(ended.status.success(), "{name} {arguments:?}: {text}");
            })
        };
        if run("apt-get", &["download", "docker-registry"]).is_none() {
            eprintln!("SKIPPED: there is neither `docker-registry` nor an `apt-get` to fetch it");
            return None;
        }
        let packages = std::fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path());
        let package = packages.last().unwrap().display().to_string();
        run("dpkg", &["-x", &package, "root"])?;
        // Another process may have been faster.
        let _ = std::fs::rename(scratch.join("root"), &place);
        std::fs::remove_dir_all(&scratch).unwrap();
        program.is_file().then_some(program)
    };
    PROGRAM.get_or_init(find).clone()
}

/// One more name of an image, taken away when dropped.
struct Name {
    reference: String,
    engine: Engine,
}

impl Name {
    fn give(engine: &Engine, image: &TestImage, repository: &str) -> Name {
        engine.tag_image(&image.id, repository, "1").unwrap();
        Name { reference: format!("{repository}:1"), engine: engine.clone() }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = self.engine.remove_image(&self.reference);
    }
}

#[test]
fn an_image_goes_to_a_registry_is_found_there_and_comes_back() {
    let Some(engine) = support::engine() else { return };
    let Some(registry) = Registry::start(Access::Open) else { return };
    let image = TestImage::import(&engine);
    let name = Name::give(&engine, &image, &format!("{}/a/b", registry.name));
    let quiet = Progress::quiet();
    assert_eq!(engine.find_in_registry(&name.reference).unwrap(), None);
    assert!(engine.pull_image(&name.reference, &quiet).unwrap_err().is_not_found());
    let digest = engine.push_image(&name.reference, &quiet).unwrap();
    let found = engine.find_in_registry(&name.reference).unwrap().unwrap();
    assert_eq!(found.digest, digest);
    let here = engine.inspect_image(&name.reference).unwrap();
    assert_eq!(found.platforms, [format!("{}/{}", here.os, here.architecture)]);
    assert!(here.repo_digests.iter().any(|known| known.ends_with(&digest)), "{:?}", here.repo_digests);
    engine.remove_image(&image.reference).unwrap();
    engine.remove_image(&name.reference).unwrap();
    assert!(engine.inspect_image(&image.id).unwrap_err().is_not_found());
    let missing = engine.push_image(&name.reference, &quiet).unwrap_err();
    assert!(missing.is_not_found() && missing.to_string().contains("failed to push"), "{missing}");
    engine.pull_image(&name.reference, &quiet).unwrap();
    let back = engine.inspect_image(&name.reference).unwrap();
    assert_eq!((back.id, back.size), (image.id.clone(), here.size));
}

#[test]
fn a_registry_that_wants_credentials_says_how_to_give_them() {
    let Some(engine) = support::engine() else { return };
    let Some(registry) = Registry::start(Access::Password) else { return };
    let image = TestImage::import(&engine);
    let name = Name::give(&engine, &image, &format!("{}/f", registry.name));
    let quiet = Progress::quiet();
    let login = format!("docker login {}", registry.name);
    let (nobody, wrong, right) =
        (Folder::create(), registry.login("ada", "hush-hush"), registry.login("ada", "secret"));
    for (folder, advice) in [(&nobody, "has none for it"), (&wrong, "log in again")] {
        let engine = engine.with_docker_config(folder.path());
        let failures = [
            engine.push_image(&name.reference, &quiet).unwrap_err(),
            engine.find_in_registry(&name.reference).unwrap_err(),
        ];
        for error in failures {
            let text = error.to_string();
            assert!(error.is_denied() && text.contains(&login) && text.contains(advice), "{text}");
            assert!(!text.contains("hush") && text.contains(&name.reference), "{text}");
        }
        let pull = engine.pull_image(&name.reference, &quiet).unwrap_err();
        assert!(pull.is_denied() && pull.to_string().contains(&login), "{pull}");
    }
    let engine = engine.with_docker_config(right.path()).with_cancel(&Cancel::new());
    assert_eq!(engine.find_in_registry(&name.reference).unwrap(), None);
    let digest = engine.push_image(&name.reference, &quiet).unwrap();
    assert_eq!(engine.find_in_registry(&name.reference).unwrap().unwrap().digest, digest);
    engine.pull_image(&name.reference, &quiet).unwrap();
}

#[test]
fn a_base_image_comes_from_a_registry_that_wants_credentials() {
    let Some(engine) = support::engine() else { return };
    let Some(registry) = Registry::start(Access::Password) else { return };
    let image = TestImage::import(&engine);
    let base = Name::give(&engine, &image, &format!("{}/base", registry.name));
    let right = registry.login("ada", "secret");
    engine.with_docker_config(right.path()).push_image(&base.reference, &Progress::quiet()).unwrap();
    let dockerfile = format!("FROM {}\nLABEL built=here\n", base.reference);
    let built = Name { reference: format!("{}:1", unique("built")), engine: engine.clone() };
    for (user, password) in [("ada", "hush-hush"), ("ada", "secret")] {
        engine.remove_image(&base.reference).unwrap();
        let login = registry.login(user, password);
        let engine = engine.with_docker_config(login.path());
        let outcome = support::try_to_build(&engine, &built.reference, &[("Dockerfile", &dockerfile)]);
        if password == "secret" {
            outcome.unwrap();
            continue;
        }
        let error = outcome.unwrap_err();
        let text = error.to_string();
        assert!(error.is_denied() && text.contains("base image") && text.contains("docker login"), "{text}");
        assert!(!text.contains("hush") && text.contains(&built.reference), "{text}");
        engine.tag_image(&image.id, &format!("{}/base", registry.name), "1").unwrap();
    }
    assert_eq!(engine.inspect_image(&built.reference).unwrap().config.labels["built"], "here");
}

#[test]
fn a_registry_that_is_down_is_named() {
    let Some(engine) = support::engine() else { return };
    let image = TestImage::import(&engine);
    // Nobody listens there: only root may, and does not.
    let name = Name::give(&engine, &image, "127.0.0.1:1/f");
    for error in [
        engine.push_image(&name.reference, &Progress::quiet()).unwrap_err(),
        engine.find_in_registry(&name.reference).map(drop).unwrap_err(),
        engine.pull_image(&name.reference, &Progress::quiet()).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("registry `127.0.0.1:1` cannot be reached") && !error.is_denied(), "{text}");
    }
}

#[test]
fn a_push_ends_when_it_is_cancelled() {
    let Some(engine) = support::engine() else { return };
    let image = TestImage::import(&engine);
    // It takes the engine's call and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = Name::give(&engine, &image, &format!("{}/f", silent.local_addr().unwrap()));
    let cancel = Cancel::new();
    let cancelled = engine.with_cancel(&cancel);
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let held = silent.accept().unwrap();
            cancel.trigger();
            held
        });
        let error = cancelled.push_image(&name.reference, &Progress::quiet()).unwrap_err();
        assert!(error.is_cancelled(), "{error}");
        drop(holder.join().unwrap());
    });
    assert_eq!(engine.inspect_image(&name.reference).unwrap().id, image.id);
}
