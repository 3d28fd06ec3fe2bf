//! Cold starts that are asked for: an instance for each, its phases, and a server that is asked whether it was one.

use std::collections::BTreeSet;
use std::process::Stdio;

use sebs_lite::faas::System;
use sebs_lite::local::LocalOptions;

use crate::program::{Ended, Place, error_of, function, words};
use crate::served::{Gate, Served, WAITS_AT_GATE, let_go};
use crate::support::{self, containers};

const QUICK: &str = "def handler(event):\n    return {'result': 1}\n";

#[test]
fn each_invocation_of_a_cold_run_has_an_instance_and_phases_of_its_own() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("cold");
    let name = support::unique("cold");
    let benchmark = function(&place, "cold", QUICK);
    let more = ["--cold", "--concurrency", "2", "--repetitions", "5", "--warmup", "1"];
    place.run(&words(&benchmark, &name, &more)).expect(0, &["engine start", "ready", "cold median"]);
    let all = place.invocations();
    let ids: BTreeSet<&str> =
        all.iter().map(|invocation| invocation["invocation"]["instance_id"].as_str().unwrap()).collect();
    assert_eq!((all.len(), ids.len()), (5, 5));
    let mut counters = BTreeSet::new();
    for invocation in &all {
        assert_eq!(invocation["stats"]["cold_start"], true);
        let part = |key: &str| invocation["invocation"][key].as_u64().unwrap();
        let parts = ["create_us", "start_us", "ready_us", "init_us"].map(part);
        assert!(parts.iter().all(|us| *us > 0), "{invocation}");
        assert_eq!(invocation["provider_times"]["initialization"], parts.iter().sum::<u64>());
        assert!(part("handler_us") < invocation["times"]["client"].as_u64().unwrap());
        counters.insert(part("cold_start_counter"));
    }
    assert!(counters.len() > 1, "{counters:?}");
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_cold_start_that_the_server_denies_has_failed() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("denied");
    let name = support::unique("denied");
    let code = "import __main__\n\
        honest = __main__.to_json\n\
        __main__.to_json = lambda reply: honest(dict(reply, is_cold=False))\n\
        def handler(event):\n    return {'result': 1}\n";
    let benchmark = function(&place, "denied", code);
    place.run(&words(&benchmark, &name, &["--cold"])).expect(3, &["it was to be a cold start"]);
    assert!(error_of(&place.invocations()[0]).contains("says that it was warm"));
    place.run(&words(&benchmark, &name, &[])).expect(0, &["warm"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_cold_run_that_is_kept_leaves_an_instance() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("cold-kept");
    let name = support::unique("cold-kept");
    let benchmark = function(&place, "kept", QUICK);
    place
        .run(&words(&benchmark, &name, &["--cold", "--repetitions", "2", "--keep"]))
        .expect(0, &["is kept at"]);
    let kept = containers(&engine, &name);
    assert_eq!(kept.len(), 1);
    place.run(&words(&benchmark, &name, &[])).expect(0, &["using it as it is"]);
    assert_eq!(containers(&engine, &name), kept);
    engine.remove_container(&kept[0]).unwrap();
}

#[test]
fn enforced_cold_starts_renew_all_that_tells_of_instances() {
    let Some(engine) = support::engine() else { return };
    let mut served = Served::start(&engine, WAITS_AT_GATE, LocalOptions::default());
    served.local.ensure_instances(&mut served.function, 2).unwrap();
    served.local.invoke(&mut served.function, "{}").unwrap();
    let (before, counter) = (served.function.clone(), served.local.cold_start_counter());
    served.local.enforce_cold_start(&mut served.function).unwrap();
    assert_eq!(served.local.cold_start_counter(), counter + 1);
    let function = &served.function;
    assert_eq!(function.instances.len(), 2);
    for instance in &function.instances {
        assert!(before.instances.iter().all(|old| old.instance_id != instance.instance_id));
        assert_eq!(instance.cold_start_counter, Some(counter + 1));
    }
    for old in &before.instances {
        assert!(engine.inspect_container(&old.instance_id).unwrap_err().is_not_found());
    }
    assert_eq!(function.triggers[0].url, function.instances[0].url);
    let result = served.local.invoke(&mut served.function, "{}").unwrap();
    assert!(result.stats.cold_start && !result.stats.failure);
    assert_eq!(result.invocation.cold_start_counter, Some(counter + 1));
    served.local.stop(&mut served.function).unwrap();
    assert_eq!(served.containers(&engine), [""; 0]);
    served.end(&engine);
}

#[test]
fn many_instances_come_and_go_and_nothing_of_them_stays() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("many");
    let name = support::unique("many");
    let benchmark = function(&place, "many", WAITS_AT_GATE);
    let gate = Gate::open();
    let input = place.write("event.json", &gate.event()).display().to_string();
    let more = ["--input", &input, "--cold", "--concurrency", "8", "--repetitions", "40", "--timeout", "60"];
    let mut command = place.command(&words(&benchmark, &name, &more));
    // Else each of the eight threads has a heap of its own, which takes some turns to reach its size.
    command.env("MALLOC_ARENA_MAX", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let mut resident = Vec::new();
    for _ in 0..5 {
        // Eight are at work, and all before them are gone.
        let waiting: Vec<_> = (0..8).map(|_| gate.arrival()).collect();
        resident.push(resident_bytes(child.id()));
        // Ten counters of each are open: forty would have hundreds.
        let open_files = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
        assert!(open_files < 150, "{open_files} files are open");
        waiting.into_iter().for_each(let_go);
    }
    Ended::from(child.wait_with_output().unwrap()).expect(0, &["40 instances were started"]);
    // What goes over a moment's need stays: in both of the last, with 16 instances more or 24.
    assert!(resident[3].min(resident[4]) < resident[1] + (1 << 20), "{resident:?}");
    let metrics = place.experiments()["_metrics"][&name].clone();
    for (key, count) in [("cold", 40), ("instances_started", 40), ("instances_removed", 40)] {
        assert_eq!(metrics[key], count, "{metrics}");
    }
    assert_eq!(metrics["instances"].as_array().unwrap().len(), 40);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
