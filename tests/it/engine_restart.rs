//! A run whose engine is restarted, killed or stopped under it: bounded, right, and nothing left behind.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::docker::Scope;
use serde_json::Value;

use crate::deployment::{self, ECHO};
use crate::own_engine::OwnEngine;
use crate::program::{Ended, Place, error_of, function, read_json, words};
use crate::served::{Gate, WAITS_AT_GATE, let_go};
use crate::support::{containers, storage_image, unique, wait_until};

/// A run of the program whose handlers wait at a gate.
struct Run {
    place: Place,
    name: String,
    benchmark: String,
    gate: Gate,
}

impl Run {
    fn new(name: &str) -> Run {
        let name = unique(name);
        let place = Place::create(&name);
        let benchmark = function(&place, "waits", WAITS_AT_GATE);
        let gate = Gate::open();
        place.write("event.json", &gate.event());
        Run { place, name, benchmark, gate }
    }

    /// Starts it, with so many invocations that wait at the gate, one after the other.
    fn spawn(&self, own: &OwnEngine, count: &str, wait: &str) -> Child {
        self.spawn_with(own, count, wait, &[])
    }

    /// One of three invocations has been served, and the second is at work.
    fn spawn_until_second(&self, own: &OwnEngine, wait: &str) -> (Child, TcpStream) {
        let child = self.spawn(own, "3", wait);
        let_go(self.gate.arrival());
        (child, self.gate.arrival())
    }

    fn spawn_with(&self, own: &OwnEngine, count: &str, wait: &str, words_more: &[&str]) -> Child {
        let event = self.place.path("event.json").display().to_string();
        let own_words = ["--repetitions", count, "--input", &event, "--measure-interval", "1ms"];
        let more = [&own_words, words_more].concat();
        let mut command = own.command(&self.place, &words(&self.benchmark, &self.name, &more));
        command.env("SEBS_LITE_ENGINE_WAIT", wait).spawn().unwrap()
    }

    /// The error of each recorded invocation, in their order; empty: it went well.
    fn errors(&self) -> Vec<String> {
        let invocations = self.place.invocations();
        invocations.iter().map(|invocation| error_of(invocation).to_string()).collect()
    }
}

fn ended(child: Child) -> Ended {
    Ended::from(child.wait_with_output().unwrap())
}

fn peaks(invocations: &[Value]) -> Vec<bool> {
    invocations.iter().map(|one| one["invocation"]["memory_peak_bytes"].is_u64()).collect()
}

const WENT_AWAY: &str = "the Docker engine went away meanwhile";

#[test]
fn a_restart_costs_the_invocation_under_way_and_the_run_goes_on_with_another_instance() {
    let Some(mut own) = OwnEngine::start(&[]) else { return };
    let run = Run::new("restarted");
    // The second one is idle when the engine ends it, which costs nothing.
    let child = run.spawn_with(&own, "4", "60s", &["--deployments", "2"]);
    let_go(run.gate.arrival());
    let waiting = run.gate.arrival();
    own.stop();
    drop(waiting);
    own.resume();
    let_go(run.gate.arrival());
    // Killed, it ends its containers only when it comes up again: they serve until then.
    let waiting = run.gate.arrival();
    own.crash();
    own.resume();
    drop(waiting);
    let told =
        ["waiting up to 60 s for it to come back", "the engine answers again", "so another takes its place"];
    ended(child).expect(3, &told);
    let errors = run.errors();
    let failed: Vec<bool> = errors.iter().map(|error| !error.is_empty()).collect();
    assert_eq!(failed, [false, true, false, true], "{errors:?}");
    assert!(errors[1].contains("exit code 143") && errors[1].contains(WENT_AWAY), "{errors:?}");
    let invocations = run.place.invocations();
    assert_eq!(peaks(&invocations), [true; 4]);
    let instances: Vec<&Value> = invocations.iter().map(|one| &one["invocation"]["instance_id"]).collect();
    assert!(instances[0] == instances[1] && instances[1] != instances[2], "{instances:?}");
    assert_eq!(containers(&own.engine(), &run.name), [""; 0]);
}

#[test]
fn a_restart_behind_a_socket_that_somebody_else_holds_open_is_waited_for_too() {
    let Some(mut own) = OwnEngine::start_behind_held_socket(&[]) else { return };
    let run = Run::new("held");
    let (child, waiting) = run.spawn_until_second(&own, "60s");
    own.stop();
    drop(waiting);
    own.resume();
    let_go(run.gate.arrival());
    ended(child).expect(3, &[]);
    let errors = run.errors();
    assert!(
        errors[0].is_empty() && errors[1].contains("exit code 143") && errors[2].is_empty(),
        "{errors:?}"
    );
    assert_eq!(containers(&own.engine(), &run.name), [""; 0]);
}

