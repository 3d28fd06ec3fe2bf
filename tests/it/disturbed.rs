//! What somebody does to an instance's container behind the platform's back, in each of its states.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use sebs_lite::docker::{Engine, Scope};
use sebs_lite::faas::{ExecutionResult, FunctionConfig, StartKind, System};
use sebs_lite::local::{AddressMode, LocalOptions};

use crate::deployment::ECHO;
use crate::engine_restart::COMES_UP_AT_GATE;
use crate::logged::logged_by;
use crate::networks::{TestNetwork, docker, on};
use crate::program::{Ended, Place, function, words};
use crate::served::{Gate, Served, WAITS_AT_GATE, let_go, prepared};
use crate::support;

/// What is done, and what the invocation then says.
type Disturbance = (fn(&Engine, &str), &'static str);

const DISTURBANCES: [Disturbance; 4] = [
    (|engine, id| engine.kill_container(id, "SIGKILL").unwrap(), "signal 9"),
    (|engine, id| engine.pause_container(id).unwrap(), "its container is paused"),
    // It was disconnected, or its address is another's by now.
    (|_, id| disconnect(id), "its container "),
    (|engine, id| engine.remove_container(id).unwrap(), "its container is gone"),
];

fn disconnect(id: &str) {
    let done = Command::new("docker").args(["network", "disconnect", "-f", "bridge", id]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn served(engine: &Engine) -> Served {
    let options = LocalOptions { address: AddressMode::Bridge, ..LocalOptions::default() };
    let mut served = Served::start(engine, WAITS_AT_GATE, options);
    let short = FunctionConfig { timeout: 3, ..served.config.clone() };
    served.local.update_function_configuration(&mut served.function, &served.package, &short).unwrap();
    served
}

/// An invocation whose instance is disturbed while its handler waits at the gate, which has to name the disturbance.
fn disturbed_at_work(
    engine: &Engine,
    served: &Served,
    gate: &Gate,
    (disturb, reason): Disturbance,
) -> ExecutionResult {
    let (id, event) = (&served.function.instances[0].instance_id, gate.event());
    let invoker = served.local.invoker(&served.function);
    let result = std::thread::scope(|scope| {
        let invocation = scope.spawn(|| invoker.invoke(&event, StartKind::Any).unwrap());
        let _waiting = gate.arrival();
        disturb(engine, id);
        invocation.join().unwrap()
    });
    let error = result.invocation.error.as_deref().unwrap_or_default();
    assert!(result.stats.failure && error.contains(reason), "{reason}: {error}");
    result
}

#[test]
fn an_idle_instance_that_was_disturbed_is_named_and_the_next_invocation_gets_another() {
    let Some(engine) = support::engine() else { return };
    let mut served = served(&engine);
    for (disturb, reason) in DISTURBANCES {
        let before = served.local.invoke(&mut served.function, "{}").unwrap();
        assert!(!before.stats.failure, "{:?}", before.invocation.error);
        let id = served.function.instances[0].instance_id.clone();
        disturb(&engine, &id);
        let mut next = None;
        let lines = logged_by(|| next = Some(served.local.invoke(&mut served.function, "{}").unwrap()));
        let result = next.unwrap();
        // One that has ended or is gone is known before it is invoked.
        if ["signal 9", "its container is gone"].contains(&reason) {
            let is_told = |line: &String| {
                line.contains(&format!("{}, idle since invocation {}: ", &id[..12], before.request_id))
                    && line.contains(reason)
                    && line.contains("so another takes its place")
            };
            assert!(lines.iter().any(is_told), "{reason}: {lines:#?}");
            assert!(!result.stats.failure && result.stats.cold_start, "{:?}", result.invocation.error);
            assert!(result.invocation.create_us.is_some() && result.invocation.oom_kills == Some(0));
            assert_ne!(result.invocation.instance_id.as_ref(), Some(&id));
        } else {
            let error = result.invocation.error.unwrap_or_default();
            assert!(result.stats.failure && error.contains(reason), "{reason}: {error}");
        }
        assert!(served.function.instances.iter().all(|instance| instance.instance_id != id));
        assert!(engine.inspect_container(&id).unwrap_err().is_not_found(), "{reason}");
    }
    served.end(&engine);
}

#[test]
fn an_idle_instance_that_the_kernel_killed_is_no_invocation_s_fault_and_the_next_gets_another() {
    let Some(engine) = support::engine() else { return };
    let code = "
import threading
held = []
def eat():
    while True:
        held.append(bytearray(8 << 20))
def handler(event):
    if event.get('eats'):
        threading.Timer(0.3, eat).start()
    return {'result': 0}
";
    let mut served = Served::start(&engine, code, LocalOptions::default());
    let first = served.local.invoke(&mut served.function, r#"{"eats": true}"#).unwrap();
    let id = first.invocation.instance_id.clone().unwrap();
    support::wait_until("it has ended", || !engine.inspect_container(&id).unwrap().state.running);
    let mut next = None;
    let lines = logged_by(|| next = Some(served.local.invoke(&mut served.function, "{}").unwrap()));
    let second = next.unwrap();
    let told =
        format!("idle since invocation {}: the kernel killed the function's process", first.request_id);
    assert!(lines.iter().any(|line| line.contains(&told) && line.contains("limit of 128 MiB")), "{lines:#?}");
    let mut results = [first, second];
    for result in &results {
        assert!(!result.stats.failure && result.stats.cold_start, "{:?}", result.invocation.error);
        assert_eq!(result.invocation.oom_kills, Some(0));
    }
    assert_ne!(results[1].invocation.instance_id, Some(id));
    let metrics = served.local.download_metrics(&served.function, &mut results.iter_mut()).unwrap();
    let kills: Vec<_> = (0..2).map(|number| metrics["instances"][number]["oom_kills"].as_u64()).collect();
    assert_eq!(kills, [Some(1), Some(0)], "{metrics:?}");
    assert_eq!((&metrics["cold"], &metrics["failed"]), (&2.into(), &0.into()), "{metrics:?}");
    served.end(&engine);
}

#[test]
fn an_instance_that_was_disturbed_at_work_is_named_and_the_next_invocation_gets_another() {
    let Some(engine) = support::engine() else { return };
    let mut served = served(&engine);
    let gate = Gate::open();
    for (disturb, reason) in DISTURBANCES {
        let result = served.local.invoke(&mut served.function, "{}").unwrap();
        assert!(!result.stats.failure, "{:?}", result.invocation.error);
        let id = served.function.instances[0].instance_id.clone();
        disturbed_at_work(&engine, &served, &gate, (disturb, reason));
        assert!(engine.inspect_container(&id).unwrap_err().is_not_found(), "{reason}");
    }
    served.end(&engine);
}

/// The ids of the containers that run for a function.
fn running(engine: &Engine, name: &str) -> Vec<String> {
    let running = engine.list_containers(&["sebs-lite=1"], Scope::Running).unwrap();
    let own = running.into_iter().filter(|one| one.names.iter().any(|own| own.starts_with(name)));
    own.map(|one| one.id).collect()
}

#[test]
fn instances_that_are_disturbed_each_time_they_come_up_are_an_error_and_are_gone() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("coming-up");
    // What the interpreter reads before its program: the server is not up for long.
    place.write("function-of-a-test/python/sitecustomize.py", "import time\ntime.sleep(60)\n");
    // An address that a container loses may at once be another's, which answers: that is seen by who invokes.
    let reasons = [
        Some(("ended with exit code 137 before it answered", 2)),
        Some(("it is paused", 1)),
        None,
        Some(("before it answered", 2)),
    ];
    for ((disturb, _), reason) in DISTURBANCES.into_iter().zip(reasons) {
        let Some((reason, starts)) = reason else { continue };
        let options = LocalOptions {
            address: AddressMode::Bridge,
            start_timeout: Duration::from_secs(4),
            env: vec![("PYTHONPATH".to_string(), "/function/function".to_string())],
            ..LocalOptions::default()
        };
        let (package, mut local) = prepared(&engine, &place, WAITS_AT_GATE, options);
        let name = support::unique("coming-up");
        let config = FunctionConfig::from_package(&package);
        let mut disturbed = HashSet::new();
        let error = std::thread::scope(|scope| {
            let created =
                scope.spawn(|| local.create_function(&package, &name, &config).unwrap_err().to_string());
            while !created.is_finished() {
                for id in running(&engine, &name) {
                    if disturbed.insert(id.clone()) {
                        disturb(&engine, &id);
                    }
                }
            }
            created.join().unwrap()
        });
        assert!(error.contains(reason) && error.contains(&name), "{reason}: {error}");
        assert_eq!(disturbed.len(), starts, "{error}");
        assert_eq!(support::containers(&engine, &name), [""; 0], "{error}");
        local.shutdown().unwrap();
    }
}

#[test]
fn an_instance_that_was_disturbed_while_it_came_up_is_started_again() {
    let Some(engine) = support::engine() else { return };
    let (place, network) = (Place::create("coming-up-once"), TestNetwork::create(&[]));
    place.write("function-of-a-test/python/sitecustomize.py", COMES_UP_AT_GATE);
    let disturbances: [Disturbance; 3] = [
        (
            |engine, id| engine.kill_container(id, "SIGKILL").unwrap(),
            "ended with exit code 137 before it answered",
        ),
        (|engine, id| engine.remove_container(id).unwrap(), "before it answered"),
        (take_off, "was disconnected from its network"),
    ];
    for (disturb, reason) in disturbances {
        let gate = Gate::open();
        let options = LocalOptions {
            env: [("PYTHONPATH", "/function/function".to_string()), ("GATE", gate.port().to_string())]
                .map(|(name, value)| (name.to_string(), value))
                .to_vec(),
            ..on(&network)
        };
        let (package, mut local) = prepared(&engine, &place, WAITS_AT_GATE, options);
        let name = support::unique("coming-up-once");
        let config = FunctionConfig::from_package(&package);
        let (mut function, lines) = std::thread::scope(|scope| {
            let created = scope.spawn(|| {
                let mut created = None;
                let lines = logged_by(|| created = Some(local.create_function(&package, &name, &config)));
                (created.unwrap().unwrap(), lines)
            });
            let _waiting = gate.arrival();
            disturb(&engine, &running(&engine, &name)[0]);
            let_go(gate.arrival());
            created.join().unwrap()
        });
        let is_told = |line: &String| line.contains(reason) && line.contains("so it is started again");
        assert!(lines.iter().any(is_told), "{reason}: {lines:#?}");
        // That the first one lost its address says nothing of addresses.
        assert!(!function.instances[0].url.starts_with("127.0.0.1"), "{reason}: {function:?}");
        let result = local.invoke(&mut function, "{}").unwrap();
        assert!(!result.stats.failure && result.stats.cold_start, "{:?}", result.invocation.error);
        assert_eq!(support::containers(&engine, &name).len(), 1);
        local.shutdown().unwrap();
    }
}

/// Takes a container off the network of a test's that it was put on.
fn take_off(engine: &Engine, id: &str) {
    let network = engine.inspect_container(id).unwrap().own_network().unwrap().to_string();
    docker(&["network", "disconnect", "-f", &network, id]);
}

#[test]
fn a_server_that_ends_by_itself_while_it_comes_up_is_an_error_at_once() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("ends");
    let benchmark = function(&place, "ends", ECHO);
    place.write("ends/python/sitecustomize.py", "import os\nos._exit(7)\n");
    let name = support::unique("ends");
    let words = words(&benchmark, &name, &["--env", "PYTHONPATH=/function/function"]);
    let ended = place.run(&words).expect(1, &["ended with exit code 7 before it answered"]);
    assert!(!ended.stderr.contains("started again"), "{}", ended.stderr);
    assert!(!place.path("experiments.json").exists());
    assert_eq!(support::containers(&engine, &name), [""; 0]);
}

#[test]
fn a_run_goes_on_after_a_start_that_was_disturbed_and_one_that_breaks_off_tells_all_of_what_it_made() {
    let Some(engine) = support::engine() else { return };
    for (disturbed_starts, exit_code, count) in [(1, 0, 3), (2, 1, 1)] {
        let (place, name, gate) = (Place::create("goes-on"), support::unique("goes-on"), Gate::open());
        let benchmark = function(&place, "echo", ECHO);
        place.write("echo/python/sitecustomize.py", COMES_UP_AT_GATE);
        let port = format!("GATE={}", gate.port());
        let environment = ["--env", "PYTHONPATH=/function/function", "--env", &port];
        let more = [&environment[..], &["--cold", "--repetitions", "3"]].concat();
        let child = place.spawn(&words(&benchmark, &name, &more));
        let_go(gate.arrival());
        for _ in 0..disturbed_starts {
            let _waiting = gate.arrival();
            let container = &support::containers(&engine, &name)[0];
            engine.remove_container(container).unwrap();
        }
        for _ in 1..count {
            let_go(gate.arrival());
        }
        let told = ["before it answered", "so it is started again", "results: "];
        Ended::from(child.wait_with_output().unwrap()).expect(exit_code, &told);
        let all = place.invocations();
        assert_eq!(all.len(), count);
        for invocation in &all {
            let times = &invocation["provider_times"];
            assert!(times["initialization"].as_u64() > Some(0), "{invocation}");
            assert_eq!(times["execution"], invocation["invocation"]["handler_us"]);
        }
        let metrics = &place.experiments()["_metrics"][&name];
        assert_eq!(metrics["cold"], count, "{metrics}");
        assert_eq!(metrics["instances"].as_array().unwrap().len(), count, "{metrics}");
        assert_eq!(support::containers(&engine, &name), [""; 0]);
    }
}

#[test]
fn without_a_time_out_an_instance_that_cannot_answer_any_more_fails_its_invocation() {
    let Some(engine) = support::engine() else { return };
    let options = LocalOptions {
        address: AddressMode::Bridge,
        patience: Duration::from_millis(200),
        ..LocalOptions::default()
    };
    let mut served = Served::start(&engine, WAITS_AT_GATE, options);
    let endless = FunctionConfig { timeout: 0, ..served.config.clone() };
    served.local.update_function_configuration(&mut served.function, &served.package, &endless).unwrap();
    let gate = Gate::open();
    // A paused one may go on: that is no end.
    for (disturb, reason) in DISTURBANCES.into_iter().filter(|(_, reason)| !reason.contains("paused")) {
        served.local.invoke(&mut served.function, "{}").unwrap();
        let result = disturbed_at_work(&engine, &served, &gate, (disturb, reason));
        assert_eq!(result.invocation.was_paused, None);
    }
    served.end(&engine);
}

#[test]
fn an_instance_that_is_paused_is_waited_for_and_its_times_are_marked() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("paused");
    let name = support::unique("paused");
    let benchmark = function(&place, "waits", WAITS_AT_GATE);
    let gate = Gate::open();
    let input = place.write("event.json", &gate.event()).display().to_string();
    let mut child = place.spawn(&words(&benchmark, &name, &["--input", &input, "--timeout", "0"]));
    let waiting = gate.arrival();
    let container = &support::containers(&engine, &name)[0];
    engine.pause_container(container).unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("is paused: its invocation waits")));
    engine.unpause_container(container).unwrap();
    let_go(waiting);
    lines.for_each(drop);
    Ended::from(child.wait_with_output().unwrap()).expect(0, &["its instance was paused meanwhile"]);
    assert_eq!(place.invocations()[0]["invocation"]["was_paused"], true);
}

