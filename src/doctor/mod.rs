//! Whether this machine can run and measure functions: its facts are gathered once, then judged without touching it.
//!
//! [`Facts::gather`] reads the machine and runs a probe for two seconds; [`Facts::findings`] is a pure function of what
//! was read. It works without an engine, without privileges, in a container, and on either version of control groups:
//! what is missing becomes a finding.

mod counters;
mod engine;
mod noise;
mod timer;

use serde::{Serialize, Serializer};

use crate::cancel::Cancel;
use crate::docker::Engine;
use crate::error::Result;
use crate::host::{Host, Noise};
use crate::local::MeterOptions;
use crate::progress::Progress;

pub use counters::{CounterFacts, Hierarchy};
pub use engine::{EngineFacts, Interpreter, Reached};
pub use timer::{Bucket, TimerTest};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// What was looked at.
    pub name: &'static str,
    /// What was found, in words.
    pub value: String,
    /// What that means for measurements.
    pub verdict: Verdict,
    /// What to do about it; absent where nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// What functions run in, and on.
    Engine,
    /// What memory is read from.
    Counters,
    /// What disturbs measurements.
    Noise,
    /// How well this machine keeps a schedule.
    Timer,
    /// Whether what is measured is true.
    GroundTruth,
}

/// What a finding means for measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Benchmarks run, and results are less exact, less complete or less repeatable than they could be.
    Warn,
    /// Benchmarks cannot run, or what they measure is wrong.
    Bad,
}

impl Finding {
    /// All is as it should be.
    pub fn ok(area: Area, name: &'static str, value: impl Into<String>) -> Finding {
        Finding { area, name, value: value.into(), verdict: Verdict::Ok, advice: None }
    }

    /// It could be better, by `advice`.
    pub fn warn(
        area: Area,
        name: &'static str,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding { area, name, value: value.into(), verdict: Verdict::Warn, advice: Some(advice.into()) }
    }

    /// It does not work; `advice` mends it.
    pub fn bad(
        area: Area,
        name: &'static str,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding { area, name, value: value.into(), verdict: Verdict::Bad, advice: Some(advice.into()) }
    }
}

/// All that was read of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// The engine, and what functions run on.
    pub engine: EngineFacts,
    /// The memory counters.
    pub counters: CounterFacts,
    /// What machine it is.
    pub host: Host,
    /// What disturbs measurements on it.
    pub noise: Noise,
    /// How it kept a schedule; or why that could not be tried.
    #[serde(serialize_with = "value_or_error")]
    pub timer: Result<TimerTest, String>,
}

impl Facts {
    /// Reads this machine, and samples for two seconds as `meter` says. `engine` is what connecting gave.
    ///
    /// # Errors
    /// `cancel` was triggered; nothing else ends it.
    pub fn gather(
        engine: &Result<Engine>,
        meter: &MeterOptions,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<Facts> {
        progress.step("reading", "this machine");
        let engine = EngineFacts::read(engine);
        let counters = CounterFacts::read();
        let (host, noise) = (Host::read(), Noise::read());
        cancel.check()?;
        progress.step("sampling", "a counter for two seconds");
        let timer = match TimerTest::run(meter, cancel) {
            Err(error) if error.is_cancelled() => return Err(error),
            outcome => outcome.map_err(|error| error.to_string()),
        };
        Ok(Facts { engine, counters, host, noise, timer })
    }

    /// Judges what was read.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.engine.findings();
        findings.extend(self.counters.findings());
        findings.extend(noise::findings(&self.host, &self.noise));
        match &self.timer {
            Ok(timer) => findings.extend(timer.findings()),
            Err(error) => findings.push(Finding::bad(
                Area::Timer,
                "lateness",
                error,
                "without a sampling thread memory cannot be measured: mend what the message names",
            )),
        }
        findings
    }
}

/// A program that reads JSON finds the value where it looks for it, or an object with `error` alone.
fn value_or_error<T: Serialize, S: Serializer>(
    outcome: &Result<T, String>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match outcome {
        Ok(value) => value.serialize(serializer),
        Err(error) => serializer.collect_map([("error", error)]),
    }
}
