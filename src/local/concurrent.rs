//! Invokes a function many times, several at a time, and hands over the results as they come.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::error::{Error, Result};
use crate::faas::{ExecutionResult, Load};

use super::pool::Pool;

/// Invokes `function` as `load` says; the results go to `sink` on the calling thread, in the order in which they came.
///
/// With the first error, of an invocation that could not be made or of `sink`, no further one is begun; those under way
/// are waited for, and `sink` still gets them.
///
/// # Errors
/// That first one.
pub(super) fn invoke_many(
    pool: &Pool,
    function: &str,
    load: &Load<'_>,
    sink: &mut dyn FnMut(ExecutionResult) -> Result<()>,
) -> Result<()> {
    let threads = load.concurrency.clamp(1, load.count.max(1)) as usize;
    if threads == 1 {
        // Without a second thread there is nobody to switch to between two invocations.
        return (0..load.count).try_for_each(|_| sink(pool.invoke(function, load.payload, load.start)?));
    }
    let left = &Mutex::new(load.count);
    let (sender, receiver) = sync_channel(threads);
    std::thread::scope(|scope| {
        let mut outcome = Ok(());
        for number in 0..threads {
            let sender = sender.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("invoker {number}"))
                .spawn_scoped(scope, move || work(pool, function, load, left, &sender));
            if let Err(error) = spawned {
                outcome = Err(Error::new(format!("failed to start a thread for invocations: {error}")));
                stop(left);
                break;
            }
        }
        drop(sender);
        for result in receiver {
            let taken = match result {
                Ok(result) => sink(result),
                Err(error) => Err(error),
            };
            if taken.is_err() {
                stop(left);
                outcome = outcome.and(taken);
            }
        }
        outcome
    })
}

/// One thread's part: it invokes as long as there is something left to do.
fn work(
    pool: &Pool,
    function: &str,
    load: &Load<'_>,
    left: &Mutex<u32>,
    sender: &SyncSender<Result<ExecutionResult>>,
) {
    while take_one(left) {
        let result = pool.invoke(function, load.payload, load.start);
        // Nobody listens any more only where the receiving thread panicked.
        if sender.send(result).is_err() {
            return;
        }
    }
}

fn take_one(left: &Mutex<u32>) -> bool {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    let has_some = *left > 0;
    *left = left.saturating_sub(1);
    has_some
}

fn stop(left: &Mutex<u32>) {
    *left.lock().unwrap_or_else(PoisonError::into_inner) = 0;
}
