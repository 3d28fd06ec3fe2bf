//! What `benchmark invoke --measure-interval` says of each invocation's memory.

use std::process::{Command, Stdio};

use serde_json::Value;

use sebs_lite::probe::{About, Ending, Recording};

use crate::program::{Ended, Place, function, words};
use crate::support;

const MIB: u64 = 1 << 20;

/// What an interpreter may take or give back between two invocations.
const NOISE: u64 = 4 * MIB;

/// Touches every page of some memory and gives it back at once, or after it has been held.
const ALLOCATE: &str = "
import mmap, time
def handler(event):
    mib = event.get('mib', 0)
    for _ in range(event.get('times', 1)):
        if mib:
            pages = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            try:
                pages.madvise(mmap.MADV_NOHUGEPAGE)
            except OSError:
                pass
            for offset in range(0, mib << 20, mmap.PAGESIZE):
                pages[offset] = 1
            time.sleep(event.get('hold_s', 0))
            pages.close()
    return {'result': mib}
";

fn number(invocation: &Value, key: &str) -> Option<u64> {
    invocation["invocation"][key].as_u64()
}

#[test]
fn each_invocation_has_its_own_peak_mean_samples_and_bill() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("attribution");
    let benchmark = function(&place, "allocate", ALLOCATE);
    let input = place.write("event.json", r#"{"mib": 32, "hold_s": 0.05}"#).display().to_string();
    let name = support::unique("attribution");
    let more = ["--input", &input, "--repetitions", "3", "--measure-interval", "1", "--memory", "256"];
    let ended = place.run(&words(&benchmark, &name, &more));
    let ended = ended.expect(0, &["memory sampled every 1.000 ms", "memory", "samples: memory-"]);
    let all = place.invocations();
    assert_eq!(all.len(), 3);
    for invocation in &all {
        let base = number(invocation, "memory_before_bytes").unwrap();
        let peak = number(invocation, "memory_peak_bytes").unwrap();
        assert!(peak.abs_diff(base + 32 * MIB) < NOISE, "{base} {peak}");
        assert_eq!(invocation["stats"]["memory_used"].as_f64().unwrap(), peak as f64 / 1e6);
        let samples = number(invocation, "memory_samples").unwrap();
        let client_us = invocation["times"]["client"].as_u64().unwrap();
        // One more than the ticks in it at most: a sample of the tick before may have been late.
        assert!(samples > 0 && samples <= client_us / 1000 + 2, "{samples} in {client_us} µs");
        let mean = invocation["invocation"]["memory_mean_bytes"].as_f64().unwrap();
        assert!(mean > base as f64 && mean < peak as f64, "{base} {mean} {peak}");
        assert!(number(invocation, "memory_anon_bytes") > Some(MIB));
        assert!(number(invocation, "memory_file_bytes").is_some());
        assert_eq!(number(invocation, "oom_kills"), Some(0));
        assert_eq!(invocation["invocation"]["overlapping"], false);
        assert!(invocation["invocation"]["memory_source"].as_str().unwrap().starts_with("cgroup v"));
        let handler_us = number(invocation, "handler_us").unwrap();
        assert_eq!(invocation["billing"]["_memory"], 256);
        assert_eq!(invocation["billing"]["_billed_time"], handler_us.div_ceil(1000));
        let gb_seconds = invocation["billing"]["_gb_seconds"].as_f64().unwrap();
        assert!((gb_seconds - 0.25 * handler_us.div_ceil(1000) as f64 / 1e3).abs() < 1e-9);
    }
    assert_eq!(all.iter().filter(|invocation| invocation["stats"]["cold_start"] == true).count(), 1);
    let measurement = &place.experiments()["measurement"];
    assert_eq!(measurement["interval_ns"], 1_000_000);
    assert_eq!(measurement["lost_samples"], 0);
    let file = place.path(measurement["recording"].as_str().unwrap());
    let recording = Recording::open(&file).unwrap();
    let target = &recording.targets[0];
    assert_eq!(recording.targets.len(), 1, "{}", ended.stderr);
    assert_eq!(target.label, all[0]["invocation"]["instance_id"].as_str().unwrap());
    assert_eq!(target.taken + target.missed, measurement["planned_ticks"].as_u64().unwrap());
    let notes = recording.notes().unwrap();
    let noted: Vec<(&str, Option<u64>)> = notes
        .iter()
        .filter_map(|note| match &note.about {
            About::Invocation { request_id, kernel_peak_bytes, .. } => {
                Some((request_id.as_str(), *kernel_peak_bytes))
            }
            _ => None,
        })
        .collect();
    let ids: Vec<_> = all
        .iter()
        .map(|invocation| {
            (invocation["request_id"].as_str().unwrap(), number(invocation, "memory_kernel_peak_bytes"))
        })
        .collect();
    assert_eq!(noted, ids);
    assert!(notes.iter().any(|note| matches!(note.about, About::Source { .. })));
    assert!(notes.iter().any(|note| matches!(note.about, About::KernelPeak { from_ns: Some(_), .. })));
}

