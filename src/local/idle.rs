//! Removes instances that nobody has used for a while, down to none.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Context, Result};

use super::pool::Pool;
use super::short;

/// The thread that does it; it ends with the platform.
#[derive(Debug)]
pub(super) struct IdleWatch {
    thread: JoinHandle<()>,
}

impl IdleWatch {
    /// Watches a pool from now on.
    ///
    /// # Errors
    /// No thread could be started.
    pub(super) fn start(pool: &Arc<Pool>, limit: Duration) -> Result<IdleWatch> {
        let pool = pool.clone();
        let thread = std::thread::Builder::new()
            .name("idle instances".to_string())
            .spawn(move || watch(&pool, limit))
            .context(|| "failed to start the thread that removes idle instances".to_string())?;
        Ok(IdleWatch { thread })
    }

    /// Waits until the thread has ended, which it does once the pool is closed.
    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            log::warn!("the thread that removes idle instances panicked");
        }
    }
}

fn watch(pool: &Pool, limit: Duration) {
    while let Some(expired) = pool.wait_for_idle(limit) {
        for live in &expired {
            log::info!(
                "instance {} of `{}` has been idle long enough: removing it",
                short(live.id()),
                live.function
            );
        }
        if let Err(error) = pool.retire_many(expired) {
            log::warn!("{error}");
        }
    }
}
