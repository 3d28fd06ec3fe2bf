//! Looks after invocations that wait long for an answer: ends those that cannot get one, and marks those that were paused.
//!
//! A thread of its own asks the engine, so that an answer that comes meanwhile is seen when it comes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock::Instant;

use super::death::{Place, Standing, standing};
use super::instance::LiveInstance;
use super::pool::Pool;
use super::short;

/// The longest time from one look at who waits to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The invocations that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<Vec<Arc<Wait>>>);

/// One of them, known to whoever waits and to the thread that looks after it.
#[derive(Debug)]
pub(super) struct Wait {
    /// Id of the container that is to answer.
    id: String,
    /// Where it was asked.
    address: SocketAddr,
    /// When its container was started.
    started_at: String,
    begin: Instant,
    /// Triggered once no answer will come.
    pub(super) lost: Cancel,
    seen: Mutex<Seen>,
}

/// What was seen of a container while its answer was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    looks: u32,
    pub(super) was_paused: bool,
    /// Why no answer will come, where that is no end of its processes.
    pub(super) loss: Option<&'static str>,
}

impl Waits {
    /// Has an invocation looked after from now on, until [`Waits::end`].
    pub(super) fn begin(&self, live: &LiveInstance) -> Arc<Wait> {
        let wait = Arc::new(Wait {
            id: live.id().to_string(),
            address: live.trigger.address(),
            started_at: live.started_at.clone(),
            begin: Instant::now(),
            lost: Cancel::new(),
            seen: Mutex::default(),
        });
        self.lock().push(wait.clone());
        wait
    }

    /// Ends that, and says what was seen.
    pub(super) fn end(&self, wait: &Arc<Wait>) -> Seen {
        self.lock().retain(|other| !Arc::ptr_eq(other, wait));
        *wait.seen()
    }

    /// Does it wait still?
    fn has(&self, wait: &Arc<Wait>) -> bool {
        self.lock().iter().any(|other| Arc::ptr_eq(other, wait))
    }

    /// Those that have waited for `patience` since they were looked at.
    fn due(&self, patience: Duration) -> Vec<Arc<Wait>> {
        let now = Instant::now();
        let is_due = |wait: &&Arc<Wait>| {
            now.since(wait.begin) >= patience.saturating_mul(wait.seen().looks.saturating_add(1))
        };
        self.lock().iter().filter(is_due).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Wait>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the engine whether an answer can come.
    fn look(&self, pool: &Pool) {
        let place = Place { id: &self.id, address: self.address, started_at: &self.started_at };
        let standing = standing(&pool.starter.engine, place);
        let mut seen = self.seen();
        seen.looks += 1;
        match standing {
            Ok(Standing::Able) => {}
            Ok(Standing::Paused) => {
                if !std::mem::replace(&mut seen.was_paused, true) {
                    log::warn!(
                        "instance {} is paused: its invocation waits until somebody unpauses it, or its time is up",
                        short(&self.id)
                    );
                }
            }
            Ok(Standing::Ended) => self.lost.trigger(),
            Ok(Standing::Lost(why)) => {
                seen.loss = Some(why);
                self.lost.trigger();
            }
            // An engine that is being restarted: nothing is known of the container.
            Err(error) => log::debug!("instance {}: {error}", short(&self.id)),
        }
    }
}

/// Looks at each invocation that has waited for `patience`, and again each time as much has passed, until the pool is
/// closed.
pub(super) fn watch(pool: &Pool, patience: Duration) {
    let pause = (patience / 2).clamp(Duration::from_millis(10), LOOK_EVERY);
    while !pool.is_closed() {
        std::thread::park_timeout(pause);
        for wait in pool.waits.due(patience) {
            // An engine that hangs takes its time for each look, and meanwhile a wait may end, or all of them.
            if pool.is_closed() {
                return;
            }
            if pool.waits.has(&wait) {
                wait.look(pool);
            }
        }
    }
}
