//! A token by which one thread, or a signal handler, asks long operations of others to give up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Kind, Result};

/// Shared by all that work on one job; once triggered it stays so.
///
/// Long operations look at it every 100 ms at the latest and end with an error for which
/// [`Error::is_cancelled`](crate::Error::is_cancelled) holds. Clean-up does not look at it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A token that nobody has triggered.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// The token that `flag` is: for a signal handler, which may only set an atomic.
    pub fn from_flag(flag: Arc<AtomicBool>) -> Cancel {
        Cancel(flag)
    }

    /// Asks everybody who holds this token to give up.
    pub fn trigger(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Has the token been triggered?
    pub fn is_triggered(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Says whether to go on.
    ///
    /// # Errors
    /// One for which `is_cancelled` holds, once the token has been triggered.
    pub fn check(&self) -> Result<()> {
        if self.is_triggered() { Err(Error::with_kind(Kind::Cancelled, "interrupted")) } else { Ok(()) }
    }
}
