//! The probe against real files: targets come, go and vanish; recordings are cut, damaged, killed and run out of disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sebs_lite::probe::{
    About, Ending, Event, MemoryStats, Note, Output, Probe, ProbeOptions, Recording, Target, TargetId, What,
    Window,
};
use sebs_lite::units::Bytes;

use crate::support::Folder;

/// Where a child process finds the file that it shall record into.
const RECORD_INTO: &str = "SEBS_LITE_TEST_RECORD_INTO";

const INTERVAL: Duration = Duration::from_millis(1);

pub(crate) fn target(label: &str, path: &Path) -> Target {
    Target { label: label.to_string(), counter: File::open(path).unwrap() }
}

fn streaming(path: &Path) -> ProbeOptions {
    ProbeOptions { output: Output::Stream(path.to_path_buf()), ..ProbeOptions::new(INTERVAL) }
}

/// Waits, within a minute, until something is so.
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it never came to be");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until that many ticks have passed.
pub(crate) fn pass(ticks: u32) {
    let begin = Instant::now();
    wait_until(|| begin.elapsed() >= INTERVAL * ticks);
}

fn events(recording: &Recording) -> Vec<Event> {
    recording.events().unwrap().map(Result::unwrap).collect()
}

/// What holds of every recording: what was planned was taken or missed, and what was taken is there or was lost.
fn assert_adds_up(recording: &Recording) {
    for target in &recording.targets {
        assert_eq!(target.taken + target.missed, target.planned(), "{target:?}");
        let mut ticks = Vec::new();
        let (mut missed, mut lost) = (0, 0);
        for event in events(recording).into_iter().filter(|event| event.target == target.id) {
            match event.what {
                What::Sample(sample) => {
                    assert!(sample.lateness < recording.header.interval());
                    ticks.push(sample.tick);
                }
                What::Missed { first, last } => missed += last - first + 1,
                What::Lost { first, last, samples } => {
                    missed += last - first + 1 - samples;
                    lost += samples;
                }
                What::Joined { tick } => assert_eq!(tick, target.first_tick),
                What::Left { tick, ending } => {
                    assert_eq!((tick, Some(ending)), (target.end_tick, target.ending));
                }
            }
        }
        assert!(ticks.is_sorted_by(|one, next| one < next));
        assert_eq!(ticks.len() as u64, target.taken - target.lost, "{target:?}");
        assert_eq!((missed, lost), (target.missed, target.lost), "{target:?}");
        assert_eq!(target.profile.map_or(0, |profile| profile.samples), ticks.len() as u64);
        assert!(ticks.iter().all(|tick| (target.first_tick..target.end_tick).contains(tick)));
    }
}

/// In one write over what is there: a file that is cut first is empty for a moment, which means the end.
fn overwrite(path: &Path, text: &str) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn targets_join_and_leave_while_it_runs() {
    let folder = Folder::create();
    let (one, two) = (folder.put("one", "1000\n"), folder.put("two", "2000\n"));
    let probe = Probe::start(ProbeOptions::new(INTERVAL)).unwrap();
    let first = probe.add(target("one", &one)).unwrap();
    pass(20);
    let second = probe.add(target("two", &two)).unwrap();
    pass(20);
    overwrite(&two, "3000000\n");
    pass(20);
    probe.remove(first).unwrap();
    wait_until(|| probe.active() == 1);
    pass(20);
    let again = probe.add(target("one", &one)).unwrap();
    pass(20);
    let recording = probe.stop().unwrap();
    assert_adds_up(&recording);
    let [one, two, three] = &recording.targets[..] else { panic!("{:?}", recording.targets) };
    assert_eq!((one.id, two.id, three.id), (first, second, again));
    assert_eq!((one.label.as_str(), two.label.as_str(), three.label.as_str()), ("one", "two", "one"));
    assert_eq!(one.ending, Some(Ending::Removed));
    assert_eq!((two.ending, three.ending), (Some(Ending::Stopped), Some(Ending::Stopped)));
    assert!(one.first_tick < two.first_tick && one.end_tick <= three.first_tick);
    assert!(three.end_tick <= two.end_tick + 1);
    assert_eq!(one.profile.unwrap().mean_bytes, 1000.0);
    assert_eq!(two.profile.unwrap().peak, Bytes(3_000_000));
    assert!(recording.end.unwrap().sampler_cpu_ns > 0);
    assert_eq!(recording.header.scheduling.timer_slack_ns, Some(1));
}

