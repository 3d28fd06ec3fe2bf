//! Makes an image of this host's own interpreter: it, its standard library, a shell, and the libraries they load.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::docker::Engine;
use crate::error::{Context, Error, Result};
use crate::faas::Language;
use crate::files::{self, EntryKind, TempFolder};
use crate::progress::Progress;

use super::assets::{self, Labels};
use super::host::HostInterpreter;

/// Parts of Python's standard library that no function needs: tests, windows, the installer, what links programs.
const LEFT_OUT: [&str; 9] = [
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
];

/// Libraries that binary wheels and the C library load without naming them to `ldd` of the interpreter (PEP 599 lets
/// wheels count on them).
const LOADED_LATER: [&str; 11] = [
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libnsl.so.1",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libutil.so.1",
];

/// Folders of the host that are taken whole where they are there: time zones and the locale that is set.
const DATA_FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8"];

/// What is the same in every such image.
const PLAIN_FILES: [(&str, &str); 3] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/tmp:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"),
];

/// Imports an image as `reference` from an interpreter of this host, and gives back its id.
///
/// # Errors
/// Something of the interpreter cannot be read, or the engine refused the archive.
pub(super) fn import(
    engine: &Engine,
    language: Language,
    interpreter: &HostInterpreter,
    reference: &str,
    labels: &Labels,
    progress: &Progress,
) -> Result<String> {
    let task = format!("importing {language} {} of this host as {reference}", interpreter.version());
    progress.step(&task, "gathering files");
    let scratch = TempFolder::create()?;
    let mut root = Root::default();
    gather(&mut root, language, interpreter, scratch.path())?;
    progress.step(&task, "sending");
    let changes = assets::image_changes(labels);
    engine.persist(|| send(engine, &root, reference, &changes, progress))
}

/// Has the engine make an image of a root folder.
fn send(
    engine: &Engine,
    root: &Root,
    reference: &str,
    changes: &[String],
    progress: &Progress,
) -> Result<String> {
    let (mut reader, writer) = std::io::pipe().context(|| "failed to make a pipe".to_string())?;
    std::thread::scope(|scope| {
        let sender = std::thread::Builder::new()
            .name("image archive".to_string())
            .spawn_scoped(scope, move || root.write_tar(writer))
            .context(|| "failed to start a thread for an archive".to_string())?;
        let imported = engine.import_image(&mut reader, reference, changes, progress);
        // A writer whose reader has gone ends with an error of its own, which says less than the engine's.
        drop(reader);
        let sent = sender.join().unwrap_or_else(|_| Err(Error::new("the thread of an archive panicked")));
        if imported.is_ok() { sent.and(imported) } else { imported }
    })
}

fn gather(root: &mut Root, language: Language, interpreter: &HostInterpreter, scratch: &Path) -> Result<()> {
    let bash = find_program("bash")?;
    let mut programs = vec![interpreter.executable.clone(), bash.clone()];
    programs.extend(find_program("sh").ok());
    programs.extend(find_program("env").ok());
    for program in &programs {
        root.add(program)?;
    }
    root.link_if_absent("/bin/bash", &bash);
    root.link_if_absent("/bin/sh", &bash);
    let mut modules = Vec::new();
    for folder in &interpreter.folders {
        modules.extend(root.add_library(folder)?);
    }
    let is_shared_object = |path: &&PathBuf| path.to_string_lossy().contains(".so");
    programs.extend(modules.iter().filter(is_shared_object).cloned());
    add_libraries(root, &programs)?;
    for folder in DATA_FOLDERS.map(Path::new).into_iter().filter(|folder| folder.is_dir()) {
        root.add_folder(folder, &|name| name != "posix" && name != "right")?;
    }
    let certificates = interpreter.certificates.clone();
    for path in certificates
        .into_iter()
        .chain([PathBuf::from("/etc/ssl/certs/ca-certificates.crt"), PathBuf::from("/etc/ld.so.cache")])
    {
        if path.is_file() {
            root.add(&path)?;
        }
    }
    for (path, content) in PLAIN_FILES {
        root.put(Path::new(path), Item::Content { bytes: content.as_bytes().to_vec(), mode: 0o644 });
    }
    for (path, content) in assets::server_files(language) {
        let item = Item::Content { bytes: content.as_bytes().to_vec(), mode: 0o644 };
        root.put(&Path::new("/sebs").join(path), item);
    }
    root.put(Path::new("/function"), Item::Folder { mode: 0o755 });
    root.put(Path::new("/tmp"), Item::Folder { mode: 0o1777 });
    for name in interpreter_names(language, interpreter) {
        root.put(&Path::new("/usr/local/bin").join(name), Item::Link(interpreter.executable.clone()));
    }
    if language == Language::Python {
        let sources = modules.iter().filter(|path| path.extension().is_some_and(|ending| ending == "py"));
        compile(root, interpreter, sources.cloned().collect(), scratch)?;
    }
    Ok(())
}

