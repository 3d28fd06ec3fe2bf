//! The file of a deployment, while one command has it to itself: claimed, replaced where that loses nothing, written.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::{Deployment, RecordingFormat};
use crate::cancel::Cancel;
use crate::clock;
use crate::docker::{ContainerSummary, Engine, containers_of};
use crate::error::{Context, Error, Kind, Result};
use crate::files::{self, Access, ClaimedFile};

/// A deployment's file, which no other command of ours changes meanwhile. What was written to it is taken back when this
/// is dropped, until it is [confirmed](DeploymentFile::confirm).
#[derive(Debug)]
pub struct DeploymentFile(ClaimedFile);

impl DeploymentFile {
    /// For a deployment that is to be started: the folder is made where it is not there.
    ///
    /// # Errors
    /// `is_conflict` where another command has the file; `is_usage` where the path can be none of a file.
    pub fn claim(path: &Path) -> Result<DeploymentFile> {
        ClaimedFile::claim(path, "`local start` or `local stop`").map(DeploymentFile)
    }

    /// For a deployment that was started: waits until no other command has the file.
    ///
    /// # Errors
    /// `is_not_found` where there is no such file, or `is_cancelled`.
    pub fn open(path: &Path, cancel: &Cancel) -> Result<DeploymentFile> {
        ClaimedFile::open(path, cancel).map(DeploymentFile)
    }

    /// Where it is: absolute, and as the labels of its containers have it.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Sees that nothing is lost when the file is written: there is none, or one of a deployment that does not run any more.
    /// What such a one left in the engine is removed, unless it was to stay.
    ///
    /// # Errors
    /// `is_usage` where it is another file, `is_conflict` where its deployment still runs.
    pub fn make_free(&mut self, engine: &Engine) -> Result<()> {
        if !self.path().exists() {
            return self.check_containers(engine);
        }
        let previous = files::read_bytes(self.path())?;
        let deployment = Deployment::deserialize(self.path()).map_err(|error| match error.is_usage() {
            true => Error::usage(format!("nothing is overwritten but a deployment's file: {error}")),
            false => error,
        })?;
        if let Some(running) = deployment.something_that_runs(engine)? {
            return Err(self.still_runs(&running));
        }
        self.check_containers(engine)?;
        if deployment.remove_containers != Some(false) {
            for left in containers_of(self.path(), engine)? {
                log::info!("removing container `{}` of an earlier deployment, which has ended", name(&left));
                engine.remove_container(&left.id)?;
            }
        }
        self.0.restore_later(previous);
        Ok(())
    }

    /// Are there containers of this file that run, whatever it says?
    fn check_containers(&self, engine: &Engine) -> Result<()> {
        let is_up = |container: &ContainerSummary| {
            matches!(container.state.as_str(), "running" | "paused" | "restarting")
        };
        match containers_of(self.path(), engine)?.into_iter().find(is_up) {
            Some(running) if self.path().exists() => {
                Err(self.still_runs(&format!("container `{}`", name(&running))))
            }
            Some(running) => {
                // `local stop` of the file that is to be written finds it.
                log::warn!(
                    "container `{}` belongs to an earlier deployment of `{}`, whose file is gone",
                    name(&running),
                    self.path().display()
                );
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn still_runs(&self, what: &str) -> Error {
        let shown = self.path().display();
        Error::with_kind(
            Kind::Conflict,
            format!(
                "the deployment of `{shown}` still runs ({what}): stop it first with `sebs-lite local stop {shown}`"
            ),
        )
    }

    /// An empty file for samples, beside this one and with a name that nothing had.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn reserve_recording(&self, format: RecordingFormat) -> Result<PathBuf> {
        let stem = self.path().file_stem().unwrap_or_default().to_string_lossy();
        let stamp = clock::stamp(clock::epoch_seconds());
        let mut number = 1;
        loop {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let name = format!("{stem}-{stamp}{suffix}.{}", format.ending());
            let path = self.path().with_file_name(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => return Ok(path),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => {
                    return Err(error).context(|| format!("failed to make `{}`", path.display()));
                }
            }
        }
    }

    /// Writes what there is of the deployment so far.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, deployment: &Deployment) -> Result<()> {
        self.0.write_with(|path| deployment.serialize(path))
    }

    /// Lets what was written stay.
    pub fn confirm(self) {
        self.0.confirm();
    }

    /// Writes into the file that its deployment was stopped, and leaves the rest as it is, be it ours or not.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(super) fn mark_stopped(path: &Path, stopped_at: &str) -> Result<()> {
        let text = files::read_text(path)?;
        let about = || format!("failed to note in `{}` that it was stopped", path.display());
        let marked = with_stopped_at(&text, stopped_at).context(about)?;
        files::write(path, marked.as_bytes(), Access::Owner)
    }
}