#[test]
fn with_live_restore_no_invocation_notices_that_the_engine_was_away() {
    let Some(mut own) = OwnEngine::start(&["--live-restore"]) else { return };
    let run = Run::new("live");
    let (child, waiting) = run.spawn_until_second(&own, "60s");
    own.stop();
    let_go(waiting);
    let waiting = run.gate.arrival();
    own.resume();
    let_go(waiting);
    ended(child).expect(0, &["cold", "warm"]);
    assert_eq!(run.errors(), [""; 3]);
    let invocations = run.place.invocations();
    assert_eq!(peaks(&invocations), [true; 3]);
    assert_eq!(containers(&own.engine(), &run.name), [""; 0]);
}

#[test]
fn a_run_whose_engine_does_not_come_back_ends_with_what_it_has_and_the_next_one_sweeps() {
    let Some(mut own) = OwnEngine::start(&["--live-restore"]) else { return };
    let run = Run::new("gone");
    let (child, waiting) = run.spawn_until_second(&own, "1s");
    let engine = own.engine();
    let running = engine.list_containers(&["sebs-lite=1"], Scope::Running).unwrap();
    let first = engine.inspect_container(&running[0].id).unwrap().state.pid;
    own.crash();
    // Its first process takes all others of the container along.
    kill(Pid::from_raw(first as i32), Signal::SIGKILL).unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{first}/stat"));
    wait_until("the container has ended", || stat().map_or(true, |stat| stat.contains(") Z ")));
    drop(waiting);
    ended(child).expect(1, &["did not come back within 1 s (start it, and run the command again)"]);
    let errors = run.errors();
    assert!(errors.len() == 2 && errors[0].is_empty() && errors[1].contains(WENT_AWAY), "{errors:?}");

    // Interrupted while it waits, it ends with what it has, too.
    own.resume();
    let (child, _waiting) = run.spawn_until_second(&own, "60s");
    own.stop();
    let begin = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    own.resume();
    ended(child).expect(130, &[]);
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert_eq!(run.errors(), [""]);
    assert_eq!(containers(&own.engine(), &run.name), [""; 0]);
}

#[test]
fn outputs_are_validated_with_storage_that_came_back_at_another_port() {
    let Some(mut own) = OwnEngine::start(&[]) else { return };
    storage_image(&own.engine(), "seaweedfs");
    let run = Run::new("objects");
    run.place.write(
        "waits/input.py",
        "import os, tempfile\n\ndef buckets_count():\n    return (1, 1)\n\n\
         def generate_input(data_dir, size, bucket, inputs, outputs, upload, write):\n    \
         with tempfile.NamedTemporaryFile() as file:\n        file.write(b'data'); file.flush()\n        \
         upload(0, 'key', file.name)\n    \
         return {'bucket': bucket, 'input': inputs[0], 'gate': int(os.environ['GATE'])}\n\n\
         def validate_output(data_dir, event, output, language, storage):\n    \
         path = os.path.join(tempfile.mkdtemp(), 'x')\n    \
         storage.download(event['bucket'], event['input'] + '/key', path)\n    \
         return None if open(path, 'rb').read() == b'data' else 'other data'\n",
    );
    let mut command =
        own.command(&run.place, &words(&run.benchmark, &run.name, &["--validate", "--repetitions", "2"]));
    let child = command.env("GATE", run.gate.port().to_string()).spawn().unwrap();
    let waiting = run.gate.arrival();
    let id = own.engine().list_containers(&["sebs-lite.storage"], Scope::Running).unwrap()[0].id.clone();
    let ports = own.engine().inspect_container(&id).unwrap().network_settings.ports;
    let port: u16 = ports["9000/tcp"].as_ref().unwrap()[0].host_port.parse().unwrap();
    own.stop();
    drop(waiting);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    own.resume();
    let_go(run.gate.arrival());
    ended(child).expect(3, &["storage `seaweedfs` has ended with the engine", "1 right, 0 wrong"]);
}

#[test]
fn storage_of_a_run_that_a_restart_ended_is_started_again_before_functions_are() {
    let Some(mut own) = OwnEngine::start(&[]) else { return };
    storage_image(&own.engine(), "dynoxide");
    let run = Run::new("notes");
    run.place.write(
        "waits/input.py",
        "def allocate_nosql():\n    return {'notes': {'primary_key': 'id'}}\n\n\
         def generate_input(data_dir, size, bucket, inputs, outputs, upload, write):\n    return {}\n",
    );
    let (child, waiting) = run.spawn_until_second(&own, "60s");
    let storage = |own: &OwnEngine| {
        let running = own.engine().list_containers(&["sebs-lite.storage"], Scope::Running).unwrap();
        running.into_iter().map(|container| container.id).collect::<Vec<_>>()
    };
    let before = storage(&own);
    assert_eq!(before.len(), 1);
    own.stop();
    drop(waiting);
    own.resume();
    let waiting = run.gate.arrival();
    let after = storage(&own);
    let_go(waiting);
    ended(child).expect(3, &["storage `dynoxide` has ended with the engine: it is started again"]);
    assert_eq!(after, before);
    let errors = run.errors();
    assert!(errors[0].is_empty() && errors[1].contains(WENT_AWAY) && errors[2].is_empty(), "{errors:?}");
    assert_eq!(own.engine().list_containers(&["sebs-lite=1"], Scope::All).unwrap().len(), 0);
}

