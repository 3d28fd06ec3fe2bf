//! Asks the engine what it has seen happen to a container.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::Engine;
use super::call::QUICK;
use super::containers::named;
use crate::clock::{self, Instant};
use crate::error::{Context, Result};

/// How long the engine may take to hear of what has happened.
const GRACE: Duration = Duration::from_millis(300);

/// How long its answer may take where only a mark hangs on it.
const MARK_LIMIT: Duration = Duration::from_secs(5);

/// One of them, of which nothing else is of use.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "Action")]
    action: String,
}

impl Engine {
    /// The events `oom` and `kill` of a container within the last `span`: each of the first tells that processes of it were
    /// killed for want of memory, each of the second that somebody asked the engine for a signal.
    ///
    /// It forgets: it holds the last 256 events of all containers. Podman has none of the first.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub fn kill_events(&self, id: &str, span: Duration) -> Result<Vec<String>> {
        let now = clock::epoch_seconds();
        self.heard(id, &["oom", "kill"], (now - span.as_secs_f64(), now + GRACE.as_secs_f64()), QUICK)
    }

    /// Was a container paused at some time between two instants, by the clock of this machine, both of which have passed?
    /// The engine is not waited for.
    ///
    /// # Errors
    /// When the engine cannot be reached, or does not answer at once.
    pub(crate) fn was_paused(&self, id: &str, begin: Instant, end: Instant) -> Result<bool> {
        let now = (clock::epoch_seconds(), Instant::now());
        let epoch = |instant| now.0 - now.1.since(instant).as_secs_f64();
        // The engine tells of each before it answers whoever asked for it.
        let engine = self.with_patience(Duration::ZERO);
        let heard = engine.heard(id, &["pause", "unpause"], (epoch(begin), epoch(end)), MARK_LIMIT)?;
        Ok(!heard.is_empty())
    }

    /// Which of these events the engine has heard of a container between two times, in seconds since 1970. It answers once
    /// the second has passed, or fails once it has taken `limit`.
    fn heard(
        &self,
        id: &str,
        events: &[&str],
        (since, until): (f64, f64),
        limit: Duration,
    ) -> Result<Vec<String>> {
        let filters = json!({ "container": [id], "event": events });
        let ask = || {
            let call = self
                .get("/events")
                .query("since", &format!("{since:.6}"))
                .query("until", &format!("{until:.6}"))
                .query_json("filters", &filters)?;
            // One JSON object a line.
            let answer = call.within(limit).send()?.bytes()?;
            let lines = answer.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
            Ok(lines.filter_map(|line| Some(serde_json::from_slice::<Event>(line).ok()?.action)).collect())
        };
        let heard: Result<Vec<String>> = ask();
        heard.context(|| format!("failed to ask what has happened to {}", named(id)))
    }
}
