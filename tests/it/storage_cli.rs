//! `storage start`, `stop` and `status`, and storage that other commands are told of: where the keys are, and what is left.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::docker::{ContainerSpec, Engine};
use serde_json::{Value, json};

use crate::program::{Ended, Place, function, read_json, words};
use crate::support::{self, made_for, storage_image, wait_until};

/// A function that gives back what it was told of storage, each value backwards, so that no file but its reply knows it.
pub(crate) const TELLS: &str = "import os\n\ndef handler(event):\n    \
    names = ('MINIO_', 'NOSQL_', 'SEBS_LITE_S3')\n    \
    return {'result': {k: v[::-1] for k, v in os.environ.items() if k.startswith(names)}}\n";

/// What such a function was told.
pub(crate) fn told(invocation: &Value) -> Value {
    let result = invocation["output"]["result"]["output"]["result"].as_object().unwrap();
    let backwards = |value: &Value| value.as_str().unwrap().chars().rev().collect::<String>();
    result.iter().map(|(name, value)| (name.clone(), json!(backwards(value)))).collect()
}

/// Fails if a secret stands in a file below the folder that others may read.
#[track_caller]
pub(crate) fn check_secret(folder: &Path, secret: &str, may_hold: &[PathBuf]) {
    assert!(secret.len() >= 8, "`{secret}` is too short to be looked for");
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() {
                let content = std::fs::read(&path).unwrap();
                let holds = content.windows(secret.len()).any(|piece| piece == secret.as_bytes());
                let is_private = metadata.permissions().mode() & 0o777 == 0o600;
                let may = is_private && may_hold.iter().any(|known| path.starts_with(known));
                assert!(!holds || may, "{} has the secret", path.display());
            }
        }
    }
}

fn traced(place: &Place, words: &[&str]) -> Ended {
    let log = ["--verbose", "--output-file", "trace.log"];
    let mut command = place.command(&[words, &log].concat());
    Ended::from(command.env("RUST_LOG", "trace").output().unwrap())
}

/// A configuration of tables that go with the storage, or are in a volume.
pub(crate) fn dynoxide(engine: &Engine, place: &Place) -> String {
    storage_image(engine, "dynoxide");
    place.write("tables.json", r#"{"nosql": {"type": "dynoxide", "dynoxide": {}}}"#).display().to_string()
}

#[test]
fn storage_serves_until_it_is_stopped_and_its_keys_are_nowhere_else() {
    let Some(engine) = support::engine() else { return };
    let (place, volume) = (Place::create("storage"), support::unique("tables"));
    for name in ["seaweedfs", "dynoxide"] {
        storage_image(&engine, name);
    }
    let config = json!({
        "object": {"type": "seaweedfs", "seaweedfs": {"data_volume": "objects"}},
        "nosql": {"type": "dynoxide", "dynoxide": {"data_volume": volume}},
    });
    place.write("config.json", &config.to_string());
    let start = ["storage", "start", "all", "config.json", "--output-json=out/s.json"];
    let started = traced(&place, &start).expect(0, &["seaweedfs", "dynoxide", "storage stop all"]);
    let file = place.path("out/s.json").canonicalize().unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let written = read_json(&file);
    let object = &written["object"]["seaweedfs"];
    let (secret, address) = (object["secret_key"].as_str().unwrap(), object["address"].as_str().unwrap());
    assert!(!(started.stdout + &started.stderr).contains(secret));
    let may_hold = [file.clone(), place.path("objects"), place.path("objects.keys.json")];

    let shown = traced(&place, &["storage", "status", "out/s.json", "--json"]).expect(0, &[]);
    let status: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&status[0]["state"], &status[1]["answers"]), (&json!("running"), &json!(true)));
    place.run(&start).expect(1, &["still runs", "sebs-lite storage stop all"]);
    assert_eq!(read_json(&file), written);

    // A benchmark that needs none is told of it if it is named, and not otherwise.
    let (benchmark, name) = (function(&place, "tells", TELLS), support::unique("tells"));
    traced(&place, &words(&benchmark, &name, &["--storage-configuration", "out/s.json"])).expect(0, &[]);
    let known = told(&place.invocations()[0]);
    assert_eq!(known["MINIO_ADDRESS"], address);
    assert_eq!(known["MINIO_SECRET_KEY"], secret);
    assert_eq!(known["NOSQL_STORAGE_ENDPOINT"], written["nosql"]["dynoxide"]["address"]);
    let result = place.experiments();
    let used = &result["environment"]["storage"]["object"];
    assert_eq!(used["type"], "seaweedfs");
    assert!(used["image_id"].as_str().unwrap().starts_with("sha256:"), "{used}");
    let deployment = &result["config"]["deployment"];
    assert_eq!(deployment["storage"]["address"], address);
    assert!(deployment["storage"].get("secret_key").is_none());
    assert!(deployment["resources"]["resources_id"].as_str().unwrap().starts_with("local-"));
    let names = &result["config"]["function"]["environment_names"];
    assert!(names.as_array().unwrap().contains(&json!("MINIO_SECRET_KEY")));
    traced(&place, &words(&benchmark, &name, &["--env", "MINIO_ADDRESS=mine"])).expect(0, &[]);
    let known = told(&place.invocations()[0]);
    assert_eq!(known, json!({"MINIO_ADDRESS": "mine"}));
    assert!(place.experiments()["environment"].get("storage").is_none());

    // One that needs both moves data through them, and its outputs are judged by what is stored.
    let more = ["--storage-configuration", "out/s.json", "--validate", "--repetitions", "2", "--json"];
    for benchmark in ["120.uploader", "130.crud-api"] {
        let ended = traced(&place, &words(benchmark, &name, &more)).expect(0, &[]);
        assert!(!(ended.stdout + &ended.stderr).contains(secret));
        for invocation in place.invocations() {
            assert_eq!(invocation["invocation"]["validation"]["verdict"], "valid", "{invocation}");
        }
    }
    check_secret(&place.path(""), secret, &may_hold);

    engine
        .stop_container(written["nosql"]["dynoxide"]["instance_id"].as_str().unwrap(), Duration::ZERO)
        .unwrap();
    place.run(&["storage", "status", "out/s.json"]).expect(3, &["exited"]);
    traced(&place, &["storage", "stop", "all", "out/s.json"]).expect(0, &["removed"]);
    assert_eq!(made_for(&engine, &file), [""; 0]);
    place.run(&["storage", "status", "out/s.json"]).expect(3, &["gone"]);
    let again = ["storage", "stop", "all", "out/s.json", "--remove-volume"];
    place.run(&again).expect(0, &["gone before"]);
    assert!(engine.inspect_volume(&volume).unwrap_err().is_not_found());
    check_secret(&place.path(""), secret, &may_hold);
}

