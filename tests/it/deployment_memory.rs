//! `local start --measure-interval`: the process that samples a deployment, and what `local stop` makes of its samples.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::local::{Local, LocalOptions, MeterOptions};
use sebs_lite::probe::{Output, Recording};
use sebs_lite::process::Identity;
use serde_json::Value;

use crate::deployment::{ECHO, invoke, start};
use crate::program::{Ended, Place, function, read_json};
use crate::support::{self, containers, wait_until};

/// The deployment that was started, its process that samples, and the file of that.
fn measured(place: &Place) -> (Value, Identity, PathBuf) {
    let deployment = read_json(&place.path("out/d.json"));
    let measurements = &deployment["memory_measurements"];
    let identity: Identity = serde_json::from_value(measurements["processes"][0].clone()).unwrap();
    assert_eq!(measurements["pids"], serde_json::json!([identity.pid]));
    assert!(identity.is_alive());
    let file = PathBuf::from(measurements["file"].as_str().unwrap());
    (deployment, identity, file)
}

fn ids(deployment: &Value) -> Vec<String> {
    let functions = deployment["functions"].as_array().unwrap().iter();
    functions.map(|function| function["instance_id"].as_str().unwrap().to_string()).collect()
}

/// Waits until there are samples in the file, which the process writes once a second at least.
fn wait_for_samples(file: &Path) {
    wait_until("there are samples", || {
        Recording::open(file).is_ok_and(|recording| {
            recording.targets.len() == 2 && recording.targets.iter().all(|target| target.taken > 0)
        })
    });
}

#[test]
fn one_process_samples_all_instances_until_they_are_stopped() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("measured"), support::unique("measured"));
    let benchmark = function(&place, "echo", ECHO);
    let more = ["--deployments", "2", "--measure-interval", "1ms"];
    place.run(&start(&benchmark, &name, &more)).expect(0, &["every 1.000 ms"]);
    let (deployment, identity, file) = measured(&place);
    assert!(file.is_absolute() && file.parent() == place.path("out").canonicalize().ok().as_deref());
    assert_eq!(deployment["memory_measurements"]["interval_ns"], 1_000_000);
    place.run(&["local", "status", "out/d.json"]).expect(0, &["alive", "recording"]);
    invoke(deployment["functions"][0]["url"].as_str().unwrap(), "{}");
    wait_for_samples(&file);

    let stop = ["local", "stop", "out/d.json", "out/stats.json"];
    let ended = place.run(&stop).expect(0, &["removed", "mean memory", "out/stats.json"]);
    assert!(!ended.stderr.contains("warn"), "{}", ended.stderr);
    assert!(!identity.is_alive());
    assert_eq!(containers(&engine, &name), [""; 0]);
    assert!(Recording::open(&file).unwrap().end.is_some());
    assert!(!PathBuf::from(format!("{}.log", file.display())).exists());
    let stats = read_json(&place.path("out/stats.json"));
    for id in ids(&deployment) {
        let taken = stats[&id]["number of measurements"].as_u64().unwrap();
        assert!(taken > 0, "{stats}");
        assert_eq!(stats[&id]["full profile (in bytes)"].as_array().unwrap().len() as u64, taken);
        let mean = stats[&id]["mean mem. usage"].as_str().unwrap();
        assert!(mean.strip_suffix(" MB").unwrap().parse::<f64>().unwrap() > 1.0, "{mean}");
        assert_eq!(stats[&id]["interval_ns"], 1_000_000);
    }
    let again = place.run(&[&stop[..], &["--json"]].concat()).expect(0, &["\"end\": \"gone\""]);
    assert_eq!(read_json(&place.path("out/stats.json")), stats);
    let told: Value = serde_json::from_str(&again.stdout).unwrap();
    let first = &told["memory"][&ids(&deployment)[0]];
    assert!(first["number of measurements"].is_u64() && first.get("timestamps_ns").is_none(), "{told}");
    // The next deployment of that file keeps the recording of this one.
    place.run(&start(&benchmark, &name, &["--measure-interval", "1"])).expect(0, &[]);
    assert_ne!(measured(&place).2, file);
    place.run(&stop).expect(0, &[]);
    assert!(file.exists());
}