#[test]
fn a_spike_that_no_tick_saw_is_in_the_peak_of_its_own_invocation_alone() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("spike");
    let benchmark = function(&place, "spike", ALLOCATE);
    let name = support::unique("spike");
    let spike = place.write("spike.json", r#"{"mib": 64}"#).display().to_string();
    let calm = place.write("calm.json", "{}").display().to_string();
    let invoke = |input: &str, output: &str| {
        let more = ["--input", input, "--measure-interval", "1h", "--keep", "--output-dir", output];
        place.run(&words(&benchmark, &name, &more)).expect(0, &[]);
        let path = place.path(output).join("experiments.json");
        let result = crate::program::read_json(&path);
        let invocations = result["_invocations"][&name].as_object().unwrap();
        invocations.values().next().unwrap().clone()
    };
    let spiked = invoke(&spike, "1");
    let calmed = invoke(&calm, "2");
    for container in support::containers(&engine, &name) {
        engine.remove_container(&container).unwrap();
    }
    assert_eq!(number(&spiked, "memory_samples"), Some(0));
    assert_eq!(spiked["invocation"].get("memory_mean_bytes"), None);
    let base = number(&spiked, "memory_before_bytes").unwrap();
    let peak = number(&spiked, "memory_peak_bytes").unwrap();
    assert!(peak >= base + 64 * MIB - NOISE, "{base} {peak}");
    assert_eq!(number(&spiked, "memory_kernel_peak_bytes"), Some(peak));
    let peak = number(&calmed, "memory_peak_bytes").unwrap();
    assert!(peak < base + 32 * MIB, "{base} {peak}");
}

#[test]
fn a_child_that_was_killed_for_memory_is_told_though_its_handler_succeeded() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("child-killed");
    let code = "
import os
def handler(event):
    child = os.fork()
    if child == 0:
        eaten = bytearray(512 << 20)
        os._exit(0)
    return {'result': os.WTERMSIG(os.waitpid(child, 0)[1])}
";
    let benchmark = function(&place, "eater", code);
    let name = support::unique("child-killed");
    let more = ["--memory", "64", "--measure-interval", "1ms"];
    let told = "the kernel killed a process of its instance for want of memory";
    place.run(&words(&benchmark, &name, &more)).expect(0, &[told]);
    let invocation = &place.invocations()[0];
    assert_eq!(number(invocation, "oom_kills"), Some(1));
    assert_eq!(invocation["output"]["result"]["output"]["result"], 9);
    let limit = 64 * MIB;
    let peak = number(invocation, "memory_peak_bytes").unwrap();
    // The kernel lets a process that it kills take a little more, so that it ends.
    assert!(peak <= limit + MIB && peak > limit - 4 * MIB, "{peak}");
}

#[test]
fn instances_that_die_are_sampled_up_to_their_end() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("dying");
    let code = "
import os, time
def handler(event):
    pages = bytearray(48 << 20)
    time.sleep(0.1)
    os._exit(7)
";
    let benchmark = function(&place, "dying", code);
    let name = support::unique("dying");
    let more = ["--repetitions", "8", "--measure-interval", "1ms"];
    // Few open files: what was opened of each must be closed once it is dead.
    let command = place.command(&words(&benchmark, &name, &more));
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 48; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args());
    limited.current_dir(place.path("")).env("SEBS_LITE_CACHE", place.path("cache")).stdin(Stdio::null());
    Ended::from(limited.output().unwrap()).expect(3, &["exit code 7"]);
    let all = place.invocations();
    for invocation in &all {
        assert!(number(invocation, "memory_peak_bytes").unwrap() > 48 * MIB, "{invocation}");
        assert!(number(invocation, "memory_samples").unwrap() > 0);
        assert_eq!(invocation["billing"]["_billed_time"], Value::Null);
    }
    assert_ne!(all[0]["invocation"]["instance_id"], all[1]["invocation"]["instance_id"]);
    let file = place.path(place.experiments()["measurement"]["recording"].as_str().unwrap());
    let endings: Vec<_> =
        Recording::open(&file).unwrap().targets.iter().map(|target| target.ending.unwrap()).collect();
    assert_eq!(endings, [Ending::Gone; 8]);
}

#[test]
fn an_interval_that_is_none_is_refused_and_minus_one_is_off() {
    let place = Place::create("interval");
    for wrong in ["0", "-2", "fast", "1us"] {
        let typed = format!("--measure-interval={wrong}");
        place
            .run(&["benchmark", "invoke", "110.dynamic-html", "test", &typed])
            .expect(2, &["--measure-interval", "1ms", "-1 means off"]);
    }
    place
        .run(&["benchmark", "invoke", "110.dynamic-html", "test", "--realtime", "--measure-interval", "-1"])
        .expect(2, &["--measure-interval"]);
}
