//! Removes instances that nobody has used for a while, down to none.

use std::time::Duration;

use super::pool::Pool;
use super::short;

/// Removes instances that have been idle for `limit`, until the pool is closed.
pub(super) fn watch(pool: &Pool, limit: Duration) {
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