/// The names that programs call an interpreter by.
fn interpreter_names(language: Language, interpreter: &HostInterpreter) -> Vec<String> {
    match language {
        Language::Python => {
            vec!["python".to_string(), "python3".to_string(), format!("python{}", interpreter.version())]
        }
        Language::Nodejs => vec!["node".to_string(), "nodejs".to_string()],
    }
}

/// Adds the compiled form of each module: nobody may write it later, and without it a start takes three times as long.
fn compile(
    root: &mut Root,
    interpreter: &HostInterpreter,
    sources: Vec<PathBuf>,
    scratch: &Path,
) -> Result<()> {
    let server = scratch.join("server.py");
    let text = assets::server_files(Language::Python).into_iter().find(|(path, _)| *path == "server.py");
    files::write(
        &server,
        text.map(|(_, text)| text).unwrap_or_default().as_bytes(),
        files::Access::Everyone,
    )?;
    let mut paths = vec![server];
    paths.extend(sources);
    let list: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    let script = scratch.join("compile.py");
    // A program that starts helpers of its own kind has to be a file.
    files::write(&script, include_bytes!("python/compile.py"), files::Access::Everyone)?;
    let mut command = Command::new(&interpreter.executable);
    command.arg("-I").arg(&script).arg(scratch);
    let places = run(command, &list)?;
    for (number, (path, place)) in paths.iter().zip(places.lines()).enumerate() {
        let compiled = scratch.join(number.to_string());
        if place.is_empty() || !compiled.is_file() {
            log::debug!("`{}` does not compile: it goes into the image as it is", path.display());
        } else if number == 0 {
            root.put(Path::new("/sebs/server.pyc"), Item::File(compiled));
        } else {
            root.put(Path::new(place), Item::File(compiled));
        }
    }
    Ok(())
}

/// Adds what the programs load, and what is loaded later by name from where those libraries are.
fn add_libraries(root: &mut Root, programs: &[PathBuf]) -> Result<()> {
    let named = loaded_by(programs)?;
    let mut folders: BTreeSet<PathBuf> =
        named.iter().filter_map(|path| path.parent()).map(Path::to_path_buf).collect();
    folders.extend(["/usr/lib64", "/usr/lib"].map(PathBuf::from));
    let later: Vec<PathBuf> = LOADED_LATER
        .iter()
        .filter_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
        .collect();
    for path in named.iter().chain(&later).chain(&loaded_by(&later)?) {
        root.add(path)?;
    }
    Ok(())
}

/// The libraries that `ldd` names for some files.
fn loaded_by(paths: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    // The `ldd` of musl looks at the first file alone.
    let loaders = files::list(Path::new("/lib")).unwrap_or_default();
    let is_musl = loaders.iter().any(|path| path.to_string_lossy().starts_with("/lib/ld-musl-"));
    for some in paths.chunks(if is_musl { 1 } else { 200 }) {
        let mut command = Command::new("ldd");
        command.args(some).env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null());
        // A file that loads nothing makes it end with 1.
        let output = command.output().context(|| "failed to run `ldd`".to_string())?;
        libraries.extend(libraries_in(&String::from_utf8_lossy(&output.stdout)));
    }
    Ok(libraries)
}

