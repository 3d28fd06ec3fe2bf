//! Tests of the reader on control groups that are folders with files.

use super::*;
use crate::files::TempFolder;

/// What Debian 12 (6.1, v2) shows of a container, shortened.
const V2: &[(&str, &str)] = &[
    ("memory.current", "73400320\n"),
    ("memory.peak", "81788928\n"),
    (
        "memory.stat",
        "anon 67108864\nfile 4096\nkernel 2097152\nkernel_stack 65536\nslab 1048576\nshmem 0\nfile_mapped 0\n\
         anon_thp 2097152\ninactive_anon 67108864\nactive_anon 0\ninactive_file 4000\nactive_file 96\n",
    ),
    ("memory.events", "low 0\nhigh 1\nmax 24\noom 3\noom_kill 2\noom_group_kill 0\n"),
    ("memory.swap.current", "8192\n"),
    (
        "cpu.stat",
        "usage_usec 1234567\nuser_usec 1\nsystem_usec 2\nnr_periods 5\nnr_throttled 3\nthrottled_usec 99\n",
    ),
];

/// What Linux 5.10 shows on v1, shortened.
const V1: &[(&str, &str)] = &[
    ("memory.usage_in_bytes", "73400320\n"),
    ("memory.max_usage_in_bytes", "81788928\n"),
    (
        "memory.stat",
        "cache 1\nrss 2\ninactive_file 3\nswap 4\nhierarchical_memory_limit 9223372036854771712\n\
         total_cache 4096\ntotal_rss 67108864\ntotal_rss_huge 0\ntotal_swap 8192\ntotal_inactive_file 4000\n",
    ),
    ("memory.kmem.usage_in_bytes", "2097152\n"),
    ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ("memory.failcnt", "20\n"),
    ("memory.memsw.failcnt", "4\n"),
    ("cpuacct.usage", "1234567890\n"),
    ("cpu.stat", "nr_periods 5\nnr_throttled 3\nthrottled_time 99999\n"),
];

