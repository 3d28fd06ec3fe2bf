//! Runs `051.memory-staircase` in a container of its own, samples it, and has the two compared.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{
    BENCHMARK, Comparison, Staircase, Tolerance, compare, interpreter_allowance, readings, steps_of,
};
use crate::benchmark::{Benchmark, InputProcess, InputPython, InputRequest, NoStorage, Search};
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::cgroup;
use crate::clock::{self, Instant};
use crate::docker::Engine;
use crate::error::{Error, Result};
use crate::faas::{CodePackage, ExecutionResult, FunctionConfig, System};
use crate::local::{BuildChoices, Local, LocalOptions, MeterOptions, prepare};
use crate::probe::{Lateness, Recording, Scheduling};
use crate::progress::Progress;
use crate::runtime::RuntimeImage;
use crate::units::{Bytes, show_duration};

/// Each step of size `test` is held for 500 ms: fewer than five samples of it would tell little.
pub const LONGEST_INTERVAL: Duration = Duration::from_millis(100);

/// From the first invocation to the second, of which a sample is the base: as long as each step is held, so that a machine
/// too busy to sample the one is no more likely to miss the other.
const BETWEEN: Duration = Duration::from_millis(500);

/// How many are planned after the last step: its end shows in one of them.
const SAMPLES_AFTER: u32 = 3;

/// What to climb with.
#[derive(Debug)]
pub struct Climb<'a> {
    /// The engine that runs it.
    pub engine: &'a Engine,
    /// Where its code package is kept.
    pub cache: &'a Cache,
    /// Language and image to run it on.
    pub choices: &'a BuildChoices,
    /// How it is sampled, at an interval of at most [`LONGEST_INTERVAL`].
    pub meter: &'a MeterOptions,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// Told each step.
    pub progress: &'a Progress,
}

/// What two invocations gave.
struct Measured {
    /// When the first had ended, which gave back all that it held.
    free_since: Instant,
    /// The second.
    invoked: ExecutionResult,
    recording: Option<Recording>,
}

/// A staircase that was climbed, and how it was sampled.
#[derive(Clone, Debug, Serialize)]
pub struct Climbed {
    /// The steps, measured and true.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// The language that it ran on, with its version.
    pub runtime: String,
    /// The image that it ran on.
    pub image: String,
    /// From one tick to the next.
    pub interval_ns: u64,
    /// What the kernel charges in advance on all processors together.
    pub charge_batch_bytes: u64,
    /// What the interpreter's own memory was allowed to change by.
    pub interpreter_bytes: u64,
    /// Ticks that were planned.
    pub planned_ticks: u64,
    /// Ticks that passed without a sample.
    pub missed_ticks: u64,
    /// How late samples were; absent where there are none.
    pub lateness_ns: Option<Lateness>,
    /// How the kernel treated the sampling thread.
    pub scheduling: Scheduling,
}

