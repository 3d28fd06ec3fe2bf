//! `local start`, `stop` and `status`: what a deployment leaves running, and what it leaves behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::docker::{ContainerSpec, Engine, Scope};
use sebs_lite::probe::{Output, Probe, ProbeOptions};
use sebs_lite::process::Identity;
use serde_json::{Value, json};

use crate::program::{Ended, Place, function, read_json};
use crate::support::{self, containers, wait_until};

pub(crate) const ECHO: &str =
    "def handler(event):\n    print('called', flush=True)\n    return {'result': event.get('n', 0) + 1}\n";

/// The words that start a deployment whose functions have names that no other test uses.
pub(crate) fn start<'a>(benchmark: &'a str, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["local", "start", benchmark, "test", "out/d.json", "--function-name", name];
    words.extend(more);
    words
}

/// What a function answers to a request that another program makes.
pub(crate) fn invoke(url: &str, payload: &str) -> Value {
    let mut stream = TcpStream::connect(url).unwrap();
    let length = payload.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{payload}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// A process of the test's own that does nothing, and ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn spawn(program: &str, arguments: &[&str]) -> Sleeper {
        Sleeper(Command::new(program).args(arguments).stdin(Stdio::null()).spawn().unwrap())
    }

    fn identity(&self) -> Identity {
        Identity::of(self.0.id() as i32).unwrap()
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A recording of nothing, complete.
fn record(path: &Path) {
    let output = Output::Stream(path.to_path_buf());
    let options = ProbeOptions { output, ..ProbeOptions::new(Duration::from_millis(1)) };
    Probe::start(options).unwrap().stop().unwrap();
}

fn remove(engine: &Engine, name: &str) {
    for container in containers(engine, name) {
        engine.remove_container(&container).unwrap();
    }
}

#[test]
fn a_deployment_runs_until_it_is_stopped_and_may_then_be_started_again() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("deployment"), support::unique("deployment"));
    let benchmark = function(&place, "echo", ECHO);
    let input = place.write("event.json", "{\"n\":  41}").display().to_string();
    let words = start(&benchmark, &name, &["--deployments", "2", "--input", &input]);
    let file = place.path("out/d.json");
    let curl = format!(
        "-d '{{\"n\":  41}}'\ndeployment:  {}",
        file.canonicalize().unwrap_or(file.clone()).display()
    );
    place.run(&words).expect(0, &[&name, &format!("{name}-2"), &curl]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let deployment = read_json(&file);
    for (index, own_name) in [name.clone(), format!("{name}-2")].iter().enumerate() {
        let function = &deployment["functions"][index];
        assert_eq!(function["name"], own_name.as_str());
        assert_eq!(function["triggers"], json!([{"type": "HTTP", "url": function["url"]}]));
        let input = deployment["inputs"][0].to_string();
        assert_eq!(invoke(function["url"].as_str().unwrap(), &input)["result"]["output"]["result"], 42);
    }
    assert_eq!((&deployment["storage"], &deployment["nosql"]), (&Value::Null, &Value::Null));
    assert!(deployment.get("memory_measurements").is_none());

    place.run(&["local", "status", "out/d.json"]).expect(0, &["running", "yes"]);
    place.run(&["local", "stop", "out/d.json", "out/d.json"]).expect(2, &["a file of their own"]);
    let told = place.run(&words).expect(1, &["still runs", "sebs-lite local stop"]);
    assert_eq!(read_json(&file), deployment, "{}", told.stderr);

    let ended = place.run(&["local", "stop", "out/d.json", "out/stats.json"]);
    ended.expect(0, &["removed", "memory was not sampled"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
    let logs: Vec<_> = std::fs::read_dir(place.path("out/logs")).unwrap().collect();
    assert_eq!(logs.len(), 2);
    assert!(!place.path("out/stats.json").exists());
    let stopped_at = read_json(&file)["stopped_at"].clone();
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["already stopped", "gone before"]);
    assert_eq!(read_json(&file)["stopped_at"], stopped_at);
    place.run(&["local", "status", "out/d.json", "--json"]).expect(3, &["\"state\": \"gone\""]);

    let again = place.run(&start(&benchmark, &name, &["--json"])).expect(0, &[]);
    let told: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(told, read_json(&file));
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["removed"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
    let left: Vec<_> =
        std::fs::read_dir(place.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn whatever_became_of_an_instance_the_others_are_stopped() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("became"), support::unique("became"));
    let benchmark = function(&place, "echo", ECHO);
    place.run(&start(&benchmark, &name, &["--deployments", "4"])).expect(0, &[]);
    let deployment = read_json(&place.path("out/d.json"));
    let ids: Vec<&str> =
        (0..4).map(|index| deployment["functions"][index]["instance_id"].as_str().unwrap()).collect();
    engine.remove_container(ids[0]).unwrap();
    engine.kill_container(ids[1], "SIGKILL").unwrap();
    engine.wait_container(ids[1], None).unwrap();
    engine.pause_container(ids[2]).unwrap();
    let status = place.run(&["local", "status", "out/d.json"]);
    status.expect(3, &["gone", "exited (137)", "paused", "running"]);
    // Of two that stop it at once, both are right.
    let children =
        [place.spawn(&["local", "stop", "out/d.json"]), place.spawn(&["local", "stop", "out/d.json"])];
    let told: Vec<String> = children
        .into_iter()
        .map(|child| Ended::from(child.wait_with_output().unwrap()).expect(0, &["gone before"]).stdout)
        .collect();
    assert_eq!(told.iter().filter(|told| told.contains("already stopped")).count(), 1, "{told:?}");
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn containers_stay_if_that_is_wanted_and_the_file_may_still_be_used_again() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("stay"), support::unique("stay"));
    let benchmark = function(&place, "echo", ECHO);
    let words = start(&benchmark, &name, &["--no-remove-containers"]);
    place.run(&words).expect(0, &[]);
    assert_eq!(read_json(&place.path("out/d.json"))["remove_containers"], false);
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["stopped"]);
    place.run(&["local", "status", "out/d.json"]).expect(3, &["exited (1"]);
    assert_eq!(containers(&engine, &name).len(), 1);
    place.run(&words).expect(0, &[]);
    assert_eq!(containers(&engine, &name).len(), 2);
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["stopped"]);
    remove(&engine, &name);
}