/// The paths in what `ldd` prints: `name => /path (0x…)`, or `/path (0x…)` for the loader.
fn libraries_in(text: &str) -> impl Iterator<Item = PathBuf> {
    text.lines().filter(|line| line.starts_with(char::is_whitespace)).filter_map(|line| {
        let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        let path = path.split(" (").next().unwrap_or_default();
        path.starts_with('/').then(|| PathBuf::from(path))
    })
}

fn find_program(name: &str) -> Result<PathBuf> {
    let folders = ["/bin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut programs = folders.iter().chain(&on_path).map(|folder| folder.join(name));
    programs.find(|path| path.is_file()).ok_or_else(|| Error::new(format!("this host has no `{name}`")))
}

fn run(mut command: Command, input: &str) -> Result<String> {
    let about = || "failed to compile Python's standard library".to_string();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(about)?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    });
    let output = output.context(about)?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("{}: {}", about(), reason.trim())));
    }
    String::from_utf8(output.stdout).map_err(|_| Error::new(about()))
}

/// One thing in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Folder {
        mode: u32,
    },
    Link(PathBuf),
    /// A file of the host, that everybody may read, and execute if anybody may.
    File(PathBuf),
    Content {
        bytes: Vec<u8>,
        mode: u32,
    },
}

/// The root folder of the image, by absolute path; a folder sorts before what is in it.
#[derive(Debug, Default)]
struct Root(BTreeMap<PathBuf, Item>);

impl Root {
    /// Adds a file of the host at its own path, with each link on the way as it is: `/bin -> usr/bin`.
    fn add(&mut self, path: &Path) -> Result<()> {
        let real = self.add_links(path)?;
        self.put(&real, Item::File(real.clone()));
        Ok(())
    }

    /// Adds the links that lie on a path, and gives back the path without them.
    fn add_links(&mut self, path: &Path) -> Result<PathBuf> {
        let mut real = PathBuf::from("/");
        for component in path.components() {
            match component {
                Component::ParentDir => {
                    real.pop();
                }
                Component::Normal(name) => {
                    let next = real.join(name);
                    if next.is_symlink() {
                        let about = || format!("failed to read link `{}`", next.display());
                        let target = std::fs::read_link(&next).context(about)?;
                        self.put(&next, Item::Link(target.clone()));
                        // The kernel gives up on a chain of links that does not end; so `canonicalize` must have not.
                        files::canonical(&next)?;
                        real = self.add_links(&real.join(target))?;
                    } else {
                        real = next;
                    }
                }
                _ => {}
            }
        }
        Ok(real)
    }

    /// Adds Python's standard library, or a file or folder of Node.js; gives back the files.
    fn add_library(&mut self, path: &Path) -> Result<Vec<PathBuf>> {
        if path.is_file() {
            self.add(path)?;
            return Ok(vec![path.to_path_buf()]);
        }
        self.add_folder(path, &|name| !LEFT_OUT.contains(&name) && !name.starts_with("config-"))
    }

    /// Adds a folder with those of its folders that are wanted, by their names.
    fn add_folder(&mut self, folder: &Path, wants: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let real = self.add_links(folder)?;
        let mut added = Vec::new();
        for entry in files::walk(&real)? {
            let mut parts = entry.path.components().map(|part| part.as_os_str().to_string_lossy());
            let path = real.join(&entry.path);
            if !parts.all(|part| wants(&part)) {
                continue;
            }
            match entry.kind {
                EntryKind::Folder => {}
                EntryKind::File(_) => {
                    self.put(&path, Item::File(path.clone()));
                    added.push(path);
                }
                // A link that leads nowhere, as to a part that is not installed, is left out.
                EntryKind::Link(_) if path.is_file() => self.add(&path)?,
                EntryKind::Link(_) => {}
            }
        }
        Ok(added)
    }

    fn link_if_absent(&mut self, path: &str, target: &Path) {
        if !Path::new(path).exists() {
            self.put(Path::new(path), Item::Link(target.to_path_buf()));
        }
    }

