//! Several invocations of one function at a time: a pool of instances that grows, shrinks, and is updated under load.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::faas::{FunctionConfig, Load, StartKind, System};
use sebs_lite::local::LocalOptions;

use crate::program::{Ended, Place, function, words};
use crate::served::{Gate, Served, WAITS_AT_GATE, let_go};
use crate::support::{self, containers};

#[test]
fn eight_instances_work_at_the_same_time_and_only_their_first_invocations_are_cold() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("eight");
    let name = support::unique("eight");
    let benchmark = function(&place, "eight", WAITS_AT_GATE);
    let gate = Gate::open();
    let input = place.write("event.json", &gate.event()).display().to_string();
    let more = [
        "--input",
        &input,
        "--deployments",
        "8",
        "--concurrency",
        "8",
        "--repetitions",
        "32",
        "--timeout",
        "60",
    ];
    let child = place.spawn(&words(&benchmark, &name, &more));
    // None of eight is let go before all eight are at work.
    (0..4).for_each(|_| gate.let_through(8));
    let told = "8 instances were started, 8 were there at a time";
    Ended::from(child.wait_with_output().unwrap()).expect(0, &[told]);
    let all = place.invocations();
    assert_eq!(all.len(), 32);
    let mut ids = BTreeSet::new();
    for invocation in &all {
        let is_first = ids.insert(invocation["invocation"]["instance_id"].as_str().unwrap().to_string());
        assert_eq!(invocation["stats"]["cold_start"], is_first, "{invocation}");
        assert_eq!(invocation["invocation"]["create_us"].is_u64(), is_first, "{invocation}");
    }
    assert_eq!(ids.len(), 8);
    let metrics = place.experiments()["_metrics"][&name].clone();
    assert_eq!((metrics["cold"].as_u64(), metrics["warm"].as_u64()), (Some(8), Some(24)));
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_pool_grows_to_its_limit_and_shrinks_to_none_when_nobody_needs_it() {
    let Some(engine) = support::engine() else { return };
    let options = LocalOptions {
        max_instances: Some(2),
        idle_timeout: Some(Duration::from_millis(300)),
        ..LocalOptions::default()
    };
    let mut served = Served::start(&engine, WAITS_AT_GATE, options);
    let gate = Gate::open();
    let invoker = served.local.invoker(&served.function);
    let event = gate.event();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..3).map(|_| scope.spawn(|| invoker.invoke(&event, StartKind::Any).unwrap())).collect();
        let waiting = [gate.arrival(), gate.arrival()];
        assert_eq!(served.containers(&engine).len(), 2, "the third invocation gets no instance of its own");
        waiting.into_iter().for_each(let_go);
        let_go(gate.arrival());
        for thread in threads {
            let result = thread.join().unwrap();
            assert!(!result.stats.failure, "{:?}", result.invocation.error);
            assert!(result.invocation.instance_wait_us.is_some());
        }
    });
    let tally = served.local.tally(&served.function);
    assert_eq!((tally.cold, tally.warm, tally.failed, tally.started), (2, 1, 0, 2));
    assert_eq!(tally.most_instances, 2);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !served.containers(&engine).is_empty() {
        assert!(Instant::now() < deadline, "idle instances stay");
        std::thread::sleep(Duration::from_millis(10));
    }
    let result = served.local.invoke(&mut served.function, "{}").unwrap();
    assert!(result.stats.cold_start && !result.stats.failure);
    served.end(&engine);
}

