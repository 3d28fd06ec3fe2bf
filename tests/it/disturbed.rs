//! What somebody does to an instance's container behind the platform's back, in each of its states.

use std::process::Command;
use std::time::Duration;

use sebs_lite::docker::{Engine, Scope};
use sebs_lite::faas::{FunctionConfig, StartKind, System};
use sebs_lite::local::{AddressMode, LocalOptions};

use crate::program::Place;
use crate::served::{Gate, Served, WAITS_AT_GATE, prepared};
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

#[test]
fn an_idle_instance_that_was_disturbed_is_named_and_the_next_invocation_gets_another() {
    let Some(engine) = support::engine() else { return };
    let mut served = served(&engine);
    for (disturb, reason) in DISTURBANCES {
        let result = served.local.invoke(&mut served.function, "{}").unwrap();
        assert!(!result.stats.failure, "{:?}", result.invocation.error);
        let id = served.function.instances[0].instance_id.clone();
        disturb(&engine, &id);
        let result = served.local.invoke(&mut served.function, "{}").unwrap();
        let error = result.invocation.error.unwrap_or_default();
        assert!(result.stats.failure && error.contains(reason), "{reason}: {error}");
        assert!(served.function.instances.iter().all(|instance| instance.instance_id != id));
        assert!(engine.inspect_container(&id).unwrap_err().is_not_found(), "{reason}");
    }
    served.end(&engine);
}

#[test]
fn an_instance_that_was_disturbed_at_work_is_named_and_the_next_invocation_gets_another() {
    let Some(engine) = support::engine() else { return };
    let mut served = served(&engine);
    let gate = Gate::open();
    let event = gate.event();
    for (disturb, reason) in DISTURBANCES {
        let result = served.local.invoke(&mut served.function, "{}").unwrap();
        assert!(!result.stats.failure, "{:?}", result.invocation.error);
        let id = served.function.instances[0].instance_id.clone();
        let invoker = served.local.invoker(&served.function);
        let result = std::thread::scope(|scope| {
            let invocation = scope.spawn(|| invoker.invoke(&event, StartKind::Any).unwrap());
            let _waiting = gate.arrival();
            disturb(&engine, &id);
            invocation.join().unwrap()
        });
        let error = result.invocation.error.unwrap_or_default();
        assert!(result.stats.failure && error.contains(reason), "{reason}: {error}");
        assert!(engine.inspect_container(&id).unwrap_err().is_not_found(), "{reason}");
    }
    served.end(&engine);
}

#[test]
fn an_instance_that_was_disturbed_while_it_came_up_is_an_error_and_is_gone() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("coming-up");
    // What the interpreter reads before its program: the server is not up for long.
    place.write("function-of-a-test/python/sitecustomize.py", "import time\ntime.sleep(60)\n");
    // An address that a container loses may at once be another's, which answers: that is seen by who invokes.
    let reasons = [
        Some("ended with exit code 137 before it answered"),
        Some("it is paused"),
        None,
        Some("before it answered"),
    ];
    for ((disturb, _), reason) in DISTURBANCES.into_iter().zip(reasons) {
        let Some(reason) = reason else { continue };
        let options = LocalOptions {
            address: AddressMode::Bridge,
            start_timeout: Duration::from_secs(4),
            env: vec![("PYTHONPATH".to_string(), "/function/function".to_string())],
            ..LocalOptions::default()
        };
        let (package, mut local) = prepared(&engine, &place, WAITS_AT_GATE, options);
        let name = support::unique("coming-up");
        let config = FunctionConfig::from_package(&package);
        let error = std::thread::scope(|scope| {
            let created =
                scope.spawn(|| local.create_function(&package, &name, &config).unwrap_err().to_string());
            let id = loop {
                let running = engine.list_containers(&["sebs-lite=1"], Scope::Running).unwrap();
                let own = running.into_iter().find(|one| one.names.iter().any(|own| own.starts_with(&name)));
                if let Some(own) = own {
                    break own.id;
                }
                assert!(!created.is_finished(), "{}", created.join().unwrap());
            };
            disturb(&engine, &id);
            created.join().unwrap()
        });
        assert!(error.contains(reason) && error.contains(&name), "{reason}: {error}");
        assert_eq!(support::containers(&engine, &name), [""; 0], "{error}");
        local.shutdown().unwrap();
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
    assert!(error.contains("for want of memory") && error.contains("limit of 128 MB"), "{error}");
    let kills: Vec<_> = results.iter().map(|result| result.invocation.oom_kills).collect();
    assert_eq!(kills, [Some(0), Some(1), Some(0)]);
    let failed: Vec<_> = results.iter().map(|result| result.stats.failure).collect();
    assert_eq!(failed, [false, true, false]);
    let metrics = served.local.download_metrics(&served.function, &mut results.iter_mut()).unwrap();
    assert_eq!(metrics["instances"][0]["oom_kills"], 1, "{metrics:?}");
    served.end(&engine);
}
