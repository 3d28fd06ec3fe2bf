//! What outlives a run of the program and what does not: interrupted, killed, kept, and several at once.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sebs_lite::docker::{Engine, Scope};

use crate::program::{Ended, Place, function, words};
use crate::support::{self, containers};

/// Waits until a function's handler is at work.
pub(crate) fn wait_for_container(engine: &Engine, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        for container in engine.list_containers(&["sebs-lite=1"], Scope::Running).unwrap() {
            let is_ours = container.names.iter().any(|own| own.starts_with(name));
            let logs = is_ours.then(|| engine.container_logs(&container.id, None).unwrap().combined());
            if logs.is_some_and(|logs| logs.contains("at work")) {
                return;
            }
        }
        assert!(Instant::now() < deadline, "the function did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_but_what_it_measured() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("interrupted");
    let code = "import time\nserved = 0\n\
        def handler(event):\n    global served\n    served += 1\n    \
        if served > 2:\n        print('at work', flush=True)\n        time.sleep(60)\n    return {'result': served}\n";
    let benchmark = function(&place, "long", code);
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let name = support::unique("interrupted");
        let mut child = place.spawn(&words(&benchmark, &name, &["--repetitions", "5", "--timeout", "100"]));
        wait_for_container(&engine, &name);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{told}");
        assert_eq!(containers(&engine, &name), [""; 0]);
        assert_eq!(place.invocations().len(), 2);
    }
}

#[test]
fn what_a_killed_run_left_is_swept_by_the_next_and_nothing_else() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("killed");
    let code = "import time\ndef handler(event):\n    \
        if event.get('long'):\n        print('at work', flush=True)\n        time.sleep(60)\n    return {'result': 1}\n";
    let benchmark = function(&place, "long", code);
    let long = place.write("long.json", r#"{"long": true}"#).display().to_string();
    let (killed, living, next) =
        (support::unique("killed"), support::unique("living"), support::unique("next"));
    let start = |name: &str| {
        let words = ["--input", &long, "--timeout", "100"];
        place.spawn(&[
            "benchmark",
            "invoke",
            &benchmark,
            "test",
            "--function-name",
            name,
            words[0],
            words[1],
            words[2],
            words[3],
        ])
    };
    let mut first = start(&killed);
    wait_for_container(&engine, &killed);
    let mut second = start(&living);
    wait_for_container(&engine, &living);
    first.kill().unwrap();
    first.wait().unwrap();
    // Any run sweeps, those of other tests as well: so which of them tells of it is not asked.
    place.run(&words(&benchmark, &next, &[])).expect(0, &[]);
    assert_eq!(containers(&engine, &killed), [""; 0]);
    assert_eq!(containers(&engine, &living).len(), 1);
    kill(Pid::from_raw(second.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(130));
    assert_eq!(containers(&engine, &living), [""; 0]);
}

#[test]
fn two_programs_at_once_on_one_cache_and_one_folder_are_both_right() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("at-once");
    let code = "import markupsafe\ndef handler(event):\n    return {'result': str(markupsafe.escape('<'))}\n";
    let benchmark = function(&place, "shared", code);
    place.write("shared/python/requirements.txt", "markupsafe\n");
    let names = [support::unique("one"), support::unique("other")];
    let children: Vec<_> =
        names.iter().map(|name| place.spawn(&words(&benchmark, name, &["--repetitions", "3"]))).collect();
    for child in children {
        Ended::from(child.wait_with_output().unwrap()).expect(0, &["cold", "warm"]);
    }
    let mut functions = Vec::new();
    for entry in std::fs::read_dir(place.path(".")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("experiments") {
            let result = crate::program::read_json(&path);
            let invocations = result["_invocations"].as_object().unwrap().clone();
            for (name, invocations) in invocations {
                assert_eq!(invocations.as_object().unwrap().len(), 3);
                functions.push(name);
            }
        }
    }
    functions.sort();
    let mut names = names.to_vec();
    names.sort();
    assert_eq!(functions, names);
}

