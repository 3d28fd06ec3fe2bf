//! The one error of this crate: a sentence that names what failed, on which path, URL or container, and why.

use std::fmt;

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, and the chain of causes.
///
/// `Display` shows the whole chain on one line, outermost first, joined by `: `. A caller that wants to branch asks
/// [`Error::is_not_found`] and its like; there is nothing else to match on.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    /// Is something that this machine has not the reason?
    is_unavailable: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing a caller could branch on.
    Other,
    /// The caller's words or configuration are at fault.
    Usage,
    /// The named thing is not there.
    NotFound,
    /// The named thing is there already, or busy.
    Conflict,
    /// A deadline passed.
    Timeout,
    /// The caller's cancel token was triggered.
    Cancelled,
    /// A registry wants other credentials.
    Denied,
    /// No engine could be reached, or it dropped the connection.
    Disconnected,
}

impl Error {
    /// An error with a message of its own and nothing to branch on.
    pub fn new(message: impl Into<String>) -> Error {
        Error::with_kind(Kind::Other, message)
    }

    /// An error in what the user typed or configured: the program ends with exit code 2.
    pub fn usage(message: impl Into<String>) -> Error {
        Error::with_kind(Kind::Usage, message)
    }

    pub(crate) fn with_kind(kind: Kind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner { kind, message: message.into(), is_unavailable: false, source: None }))
    }

    pub(crate) fn from_source(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let source = Some(source.into());
        Error(Box::new(Inner { kind, message: message.into(), is_unavailable: false, source }))
    }

    /// The same error inside a larger story: `failed to start x: <this error>`. It stays what it was for `is_…`.
    pub fn context(self, message: impl Into<String>) -> Error {
        let Inner { kind, is_unavailable, .. } = *self.0;
        Error(Box::new(Inner { kind, message: message.into(), is_unavailable, source: Some(Box::new(self)) }))
    }

    /// The same error, of which [`Error::is_unavailable`] holds.
    pub(crate) fn unavailable(mut self) -> Error {
        self.0.is_unavailable = true;
        self
    }

    /// Is the reason that this machine has not what is needed, an image or a program, so that on another it may go well?
    pub fn is_unavailable(&self) -> bool {
        self.0.is_unavailable
    }

    /// Is the named thing (file, container, image, benchmark) not there?
    pub fn is_not_found(&self) -> bool {
        self.0.kind == Kind::NotFound
    }

    /// Is the named thing there already, or busy?
    pub fn is_conflict(&self) -> bool {
        self.0.kind == Kind::Conflict
    }

    /// Did a deadline pass?
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout
    }

    /// Does a registry want credentials, or others than it was given?
    pub fn is_denied(&self) -> bool {
        self.0.kind == Kind::Denied
    }

    /// Was the operation given up because its [`Cancel`](crate::cancel::Cancel) token was triggered?
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == Kind::Cancelled
    }

    /// Is the user's input or configuration at fault, so that trying again unchanged is pointless?
    pub fn is_usage(&self) -> bool {
        self.0.kind == Kind::Usage
    }

    /// Could the engine not be reached, or did the connection break?
    pub fn is_disconnected(&self) -> bool {
        self.0.kind == Kind::Disconnected
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.0.kind)
    }
}

// `Display` already shows the chain, so `source` is not offered: a reporter that walks it would say all twice.
impl std::error::Error for Error {}

/// Attaches a story to the error of a `Result`.
pub(crate) trait Context<T> {
    /// Wraps the error in `message`, which is only made when there is one.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.context(message()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => Kind::NotFound,
                std::io::ErrorKind::AlreadyExists => Kind::Conflict,
                std::io::ErrorKind::TimedOut => Kind::Timeout,
                _ => Kind::Other,
            };
            Error::from_source(kind, message(), error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_chain_is_shown_and_the_kind_survives_context() {
        let missing: std::io::Result<()> = Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        let error = missing.context(|| "failed to read `a/b`".to_string()).unwrap_err();
        let error = error.context("failed to load benchmark `x`");
        assert_eq!(error.to_string(), "failed to load benchmark `x`: failed to read `a/b`: entity not found");
        assert!(error.is_not_found());
        assert!(!error.is_timeout() && !error.is_unavailable());
        let lacking = Error::usage("there is no ffmpeg").unavailable().context("failed to build");
        assert!(lacking.is_unavailable() && lacking.is_usage());
    }
}
