//! How functions are run, as it was typed: limits, environment, where they are invoked.

use std::ops::RangeInclusive;
use std::time::Duration;

use sebs_lite::faas::FunctionConfig;
use sebs_lite::host::{Host, Noise};
use sebs_lite::local::{AddressMode, LocalOptions, MeterOptions};
use sebs_lite::units::{self, Unit};
use sebs_lite::{Error, Result, report};

use crate::args::Invoke;

use super::settings::{interval, sampling_cpu};

/// What was typed, as far as commands have it in common.
pub(crate) struct TypedOptions<'a> {
    pub(crate) function_name: Option<&'a str>,
    pub(crate) env: &'a [String],
    pub(crate) address: Option<&'a str>,
    pub(crate) port: Option<u16>,
    pub(crate) network: Option<&'a str>,
    pub(crate) start_timeout: Option<&'a str>,
    pub(crate) max_payload: Option<&'a str>,
    pub(crate) privileged: bool,
}

impl TypedOptions<'_> {
    /// Checks all that can be before anything is started.
    pub(crate) fn check(&self) -> Result<LocalOptions> {
        if self.function_name == Some("") {
            return Err(Error::usage("--function-name cannot be empty: leave it out to have the usual name"));
        }
        let mut options = LocalOptions {
            host_port: self.port,
            network: self.network.map(str::to_string),
            privileged: self.privileged,
            env: self.env.iter().map(|text| assignment(text)).collect::<Result<_>>()?,
            ..LocalOptions::default()
        };
        if let Some(address) = self.address {
            options.address = address.parse()?;
        }
        if let Some(timeout) = self.start_timeout {
            options.start_timeout = units::parse_duration(timeout, Unit::Seconds)?;
            if options.start_timeout.is_zero() {
                return Err(Error::usage("--start-timeout 0 leaves no time to start: write one such as 60s"));
            }
        }
        if options.host_port.is_some() && options.address == AddressMode::Bridge {
            return Err(Error::usage(
                "--port publishes the function, and --address bridge does not: leave one out",
            ));
        }
        if let Some(size) = self.max_payload {
            options.max_payload = units::parse_bytes(size)?;
        }
        Ok(options)
    }
}

/// The most instances at a time, and how long one may be idle.
pub(crate) fn pool_limits(args: &Invoke) -> Result<(u32, Option<Duration>)> {
    let deployments = args.deployments.unwrap_or(1);
    let most = args.instances.unwrap_or(args.concurrency.unwrap_or(1).max(deployments));
    if deployments > most {
        return Err(Error::usage(format!(
            "--deployments {deployments} starts more instances than --instances {most} allows"
        )));
    }
    if most > 1 && args.port.is_some() {
        return Err(Error::usage(
            "--port publishes one instance: leave it out, or add --instances 1 (and no --deployments)",
        ));
    }
    let Some(typed) = &args.idle_timeout else { return Ok((most, None)) };
    if args.keep {
        return Err(Error::usage(
            "--idle-timeout removes instances that nobody uses, and --keep leaves them: leave one out",
        ));
    }
    let idle_timeout = units::parse_duration(typed, Unit::Seconds)?;
    if idle_timeout.is_zero() {
        return Err(Error::usage("--idle-timeout 0 is no time: write one such as 30s, or --cold"));
    }
    Ok((most, Some(idle_timeout)))
}

/// How memory is sampled, without the file that it goes to; `None`: it is not.
pub(crate) fn measuring(
    typed_interval: Option<&str>,
    realtime: bool,
    cpu: Option<usize>,
) -> Result<Option<MeterOptions>> {
    let Some(interval) = interval(typed_interval)? else {
        if realtime || cpu.is_some() {
            return Err(Error::usage("--realtime and --cpu are for sampling: add --measure-interval"));
        }
        return Ok(None);
    };
    let cpu = sampling_cpu(cpu)?;
    Ok(Some(MeterOptions { realtime, cpu, ..MeterOptions::new(interval) }))
}

fn assignment(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(Error::usage(format!("`{text}` is not an environment variable: write `NAME=VALUE`"))),
    }
}