#[test]
fn a_start_that_is_interrupted_leaves_nothing_and_one_that_is_killed_leaves_a_file_to_stop_it_by() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("middle");
    let benchmark = function(&place, "echo", ECHO);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let name = support::unique("middle");
        // So many that none of this is over when the first is there.
        let more = ["--deployments", "200", "--measure-interval", "1"];
        let mut child = place.spawn(&start(&benchmark, &name, &more));
        wait_until("a container is there", || containers(&engine, &name).len() > 1);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let code = child.wait().unwrap().code();
        let file = place.path("out/d.json");
        if signal == Signal::SIGTERM {
            assert_eq!(code, Some(143));
            assert_eq!(std::fs::read_dir(place.path("out")).unwrap().count(), 0);
        } else {
            let known = read_json(&file)["functions"].as_array().unwrap().len();
            assert!(code.is_none() && known < 200);
            place.run(&start(&benchmark, &name, &[])).expect(1, &["still runs"]);
            place.run(&["local", "stop", "out/d.json"]).expect(0, &["had not begun"]);
            place.run(&["local", "stop", "out/d.json"]).expect(0, &["already stopped"]);
            let is_recording =
                |path: std::path::PathBuf| path.extension().is_some_and(|end| end == "recording");
            let left = std::fs::read_dir(place.path("out")).unwrap();
            assert!(!left.into_iter().any(|entry| is_recording(entry.unwrap().path())));
        }
        assert_eq!(containers(&engine, &name), [""; 0], "{signal}");
    }
}