#[test]
fn a_run_that_is_interrupted_with_several_at_work_leaves_nothing() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("several-interrupted");
    let name = support::unique("several-interrupted");
    let benchmark = function(&place, "waits", WAITS_AT_GATE);
    let gate = Gate::open();
    let input = place.write("event.json", &gate.event()).display().to_string();
    let more = ["--input", &input, "--concurrency", "3", "--repetitions", "9", "--timeout", "60"];
    let child = place.spawn(&words(&benchmark, &name, &more));
    gate.let_through(3);
    let waiting = [gate.arrival(), gate.arrival(), gate.arrival()];
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let ended = child.wait_with_output().unwrap();
    drop(waiting);
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(place.invocations().len(), 3, "what was measured before is kept");
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn an_update_under_load_loses_no_invocation_and_leaves_no_old_instance() {
    let Some(engine) = support::engine() else { return };
    let mut served = Served::start(&engine, WAITS_AT_GATE, LocalOptions::default());
    let package = served.other_package(&engine, &WAITS_AT_GATE.replace("first", "second"));
    assert_ne!(package.hash, served.package.hash);
    let first = served.function.clone();
    let gate = Gate::open();
    let invoker = served.local.invoker(&served.function);
    let (is_updated, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let event = gate.event();
    std::thread::scope(|scope| {
        // One is at work as long as the update takes to come to it.
        let slow = scope.spawn(|| invoker.invoke(&event, StartKind::Any).unwrap());
        let waiting = gate.arrival();
        let quick: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut outputs = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        let was_updated = is_updated.load(Ordering::SeqCst);
                        let result = invoker.invoke("{}", StartKind::Any).unwrap();
                        assert!(!result.stats.failure, "{:?}", result.invocation.error);
                        outputs.push((was_updated, result.handler_output().unwrap().get().to_string()));
                    }
                    outputs
                })
            })
            .collect();
        let update = scope.spawn(|| {
            served.local.update_function(&mut served.function, &package, &served.config).unwrap();
            is_updated.store(true, Ordering::SeqCst);
        });
        // The update waits for the one that is at work: it is let go once an answer of the other code has come.
        loop {
            let result = invoker.invoke("{}", StartKind::Any).unwrap();
            if result.handler_output().unwrap().get().contains("second") {
                break;
            }
        }
        assert!(!update.is_finished());
        let_go(waiting);
        update.join().unwrap();
        is_over.store(true, Ordering::Relaxed);
        let result = slow.join().unwrap();
        assert!(result.handler_output().unwrap().get().contains("first"));
        assert!(!result.stats.failure);
        for thread in quick {
            for (was_updated, output) in thread.join().unwrap() {
                assert!(!was_updated || output.contains("second"), "old code after the update: {output}");
            }
        }
    });
    let function = &served.function;
    assert_eq!(function.code_package_hash, package.hash);
    let is_old = |id: &String| first.instances.iter().any(|instance| instance.instance_id == *id);
    assert!(!function.instances.iter().any(|instance| is_old(&instance.instance_id)));
    assert_eq!(function.triggers[0].url, function.instances[0].url);
    assert!(engine.inspect_container(&first.instances[0].instance_id).unwrap_err().is_not_found());
    served.end(&engine);
}

#[test]
fn limits_change_while_an_instance_lives_and_one_that_goes_takes_another_instance() {
    let Some(engine) = support::engine() else { return };
    let code =
        "import time\ndef handler(event):\n    time.sleep(event.get('s', 0))\n    return {'result': 1}\n";
    let mut served = Served::start(&engine, code, LocalOptions::default());
    let first = served.function.instances.clone();
    served.local.invoke(&mut served.function, "{}").unwrap();
    let changed = FunctionConfig {
        memory: 160,
        cpus: Some(0.5),
        cpuset: Some("0".to_string()),
        timeout: 1,
        ..served.config.clone()
    };
    served.local.update_function_configuration(&mut served.function, &served.package, &changed).unwrap();
    assert_eq!((&served.function.instances, &served.function.config), (&first, &changed));
    let limits = engine.inspect_container(&first[0].instance_id).unwrap().host_config;
    assert_eq!((limits.memory, limits.memory_swap), (160 << 20, 160 << 20));
    assert_eq!((limits.nano_cpus, limits.cpuset_cpus.as_str()), (500_000_000, "0"));
    let result = served.local.invoke(&mut served.function, "{}").unwrap();
    assert!(!result.stats.cold_start && !result.stats.failure, "{:?}", result.invocation.error);
    let result = served.local.invoke(&mut served.function, r#"{"s": 30}"#).unwrap();
    assert!(result.invocation.error.unwrap().contains("limit of 1 s"));
    served.local.invoke(&mut served.function, "{}").unwrap();
    let before = served.function.instances.clone();
    let lifted = FunctionConfig { cpus: None, ..changed };
    served.local.update_function_configuration(&mut served.function, &served.package, &lifted).unwrap();
    assert_ne!(served.function.instances, before);
    let id = &served.function.instances[0].instance_id;
    assert_eq!(engine.inspect_container(id).unwrap().host_config.nano_cpus, 0);
    // Less than it uses already: the instance that has it would be killed.
    let least = FunctionConfig { memory: 6, ..lifted };
    let before = served.function.instances.clone();
    let refused = served.local.update_function_configuration(&mut served.function, &served.package, &least);
    match refused {
        Ok(()) => assert_ne!(served.function.instances, before),
        Err(_) => assert_eq!(served.function.instances, before),
    }
    served.end(&engine);
}

#[test]
fn limits_that_change_under_load_hold_for_each_instance_from_then_on() {
    let Some(engine) = support::engine() else { return };
    let code = "import time\ndef handler(event):\n    time.sleep(0.01)\n    return {'result': 1}\n";
    let mut served = Served::start(&engine, code, LocalOptions::default());
    let invoker = served.local.invoker(&served.function);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let result = invoker.invoke("{}", StartKind::Any).unwrap();
                        assert!(!result.stats.failure, "{:?}", result.invocation.error);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                })
            })
            .collect();
        let checked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            for memory in (256..=400).step_by(12) {
                let config = FunctionConfig { memory, ..served.config.clone() };
                let function = &mut served.function;
                served.local.update_function_configuration(function, &served.package, &config).unwrap();
                let refused = FunctionConfig { cpuset: Some("4000".to_string()), memory: 500, ..config };
                served.local.update_function_configuration(function, &served.package, &refused).unwrap_err();
                assert_eq!(served.function.config.memory, memory);
                for name in served.containers(&engine) {
                    let limits = engine.inspect_container(&name).unwrap().host_config;
                    let told = (limits.memory, limits.cpuset_cpus.as_str());
                    assert_eq!(told, ((memory << 20) as i64, ""), "{name}");
                }
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        checked.unwrap();
    });
    let tally = served.local.tally(&served.function);
    // That none is to be had for a moment is no reason to start another.
    assert!(tally.started <= 3 && tally.failed == 0, "{tally:?}");
    served.end(&engine);
}