#[test]
fn a_kept_function_is_used_again_updated_and_found_gone() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("kept");
    let name = support::unique("kept");
    let benchmark = function(&place, "kept", "def handler(event):\n    return {'result': 1}\n");
    place.run(&words(&benchmark, &name, &["--keep"])).expect(0, &["is kept at", "cold"]);
    let first = containers(&engine, &name);
    assert_eq!(first.len(), 1);
    place.run(&words(&benchmark, &name, &[])).expect(0, &["using it as it is", "warm"]);
    assert_eq!(containers(&engine, &name), first);
    place.run(&words(&benchmark, &name, &["--memory", "96"])).expect(0, &["another configuration", "warm"]);
    assert_eq!(containers(&engine, &name), first);
    let limits = engine.inspect_container(&first[0]).unwrap().host_config;
    assert_eq!((limits.memory, limits.memory_swap), (96 << 20, 96 << 20));
    place.write("kept/python/function.py", "def handler(event):\n    return {'result': 2}\n");
    place.run(&words(&benchmark, &name, &["--memory", "96"])).expect(0, &["other code", "cold"]);
    assert_eq!(place.invocations()[0]["output"]["result"]["output"]["result"], 2);
    let third = containers(&engine, &name);
    assert!(third.len() == 1 && third != first);
    engine.remove_container(&third[0]).unwrap();
    place.run(&words(&benchmark, &name, &["--memory", "96"])).expect(0, &["is gone", "cold"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_kept_function_is_started_anew_where_other_options_are_asked_for() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("kept-options");
    let name = support::unique("kept-options");
    let code = "import os\ndef handler(event):\n    return {'result': os.environ.get('A')}\n";
    let benchmark = function(&place, "kept", code);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    place.run(&words(&benchmark, &name, &["--keep"])).expect(0, &["is kept at", "cold"]);
    place
        .run(&words(&benchmark, &name, &["--env", "A=b", "--port", &port]))
        .expect(0, &["with other options", "cold", &format!("is kept at http://127.0.0.1:{port}")]);
    assert_eq!(place.invocations()[0]["output"]["result"]["output"]["result"], "b");
    place.run(&words(&benchmark, &name, &["--env", "A=b"])).expect(0, &["using it as it is", "warm"]);
    // The new instance has the port of the old one.
    place.write("kept/python/function.py", &code.replace("get('A')", "get('A') + 'c'"));
    place
        .run(&words(&benchmark, &name, &["--env", "A=b", "--port", &port]))
        .expect(0, &["other code", "cold"]);
    assert_eq!(place.invocations()[0]["output"]["result"]["output"]["result"], "bc");
    let kept = containers(&engine, &name);
    assert_eq!(kept.len(), 1);
    engine.remove_container(&kept[0]).unwrap();
}

#[test]
fn a_function_that_prints_without_end_holds_no_clean_up_up_and_its_log_stays_in_the_folder() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("chatty");
    let name = support::unique("chatty");
    let code = "def handler(event):\n    while True:\n        print('x' * 60)\n";
    let benchmark = function(&place, "chatty", code);
    let named = format!("../{name}");
    let ended = place.run(&words(&benchmark, &named, &["--timeout", "1"])).expect(3, &["timed out"]);
    let logs: Vec<_> = std::fs::read_dir(place.path("logs")).unwrap().map(Result::unwrap).collect();
    assert!(logs.len() == 1 && logs[0].metadata().unwrap().len() > 0, "{}", ended.stderr);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn waiting_for_an_input_that_does_not_come_can_be_interrupted() {
    let place = Place::create("waiting");
    let mut command = place.command(&["benchmark", "invoke", "010.sleep", "test", "--input", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let has_handler = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
        u64::from_str_radix(caught.trim(), 16).unwrap_or_default() >> (Signal::SIGINT as u64 - 1) & 1 == 1
    };
    while !has_handler() {
        assert!(Instant::now() < deadline, "it takes no signal");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it waits on");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