#[test]
fn a_pause_that_no_look_saw_is_marked_and_one_before_or_after_is_not() {
    let Some(engine) = support::engine() else { return };
    let mut served = Served::start(&engine, WAITS_AT_GATE, LocalOptions::default());
    let (gate, invoker) = (Gate::open(), served.local.invoker(&served.function));
    let (id, event) = (served.function.instances[0].instance_id.clone(), gate.event());
    let moment = || std::thread::sleep(Duration::from_millis(150));
    let paused = || {
        engine.pause_container(&id).unwrap();
        moment();
        engine.unpause_container(&id).unwrap();
    };
    let marks = std::thread::scope(|scope| {
        let invoke = || {
            let result = invoker.invoke(&event, StartKind::Any).unwrap();
            assert!(!result.stats.failure, "{:?}", result.invocation.error);
            result.invocation.was_paused
        };
        let at_work = scope.spawn(invoke);
        let waiting = gate.arrival();
        paused();
        let_go(waiting);
        let at_work = at_work.join().unwrap();
        // It had been paused before it was invoked.
        engine.pause_container(&id).unwrap();
        let from_before = scope.spawn(invoke);
        moment();
        engine.unpause_container(&id).unwrap();
        let_go(gate.arrival());
        let from_before = from_before.join().unwrap();
        paused();
        let undisturbed = scope.spawn(invoke);
        let waiting = gate.arrival();
        moment();
        let_go(waiting);
        [at_work, from_before, undisturbed.join().unwrap()]
    });
    assert_eq!(marks, [Some(true), Some(true), None]);
    assert_eq!(served.local.invoke(&mut served.function, "{}").unwrap().invocation.was_paused, None);
    served.end(&engine);
}

