//! The code packages that a cache holds, those that nobody uses among them, and how they are removed.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::build::lock_of;
use crate::cache::Cache;
use crate::error::{Error, Kind, Result};
use crate::files::{self, EntryKind, Lock, Sharing};

/// A folder in a cache that is a code package, or what a build that was killed left of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPackage {
    /// The folder, absolute.
    pub(crate) location: PathBuf,
    /// Name of the benchmark.
    pub(crate) benchmark: String,
    /// Bytes of all files in it.
    pub(crate) size_bytes: u64,
    /// When it was last changed, in seconds since the epoch.
    pub(crate) modified_s: u64,
    /// Did the build end that made it?
    pub(crate) is_whole: bool,
    /// Does a command use it, or build it, at this moment?
    pub(crate) is_held: bool,
}

impl StoredPackage {
    /// All in a cache, sorted by their folders. What vanishes meanwhile is passed over.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub(crate) fn list(cache: &Cache) -> Result<Vec<StoredPackage>> {
        let mut found = Vec::new();
        for benchmark in files::list(cache.root())? {
            let name = benchmark.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // <benchmark>/<platform>/<language>/code_package/<variant>/<version>/<architecture>/<package>
            let mut folders = vec![benchmark];
            for level in 0..6 {
                folders = folders.iter().flat_map(|folder| files::list(folder).unwrap_or_default()).collect();
                folders.retain(|path| path.is_dir() && (level != 2 || path.ends_with("code_package")));
            }
            let packages = folders.iter().flat_map(|folder| files::list(folder).unwrap_or_default());
            found.extend(packages.filter_map(|location| StoredPackage::at(&name, location)));
        }
        Ok(found)
    }

    fn at(benchmark: &str, location: PathBuf) -> Option<StoredPackage> {
        let name = location.file_name()?.to_str()?;
        let is_whole = name == "code" || name.starts_with("code-");
        if !location.is_dir() || !is_whole && !name.starts_with(".build-") {
            return None;
        }
        let modified = location.metadata().and_then(|metadata| metadata.modified()).ok()?;
        let is_held = matches!(hold(&location, is_whole), Ok(None));
        Some(StoredPackage {
            benchmark: benchmark.to_string(),
            size_bytes: size(&location),
            modified_s: modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            is_whole,
            is_held,
            location,
        })
    }

    /// Removes it, unless a command or, by `is_mounted`, a container uses it. One that is gone is fine.
    ///
    /// # Errors
    /// `is_conflict`: it is in use. It cannot be removed.
    pub(crate) fn remove(&self, is_mounted: &dyn Fn(&Path) -> Result<bool>) -> Result<()> {
        if !self.location.is_dir() {
            return Ok(());
        }
        let in_use = || {
            Error::with_kind(Kind::Conflict, format!("code package `{}` is in use", self.location.display()))
        };
        let lock = hold(&self.location, self.is_whole)?.ok_or_else(in_use)?;
        // Asked only now: whoever let go of the lock may have left a container that is kept.
        if is_mounted(&self.location)? {
            return Err(in_use());
        }
        files::remove_folder(&self.location)?;
        if self.is_whole {
            files::remove_file(&lock_of(&self.location))?;
        }
        drop(lock);
        Ok(())
    }
}

/// Does a command that runs use the package in that folder?
pub(crate) fn is_package_held(location: &Path) -> bool {
    let lock = lock_of(location);
    lock.exists() && matches!(files::try_lock(&lock, Sharing::Exclusive), Ok(None))
}

/// Keeps others from using the package or, where it is not whole, from building beside it; `None`: somebody does.
fn hold(location: &Path, is_whole: bool) -> Result<Option<Vec<Lock>>> {
    let building = location.with_file_name(".lock");
    let paths = if is_whole { vec![building, lock_of(location)] } else { vec![building] };
    // Who only looks makes no files: a lock that is not there is nobody's.
    let there = paths.iter().filter(|path| path.exists());
    there.map(|path| files::try_lock(path, Sharing::Exclusive)).collect()
}

fn size(folder: &Path) -> u64 {
    let bytes = |kind: &EntryKind| if let EntryKind::File(bytes) = kind { *bytes } else { 0 };
    files::walk(folder).unwrap_or_default().iter().map(|entry| bytes(&entry.kind)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::PackageKey;
    use crate::cancel::Cancel;
    use crate::files::{Access, TempFolder};

    #[test]
    fn packages_are_found_and_removed_where_nobody_holds_or_mounts_them() {
        let folder = TempFolder::create().unwrap();
        let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
        let key = PackageKey {
            benchmark: "b",
            platform: "local",
            language: "python",
            variant: "default",
            version: "3.11",
            architecture: "x64",
        };
        let place = cache.package_folder(&key);
        for name in ["code", "code-0123", ".build-1", ".tools"] {
            files::write(&place.join(name).join("function/f.py"), b"12345", Access::Everyone).unwrap();
        }
        files::write(&cache.root().join("bundled/b/python/function.py"), b"1", Access::Everyone).unwrap();
        let names = || -> Vec<(String, bool)> {
            let all = StoredPackage::list(&cache).unwrap();
            let name =
                |package: &StoredPackage| package.location.file_name().unwrap().to_str().unwrap().to_string();
            all.iter().map(|package| (name(package), package.is_held)).collect()
        };
        let expected = |held: [bool; 3]| {
            [".build-1", "code", "code-0123"].map(str::to_string).into_iter().zip(held).collect::<Vec<_>>()
        };
        assert_eq!(names(), expected([false; 3]));
        let used = files::lock(&lock_of(&place.join("code")), Sharing::Shared, &Cancel::new()).unwrap();
        assert_eq!(names(), expected([false, true, false]));
        let packages = StoredPackage::list(&cache).unwrap();
        assert_eq!((packages[1].size_bytes, packages[1].benchmark.as_str()), (5, "b"));
        assert!(packages[1].remove(&|_| Ok(false)).unwrap_err().is_conflict());
        assert!(packages[2].remove(&|_| Ok(true)).unwrap_err().is_conflict());
        packages[2].remove(&|path| Ok(!path.ends_with("code-0123"))).unwrap();
        packages[0].remove(&|_| Ok(false)).unwrap();
        packages[0].remove(&|_| Ok(false)).unwrap();
        drop(used);
        assert_eq!(names(), [("code".to_string(), false)]);
        let building = files::lock(&place.join(".lock"), Sharing::Exclusive, &Cancel::new()).unwrap();
        assert_eq!(names(), [("code".to_string(), true)]);
        drop(building);
    }
}
