//! What every command has to do its work with.

pub(crate) mod benchmark;
mod settings;

use std::io::Write;
use std::path::PathBuf;

use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::{Error, Result};

use crate::args::Common;
use crate::progress::ProgressLine;

/// The version, and which commit where it was built from a checkout.
pub(crate) const VERSION: &str = env!("SEBS_LITE_VERSION");

/// What was typed for all commands, the line for progress, and the token that signals trigger.
pub(crate) struct Context {
    pub(crate) common: Common,
    pub(crate) line: ProgressLine,
    pub(crate) cancel: Cancel,
}

impl Context {
    /// The cache that the command line, the environment or custom names.
    pub(crate) fn cache(&self) -> Result<Cache> {
        let from_environment =
            || std::env::var_os("SEBS_LITE_CACHE").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let root =
            self.common.cache.clone().or_else(from_environment).unwrap_or_else(|| PathBuf::from("cache"));
        Cache::open(&root, &self.cancel)
    }

    /// Writes data to standard output. A reader that has seen enough closes the pipe: no failure of ours.
    pub(crate) fn print(&self, text: &str) -> Result<()> {
        self.line.clear();
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::new(format!("failed to write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Writes a value to standard output as JSON.
    pub(crate) fn print_json(&self, value: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Error::new(error.to_string()))?;
        self.print(&(text + "\n"))
    }
}