/// What the interpreter reads before its program: the server comes up once the gate lets it.
pub(crate) const COMES_UP_AT_GATE: &str = "
import os, socket, struct, sys
sys.path.remove('/function/function')
for line in open('/proc/net/route').read().splitlines()[1:]:
    fields = line.split()
    if fields[1] == '00000000':
        gateway = socket.inet_ntoa(struct.pack('<L', int(fields[2], 16)))
with socket.create_connection((gateway, os.environ['GATE']), timeout=120) as gate:
    gate.recv(1)
";

#[test]
fn an_instance_that_a_restart_ended_while_it_came_up_is_started_again() {
    let Some(mut own) = OwnEngine::start(&[]) else { return };
    let (place, name, gate) = (Place::create("coming-up-again"), unique("coming-up"), Gate::open());
    let benchmark = function(&place, "echo", ECHO);
    place.write("echo/python/sitecustomize.py", COMES_UP_AT_GATE);
    let port = format!("GATE={}", gate.port());
    let more = ["--env", "PYTHONPATH=/function/function", "--env", &port];
    let child = own.command(&place, &words(&benchmark, &name, &more)).spawn().unwrap();
    let waiting = gate.arrival();
    own.stop();
    drop(waiting);
    own.resume();
    let_go(gate.arrival());
    ended(child).expect(0, &["the engine went away meanwhile, so it is started again", "cold"]);
    assert_eq!(containers(&own.engine(), &name), [""; 0]);
}

#[test]
fn an_image_that_a_restart_broke_off_is_imported_again() {
    let Some(mut own) = OwnEngine::start(&[]) else { return };
    let place = Place::create("importing");
    let build = [
        "docker",
        "build",
        "--kind",
        "run",
        "--language",
        "python",
        "--image-source",
        "host",
        "--update-code",
    ];
    let mut child = own.command(&place, &build).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("importing") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "it does not say that it imports");
    }
    own.stop();
    own.resume();
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert_eq!(own.engine().list_images(&["server"]).unwrap().len(), 1, "{rest}");
}

#[test]
fn what_was_kept_is_found_made_anew_or_stopped_by_an_engine_whose_bridge_has_moved() {
    let Some(mut own) = OwnEngine::start(&[]) else { return };
    let (place, name, deployed) = (Place::create("moved"), unique("kept"), unique("deployed"));
    let benchmark = function(&place, "echo", ECHO);
    place.write("event.json", "{}");
    let event = place.path("event.json").display().to_string();
    own.run(&place, &words(&benchmark, &name, &["--keep", "--input", &event]))
        .expect(0, &["is kept at", "cold"]);
    let more = ["--input", &event, "--measure-interval", "1ms"];
    own.run(&place, &deployment::start(&benchmark, &deployed, &more)).expect(0, &[]);
    storage_image(&own.engine(), "dynoxide");
    place.write("tables.json", r#"{"nosql": {"type": "dynoxide", "dynoxide": {"data_volume": "tables"}}}"#);
    let start = ["storage", "start", "nosql", "tables.json", "--output-json=s.json"];
    own.run(&place, &start).expect(0, &[]);
    let address = |place: &Place| read_json(&place.path("s.json"))["nosql"]["dynoxide"]["address"].clone();
    let before = address(&place);

    own.stop();
    let prefix = own.move_away();
    own.run(&place, &["local", "status", "out/d.json"]).expect(1, &["there is no such socket"]);
    own.resume();
    own.run(&place, &words(&benchmark, &name, &["--keep", "--input", &event]))
        .expect(0, &["removing it", &format!("is kept at http://{prefix}"), "cold"]);
    own.run(&place, &words(&benchmark, &name, &["--input", &event]))
        .expect(0, &["using it as it is", "warm"]);
    own.run(&place, &["local", "status", "out/d.json"]).expect(3, &["exited"]);
    own.run(&place, &["local", "stop", "out/d.json", "out/stats.json"]).expect(0, &["removed"]);
    own.run(&place, &["storage", "status", "s.json"]).expect(3, &["does not run: it is exited"]);
    own.run(&place, &start).expect(0, &[]);
    assert!(address(&place) != before && address(&place).as_str().unwrap().starts_with(&prefix));
    own.run(&place, &["storage", "status", "s.json"]).expect(0, &["running"]);
    own.run(&place, &["storage", "stop", "all", "s.json"]).expect(0, &["removed"]);
    assert_eq!(containers(&own.engine(), &deployed), [""; 0]);
    assert_eq!(containers(&own.engine(), &name).len(), 1);
}
