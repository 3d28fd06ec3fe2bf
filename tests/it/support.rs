//! What the integration tests share: the engine of this machine, and a tiny image made of this machine's own shell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{BuildOptions, Engine, Scope};
use sebs_lite::progress::Progress;

/// The engine of this machine; `None` only where `SEBS_LITE_NO_DOCKER=1` asks for tests without one.
pub(crate) fn engine() -> Option<Engine> {
    if std::env::var("SEBS_LITE_NO_DOCKER").is_ok_and(|value| value == "1") {
        eprintln!("SKIPPED: SEBS_LITE_NO_DOCKER=1");
        return None;
    }
    Some(
        Engine::connect(&Cancel::new()).expect("these tests need a Docker engine (or SEBS_LITE_NO_DOCKER=1)"),
    )
}

/// Has this host a Node.js that an image can be made of? A test that needs one says that it is skipped.
pub(crate) fn has_node() -> bool {
    let has_node = sebs_lite::runtime::host_interpreters(sebs_lite::faas::Language::Nodejs).next().is_some();
    if !has_node {
        eprintln!("SKIPPED: this host has no Node.js");
    }
    has_node
}

/// A name that no other test, of this run or another, has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("sebs-lite-test-{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits, within two minutes, until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within two minutes: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An image with `/bin/sh`, `bash`, `sleep`, `yes`, `head` and `cat`, removed when dropped.
pub(crate) struct TestImage {
    /// `sebs-lite-test-…:latest`.
    pub(crate) reference: String,
    /// `sha256:…`.
    pub(crate) id: String,
    engine: Engine,
}

impl TestImage {
    pub(crate) fn import(engine: &Engine) -> TestImage {
        let reference = format!("{}:latest", unique("image"));
        let changes = [
            // Makes each image one of its own: equal ones would share an id, and go with the first that is removed.
            format!("LABEL sebs-lite.test={reference}"),
            "ENV PATH=/bin".to_string(),
            "ENV GREETING=hello".to_string(),
        ];
        let mut tar = root_folder();
        let id = engine.import_image(&mut tar, &reference, &changes, &Progress::quiet()).unwrap();
        TestImage { reference, id, engine: engine.without_cancel() }
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        if let Err(error) = self.engine.remove_image(&self.reference)
            && !error.is_not_found()
        {
            eprintln!("{error}");
        }
    }
}

/// A tar archive of a root folder in which `/bin/sh` works.
pub(crate) fn root_folder() -> &'static [u8] {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(|| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, source) in files_of(&["sh", "bash", "sleep", "yes", "head", "cat"]) {
            tar.append_path_with_name(source, path.strip_prefix("/").unwrap()).unwrap();
        }
        tar.into_inner().unwrap()
    })
}

/// Path in the image -> file of this host, for some programs and the libraries that `ldd` names.
fn files_of(programs: &[&str]) -> BTreeSet<(PathBuf, PathBuf)> {
    let mut files = BTreeSet::new();
    for program in programs {
        let path = Path::new("/bin").join(program);
        let listed = Command::new("ldd").arg(&path).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            files.insert((library.into(), std::fs::canonicalize(library).unwrap()));
        }
        files.insert((path.clone(), std::fs::canonicalize(&path).unwrap()));
    }
    files
}

/// A folder of a test's own, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn create() -> Folder {
        let path = std::env::temp_dir().join(unique("folder"));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file below it, and gives its path.
    pub(crate) fn put(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Builds an image from files, the first of which is its Dockerfile.
pub(crate) fn build(engine: &Engine, tag: &str, files: &[(&str, &str)]) {
    try_to_build(engine, tag, files).unwrap();
}

/// The same, for who wants to know why not.
pub(crate) fn try_to_build(engine: &Engine, tag: &str, files: &[(&str, &str)]) -> sebs_lite::Result<()> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let context = archive.into_inner().unwrap();
    let options = BuildOptions { tag: tag.to_string(), ..BuildOptions::default() };
    engine.build_image(&mut context.as_slice(), &options, &Progress::quiet())
}

/// The containers whose function has that name.
pub(crate) fn containers(engine: &Engine, function: &str) -> Vec<String> {
    let all = engine.list_containers(&["sebs-lite=1"], Scope::All).unwrap();
    let names = all.into_iter().flat_map(|container| container.names);
    names.filter(|name| name.starts_with(function)).collect()
}

/// The image of a storage engine that `scripts/storage-images` makes; what it downloads or builds stays below `target`.
/// The script is asked once for each engine: no test removes such an image.
pub(crate) fn storage_image(engine: &Engine, name: &'static str) -> String {
    type Made = Arc<OnceLock<String>>;
    static IMAGES: Mutex<BTreeMap<(PathBuf, &str), Made>> = Mutex::new(BTreeMap::new());
    let place = (engine.socket().to_path_buf(), name);
    let made = Made::clone(IMAGES.lock().unwrap().entry(place).or_default());
    made.get_or_init(|| make_storage_image(engine, name)).clone()
}

fn make_storage_image(engine: &Engine, name: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/storage-images");
    let mut command = Command::new(script);
    command.args(["--cache", env!("CARGO_TARGET_TMPDIR"), name]);
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    let made = command.output().expect("the script needs Python 3");
    let errors = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "no image of {name} (it comes from package registries): {errors}");
    String::from_utf8(made.stdout).unwrap().trim().to_string()
}

/// The containers and volumes that were made by means of a file, by their names.
pub(crate) fn made_for(engine: &Engine, file: &Path) -> Vec<String> {
    let label = format!("sebs-lite.file={}", file.display());
    let containers = engine.list_containers(&["sebs-lite=1", &label], Scope::All).unwrap();
    let volumes = engine.list_volumes(&["sebs-lite=1", &label]).unwrap();
    let containers = containers.into_iter().flat_map(|container| container.names);
    containers.chain(volumes.into_iter().map(|volume| volume.name)).collect()
}