#[test]
fn a_kind_that_cannot_be_had_takes_the_other_with_it() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("half");
    let image = storage_image(&engine, "dynoxide");
    // The object storage is the first to be started: it is one of tables in all but its name.
    let config = json!({
        "object": {"type": "minio", "minio": {"data_volume": "objects", "image": image}},
        "nosql": {"type": "dynoxide", "dynoxide": {}},
    });
    place.write("config.json", &config.to_string());
    for earlier in [None, Some(r#"{"schema_version": 1, "object": {"type": "auto", "auto": {}}}"#)] {
        if let Some(earlier) = earlier {
            place.write("out/s.json", earlier);
        }
        let ended = place.run(&["storage", "start", "all", "config.json", "--output-json", "out/s.json"]);
        ended.expect(1, &["minio"]);
        let left = std::fs::read_to_string(place.path("out/s.json")).ok();
        assert_eq!(left.as_deref(), earlier);
        assert_eq!(made_for(&engine, &place.path("out/s.json")), [""; 0]);
    }
}

#[test]
fn a_start_that_is_interrupted_leaves_nothing_and_one_that_is_killed_a_file_to_stop_it_by() {
    let Some(engine) = support::engine() else { return };
    let (place, volume) = (Place::create("cut"), support::unique("cut"));
    storage_image(&engine, "dynoxide");
    let config = json!({"nosql": {"type": "dynoxide", "dynoxide": {"data_volume": volume}}});
    place.write("tables.json", &config.to_string());
    let file = place.path("s.json");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let start = ["storage", "start", "nosql", "tables.json", "--output-json", "s.json"];
        let mut child = place.spawn(&start);
        wait_until("a container is there", || !made_for(&engine, &file).is_empty());
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let code = child.wait().unwrap().code();
        if signal == Signal::SIGKILL {
            assert_eq!(code, None);
            place.run(&["storage", "stop", "nosql", "s.json"]).expect(0, &[]);
            place.run(&["storage", "stop", "all", "s.json"]).expect(0, &["gone before"]);
            place.run(&["storage", "status", "s.json"]).expect(3, &["no"]);
        } else if code != Some(0) {
            // It may have been ready by then.
            assert_eq!(code, Some(128 + signal as i32));
            assert!(!file.exists());
        } else {
            place.run(&["storage", "stop", "nosql", "s.json"]).expect(0, &["removed"]);
        }
        assert_eq!(made_for(&engine, &file), [""; 0], "{signal}");
        // A volume that was to stay is there, be it known to the file or not.
        let _ = std::fs::remove_file(&file);
    }
    engine.remove_volume(&volume).unwrap();
}

