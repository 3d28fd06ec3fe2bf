//! Files and folders, with the path in every error: read, write-then-rename, locks, sorted walks.

mod claimed;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::{Context, Error, Kind, Result};
use crate::units;

pub(crate) use claimed::ClaimedFile;

/// The text of a file.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("failed to read `{}`", path.display()))
}

/// The bytes of a file.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("failed to read `{}`", path.display()))
}

/// The JSON in a file, as `T`; the error names the path, and the line and column that are wrong.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| {
        Error::from_source(Kind::Usage, format!("failed to read `{}` as JSON", path.display()), error)
    })
}

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody the umask allows.
    Everyone,
    /// Its owner alone, mode 0600: the file may hold a secret.
    Owner,
}

/// Writes a file so that a reader sees the old content or the new one, whole: into a neighbour, then renamed.
pub(crate) fn write(path: &Path, content: &[u8], access: Access) -> Result<()> {
    write_with(path, access, |file| file.write_all(content))
}

/// Like [`write()`], with the content written by `fill`.
pub(crate) fn write_with(
    path: &Path,
    access: Access,
    fill: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<()> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name that nobody can foresee, and never a file or link that is there already: the folder may be one for all.
    let neighbour = path.with_file_name(format!(".{name}.{}", random_hex(12)));
    let mode = if access == Access::Owner { 0o600 } else { 0o666 };
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&neighbour)
        .and_then(|mut file| fill(&mut file))
        .and_then(|()| fs::rename(&neighbour, path));
    if written.is_err() {
        let _ = fs::remove_file(&neighbour);
    }
    written.context(|| format!("failed to write `{}`", path.display()))
}

/// Says whether files can be made in a folder, by making one and removing it.
pub(crate) fn check_writable(folder: &Path) -> Result<()> {
    let path = folder.join(format!(".sebs-lite-{}", random_hex(12)));
    let made =
        OpenOptions::new().write(true).create_new(true).open(&path).and_then(|_| fs::remove_file(&path));
    made.context(|| format!("failed to write to folder `{}`", folder.display()))
}

/// Makes a folder and those above it, where they are not there.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).context(|| format!("failed to make folder `{}`", path.display()))
}

/// Removes a folder with all in it; one that is not there is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("failed to remove folder `{}`", path.display())),
    }
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("failed to remove `{}`", path.display())),
    }
}

/// The absolute path of something that is there, without links.
pub(crate) fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).context(|| format!("failed to find `{}`", path.display()))
}

/// What stands directly in a folder, sorted by name.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
        })
        .context(|| format!("failed to list folder `{}`", folder.display()))?;
    paths.sort();
    Ok(paths)
}

/// One thing below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the folder that was walked.
    pub(crate) path: PathBuf,
    /// Permission bits.
    pub(crate) mode: u32,
    /// What it is.
    pub(crate) kind: EntryKind,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A folder.
    Folder,
    /// A file of that many bytes.
    File(u64),
    /// A symbolic link to that target.
    Link(PathBuf),
}

/// Everything below a folder, parents before children, sorted by path; links are not followed.
pub(crate) fn walk(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    walk_into(folder, Path::new(""), &mut entries)?;
    Ok(entries)
}

fn walk_into(root: &Path, below: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    for path in list(&root.join(below))? {
        let about = || format!("failed to look at `{}`", path.display());
        let metadata = fs::symlink_metadata(&path).context(about)?;
        let relative = below.join(path.file_name().unwrap_or_default());
        let kind = if metadata.is_dir() {
            EntryKind::Folder
        } else if metadata.is_symlink() {
            EntryKind::Link(fs::read_link(&path).context(about)?)
        } else if metadata.is_file() {
            EntryKind::File(metadata.len())
        } else {
            continue;
        };
        let is_folder = kind == EntryKind::Folder;
        entries.push(Entry { path: relative.clone(), mode: metadata.permissions().mode() & 0o7777, kind });
        if is_folder {
            walk_into(root, &relative, entries)?;
        }
    }
    Ok(())
}