#[test]
fn a_target_that_vanishes_ends_and_the_others_go_on() {
    let folder = Folder::create();
    let (mortal, other, broken) =
        (folder.put("mortal", "5\n"), folder.put("other", "6\n"), folder.put("broken", "7\n"));
    let probe = Probe::start(ProbeOptions::new(INTERVAL)).unwrap();
    for (label, path) in [("mortal", &mortal), ("other", &other), ("broken", &broken)] {
        probe.add(target(label, path)).unwrap();
    }
    pass(20);
    overwrite(&broken, "max\n");
    fs::write(&mortal, "").unwrap();
    wait_until(|| probe.active() == 1);
    pass(20);
    let recording = probe.stop().unwrap();
    assert_adds_up(&recording);
    // A file that is written anew is empty for a moment.
    assert_eq!(recording.targets[0].ending, Some(Ending::Gone));
    assert!(matches!(recording.targets[2].ending, Some(Ending::Gone | Ending::NotANumber)));
    assert_eq!(recording.targets[1].ending, Some(Ending::Stopped));
    assert!(recording.targets[1].end_tick > recording.targets[0].end_tick);
}

#[test]
fn what_is_streamed_is_what_is_recorded() {
    let folder = Folder::create();
    let path = folder.path().join("recording");
    let counters = ["a", "b", "c"].map(|name| folder.put(name, "4096\n"));
    let probe =
        Probe::start(ProbeOptions { charge_batch: Some(Bytes(524_288)), ..streaming(&path) }).unwrap();
    for counter in &counters {
        probe.add(target(counter.file_name().unwrap().to_str().unwrap(), counter)).unwrap();
    }
    pass(50);
    let recording = probe.stop().unwrap();
    assert_adds_up(&recording);
    let read = Recording::open(&path).unwrap();
    assert_eq!(
        (&read.header, &read.targets, read.end),
        (&recording.header, &recording.targets, recording.end)
    );
    assert_eq!(read.header.charge_batch_bytes, Some(524_288));
    let copy = folder.path().join("copy");
    recording.save(&copy).unwrap();
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&path).unwrap());
    let samples: u64 = read.targets.iter().map(|target| target.taken).sum();
    let text_and_labels = 4096;
    assert!(fs::metadata(&path).unwrap().len() <= samples * 16 + text_and_labels);
    // Another recording does not go over it.
    assert!(Probe::start(streaming(&path)).unwrap_err().is_conflict());
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&path).unwrap());
}

#[test]
fn a_recording_cut_at_any_byte_gives_what_came_before_and_damage_is_refused() {
    let folder = Folder::create();
    let path = folder.path().join("recording");
    let counter = folder.put("counter", "8192\n");
    let probe = Probe::start(streaming(&path)).unwrap();
    probe.add(target("a", &counter)).unwrap();
    // The second block, and so a middle, is there after half a second.
    let size = || fs::metadata(&path).unwrap().len();
    let header = size();
    wait_until(|| size() > header);
    let one_block = size();
    wait_until(|| size() > one_block);
    let whole = probe.stop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let all = events(&whole);
    let (mut most, mut known) = (0, 0);
    for cut in 0..bytes.len() {
        match Recording::from_bytes(bytes[..cut].to_vec()) {
            Ok(recording) => {
                assert_eq!(recording.end, None, "cut at {cut}");
                let found = events(&recording);
                assert_eq!(found, all[..found.len()], "cut at {cut}");
                assert!(found.len() >= most, "cut at {cut}");
                most = found.len();
                known += 1;
            }
            Err(error) => assert!(error.is_usage() && cut < header as usize, "cut at {cut}: {error}"),
        }
    }
    assert_eq!(known as u64, bytes.len() as u64 - header);
    // All but the last block, which holds the end, and not without a sample.
    assert!(most > 0);
    for place in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x10;
        let error = Recording::from_bytes(damaged).unwrap_err().to_string();
        assert!(!error.is_empty(), "byte {place}");
    }
}