#[test]
fn a_probe_that_was_killed_is_told_of_and_its_samples_are_not_lost() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("probe-killed"), support::unique("probe-killed"));
    let benchmark = function(&place, "echo", ECHO);
    let more = ["--deployments", "2", "--measure-interval", "1"];
    place.run(&start(&benchmark, &name, &more)).expect(0, &[]);
    let (deployment, identity, file) = measured(&place);
    wait_for_samples(&file);
    kill(Pid::from_raw(identity.pid), Signal::SIGKILL).unwrap();
    wait_until("the process is gone", || !identity.is_alive());
    let log = format!("{}.log", file.display());
    std::fs::write(&log, "warn: the disk is full\n").unwrap();
    let told = ["sampling:    killed", "running", &format!("warnings:    {log}")];
    place.run(&["local", "status", "out/d.json"]).expect(3, &told);
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["was killed", "removed", &log]);
    let stats = read_json(&place.path("memory_stats.json"));
    assert!(ids(&deployment).iter().all(|id| stats[id]["number of measurements"].as_u64() > Some(0)));
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_probe_that_the_file_does_not_name_is_found_by_the_file_it_writes() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("probe-lost"), support::unique("probe-lost"));
    let benchmark = function(&place, "echo", ECHO);
    place.run(&start(&benchmark, &name, &["--measure-interval", "1"])).expect(0, &[]);
    let (mut deployment, identity, _) = measured(&place);
    // As a `local start` leaves it that is killed before it has written which process it started.
    deployment["memory_measurements"]["pids"] = serde_json::json!([]);
    deployment["memory_measurements"]["processes"] = serde_json::json!([]);
    std::fs::write(place.path("out/d.json"), deployment.to_string()).unwrap();
    place.run(&start(&benchmark, &name, &[])).expect(1, &["still runs"]);
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["memory_stats.json"]);
    assert!(!identity.is_alive());
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn the_sampling_ends_and_its_statistics_are_written_even_if_the_engine_is_gone() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("engine-gone"), support::unique("engine-gone"));
    let benchmark = function(&place, "echo", ECHO);
    let more = ["--deployments", "2", "--measure-interval", "1"];
    place.run(&start(&benchmark, &name, &more)).expect(0, &[]);
    let (deployment, identity, file) = measured(&place);
    wait_for_samples(&file);
    let mut stop = place.command(&["local", "stop", "out/d.json"]);
    let ended = Ended::from(stop.env("DOCKER_HOST", "unix:///no/such/socket").output().unwrap());
    ended.expect(1, &["failed", "mean memory", "no Docker engine"]);
    assert!(!identity.is_alive());
    let stats = read_json(&place.path("memory_stats.json"));
    assert!(ids(&deployment).iter().all(|id| stats[id]["number of measurements"].as_u64() > Some(0)));
    assert!(read_json(&place.path("out/d.json")).get("stopped_at").is_none());
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["removed"]);
    assert_eq!(read_json(&place.path("memory_stats.json")), stats);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_platform_says_how_it_samples() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("says");
    let cancel = Cancel::new();
    let local = |measure: Option<MeterOptions>| {
        let cache = Cache::open(&place.path("cache"), &cancel).unwrap();
        let options = LocalOptions { measure, ..LocalOptions::default() };
        Local::new(engine.without_cancel(), cache, options, &cancel).unwrap()
    };
    let off = local(None);
    assert_eq!(
        (off.measurements_enabled(), off.measure_interval(), off.measurement_path()),
        (false, None, None)
    );
    let interval = Duration::from_micros(100);
    let output = Output::Stream(place.path("x.recording"));
    let on = local(Some(MeterOptions { output, ..MeterOptions::new(interval) }));
    assert_eq!((on.measurements_enabled(), on.measure_interval()), (true, Some(interval)));
    assert_eq!(on.measurement_path(), Some(place.path("x.recording").as_path()));
}

/// What SeBS's own `local stop` makes of a measurement file, step by step as its code does.
fn as_sebs_reads(text: &str) -> (BTreeMap<String, Vec<u64>>, u64) {
    let (mut measurements, mut precision_errors) = (BTreeMap::<String, Vec<u64>>::new(), 0);
    for line in text.split_inclusive('\n') {
        if line == "precision not met\n" {
            precision_errors += 1;
        }
        let content: Vec<&str> = line.split_whitespace().collect();
        if content.is_empty() {
            continue;
        }
        // Where it would fail with an IndexError.
        assert!(content.len() > 1, "{line}");
        let Ok(bytes) = content[1].parse() else { continue };
        measurements.entry(content[0].to_string()).or_default().push(bytes);
    }
    (measurements, precision_errors)
}

#[test]
fn sebs_own_stop_can_read_what_is_written_for_it_even_before_the_process_has_ended() {
    let Some(_) = support::engine() else { return };
    let (place, name) = (Place::create("as-sebs"), support::unique("as-sebs"));
    let benchmark = function(&place, "echo", ECHO);
    let more = ["--deployments", "2", "--measure-interval", "1", "--format", "sebs"];
    place.run(&start(&benchmark, &name, &more)).expect(0, &[".txt"]);
    let (deployment, identity, file) = measured(&place);
    let ids = ids(&deployment);
    let read = || as_sebs_reads(&std::fs::read_to_string(&file).unwrap());
    wait_until("there are samples", || ids.iter().all(|id| read().0.contains_key(id)));
    // SeBS kills the process, and reads the file then.
    kill(Pid::from_raw(identity.pid), Signal::SIGKILL).unwrap();
    wait_until("the process is gone", || !identity.is_alive());
    let (measurements, precision_errors) = read();
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["removed"]);
    let stats = read_json(&place.path("memory_stats.json"));
    for id in &ids {
        assert_eq!(stats[id]["full profile (in bytes)"], serde_json::json!(measurements[id]));
    }
    assert_eq!(stats["precision_errors"].as_u64().unwrap_or(0), precision_errors);
    assert_eq!(measurements.len(), 2);
}