    fn put(&mut self, path: &Path, item: Item) {
        for folder in path.ancestors().skip(1).filter(|folder| folder.parent().is_some()) {
            self.0.entry(folder.to_path_buf()).or_insert(Item::Folder { mode: 0o755 });
        }
        self.0.insert(path.to_path_buf(), item);
    }

    fn write_tar(&self, writer: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(std::io::BufWriter::with_capacity(1 << 18, writer));
        for (path, item) in &self.0 {
            append(&mut archive, path, item).context(|| format!("failed to archive `{}`", path.display()))?;
        }
        let buffered = archive.into_inner().context(|| "failed to end an archive".to_string())?;
        buffered
            .into_inner()
            .map(drop)
            .map_err(|error| Error::new(format!("failed to end an archive: {error}")))
    }
}

fn append(archive: &mut tar::Builder<impl Write>, path: &Path, item: &Item) -> std::io::Result<()> {
    let name = path.strip_prefix("/").unwrap_or(path);
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    // Python's compiled modules do not look at it; a fixed one makes equal images of equal files.
    header.set_mtime(1_700_000_000);
    match item {
        Item::Folder { mode } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            header.set_size(0);
            archive.append_data(&mut header, name, std::io::empty())
        }
        Item::Link(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, name, target)
        }
        Item::File(source) => {
            let file = std::fs::File::open(source)?;
            let metadata = file.metadata()?;
            let is_executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
            header.set_mode(if is_executable { 0o755 } else { 0o644 });
            header.set_size(metadata.len());
            archive.append_data(&mut header, name, std::io::Read::take(file, metadata.len()))
        }
        Item::Content { bytes, mode } => {
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, bytes.as_slice())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_prints_is_understood() {
        let text = "/usr/bin/a:\n\tlinux-vdso.so.1 (0x00007f)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n\
                    \tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tstatically linked\n";
        let paths: Vec<PathBuf> = libraries_in(text).collect();
        assert_eq!(paths, ["/lib/x/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
    }

    #[test]
    fn each_python_of_this_host_compiles_what_it_can() {
        let supported = |python: &HostInterpreter| python.numbers >= vec![3, 7];
        for python in crate::runtime::host_interpreters(Language::Python).filter(supported) {
            let scratch = TempFolder::create().unwrap();
            let [good, wrong] = ["good.py", "wrong.py"].map(|name| scratch.path().join(name));
            files::write(&good, b"x = 1\n", files::Access::Everyone).unwrap();
            files::write(&wrong, b"x = = 1\n", files::Access::Everyone).unwrap();
            let mut root = Root::default();
            compile(&mut root, &python, vec![wrong, good], scratch.path()).unwrap();
            let compiled: Vec<_> =
                root.0.keys().filter(|path| path.extension() == Some("pyc".as_ref())).collect();
            assert!(
                compiled.len() == 2 && root.0.contains_key(Path::new("/sebs/server.pyc")),
                "{compiled:?}"
            );
        }
    }

    #[test]
    fn links_on_a_path_stay_links() {
        let folder = TempFolder::create().unwrap();
        let real = files::canonical(folder.path()).unwrap();
        files::write(&real.join("usr/bin/tool-1"), b"x", files::Access::Everyone).unwrap();
        std::os::unix::fs::symlink("usr/bin", real.join("bin")).unwrap();
        std::os::unix::fs::symlink("tool-1", real.join("usr/bin/tool")).unwrap();
        let mut root = Root::default();
        root.add(&real.join("bin/tool")).unwrap();
        assert_eq!(root.0[&real.join("bin")], Item::Link("usr/bin".into()));
        assert_eq!(root.0[&real.join("usr/bin/tool")], Item::Link("tool-1".into()));
        assert_eq!(root.0[&real.join("usr/bin/tool-1")], Item::File(real.join("usr/bin/tool-1")));
        assert_eq!(root.0[&real.join("usr")], Item::Folder { mode: 0o755 });
        let mut bytes = Vec::new();
        root.write_tar(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<PathBuf> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert!(
            names.iter().any(|name| name.ends_with("usr/bin/tool-1"))
                && names.iter().all(|name| name.is_relative())
        );
    }
}
