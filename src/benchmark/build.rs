//! Builds a benchmark into a code package, and only when something that goes in has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Benchmark;
use super::dependencies;
use super::hash::Ingredients;
use super::installer::Installer;
use super::layout::{self, Plan};
use super::wrappers::wrappers;
use crate::cancel::Cancel;
use crate::docker::{Engine, Scope};
use crate::error::{Context, Error, Result};
use crate::faas::{Architecture, CodePackage, Language, Runtime};
use crate::files::{self, Access, EntryKind, Lock, Sharing};
use crate::progress::Progress;
use crate::runtime::RuntimeImage;

/// What to build, for what, and where.
#[derive(Clone, Copy, Debug)]
pub struct BuildRequest<'a> {
    /// The benchmark.
    pub benchmark: &'a Benchmark,
    /// Language, version and variant to build for.
    pub runtime: &'a Runtime,
    /// Architecture to build for.
    pub architecture: Architecture,
    /// The image that the function will run on; its interpreter installs and compiles.
    pub image: &'a RuntimeImage,
    /// The engine for containers that install dependencies. `None`: there is none, so only an image imported from this
    /// host will do, and superseded packages are left where they are.
    pub engine: Option<&'a Engine>,
    /// `<cache>/<benchmark>/local/<language>/code_package/<variant>/<version>/<arch>`.
    pub cache_folder: &'a Path,
    /// The package that the cache knows of; `None`: none.
    pub known: Option<&'a KnownPackage>,
    /// Build even where nothing has changed?
    pub update_code: bool,
    /// Log what the tools print as steps of the job?
    pub verbose: bool,
    /// Gives up, and kills the tools, when triggered.
    pub cancel: &'a Cancel,
    /// Told each step.
    pub progress: &'a Progress,
}

/// A package that was built before, as the cache has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPackage {
    /// SHA-256 of all that went in, 64 hexadecimal digits.
    pub hash: String,
    /// The folder, absolute.
    pub location: PathBuf,
    /// Bytes of all files in it.
    pub size_bytes: u64,
}

