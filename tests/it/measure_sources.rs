//! What `measure` reads: cgroups, the engine's readings, the kernel's peaks; and that SeBS reads what it writes.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::local::{Meter, MeterOptions};
use sebs_lite::probe::{Ending, Recording};
use serde_json::Value;

use crate::benchmark::python_image;
use crate::docker_faults::{FakeEngine, Reply};
use crate::measure::{MIB, Measure, NOISE, Subject, summary, wait_for_samples};
use crate::program::{Ended, Place};
use crate::sebs_text::read_as_sebs;
use crate::support::{engine, wait_until};

#[test]
fn a_process_is_sampled_by_its_cgroup_without_an_engine() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-pid");
    let subject = Subject::idle(&engine);
    let pid = engine.inspect_container(subject.id()).unwrap().state.pid.to_string();
    let file = place.path("recording");
    let mut command = place.command(&["measure", "--pid", &pid, "--duration", "300ms", "--json"]);
    command.arg("--measurement-file").arg(&file).env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let ended = Ended::from(command.output().unwrap()).expect(0, &["all of which is sampled", subject.id()]);
    assert_eq!(summary(&ended, &file)["targets"][0]["label"], format!("pid-{pid}"));
    // A container and a process of it are one thing to sample; another container is another.
    let other = Subject::idle(&engine);
    let words = ["measure", "--pid", &pid, "--container", &subject.name, "--container-id", other.id()];
    let ended = place.run(&[&words[..], &["--pid", &pid, "--duration", "300ms"]].concat());
    let ended = ended.expect(0, &["which is sampled already"]);
    assert_eq!(ended.stdout.matches("stopped").count(), 2, "{}", ended.stdout);
    drop(subject);
    place.run(&["measure", "--pid", &pid]).expect(2, &["has ended", &pid]);
    // A thread of the kernel, if this is where they are.
    if fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        place.run(&["measure", "--pid", "2"]).expect(1, &["process 2", "root cgroup"]);
    }
}

#[test]
fn sebs_reads_its_format() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-sebs");
    let subject = Subject::idle(&engine);
    let file = place.path("measurements");
    let words = ["measure", "--container-id", subject.id(), "--measure-interval", "1", "--duration", "1s"];
    let more = ["--format", "sebs", "--json", "--measurement-file", file.to_str().unwrap()];
    let ended = place.run(&[&words[..], &more[..]].concat()).expect(0, &[]);
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let (measurements, precision_errors) = read_as_sebs(&fs::read_to_string(&file).unwrap());
    assert_eq!(measurements.keys().collect::<Vec<_>>(), [subject.id()]);
    let series = &measurements[subject.id()];
    let target = &told["targets"][0];
    assert_eq!(Some(series.len() as u64), target["taken_ticks"].as_u64());
    assert_eq!(Some(precision_errors), target["missed_ticks"].as_u64());
    assert_eq!(series.iter().max().map(|peak| *peak as u64), target["peak_bytes"].as_u64());
    assert!(target["kernel_peak_bytes"].as_u64() >= target["peak_bytes"].as_u64(), "{target}");
}

#[test]
fn the_engine_s_readings_are_sampled_until_the_container_ends() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-engine");
    let subject = Subject::idle(&engine);
    let file = place.path("recording");
    let words = ["--container", &subject.name, "--source", "engine", "--measure-interval", "1", "--json"];
    let measure =
        Measure::start(&place, &[&words[..], &["--measurement-file", file.to_str().unwrap()]].concat());
    wait_for_samples(&file, 2);
    let cgroup = place.run(&["measure", "--container", &subject.name, "--duration", "300ms", "--json"]);
    let cgroup: Value = serde_json::from_str(&cgroup.expect(0, &[]).stdout).unwrap();
    engine.kill_container(subject.id(), "SIGKILL").unwrap();
    let told = summary(&measure.wait().expect(0, &["one reading a second"]), &file);
    let target = &told["targets"][0];
    assert_eq!(
        (&target["ending"], &told["header"]["interval_ns"]),
        (&"gone".into(), &1_000_000_000_u64.into())
    );
    assert_eq!(target["source"], "engine stats (one reading a second)");
    assert!(told["header"]["warnings"][0].as_str().unwrap().contains("not 1.000 ms"), "{told}");
    // The same counter by another way, page cache and all.
    let mean = |target: &Value| target["mean_bytes"].as_f64().unwrap();
    let difference = mean(target) - mean(&cgroup["targets"][0]);
    assert!(difference.abs() < NOISE as f64, "{target} {cgroup}");
    // One that does not run has no readings.
    place.run(&["measure", "--container", &subject.name, "--source", "engine"]).expect(1, &["does not run"]);
}

#[test]
fn the_engine_helps_where_the_cgroup_is_not_to_be_seen() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-elsewhere");
    let subject = Subject::idle(&engine);
    // As on a machine of its own: neither the container's process is there nor its cgroup.
    let elsewhere = |words: &[&str]| {
        let program = place.command(&[&["measure", "--container", &subject.name][..], words].concat());
        let mut command = Command::new("unshare");
        let hide = "mount -t tmpfs tmpfs /sys/fs/cgroup && exec \"$0\" \"$@\"";
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", hide]);
        command.arg(program.get_program()).args(program.get_args()).current_dir(place.path(""));
        Ended::from(command.stdin(Stdio::null()).output().unwrap())
    };
    let ended = elsewhere(&["--source", "cgroup", "--duration", "1s"]);
    if ended.stderr.contains("unshare") {
        eprintln!("SKIPPED: no namespaces can be made here: {}", ended.stderr);
        return;
    }
    ended.expect(1, &["failed to find the memory cgroup", "process namespace"]);
    let ended = elsewhere(&["--duration", "1500ms", "--json"]);
    let ended = ended.expect(0, &["the engine's one reading a second is taken instead"]);
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["targets"][0]["source"], "engine stats (one reading a second)");
    assert!(told["targets"][0]["mean_bytes"].as_f64() > Some(MIB as f64), "{told}");
    assert_eq!(told["header"].get("charge_batch_bytes"), None);
}

