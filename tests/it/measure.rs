//! `measure` on real containers and processes: what it writes and says, and how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, Lifetime, OwnedContainer, Owner};
use sebs_lite::probe::{Ending, MemoryStats, Recording, TargetSummary};
use serde_json::Value;

use crate::benchmark::python_image;
use crate::probe::{SmallDisk, wait_until_stuck};
use crate::program::{Ended, Place};
use crate::support::{TestImage, engine, unique, wait_until};

pub(crate) const MIB: u64 = 1 << 20;

/// What an interpreter takes beside what the test has it take.
pub(crate) const NOISE: u64 = 4 * MIB;

/// A container that does what a test's script says, and is removed when dropped.
pub(crate) struct Subject {
    pub(crate) container: OwnedContainer,
    pub(crate) name: String,
}

impl Subject {
    fn create(engine: &Engine, image: &str, command: &[&str]) -> Subject {
        let spec = ContainerSpec {
            image: image.to_string(),
            entrypoint: Some(Vec::new()),
            cmd: command.iter().map(|word| word.to_string()).collect(),
            host_config: HostConfig { network_mode: "none".to_string(), ..HostConfig::default() },
            ..ContainerSpec::default()
        };
        let name = unique("measure");
        let owner = Owner::current().unwrap();
        let container = engine.create_owned(&owner, &Lifetime::Run, &name, spec).unwrap();
        Subject { container, name }
    }

    pub(crate) fn start(engine: &Engine, image: &str, command: &[&str]) -> Subject {
        let subject = Subject::create(engine, image, command);
        engine.start_container(subject.id()).unwrap();
        subject
    }

    /// One that waits.
    pub(crate) fn idle(engine: &Engine) -> Subject {
        let image = python_image(engine).id;
        Subject::start(engine, &image, &["python3", "-c", "import time; time.sleep(600)"])
    }

    pub(crate) fn id(&self) -> &str {
        self.container.id()
    }
}

/// A running `measure`, which is killed when dropped.
pub(crate) struct Measure(Option<Child>);