/// Not a test by itself: the process that the next one kills.
#[test]
fn record_until_killed() {
    let Some(path) = std::env::var_os(RECORD_INTO).map(PathBuf::from) else { return };
    let probe = Probe::start(streaming(&path)).unwrap();
    probe.add(target("stamp", &path.with_extension("counter"))).unwrap();
    println!("recording");
    loop {
        // The counter says when it was written, so that the parent can tell how much is missing.
        let now = sebs_lite::clock::Instant::now();
        // In place: a file that is written anew is empty for a moment, and an empty counter is gone.
        let file = fs::OpenOptions::new().write(true).open(path.with_extension("counter")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, format!("{:020}\n", now.0).as_bytes(), 0).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_recorder_that_is_killed_leaves_all_up_to_the_last_second() {
    let folder = Folder::create();
    let path = folder.path().join("recording");
    folder.put("recording.counter", format!("{:020}\n", 0));
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "probe::record_until_killed", "--nocapture"]).env(RECORD_INTO, &path);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    // Three seconds of the recorder's own time, however slow this machine is.
    let newest = || {
        let recording = Recording::open(&path).ok()?;
        let profile = recording.targets.first()?.profile?;
        (profile.last.since(profile.first) >= Duration::from_secs(2)).then_some(profile.last)
    };
    wait_until(|| newest().is_some());
    let killed = sebs_lite::clock::Instant::now();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("recording"));
    let recording = Recording::open(&path).unwrap();
    assert_eq!(recording.end, None);
    assert_eq!(recording.targets[0].ending, None);
    assert_adds_up(&recording);
    let missing = killed.since(recording.targets[0].profile.unwrap().last);
    // One second by design; three where others keep both processors from the writer.
    assert!(missing < Duration::from_secs(10), "the last {missing:?} are missing");
}

/// A small file system of its own, gone when dropped.
pub(crate) struct SmallDisk(Folder);

impl SmallDisk {
    pub(crate) fn mount() -> Option<SmallDisk> {
        let folder = Folder::create();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(folder));
        }
        eprintln!("SKIPPED: no small file system can be mounted here");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that fails may leave a probe that still writes.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        assert!(std::thread::panicking() || unmounted.unwrap().success());
    }
}

/// A probe of 32 targets, so that a ring of 64 samples and a small disk are soon full.
fn busy_probe(path: &Path, counter: &Path) -> Probe {
    let probe = Probe::start(ProbeOptions { ring_samples: 64, ..streaming(path) }).unwrap();
    for _ in 0..32 {
        probe.add(target("a", counter)).unwrap();
    }
    probe
}

/// Waits until a file has grown and then not grown for two seconds; gives its size. Blocks come twice a second.
pub(crate) fn wait_until_stuck(path: &Path) -> u64 {
    let size = || fs::metadata(path).unwrap().len();
    let mut last = (size(), Instant::now());
    wait_until(|| {
        if size() != last.0 {
            last = (size(), Instant::now());
        }
        last.0 > 10_000 && last.1.elapsed() > Duration::from_secs(2)
    });
    last.0
}

#[test]
fn a_full_disk_loses_samples_visibly_and_what_was_written_can_be_read() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = Folder::create();
    let counter = folder.put("counter", "1234567\n");
    let path = disk.path().join("recording");
    let probe = busy_probe(&path, &counter);
    wait_until_stuck(&path);
    let recording = probe.stop().unwrap();
    assert!(recording.warnings[0].contains("No space left"), "{:?}", recording.warnings);
    assert_eq!(recording.targets.len(), 32);
    let read = Recording::open(&path).unwrap();
    assert_eq!(read.end, None);
    assert_adds_up(&read);
    for (told, kept) in recording.targets.iter().zip(&read.targets) {
        assert_eq!(told.taken + told.missed, told.planned());
        assert!(told.lost > 0);
        assert_eq!(told.taken - told.lost, kept.taken - kept.lost);
    }
}

