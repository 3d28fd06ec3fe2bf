//! What the machine's noise means for measurements, as a pure judgement.

use super::{Area, Finding};
use crate::host::{Host, Noise};
use crate::units::Bytes;

/// Clocks that are read by a trap or over a slow bus.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

/// So many processes for each processor leave none idle at times.
const BUSY_LOAD_PER_CPU: f64 = 0.5;

/// With less, the kernel takes pages from functions and their page cache.
const LITTLE_MEMORY: Bytes = Bytes(1 << 30);

/// What could not be read.
const UNREADABLE: &str = "cannot be read here";

pub(super) fn findings(host: &Host, noise: &Noise) -> Vec<Finding> {
    let kernel = host.kernel.as_deref().unwrap_or(UNREADABLE);
    vec![
        Finding::ok(Area::Noise, "kernel", kernel),
        machine(noise),
        clock(noise),
        timers(noise),
        cpus(noise),
        load(host, noise),
        governors(noise),
        turbo(noise),
        smt(noise),
        memory(noise),
        swap(host, noise),
        huge_pages(host),
        realtime(noise),
    ]
}

fn judged(name: &'static str, value: impl Into<String>, is_fine: bool, advice: &str) -> Finding {
    match is_fine {
        true => Finding::ok(Area::Noise, name, value),
        false => Finding::warn(Area::Noise, name, value, advice),
    }
}

fn machine(noise: &Noise) -> Finding {
    let advice = "look at stolen time, and repeat runs: what else its host does shows in durations";
    match noise.is_virtual {
        Some(is_virtual) => {
            judged("machine", if is_virtual { "virtual" } else { "physical" }, !is_virtual, advice)
        }
        None => Finding::ok(Area::Noise, "machine", UNREADABLE),
    }
}

fn clock(noise: &Noise) -> Finding {
    let name = noise.clock_source.as_deref().unwrap_or(UNREADABLE);
    let advice =
        "boot with `tsc=reliable` if the processor's counter is stable: each reading of this clock is slow";
    judged("clock source", name, !SLOW_CLOCKS.contains(&name), advice)
}

fn timers(noise: &Noise) -> Finding {
    let advice = "boot without `highres=off` and `nohz=off`: timers fire at the kernel's tick alone";
    match noise.timer_resolution_ns {
        Some(1) => Finding::ok(Area::Noise, "timers", "of high resolution (1 ns)"),
        Some(ns) => judged("timers", format!("of a resolution of {ns} ns"), false, advice),
        None => Finding::ok(Area::Noise, "timers", UNREADABLE),
    }
}

fn cpus(noise: &Noise) -> Finding {
    let Some(online) = &noise.cpus_online else { return Finding::ok(Area::Noise, "CPUs", UNREADABLE) };
    let list = |cpus: &Option<Vec<u32>>| match cpus {
        Some(cpus) if !cpus.is_empty() => cpus.iter().map(u32::to_string).collect::<Vec<String>>().join(","),
        _ => "none".to_string(),
    };
    let value = format!(
        "{} online; isolated: {}; without tick: {}",
        online.len(),
        list(&noise.cpus_isolated),
        list(&noise.cpus_without_tick)
    );
    judged(
        "CPUs",
        value,
        online.len() > 1,
        "use a machine with two or more: the sampling takes time from functions",
    )
}

fn load(host: &Host, noise: &Noise) -> Finding {
    let (Some(load), Some(cpus)) = (host.load_1min, &noise.cpus_online) else {
        return Finding::ok(Area::Noise, "load", UNREADABLE);
    };
    let most = BUSY_LOAD_PER_CPU * cpus.len() as f64;
    let value = format!("{load:.2} over the last minute, on {} CPUs", cpus.len());
    let advice =
        format!("stop what else runs: at more than {most:.1} functions wait for a processor at times");
    judged("load", value, load <= most, &advice)
}

fn governors(noise: &Noise) -> Finding {
    if noise.governors.is_empty() {
        let value = format!("{UNREADABLE} (as in most virtual machines)");
        return Finding::ok(Area::Noise, "frequency governor", value);
    }
    let counts: Vec<String> =
        noise.governors.iter().map(|(governor, cpus)| format!("{governor} on {cpus} CPUs")).collect();
    let is_fine = noise.governors.keys().all(|governor| governor == "performance");
    let advice =
        "set it to `performance` (`cpupower frequency-set -g performance`): speed depends on what ran before";
    judged("frequency governor", counts.join(", "), is_fine, advice)
}

fn turbo(noise: &Noise) -> Finding {
    let advice =
        "turn it off for results that can be compared: speed depends on temperature and on other cores";
    match noise.turbo {
        Some(is_on) => judged("turbo", if is_on { "on" } else { "off" }, !is_on, advice),
        None => Finding::ok(Area::Noise, "turbo", UNREADABLE),
    }
}

fn smt(noise: &Noise) -> Finding {
    let advice =
        "turn it off (`echo off > /sys/devices/system/cpu/smt/control`): two threads share each core";
    match noise.smt {
        Some(is_on) => judged("SMT", if is_on { "on" } else { "off" }, !is_on, advice),
        None => Finding::ok(Area::Noise, "SMT", UNREADABLE),
    }
}