/// Copies a folder with all in it, modes and links as they are, into one that may be there already.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    create_folder(to)?;
    for entry in walk(from)? {
        let (source, target) = (from.join(&entry.path), to.join(&entry.path));
        match &entry.kind {
            EntryKind::Folder => create_folder(&target)?,
            EntryKind::File(_) => copy_file(&source, &target)?,
            EntryKind::Link(link) => std::os::unix::fs::symlink(link, &target)
                .context(|| format!("failed to make link `{}`", target.display()))?,
        }
    }
    Ok(())
}

/// Copies one file with its mode.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).context(|| format!("failed to copy `{}` to `{}`", from.display(), to.display()))?;
    Ok(())
}

/// A lock between processes (`flock`), held until dropped; the kernel ends it with the process, however that dies.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Held for its lock alone.
    file: File,
}

/// How a [`Lock`] is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// By one process.
    Exclusive,
    /// By any number, none of them exclusively.
    Shared,
}

/// Waits for a lock on the file at `path`, which is made where it is not there.
pub(crate) fn lock(path: &Path, sharing: Sharing, cancel: &Cancel) -> Result<Lock> {
    let mut waited = false;
    loop {
        cancel.check()?;
        if let Some(lock) = try_lock(path, sharing)? {
            return Ok(lock);
        }
        if !waited {
            log::info!("waiting for another process that holds `{}`", path.display());
            waited = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lock, if nobody holds it now.
pub(crate) fn try_lock(path: &Path, sharing: Sharing) -> Result<Option<Lock>> {
    let about = || format!("failed to lock `{}`", path.display());
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let mut options = OpenOptions::new();
    // A link that somebody put there first, in a folder for all, is not followed.
    options.read(true).write(true).create(true).truncate(false).custom_flags(nix::libc::O_NOFOLLOW);
    let file = options.open(path).context(about)?;
    let attempt = match sharing {
        Sharing::Exclusive => file.try_lock(),
        Sharing::Shared => file.try_lock_shared(),
    };
    match attempt {
        Ok(()) => Ok(Some(Lock { file })),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error).context(about),
    }
}

/// A lock whose file is there only as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    _lock: Lock,
}

/// The claim that the file at `path` stands for, if nobody has it. What a killed process left of one does no harm.
pub(crate) fn try_claim(path: &Path) -> Result<Option<Claim>> {
    loop {
        let Some(lock) = try_lock(path, Sharing::Exclusive)? else { return Ok(None) };
        let held = lock.file.metadata().context(|| format!("failed to look at `{}`", path.display()))?;
        let is_there = fs::symlink_metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()));
        // Otherwise its last holder has just removed it: a lock that nobody else would ever find.
        if is_there {
            return Ok(Some(Claim { path: path.to_path_buf(), _lock: lock }));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Still locked, so that nobody holds the file that goes.
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("failed to remove `{}`: {error}", self.path.display());
        }
    }
}

/// How the names of all [`TempFolder`]s begin.
const TEMP_PREFIX: &str = "sebs-lite-tmp-";

/// A folder younger than this may be one that its owner has made and not yet locked.
const TEMP_AGE: Duration = Duration::from_secs(60);

/// A folder of our own below the system's temporary one, removed when dropped; one that a killed process left behind is
/// removed when the next is made.
#[derive(Debug)]
pub(crate) struct TempFolder {
    path: PathBuf,
    /// Held for its lock, which tells others that the owner lives.
    _handle: File,
}

impl TempFolder {
    /// A fresh, empty folder, for its owner alone.
    pub(crate) fn create() -> Result<TempFolder> {
        remove_abandoned(&std::env::temp_dir());
        let path = std::env::temp_dir().join(format!("{TEMP_PREFIX}{}", random_hex(12)));
        let about = || format!("failed to make folder `{}`", path.display());
        // What is told this path may work in another folder than we do.
        let path = std::path::absolute(&path).context(about)?;
        let about = || format!("failed to make folder `{}`", path.display());
        // A folder of that name that is there already is somebody else's.
        fs::DirBuilder::new().mode(0o700).create(&path).context(about)?;
        let handle = File::open(&path).context(about)?;
        handle.try_lock().map_err(|error| Error::new(format!("{}: {error}", about())))?;
        Ok(TempFolder { path, _handle: handle })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.path) {
            log::warn!("{error}");
        }
    }
}

