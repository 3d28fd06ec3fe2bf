//! How a caller is told what a long operation is doing.

use std::fmt;
use std::sync::Arc;

/// One thing that is going on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// What is being done: `building image sebs-lite:run.local.python.3.11`.
    pub task: &'a str,
    /// The part it is at, as the engine or installer says it; may be empty.
    pub detail: &'a str,
    /// How many of `total` are done.
    pub done: u64,
    /// How many there are, where that is known.
    pub total: Option<u64>,
}

/// Told each step, from any thread.
type Sink = dyn Fn(&Step<'_>) + Send + Sync;

/// A callback that is told each [`Step`]; without one, nothing is told.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Sink>>);

impl Progress {
    /// Tells nobody.
    pub fn quiet() -> Progress {
        Progress(None)
    }

    /// Calls `sink`, from any thread, for every step.
    pub fn to(sink: impl Fn(&Step<'_>) + Send + Sync + 'static) -> Progress {
        Progress(Some(Arc::new(sink)))
    }

    /// Tells of a task whose length is unknown.
    pub fn step(&self, task: &str, detail: &str) {
        self.tell(&Step { task, detail, done: 0, total: None });
    }

    /// Tells of a task that is at `done` of `total`.
    pub fn count(&self, task: &str, done: u64, total: u64) {
        self.tell(&Step { task, detail: "", done, total: Some(total) });
    }

    /// Tells `step`.
    pub fn tell(&self, step: &Step<'_>) {
        if let Some(sink) = &self.0 {
            sink(step);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(callback)" } else { "Progress(quiet)" })
    }
}