/// An engine of another machine with one container, whose process is none of this machine's.
fn remote(stats: fn() -> Reply) -> FakeEngine {
    // Beyond what the kernel gives out.
    const RUNNING: &str = r#"{"Id":"5eb5117e5eb5117e5eb5117e5eb5117e5eb5117e5eb5117e5eb5117e5eb5117e","Name":"/remote","Created":"","Image":"",
        "State":{"Status":"running","Running":true,"Pid":8388608}}"#;
    FakeEngine::start("1.41", move |request| match request.contains("/stats") {
        true => stats(),
        false => Reply::Json(200, RUNNING),
    })
}

#[test]
fn an_engine_that_is_lost_ends_the_series_and_one_that_cannot_help_is_told_with_why_it_was_asked() {
    let meter = || Meter::new(MeterOptions::new(Duration::from_millis(1)));
    let lost = remote(|| {
        Reply::Early("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"memory_stats\":{\"usage\":7}}".into())
    });
    let mut lonely = meter();
    lonely.attach_container(&lost.connect().unwrap(), "remote").unwrap();
    assert_eq!(lonely.header().unwrap().interval(), Duration::from_secs(1));
    wait_until("the end of the series", || lonely.active() == 0);
    let recording = lonely.stop().unwrap().unwrap();
    assert_eq!(recording.targets[0].ending, Some(Ending::Gone));

    let helpless = remote(|| Reply::Json(500, "{\"message\":\"no stats here\"}"));
    let error = meter().attach_container(&helpless.connect().unwrap(), "remote").unwrap_err().to_string();
    assert!(error.contains("process namespace") && error.contains("no stats here"), "{error}");

    let silent = remote(|| Reply::HeadAlone);
    let cancel = Cancel::new();
    let engine = Engine::connect_to(&silent.socket, &cancel).unwrap();
    let error = std::thread::scope(|scope| {
        let attaching = scope.spawn(|| meter().attach_container(&engine, "remote").unwrap_err());
        wait_until("the question", || silent.requests().iter().any(|request| request.contains("/stats")));
        cancel.trigger();
        attaching.join().unwrap()
    });
    assert!(error.is_cancelled(), "{error}");
}

/// Waits for SIGUSR1, takes 64 MiB for so many seconds, and waits again.
fn spike(engine: &Engine, hold_s: f64) -> Subject {
    let program = format!(
        "
import mmap, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print('ready', flush=True)
signal.sigwait([signal.SIGUSR1])
pages = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for offset in range(0, 64 << 20, mmap.PAGESIZE):
    pages[offset] = 1
time.sleep({hold_s})
pages.close()
print('over', flush=True)
time.sleep(600)
"
    );
    Subject::start(engine, &python_image(engine).id, &["python3", "-c", &program])
}

fn run_spike(engine: &Engine, subject: &Subject) {
    let wait_for = |word: &str| {
        let has_said = || engine.container_logs(subject.id(), None).unwrap().combined().contains(word);
        wait_until(word, has_said);
    };
    wait_for("ready");
    engine.kill_container(subject.id(), "SIGUSR1").unwrap();
    wait_for("over");
}

#[test]
fn a_spike_shows_in_the_samples_and_in_the_kernel_s_peak() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-spike");
    let subject = spike(&engine, 0.3);
    let file = place.path("recording");
    let words = ["--container", &subject.name, "--json", "--measurement-file", file.to_str().unwrap()];
    let measure = Measure::start(&place, &words);
    wait_for_samples(&file, 1);
    run_spike(&engine, &subject);
    measure.signal(Signal::SIGTERM);
    summary(&measure.wait().expect(0, &[]), &file);
    let target = Recording::open(&file).unwrap().targets.remove(0);
    let (profile, kernel_peak) = (target.profile.unwrap(), target.kernel_peak.unwrap());
    assert!(profile.peak.0 > 64 * MIB && profile.peak.0 < 64 * MIB + 16 * MIB, "{profile:?}");
    assert!(kernel_peak.0 + NOISE > profile.peak.0, "{kernel_peak:?} {profile:?}");
    assert!(profile.mean_bytes < 64.0 * MIB as f64);
}

#[test]
fn the_kernel_s_peak_sees_what_no_tick_meets() {
    let Some(engine) = engine() else { return };
    let place = Place::create("measure-peak");
    let subject = spike(&engine, 0.0);
    let file = place.path("recording");
    let words = ["--container", &subject.name, "--json", "--measure-interval", "1h", "--measurement-file"];
    let measure = Measure::start(&place, &[&words[..], &[file.to_str().unwrap()]].concat());
    wait_until("the recording's begin", || Recording::open(&file).is_ok());
    run_spike(&engine, &subject);
    measure.signal(Signal::SIGTERM);
    let told: Value = serde_json::from_str(&measure.wait().expect(0, &[]).stdout).unwrap();
    let target = &told["targets"][0];
    assert_eq!((&target["taken_ticks"], &target["peak_bytes"]), (&0.into(), &Value::Null));
    let peak = target["kernel_peak_bytes"].as_u64().unwrap();
    assert!(peak > 64 * MIB && peak < 64 * MIB + 16 * MIB, "{target}");
}