#[test]
fn limits_that_not_all_instances_can_have_are_taken_back_from_those_that_got_them() {
    let Some(engine) = support::engine() else { return };
    let options = LocalOptions { start_timeout: Duration::from_secs(10), ..LocalOptions::default() };
    let mut served = Served::start(&engine, WAITS_AT_GATE, options);
    served.local.ensure_instances(&mut served.function, 2).unwrap();
    let ids: Vec<String> = served.function.instances.iter().map(|one| one.instance_id.clone()).collect();
    engine.remove_container(&ids[1]).unwrap();
    // A server that runs lives with it; none starts.
    let config = FunctionConfig { pids_limit: 1, ..served.config.clone() };
    let refused = served.local.update_function_configuration(&mut served.function, &served.package, &config);
    refused.unwrap_err();
    assert_eq!(served.function.config, served.config);
    let limits = engine.inspect_container(&ids[0]).unwrap().host_config;
    assert_eq!(limits.pids_limit, Some(served.config.pids_limit as i64));
    let config = FunctionConfig { pids_limit: 80, ..config };
    served.local.update_function_configuration(&mut served.function, &served.package, &config).unwrap();
    let told: Vec<_> = served
        .containers(&engine)
        .iter()
        .map(|name| engine.inspect_container(name).unwrap().host_config.pids_limit)
        .collect();
    assert_eq!(told, [Some(80); 2]);
    assert!(!served.local.invoke(&mut served.function, "{}").unwrap().stats.failure);
    served.end(&engine);
}

#[test]
fn no_more_kept_instances_serve_at_a_time_than_there_may_be() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("surplus");
    let name = support::unique("surplus");
    let code = "import time\ndef handler(event):\n    time.sleep(0.2)\n    return {'result': 1}\n";
    let benchmark = function(&place, "surplus", code);
    place.run(&words(&benchmark, &name, &["--keep", "--deployments", "3"])).expect(0, &["is kept at"]);
    let kept: BTreeSet<String> = containers(&engine, &name).into_iter().collect();
    assert_eq!(kept.len(), 3);
    for limit in [1, 2] {
        let count = limit.to_string();
        let more = ["--instances", &count, "--concurrency", "3", "--repetitions", "6"];
        place.run(&words(&benchmark, &name, &more)).expect(0, &[]);
        let all = place.invocations();
        let times: Vec<(u64, u64)> = all
            .iter()
            .map(|invocation| {
                let begin = invocation["invocation"]["begin_monotonic_ns"].as_u64().unwrap();
                (begin, begin + invocation["times"]["client"].as_u64().unwrap() * 1000)
            })
            .collect();
        for (begin, _) in &times {
            let at_work = times.iter().filter(|(other, end)| other <= begin && begin < end).count();
            assert!(at_work <= limit, "{times:?}");
        }
        assert_eq!(place.experiments()["_metrics"][&name]["most_instances"], limit);
        // They were kept, and a later command may use them.
        assert_eq!(containers(&engine, &name).into_iter().collect::<BTreeSet<_>>(), kept);
    }
    kept.iter().for_each(|id| engine.remove_container(id).unwrap());
}

