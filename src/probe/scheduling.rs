//! What the sampling thread asks of the kernel's scheduler, what it was given, and what it had to do without.

use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::process::StatFields;

/// Above every thread without a real-time policy, and below what else a machine may run with one.
const REALTIME_PRIORITY: i32 = 10;

/// How the kernel treats the sampling thread: read back from the kernel, not what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// As in `sched(7)`: `SCHED_OTHER`, `SCHED_FIFO`, …; absent where it could not be read.
    pub policy: Option<String>,
    /// Real-time priority, 1 to 99; 0 without a real-time policy.
    pub priority: u32,
    /// Nice value, −20 to 19; without meaning under a real-time policy.
    pub nice: i32,
    /// How much later than asked the kernel may wake the thread so as to wake several at once, in ns; 0 under a
    /// real-time policy.
    pub timer_slack_ns: Option<u64>,
    /// The processors that the thread may run on.
    pub cpus: Vec<usize>,
    /// Are the pages of the process locked in memory? They stay so after the probe was stopped.
    pub memory_locked: bool,
}

/// Asks for precise wake-ups of the calling thread; gives what is in force then, and a sentence for each wish that
/// was not granted.
pub(super) fn arrange(realtime: bool, cpu: Option<usize>) -> (Scheduling, Vec<String>) {
    let mut warnings = Vec::new();
    if let Err(error) = prctl::set_timerslack(1) {
        warnings.push(format!("timer slack cannot be set, so ticks may be 50 µs late: {}", error.desc()));
    }
    if let Some(cpu) = cpu
        && let Err(error) = keep_on(cpu)
    {
        warnings.push(format!("the sampling thread cannot be kept on CPU {cpu}: {}", error.desc()));
    }
    let mut memory_locked = false;
    if realtime {
        if let Err(error) = set_fifo() {
            warnings.push(format!(
                "the sampling thread gets no real-time priority (run as root, or raise `ulimit -r`): {error}"
            ));
        }
        // Not MCL_FUTURE, under which an allocation of the embedding program could fail. MCL_ONFAULT: what was never
        // touched takes no memory.
        let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT as _);
        match mlockall(flags) {
            Ok(()) => memory_locked = true,
            Err(error) => warnings.push(format!(
                "memory cannot be locked (run as root, or raise `ulimit -l`): {}",
                error.desc()
            )),
        }
    }
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let (policy, priority, nice) = parse_stat(&stat).unwrap_or_default();
    let timer_slack_ns = prctl::get_timerslack().ok().and_then(|slack| u64::try_from(slack).ok());
    (Scheduling { policy, priority, nice, timer_slack_ns, cpus: cpus(), memory_locked }, warnings)
}

/// The processors that a sampling thread can be kept on; empty: it cannot be told.
///
/// Each is tried by a thread that ends with it: an isolated processor is not among those that a thread begins with, and
/// may be had all the same.
pub fn usable_cpus() -> Vec<usize> {
    let is_usable = |cpu: &usize| keep_on(*cpu).is_ok();
    let tried = std::thread::Builder::new()
        .name("cpus".to_string())
        .spawn(move || (0..CpuSet::count()).filter(is_usable).collect());
    tried.ok().and_then(|thread| thread.join().ok()).unwrap_or_default()
}

fn keep_on(cpu: usize) -> nix::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only))
}

#[expect(unsafe_code, reason = "nix has no sched_setscheduler")]
fn set_fifo() -> std::io::Result<()> {
    let parameter = libc::sched_param { sched_priority: REALTIME_PRIORITY };
    // SAFETY: the one pointer is to a live `sched_param`, which the call reads; 0 means the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameter) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or_default()).collect()
}

/// Policy, real-time priority and nice value in a line of `/proc/…/stat` (proc_pid_stat(5), fields 41, 40 and 19).
fn parse_stat(stat: &str) -> Option<(Option<String>, u32, i32)> {
    let fields = StatFields::of(stat)?;
    let policy = match fields.text(41)? {
        "0" => "SCHED_OTHER",
        "1" => "SCHED_FIFO",
        "2" => "SCHED_RR",
        "3" => "SCHED_BATCH",
        "5" => "SCHED_IDLE",
        "6" => "SCHED_DEADLINE",
        other => other,
    };
    Some((Some(policy.to_string()), fields.number(40)?, fields.number(19)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_understood() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 -51 -5 1 0 100 1 1 1 1 1 1 1 1 0 0 0 0 0 0 0 17 1 10 1 0";
        assert_eq!(parse_stat(line), Some((Some("SCHED_FIFO".to_string()), 10, -5)));
        assert_eq!(parse_stat("42 (short) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn what_a_thread_may_run_on_it_can_be_kept_on() {
        let (before, usable) = (cpus(), usable_cpus());
        assert!(before.iter().all(|cpu| usable.contains(cpu)), "{before:?} {usable:?}");
        assert_eq!(cpus(), before);
    }

    #[test]
    fn what_is_in_force_is_read_back() {
        let (scheduling, warnings) = std::thread::spawn(|| arrange(false, Some(1 << 20))).join().unwrap();
        assert_eq!(scheduling.timer_slack_ns, Some(1));
        assert!(scheduling.policy.is_some() && !scheduling.cpus.is_empty() && !scheduling.memory_locked);
        assert!(warnings[0].contains("CPU 1048576"), "{warnings:?}");
    }
}
