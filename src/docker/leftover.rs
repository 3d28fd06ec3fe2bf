//! What killed commands made by means of a file, and did not come to name in it: found by its labels, and removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::owned::{LOST_LIMIT, labels_of_file};
use super::{ContainerSummary, Engine, Liveness, Owner, Scope};
use crate::error::{Error, Result};

/// How often containers that nobody named are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The file, and what it says of what was made for it.
pub(crate) struct Leftovers<'a> {
    /// Where the containers and volumes are.
    pub(crate) engine: &'a Engine,
    /// The file, absolute, as labels have it.
    pub(crate) file: &'a Path,
    /// Is a container, by its id, or a volume, by its name, named in the file?
    pub(crate) is_named: &'a dyn Fn(&str) -> bool,
    /// Was all of it made, as far as the file can tell? Then what it does not name may be of a file that was moved since.
    pub(crate) is_whole: bool,
    /// May the engine still be at work on what a killed command asked for?
    pub(crate) may_come: bool,
}

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Cleared {
    /// Names of what is gone.
    pub(crate) removed: Vec<String>,
    /// What the user should know, a sentence each.
    pub(crate) warnings: Vec<String>,
    /// What could not be removed.
    pub(crate) failures: Vec<Error>,
}

/// The containers that were made by means of a file, those that it does not name among them.
pub(crate) fn containers_of(file: &Path, engine: &Engine) -> Result<Vec<ContainerSummary>> {
    engine.list_containers(&labels_of_file(file).each_ref().map(String::as_str), Scope::All)
}

impl Leftovers<'_> {
    /// Removes them. The engine may still be at work on the last one that it was asked for.
    pub(crate) fn remove(&self) -> Cleared {
        let limit = if self.may_come { LOST_LIMIT } else { Duration::ZERO };
        let deadline = Instant::now() + limit;
        let (mut cleared, mut removed) = (Cleared::default(), BTreeSet::new());
        // What one look could not remove, the next may: the engine lists containers that it has not wholly made, and has
        // been seen to list one again that was removed then.
        cleared.failures = loop {
            let is_last = Instant::now() >= deadline;
            match self.look(&mut cleared.warnings, &mut removed) {
                Ok(failures) if is_last => break failures,
                Ok(_) => std::thread::sleep(LOOK_EVERY),
                Err(error) => break vec![error],
            }
        };
        cleared.removed.extend(removed);
        cleared
    }

    /// Takes one look, and gives what could not be removed.
    fn look(&self, warnings: &mut Vec<String>, removed: &mut BTreeSet<String>) -> Result<Vec<Error>> {
        let current = Owner::current()?;
        let mut failures = Vec::new();
        for container in containers_of(self.file, self.engine)? {
            let Some(owner) = Owner::from_labels(&container.labels) else { continue };
            if (self.is_named)(&container.id) {
                continue;
            }
            let name = container.names.into_iter().next().unwrap_or(container.id.clone());
            // A start that was not killed named all that it made: this one may be of a file that was moved since.
            let is_anothers = self.is_whole && container.state == "running";
            if is_anothers || current.liveness_of(&owner) != Liveness::Dead {
                let warning = format!(
                    "container `{name}`, which the file does not name, is left alone: who made it may still need it \
                     (`docker rm -f {name}` removes it)"
                );
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
                continue;
            }
            match self.engine.remove_container(&container.id) {
                Ok(()) => drop(removed.insert(name)),
                Err(error) => failures.push(error),
            }
        }
        self.look_for_volumes(&current, removed, &mut failures)?;
        Ok(failures)
    }

    /// After the containers: a volume that one has cannot be removed.
    fn look_for_volumes(
        &self,
        current: &Owner,
        removed: &mut BTreeSet<String>,
        failures: &mut Vec<Error>,
    ) -> Result<()> {
        for volume in self.engine.list_volumes(&labels_of_file(self.file).each_ref().map(String::as_str))? {
            let Some(owner) = Owner::from_labels(&volume.labels) else { continue };
            if (self.is_named)(&volume.name) || current.liveness_of(&owner) != Liveness::Dead {
                continue;
            }
            match self.engine.remove_volume(&volume.name) {
                Ok(()) => drop(removed.insert(volume.name)),
                // That of storage whose file was moved since.
                Err(error) if error.is_conflict() && self.is_whole => log::debug!("{error}"),
                Err(error) => failures.push(error),
            }
        }
        Ok(())
    }
}
