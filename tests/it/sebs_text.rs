//! The probe's output as SeBS's text, read by the rules of SeBS's own reader, on whole, cut and full disks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sebs_lite::probe::{MemoryStats, Output, Probe, ProbeOptions, Recording, Window};

use crate::probe::{SmallDisk, pass, target, wait_until, wait_until_stuck};
use crate::support::Folder;

/// What SeBS 1.2.1 reads: measurements by label, and precision errors. Fails where SeBS would.
pub(crate) fn read_as_sebs(text: &str) -> (BTreeMap<String, Vec<i64>>, u64) {
    let (mut measurements, mut precision_errors) = (BTreeMap::<String, Vec<i64>>::new(), 0);
    for line in text.split_inclusive('\n') {
        if line == "precision not met\n" {
            precision_errors += 1;
            continue;
        }
        let parts: Vec<&str> = line.split_whitespace().collect();
        if parts.is_empty() {
            continue;
        }
        assert!(parts.len() > 1, "SeBS would fail at `{line}`");
        if let Ok(bytes) = parts[1].parse() {
            measurements.entry(parts[0].to_string()).or_default().push(bytes);
        }
    }
    (measurements, precision_errors)
}

fn sampling(path: &Path) -> ProbeOptions {
    ProbeOptions { output: Output::Sebs(path.to_path_buf()), ..ProbeOptions::new(Duration::from_millis(1)) }
}

#[test]
fn what_sebs_reads_is_what_was_sampled() {
    let folder = Folder::create();
    let path = folder.path().join("measurements");
    let (one, two) = (folder.put("one", "1500000\n"), folder.put("two", "2500000\n"));
    let probe = Probe::start(sampling(&path)).unwrap();
    let first = probe.add(target("one", &one)).unwrap();
    probe.add(target("two", &two)).unwrap();
    // A label that SeBS would split is refused, and a file that holds something is left alone.
    assert!(probe.add(target("a b", &one)).unwrap_err().is_usage());
    wait_until(|| fs::metadata(&path).unwrap().len() > 0);
    assert!(Probe::start(sampling(&path)).unwrap_err().is_conflict());
    probe.remove(first).unwrap();
    wait_until(|| probe.active() == 1);
    pass(10);
    let recording = probe.stop().unwrap();
    assert!(recording.warnings.is_empty());
    let (measurements, precision_errors) = read_as_sebs(&fs::read_to_string(&path).unwrap());
    for target in &recording.targets {
        assert_eq!(target.taken + target.missed, target.planned());
        let bytes = if target.label == "one" { 1_500_000 } else { 2_500_000 };
        let series = &measurements[&target.label];
        assert_eq!(series.len() as u64, target.taken - target.lost, "{target:?}");
        assert!(series.iter().all(|sample| *sample == bytes));
        assert_eq!(target.profile.unwrap().mean_bytes, bytes as f64);
    }
    let expected: u64 = recording.targets.iter().map(|target| target.missed + target.lost).sum();
    assert_eq!((measurements.len(), precision_errors), (2, expected));

    let stats = MemoryStats::read(&path).unwrap();
    assert_eq!(stats.containers["one"].measurements as usize, measurements["one"].len());
    assert_eq!(stats.precision_errors.unwrap_or(0), expected);
    let json = serde_json::to_value(&stats.containers["two"]).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["full profile (in bytes)", "max mem. usage", "mean mem. usage", "number of measurements"]
    );
    assert_no_events(&recording, "holds no times");
}

/// There is nothing to be read again, and each way to read says so.
fn assert_no_events(recording: &Recording, text: &str) {
    let target = recording.targets[0].id;
    let windows = [Window { begin_ns: 0, end_ns: 1 }];
    let errors = [
        recording.events().err().unwrap(),
        recording.samples(target).err().unwrap(),
        recording.profiles(target, &windows).unwrap_err(),
        recording.notes().unwrap_err(),
        recording.save(Path::new("/nowhere")).unwrap_err(),
        MemoryStats::of_recording(recording).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_usage() && error.to_string().contains(text), "{error}");
    }
}

#[test]
fn summaries_alone_take_no_room() {
    let folder = Folder::create();
    let counter = folder.put("one", "1500000\n");
    let options = ProbeOptions { output: Output::Summary, ..ProbeOptions::new(Duration::from_millis(1)) };
    let record = || {
        let probe = Probe::start(options.clone()).unwrap();
        probe.add(target("one", &counter)).unwrap();
        pass(30);
        probe.stop().unwrap()
    };
    // Nothing tells of a sample before the end, and on a busy machine there may be none in so short a time.
    let recording = (0..20).map(|_| record()).find(|recording| recording.targets[0].taken > 0).unwrap();
    let summary = &recording.targets[0];
    assert_eq!((summary.taken + summary.missed, summary.lost), (summary.planned(), 0));
    assert_eq!(summary.profile.unwrap().samples, summary.taken);
    assert_no_events(&recording, "only the summary");
}

#[test]
fn a_file_is_told_from_another_by_its_first_bytes() {
    let folder = Folder::create();
    let counter = folder.put("counter", "4096\n");
    let path = folder.path().join("recording");
    let options =
        ProbeOptions { output: Output::Stream(path.clone()), ..ProbeOptions::new(Duration::from_millis(1)) };
    let probe = Probe::start(options).unwrap();
    probe.add(target("a", &counter)).unwrap();
    pass(10);
    let recording = probe.stop().unwrap();
    assert_eq!(MemoryStats::read(&path).unwrap(), MemoryStats::of_recording(&recording).unwrap());
    assert!(MemoryStats::read(&path).unwrap().containers["a"].series.is_some());
    let text = folder.put("text", "a 1\n");
    assert!(MemoryStats::read(&text).unwrap().containers["a"].series.is_none());
    for (name, content) in [("newer", "sebs-lite recording 2 00000000\n{}\n"), ("other", "%PDF-1.4\n")] {
        let error = MemoryStats::read(&folder.put(name, content)).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(name), "{error}");
    }
    assert!(MemoryStats::read(&folder.path().join("none")).unwrap_err().is_not_found());
}

#[test]
fn a_full_disk_leaves_no_part_of_a_line() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = Folder::create();
    let path = disk.path().join("measurements");
    let counter = folder.put("counter", "1234567890\n");
    let probe = Probe::start(ProbeOptions { ring_samples: 64, ..sampling(&path) }).unwrap();
    for _ in 0..32 {
        probe.add(target("0f0f0f0f0f", &counter)).unwrap();
    }
    wait_until_stuck(&path);
    let check = |text: String| {
        let (measurements, precision_errors) = read_as_sebs(&text);
        assert!(
            text.ends_with('\n') && measurements["0f0f0f0f0f"].iter().all(|bytes| *bytes == 1_234_567_890)
        );
        (measurements["0f0f0f0f0f"].len() as u64, precision_errors)
    };
    check(fs::read_to_string(&path).unwrap());
    let recording = probe.stop().unwrap();
    assert!(recording.warnings[0].contains("No space left"), "{:?}", recording.warnings);
    let (samples, _) = check(fs::read_to_string(&path).unwrap());
    let kept: u64 = recording.targets.iter().map(|target| target.taken - target.lost).sum();
    assert_eq!(samples, kept);
    assert!(recording.targets.iter().all(|target| target.taken + target.missed == target.planned()));
    assert_eq!(MemoryStats::read(&path).unwrap().containers["0f0f0f0f0f"].measurements, samples);
}