fn folder(files: &[(&str, &str)]) -> TempFolder {
    let folder = TempFolder::create().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn open(folder: &TempFolder, version: Version, subject: Subject) -> Result<Memory> {
    let directory = folder.path().to_path_buf();
    Memory::open(Location {
        group: "/docker/x".to_string(),
        version,
        subject,
        memory: directory.clone(),
        cpu_usage: Ok((version, directory.clone())),
        cpu_quota: Ok((version, directory)),
    })
}

fn value(value: u64) -> Counter {
    Counter::Value(value)
}

#[test]
fn both_versions_tell_the_same_in_other_words() {
    for (version, files) in [(Version::V2, V2), (Version::V1, V1)] {
        let folder = folder(files);
        let memory = open(&folder, version, Subject::Container).unwrap();
        assert_eq!(memory.current().unwrap(), 73_400_320);
        assert_eq!(memory.peak().unwrap(), Reading::Value(value(81_788_928)));
        let stat = Stat {
            anon_bytes: value(67_108_864),
            file_bytes: value(4096),
            inactive_file_bytes: value(4000),
            kernel_bytes: value(2_097_152),
            swap_bytes: value(8192),
        };
        assert_eq!(memory.stat().unwrap(), Reading::Value(stat));
        let events = memory.events().unwrap().value().unwrap();
        assert_eq!((events.oom_kill, events.max), (value(2), value(24)));
        assert_eq!(memory.oom_kills().unwrap().value(), Some(value(2)));
        assert_eq!(events.oom.value(), (version == Version::V2).then_some(3));
        assert_eq!(events.high.value(), (version == Version::V2).then_some(1));
        let cpu =
            CpuUsage { usage_us: value(1_234_567), throttled_us: value(99), throttled_periods: value(3) };
        assert_eq!(memory.cpu().unwrap(), Reading::Value(cpu));
    }
}

#[test]
fn what_the_kernel_does_not_offer_is_absent_and_not_zero() {
    for (version, file) in [(Version::V2, "memory.current"), (Version::V1, "memory.usage_in_bytes")] {
        let bare = folder(&[(file, "4096\n")]);
        let memory = open(&bare, version, Subject::Container).unwrap();
        let peak = memory.peak().unwrap().value().unwrap();
        assert!(peak.reason().unwrap().contains("peak") || peak.reason().unwrap().contains("max_usage"));
        let PeakReset::Unsupported(reason) = memory.reset_peak().unwrap() else { panic!("it was reset") };
        assert_eq!(Some(&*reason), peak.reason());
        let stat = memory.stat().unwrap().value().unwrap();
        let events = memory.events().unwrap().value().unwrap();
        let cpu = memory.cpu().unwrap().value().unwrap();
        let all = [
            stat.anon_bytes,
            stat.file_bytes,
            stat.inactive_file_bytes,
            stat.kernel_bytes,
            stat.swap_bytes,
            events.oom,
            events.oom_kill,
            events.max,
            events.high,
            cpu.usage_us,
            cpu.throttled_us,
            cpu.throttled_periods,
            memory.oom_kills().unwrap().value().unwrap(),
        ];
        assert!(
            all.iter().all(|counter| counter.reason().is_some_and(|reason| !reason.is_empty())),
            "{all:?}"
        );
    }
    // Linux 5.15, with v2 and without a quota.
    let old = folder(&[
        ("memory.current", "4096\n"),
        ("memory.stat", "anon 1\nfile 2\nkernel_stack 3\ninactive_file 4\n"),
        ("cpu.stat", "usage_usec 7\nuser_usec 1\nsystem_usec 2\n"),
    ]);
    let memory = open(&old, Version::V2, Subject::Container).unwrap();
    let stat = memory.stat().unwrap().value().unwrap();
    assert_eq!(stat.anon_bytes, value(1));
    assert!(stat.kernel_bytes.reason().unwrap().contains("5.18"));
    let cpu = memory.cpu().unwrap().value().unwrap();
    assert_eq!((cpu.usage_us, cpu.throttled_us.value()), (value(7), None));
}

#[test]
fn a_zero_of_v1_that_may_be_false_is_absent() {
    let max = |memory_limit: u64, with_swap_limit: u64| {
        let limits =
            format!("hierarchical_memory_limit {memory_limit}\nhierarchical_memsw_limit {with_swap_limit}\n");
        let group = folder(&[
            ("memory.usage_in_bytes", "1\n"),
            ("memory.stat", &limits),
            ("memory.failcnt", "0\n"),
            ("memory.memsw.failcnt", "0\n"),
            ("memory.oom_control", "oom_kill 1\n"),
        ]);
        open(&group, Version::V1, Subject::Container).unwrap().events().unwrap().value().unwrap().max
    };
    let none = 9_223_372_036_854_771_712;
    assert_eq!(max(1 << 26, 1 << 26).value(), None);
    assert_eq!(max(1 << 26, 1 << 27), value(0));
    assert_eq!(max(none, none), value(0));
}

#[test]
fn only_the_peak_of_a_container_is_ever_written_to() {
    let own = folder(V1);
    let memory = open(&own, Version::V1, Subject::Container).unwrap();
    assert_eq!(memory.reset_peak().unwrap(), PeakReset::Done);
    assert!(
        fs::read_to_string(own.path().join("memory.max_usage_in_bytes")).unwrap().starts_with("0\n"),
        "nothing was written"
    );
    let shared = folder(V1);
    let memory = open(&shared, Version::V1, Subject::Process).unwrap();
    assert!(matches!(memory.reset_peak().unwrap(), PeakReset::Unsupported(_)));
    for (name, text) in V1 {
        assert_eq!(fs::read_to_string(shared.path().join(name)).unwrap(), *text, "{name}");
    }
}

#[test]
fn a_group_that_is_not_there_or_makes_no_sense_is_an_error_with_its_path() {
    let empty = folder(&[]);
    let missing = open(&empty, Version::V2, Subject::Container).unwrap_err();
    assert!(missing.is_not_found() && missing.to_string().contains("memory.current"), "{missing}");
    let wrong = folder(&[("memory.current", "lots\n")]);
    let error = open(&wrong, Version::V2, Subject::Container).unwrap_err();
    assert!(!error.is_not_found() && error.to_string().contains("memory.current"), "{error}");
    // A text longer than the buffer would hide fields: it must not pass for a whole one.
    let long = folder(&[("memory.current", "1\n"), ("memory.stat", &"x 1\n".repeat(TEXT_BYTES / 4))]);
    let memory = open(&long, Version::V2, Subject::Container).unwrap();
    assert!(memory.stat().unwrap_err().to_string().contains("memory.stat"));
}

#[test]
fn a_removed_group_is_told_from_a_failure() {
    for gone in [Errno::ENODEV, Errno::ENOENT] {
        assert!(is_gone(&io::Error::from(gone)));
    }
    assert!(!is_gone(&io::Error::from(Errno::EIO)) && !is_gone(&io::ErrorKind::InvalidData.into()));
}

#[test]
fn the_charge_batch_is_of_whole_pages_and_processors() {
    let batch = charge_batch_bytes().unwrap();
    assert!(batch >= 64 * 4096 && batch.is_multiple_of(64 * 4096), "{batch}");
}
