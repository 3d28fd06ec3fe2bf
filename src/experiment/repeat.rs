//! Invokes one function a number of times, some at a time, and saves the result as they end.

use crate::clock;
use crate::error::Result;
use crate::faas::{ExecutionResult, Function, Load, StartKind, System};

use super::result::ExperimentResult;
use super::store::ResultStore;

/// What to do.
#[derive(Clone, Debug)]
pub struct Repetitions<'a> {
    /// The JSON object that each invocation is given.
    pub payload: &'a str,
    /// How many invocations come before those that are recorded.
    pub warmup: u32,
    /// How many invocations are recorded.
    pub count: u32,
    /// How many are under way at a time.
    pub concurrency: u32,
    /// What each needs of its instance.
    pub start: StartKind,
}

/// Invokes `function`; `told` hears of each recorded invocation. A failed invocation is recorded and the next one made.
///
/// # Errors
/// The run could not go on; what it had measured is in `result`, and saved.
pub fn repeat(
    system: &mut dyn System,
    function: &mut Function,
    repetitions: &Repetitions<'_>,
    result: &mut ExperimentResult,
    store: &mut ResultStore,
    told: &mut dyn FnMut(u32, &ExecutionResult),
) -> Result<()> {
    let load = |count| Load {
        payload: repetitions.payload,
        count,
        concurrency: repetitions.concurrency,
        start: repetitions.start,
    };
    system.invoke_many(function, &load(repetitions.warmup), &mut |invocation| {
        if let Some(error) = &invocation.invocation.error {
            log::warn!("an invocation to warm up failed: {error}");
        }
        Ok(())
    })?;
    let name = function.name.clone();
    let mut number = 0;
    let outcome = system.invoke_many(function, &load(repetitions.count), &mut |invocation| {
        number += 1;
        told(number, &invocation);
        result.add_invocation(&name, invocation, clock::epoch_seconds());
        store.save_when_cheap(result)
    });
    if number > 0 { store.save(result).and(outcome) } else { outcome }
}