impl Measure {
    pub(crate) fn start(place: &Place, arguments: &[&str]) -> Measure {
        Measure(Some(place.spawn(&[&["measure"], arguments].concat())))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.0.as_ref().unwrap().id();
        kill(Pid::from_raw(pid as i32), signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> Ended {
        Ended::from(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Samples of the first target that are in the file already.
fn kept(file: &Path) -> u64 {
    Recording::open(file).ok().and_then(|recording| Some(recording.targets.first()?.taken)).unwrap_or(0)
}

/// Waits until the file has so many more samples than it has.
pub(crate) fn wait_for_samples(file: &Path, more: u64) {
    let before = kept(file);
    wait_until("samples in the file", || kept(file) >= before + more);
}

#[track_caller]
fn assert_adds_up(target: &TargetSummary) {
    assert_eq!(target.taken + target.missed, target.planned(), "{target:?}");
    assert_eq!(target.profile.map_or(0, |profile| profile.samples), target.taken - target.lost, "{target:?}");
}

/// The summary that was printed, whose figures are those of the file.
pub(crate) fn summary(ended: &Ended, file: &Path) -> Value {
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let recording = Recording::open(file).unwrap();
    let targets = summary["targets"].as_array().unwrap();
    assert_eq!(targets.len(), recording.targets.len());
    for (told, target) in targets.iter().zip(&recording.targets) {
        assert_adds_up(target);
        let expected = [target.planned(), target.taken, target.missed, target.lost];
        let keys = ["planned_ticks", "taken_ticks", "missed_ticks", "lost_samples"];
        assert_eq!(keys.map(|key| told[key].as_u64().unwrap()), expected, "{told}");
        assert_eq!(
            (&told["label"], &told["name"]),
            (&(*target.label).into(), &target.name.as_deref().into())
        );
        assert_eq!(told["peak_bytes"].as_u64(), target.profile.map(|profile| profile.peak.0));
        assert_eq!(told["kernel_peak_bytes"].as_u64(), target.kernel_peak.map(|peak| peak.0));
    }
    assert_eq!(summary["header"], serde_json::to_value(&recording.header).unwrap());
    summary
}

#[test]
fn a_container_is_sampled_for_a_while_and_told_as_a_table_and_as_json() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-while");
    let subject = Subject::idle(&engine);
    let file = place.path("recording");
    let begin = &subject.id()[..20];
    // SeBS's own flags, and the same container by another name.
    let words = ["measure", "--container-id", begin, "--measure-interval", "1", "--measurement-file"];
    let more = [file.to_str().unwrap(), "--container", &subject.name, "--duration", "0.5s", "--json"];
    let ended = place.run(&[&words[..], &more[..]].concat()).expect(0, &["more than once"]);
    let told = summary(&ended, &file);
    let target = &told["targets"][0];
    assert_eq!((&target["label"], &target["name"]), (&subject.id().into(), &(*subject.name).into()));
    assert_eq!(target["ending"], "stopped");
    assert!(target["taken_ticks"].as_u64() > Some(0) && target["lateness_ns"]["p99"].as_u64().is_some());
    assert!(target["kernel_peak_bytes"].as_u64() > Some(MIB), "{target}");
    assert_eq!(told["header"]["interval_ns"], 1_000_000);
    let stats = MemoryStats::read(&file).unwrap();
    let series = stats.containers[subject.id()].series.clone().unwrap();
    assert!(series.source.unwrap().starts_with("cgroup v") && series.kernel_peak_bytes.is_some());

    // The file holds something now, and is left alone.
    let before = fs::read(&file).unwrap();
    place.run(&[&words[..], &[file.to_str().unwrap()]].concat()).expect(2, &["holds something already"]);
    assert_eq!(fs::read(&file).unwrap(), before);
    // Without a file there is the summary alone.
    let ended = place.run(&["measure", "--container", &subject.name, "--duration", "300ms"]);
    let ended =
        ended.expect(0, &["planned", "late p50", "kernel peak", "1.000 ms", "SCHED_OTHER", "CPU used"]);
    assert!(ended.stdout.contains(&subject.name) && ended.stdout.contains("stopped"), "{}", ended.stdout);
}

#[test]
fn it_ends_with_the_container() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-until");
    let (subject, other) = (Subject::idle(&engine), Subject::idle(&engine));
    let file = place.path("recording");
    let words = ["--container", &subject.name, "--container", &other.name, "--json"];
    let measure =
        Measure::start(&place, &[&words[..], &["--measurement-file", file.to_str().unwrap()]].concat());
    wait_for_samples(&file, 1);
    // A container that is frozen still has memory.
    engine.pause_container(subject.id()).unwrap();
    wait_for_samples(&file, 1_000);
    engine.unpause_container(subject.id()).unwrap();
    engine.kill_container(subject.id(), "SIGKILL").unwrap();
    let lone = |file: &Path| {
        let recording = Recording::open(file).unwrap();
        recording.targets[0].ending == Some(Ending::Gone) && recording.targets[1].ending.is_none()
    };
    wait_until("the end of one", || lone(&file));
    other.container.remove().unwrap();
    let told = summary(&measure.wait().expect(0, &[]), &file);
    assert_eq!(told["targets"][0]["ending"], "gone");
    assert_eq!(told["targets"][1]["ending"], "gone");
}

#[test]
fn a_signal_is_its_normal_end_and_a_kill_leaves_what_was_sampled() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-signals");
    let subject = Subject::idle(&engine);
    let file = |name: &str| place.path(name).display().to_string();
    let files = ["SIGTERM", "SIGINT", "SIGKILL"].map(file);
    // At once: several may sample one container.
    let start = |file: &String| {
        Measure::start(&place, &["--container", &subject.name, "--measurement-file", file, "--json"])
    };
    let [terminated, interrupted, killed] = [start(&files[0]), start(&files[1]), start(&files[2])];
    files.iter().for_each(|file| wait_for_samples(Path::new(file), 500));
    for (measure, signal, file) in
        [(terminated, Signal::SIGTERM, &files[0]), (interrupted, Signal::SIGINT, &files[1])]
    {
        measure.signal(signal);
        let told = summary(&measure.wait().expect(0, &[]), Path::new(file));
        assert_eq!(told["targets"][0]["ending"], "stopped");
    }
    let before = kept(Path::new(&files[2]));
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.wait().code, None);
    let recording = Recording::open(Path::new(&files[2])).unwrap();
    assert_adds_up(&recording.targets[0]);
    assert!(recording.end.is_none() && recording.targets[0].taken >= before);
}

#[test]
fn a_container_that_does_not_run_is_told_with_its_state() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-states");
    let image = TestImage::import(&engine);
    let subject = Subject::create(&engine, &image.id, &["/bin/sh", "-c", "exit 3"]);
    let measure = || place.run(&["measure", "--container-id", subject.id(), "--duration", "10s"]);
    measure().expect(1, &[&subject.name, "does not run: it is created"]);
    engine.start_container(subject.id()).unwrap();
    engine.wait_container(subject.id(), Some(Duration::from_secs(60))).unwrap();
    measure().expect(1, &["does not run: it is exited"]);
    // Whenever it ends, before the look-up, between it and the first sample or after that, this is told.
    for _ in 0..5 {
        engine.start_container(subject.id()).unwrap();
        let ended = measure();
        let is_told = match ended.code {
            Some(0) => ended.stdout.contains("gone"),
            Some(1) => ended.stderr.contains("does not run") || ended.stderr.contains("has ended meanwhile"),
            _ => false,
        };
        assert!(is_told, "exit {:?}\n{}{}", ended.code, ended.stdout, ended.stderr);
        engine.wait_container(subject.id(), Some(Duration::from_secs(60))).unwrap();
    }
}

