//! What to do about an engine that goes away while it is used: wait for it, within bounds that all who use it share.
//!
//! A restart of the engine takes seconds, more where containers do not want to end. A call that never reached it is made
//! once it answers again; one whose answer was lost only if it may be made twice ([`Engine::persist`]). Kept connections
//! are no sign of life: an engine that is about to end answers on them, when its socket is closed already.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Engine, transport};
use crate::error::{Error, Result};

/// How long an engine is waited for that went away: it gives each container ten seconds to end before it ends itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long clean-up waits for it once the caller has given up: a program that ends should not hang.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(10);

/// How often it is asked whether it is back.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How long one such question may take: a socket that systemd holds open is answered when the engine is up.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What an error says of an engine that was waited for in vain, and what to do.
const GIVEN_UP: &str = "the engine went away and did not come back";
const WHAT_TO_DO: &str = "start it, and run the command again";

/// How often a job is done that loses its engine each time.
const ATTEMPTS: usize = 4;

/// Whether an engine is there, as far as its clones have noticed.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// `None`: it answered last.
    away_since: Mutex<Option<Instant>>,
    absences: AtomicU64,
}

impl Presence {
    /// Since when it has been away; an absence that nobody had noticed begins here.
    fn away_since(&self) -> Instant {
        let mut away_since = self.away_since.lock().unwrap_or_else(PoisonError::into_inner);
        *away_since.get_or_insert_with(|| {
            self.absences.fetch_add(1, Ordering::Relaxed);
            Instant::now()
        })
    }

    /// Notes that it answers.
    pub(super) fn note_answer(&self) {
        self.away_since.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Engine {
    /// The same engine, which is waited for so long where it goes away: 60 s, unless this or the environment says
    /// otherwise.
    pub fn with_patience(&self, patience: Duration) -> Engine {
        Engine { patience, ..self.clone() }
    }

    /// How often the engine was noticed to have gone away: restarted, stopped or killed.
    pub(crate) fn absences(&self) -> u64 {
        self.presence.absences.load(Ordering::Relaxed)
    }

    /// Is nobody there to take a connection? Of a socket that systemd holds open that cannot be told.
    pub(super) fn is_away(&self) -> bool {
        UnixStream::connect(&*self.socket).is_err_and(|error| transport::is_nobody_there(&error))
    }

    /// Waits for the engine if it is away or about to end. `false`: it was neither.
    ///
    /// # Errors
    /// `is_disconnected`: it did not come back in time. The cancel token was triggered.
    pub(crate) fn settle(&self) -> Result<bool> {
        if !self.is_away() {
            return Ok(false);
        }
        self.wait_until_back(self.lost("nobody listens there")).map(|()| true)
    }

    /// Does what may be done twice, and does it again where the engine was lost on the way.
    ///
    /// # Errors
    /// The job's own; `is_disconnected` once the engine has been away for too long, or was lost again and again.
    pub(crate) fn persist<T>(&self, mut job: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 1..ATTEMPTS {
            match job() {
                Err(error) if error.is_disconnected() => self.wait_until_back(error)?,
                outcome => return outcome,
            }
        }
        job()
    }

    /// Waits until the engine answers on a connection of its own. `lost` is how its absence was noticed.
    pub(super) fn wait_until_back(&self, lost: Error) -> Result<()> {
        let absences = self.absences();
        let away_since = self.presence.away_since();
        let patience = self.patience_left();
        // Who noticed it tells of it, for all who wait.
        let is_first = absences != self.absences();
        let mut has_waited = false;
        loop {
            self.check_cancel()?;
            let left = patience().saturating_sub(away_since.elapsed());
            if left.is_zero() {
                // Whoever asks again and again is told once.
                return Err(match lost.to_string().contains(GIVEN_UP) {
                    true => lost,
                    false => {
                        let waited = patience().as_secs_f64();
                        lost.context(format!("{GIVEN_UP} within {waited} s ({WHAT_TO_DO})"))
                    }
                });
            }
            if self.answers_within(left.min(ANSWER_LIMIT))? {
                if is_first && has_waited {
                    let away = away_since.elapsed().as_secs_f64();
                    log::info!("the engine answers again, {away:.1} s after it went away");
                }
                return Ok(());
            }
            if is_first && !has_waited {
                log::warn!("{lost}: waiting up to {} s for it to come back", patience().as_secs_f64());
            }
            has_waited = true;
            std::thread::sleep(ASK_EVERY.min(left));
        }
    }

    /// How long an absence may last: shorter once the caller has given up, while this may wait.
    fn patience_left(&self) -> impl Fn() -> Duration {
        let (patience, given_up) = (self.patience, self.given_up.clone());
        move || match given_up.is_triggered() {
            true => patience.min(PATIENCE_AT_THE_END),
            false => patience,
        }
    }

    /// Does it answer on a connection of its own?
    fn answers_within(&self, limit: Duration) -> Result<bool> {
        match self.with_own_connections().ping_within(limit) {
            Ok(_) => Ok(true),
            Err(error) if error.is_cancelled() => Err(error),
            Err(_) => Ok(false),
        }
    }
}
