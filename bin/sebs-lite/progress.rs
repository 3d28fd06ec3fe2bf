//! Shows what a long step is doing, on one line of the terminal that each step overwrites.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sebs_lite::progress::{Progress, Step};

/// How often a count is shown at most: writing to a terminal between invocations is time that they do not need.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// The line; it is shown only where standard error is a terminal and nobody asked for quiet.
#[derive(Clone, Default)]
pub(crate) struct ProgressLine(Option<Arc<Mutex<State>>>);

#[derive(Default)]
struct State {
    /// How many characters are on the line.
    shown: usize,
    last_count: Option<Instant>,
}

impl ProgressLine {
    /// The line on standard error, if it is to be shown.
    pub(crate) fn new(is_quiet: bool) -> ProgressLine {
        let is_shown = !is_quiet && std::io::stderr().is_terminal();
        ProgressLine(is_shown.then(Arc::default))
    }

    /// The callback that long operations of the library tell.
    pub(crate) fn callback(&self) -> Progress {
        match &self.0 {
            None => Progress::quiet(),
            Some(_) => {
                let line = self.clone();
                Progress::to(move |step| {
                    if line.is_due(step) {
                        line.show(&text(step));
                    }
                })
            }
        }
    }

    /// Wipes the line, before anything else is written.
    pub(crate) fn clear(&self) {
        self.show("");
    }

    fn is_due(&self, step: &Step<'_>) -> bool {
        let Some(mut state) = self.state().filter(|_| step.total.is_some()) else { return true };
        let is_due = state.last_count.is_none_or(|last| last.elapsed() >= COUNT_EVERY);
        if is_due {
            state.last_count = Some(Instant::now());
        }
        is_due
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        self.0.as_ref().map(|state| state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn show(&self, text: &str) {
        let Some(mut state) = self.state() else { return };
        let width = terminal_width().saturating_sub(1);
        let text: String = text.chars().filter(|c| !c.is_control()).take(width).collect();
        let shown = text.chars().count();
        if shown == 0 && state.shown == 0 {
            return;
        }
        let blank = " ".repeat(state.shown.saturating_sub(shown));
        let mut stderr = std::io::stderr().lock();
        // A terminal that is gone costs no result.
        let _ = write!(stderr, "\r{text}{blank}\r").and_then(|()| stderr.flush());
        state.shown = shown;
    }
}

fn text(step: &Step<'_>) -> String {
    let count = step.total.map(|total| format!(" {}/{total}", step.done)).unwrap_or_default();
    let detail = if step.detail.is_empty() { String::new() } else { format!(": {}", step.detail) };
    format!("{}{count}{detail}", step.task)
}

fn terminal_width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(80)
}
