//! Cold starts that are asked for: an instance for each, its phases, and a server that is asked whether it was one.

use std::collections::BTreeSet;

use sebs_lite::faas::{ExecutionResult, Load, StartKind, System};
use sebs_lite::local::LocalOptions;

use crate::heap;
use crate::program::{Place, error_of, function, words};
use crate::served::{Gate, Served, WAITS_AT_GATE, let_go};
use crate::support::{self, containers};

const QUICK: &str = "def handler(event):\n    return {'result': 1}\n";

#[test]
fn each_invocation_of_a_cold_run_has_an_instance_and_phases_of_its_own() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("cold");
    let name = support::unique("cold");
    let benchmark = function(&place, "cold", QUICK);
    let more = ["--cold", "--concurrency", "4", "--instances", "2", "--repetitions", "5", "--warmup", "1"];
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
    let range = counters.first().copied().zip(counters.last().copied()).unwrap();
    assert_eq!(
        (counters.len(), range.1 - range.0),
        (5, 4),
        "each has the number after another's: {counters:?}"
    );
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
    if !heap::is_alone() {
        return;
    }
    let mut served = Served::start(&engine, WAITS_AT_GATE, LocalOptions::default());
    let gate = Gate::open();
    let event = gate.event();
    let load = Load { payload: &event, count: 40, concurrency: 8, start: StartKind::Cold };
    let rounds = std::thread::scope(|scope| {
        // Eight are at work, and all before them are gone.
        let measured = scope.spawn(|| [(); 5].map(|()| at_work(&gate)));
        let mut sink = |result: ExecutionResult| {
            assert!(result.stats.cold_start && !result.stats.failure, "{:?}", result.invocation.error);
            Ok(())
        };
        served.local.invoke_many(&mut served.function, &load, &mut sink).unwrap();
        measured.join().unwrap()
    });
    for (_, open_files) in rounds {
        // Ten counters of each are open: forty would have hundreds.
        assert!(open_files < 150, "{rounds:?}");
    }
    // What is noted of an instance for its metrics stays, some 300 bytes.
    assert!(rounds[4].0 < rounds[1].0 + 24 * 1024, "{rounds:?}");
    let tally = served.local.tally(&served.function);
    assert_eq!((tally.cold, tally.started, tally.removed), (40, 40, 40));
    let metrics = served.local.download_metrics(&served.function, &mut std::iter::empty()).unwrap();
    assert_eq!(metrics["instances"].as_array().unwrap().len(), 40);
    assert_eq!(served.containers(&engine), [""; 0]);
    served.end(&engine);
}

/// Waits until eight handlers are at work, reads the bytes of the heap in use and the number of open files, and lets
/// the eight go.
fn at_work(gate: &Gate) -> (usize, usize) {
    let waiting = [(); 8].map(|()| gate.arrival());
    let open_files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let measured = (heap::bytes_in_use(), open_files);
    waiting.into_iter().for_each(let_go);
    measured
}
