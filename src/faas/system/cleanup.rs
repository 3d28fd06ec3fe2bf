//! Removes functions that are recorded in the cache, the same on every platform.

use serde::Serialize;

use crate::cache::RecordedFunction;
use crate::error::Result;

use super::System;
use crate::faas::function::Function;

/// What of a platform was removed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemovedResources {
    /// Functions.
    pub functions: Vec<String>,
    /// Buckets, with what was in them.
    pub buckets: Vec<String>,
    /// Tables, by their real names.
    pub tables: Vec<String>,
}

/// The names of all functions that are recorded.
pub(super) fn recorded_names(system: &(impl System + ?Sized)) -> Result<Vec<String>> {
    let recorded = system.cache().functions(system.name())?;
    Ok(recorded.into_iter().map(|function| function.name).collect())
}

/// Removes the functions that are wanted: what serves them, then their record. Goes on after a failure, and gives the
/// first in the end.
pub(super) fn delete_functions(
    system: &mut (impl System + ?Sized),
    is_wanted: impl Fn(&RecordedFunction) -> bool,
) -> Result<Vec<String>> {
    let (mut deleted, mut outcome) = (Vec::new(), Ok(()));
    let platform = system.name();
    for recorded in system.cache().functions(platform)?.into_iter().filter(is_wanted) {
        match delete(system, &recorded) {
            Ok(()) => deleted.push(recorded.name),
            Err(error) if error.is_cancelled() || error.is_disconnected() => return Err(error),
            Err(error) => {
                let error = error.context(format!("failed to delete function `{}`", recorded.name));
                match outcome {
                    Ok(()) => outcome = Err(error),
                    Err(_) => log::warn!("{error}"),
                }
            }
        }
    }
    outcome.map(|()| deleted)
}

/// Removes what serves a function, then its record.
pub(super) fn delete(system: &mut (impl System + ?Sized), recorded: &RecordedFunction) -> Result<()> {
    match Function::deserialize_record(recorded.record.clone()) {
        Ok(function) => system.delete_instances(&function)?,
        Err(error) => log::warn!("the record of function `{}` cannot be understood: {error}", recorded.name),
    }
    system.cache().forget_function(&recorded.key(system.name()), &recorded.record)
}
