//! Containers that somebody starts again, so that they get another address: who was kept is followed there, and who is in
//! use is told from what it was.

use sebs_lite::docker::{Engine, OwnedContainer};
use sebs_lite::faas::StartKind;
use sebs_lite::faas::System;
use serde_json::json;

use crate::deployment::{ECHO, invoke, start};
use crate::networks::{TestNetwork, docker, on};
use crate::program::{Place, function, read_json, words};
use crate::served::{Gate, Served, WAITS_AT_GATE};
use crate::support::{self, TestImage, containers, unique, wait_until};

/// Starts a container again while another one has taken its address, and gives that other one.
fn move_away(engine: &Engine, image: &TestImage, network: &TestNetwork, id: &str) -> OwnedContainer {
    let before = network.address_of(engine, id);
    docker(&["stop", "-t", "0", id]);
    let occupant = network.occupant(engine, &image.reference);
    assert_eq!(network.address_of(engine, occupant.id()), before);
    docker(&["start", id]);
    assert_ne!(network.address_of(engine, id), before);
    occupant
}

#[test]
fn a_kept_function_is_used_again_at_the_address_it_has_by_now() {
    let Some(engine) = support::engine() else { return };
    let (place, name, image) = (Place::create("moved"), unique("moved"), TestImage::import(&engine));
    let network = TestNetwork::create(&[]);
    let benchmark = function(&place, "echo", ECHO);
    for more in [&[][..], &["--address", "published"]] {
        let more = [&["--keep", "--network", &network.name], more].concat();
        place.run(&words(&benchmark, &name, &more)).expect(0, &[]);
        let id = place.invocations()[0]["invocation"]["instance_id"].as_str().unwrap().to_string();
        let _occupant = move_away(&engine, &image, &network, &id);
        place.run(&words(&benchmark, &name, &more)).expect(0, &["now, no more at"]);
        let invocation = &place.invocations()[0];
        assert_eq!(invocation["invocation"]["instance_id"], json!(id));
        // The server in it is another process.
        assert_eq!(invocation["stats"]["cold_start"], json!(true));
        let again = place.run(&words(&benchmark, &name, &more)).expect(0, &[]);
        assert!(!again.stderr.contains("no more at"), "{}", again.stderr);
        assert_eq!(place.invocations()[0]["stats"]["cold_start"], json!(false));
        // Off its network, it cannot be invoked any more.
        docker(&["network", "disconnect", "-f", &network.name, &id]);
        place.run(&words(&benchmark, &name, &more)).expect(0, &["was disconnected from its network"]);
        assert_ne!(place.invocations()[0]["invocation"]["instance_id"], json!(id));
        place.run(&["resources", "cleanup", &name]).expect(0, &["removed"]);
    }
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_deployment_is_told_of_at_the_addresses_it_has_by_now() {
    let Some(engine) = support::engine() else { return };
    let (place, name, image) =
        (Place::create("moved-away"), unique("moved-away"), TestImage::import(&engine));
    let network = TestNetwork::create(&[]);
    let benchmark = function(&place, "echo", ECHO);
    place.run(&start(&benchmark, &name, &["--network", &network.name])).expect(0, &[]);
    let deployment = read_json(&place.path("out/d.json"));
    let (id, url) =
        (deployment["functions"][0]["instance_id"].as_str().unwrap(), &deployment["functions"][0]["url"]);
    let occupant = move_away(&engine, &image, &network, id);
    let now = format!("{}:9000", network.address_of(&engine, id));
    wait_until("it answers", || std::net::TcpStream::connect(&now).is_ok());
    let was = format!("{now} (was {})", url.as_str().unwrap());
    place.run(&["local", "status", "out/d.json"]).expect(0, &[&was, "yes"]);
    let status = place.run(&["local", "status", "out/d.json", "--json"]).expect(0, &[]).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["instances"][0]["url"], &status["instances"][0]["recorded_url"]), (&json!(now), url));
    assert_eq!(invoke(&now, r#"{"n": 1}"#)["result"]["output"]["result"], 2);
    docker(&["network", "disconnect", "-f", &network.name, id]);
    place.run(&["local", "status", "out/d.json"]).expect(3, &["disconnected"]);
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["removed"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
    drop(occupant);
}

#[test]
fn an_idle_instance_that_was_started_again_gives_its_place_to_another() {
    let Some(engine) = support::engine() else { return };
    let (network, image) = (TestNetwork::create(&[]), TestImage::import(&engine));
    let mut served = Served::start(&engine, WAITS_AT_GATE, on(&network));
    let mut ids = Vec::new();
    for is_moved in [true, false] {
        let first = served.local.invoke(&mut served.function, "{}").unwrap();
        assert!(!first.stats.failure, "{:?}", first.invocation.error);
        let id = first.invocation.instance_id.unwrap();
        let occupant = is_moved.then(|| move_away(&engine, &image, &network, &id));
        if !is_moved {
            docker(&["restart", "-t", "0", &id]);
        }
        let next = served.local.invoke(&mut served.function, "{}").unwrap();
        // Whoever has its address by now was not asked.
        assert!(!next.stats.failure && next.stats.cold_start, "{:?}", next.invocation.error);
        assert_ne!(next.invocation.instance_id.as_ref(), Some(&id));
        assert!(next.invocation.instance_cpu_us.is_some_and(|cpu_us| cpu_us > 0), "{:?}", next.invocation);
        assert!(engine.inspect_container(&id).unwrap_err().is_not_found());
        ids.push(id);
        drop(occupant);
    }
    assert_ne!(ids[0], ids[1]);
    served.end(&engine);
}

#[test]
fn an_instance_that_was_started_again_at_work_is_named() {
    let Some(engine) = support::engine() else { return };
    let (network, image) = (TestNetwork::create(&[]), TestImage::import(&engine));
    let mut served = Served::start(&engine, WAITS_AT_GATE, on(&network));
    let (gate, invoker) = (Gate::open(), served.local.invoker(&served.function));
    let event = gate.event();
    let id = served.function.instances[0].instance_id.clone();
    let (result, occupant) = std::thread::scope(|scope| {
        let invocation = scope.spawn(|| invoker.invoke(&event, StartKind::Any).unwrap());
        let _waiting = gate.arrival();
        let occupant = move_away_if_there(&engine, &image, &network, &id);
        (invocation.join().unwrap(), occupant)
    });
    let error = result.invocation.error.unwrap_or_default();
    let is_named = ["signal 9", "was started again by somebody else", "its container is gone"]
        .iter()
        .any(|reason| error.contains(reason));
    assert!(result.stats.failure && is_named, "{error}");
    drop(occupant);
    let next = served.local.invoke(&mut served.function, "{}").unwrap();
    assert!(!next.stats.failure && next.stats.cold_start, "{:?}", next.invocation.error);
    assert_ne!(next.invocation.instance_id, Some(id));
    served.end(&engine);
}

/// As [`move_away`], of a container that its platform may remove as soon as it has ended.
fn move_away_if_there(engine: &Engine, image: &TestImage, network: &TestNetwork, id: &str) -> OwnedContainer {
    engine.kill_container(id, "SIGKILL").unwrap();
    let occupant = network.occupant(engine, &image.reference);
    let _ = engine.start_container(id);
    occupant
}

#[test]
fn what_another_function_answers_at_a_lost_address_counts_for_nothing() {
    let Some(engine) = support::engine() else { return };
    let network = TestNetwork::create(&[]);
    let mut served = Served::start(&engine, WAITS_AT_GATE, on(&network));
    let id = served.function.instances[0].instance_id.clone();
    let before = network.address_of(&engine, &id);
    docker(&["network", "disconnect", "-f", &network.name, &id]);
    let mut other = Served::start(&engine, WAITS_AT_GATE, on(&network));
    let other_id = other.function.instances[0].instance_id.clone();
    assert_eq!(network.address_of(&engine, &other_id), before);
    // Its next answer is a warm one.
    assert!(!other.local.invoke(&mut other.function, "{}").unwrap().stats.failure);
    docker(&["network", "connect", &network.name, &id]);
    let result = served.local.invoke(&mut served.function, "{}").unwrap();
    let error = result.invocation.error.as_deref().unwrap_or_default();
    let answered = format!("container {} answered at its address", &other_id[..12]);
    assert!(error.contains("was given another address by somebody else"), "{error}");
    assert!(error.contains(&answered), "{error}");
    assert!(result.stats.failure && result.stats.cold_start);
    assert_eq!((result.times.benchmark, result.times.initialization), (None, None));
    assert_eq!((result.invocation.handler_us, result.invocation.cpu_us), (None, None));
    assert_eq!(result.invocation.init_us, None);
    other.end(&engine);
    served.end(&engine);
}

#[test]
fn an_instance_that_was_given_another_address_is_named() {
    let Some(engine) = support::engine() else { return };
    let (network, image) = (TestNetwork::create(&[]), TestImage::import(&engine));
    let mut served = Served::start(&engine, WAITS_AT_GATE, on(&network));
    let id = served.function.instances[0].instance_id.clone();
    let before = network.address_of(&engine, &id);
    docker(&["network", "disconnect", "-f", &network.name, &id]);
    let occupant = network.occupant(&engine, &image.reference);
    assert_eq!(network.address_of(&engine, occupant.id()), before);
    docker(&["network", "connect", &network.name, &id]);
    let result = served.local.invoke(&mut served.function, "{}").unwrap();
    let error = result.invocation.error.unwrap_or_default();
    assert!(error.contains("was given another address by somebody else"), "{error}");
    assert!(engine.inspect_container(&id).unwrap_err().is_not_found());
    drop(occupant);
    served.end(&engine);
}