/// Removes the folders below `parent` that no living process holds; what cannot be removed is left.
fn remove_abandoned(parent: &Path) {
    for path in list(parent).unwrap_or_default() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Somebody else may have put anything there: to open a pipe would wait for ever.
        let is_old_folder_of_ours = || {
            fs::symlink_metadata(&path).is_ok_and(|metadata| {
                let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
                metadata.is_dir()
                    && metadata.uid() == nix::unistd::getuid().as_raw()
                    && age.is_some_and(|age| age >= TEMP_AGE)
            })
        };
        if name.starts_with(TEMP_PREFIX)
            && is_old_folder_of_ours()
            && let Ok(handle) = File::open(&path)
            && handle.try_lock().is_ok()
            && let Err(error) = remove_folder(&path)
        {
            log::debug!("{error}");
        }
    }
}

/// That many random hexadecimal digits, from the kernel.
pub(crate) fn random_hex(digits: usize) -> String {
    let mut bytes = vec![0; digits.div_ceil(2)];
    let read =
        File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    read.expect("a Linux kernel has /dev/urandom");
    let mut text = units::hexadecimal(&bytes);
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_whole_and_leaves_no_neighbour() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("deep/er/file.json");
        write(&path, b"{}", Access::Owner).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(list(path.parent().unwrap()).unwrap(), vec![path.clone()]);
        let broken = write_with(&path, Access::Everyone, |_| Err(std::io::Error::other("disk full")));
        assert!(broken.unwrap_err().to_string().contains("file.json"));
        assert_eq!(read_text(&path).unwrap(), "{}");
        assert_eq!(list(path.parent().unwrap()).unwrap(), vec![path]);
    }

    #[test]
    fn a_copy_equals_its_original() {
        let folder = TempFolder::create().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        write(&from.join("b/c.sh"), b"echo", Access::Everyone).unwrap();
        fs::set_permissions(from.join("b/c.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("b/c.sh", from.join("a")).unwrap();
        copy_folder(&from, &to).unwrap();
        assert_eq!(walk(&from).unwrap(), walk(&to).unwrap());
        let paths: Vec<_> = walk(&to).unwrap().into_iter().map(|entry| entry.path).collect();
        assert_eq!(paths, [Path::new("a"), Path::new("b"), Path::new("b/c.sh")]);
    }

    #[test]
    fn an_abandoned_folder_is_removed_and_a_held_one_is_not() {
        let parent = TempFolder::create().unwrap();
        let (abandoned, held) =
            (parent.path().join("sebs-lite-tmp-1"), parent.path().join("sebs-lite-tmp-2"));
        let long_ago = std::time::SystemTime::now() - TEMP_AGE * 2;
        let handles = [&abandoned, &held].map(|path| {
            create_folder(path).unwrap();
            let handle = File::open(path).unwrap();
            handle.set_modified(long_ago).unwrap();
            handle
        });
        handles[1].try_lock().unwrap();
        let fresh = parent.path().join("sebs-lite-tmp-3");
        create_folder(&fresh).unwrap();
        let pipe = parent.path().join("sebs-lite-tmp-4");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let times = nix::sys::time::TimeSpec::new(0, 0);
        let no_link = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &pipe, &times, &times, no_link).unwrap();
        remove_abandoned(parent.path());
        assert!(!abandoned.exists() && held.exists() && fresh.exists() && pipe.exists());
    }

    #[test]
    fn an_exclusive_lock_keeps_all_others_out_until_it_is_dropped() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("lock");
        let shared = try_lock(&path, Sharing::Shared).unwrap().unwrap();
        assert!(try_lock(&path, Sharing::Shared).unwrap().is_some());
        assert!(try_lock(&path, Sharing::Exclusive).unwrap().is_none());
        drop(shared);
        let exclusive = try_lock(&path, Sharing::Exclusive).unwrap().unwrap();
        assert!(try_lock(&path, Sharing::Shared).unwrap().is_none());
        drop(exclusive);
        assert!(try_lock(&path, Sharing::Shared).unwrap().is_some());
    }

    #[test]
    fn a_claim_is_had_by_one_at_a_time_and_leaves_nothing() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join(".claim");
        let claim = try_claim(&path).unwrap().unwrap();
        assert!(try_claim(&path).unwrap().is_none());
        drop(claim);
        assert!(!path.exists());
        let holders = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Some(_claim) = try_claim(&path).unwrap() {
                            assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
