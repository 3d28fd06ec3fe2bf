//! Where a result is saved: `experiments.json` in the output folder, whole after each save, nothing overwritten.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::error::{Context, Result};
use crate::files::{self, Access};

use super::result::ExperimentResult;

/// The name that scripts look for.
const NAME: &str = "experiments.json";

/// A save may take a tenth of the run's time: with large outputs, not every invocation is saved at once.
const SAVE_SHARE: u32 = 10;

/// The place of one run's result. While it lives, no other run writes under the same name.
#[derive(Debug)]
pub struct ResultStore {
    path: PathBuf,
    /// Held for its lock on the folder: the run that holds it owns the name.
    _folder: File,
    has_saved: bool,
    last_save: Instant,
    last_cost: Duration,
}

impl ResultStore {
    /// Claims the place for a run that began at `begin_time`, in seconds since 1970-01-01 UTC. Where another run is
    /// at work in the folder, this one's file carries its begin time and process id in its name, which no other has.
    ///
    /// # Errors
    /// The folder cannot be made, opened, or written to: said before anything is measured.
    pub fn claim(folder: &Path, begin_time: f64) -> Result<ResultStore> {
        files::create_folder(folder)?;
        let handle =
            File::open(folder).context(|| format!("failed to open folder `{}`", folder.display()))?;
        files::check_writable(folder)?;
        let path = match handle.try_lock() {
            Ok(()) => folder.join(NAME),
            Err(TryLockError::WouldBlock) => {
                let path = folder.join(format!(
                    "experiments-{}-{}.json",
                    clock::stamp(begin_time),
                    std::process::id()
                ));
                let shown = path.display();
                log::warn!("another run writes to `{}`: this one writes `{shown}`", folder.display());
                path
            }
            // NFS locks no folder: then nobody can tell, and scripts look for the plain name.
            Err(TryLockError::Error(error)) => {
                log::debug!("failed to lock folder `{}`: {error}", folder.display());
                folder.join(NAME)
            }
        };
        let last_save = Instant::now();
        Ok(ResultStore { path, _folder: handle, has_saved: false, last_save, last_cost: Duration::ZERO })
    }

    /// A path beside the result for what was sampled in a run that began at `begin_time`, which nothing has yet and which
    /// stays when a later run sets this one's result aside: `memory-20261121T092048Z.recording`. Where another run is at
    /// work in the folder it carries the process id, as the result does: two that begin in one second would find the same.
    pub fn recording_path(&self, begin_time: f64) -> PathBuf {
        let is_alone = self.path.ends_with(NAME);
        let stem = if is_alone { "memory".to_string() } else { format!("memory-{}", std::process::id()) };
        free_path(self.path.parent().unwrap_or(Path::new("")), &stem, begin_time, "recording")
    }

    /// The file, once it has been saved; `None` before.
    pub fn saved_path(&self) -> Option<&Path> {
        self.has_saved.then_some(self.path.as_path())
    }

    /// Saves the result unless the last save, which took long, was just now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save_when_cheap(&mut self, result: &ExperimentResult) -> Result<()> {
        if Instant::now().since(self.last_save) < self.last_cost * SAVE_SHARE {
            return Ok(());
        }
        self.save(result)
    }

    /// Saves the result. The first save renames a file of that name that an earlier run left.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&mut self, result: &ExperimentResult) -> Result<()> {
        let begin = Instant::now();
        if !self.has_saved && self.path.ends_with(NAME) {
            set_aside(&self.path)?;
        }
        files::write_with(&self.path, Access::Everyone, |file| {
            let mut buffered = std::io::BufWriter::new(file);
            serde_json::to_writer_pretty(&mut buffered, result)?;
            std::io::Write::write_all(&mut buffered, b"\n")?;
            std::io::Write::flush(&mut buffered)
        })?;
        self.has_saved = true;
        self.last_save = Instant::now();
        self.last_cost = self.last_save.since(begin);
        Ok(())
    }
}

/// Renames an earlier run's file to `experiments-<its begin time>.json`.
fn set_aside(path: &Path) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Begin {
        begin_time: f64,
    }
    let about = || format!("failed to set `{}` aside", path.display());
    let modified = match std::fs::metadata(path) {
        Ok(metadata) => metadata.modified().context(about)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(about),
    };
    let begin_time = files::read_json::<Begin>(path).map(|begin| begin.begin_time).unwrap_or_else(|error| {
        log::warn!("{error}: its time of change names it instead");
        modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    });
    let folder = path.parent().unwrap_or(Path::new(""));
    let aside = free_path(folder, "experiments", begin_time, "json");
    log::info!("`{}` of an earlier run is now `{}`", path.display(), aside.display());
    std::fs::rename(path, &aside).context(about)
}

