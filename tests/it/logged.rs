//! What the library logs on one thread, kept for a test to look at.

use std::cell::RefCell;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    /// What this thread has logged, if it is to be kept.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct ThreadLogger;

impl Log for ThreadLogger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        LINES.with_borrow(Option::is_some)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // What is logged may ask, while it is formatted, whether something is.
        let line = format!("{}: {}", record.target(), record.args());
        LINES.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.push(line.clone())));
    }

    fn flush(&self) {}
}

/// The lines, each with its target, that are logged at any level while `work` runs, on this thread. A program has one
/// logger, so all tests share this one.
pub(crate) fn logged_by(work: impl FnOnce()) -> Vec<String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&ThreadLogger).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
    LINES.set(Some(Vec::new()));
    work();
    LINES.take().unwrap()
}
