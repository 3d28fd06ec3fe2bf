//! `benchmark invoke` with benchmarks that need storage: what is started for a run, what is kept, and that nothing else is.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::docker::{Engine, Scope};
use serde_json::json;

use crate::program::{Ended, Place, function, read_json, words};
use crate::storage_cli::{TELLS, check_secret, dynoxide, told};
use crate::support::{self, containers, made_for, storage_image, wait_until};

/// A benchmark with a table, whose function tells what it was told, or takes its time.
fn needy(place: &Place, name: &str, code: &str) -> String {
    place.write(
        &format!("{name}/input.py"),
        "def allocate_nosql():\n    return {'notes': {'primary_key': 'id'}}\n\n\
         def generate_input(data_dir, size, bucket, inputs, outputs, upload, write):\n    \
         write('needy', 'notes', {'text': 'hello'}, ('id', '1'), None)\n    return {}\n",
    );
    function(place, name, code)
}

/// The names of the containers and volumes that a process made for its run.
fn made_by(engine: &Engine, pid: u32) -> Vec<String> {
    let label = format!("sebs-lite.owner.pid={pid}");
    let containers = engine.list_containers(&["sebs-lite=1", &label], Scope::All).unwrap();
    let volumes = engine.list_volumes(&["sebs-lite=1", &label]).unwrap();
    let containers = containers.into_iter().flat_map(|container| container.names);
    containers.chain(volumes.into_iter().map(|volume| volume.name)).collect()
}

/// Runs the program to its end, and says what of it is left.
fn run(engine: &Engine, place: &Place, words: &[&str]) -> (Ended, Vec<String>) {
    let child = place.spawn(words);
    let pid = child.id();
    let ended = Ended::from(child.wait_with_output().unwrap());
    (ended, made_by(engine, pid))
}

#[test]
fn what_a_benchmark_needs_is_started_for_the_run_and_gone_after_it() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("needs"), support::unique("needs"));
    for name in ["seaweedfs", "dynoxide"] {
        storage_image(&engine, name);
    }
    // Nothing says which: the first that can be had is taken.
    let benchmark = function(&place, "objects", TELLS);
    place.write(
        "objects/input.py",
        "import os, tempfile\n\ndef buckets_count():\n    return (1, 1)\n\n\
         def generate_input(data_dir, size, bucket, inputs, outputs, upload, write):\n    \
         with tempfile.NamedTemporaryFile() as file:\n        file.write(b'data'); file.flush()\n        \
         upload(0, 'key', file.name)\n    return {'bucket': bucket, 'input': inputs[0]}\n\n\
         def validate_output(data_dir, event, output, language, storage):\n    \
         path = os.path.join(tempfile.mkdtemp(), 'x')\n    \
         storage.download(event['bucket'], event['input'] + '/key', path)\n    \
         return None if open(path, 'rb').read() == b'data' else 'other data'\n",
    );
    let more = ["--validate", "--verbose", "--output-file", "trace.log", "--json"];
    let mut command = place.command(&words(&benchmark, &name, &more));
    let child = command.env("RUST_LOG", "trace").stdout(std::process::Stdio::piped());
    let child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let ended = Ended::from(child.wait_with_output().unwrap()).expect(0, &["started object storage"]);
    assert_eq!(made_by(&engine, pid), [""; 0]);
    let invocation = &place.invocations()[0];
    assert_eq!(invocation["invocation"]["validation"]["verdict"], "valid", "{invocation}");
    let known = told(invocation);
    let secret = known["MINIO_SECRET_KEY"].as_str().unwrap();
    assert!(!(ended.stdout + &ended.stderr).contains(secret));
    check_secret(&place.path(""), secret, &[]);
    assert!(place.experiments()["environment"]["storage"]["object"]["type"].is_string());
    assert!(place.experiments()["environment"]["storage"].get("nosql").is_none());
}

#[test]
fn tables_are_told_of_with_an_input_of_ones_own_too() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("own"), support::unique("own"));
    let (benchmark, tables) = (needy(&place, "needy", TELLS), dynoxide(&engine, &place));
    let input = place.write("event.json", "{}").display().to_string();
    let own = ["--storage-configuration", &tables, "--input", &input];
    let config = format!(
        r#"{{"deployment": {{"local": {{"storage": {}}}}}}}"#,
        std::fs::read_to_string(&tables).unwrap()
    );
    let config = place.write("config.json", &config).display().to_string();
    for more in [&own[..], &["--config", &config, "--resource-prefix", "lab"]] {
        let (ended, left) = run(&engine, &place, &words(&benchmark, &name, more));
        ended.expect(0, &["started nosql storage dynoxide"]);
        assert_eq!(left, [""; 0]);
        let known = told(&place.invocations()[0]);
        assert_eq!(known["NOSQL_STORAGE_TYPE"], "scylladb");
        let table = known["NOSQL_STORAGE_TABLE_notes"].as_str().unwrap();
        assert!(table.starts_with("sebs-benchmarks-local-") && table.ends_with("-needy-notes"), "{table}");
    }
    let (idle, other) = (function(&place, "idle", TELLS), support::unique("idle"));
    let (ended, left) = run(&engine, &place, &words(&idle, &other, &["--config", &config]));
    assert!(!ended.expect(0, &[]).stderr.contains("started"));
    assert_eq!((told(&place.invocations()[0]), left), (json!({}), vec![]));
}

