//! Every exit code of the program, in one place.

use std::process::ExitCode;

use sebs_lite::Error;

use crate::signals;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done: 0.
    Done,
    /// Failed: 1.
    Failed,
    /// Wrong usage or configuration: 2.
    Usage,
    /// Finished, but invocations failed, outputs are wrong, a deployment is not whole or measurements are off: 3.
    Unsatisfied,
    /// Interrupted by that signal, after clean-up: 128 and its number.
    Interrupted(u8),
}

impl Exit {
    /// The exit that an error leads to.
    pub(crate) fn of(error: &Error) -> Exit {
        match signals::received() {
            Some(signal) if error.is_cancelled() => Exit::Interrupted(signal),
            _ if error.is_usage() => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unsatisfied => 3,
            Exit::Interrupted(signal) => 128 + signal,
        })
    }
}