#[test]
fn the_time_that_instances_are_idle_begins_when_all_that_were_asked_for_are_there() {
    let Some(engine) = support::engine() else { return };
    let options = LocalOptions { idle_timeout: Some(Duration::from_secs(1)), ..LocalOptions::default() };
    let mut served = Served::start(&engine, WAITS_AT_GATE, options);
    let first = served.function.instances[0].instance_id.clone();
    let begin = Instant::now();
    served.local.ensure_instances(&mut served.function, 12).unwrap();
    let took = begin.elapsed();
    assert_eq!(served.function.instances.len(), 12, "{took:?}");
    assert_eq!(served.function.instances[0].instance_id, first, "{took:?}");
    support::wait_until("all have been idle long enough", || served.containers(&engine).is_empty());
    served.end(&engine);
}

#[test]
fn what_a_function_used_is_told_for_each_invocation_and_instance() {
    let Some(engine) = support::engine() else { return };
    let code = "import time\n\
        def handler(event):\n    \
            end = time.process_time() + 0.3\n    \
            while time.process_time() < end: pass\n    \
            return {'result': 1}\n";
    let mut served = Served::start(&engine, code, LocalOptions::default());
    let limited = FunctionConfig { cpus: Some(0.2), ..served.config.clone() };
    served.local.update_function_configuration(&mut served.function, &served.package, &limited).unwrap();
    let mut results = Vec::new();
    let load = Load { payload: "{}", count: 2, concurrency: 1, start: StartKind::Any };
    let take = &mut |result| {
        results.push(result);
        Ok(())
    };
    served.local.invoke_many(&mut served.function, &load, take).unwrap();
    let metrics = served.local.download_metrics(&served.function, &mut results.iter_mut()).unwrap();
    for result in &results {
        let invocation = &result.invocation;
        assert!(invocation.instance_cpu_us >= Some(250_000), "{invocation:?}");
        assert!(
            invocation.throttled_us > Some(0) && invocation.throttled_periods > Some(0),
            "{invocation:?}"
        );
        assert_eq!(invocation.oom_kills, Some(0));
        assert_eq!(result.provider_times.execution, invocation.handler_us);
        assert_eq!(result.billing.memory, Some(128));
        assert!(result.billing.gb_seconds > 0.0);
    }
    let cold = &results[0].invocation;
    let parts = [cold.create_us, cold.start_us, cold.ready_us, cold.init_us].map(Option::unwrap);
    assert_eq!(results[0].provider_times.initialization, Some(parts.iter().sum()));
    assert_eq!(results[1].provider_times.initialization, None);
    let instance = &metrics["instances"][0];
    assert_eq!((metrics["cold"].as_u64(), metrics["warm"].as_u64()), (Some(1), Some(1)));
    assert_eq!(instance["invocations"], 2);
    assert!(instance["cpu_us"].as_u64() >= Some(500_000), "{instance}");
    assert!(
        instance["throttled_us"].as_u64() > Some(0) && instance["memory_peak_bytes"].as_u64() > Some(1 << 20)
    );
    assert_eq!(instance["oom_kills"], 0);
    served.end(&engine);
}

#[test]
fn words_on_instances_that_contradict_each_other_are_refused() {
    let place = Place::create("contradiction");
    let run = |more: &[&str]| place.run(&[&["benchmark", "invoke", "010.sleep", "test"], more].concat());
    for flag in ["--concurrency", "--instances", "--deployments"] {
        run(&[flag, "0"]).expect(2, &[flag, "at least 1"]);
    }
    run(&["--deployments", "3", "--instances", "2"]).expect(2, &["--deployments 3", "--instances 2"]);
    run(&["--concurrency", "2", "--port", "7777"]).expect(2, &["--port"]);
    run(&["--idle-timeout", "5s", "--keep"]).expect(2, &["--idle-timeout", "--keep"]);
    run(&["--idle-timeout", "0"]).expect(2, &["--idle-timeout"]);
    run(&["--cpuset", "1-0"]).expect(2, &["--cpuset 1-0", "0-1,3"]);
    run(&["--cpu", "99999", "--measure-interval", "1ms"]).expect(2, &["--cpu 99999", "may run on 0"]);
    run(&["--cpuset", "0,65535"]).expect(2, &["--cpuset 0,65535", "no CPU", "it must be of 0"]);
}