#[test]
fn a_disk_that_was_full_for_a_while_leaves_a_located_loss() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = Folder::create();
    let counter = folder.put("counter", "1234567\n");
    let path = disk.path().join("recording");
    let filling = disk.path().join("filling");
    fs::write(&filling, [1; 40_000]).unwrap();
    let probe = busy_probe(&path, &counter);
    let full = wait_until_stuck(&path);
    fs::remove_file(&filling).unwrap();
    wait_until(|| fs::metadata(&path).unwrap().len() > full);
    let recording = probe.stop().unwrap();
    let lost: u64 = recording.targets.iter().map(|target| target.lost).sum();
    assert!(lost > 0, "the ring holds 64 of {} samples", recording.targets[0].taken * 32);
    if recording.warnings.is_empty() {
        assert_adds_up(&recording);
        assert_eq!(Recording::open(&path).unwrap().targets, recording.targets);
    }
}

#[test]
fn a_probe_that_is_dropped_completes_its_file() {
    let folder = Folder::create();
    let path = folder.path().join("recording");
    let counter = folder.put("counter", "1\n");
    let probe = Probe::start(streaming(&path)).unwrap();
    probe.add(target("a", &counter)).unwrap();
    pass(10);
    drop(probe);
    wait_until(|| Recording::open(&path).unwrap().end.is_some());
    assert_adds_up(&Recording::open(&path).unwrap());
}

#[test]
fn a_long_interval_does_not_hold_up_a_stop() {
    let folder = Folder::create();
    let counter = folder.put("counter", "1\n");
    let probe = Probe::start(ProbeOptions::new(Duration::from_secs(3600))).unwrap();
    let id = probe.add(target("a", &counter)).unwrap();
    probe.add(target("b", &counter)).unwrap();
    probe.remove(id).unwrap();
    wait_until(|| probe.active() == 1);
    let recording = probe.stop().unwrap();
    assert_eq!(recording.targets[0].ending, Some(Ending::Removed));
    assert_eq!(recording.targets[1].ending, Some(Ending::Stopped));
    assert!(recording.targets.iter().all(|target| target.planned() == 0 && target.profile.is_none()));
}

#[test]
fn wishes_that_are_not_granted_are_told_and_wrong_ones_are_refused() {
    let options = ProbeOptions { realtime: true, cpu: Some(0), ..ProbeOptions::new(INTERVAL) };
    let recording = Probe::start(options).unwrap().stop().unwrap();
    let scheduling = &recording.header.scheduling;
    let is_realtime = scheduling.policy.as_deref() == Some("SCHED_FIFO") && scheduling.memory_locked;
    assert!(is_realtime || !recording.header.warnings.is_empty(), "{scheduling:?}");
    assert!(scheduling.cpus == [0] || !recording.header.warnings.is_empty(), "{scheduling:?}");
    for interval in [Duration::from_micros(19), Duration::from_secs(86_401), Duration::ZERO] {
        assert!(Probe::start(ProbeOptions::new(interval)).unwrap_err().is_usage());
    }
    let folder = Folder::create();
    let counter = folder.put("counter", "1\n");
    let probe = Probe::start(ProbeOptions::new(INTERVAL)).unwrap();
    assert!(probe.add(target("", &counter)).unwrap_err().is_usage());
    assert!(probe.add(target(&"x".repeat(4097), &counter)).unwrap_err().is_usage());
    for _ in 0..1024 {
        probe.add(target("x", &counter)).unwrap();
    }
    assert!(probe.add(target("x", &counter)).is_err());
    let recording = probe.stop().unwrap();
    assert_eq!(recording.targets.len(), 1024);
    assert_adds_up_quickly(&recording);
}

