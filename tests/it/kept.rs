//! Kept functions: one command has one at a time, with the very variables that it asks for, and none is lost for another.

use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::faas::{CodePackage, Function, FunctionConfig, System};
use sebs_lite::local::{Inventory, Local, LocalOptions, ResourceKind, Standing};
use serde_json::{Value, json};

use crate::program::{Ended, Place, function, read_json, words};
use crate::served::{Gate, WAITS_AT_GATE, let_go, prepared};
use crate::support::{self, containers, unique};

/// What `resources list` says of a function and of its containers.
fn standings(engine: &Engine, place: &Place, name: &str) -> Vec<Standing> {
    let cache = Cache::open(&place.path("cache"), &Cancel::new()).unwrap();
    let items = Inventory::take(engine, &cache).unwrap().items.into_iter();
    let of_function = items.filter(|item| match item.kind {
        ResourceKind::Container => item.name.starts_with(name),
        ResourceKind::Function => item.name == name,
        _ => false,
    });
    of_function.map(|item| item.standing).collect()
}

fn removes(place: &Place, engine: &Engine, name: &str) {
    place.run(&["resources", "cleanup", name]).expect(0, &["removed"]);
    assert_eq!(containers(engine, name), [""; 0]);
}

#[test]
fn a_command_leaves_a_kept_function_alone_that_another_one_uses() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("kept-used"), unique("kept-used"));
    let benchmark = function(&place, "waits", WAITS_AT_GATE);
    let limit = ["--timeout", "100"];
    let run = |more: &[&str]| place.run(&words(&benchmark, &name, &[&limit[..], more].concat()));
    run(&["--keep", "--deployments", "3"]).expect(0, &["is kept at", "cold"]);
    let kept = containers(&engine, &name);
    assert_eq!(kept.len(), 3);
    let record = || read_json(&place.path("cache/waits/config.json"));
    let before = record();

    let gate = Gate::open();
    let input = place.write("event.json", &gate.event()).display().to_string();
    let first = place.spawn(&words(&benchmark, &name, &[&limit[..], &["--input", &input]].concat()));
    let waiting = gate.arrival();
    assert_eq!(standings(&engine, &place, &name), [Standing::InUse; 4]);
    place.run(&["resources", "cleanup", &name]).expect(2, &["a command that runs uses it"]);
    let used = format!("kept function `{name}` is used by another command");
    for more in [
        &[][..],
        &["--cold"],
        &["--env", "X=1"],
        &["--cpus", "0.7"],
        &["--memory", "0"],
        &["--update-code", "--keep"],
    ] {
        let ended = run(more).expect(0, &[&used, "cold"]);
        let is_removed = ended.stderr.contains("another command uses a kept function");
        assert_eq!(is_removed, more.contains(&"--keep"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("is kept at"), "{}", ended.stderr);
        assert_eq!(containers(&engine, &name), kept);
        assert_eq!(record()["local"]["python"]["functions"], before["local"]["python"]["functions"]);
    }
    let limits = kept.iter().map(|id| engine.inspect_container(id).unwrap().host_config);
    assert!(limits.into_iter().all(|limits| limits.nano_cpus == 0 && limits.memory == 128 << 20));
    let_go(waiting);
    let ended = Ended::from(first.wait_with_output().unwrap()).expect(0, &["using it as it is"]);
    assert!(!ended.stderr.contains("another command"), "{}", ended.stderr);
    assert_eq!(containers(&engine, &name), kept);
    assert_eq!(standings(&engine, &place, &name), [Standing::Kept; 4]);
    // A command that is killed has it no more.
    let mut killed = place.spawn(&words(&benchmark, &name, &[&limit[..], &["--input", &input]].concat()));
    let waiting = gate.arrival();
    killed.kill().unwrap();
    killed.wait().unwrap();
    drop(waiting);
    let ended = run(&[]).expect(0, &["using it as it is"]);
    assert!(!ended.stderr.contains("another command"), "{}", ended.stderr);
    assert_eq!(containers(&engine, &name), kept);
    removes(&place, &engine, &name);
}

fn get(local: &mut Local, package: &CodePackage, name: &str) -> Function {
    local.get_function(package, Some(name), &FunctionConfig::from_package(package)).unwrap()
}