impl Climb<'_> {
    /// Climbs the staircase of size `test` once: some 3 s, and longer where an image has to be made. What it ran in is
    /// removed again.
    ///
    /// # Errors
    /// There is no image for it, the engine fails, its memory cannot be sampled, or the function failed.
    pub fn run(&self) -> Result<Climbed> {
        if self.meter.interval > LONGEST_INTERVAL {
            return Err(Error::usage(format!(
                "an interval of {} is too long for steps that are held for 500 ms: it must be at most {}",
                show_duration(self.meter.interval),
                show_duration(LONGEST_INTERVAL)
            )));
        }
        let extract_to = self.cache.root().join("bundled");
        let search = Search { roots: &[], data: None, extract_to: &extract_to };
        let benchmark = Benchmark::find(BENCHMARK, &search)?;
        let payload = self.input(&benchmark)?;
        let prepared =
            prepare(&benchmark, self.choices, self.engine, self.cache, self.cancel, self.progress)?;
        let options = LocalOptions { measure: Some(self.meter.clone()), ..LocalOptions::default() };
        let mut local = Local::new(self.engine.clone(), self.cache.clone(), options, self.cancel)?;
        self.progress.step("climbing", BENCHMARK);
        let measured = self.invoke(&mut local, &prepared.package, &payload);
        let closed = local.shutdown();
        let measured = measured?;
        closed?;
        climbed(&measured, &prepared.image)
    }

    /// Invokes it twice: what the interpreter takes for the same work is then part of the base, and samples precede the
    /// steps that are compared.
    fn invoke(&self, local: &mut Local, package: &CodePackage, payload: &str) -> Result<Measured> {
        let name = format!("sebs-lite-doctor-{}", std::process::id());
        let mut function =
            local.get_function(package, Some(&name), &FunctionConfig::from_package(package))?;
        check(&local.invoke(&mut function, &hurried(payload)?)?)?;
        let free_since = Instant::now();
        clock::wait_until(free_since.after(BETWEEN), self.cancel)?;
        let invoked = local.invoke(&mut function, payload)?;
        check(&invoked)?;
        clock::wait_until(Instant::now().after(self.meter.interval * SAMPLES_AFTER), self.cancel)?;
        Ok(Measured { free_since, invoked, recording: local.finish_measurement()? })
    }

    fn input(&self, benchmark: &Benchmark) -> Result<String> {
        let request = InputRequest {
            benchmark,
            python: InputPython::Any,
            engine: Some(self.engine),
            verbose: false,
            cancel: self.cancel,
            progress: self.progress,
        };
        let mut process = InputProcess::start(&request)?
            .ok_or_else(|| Error::new(format!("benchmark `{BENCHMARK}` has no `input.py`")))?;
        let input = process.generate_input("test", None, &[], &[], &mut NoStorage)?.to_string();
        // It would sit beside what is measured.
        process.stop()?;
        Ok(input)
    }
}

/// The same steps, each given back at once.
fn hurried(payload: &str) -> Result<String> {
    let wrong = |_| Error::new(format!("the input of `{BENCHMARK}` is not a list of steps: {payload}"));
    let mut input: Value = serde_json::from_str(payload).map_err(wrong)?;
    for step in input["steps"].as_array_mut().into_iter().flatten() {
        step["hold_ms"] = 0.into();
    }
    Ok(input.to_string())
}

fn check(invoked: &ExecutionResult) -> Result<()> {
    match &invoked.invocation.error {
        Some(error) => Err(Error::new(format!("`{BENCHMARK}` failed: {error}"))),
        None => Ok(()),
    }
}

fn climbed(measured: &Measured, image: &RuntimeImage) -> Result<Climbed> {
    let Measured { free_since, invoked, recording } = measured;
    let recording = recording.as_ref().ok_or_else(|| Error::new(format!("`{BENCHMARK}` was not sampled")))?;
    let output =
        invoked.handler_output().ok_or_else(|| Error::new(format!("`{BENCHMARK}` returned nothing")))?;
    let staircase = Staircase { free_since: *free_since, steps: steps_of(output.get())? };
    let [target] = &recording.targets[..] else {
        return Err(Error::new(format!("{} instances were sampled instead of one", recording.targets.len())));
    };
    let header = &recording.header;
    let charge_batch_bytes = header.charge_batch_bytes.map_or_else(cgroup::charge_batch_bytes, Ok)?;
    let tolerance = Tolerance {
        interval: header.interval(),
        charge_batch: Bytes(charge_batch_bytes),
        interpreter: interpreter_allowance(image.language),
    };
    Ok(Climbed {
        comparison: compare(&staircase, &readings(recording, target.id)?, &tolerance),
        runtime: format!("{} {}", image.language, image.version),
        image: image.reference.clone(),
        interval_ns: header.interval_ns,
        charge_batch_bytes,
        interpreter_bytes: tolerance.interpreter.0,
        planned_ticks: target.planned(),
        missed_ticks: target.missed,
        lateness_ns: target.lateness,
        scheduling: header.scheduling.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hurried_staircase_has_the_same_steps_and_holds_none() {
        let payload = r#"{"steps":[{"bytes":16,"hold_ms":500},{"bytes":32,"hold_ms":500}]}"#;
        assert_eq!(hurried(payload).unwrap(), payload.replace("500", "0"));
        assert!(hurried("steps").unwrap_err().to_string().contains("not a list of steps"));
    }
}
