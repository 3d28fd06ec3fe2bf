//! What every command has to do its work with.

pub(crate) mod benchmark;
pub(crate) mod cleanup;
pub(crate) mod docker;
pub(crate) mod doctor;
mod input;
pub(crate) mod local;
pub(crate) mod measure;
mod options;
pub(crate) mod profile;
pub(crate) mod regression;
mod resources;
mod settings;
pub(crate) mod storage;

use std::io::{BufWriter, StdoutLock, Write};
use std::path::PathBuf;

use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::{Error, Result};

use crate::args::Common;
use crate::exit::Exit;
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

    /// Lets `write` write much data to standard output, piece by piece, until its reader has seen enough or a signal came.
    pub(crate) fn stream(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        self.line.clear();
        let stdout = Stdout { stdout: std::io::stdout().lock(), cancel: &self.cancel, is_closed: false };
        let mut out = BufWriter::with_capacity(1 << 16, stdout);
        let written = write(&mut out).and_then(|()| {
            out.flush().map_err(|error| Error::new(format!("failed to write to standard output: {error}")))
        });
        // Not dropped as it is, which would write what is left once more.
        let (stdout, _) = out.into_parts();
        if stdout.is_closed {
            return Ok(());
        }
        self.cancel.check()?;
        written
    }

    /// Writes a value to standard output as JSON.
    pub(crate) fn print_json(&self, value: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Error::new(error.to_string()))?;
        self.print(&(text + "\n"))
    }
}

/// What was typed and is not there is the user's to mend.
fn missing_is_usage(error: Error) -> Error {
    if error.is_not_found() { Error::usage(error.to_string()) } else { error }
}

/// The end of a command that went on after failures: all of them, if there are any.
fn end_with(mut failures: Vec<Error>) -> Result<Exit> {
    match failures.len() {
        0 => Ok(Exit::Done),
        1 => Err(failures.remove(0)),
        _ => {
            let reasons: Vec<String> = failures.iter().map(Error::to_string).collect();
            Err(Error::new(reasons.join("; ")))
        }
    }
}

/// Standard output that remembers whether its reader has gone, and takes no more once a signal came.
struct Stdout<'a> {
    stdout: StdoutLock<'a>,
    cancel: &'a Cancel,
    is_closed: bool,
}

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.cancel.check().map_err(std::io::Error::other)?;
        let written = self.stdout.write(bytes);
        self.notice(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.stdout.flush();
        self.notice(flushed)
    }
}

impl Stdout<'_> {
    fn notice<T>(&mut self, outcome: std::io::Result<T>) -> std::io::Result<T> {
        self.is_closed |= outcome.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        outcome
    }
}