#[test]
fn a_platform_has_a_kept_function_for_itself_until_its_end_and_may_ask_for_it_again() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("kept-claim"), unique("kept-claim"));
    let options = || LocalOptions { keep: true, ..LocalOptions::default() };
    let another = || prepared(&engine, &place, WAITS_AT_GATE, options());
    let mut first = another().1;
    // One that was there already, so that it updates nothing.
    let (package, mut second) = another();
    let kept = get(&mut first, &package, &name);
    // Two commands begin at once with a function that neither has kept: the first that does has it.
    let fresh = get(&mut second, &package, &name);
    assert_ne!(fresh.instances, kept.instances);
    assert!(first.keep(&kept).unwrap() && !second.keep(&fresh).unwrap());
    let again = get(&mut first, &package, &name);
    assert_eq!((&again.instances, &again.triggers), (&kept.instances, &kept.triggers));
    second.shutdown().unwrap();
    assert!(second.delete_function(&name).unwrap_err().is_conflict());
    let mut third = another().1;
    assert_ne!(get(&mut third, &package, &name).instances, kept.instances);
    first.shutdown().unwrap();
    assert!(!third.keep(&kept).unwrap());
    drop((first, second, third));
    let mut last = another().1;
    assert_eq!(get(&mut last, &package, &name).instances, kept.instances);
    assert_eq!(containers(&engine, &name).len(), 1);
    drop(package);
    assert_eq!(last.delete_function(&name).unwrap(), 1);
    last.shutdown().unwrap();
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn what_another_command_recorded_meanwhile_is_not_overwritten() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("kept-record"), unique("kept-record"));
    let options = LocalOptions { keep: true, ..LocalOptions::default() };
    let (package, mut local) = prepared(&engine, &place, WAITS_AT_GATE, options);
    let mut function = get(&mut local, &package, &name);
    assert!(local.keep(&function).unwrap());
    let path = place.path(&format!("cache/{}/config.json", package.benchmark));
    let mut record = read_json(&path);
    let foreign = json!({"name": name, "of": "a command that asks for no lock"});
    record["local"]["python"]["functions"][&name] = foreign.clone();
    std::fs::write(&path, record.to_string()).unwrap();
    assert!(!local.keep(&function).unwrap());
    local.enforce_cold_start(&mut function).unwrap();
    assert_eq!(read_json(&path)["local"]["python"]["functions"][&name], foreign);
    local.shutdown().unwrap();
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_variable_of_an_earlier_command_is_not_in_force_in_a_later_one() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("kept-env"), unique("kept-env"));
    let code = "import os\ndef handler(event):\n    return {'result': os.environ.get('MODE')}\n";
    let benchmark = function(&place, "kept", code);
    let run = |more: &[&str], texts: &[&str]| -> Value {
        place.run(&words(&benchmark, &name, more)).expect(0, texts);
        place.invocations()[0]["output"]["result"]["output"]["result"].clone()
    };
    assert_eq!(run(&["--env", "MODE=fast", "--keep"], &["cold"]), "fast");
    assert_eq!(run(&["--env", "MODE=fast"], &["using it as it is", "warm"]), "fast");
    assert_eq!(run(&[], &["with other options", "cold", "is kept at"]), Value::Null);
    assert_eq!(place.experiments()["config"]["function"]["environment_names"], json!([]));
    assert_eq!(run(&[], &["using it as it is", "warm"]), Value::Null);
    assert_eq!(run(&["--env", "MODE=slow"], &["with other options", "cold"]), "slow");
    let kept = containers(&engine, &name);
    assert_eq!(kept.len(), 1);
    let labels = engine.inspect_container(&kept[0]).unwrap().config.labels;
    assert!(!labels.values().any(|value| value.contains("slow")), "{labels:?}");
    removes(&place, &engine, &name);
}

#[test]
fn a_kept_function_is_not_lost_where_another_one_cannot_be_started() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("kept-port"), unique("kept-port"));
    let benchmark = function(&place, "kept", "def handler(event):\n    return {'result': 1}\n");
    let run = |more: &[&str]| place.run(&words(&benchmark, &name, more));
    run(&["--keep"]).expect(0, &["is kept at", "cold"]);
    let first = containers(&engine, &name);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    run(&["--port", &port]).expect(1, &["with other options", &format!("port {port}"), "is taken"]);
    assert_eq!(containers(&engine, &name), first);
    assert_eq!(standings(&engine, &place, &name), [Standing::Kept; 2]);
    run(&[]).expect(0, &["using it as it is", "warm"]);
    drop(listener);
    let at_port = format!("is kept at http://127.0.0.1:{port}");
    run(&["--port", &port]).expect(0, &["with other options", "cold", &at_port]);
    let second = containers(&engine, &name);
    assert!(second.len() == 1 && second != first);
    // The one that has the port is of the same function.
    run(&["--port", &port, "--env", "A=1"]).expect(0, &["with other options", "cold", &at_port]);
    let third = containers(&engine, &name);
    assert!(third.len() == 1 && third != second);
    assert_eq!(standings(&engine, &place, &name), [Standing::Kept; 2]);
    removes(&place, &engine, &name);
}
