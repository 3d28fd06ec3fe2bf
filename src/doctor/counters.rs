//! The memory counters: can they be read here, and does the kernel keep a peak that can be counted anew.

use std::path::PathBuf;

use serde::Serialize;

use super::{Area, Finding};
use crate::cgroup::{self, Memory, Reading, Version};
use crate::error::Result;
use crate::units::Bytes;

/// The first Linux on which `memory.peak` of v2 can be reset.
const RESETTABLE_SINCE: (u32, u32) = (6, 12);

/// What was read of the memory counters.
#[derive(Clone, Debug, Serialize)]
pub struct CounterFacts {
    /// The directory that counts for this very process; or why none is found.
    #[serde(serialize_with = "super::value_or_error")]
    pub own: Result<PathBuf, String>,
    /// How control groups are arranged; absent where `/proc` does not tell.
    pub hierarchy: Option<Hierarchy>,
    /// The kernel's peak of this very process; or why there is none.
    #[serde(serialize_with = "super::value_or_error")]
    pub peak: Result<u64, String>,
    /// Does this process run as root, who owns the counters of containers?
    pub is_root: bool,
    /// Release of the kernel.
    pub kernel: String,
    /// What the kernel charges in advance on all processors together.
    pub charge_batch_bytes: Option<u64>,
}

/// How control groups are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hierarchy {
    /// A hierarchy for each controller.
    V1,
    /// One unified hierarchy.
    V2,
    /// The unified one is there too, and memory is not in it.
    Hybrid,
}

/// The counters of the control group that this process is in.
pub(super) fn own_memory() -> Result<Memory> {
    Memory::of_process(i32::try_from(std::process::id()).unwrap_or(0), None)
}

impl CounterFacts {
    pub(super) fn read() -> CounterFacts {
        let memory = own_memory().map_err(|error| error.to_string());
        let peak = match &memory {
            Ok(memory) => peak_of(memory).map_err(|error| error.to_string()).and_then(|peak| peak),
            Err(error) => Err(error.clone()),
        };
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        CounterFacts {
            own: memory.map(|memory| memory.location().memory.clone()),
            hierarchy: hierarchy(&text("/proc/self/cgroup")),
            peak,
            is_root: nix::unistd::geteuid().is_root(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_string(),
            charge_batch_bytes: cgroup::charge_batch_bytes().ok(),
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let area = Area::Counters;
        let arranged = match self.hierarchy {
            Some(Hierarchy::V1) => "cgroup v1",
            Some(Hierarchy::V2) => "cgroup v2",
            Some(Hierarchy::Hybrid) => "cgroup v1 for memory, v2 beside it (hybrid)",
            None => "no control group is told",
        };
        let mut findings = vec![match &self.own {
            Ok(path) => Finding::ok(area, "memory", format!("{arranged}, read in `{}`", path.display())),
            Err(error) => Finding::warn(
                area,
                "memory",
                format!("{arranged}; that of this process cannot be read: {error}"),
                "see with --probe whether a container's can: else samples come from the engine, once a second",
            ),
        }];
        findings.push(self.peak());
        if let Some(bytes) = self.charge_batch_bytes {
            let value = format!("readings are up to {} above what is used", Bytes(bytes));
            findings.push(Finding::ok(area, "charged ahead", value));
        }
        findings
    }

    fn peak(&self) -> Finding {
        let area = Area::Counters;
        let name = "kernel's peak";
        if let Err(reason) = &self.peak {
            let advice = "use Linux 5.19 or later: a spike between two samples is not seen";
            return Finding::warn(area, name, format!("absent: {reason}"), advice);
        }
        let is_v2 = self.hierarchy == Some(Hierarchy::V2);
        if is_v2 && release(&self.kernel).is_none_or(|release| release < RESETTABLE_SINCE) {
            let advice =
                "use Linux 6.12 or later: a spike lower than an earlier one is not seen between two samples";
            return Finding::warn(area, name, "there, counted since the container's start", advice);
        }
        if !self.is_root {
            let advice = "run as root, who may have it counted anew for each invocation";
            return Finding::warn(area, name, "there, counted since the container's start", advice);
        }
        Finding::ok(area, name, "there, counted anew for each invocation")
    }
}

fn peak_of(memory: &Memory) -> Result<Result<u64, String>> {
    Ok(match memory.peak()? {
        Reading::Value(counter) => {
            counter.value().ok_or_else(|| counter.reason().unwrap_or_default().to_string())
        }
        Reading::Gone => Err("the control group was removed".to_string()),
    })
}

/// From the text of `/proc/self/cgroup`.
fn hierarchy(cgroups: &str) -> Option<Hierarchy> {
    let is_unified_there = cgroups.lines().any(|line| line.starts_with("0::"));
    match cgroup::locate::group_of(cgroups, "memory", None).ok()?.version {
        Version::V2 => Some(Hierarchy::V2),
        Version::V1 if is_unified_there => Some(Hierarchy::Hybrid),
        Version::V1 => Some(Hierarchy::V1),
    }
}

/// Major and minor number of a kernel's release.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn facts() -> CounterFacts {
        CounterFacts {
            own: Ok("/sys/fs/cgroup/user.slice".into()),
            hierarchy: Some(Hierarchy::V2),
            peak: Ok(1),
            is_root: true,
            kernel: "6.12.1-amd64".to_string(),
            charge_batch_bytes: Some(524_288),
        }
    }

    #[test]
    fn a_peak_is_reset_by_root_and_on_v2_by_newer_kernels_alone() {
        let value = |facts: CounterFacts| facts.peak();
        assert_eq!(value(facts()).verdict, Verdict::Ok);
        let older = CounterFacts { kernel: "6.1.0-18-amd64".to_string(), ..facts() };
        assert!(value(older.clone()).advice.unwrap().contains("6.12"));
        assert_eq!(value(CounterFacts { hierarchy: Some(Hierarchy::Hybrid), ..older }).verdict, Verdict::Ok);
        let user = value(CounterFacts { is_root: false, ..facts() });
        assert!(user.verdict == Verdict::Warn && user.advice.unwrap().contains("root"));
        let none = CounterFacts { peak: Err("the kernel is older than 5.19".to_string()), ..facts() };
        assert!(value(none).value.contains("older than 5.19"));
    }

    #[test]
    fn a_counter_that_cannot_be_read_is_a_warning() {
        let blind = CounterFacts { own: Err("no such hierarchy".to_string()), hierarchy: None, ..facts() };
        let memory = &blind.findings()[0];
        assert!(memory.verdict == Verdict::Warn && memory.value.contains("no such hierarchy"), "{memory:?}");
        assert!(facts().findings().iter().all(|finding| finding.verdict == Verdict::Ok));
    }

    #[test]
    fn the_arrangement_is_told_from_the_kernels_text() {
        assert_eq!(hierarchy("0::/user.slice\n"), Some(Hierarchy::V2));
        assert_eq!(hierarchy("4:memory:/a\n1:cpu:/\n"), Some(Hierarchy::V1));
        assert_eq!(hierarchy("4:memory:/a\n0::/\n"), Some(Hierarchy::Hybrid));
        assert_eq!(hierarchy(""), None);
    }

    #[test]
    fn a_release_is_read_up_to_its_second_number() {
        assert_eq!(release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(release("5.4"), Some((5, 4)));
        assert_eq!((release(""), release("linux")), (None, None));
    }
}
