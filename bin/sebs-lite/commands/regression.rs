//! `benchmark regression`: every benchmark in every language, run once and judged.

use std::path::{Path, PathBuf};

use sebs_lite::benchmark::{Benchmark, Listing};
use sebs_lite::docker::{Engine, Lifetime};
use sebs_lite::experiment::{Configuration, ExperimentResult};
use sebs_lite::faas::{Language, Platform, SystemResources, Validation};
use sebs_lite::local::{LocalOptions, PLATFORMS};
use sebs_lite::{Error, Result, report};

use crate::args::{self, BenchmarkCommand, Command, Invoke, Regression};
use crate::exit::Exit;

use super::Context;
use super::benchmark::{Measured, measure, verdict};
use super::input::check_size;
use super::resources::{Fate, StorageSettings, TypedStorage};

/// `benchmark regression`.
pub(crate) fn regression(context: &Context, args: &Regression) -> Result<Exit> {
    let size = args.size.as_deref().unwrap_or("test");
    check_size(size)?;
    let plan = plan(args)?;
    let configuration = args.config.as_deref().map(Configuration::read).transpose()?.unwrap_or_default();
    if let Some(name) = args.deployment.as_deref().or(configuration.deployment.name.as_deref()) {
        Platform::named(name, &PLATFORMS)?;
    }
    let cache = context.cache()?;
    let engine = Engine::connect(&context.cancel)?;
    let mut storage = storage(context, args, &configuration, &engine, &cache)?;
    let output_dir = args.output_dir.clone().unwrap_or_else(|| PathBuf::from("regression"));
    let mut runs: Vec<report::RegressionRun> = Vec::new();
    let mut outcome = Ok(());
    for (number, planned) in plan.iter().enumerate() {
        let name = format!("{} in {}", planned.benchmark, planned.language);
        context.line.callback().count(&format!("running {name}"), number as u64, plan.len() as u64);
        log::info!("{} of {}: {name}", number + 1, plan.len());
        match planned.run(context, args, size, &output_dir, &mut storage) {
            Ok(run) => runs.push(run),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    let released = storage.shutdown();
    show(context, size, &runs)?;
    outcome?;
    released?;
    let has_failed = runs.iter().any(|run| run.verdict == report::RegressionVerdict::Failed);
    Ok(if has_failed { Exit::Unsatisfied } else { Exit::Done })
}

fn storage(
    context: &Context,
    args: &Regression,
    configuration: &Configuration,
    engine: &Engine,
    cache: &sebs_lite::cache::Cache,
) -> Result<SystemResources> {
    let typed = TypedStorage {
        files: &args.storage_configuration,
        update_storage: args.update_storage,
        resource_prefix: args.resource_prefix.as_deref(),
    };
    let settings = StorageSettings::resolve(&context.common, typed, configuration)?;
    let mut options = LocalOptions { network: args.network.clone(), ..LocalOptions::default() };
    options.check_network(engine)?;
    let fate = Fate { lifetime: Lifetime::Run, is_kept: false, network: options.network };
    settings.resources(context, engine, cache, fate)
}

fn show(context: &Context, size: &str, runs: &[report::RegressionRun]) -> Result<()> {
    if context.common.json {
        return context.print_json(&serde_json::json!({ "size": size, "runs": runs }));
    }
    context.print(&report::regression(runs))
}

/// A benchmark in one of its languages.
struct Planned {
    benchmark: String,
    language: String,
    /// Why it is not even tried, be it that this program cannot run it or that it is at fault.
    refusal: Option<(report::RegressionVerdict, String)>,
}

/// What is to be run, in the order of the list of benchmarks.
fn plan(args: &Regression) -> Result<Vec<Planned>> {
    let language = args.language.as_deref().map(str::parse::<Language>).transpose()?;
    if args.language_version.is_some() && language.is_none() {
        return Err(Error::usage("--language-version is of one language: add --language"));
    }
    let listings = Benchmark::list(&args.benchmarks).map_err(super::missing_is_usage)?;
    for name in &args.benchmark_name {
        if !listings.iter().any(|listing| listing.name.contains(name.as_str())) {
            return Err(Error::usage(format!(
                "no benchmark has `{name}` in its name: `sebs-lite benchmark list` tells which there are"
            )));
        }
    }
    let is_wanted = |listing: &&Listing| {
        args.benchmark_name.is_empty()
            || args.benchmark_name.iter().any(|name| listing.name.contains(name.as_str()))
    };
    Ok(listings.iter().filter(is_wanted).flat_map(|listing| plan_one(listing, language)).collect())
}

fn plan_one(listing: &Listing, only: Option<Language>) -> Vec<Planned> {
    let planned = |language: &str, refusal| Planned {
        benchmark: listing.name.clone(),
        language: language.to_string(),
        refusal,
    };
    let config = match &listing.config {
        Ok(config) => config,
        Err(error) => {
            return vec![planned("-", Some((report::RegressionVerdict::Failed, error.to_string())))];
        }
    };
    let names = config.languages.iter().map(|support| support.name.as_str());
    let mut plan = Vec::new();
    for name in names {
        let is_known = name.parse::<Language>();
        if only.is_some_and(|only| is_known.as_ref().ok() != Some(&only)) {
            continue;
        }
        let refusal = is_known
            .is_err()
            .then(|| (report::RegressionVerdict::Skipped, format!("language `{name}` is not supported")));
        plan.push(planned(name, refusal));
    }
    plan
}

impl Planned {
    /// Runs it. That it fails is an outcome.
    ///
    /// # Errors
    /// No further one could be run: the engine has gone, or a signal came.
    fn run(
        &self,
        context: &Context,
        args: &Regression,
        size: &str,
        output_dir: &Path,
        storage: &mut SystemResources,
    ) -> Result<report::RegressionRun> {
        let mut run = report::RegressionRun {
            benchmark: self.benchmark.clone(),
            language: self.language.clone(),
            version: None,
            verdict: report::RegressionVerdict::Failed,
            reason: None,
            client_us: None,
            result: None,
        };
        if let Some((verdict, reason)) = &self.refusal {
            (run.verdict, run.reason) = (*verdict, Some(reason.clone()));
            return Ok(run);
        }
        let folder = output_dir.join(format!("{}-{}", self.benchmark, self.language));
        let measured = measure(context, &self.invoke(args, size, &folder)?, Some(storage));
        let error = match measured {
            Ok(Measured { result, path, outcome, closed }) => {
                run.result = path;
                judge(&mut run, &result);
                outcome.and(closed).err()
            }
            Err(error) => Some(error),
        };
        match error {
            None => {}
            Some(error) if error.is_cancelled() || error.is_disconnected() => return Err(error),
            Some(error) => {
                run.verdict = match error.is_unavailable() {
                    true => report::RegressionVerdict::Skipped,
                    false => report::RegressionVerdict::Failed,
                };
                run.reason = Some(error.to_string());
            }
        }
        Ok(run)
    }

    /// What would be typed to run this one alone.
    fn invoke(&self, args: &Regression, size: &str, folder: &Path) -> Result<Invoke> {
        let mut words = vec!["benchmark".to_string(), "invoke".to_string()];
        let mut add = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                words.push(format!("{flag}={value}"));
            }
        };
        let shown = |path: &PathBuf| path.display().to_string();
        add("--deployment", Some(PLATFORMS[0].name.to_string()));
        add("--language", Some(self.language.clone()));
        add("--language-version", args.language_version.clone());
        add("--output-dir", Some(folder.display().to_string()));
        add("--data", args.data.as_ref().map(shown));
        add("--config", args.config.as_ref().map(shown));
        add("--image-source", args.image_source.clone());
        add("--network", args.network.clone());
        add("--input-python", args.input_python.as_ref().map(shown));
        args.benchmarks.iter().for_each(|path| add("--benchmarks", Some(shown(path))));
        add("--update-code", Some(args.update_code.to_string()).filter(|_| args.update_code));
        words.extend(["--validate", &self.benchmark, size].map(str::to_string));
        match args::parse(&words) {
            Ok((_, args::TopLevel { command: Some(Command::Benchmark(benchmark)), .. })) => {
                match benchmark.command {
                    BenchmarkCommand::Invoke(invoke) => Ok(*invoke),
                    other => Err(Error::new(format!("{other:?} is no run of a benchmark"))),
                }
            }
            _ => Err(Error::usage(format!("`{}` cannot be run", words.join(" ")))),
        }
    }
}

/// Notes what a result says of its one invocation.
fn judge(run: &mut report::RegressionRun, result: &ExperimentResult) {
    run.version = Some(result.config.experiments.runtime.version.clone());
    let mut all = result.invocations.values().flat_map(|invocations| invocations.values());
    let Some(invocation) = all.next() else { return };
    run.client_us = Some(invocation.times.client);
    let validation = invocation.invocation.validation.as_ref();
    run.reason = match validation {
        Some(Validation::Invalid(reason)) => Some(reason.clone()),
        _ => invocation.invocation.error.clone(),
    };
    run.verdict = match verdict(result) {
        Exit::Done if validation == Some(&Validation::Valid) => report::RegressionVerdict::Passed,
        Exit::Done => report::RegressionVerdict::NotValidated,
        _ => report::RegressionVerdict::Failed,
    };
}