#[test]
fn what_a_killed_start_made_and_did_not_name_is_found_by_its_label() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("unnamed"), support::unique("unnamed"));
    let benchmark = function(&place, "echo", ECHO);
    place.run(&start(&benchmark, &name, &[])).expect(0, &[]);
    let file = place.path("out/d.json");
    let mut deployment = read_json(&file);
    deployment["functions"] = json!([]);
    assert!(deployment.as_object_mut().unwrap().remove("started_at").is_some());
    std::fs::write(&file, deployment.to_string()).unwrap();
    place.run(&start(&benchmark, &name, &[])).expect(1, &["still runs (container"]);
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["which a killed command had left"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_deployment_whose_file_was_moved_outlives_the_next_one_of_that_name() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("moved"), support::unique("moved"));
    let benchmark = function(&place, "echo", ECHO);
    place.run(&start(&benchmark, &name, &[])).expect(0, &[]);
    let first = containers(&engine, &name);
    std::fs::rename(place.path("out/d.json"), place.path("out/day1.json")).unwrap();
    place.run(&start(&benchmark, &name, &[])).expect(0, &["belongs to an earlier deployment"]);
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["is left alone"]);
    assert_eq!(containers(&engine, &name), first);
    place.run(&["local", "stop", "out/day1.json"]).expect(0, &["removed"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn what_the_engine_makes_for_a_start_that_was_killed_is_waited_for() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("straggler"), support::unique("straggler"));
    let benchmark = function(&place, "echo", ECHO);
    place.run(&start(&benchmark, &name, &[])).expect(0, &[]);
    let file = place.path("out/d.json");
    let mut deployment = read_json(&file);
    let id = deployment["functions"][0]["instance_id"].as_str().unwrap().to_string();
    let made = engine.inspect_container(&id).unwrap().config;
    // As if `local start` had been killed before it could name that one, and had asked for one more.
    deployment["functions"] = json!([]);
    assert!(deployment.as_object_mut().unwrap().remove("started_at").is_some());
    std::fs::write(&file, deployment.to_string()).unwrap();
    place.run(&["local", "status", "out/d.json"]).expect(3, &["not all was started"]);
    let stop = place.spawn(&["local", "stop", "out/d.json"]);
    wait_until("the first is gone", || engine.inspect_container(&id).is_err());
    let straggler = format!("{name}-straggler");
    let cmd = vec!["true".to_string()];
    let spec = ContainerSpec { image: made.image, labels: made.labels, cmd, ..ContainerSpec::default() };
    engine.create_container(&straggler, &spec).unwrap();
    let ended = Ended::from(stop.wait_with_output().unwrap());
    ended.expect(0, &[&format!("removed {straggler}, which a killed command had left")]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn of_two_starts_at_once_on_one_file_one_refuses() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("two");
    let benchmark = function(&place, "echo", ECHO);
    let names = [support::unique("one"), support::unique("two")];
    let children: Vec<Child> = names.iter().map(|name| place.spawn(&start(&benchmark, name, &[]))).collect();
    let codes: Vec<Option<i32>> = children
        .into_iter()
        .map(|child| {
            let ended = Ended::from(child.wait_with_output().unwrap());
            let told = ended.stderr.contains("is at work on") || ended.stderr.contains("still runs");
            assert_eq!(ended.code == Some(1), told, "{}", ended.stderr);
            ended.code
        })
        .collect();
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(1)), "{codes:?}");
    place.run(&["local", "stop", "out/d.json"]).expect(0, &["removed"]);
    assert!(names.iter().all(|name| containers(&engine, name).is_empty()));
}

#[test]
fn nothing_but_a_deployment_is_overwritten_or_stopped() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("garbage"), support::unique("garbage"));
    let benchmark = function(&place, "echo", ECHO);
    for garbage in ["precious", "{\"functions\": 1}", ""] {
        let file = place.write("out/d.json", garbage);
        place.run(&start(&benchmark, &name, &[])).expect(2, &["d.json", "nothing is overwritten"]);
        place
            .run(&["local", "stop", "out/d.json"])
            .expect(2, &["no deployment file", "label=sebs-lite.file=/"]);
        place.run(&["local", "status", "out/d.json"]).expect(2, &["no deployment file"]);
        assert_eq!(std::fs::read_to_string(file).unwrap(), garbage);
    }
    for command in ["stop", "status"] {
        place.run(&["local", command, "out/none.json"]).expect(2, &["none.json"]);
    }
    let more = |more: &[&str], told: &str| {
        let words = [&["local", "start", &benchmark, "test"], more].concat();
        place.run(&words).expect(2, &[told]);
    };
    more(&["out"], "is no file");
    more(&["n.json", "--deployments", "0"], "at least 1");
    more(&["n.json", "--function-name", ""], "cannot be empty");
    more(&["n.json", "--format", "sebs"], "--measure-interval");
    more(&["n.json", "--realtime"], "--measure-interval");
    more(&["n.json", "--measure-interval", "1", "--format", "tape"], "`recording` or `sebs`");
    more(&["n.json", "--measure-interval", "0"], "20 µs");
    assert!(!place.path("n.json").exists());
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_process_that_was_given_the_id_of_a_probe_is_left_alone() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("reused");
    let mut stranger = Sleeper::spawn("sleep", &["600"]);
    let identity = stranger.identity();
    let recording = place.path("x.recording");
    record(&recording);
    let pid = identity.pid;
    let earlier = json!({"pid": pid, "start_ticks": identity.start_ticks - 1, "boot_id": identity.boot_id});
    for processes in [json!([earlier]), json!([])] {
        let measurements = json!({"pids": [pid], "file": recording, "processes": processes});
        let deployment = json!({"functions": [], "inputs": [], "memory_measurements": measurements});
        place.write("d.json", &deployment.to_string());
        place.run(&["local", "stop", "d.json"]).expect(0, &["warn: "]);
        assert!(!stranger.has_ended());
    }
    let ours = json!({"pids": [pid], "file": recording, "processes": [identity]});
    place.write("d.json", &json!({"functions": [], "inputs": [], "memory_measurements": ours}).to_string());
    place.run(&["local", "stop", "d.json"]).expect(0, &["memory_stats.json"]);
    wait_until("the process has ended", || stranger.has_ended());
    let stats = std::fs::read_to_string(place.path("memory_stats.json")).unwrap();
    place.run(&["local", "stop", "d.json"]).expect(0, &["already stopped"]);
    assert_eq!(std::fs::read_to_string(place.path("memory_stats.json")).unwrap(), stats);
    std::fs::remove_file(recording).unwrap();
    place.run(&["local", "stop", "d.json"]).expect(1, &["x.recording"]);
}