/// The ranges in a list of CPUs as the kernel writes it: numbers, and ranges of them.
fn cpu_ranges(text: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        // No machine has more, and a range may be gone through.
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(first.into()..=last.into())
    };
    text.split(',').map(range).collect()
}

/// Refuses a list of CPUs that is none, or has one that is not there; `online`: those that are, if that is known.
fn check_cpuset(list: &str, online: Option<&[u32]>) -> Result<()> {
    let ranges = cpu_ranges(list).ok_or_else(|| {
        Error::usage(format!("--cpuset {list} is not a list of CPUs: write one such as 0-1,3"))
    })?;
    let Some(online) = online.filter(|online| !online.is_empty()) else { return Ok(()) };
    match ranges.into_iter().flatten().find(|cpu| !online.contains(cpu)) {
        None => Ok(()),
        Some(missing) => {
            let there: Vec<usize> = online.iter().map(|cpu| *cpu as usize).collect();
            let there = report::cpu_list(&there);
            Err(Error::usage(format!(
                "--cpuset {list} cannot be had: there is no CPU {missing}, it must be of {there}"
            )))
        }
    }
}

/// A function's limits that were typed.
pub(crate) struct Limits {
    memory: Option<u64>,
    timeout: Option<u64>,
    /// `Some(None)`: typed as 0, which means none.
    cpus: Option<Option<f64>>,
    cpuset: Option<String>,
}

impl Limits {
    pub(crate) fn check(
        memory: Option<u64>,
        timeout: Option<u64>,
        cpus: Option<f64>,
        cpuset: Option<&str>,
    ) -> Result<Limits> {
        // The engine's own bounds: 6 MB, and the kernel's shortest quota of 1 ms in 100 ms.
        const LEAST_MEMORY_MB: u64 = 6;
        const LEAST_CPUS: f64 = 0.01;
        const MOST_MEMORY_MB: u64 = 1 << 40;
        if let Some(memory) = memory
            && memory != 0
            && !(LEAST_MEMORY_MB..=MOST_MEMORY_MB).contains(&memory)
        {
            let range = format!("at least {LEAST_MEMORY_MB} MB and at most {MOST_MEMORY_MB} MB, or 0");
            return Err(Error::usage(format!("--memory {memory} cannot be had: it must be {range}")));
        }
        if let Some(cpus) = cpus {
            let most = Host::read().cores.map_or(f64::INFINITY, f64::from);
            if cpus != 0.0 && !(LEAST_CPUS..=most).contains(&cpus) {
                let range = format!("a number from {LEAST_CPUS} to {most}, or 0");
                return Err(Error::usage(format!("--cpus {cpus} cannot be had: it must be {range}")));
            }
        }
        if let Some(list) = cpuset {
            check_cpuset(list, Noise::read().cpus_online.as_deref())?;
        }
        let cpus = cpus.map(|cpus| (cpus != 0.0).then_some(cpus));
        Ok(Limits { memory, timeout, cpus, cpuset: cpuset.map(str::to_string) })
    }

    pub(crate) fn over(&self, config: FunctionConfig) -> FunctionConfig {
        FunctionConfig {
            memory: self.memory.unwrap_or(config.memory),
            timeout: self.timeout.unwrap_or(config.timeout),
            cpus: self.cpus.unwrap_or(config.cpus),
            cpuset: self.cpuset.clone().or(config.cpuset),
            ..config
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_has_numbers_and_ranges_of_cpus_that_are_there() {
        for list in ["0", "0-1", "0,2-3,7"] {
            check_cpuset(list, None).unwrap();
            check_cpuset(list, Some(&[0, 1, 2, 3, 7])).unwrap();
        }
        for list in ["", "a", "1-0", "0,", "0-1-2", "0 1", "0-99999"] {
            let error = check_cpuset(list, Some(&[0, 1])).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("0-1,3"), "{error}");
        }
        for (list, missing) in [("0-7", "CPU 2,"), ("3", "CPU 3,"), ("0,4-65535", "CPU 4,")] {
            let error = check_cpuset(list, Some(&[0, 1])).unwrap_err();
            let text = error.to_string();
            assert!(error.is_usage() && text.contains(missing) && text.ends_with("of 0-1"), "{text}");
        }
    }
}
