//! `doctor`: whether this machine can run benchmarks, and what makes measurements noisy on it.

use std::time::Duration;

use sebs_lite::docker::Engine;
use sebs_lite::doctor::{Area, Facts, Finding, Verdict};
use sebs_lite::experiment::staircase::{Climb, Climbed, LONGEST_INTERVAL};
use sebs_lite::local::{BuildChoices, MeterOptions, SourceChoice};
use sebs_lite::units::show_duration;
use sebs_lite::{Error, Result, report};

use crate::args::Doctor;
use crate::exit::Exit;

use super::Context;
use super::settings::{interval, sampling_cpu};

const DEFAULT_INTERVAL: Duration = Duration::from_millis(1);

/// `doctor`.
pub(crate) fn doctor(context: &Context, args: &Doctor) -> Result<Exit> {
    let meter = meter(args)?;
    let choices = choices(args)?;
    let engine = Engine::connect(&context.cancel);
    let facts = Facts::gather(&engine, &meter, &context.cancel, &context.line.callback())?;
    let mut findings = facts.findings();
    // Without an engine its finding says why there is no staircase.
    let climbed = match &engine {
        Ok(engine) if args.probe => climb(context, engine, &choices, &meter, &mut findings)?,
        _ => None,
    };
    if context.common.json {
        context.print_json(&serde_json::json!({
            "findings": findings, "facts": facts, "staircase": climbed,
        }))?;
    } else {
        show(context, &facts, &findings, climbed.as_ref())?;
    }
    let differs = climbed.is_some_and(|climbed| !climbed.comparison.agrees());
    Ok(match findings.iter().any(|finding| finding.verdict == Verdict::Bad) {
        true => Exit::Failed,
        false if differs => Exit::Unsatisfied,
        false => Exit::Done,
    })
}

fn meter(args: &Doctor) -> Result<MeterOptions> {
    let interval = match (&args.measure_interval, interval(args.measure_interval.as_deref())?) {
        (_, Some(interval)) => interval,
        (None, None) => DEFAULT_INTERVAL,
        (Some(_), None) => {
            return Err(Error::usage("`doctor` samples always: leave --measure-interval -1 out"));
        }
    };
    if args.probe && interval > LONGEST_INTERVAL {
        return Err(Error::usage(format!(
            "--measure-interval {} is too long for --probe, whose steps are short: it must be at most {}",
            show_duration(interval),
            show_duration(LONGEST_INTERVAL)
        )));
    }
    // The engine's one reading a second would show no step.
    let source = SourceChoice::Cgroup;
    Ok(MeterOptions {
        realtime: args.realtime,
        cpu: sampling_cpu(args.cpu)?,
        source,
        ..MeterOptions::new(interval)
    })
}

fn choices(args: &Doctor) -> Result<BuildChoices> {
    if args.image_source.is_some() && !args.probe {
        return Err(Error::usage("--image-source is for the staircase's image: add --probe"));
    }
    let image_choice = args.image_source.as_deref().map(str::parse).transpose()?.unwrap_or_default();
    Ok(BuildChoices { image_choice, ..BuildChoices::default() })
}

/// Climbs the staircase; that this cannot be done is a finding.
fn climb(
    context: &Context,
    engine: &Engine,
    choices: &BuildChoices,
    meter: &MeterOptions,
    findings: &mut Vec<Finding>,
) -> Result<Option<Climbed>> {
    let climbed = context.cache().and_then(|cache| {
        let progress = &context.line.callback();
        Climb { engine, cache: &cache, choices, meter, cancel: &context.cancel, progress }.run()
    });
    match climbed {
        Ok(climbed) => Ok(Some(climbed)),
        Err(error) if error.is_cancelled() || error.is_usage() => Err(error),
        Err(error) => {
            let advice = "mend what the message names: until then nothing shows that measurements are true";
            findings.push(Finding::bad(Area::GroundTruth, "staircase", error.to_string(), advice));
            Ok(None)
        }
    }
}

fn show(context: &Context, facts: &Facts, findings: &[Finding], climbed: Option<&Climbed>) -> Result<()> {
    context.print(&report::findings(findings))?;
    if let Ok(timer) = &facts.timer {
        context.print(&format!("\n{}", report::lateness(timer)))?;
    }
    if let Some(climbed) = climbed {
        context.print(&format!("\n{}", report::staircase(climbed)))?;
    }
    Ok(())
}
