//! What on this machine makes measurements noisy, as the kernel's files tell it.

use std::collections::BTreeMap;

use nix::time::{ClockId, clock_getres};
use serde::Serialize;

use super::meminfo_bytes;

/// Numbers of the capabilities that allow real-time scheduling and locked memory, as of capabilities(7).
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_NICE: u32 = 23;

/// What can disturb a measurement, beside what [`Host`](super::Host) tells; what could not be read is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Noise {
    /// What the kernel reads the time from: `tsc`, `kvm-clock`, `hpet`.
    pub clock_source: Option<String>,
    /// The smallest step of a timer on `CLOCK_MONOTONIC`; 1 where timers are of high resolution.
    pub timer_resolution_ns: Option<u64>,
    /// How many processors each frequency governor has; empty where none can be read, as in virtual machines.
    pub governors: BTreeMap<String, u32>,
    /// May processors run above their nominal frequency while it is cool?
    pub turbo: Option<bool>,
    /// Do some processors share a core?
    pub smt: Option<bool>,
    /// The processors that are online.
    pub cpus_online: Option<Vec<u32>>,
    /// The processors that the scheduler leaves alone; empty: none.
    pub cpus_isolated: Option<Vec<u32>>,
    /// The processors whose tick stops while one thread runs on them; empty: none.
    pub cpus_without_tick: Option<Vec<u32>>,
    /// Bytes of swap that are in use.
    pub swap_used_bytes: Option<u64>,
    /// Bytes that could be had without swapping.
    pub memory_available_bytes: Option<u64>,
    /// Is this machine a virtual one?
    pub is_virtual: Option<bool>,
    /// May this process ask for real-time scheduling?
    pub may_be_realtime: Option<bool>,
    /// May this process lock all its memory?
    pub may_lock_memory: Option<bool>,
}

impl Noise {
    /// Reads `/proc` and `/sys` of this machine.
    pub fn read() -> Noise {
        let resolution = clock_getres(ClockId::CLOCK_MONOTONIC).ok();
        let nanoseconds = |time: nix::sys::time::TimeSpec| {
            u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).ok()
        };
        Noise {
            timer_resolution_ns: resolution.and_then(nanoseconds),
            ..Noise::from_files(&|path| std::fs::read_to_string(path).ok())
        }
    }

    /// All that is in files; `read` gives the text of one, `None` if it cannot be read.
    fn from_files(read: &dyn Fn(&str) -> Option<String>) -> Noise {
        let word =
            |path: &str| read(path).map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
        let flag = |path: &str| word(path).map(|text| text == "1" || text == "Y");
        // A file that is there and names no processor is an empty one, or says `(null)`.
        let cpus = |path: &str| read(path).map(|list| cpus_of_list(&list).unwrap_or_default());
        let cpu_folder = "/sys/devices/system/cpu";
        let cpus_online = cpus(&format!("{cpu_folder}/online"));
        let mut governors = BTreeMap::new();
        for cpu in cpus_online.iter().flatten() {
            if let Some(governor) = word(&format!("{cpu_folder}/cpu{cpu}/cpufreq/scaling_governor")) {
                *governors.entry(governor).or_default() += 1;
            }
        }
        let meminfo = read("/proc/meminfo").unwrap_or_default();
        let swap = meminfo_bytes(&meminfo, "SwapTotal").zip(meminfo_bytes(&meminfo, "SwapFree"));
        let status = read("/proc/self/status").unwrap_or_default();
        let limits = read("/proc/self/limits").unwrap_or_default();
        let may = |capability, limit: Option<bool>| match has_capability(&status, capability) {
            Some(true) => Some(true),
            known => limit.or(known),
        };
        Noise {
            clock_source: word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            timer_resolution_ns: None,
            governors,
            turbo: flag(&format!("{cpu_folder}/intel_pstate/no_turbo"))
                .map(|is_off| !is_off)
                .or_else(|| flag(&format!("{cpu_folder}/cpufreq/boost"))),
            smt: flag(&format!("{cpu_folder}/smt/active")),
            cpus_online,
            cpus_isolated: cpus(&format!("{cpu_folder}/isolated")),
            cpus_without_tick: cpus(&format!("{cpu_folder}/nohz_full")),
            swap_used_bytes: swap.map(|(total, free)| total.saturating_sub(free)),
            memory_available_bytes: meminfo_bytes(&meminfo, "MemAvailable"),
            is_virtual: read("/proc/cpuinfo").map(|cpuinfo| has_hypervisor_flag(&cpuinfo)),
            may_be_realtime: may(
                CAP_SYS_NICE,
                soft_limit(&limits, "Max realtime priority").map(|most| most > 0),
            ),
            may_lock_memory: may(
                CAP_IPC_LOCK,
                // Some tens of MB hold the program; what it locks is what it has touched.
                soft_limit(&limits, "Max locked memory").map(|most| most >= 64 << 20),
            ),
        }
    }
}

/// Processor time since the machine started, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTime {
    total: u64,
    steal: u64,
}

impl CpuTime {
    /// That of all processors together, now; `None` where it cannot be read.
    pub fn read() -> Option<CpuTime> {
        CpuTime::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted
    /// in the first two already.
    fn parse(stat: &str) -> Option<CpuTime> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let times: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
        let told = times.get(..8)?;
        Some(CpuTime { total: told.iter().sum(), steal: told[7] })
    }

