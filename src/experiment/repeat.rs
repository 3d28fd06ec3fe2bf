//! Invokes one function a number of times, one after another, and saves the result after each.

use crate::clock;
use crate::error::Result;
use crate::faas::{ExecutionResult, Function, System};

use super::result::ExperimentResult;
use super::store::ResultStore;

/// What to do.
#[derive(Debug)]
pub struct Repetitions<'a> {
    /// The JSON object that each invocation is given.
    pub payload: &'a str,
    /// How many invocations come before those that are recorded.
    pub warmup: u32,
    /// How many invocations are recorded.
    pub count: u32,
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
    for _ in 0..repetitions.warmup {
        let invocation = system.invoke(function, repetitions.payload)?;
        if let Some(error) = &invocation.invocation.error {
            log::warn!("an invocation to warm up failed: {error}");
        }
    }
    for number in 1..=repetitions.count {
        let invocation = system.invoke(function, repetitions.payload);
        let Ok(invocation) = invocation else {
            return if number > 1 {
                store.save(result).and(invocation.map(drop))
            } else {
                invocation.map(drop)
            };
        };
        told(number, &invocation);
        result.add_invocation(&function.name, invocation, clock::epoch_seconds());
        store.save_when_cheap(result)?;
    }
    store.save(result)
}