#[test]
fn nothing_but_a_file_of_storage_is_overwritten_or_stopped() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("wrong");
    let config = r#"{"object": {"type": "minio", "minio": {"mapped_port": 9011}}}"#;
    for other in ["precious", "{}", config] {
        let path = place.write("s.json", other);
        let start = ["storage", "start", "object", "--output-json", "s.json"];
        place.run(&start).expect(2, &["nothing is overwritten", "s.json"]);
        assert_eq!(std::fs::read_to_string(path).unwrap(), other);
    }
    place.write("s.json", "precious");
    place.write("object.json", config);
    let usage = |words: &[&str], texts: &[&str]| drop(place.run(words).expect(2, texts));
    usage(&["storage", "stop", "all", "s.json"], &["s.json", "failed to read"]);
    usage(&["storage", "status", "s.json"], &["s.json"]);
    usage(&["storage", "stop", "all", "none.json"], &["none.json"]);
    usage(&["storage", "stop", "nosql", "object.json"], &["says nothing of nosql storage"]);
    usage(&["storage", "start", "tables"], &["object, nosql or all"]);
    usage(&["storage", "start", "nosql", "object.json"], &["says nothing of nosql storage"]);
    usage(&["storage", "start", "all", "--engine", "minio"], &["object or nosql alone"]);
    usage(&["storage", "start", "object", "object.json", "--engine", "minio"], &["leave one out"]);
    let twice = ["--storage-configuration", "object.json", "--storage-configuration=object.json"];
    usage(&words("110.dynamic-html", "x", &twice), &["object.json", "leave one out"]);
    usage(&words("110.dynamic-html", "x", &["--storage-configuration", "s.json"]), &["s.json"]);
    usage(&words("110.dynamic-html", "x", &["--resource-prefix="]), &["--resource-prefix"]);
    let wrong =
        place.write("c.json", r#"{"deployment": {"local": {"storage": {"object": {"type": "redis"}}}}}"#);
    let wrong = wrong.display().to_string();
    usage(&words("110.dynamic-html", "x", &["--config", &wrong]), &["deployment.local.storage", "minio"]);
}

#[test]
fn storage_that_sebs_started_is_shown_and_stopped_by_its_own_file_and_other_containers_are_not() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("sebs");
    let (image, tag) = (storage_image(&engine, "dynoxide"), support::unique("sebs"));
    // As SeBS starts it: without any label.
    engine.tag_image(&image, "scylladb/scylla", &tag).unwrap();
    let sebs = format!("scylladb/scylla:{tag}");
    for (image, code, texts) in
        [(&sebs, 0, ["scylladb", "removed"]), (&image, 2, ["is not stopped", "no label"])]
    {
        let name = support::unique("sebs");
        let spec = ContainerSpec { image: image.clone(), ..ContainerSpec::default() };
        let id = engine.create_container(&name, &spec).unwrap().id;
        engine.start_container(&id).unwrap();
        let inspected = engine.inspect_container(&id).unwrap();
        let ip = inspected.network_settings.address().unwrap().to_string();
        let config = json!({"address": format!("{ip}:8000"), "mapped_port": 9012, "alternator_port": 8000,
            "access_key": "None", "secret_key": "None", "instance_id": id, "region": "None", "cpus": 1, "memory": 750,
            "version": "6.0", "data_volume": "no-such-volume", "theirs": 1});
        let file =
            place.write("sebs.json", &json!({"nosql": {"type": "scylladb", "scylladb": config}}).to_string());
        if code == 0 {
            let answers = || place.run(&["storage", "status", "sebs.json"]).code == Some(0);
            wait_until("it answers", answers);
        }
        place.run(&["storage", "stop", "nosql", "sebs.json"]).expect(code, &texts);
        let known = &read_json(&file)["nosql"]["scylladb"];
        assert_eq!((&known["theirs"], known["address"] == ""), (&json!(1), code == 0), "{known}");
        assert_eq!(engine.inspect_container(&id).is_err(), code == 0);
        engine.remove_container(&id).unwrap();
    }
    engine.remove_image(&sebs).unwrap();
}
