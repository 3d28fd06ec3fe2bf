//! Starts the storage again that functions need and that ended with the engine, before there are functions that ask it.

use std::sync::PoisonError;

use crate::error::Result;
use crate::storage;

use super::container::Starter;

impl Starter {
    /// Looks after the storage once for each time that the engine has gone away, which it had so often.
    ///
    /// # Errors
    /// It cannot be had again, or not where functions are told that it is.
    pub(super) fn restore_storage(&self, absences: u64) -> Result<()> {
        let mut seen = self.absences.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen != absences {
            let mut kinds = self.options.storage.kinds();
            kinds.try_for_each(|(_, config)| storage::restore(&self.engine, config, &self.cancel))?;
            *seen = absences;
        }
        Ok(())
    }
}