#[test]
fn storage_that_is_kept_is_found_by_later_runs_until_it_is_stopped() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("kept"), support::unique("kept"));
    let (benchmark, tables) = (needy(&place, "needy", TELLS), dynoxide(&engine, &place));
    let invoke = |more: &[&str]| place.run(&words(&benchmark, &name, more)).expect(0, &[]);
    let kept_file = |told: &str| {
        let line =
            told.lines().find(|line| line.contains("storage is kept")).unwrap_or_else(|| panic!("{told}"));
        line.split_whitespace().find(|word| word.contains(".json")).unwrap().trim_matches('`').to_string()
    };
    let address = || told(&place.invocations()[0])["NOSQL_STORAGE_ENDPOINT"].clone();
    // A function that is kept keeps its storage.
    let first = kept_file(&invoke(&["--keep", "--storage-configuration", &tables]).stderr);
    let at_first = address();
    invoke(&[]);
    assert_eq!(address(), at_first);
    assert_eq!(containers(&engine, &name).len(), 1);
    let before = containers(&engine, &name);
    place.run(&["storage", "stop", "nosql", &first]).expect(0, &["removed"]);
    assert_eq!(made_for(&engine, Path::new(&first)), [""; 0]);

    // Where the storage has moved, the function is another.
    let second = kept_file(&invoke(&["--keep-storage", "--storage-configuration", &tables]).stderr);
    let after = containers(&engine, &name);
    let moved_to = read_json(Path::new(&second))["nosql"]["dynoxide"]["address"].clone();
    assert_eq!(address(), moved_to);
    // The engine may have given the same address again.
    assert_eq!((after.len(), after != before), (1, moved_to != at_first), "{before:?} {after:?}");
    place.run(&["storage", "status", &second]).expect(0, &["running", "yes"]);
    place.run(&["storage", "stop", "all", &second]).expect(0, &["removed"]);
    assert_eq!(made_for(&engine, Path::new(&second)), [""; 0]);
    for container in after {
        engine.remove_container(&container).unwrap();
    }
}

#[test]
fn a_run_that_is_interrupted_or_killed_leaves_no_storage() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("torn"), support::unique("torn"));
    let sleeps = "import time\n\ndef handler(event):\n    print('called', flush=True)\n    time.sleep(600)\n";
    let (benchmark, tables) = (needy(&place, "needy", sleeps), dynoxide(&engine, &place));
    let invoke = words(&benchmark, &name, &["--storage-configuration", &tables, "--timeout", "0"]);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let child = place.spawn(&invoke);
        let pid = child.id();
        // Its storage, the volume of that, and the function.
        wait_until("all is there", || made_by(&engine, pid).len() == 3);
        kill(Pid::from_raw(pid as i32), signal).unwrap();
        let code = child.wait_with_output().unwrap().status.code();
        if signal == Signal::SIGKILL {
            assert_eq!((code, made_by(&engine, pid).len()), (None, 3));
            let (idle, other) = (function(&place, "idle", TELLS), support::unique("idle"));
            // Any other run of the program may have swept by then.
            place.run(&words(&idle, &other, &[])).expect(0, &[]);
        } else {
            assert_eq!(code, Some(130));
        }
        assert_eq!(made_by(&engine, pid), [""; 0], "{signal}");
    }
    let wrong = json!({"nosql": {"type": "dynoxide", "dynoxide": {"image": "sebs-lite:no-such-image"}}});
    let wrong = place.write("wrong.json", &wrong.to_string()).display().to_string();
    let more = ["--storage-configuration", &wrong, "--output-dir", "none"];
    let (ended, left) = run(&engine, &place, &words(&benchmark, &name, &more));
    ended.expect(1, &["no-such-image"]);
    assert_eq!(left, [""; 0]);
    assert!(!place.path("none/experiments.json").exists());
}

#[test]
fn what_a_run_that_is_killed_made_to_keep_it_is_gone_after_the_next() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("unkept"), support::unique("unkept"));
    let (benchmark, tables) = (needy(&place, "needy", TELLS), dynoxide(&engine, &place));
    let options = ["--storage-configuration", &tables];
    let mut child = place.spawn(&words(&benchmark, &name, &[&options[..], &["--keep-storage"]].concat()));
    let pid = child.id();
    // Its storage cannot be ready: the container has only just been created.
    wait_until("a container is there", || made_by(&engine, pid).len() == 2);
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    place.run(&words(&benchmark, &name, &options)).expect(0, &[]);
    assert_eq!(made_by(&engine, pid), [""; 0]);
    let names = std::fs::read_dir(place.path("cache")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.starts_with("storage-")));
}