/// As [`assert_adds_up`], for more targets than that can go through one by one.
fn assert_adds_up_quickly(recording: &Recording) {
    let mut kept: BTreeMap<TargetId, u64> = BTreeMap::new();
    for event in events(recording) {
        if matches!(event.what, What::Sample(_)) {
            *kept.entry(event.target).or_default() += 1;
        }
    }
    for target in &recording.targets {
        assert_eq!(target.taken + target.missed, target.planned(), "{target:?}");
        assert_eq!(kept.get(&target.id).copied().unwrap_or(0), target.taken - target.lost, "{target:?}");
    }
}

#[test]
fn a_recording_becomes_sebs_lines_memory_stats_and_windows() {
    let folder = Folder::create();
    let (one, two) = (folder.put("one", "1500000\n"), folder.put("two", "2500000\n"));
    let probe = Probe::start(ProbeOptions::new(INTERVAL)).unwrap();
    let first = probe.add(target("one", &one)).unwrap();
    let second = probe.add(target("two", &two)).unwrap();
    pass(20);
    probe.remove(first).unwrap();
    wait_until(|| probe.active() == 1);
    let third = probe.add(target("one", &two)).unwrap();
    for (target, bytes) in [(first, 7), (third, 9), (first, 8)] {
        probe.note(Note { target, about: About::KernelPeak { bytes, from_ns: None, at_ns: 1 } });
    }
    let source = About::Source { source: "a file".to_string(), name: None };
    probe.note(Note { target: second, about: source });
    pass(20);
    let recording = probe.stop().unwrap();
    let sum = |of: fn(&sebs_lite::probe::TargetSummary) -> u64| recording.targets.iter().map(of).sum::<u64>();

    let mut lines = Vec::new();
    recording.write_sebs(&mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let count = |line: &str| lines.lines().filter(|other| *other == line).count() as u64;
    assert_eq!(count("one 1500000"), recording.targets[0].taken);
    assert_eq!(count("two 2500000"), recording.targets[1].taken);
    assert_eq!(count("one 2500000"), recording.targets[2].taken);
    assert_eq!(count("precision not met"), sum(|target| target.missed));
    let blank = lines.lines().filter(|line| line.trim().is_empty()).count() as u64;
    assert_eq!(lines.lines().count() as u64 - blank, sum(|target| target.planned()));

    let stats = MemoryStats::of_recording(&recording).unwrap();
    let json: serde_json::Value = serde_json::to_value(&stats).unwrap();
    assert_eq!(json["two"]["mean mem. usage"], "2.5 MB");
    assert_eq!(json["one"]["max mem. usage"], "2.5 MB");
    assert_eq!((&json["one"]["kernel_peak_bytes"], json["two"].get("kernel_peak_bytes")), (&9.into(), None));
    assert_eq!((&json["two"]["source"], json["one"].get("source")), (&"a file".into(), None));
    assert_eq!(json["two"]["number of measurements"], recording.targets[1].taken);
    assert_eq!(
        json["one"]["number of measurements"],
        recording.targets[0].taken + recording.targets[2].taken
    );
    let precision_errors = json.get("precision_errors").map_or(0, |errors| errors.as_u64().unwrap());
    assert_eq!(precision_errors, sum(|target| target.missed));
    assert_eq!(json["two"]["lateness_ns"]["max"], recording.targets[1].lateness.unwrap().max_ns);
    let profile = json["two"]["full profile (in bytes)"].as_array().unwrap();
    assert_eq!(profile.len(), json["two"]["timestamps_ns"].as_array().unwrap().len());
    assert_eq!(serde_json::from_value::<MemoryStats>(json).unwrap(), stats);

    let whole = recording.targets[0].profile.unwrap();
    let windows = [Window::between(whole.first, whole.last), Window { begin_ns: 0, end_ns: 1 }];
    assert_eq!(recording.profiles(first, &windows).unwrap(), [Some(whole), None]);
}