#[test]
fn a_deployment_file_of_sebs_is_stopped_with_its_own_sampler() {
    let Some(engine) = support::engine() else { return };
    let (place, name) = (Place::create("sebs"), support::unique("sebs"));
    let benchmark = function(&place, "echo", ECHO);
    place.run(&start(&benchmark, &name, &["--no-remove-containers"])).expect(0, &[]);
    let ours = read_json(&place.path("out/d.json"));
    let mut function = ours["functions"][0].clone();
    function.as_object_mut().unwrap().remove("instances");
    let samples = place.write("samples.txt", "").display().to_string();
    let script = place.write("measureMem.py", "while :; do sleep 0.1; done\n").display().to_string();
    let mut sampler = Sleeper::spawn("sh", &[&script, "--measurement-file", &samples]);
    let id = function["instance_id"].as_str().unwrap().to_string();
    let line = format!("{id} 1000000\n{id} 3000000\nprecision not met\n");
    std::fs::write(&samples, line).unwrap();
    let sebs = json!({
        "functions": [function], "storage": null, "inputs": [{}], "unknown": 1,
        "memory_measurements": {"pids": [sampler.identity().pid], "file": samples},
    });
    let file = place.write("sebs.json", &sebs.to_string());
    place.run(&["local", "status", "sebs.json"]).expect(0, &["alive"]);
    place.run(&["local", "stop", "sebs.json"]).expect(0, &["stopped", "memory_stats.json"]);
    wait_until("the sampler has ended", || sampler.has_ended());
    let stats = read_json(&place.path("memory_stats.json"));
    assert_eq!(stats[&id]["mean mem. usage"], "2.0 MB");
    assert_eq!(stats[&id]["full profile (in bytes)"], json!([1_000_000, 3_000_000]));
    assert_eq!(stats["precision_errors"], 1);
    assert_eq!(read_json(&file)["unknown"], 1);
    // Whether it is removed is for the container itself to know, as SeBS made it.
    assert!(!engine.inspect_container(&id).unwrap().state.running);
    assert_eq!(
        engine.list_containers(&["sebs-lite=1"], Scope::All).unwrap().iter().filter(|c| c.id == id).count(),
        1
    );
    remove(&engine, &name);
}

#[test]
fn a_function_is_named_after_the_resources_of_the_configuration_or_the_cache() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("named");
    let benchmark = function(&place, "echo", ECHO);
    let id = "local-0badcafe";
    let config = json!({"deployment": {"name": "local", "local": {"resources": {"resources_id": id}}}});
    let config = place.write("config.json", &config.to_string()).display().to_string();
    let names = |more: &[&str]| {
        place.run(&[&["local", "start", &benchmark, "test", "d.json"], more].concat()).expect(0, &[]);
        let name = read_json(&place.path("d.json"))["functions"][0]["name"].as_str().unwrap().to_string();
        place.run(&["local", "stop", "d.json"]).expect(0, &[]);
        name
    };
    assert!(names(&["--config", &config]).starts_with("sebs-local-0badcafe-echo-python-3."));
    let made = names(&[]);
    let recorded = read_json(&place.path("cache/local.json"));
    let recorded = recorded["resources"]["resources_id"].as_str().unwrap();
    assert!(made.starts_with(&format!("sebs-{recorded}-echo-python-3.")), "{made} {recorded}");
    assert_eq!(names(&[]), made);
}