/// `experiments-20261121T092048Z.json`, or one with a number behind it, that nothing has yet.
fn free_path(folder: &Path, stem: &str, begin_time: f64, ending: &str) -> PathBuf {
    let stamp = clock::stamp(begin_time);
    let name = |suffix: String| folder.join(format!("{stem}-{stamp}{suffix}.{ending}"));
    let numbered = (2..).map(|number| name(format!("-{number}")));
    let mut paths = std::iter::once(name(String::new())).chain(numbered);
    paths.find(|path| !path.exists()).expect("the numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::config::{ExperimentSettings, ResultConfig};
    use crate::experiment::result::Environment;
    use crate::faas::{Architecture, ExecutionResult, Language, Runtime};
    use crate::files::TempFolder;

    fn result(begin_time: f64) -> ExperimentResult {
        let runtime =
            Runtime { language: Language::Python, version: "3.11".into(), variant: "default".into() };
        let experiments = ExperimentSettings {
            update_code: false,
            update_storage: false,
            download_results: false,
            container_deployment: false,
            system_variant: "package".into(),
            architecture: Architecture::X64,
            runtime,
            flags: serde_json::json!({}),
        };
        let config =
            ResultConfig { deployment: serde_json::json!({"name": "local"}), experiments, function: None };
        ExperimentResult::begin(config, Environment::default(), begin_time)
    }

    #[test]
    fn invocations_keep_their_order_and_failed_ones_are_counted() {
        let mut result = result(1.0);
        for id in ["z", "", "a", ""] {
            let mut invocation = ExecutionResult::empty();
            invocation.request_id = id.to_string();
            result.add_invocation("f", invocation, 2.0);
        }
        let text = serde_json::to_string(&result).unwrap();
        let again: ExperimentResult = serde_json::from_str(&text).unwrap();
        let ids: Vec<_> =
            again.invocations_of("f").map(|invocation| invocation.request_id.as_str()).collect();
        assert_eq!(ids, ["z", "failed-0", "a", "failed-1"]);
        assert_eq!((again.begin_time, again.end_time, again.schema_version), (1.0, 2.0, SCHEMA));
    }

    const SCHEMA: u32 = crate::experiment::result::SCHEMA_VERSION;

    #[test]
    fn an_earlier_result_is_set_aside_under_its_begin_time() {
        let place = TempFolder::create().unwrap();
        // The place itself is locked by who made it.
        let folder = place.path().join("output");
        for (begin_time, runs) in [(1_795_252_848.5, 1), (1_795_252_848.7, 2), (1_795_252_900.0, 3)] {
            let mut store = ResultStore::claim(&folder, begin_time).unwrap();
            store.save(&result(begin_time)).unwrap();
            store.save(&result(begin_time)).unwrap();
            assert_eq!(files::list(&folder).unwrap().len(), runs);
        }
        let names: Vec<_> = files::list(&folder).unwrap();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["experiments-20261121T092048Z-2.json", "experiments-20261121T092048Z.json", "experiments.json"]
        );
    }

    #[test]
    fn two_runs_in_one_folder_do_not_write_one_file() {
        let place = TempFolder::create().unwrap();
        // The place itself is locked by who made it.
        let folder = place.path().join("output");
        let first = ResultStore::claim(&folder, 1_795_252_848.0).unwrap();
        let mut second = ResultStore::claim(&folder, 1_795_252_849.0).unwrap();
        let mut third = ResultStore::claim(&folder, 1_795_252_849.0).unwrap();
        assert_eq!(first.path, folder.join("experiments.json"));
        assert_eq!(second.saved_path(), None);
        let own = folder.join(format!("experiments-20261121T092049Z-{}.json", std::process::id()));
        assert_eq!(second.path, own);
        assert_ne!(first.recording_path(1_795_252_849.0), second.recording_path(1_795_252_849.0));
        third.path = folder.join("experiments-20261121T092049Z-1.json");
        second.save(&result(1_795_252_849.0)).unwrap();
        second.save(&result(1_795_252_849.0)).unwrap();
        third.save(&result(1_795_252_849.0)).unwrap();
        assert_eq!(second.saved_path(), Some(own.as_path()));
        assert_eq!(files::list(&folder).unwrap().len(), 2, "no run moves the file of another");
        drop((first, second, third));
        let fourth = ResultStore::claim(&folder, 1_795_252_850.0).unwrap();
        assert_eq!(fourth.path, folder.join("experiments.json"));
    }
}