fn memory(noise: &Noise) -> Finding {
    let Some(available) = noise.memory_available_bytes.map(Bytes) else {
        return Finding::ok(Area::Noise, "memory", UNREADABLE);
    };
    let advice = format!("free some: with less than {LITTLE_MEMORY} the kernel reclaims pages of functions");
    judged("memory", format!("{available} available"), available >= LITTLE_MEMORY, &advice)
}

fn swap(host: &Host, noise: &Noise) -> Finding {
    let (Some(total), Some(used)) = (host.swap_bytes, noise.swap_used_bytes) else {
        return Finding::ok(Area::Noise, "swap", UNREADABLE);
    };
    if total == 0 {
        return Finding::ok(Area::Noise, "swap", "none");
    }
    let value = format!("{} of {} used", Bytes(used), Bytes(total));
    judged(
        "swap",
        value,
        used == 0,
        "turn it off (`swapoff -a`): what is swapped out is slow, and not counted as memory",
    )
}

fn huge_pages(host: &Host) -> Finding {
    let choice = host.transparent_huge_pages.as_deref().unwrap_or(UNREADABLE);
    let advice = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: 1 MiB may be charged as 2";
    judged("huge pages", choice, choice != "always", advice)
}

fn realtime(noise: &Noise) -> Finding {
    let (Some(scheduling), Some(locking)) = (noise.may_be_realtime, noise.may_lock_memory) else {
        return Finding::ok(Area::Noise, "--realtime", UNREADABLE);
    };
    let value = match (scheduling, locking) {
        (true, true) => "permitted",
        (true, false) => "scheduling is permitted, locked memory is not",
        (false, true) => "locked memory is permitted, scheduling is not",
        (false, false) => "not permitted",
    };
    let advice = "run as root, or raise `ulimit -r` to 10 and `ulimit -l` to unlimited, if ticks are to \
                  be met under load";
    judged("--realtime", value, scheduling && locking, advice)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn quiet() -> Noise {
        Noise {
            clock_source: Some("tsc".to_string()),
            timer_resolution_ns: Some(1),
            governors: [("performance".to_string(), 4)].into(),
            turbo: Some(false),
            smt: Some(false),
            cpus_online: Some(vec![0, 1, 2, 3]),
            cpus_isolated: Some(vec![3]),
            cpus_without_tick: Some(vec![]),
            swap_used_bytes: Some(0),
            memory_available_bytes: Some(8 << 30),
            is_virtual: Some(false),
            may_be_realtime: Some(true),
            may_lock_memory: Some(true),
        }
    }

    fn host() -> Host {
        Host {
            swap_bytes: Some(0),
            transparent_huge_pages: Some("madvise".to_string()),
            load_1min: Some(0.3),
            ..Host::default()
        }
    }

    fn warned(host: &Host, noise: &Noise) -> Vec<&'static str> {
        let findings = findings(host, noise);
        findings.iter().filter(|finding| finding.verdict != Verdict::Ok).map(|finding| finding.name).collect()
    }

    #[test]
    fn a_quiet_machine_and_one_that_tells_nothing_give_no_warning() {
        assert_eq!(warned(&host(), &quiet()), [""; 0]);
        assert_eq!(warned(&Host::default(), &Noise::default()), [""; 0]);
        let unread = findings(&Host::default(), &Noise::default());
        assert!(unread.iter().all(|finding| finding.value.contains(UNREADABLE)), "{unread:?}");
    }

    #[test]
    fn each_noise_is_warned_of_with_what_to_do() {
        let noisy = Noise {
            clock_source: Some("acpi_pm".to_string()),
            timer_resolution_ns: Some(4_000_000),
            governors: [("performance".to_string(), 3), ("powersave".to_string(), 1)].into(),
            turbo: Some(true),
            smt: Some(true),
            cpus_online: Some(vec![0]),
            swap_used_bytes: Some(1),
            memory_available_bytes: Some(1 << 20),
            is_virtual: Some(true),
            may_be_realtime: Some(false),
            ..quiet()
        };
        let busy = Host {
            swap_bytes: Some(4096),
            transparent_huge_pages: Some("always".to_string()),
            load_1min: Some(0.6),
            ..Host::default()
        };
        let names = warned(&busy, &noisy);
        let expected = [
            "machine",
            "clock source",
            "timers",
            "CPUs",
            "load",
            "frequency governor",
            "turbo",
            "SMT",
            "memory",
            "swap",
            "huge pages",
            "--realtime",
        ];
        assert_eq!(names, expected);
        let all = findings(&busy, &noisy);
        assert!(all.iter().all(|finding| finding.advice.is_some() == (finding.verdict == Verdict::Warn)));
    }

    #[test]
    fn swap_that_nobody_uses_does_not_matter() {
        let unused = Host { swap_bytes: Some(1 << 30), ..host() };
        assert_eq!(warned(&unused, &quiet()), [""; 0]);
        assert_eq!(swap(&unused, &quiet()).value, "0 B of 1.07 GB used");
    }
}