    /// How much of the time since `earlier` the hypervisor gave to others, in percent; `None` if no time passed.
    pub fn steal_percent_since(&self, earlier: &CpuTime) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|total| *total > 0)?;
        Some(self.steal.saturating_sub(earlier.steal) as f64 * 100.0 / total as f64)
    }
}

/// The numbers in a list of ranges: `0-3,7`, as in `/sys/devices/system/cpu/online`; `None` if it is none.
pub(crate) fn cpus_of_list(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

fn has_hypervisor_flag(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// The bit of the capability in the effective set that `/proc/self/status` shows.
fn has_capability(status: &str, capability: u32) -> Option<bool> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    Some(u64::from_str_radix(set.trim(), 16).ok()? >> capability & 1 == 1)
}

/// The soft limit of a line of `/proc/self/limits`; without a limit the largest number.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(files: &[(&str, &str)]) -> Noise {
        Noise::from_files(&|path| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.to_string())
        })
    }

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max locked memory         8388608              8388608              bytes     \n\
        Max realtime priority     0                    0                    \n\
        Max realtime timeout      unlimited            unlimited            us        \n";

    #[test]
    fn a_desktop_is_read() {
        let laptop = noise(&[
            ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
            ("/sys/devices/system/cpu/online", "0-2,4\n"),
            ("/sys/devices/system/cpu/isolated", "4\n"),
            ("/sys/devices/system/cpu/nohz_full", "  (null)\n"),
            ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
            ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
            ("/sys/devices/system/cpu/cpu4/cpufreq/scaling_governor", "performance\n"),
            ("/sys/devices/system/cpu/intel_pstate/no_turbo", "0\n"),
            ("/sys/devices/system/cpu/smt/active", "1\n"),
            ("/proc/meminfo", "MemAvailable: 2048 kB\nSwapTotal: 8 kB\nSwapFree:  5 kB\n"),
            ("/proc/cpuinfo", "processor : 0\nflags\t\t: fpu vme sse2\n"),
            ("/proc/self/limits", LIMITS),
            ("/proc/self/status", "Name:\tsebs-lite\nCapEff:\t0000000000000000\n"),
        ]);
        assert_eq!(laptop.clock_source.as_deref(), Some("hpet"));
        assert_eq!(laptop.governors, BTreeMap::from([("performance".into(), 1), ("powersave".into(), 2)]));
        assert_eq!((laptop.turbo, laptop.smt, laptop.is_virtual), (Some(true), Some(true), Some(false)));
        assert_eq!(laptop.cpus_online, Some(vec![0, 1, 2, 4]));
        assert_eq!((laptop.cpus_isolated, laptop.cpus_without_tick), (Some(vec![4]), Some(vec![])));
        assert_eq!(laptop.swap_used_bytes, Some(3072));
        assert_eq!(laptop.memory_available_bytes, Some(2 << 20));
        assert_eq!((laptop.may_be_realtime, laptop.may_lock_memory), (Some(false), Some(false)));
    }

    #[test]
    fn a_virtual_machine_has_less_and_root_may_more() {
        let guest = noise(&[
            ("/sys/devices/system/cpu/online", "0\n"),
            ("/sys/devices/system/cpu/isolated", "\n"),
            ("/sys/devices/system/cpu/cpufreq/boost", "0\n"),
            ("/proc/cpuinfo", "flags : fpu hypervisor\n"),
            ("/proc/self/limits", LIMITS),
            ("/proc/self/status", "CapEff:\t000001ffffffffff\n"),
        ]);
        assert_eq!((guest.turbo, guest.is_virtual, guest.smt), (Some(false), Some(true), None));
        assert_eq!((guest.cpus_isolated, guest.governors.len()), (Some(vec![]), 0));
        assert_eq!((guest.may_be_realtime, guest.may_lock_memory), (Some(true), Some(true)));
        let raised = LIMITS.replace("priority     0 ", "priority     unlimited ");
        let user = noise(&[("/proc/self/limits", &raised), ("/proc/self/status", "CapEff:\t0\n")]);
        assert_eq!((user.may_be_realtime, user.may_lock_memory), (Some(true), Some(false)));
        assert_eq!(noise(&[]), Noise::default());
    }

    #[test]
    fn steal_is_a_part_of_all_time() {
        let time = |text| CpuTime::parse(text).unwrap();
        let before = time("cpu  100 0 100 700 0 0 0 100 50 0\ncpu0 1 2 3\n");
        let after = time("cpu  150 0 120 800 0 0 0 130 50 0\n");
        assert_eq!(after.steal_percent_since(&before), Some(15.0));
        assert_eq!(before.steal_percent_since(&before), None);
        assert_eq!(CpuTime::parse("cpu0 1 2 3 4 5 6 7 8\n"), None);
        assert_eq!(CpuTime::parse("cpu  1 2 3\n"), None);
    }

    #[test]
    fn a_list_of_processors_is_spelt_out() {
        assert_eq!(cpus_of_list("0-1\n"), Some(vec![0, 1]));
        assert_eq!(cpus_of_list("0-3,8,10-11\n").map(|cpus| cpus.len()), Some(7));
        assert_eq!((cpus_of_list(""), cpus_of_list("3-1")), (None, None));
    }
}