#[test]
fn many_containers_add_up() {
    const COUNT: usize = 64;
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-many");
    let image = TestImage::import(&engine);
    let start = |_| Subject::start(&engine, &image.id, &["/bin/sleep", "600"]);
    let subjects: Vec<Subject> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..COUNT / 4).map(start).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let file = place.path("recording");
    let mut words =
        vec!["measure", "--duration", "1s", "--json", "--measurement-file", file.to_str().unwrap()];
    words.extend(subjects.iter().flat_map(|subject| ["--container-id", subject.id()]));
    let told = summary(&place.run(&words).expect(0, &[]), &file);
    assert_eq!(told["targets"].as_array().unwrap().len(), COUNT);
    for (subject, target) in subjects.iter().zip(told["targets"].as_array().unwrap()) {
        assert_eq!(target["label"], subject.id());
        assert!(target["taken_ticks"].as_u64() > Some(0) && target["kernel_peak_bytes"].is_u64(), "{target}");
    }
    let stats = MemoryStats::read(&file).unwrap();
    assert!(subjects.iter().all(|subject| stats.containers.contains_key(subject.id())));
    std::thread::scope(|scope| {
        for chunk in subjects.chunks(COUNT / 4) {
            scope.spawn(|| chunk.iter().for_each(|subject| engine.remove_container(subject.id()).unwrap()));
        }
    });
}

#[test]
fn a_full_disk_is_a_failure_that_says_what_is_missing() {
    let Some(engine) = engine() else { return };
    let Some(disk) = SmallDisk::mount() else { return };
    let place = Place::create("measure-full");
    let subject = Subject::idle(&engine);
    let file = disk.path().join("recording");
    let words = ["--container", &subject.name, "--measure-interval", "20us", "--json", "--measurement-file"];
    let measure = Measure::start(&place, &[&words[..], &[file.to_str().unwrap()]].concat());
    wait_for_samples(&file, 1);
    wait_until_stuck(&file);
    measure.signal(Signal::SIGTERM);
    let ended = measure.wait();
    let ended = ended.expect(1, &["No space left", "samples are missing"]);
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let target = &told["targets"][0];
    let number = |key: &str| target[key].as_u64().unwrap();
    assert_eq!(number("taken_ticks") + number("missed_ticks"), number("planned_ticks"));
    assert!(number("lost_samples") > 0, "{target}");
    assert!(told["warnings"][0].as_str().unwrap().contains("No space left"), "{told}");
    let recording = Recording::open(&file).unwrap();
    assert_adds_up(&recording.targets[0]);
    assert_eq!(
        recording.targets[0].taken - recording.targets[0].lost,
        number("taken_ticks") - number("lost_samples")
    );
}

