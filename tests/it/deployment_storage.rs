//! `local start`, `stop` and `status` of functions with storage: what goes with a deployment, and what is left alone.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::deployment::{invoke, start};
use crate::program::{Ended, Place, read_json};
use crate::storage_cli::{check_secret, dynoxide};
use crate::support::{self, containers, made_for, storage_image, wait_until};

/// `local start` of a benchmark with one table, with a file of its own.
fn words<'a>(name: &'a str, file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = start("130.crud-api", name, more);
    words[4] = file;
    words
}

#[test]
fn two_deployments_have_storage_of_their_own_that_goes_with_them() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("pair"), support::unique("pair"));
    let tables = dynoxide(&engine, &place);
    let more = ["--storage-configuration", &tables, "--deployments", "2"];
    let starts = ["a.json", "b.json"].map(|file| place.spawn(&words(&name, file, &more)));
    for child in starts {
        Ended::from(child.wait_with_output().unwrap()).expect(0, &["dynoxide", "started with it"]);
    }
    let [first, second] = ["a.json", "b.json"].map(|file| read_json(&place.path(file)));
    assert_ne!(first["nosql"]["address"], second["nosql"]["address"]);
    assert_eq!((&first["storage"], &first["nosql"]["type"]), (&Value::Null, &json!("dynoxide")));
    assert_eq!(first["started_storage"], json!(["nosql"]));
    for deployment in [&first, &second] {
        for function in deployment["functions"].as_array().unwrap() {
            let input = deployment["inputs"][0].to_string();
            let reply = invoke(function["url"].as_str().unwrap(), &input);
            assert!(reply["result"]["output"]["result"].is_array(), "{reply}");
        }
    }
    // Two functions, a storage and its volume.
    assert_eq!(made_for(&engine, &place.path("a.json")).len(), 4);
    place.run(&["local", "status", "a.json"]).expect(0, &["dynoxide", "running", "yes"]);
    place.run(&["local", "stop", "a.json"]).expect(0, &["nosql", "removed"]);
    assert_eq!(made_for(&engine, &place.path("a.json")), [""; 0]);
    place.run(&["local", "stop", "a.json"]).expect(0, &["already stopped", "gone before"]);
    place.run(&["local", "status", "b.json"]).expect(0, &[]);
    engine.kill_container(second["nosql"]["instance_id"].as_str().unwrap(), "SIGKILL").unwrap();
    place.run(&["local", "status", "b.json", "--json"]).expect(3, &["\"answers\": false"]);
    place.run(&["local", "stop", "b.json", "--json"]).expect(0, &["\"end\": \"removed\""]);
    assert_eq!(made_for(&engine, &place.path("b.json")), [""; 0]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn storage_that_was_there_is_left_alone_and_its_keys_are_shown_to_nobody() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("alone"), support::unique("alone"));
    storage_image(&engine, "dynoxide");
    // Its keys are chosen by us, as those of a storage that checks none may be.
    let config = json!({"nosql": {"type": "dynoxide", "dynoxide": {"data_volume": name, "access_key": "somebody",
        "secret_key": "a-secret-of-tables"}}});
    place.write("config.json", &config.to_string());
    place.run(&["storage", "start", "nosql", "config.json"]).expect(0, &[]);
    let mut storage = read_json(&place.path("storage.json"));
    let secret = "a-secret-of-tables";
    storage["nosql"]["dynoxide"]["secret_key"] = json!(secret);
    place.write("told.json", &storage.to_string());
    std::fs::set_permissions(place.path("told.json"), PermissionsExt::from_mode(0o600)).unwrap();
    let more = ["--storage-configuration", "told.json", "--json", "--verbose", "--output-file", "trace.log"];
    let mut command = place.command(&words(&name, "d.json", &more));
    let started = Ended::from(command.env("RUST_LOG", "trace").output().unwrap()).expect(0, &["***"]);
    assert!(!(started.stdout + &started.stderr).contains(secret));
    let may_hold = ["d.json", "told.json", "storage.json"].map(|file| place.path(file));
    std::fs::remove_file(place.path("config.json")).unwrap();
    check_secret(&place.path(""), secret, &may_hold);
    let deployment = read_json(&place.path("d.json"));
    assert_eq!(deployment["nosql"]["secret_key"], secret);
    assert!(deployment.get("started_storage").is_none());
    place.run(&["local", "status", "d.json"]).expect(0, &["dynoxide", "yes"]);
    let stopped = place.run(&["local", "stop", "d.json"]).expect(0, &["left alone"]);
    assert!(!(stopped.stdout + &stopped.stderr).contains(secret));
    check_secret(&place.path(""), secret, &may_hold);

    // SeBS writes of its own storage what nobody else is to stop.
    let object = &storage["nosql"]["dynoxide"];
    let sebs = json!({"functions": [], "inputs": [{}], "storage": {"address": object["host_address"], "mapped_port": 9011,
        "access_key": "a", "secret_key": secret, "instance_id": object["instance_id"], "input_buckets": [],
        "output_buckets": [], "type": "minio"}});
    place.write("sebs.json", &sebs.to_string());
    place.run(&["local", "stop", "sebs.json"]).expect(0, &["minio", "left alone"]);
    place.run(&["local", "status", "sebs.json"]).expect(3, &["minio"]);
    place.run(&["storage", "status", "storage.json"]).expect(0, &["yes"]);
    place.run(&["storage", "stop", "nosql", "storage.json", "--remove-volume"]).expect(0, &["removed"]);
    assert_eq!(made_for(&engine, &place.path("storage.json")), [""; 0]);
}

#[test]
fn a_start_that_is_cut_off_at_any_step_of_its_storage_leaves_nothing_behind_its_stop() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("steps");
    let tables = dynoxide(&engine, &place);
    let file = place.path("d.json");
    // A volume, a container that is there, storage that answers and a function that is being started.
    for (signal, parts) in
        [(Signal::SIGTERM, 2), (Signal::SIGKILL, 1), (Signal::SIGKILL, 2), (Signal::SIGKILL, 3)]
    {
        let name = support::unique("steps");
        let more = ["--storage-configuration", &tables, "--deployments", "9"];
        let mut child = place.spawn(&words(&name, "d.json", &more));
        wait_until("a part is there", || made_for(&engine, &file).len() >= parts);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let code = child.wait().unwrap().code();
        if signal == Signal::SIGTERM {
            assert_eq!(code, Some(143));
            assert!(!file.exists());
        } else {
            assert_eq!(code, None);
            place.run(&["local", "stop", "d.json"]).expect(0, &[]);
            place.run(&["local", "stop", "d.json"]).expect(0, &["already stopped"]);
        }
        assert_eq!(made_for(&engine, &file), [""; 0], "{signal} {parts}");
        assert_eq!(containers(&engine, &name), [""; 0]);
    }
}
