//! How functions are run, as it was typed: limits, environment, where they are invoked.

use sebs_lite::faas::FunctionConfig;
use sebs_lite::host::Host;
use sebs_lite::local::{AddressMode, LocalOptions, MeterOptions};
use sebs_lite::units::{self, Unit};
use sebs_lite::{Error, Result};

use super::settings::interval;

/// What was typed, as far as commands have it in common.
pub(crate) struct TypedOptions<'a> {
    pub(crate) function_name: Option<&'a str>,
    pub(crate) env: &'a [String],
    pub(crate) address: Option<&'a str>,
    pub(crate) port: Option<u16>,
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
    Ok(Some(MeterOptions { realtime, cpu, ..MeterOptions::new(interval) }))
}

fn assignment(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(Error::usage(format!("`{text}` is not an environment variable: write `NAME=VALUE`"))),
    }
}

/// A function's limits that were typed.
pub(crate) struct Limits {
    memory: Option<u64>,
    timeout: Option<u64>,
    /// `Some(None)`: typed as 0, which means none.
    cpus: Option<Option<f64>>,
}

impl Limits {
    pub(crate) fn check(memory: Option<u64>, timeout: Option<u64>, cpus: Option<f64>) -> Result<Limits> {
        // The engine's own bounds: 6 MB, and the kernel's shortest quota of 1 ms in 100 ms.
        const LEAST_MEMORY_MB: u64 = 6;
        const LEAST_CPUS: f64 = 0.01;
        const MOST_MEMORY_MB: u64 = 1 << 40;
        if let Some(memory) = memory
            && memory != 0
            && !(LEAST_MEMORY_MB..=MOST_MEMORY_MB).contains(&memory)
        {
            let least = LEAST_MEMORY_MB;
            return Err(Error::usage(format!(
                "--memory {memory} cannot be had: it must be at least {least} MB, or 0"
            )));
        }
        if let Some(cpus) = cpus {
            let most = Host::read().cores.map_or(f64::INFINITY, f64::from);
            if cpus != 0.0 && !(LEAST_CPUS..=most).contains(&cpus) {
                let range = format!("a number from {LEAST_CPUS} to {most}, or 0");
                return Err(Error::usage(format!("--cpus {cpus} cannot be had: it must be {range}")));
            }
        }
        let cpus = cpus.map(|cpus| (cpus != 0.0).then_some(cpus));
        Ok(Limits { memory, timeout, cpus })
    }

    pub(crate) fn over(&self, config: FunctionConfig) -> FunctionConfig {
        FunctionConfig {
            memory: self.memory.unwrap_or(config.memory),
            timeout: self.timeout.unwrap_or(config.timeout),
            cpus: self.cpus.unwrap_or(config.cpus),
            ..config
        }
    }
}
