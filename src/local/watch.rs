//! A thread that watches over a pool, and ends with it.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::error::{Context, Result};

use super::pool::Pool;

/// The thread.
#[derive(Debug)]
pub(super) struct Watch {
    /// What it looks after: `idle instances`.
    subject: &'static str,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Has a thread do `watch`, which has to end once the pool is closed; it is unparked then.
    ///
    /// # Errors
    /// No thread could be started.
    pub(super) fn start(
        pool: &Arc<Pool>,
        subject: &'static str,
        watch: impl FnOnce(&Pool) + Send + 'static,
    ) -> Result<Watch> {
        let pool = pool.clone();
        let thread = std::thread::Builder::new()
            .name(subject.to_string())
            .spawn(move || watch(&pool))
            .context(|| format!("failed to start the thread that looks after {subject}"))?;
        Ok(Watch { subject, thread })
    }

    /// Waits until it has ended, of a pool that is closed.
    pub(super) fn join(self) {
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            log::warn!("the thread that looks after {} panicked", self.subject);
        }
    }
}