#[test]
fn wrong_words_are_refused_before_anything_is_sampled() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-wrong");
    let subject = Subject::idle(&engine);
    let folder = place.path("").display().to_string();
    let pipe = place.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pipe = pipe.display().to_string();
    let cases: [(&[&str], &str); 19] = [
        (&[], "nothing to sample"),
        (&["--pid", "1", "--cpu", "1023"], "--cpu 1023 cannot be had: the sampling thread may run on"),
        (&["--container", "no-such-container"], "no-such-container"),
        (&["--container-id", ""], "cannot be empty"),
        (&["--pid", "0"], "at least 1"),
        (&["--pid", "8388608"], "8388608"),
        (&["--container", &subject.name, "--measure-interval", "-1"], "means not to sample"),
        (&["--container", &subject.name, "--measure-interval", "0"], "between 20 µs and 24 h"),
        (&["--container", &subject.name, "--measure-interval", "10us"], "between 20 µs and 24 h"),
        (&["--container", &subject.name, "--measure-interval", "often"], "write one such as 1ms"),
        (&["--container", &subject.name, "--duration", "0"], "no time to sample"),
        (&["--container", &subject.name, "--duration", "long"], "write one such as 90s"),
        (&["--container", &subject.name, "--format", "csv"], "`recording` or `sebs`"),
        (&["--container", &subject.name, "--format", "sebs"], "needs --measurement-file"),
        (&["--container", &subject.name, "--source", "guess"], "`auto`, `cgroup` or `engine`"),
        (&["--pid", "1", "--source", "engine"], "by its cgroup alone"),
        (&["--container", &subject.name, "--measurement-file", &folder], "it is a folder"),
        (&["--container", &subject.name, "--measurement-file", &pipe], "it is a pipe"),
        (&["--container", &subject.name, "--measurement-file", "none/file"], "folder is not there"),
    ];
    for (words, text) in cases {
        let ended = place.run(&[&["measure"], words].concat()).expect(2, &[text]);
        assert_eq!(ended.stdout, "", "{words:?}");
    }
    // Nothing on standard output is what tells the program that started it.
    let ended =
        place.run(&["measure", "--detach", "--container", "no-such-container"]).expect(2, &["no-such"]);
    assert_eq!(ended.stdout, "");
}

/// Runs `measure --detach` as a child of a shell that ends at once; gives the line it printed.
fn detached(place: &Place, words: &[&str]) -> BTreeMap<String, Value> {
    let line = place.path("line");
    let script = format!("\"$0\" \"$@\" > {} 2> {} &", line.display(), place.path("log").display());
    let program = place.command(&[&["measure", "--detach"], words].concat());
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(script)
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(place.path(""));
    let status = shell.stdin(Stdio::null()).process_group(0).status().unwrap();
    assert!(status.success());
    wait_until("the line", || {
        let log = fs::read_to_string(place.path("log")).unwrap_or_default();
        assert!(!log.contains("sebs-lite:"), "{log}");
        fs::read_to_string(&line).unwrap_or_default().ends_with('\n')
    });
    let text = fs::read_to_string(&line).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_detached_one_outlives_who_started_it_and_says_who_it_is() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-detach");
    let (subject, other) = (Subject::idle(&engine), Subject::idle(&engine));
    let file: PathBuf = place.path("recording");
    let words = ["--container", &subject.name, "--container", &other.name, "--measure-interval", "2ms"];
    let line = detached(&place, &[&words[..], &["--measurement-file", file.to_str().unwrap()]].concat());
    let pid = Pid::from_raw(line["pid"].as_i64().unwrap() as i32);
    assert_eq!(getsid(Some(pid)).unwrap(), pid);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start_ticks = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_string();
    assert_eq!(line["start_ticks"].to_string(), start_ticks);
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(line["boot_id"], boot_id.trim());
    assert_eq!((&line["interval_ns"], &line["warnings"]), (&2_000_000.into(), &Value::Array(Vec::new())));
    assert_eq!(line.len(), 5);
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/1")).unwrap(), Path::new("/dev/null"));
    wait_for_samples(&file, 100);
    // Its group and its session are its own: what ends those of the shell is not heard.
    kill(pid, Signal::SIGTERM).unwrap();
    wait_until("the end of the recording", || Recording::open(&file).unwrap().end.is_some());
    let recording = Recording::open(&file).unwrap();
    assert_eq!(recording.targets.len(), 2);
    recording.targets.iter().for_each(assert_adds_up);
    assert!(recording.targets.iter().all(|target| target.ending == Some(Ending::Stopped)));
    assert_eq!(fs::read_to_string(place.path("line")).unwrap().lines().count(), 1);
}