fn name(container: &ContainerSummary) -> &str {
    container.names.first().unwrap_or(&container.id)
}

fn with_stopped_at(text: &str, stopped_at: &str) -> Result<String> {
    let failed = |error: serde_json::Error| Error::new(error.to_string());
    let mut keys: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(failed)?;
    let value = serde_json::value::to_raw_value(stopped_at).map_err(failed)?;
    keys.insert("stopped_at".to_string(), value);
    Ok(serde_json::to_string_pretty(&keys).map_err(failed)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;

    #[test]
    fn a_file_is_had_by_one_command_under_all_its_names_and_what_it_wrote_is_taken_back() {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("deep/d.json");
        let mut file = DeploymentFile::claim(&path).unwrap();
        let other_name = folder.path().join("deep/../deep/d.json");
        let refused = DeploymentFile::claim(&other_name).unwrap_err();
        assert!(refused.is_conflict() && refused.to_string().contains("d.json"), "{refused}");
        file.write(&Deployment::new(true)).unwrap();
        assert!(path.exists());
        drop(file);
        assert!(files::list(path.parent().unwrap()).unwrap().is_empty());
        let mut file = DeploymentFile::claim(&path).unwrap();
        file.write(&Deployment::new(true)).unwrap();
        file.confirm();
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = DeploymentFile::open(&link, &Cancel::new()).unwrap();
        assert!(DeploymentFile::claim(&path).unwrap_err().is_conflict());
        drop(file);
        assert_eq!(files::list(path.parent().unwrap()).unwrap(), [files::canonical(&path).unwrap()]);
        for no_file in [Path::new("/"), folder.path(), &folder.path().join("x/..")] {
            assert!(DeploymentFile::claim(no_file).unwrap_err().is_usage(), "{}", no_file.display());
        }
    }

    #[test]
    fn recordings_never_have_one_name() {
        let folder = TempFolder::create().unwrap();
        let file = DeploymentFile::claim(&folder.path().join("out.json")).unwrap();
        let paths: std::collections::BTreeSet<_> =
            (0..3).map(|_| file.reserve_recording(RecordingFormat::Recording).unwrap()).collect();
        assert_eq!(paths.len(), 3);
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            assert!(name.starts_with("out-2") && name.ends_with(".recording"), "{name}");
        }
        assert!(file.reserve_recording(RecordingFormat::Sebs).unwrap().to_str().unwrap().ends_with("Z.txt"));
    }

    #[test]
    fn a_file_is_marked_without_a_change_of_what_else_it_says() {
        let marked = with_stopped_at(r#"{"b": {"n": 123456789012345678901}, "a": 1.0}"#, "now").unwrap();
        assert_eq!(
            marked,
            "{\n  \"a\": 1.0,\n  \"b\": {\"n\": 123456789012345678901},\n  \"stopped_at\": \"now\"\n}\n"
        );
        assert!(with_stopped_at(&marked, "later").unwrap().contains("\"later\""));
        assert!(with_stopped_at("[]", "now").is_err());
    }
}
