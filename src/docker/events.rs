//! Asks the engine what it has seen happen to a container.

use std::time::Duration;

use serde_json::json;

use super::Engine;
use super::containers::named;
use crate::clock;
use crate::error::{Context, Result};

/// How long the engine may take to hear of what has happened.
const GRACE: Duration = Duration::from_millis(300);

impl Engine {
    /// How often the engine has heard that processes of a container were killed for want of memory, within the last `span`.
    ///
    /// It forgets: it holds the last 256 events of all containers. Podman has none of these.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub fn oom_events(&self, id: &str, span: Duration) -> Result<usize> {
        let filters = json!({ "container": [id], "event": ["oom"] });
        let now = clock::epoch_seconds();
        let ask = || {
            let call = self
                .get("/events")
                .query("since", &format!("{:.6}", now - span.as_secs_f64()))
                .query("until", &format!("{:.6}", now + GRACE.as_secs_f64()))
                .query_json("filters", &filters)?;
            // One JSON object a line.
            let events = call.send()?.bytes()?;
            Ok(events.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")).count())
        };
        let heard: Result<usize> = ask();
        heard.context(|| format!("failed to ask what has happened to {}", named(id)))
    }
}
