//! What machine this is: what a result has to say of it, so that its numbers can be compared.

mod noise;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use noise::{CpuTime, Noise};

pub(crate) use noise::cpus_of_list;

/// The machine that measured, as far as it can be read; what could not be read is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Name of the machine.
    pub host: Option<String>,
    /// Release of the kernel: `6.1.0-18-amd64`.
    pub kernel: Option<String>,
    /// Name of the processor model.
    pub cpu_model: Option<String>,
    /// Processors online, counting hardware threads.
    pub cores: Option<u32>,
    /// Main memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Swap in bytes.
    pub swap_bytes: Option<u64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<String>,
    /// 1, or 2 where the memory controller is in the unified hierarchy.
    pub cgroup_version: Option<u32>,
    /// Processes running or waiting to run, averaged over the last minute, when this was read.
    pub load_1min: Option<f64>,
}

impl Host {
    /// Reads `/proc` and `/sys` of this machine.
    pub fn read() -> Host {
        let text = |path: &str| std::fs::read_to_string(path).ok();
        let meminfo = text("/proc/meminfo").unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo").unwrap_or_default();
        Host {
            host: text("/proc/sys/kernel/hostname").map(|name| name.trim().to_string()),
            kernel: text("/proc/sys/kernel/osrelease").map(|release| release.trim().to_string()),
            cpu_model: cpu_model(&cpuinfo),
            cores: Some(cpuinfo.lines().filter(|line| line.starts_with("processor")).count() as u32)
                .filter(|cores| *cores > 0),
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal"),
            swap_bytes: meminfo_bytes(&meminfo, "SwapTotal"),
            transparent_huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|choices| chosen(&choices)),
            cgroup_version: cgroup_version(),
            load_1min: text("/proc/loadavg")
                .and_then(|load| load.split_whitespace().next().and_then(|first| first.parse().ok())),
        }
    }
}

/// Is this Linux a guest of Windows (WSL2), where containers of Docker Desktop run in another guest?
pub(crate) fn is_wsl() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.to_ascii_lowercase().contains("microsoft")
}

fn cgroup_version() -> Option<u32> {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Some(2)
    } else if Path::new("/sys/fs/cgroup/memory").exists() {
        Some(1)
    } else {
        None
    }
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_string())
}

/// A line of `/proc/meminfo`, which counts in units of 1024 bytes that it calls kB.
fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// The choice in brackets: `always [madvise] never`.
fn chosen(choices: &str) -> Option<String> {
    Some(choices.split_once('[')?.1.split_once(']')?.0.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        let meminfo = "MemTotal:       24681234 kB\nMemFree: 1 kB\nSwapTotal:             0 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal"), Some(24_681_234 * 1024));
        assert_eq!(meminfo_bytes(meminfo, "SwapTotal"), Some(0));
        assert_eq!(meminfo_bytes(meminfo, "Mem"), None);
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(cpu_model("processor : 0\nmodel name\t: AMD EPYC\n").as_deref(), Some("AMD EPYC"));
    }

    #[test]
    fn this_machine_can_be_read() {
        let host = Host::read();
        assert!(host.kernel.is_some() && host.cores >= Some(1) && host.memory_bytes > Some(0));
    }
}