impl BuildRequest<'_> {
    /// The package: the known one where it still fits, else one that is built now.
    ///
    /// One process builds in a cache folder at a time. A new package goes to a folder of its own, so that running
    /// containers keep theirs; a superseded one is removed once no process holds it and no container of ours mounts
    /// it. `uses_storage` and `uses_nosql` are what `config.json` says; `input.py` has the last word.
    ///
    /// # Errors
    /// The benchmark is not written in that language or variant, a file of it is missing, or a tool failed: what it
    /// installed from is named, and its last lines are shown.
    pub fn build(&self) -> Result<CodePackage> {
        let benchmark = self.benchmark;
        benchmark.check_support(self.runtime.language, &self.runtime.variant)?;
        let plan =
            Plan { benchmark, runtime: self.runtime, architecture: self.architecture, verbose: self.verbose };
        let folder = std::path::absolute(self.cache_folder)
            .context(|| format!("failed to find folder `{}`", self.cache_folder.display()))?;
        let _building = files::lock(&folder.join(".lock"), Sharing::Exclusive, self.cancel)?;
        let hash = Ingredients {
            runtime: self.runtime,
            architecture: self.architecture,
            image_id: &self.image.id,
            sources: &plan.sources()?,
            wrappers: wrappers(self.runtime.language),
        }
        .hash()
        .context(|| format!("failed to hash benchmark `{}`", benchmark.name))?;
        if !self.update_code
            && let Some((known, in_use)) = self.find_built(&folder, &hash)?
        {
            log::debug!("code package `{}` is up to date", known.location.display());
            return Ok(self.package(known, Rebuilt::No, in_use));
        }
        let build = folder.join(format!(".build-{}", files::random_hex(8)));
        remove_stale_builds(&folder);
        let built = self.fill(&plan, &build).and_then(|()| self.publish(&folder, &build, &hash));
        if built.is_err() {
            files::remove_folder(&build).unwrap_or_else(|error| log::warn!("{error}"));
        }
        let (known, in_use) = built?;
        self.remove_superseded(&folder, &known.location);
        Ok(self.package(known, Rebuilt::Yes, in_use))
    }

    fn fill(&self, plan: &Plan<'_>, build: &Path) -> Result<()> {
        let task = format!(
            "packaging {} for {} {}",
            self.benchmark.name, self.runtime.language, self.runtime.version
        );
        log::info!("{task}");
        let installer = Installer {
            engine: self.engine,
            image: self.image,
            folder: build,
            tools: &build.with_file_name(".tools"),
            cancel: self.cancel,
            verbose: self.verbose,
        };
        self.progress.step(&task, "code");
        plan.lay_out(build, self.cancel)?;
        let requirements = dependencies::choose(build, self.runtime, self.architecture);
        if let Some(requirements) = &requirements {
            self.progress.step(&task, "dependencies");
            dependencies::install(plan, &installer, requirements)?;
        }
        dependencies::shrink(plan, &installer)?;
        layout::arrange(build, self.runtime.language, requirements.as_deref())?;
        if self.runtime.language == Language::Python {
            self.progress.step(&task, "compiling");
            dependencies::compile(&installer)?;
        }
        Ok(())
    }

    /// Moves a finished build to its own place and holds it.
    fn publish(&self, folder: &Path, build: &Path, hash: &str) -> Result<(KnownPackage, Arc<Lock>)> {
        let location = free_place(folder, hash);
        let size_bytes = size(build)?;
        // The lock's file says which package stands there, so a stale cache entry is never taken for it.
        files::write(&lock_of(&location), format!("{hash} {size_bytes}").as_bytes(), Access::Everyone)?;
        fs::rename(build, &location)
            .context(|| format!("failed to move the build to `{}`", location.display()))?;
        let in_use = self.hold(&location, hash)?;
        let (in_use, _) = in_use.ok_or_else(|| Error::new(format!("`{}` vanished", location.display())))?;
        Ok((KnownPackage { hash: hash.to_string(), location, size_bytes }, in_use))
    }

    /// The package with that hash: the one that the cache knows of, or one that another process built in the meantime.
    fn find_built(&self, folder: &Path, hash: &str) -> Result<Option<(KnownPackage, Arc<Lock>)>> {
        let known = self.known.filter(|known| known.hash == hash).map(|known| known.location.clone());
        for location in known.into_iter().chain(files::list(folder)?) {
            if let Some((in_use, size_bytes)) = self.hold(&location, hash)? {
                return Ok(Some((KnownPackage { hash: hash.to_string(), location, size_bytes }, in_use)));
            }
        }
        Ok(None)
    }

    /// Holds the package with that hash at `location`, and gives back its size; `None`: it is not there, or is not as it
    /// was built.
    fn hold(&self, location: &Path, hash: &str) -> Result<Option<(Arc<Lock>, u64)>> {
        let path = lock_of(location);
        let label = fs::read_to_string(&path).unwrap_or_default();
        let built_bytes = label.strip_prefix(hash).and_then(|rest| rest.trim().parse::<u64>().ok());
        let Some(built_bytes) = built_bytes.filter(|_| location.is_dir()) else { return Ok(None) };
        let lock = files::lock(&path, Sharing::Shared, self.cancel)?;
        if size(location)? != built_bytes {
            log::warn!("code package `{}` is not as it was built: it is built anew", location.display());
            return Ok(None);
        }
        Ok(Some((Arc::new(lock), built_bytes)))
    }

    /// Removes packages other than `current` that nobody uses; what cannot be told or removed stays.
    fn remove_superseded(&self, folder: &Path, current: &Path) {
        let Some(engine) = self.engine else { return };
        let remove = || {
            for path in files::list(folder)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let is_package = path.is_dir() && (name == "code" || name.starts_with("code-"));
                if !is_package || path == current {
                    continue;
                }
                let lock = lock_of(&path);
                let Some(_unused) = files::try_lock(&lock, Sharing::Exclusive)? else { continue };
                // Asked only now: whoever lets go of the lock may have left a container that is kept.
                let containers = engine.list_containers(&["sebs-lite=1"], Scope::All)?;
                let mut mounts = containers.iter().flat_map(|container| &container.mounts);
                if mounts.any(|mount| Path::new(&mount.source) == path) {
                    continue;
                }
                log::debug!("removing superseded code package `{}`", path.display());
                files::remove_folder(&path)?;
                // Nobody waits for it: these locks are only taken by who has the folder's.
                fs::remove_file(&lock).context(|| format!("failed to remove `{}`", lock.display()))?;
            }
            Ok(())
        };
        let removed: Result<()> = remove();
        if let Err(error) = removed {
            log::warn!("superseded code packages in `{}` are left: {error}", folder.display());
        }
    }

    fn package(&self, known: KnownPackage, rebuilt: Rebuilt, in_use: Arc<Lock>) -> CodePackage {
        let config = &self.benchmark.config;
        let uses = |module: &str| config.modules.iter().any(|used| used == module);
        CodePackage {
            benchmark: self.benchmark.name.clone(),
            runtime: self.runtime.clone(),
            architecture: self.architecture,
            hash: known.hash,
            location: known.location,
            size_bytes: known.size_bytes,
            rebuilt: rebuilt == Rebuilt::Yes,
            timeout_s: config.timeout_s,
            memory_mb: config.memory_mb,
            cpus: config.cpus,
            uses_storage: uses("storage"),
            uses_nosql: uses("nosql"),
            image_id: self.image.id.clone(),
            container: None,
            in_use: Some(in_use),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rebuilt {
    Yes,
    No,
}

/// `<location>.lock`, beside the package: held shared by whoever uses it; its content is the package's hash.
pub(super) fn lock_of(location: &Path) -> PathBuf {
    let mut name = location.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Removes what builds left that did not come to their end. Whoever holds the folder's lock is the only one to build in
/// it; but a tool of a killed process may still write, so what cannot be removed is left to the next build.
fn remove_stale_builds(folder: &Path) {
    for path in files::list(folder).unwrap_or_default() {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".build-"))
            && let Err(error) = files::remove_folder(&path)
        {
            log::warn!("{error}");
        }
    }
}

/// `code`, or where that is taken `code-<the hash's first digits>`, or that with a number.
fn free_place(folder: &Path, hash: &str) -> PathBuf {
    let named = format!("code-{}", &hash[..12]);
    let numbered = (2..).map(|number| format!("{named}-{number}"));
    ["code".to_string(), named.clone()]
        .into_iter()
        .chain(numbered)
        .map(|name| folder.join(name))
        .find(|path| fs::symlink_metadata(path).is_err())
        .expect("a folder has room for one more number")
}

fn size(folder: &Path) -> Result<u64> {
    let sizes = files::walk(folder)?.into_iter().map(|entry| match entry.kind {
        EntryKind::File(bytes) => bytes,
        EntryKind::Folder | EntryKind::Link(_) => 0,
    });
    Ok(sizes.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;

    #[test]
    fn a_place_is_never_taken_twice() {
        let folder = TempFolder::create().unwrap();
        let hash = "0123456789abcdef";
        for name in ["code", "code-0123456789ab", "code-0123456789ab-2", "code-0123456789ab-3"] {
            let place = free_place(folder.path(), hash);
            assert_eq!(place, folder.path().join(name));
            files::create_folder(&place).unwrap();
        }
    }
}