/// A function that at its first invocation does nothing, at its second has a child that takes all memory, and at its third
/// takes it itself. What another test sends to an address that its container has lost does not count.
const EATERS: [(&str, &str); 2] = [
    (
        "python/function.py",
        "
import os
served = 0
def handler(event):
    global served
    if not event.get('counts'):
        return {}
    served += 1
    if served == 2:
        child = os.fork()
        if child == 0:
            eaten = bytearray(1 << 30)
        return {'result': os.WTERMSIG(os.waitpid(child, 0)[1])}
    if served == 3:
        eaten = bytearray(1 << 30)
    return {'result': 0}
",
    ),
    (
        "nodejs/function.js",
        "
const {spawnSync} = require('node:child_process');
let served = 0;
exports.handler = async (event) => {
    if (!event.counts) return {};
    served += 1;
    const eat = 'const eaten = []; for (;;) eaten.push(Buffer.alloc(8 << 20, 1));';
    if (served === 2) return {result: spawnSync(process.execPath, ['-e', eat]).signal === 'SIGKILL' ? 9 : 0};
    if (served === 3) eval(eat);
    return {result: 0};
};
",
    ),
];

#[test]
fn a_kill_for_memory_is_counted_be_it_of_a_child_or_of_the_server() {
    let Some(engine) = support::engine() else { return };
    let has_node = support::has_node();
    for (file, code) in EATERS {
        let language = file.split('/').next().unwrap();
        if language == "nodejs" && !has_node {
            continue;
        }
        let place = Place::create(&format!("eaten-{language}"));
        place.write(&format!("eater/{file}"), code);
        let config = r#"{"timeout": 60, "memory": 192, "languages": ["python", "nodejs"], "modules": []}"#;
        place.write("eater/config.json", config);
        let input = place.write("event.json", r#"{"counts": true}"#).display().to_string();
        let (benchmark, name) = (place.path("eater").display().to_string(), support::unique("eaten"));
        let told = [
            "invocation 2: the kernel killed a process of its instance for want of memory",
            "invocation 3 failed: the kernel killed the function's process for want of memory: it used more than its \
             memory limit of 192 MiB",
        ];
        let more = ["--language", language, "--input", &input, "--repetitions", "4"];
        place.run(&words(&benchmark, &name, &more)).expect(3, &told);
        let all = place.invocations();
        let kills: Vec<_> = all.iter().map(|one| one["invocation"]["oom_kills"].as_u64()).collect();
        assert_eq!(kills, [Some(0), Some(1), Some(1), Some(0)], "{language}");
        assert_eq!(all[1]["output"]["result"]["output"]["result"], 9);
        // No samples are asked for: it is the kernel's own peak.
        let peaks: Vec<_> = all.iter().map(|one| one["invocation"]["memory_peak_bytes"].as_u64()).collect();
        assert!(peaks[1] > Some(180 << 20) && peaks[1] <= Some(192 << 20), "{language}: {peaks:?}");
        assert!(peaks[0].max(peaks[3]) < Some(160 << 20), "{language}: {peaks:?}");
        assert_eq!(all[1]["invocation"]["memory_kernel_peak_bytes"].as_u64(), peaks[1]);
        assert!(all[1]["invocation"]["memory_source"].as_str().unwrap().starts_with("cgroup v"));
        let metrics = place.experiments()["_metrics"][&name]["instances"].clone();
        assert_eq!((&metrics[0]["oom_kills"], &metrics[1]["oom_kills"]), (&2.into(), &0.into()), "{metrics}");
        assert_eq!(support::containers(&engine, &name), [""; 0]);
    }
}

#[test]
fn a_function_that_the_kernel_killed_is_told_so_on_the_invocation_that_did_it() {
    let Some(engine) = support::engine() else { return };
    let code = "def handler(event):\n    held = bytearray(event.get('mib', 1) << 20)\n    return {'result': len(held)}\n";
    let mut served = Served::start(&engine, code, LocalOptions::default());
    let mut invoke = |event: &str| served.local.invoke(&mut served.function, event).unwrap();
    let mut results = [invoke("{}"), invoke(r#"{"mib": 1024}"#), invoke("{}")];
    let error = results[1].invocation.error.clone().unwrap();
    assert!(error.contains("for want of memory") && error.contains("limit of 128 MiB"), "{error}");
    let kills: Vec<_> = results.iter().map(|result| result.invocation.oom_kills).collect();
    assert_eq!(kills, [Some(0), Some(1), Some(0)]);
    let failed: Vec<_> = results.iter().map(|result| result.stats.failure).collect();
    assert_eq!(failed, [false, true, false]);
    let metrics = served.local.download_metrics(&served.function, &mut results.iter_mut()).unwrap();
    assert_eq!(metrics["instances"][0]["oom_kills"], 1, "{metrics:?}");
    served.end(&engine);
}
