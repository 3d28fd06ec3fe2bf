//! Storage for functions on a network of the user's: started there, found there, or refused before anything runs.

use serde_json::{Value, json};

use crate::deployment::{invoke, start};
use crate::networks::{TestNetwork, docker};
use crate::program::{Place, function, read_json, words};
use crate::storage_cli::{TELLS, dynoxide, told};
use crate::support::{self, containers, made_for, storage_image, unique};

#[test]
fn storage_that_a_run_starts_is_on_the_network_of_its_functions() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("net-run");
    let tables = dynoxide(&engine, &place);
    let started = "started nosql storage dynoxide";
    for kind in [&[][..], &["--internal"]] {
        let (network, name) = (TestNetwork::create(kind), unique("net-run"));
        let more = ["--network", &network.name, "--storage-configuration", &tables];
        let result = if kind.is_empty() {
            let all = ["benchmark", "regression", "--benchmark-name", "130", "--language", "python"];
            place.run(&[&all[..], &more].concat()).expect(0, &[started, "passed"]);
            "regression/130.crud-api-python/experiments.json"
        } else {
            let invoke = [&words("130.crud-api", &name, &more)[..], &["--validate"]].concat();
            place.run(&invoke).expect(0, &[started, "1 right, 0 wrong"]);
            let published = json!({"nosql": {"type": "dynoxide", "dynoxide": {"mapped_port": 9777}}});
            let published = place.write("published.json", &published.to_string()).display().to_string();
            place
                .run(&["storage", "start", "nosql", &published, "--network", &network.name])
                .expect(2, &["an internal bridge network, cannot be published at port 9777"]);
            "experiments.json"
        };
        let result = read_json(&place.path(result));
        assert_eq!(result["config"]["function"]["network"], network.name.as_str());
        let used = result["config"]["deployment"]["nosql"].clone();
        assert_eq!(used["network"], network.name.as_str());
        assert!(engine.inspect_container(used["instance_id"].as_str().unwrap()).unwrap_err().is_not_found());
    }
}

#[test]
fn storage_that_runs_elsewhere_is_refused_until_it_has_joined_the_network() {
    let Some(engine) = support::engine() else { return };
    let (place, name, network) = (Place::create("net-join"), unique("net-join"), TestNetwork::create(&[]));
    dynoxide(&engine, &place);
    let benchmark = function(&place, "tells", TELLS);
    let invoke = |file: &str, more: &[&str]| {
        place.run(&words(&benchmark, &name, &[&["--storage-configuration", file], more].concat()))
    };
    let there = ["--network", network.name.as_str()];
    let begin = |file: &str, more: &[&str]| {
        place.write(
            "config.json",
            &json!({"nosql": {"type": "dynoxide", "dynoxide": {"data_volume": unique("v")}}}).to_string(),
        );
        place
            .run(&[&["storage", "start", "nosql", "config.json", "--output-json", file], more].concat())
            .expect(0, &[]);
        read_json(&place.path(file))["nosql"]["dynoxide"].clone()
    };
    let stop = |file: &str| {
        place.run(&["storage", "stop", "all", file, "--remove-volume"]).expect(0, &["removed"]);
        assert_eq!(made_for(&engine, &place.path(file)), [""; 0]);
    };
    let address_of = |storage: &Value| {
        let address = network.address_of(&engine, storage["instance_id"].as_str().unwrap());
        json!(format!("{address}:8000"))
    };

    let elsewhere = begin("s.json", &[]);
    assert!(elsewhere.get("network").is_none());
    invoke("s.json", &there)
        .expect(2, &["is not on network", "docker network connect", "storage start nosql --network"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
    docker(&["network", "connect", &network.name, elsewhere["instance_id"].as_str().unwrap()]);
    invoke("s.json", &there).expect(0, &[]);
    assert_eq!(told(&place.invocations()[0])["NOSQL_STORAGE_ENDPOINT"], address_of(&elsewhere));
    invoke("s.json", &[]).expect(0, &[]);
    assert_eq!(told(&place.invocations()[0])["NOSQL_STORAGE_ENDPOINT"], elsewhere["address"]);
    stop("s.json");

    let own = begin("n.json", &there);
    assert_eq!((&own["network"], &own["address"]), (&json!(network.name), &address_of(&own)));
    place.run(&["storage", "status", "n.json"]).expect(0, &["yes"]);
    invoke("n.json", &there).expect(0, &[]);
    assert_eq!(told(&place.invocations()[0])["NOSQL_STORAGE_ENDPOINT"], own["address"]);
    invoke("n.json", &[]).expect(2, &["the functions run on the default one", &network.name]);
    stop("n.json");
}

#[test]
fn a_deployment_has_its_storage_on_its_network() {
    let Some(engine) = support::engine() else { return };
    let (place, name, network) = (Place::create("net-start"), unique("net-start"), TestNetwork::create(&[]));
    let tables = dynoxide(&engine, &place);
    let more = ["--storage-configuration", &tables, "--network", &network.name];
    place.run(&start("130.crud-api", &name, &more)).expect(0, &[&format!("network:     {}", network.name)]);
    let file = place.path("out/d.json");
    let deployment = read_json(&file);
    assert_eq!(
        (&deployment["network"], &deployment["nosql"]["network"]),
        (&json!(network.name), &json!(network.name))
    );
    let url = deployment["functions"][0]["url"].as_str().unwrap();
    let reply = invoke(url, &deployment["inputs"][0].to_string());
    assert!(reply["result"]["output"]["result"].is_array(), "{reply}");
    place.run(&["local", "status", "out/d.json"]).expect(0, &[&network.name, "yes"]);
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["removed"]);
    assert_eq!(made_for(&engine, &file), [""; 0]);
}

#[test]
fn storage_that_was_kept_on_another_network_is_not_used() {
    let Some(engine) = support::engine() else { return };
    let (place, name, network) = (Place::create("net-kept"), unique("net-kept"), TestNetwork::create(&[]));
    storage_image(&engine, "dynoxide");
    let tables = dynoxide(&engine, &place);
    let more = ["--storage-configuration", &tables, "--keep-storage"];
    let kept = place.run(&words("130.crud-api", &name, &more)).expect(0, &["storage is kept"]);
    let line = kept.stderr.lines().find(|line| line.contains("storage is kept")).unwrap();
    let file =
        line.split_whitespace().find(|word| word.contains(".json")).unwrap().trim_matches('`').to_string();
    let more = ["--storage-configuration", &tables, "--network", &network.name];
    place
        .run(&words("130.crud-api", &name, &more))
        .expect(0, &["that was kept is not used", "is not on network", "started nosql storage"]);
    let without = ["--storage-configuration", &tables];
    place.run(&words("130.crud-api", &name, &without)).expect(0, &["using the nosql storage that was kept"]);
    place.run(&["storage", "stop", "all", &file]).expect(0, &["removed"]);
}
