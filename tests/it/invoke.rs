//! `sebs-lite benchmark invoke` on the real engine: what it measures, and how it fails.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::program::{Ended, Place, error_of, function, words};
use crate::support::{self, containers};

#[test]
fn a_bundled_benchmark_runs_cold_then_warm_and_is_validated() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("html");
    let name = support::unique("html");
    let more = ["--repetitions", "5", "--validate", "--language", "python"];
    let ended = place.run(&words("110.dynamic-html", &name, &more));
    ended.expect(0, &["cold", "warm median", "outputs validated: 5 right, 0 wrong", "experiments.json"]);
    let experiments = place.experiments();
    assert_eq!(experiments["schema_version"], 1);
    assert_eq!(experiments["config"]["deployment"]["name"], "local");
    assert_eq!(experiments["config"]["experiments"]["runtime"]["language"], "python");
    assert!(experiments["environment"]["image_id"].as_str().unwrap().starts_with("sha256:"));
    assert!(experiments["begin_time"].as_f64() < experiments["end_time"].as_f64());
    let invocations = place.invocations();
    assert_eq!(invocations.len(), 5);
    for (number, invocation) in invocations.iter().enumerate() {
        assert_eq!(invocation["stats"]["cold_start"], number == 0);
        assert_eq!(invocation["stats"]["failure"], false);
        let micros = |value: &Value| value.as_u64().unwrap();
        let (handler, client) =
            (micros(&invocation["invocation"]["handler_us"]), micros(&invocation["times"]["client"]));
        let import = micros(&invocation["times"]["initialization"]);
        assert!(handler > 0 && handler + import <= client, "{invocation}");
        assert_eq!(import > 0, number == 0);
        let first_byte = invocation["times"]["http_first_byte_return"].as_f64().unwrap();
        assert!(invocation["times"]["http_startup"].as_f64().unwrap() <= first_byte);
        assert!(invocation["output"]["result"]["output"]["result"].as_str().unwrap().contains("<html"));
    }
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn sleep_sleeps_as_long_as_it_says_in_both_languages() {
    let Some(_) = support::engine() else { return };
    for language in ["python", "nodejs"] {
        if language == "nodejs" && !support::has_node() {
            continue;
        }
        let place = Place::create(&format!("sleep-{language}"));
        let name = support::unique("sleep");
        place.run(&words("010.sleep", &name, &["--language", language])).expect(0, &["cold"]);
        let handler_us = place.invocations()[0]["invocation"]["handler_us"].as_u64().unwrap();
        // The upper bound is a mistake's, not the clock's: how exact it is on an idle machine is for `tests/bench`.
        assert!((1_000_000..1_900_000).contains(&handler_us), "{language}: {handler_us} µs");
    }
}

#[test]
fn each_way_to_fail_is_named_and_the_measured_invocations_are_kept() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("failures");
    let name = support::unique("failures");
    let code = "import os, sys, time\n\
        def handler(event):\n    \
            print('asked to', event['do'], flush=True)\n    \
            if event['do'] == 'raise': raise ValueError('boom')\n    \
            if event['do'] == 'exit': os._exit(7)\n    \
            if event['do'] == 'return': return {'result': {1, 2}}\n    \
            if event['do'] == 'eat': held = [bytearray(16 << 20) for _ in range(64)]\n    \
            if event['do'] == 'sleep': time.sleep(30)\n    \
            return {'result': event['do']}\n";
    let benchmark = function(&place, "failing", code);
    let cases = [
        ("raise", "ValueError: boom", "500"),
        ("exit", "ended with exit code 7", "asked to exit"),
        ("return", "JSON", ""),
        ("eat", "memory limit of 128 MiB", ""),
        ("sleep", "timed out", "limit of 2 s"),
    ];
    for (word, reason, further) in cases {
        let input = place.write("input.json", &format!("{{\"do\": \"{word}\"}}")).display().to_string();
        let more = ["--input", &input, "--repetitions", "2", "--timeout", "2"];
        let ended = place.run(&words(&benchmark, &name, &more)).expect(3, &["failed", reason]);
        let invocations = place.invocations();
        assert_eq!(invocations.len(), 2, "{word}");
        for invocation in &invocations {
            assert_eq!(invocation["stats"]["failure"], true);
            let is_first = word != "raise" && word != "return";
            assert!(
                !is_first || invocation["stats"]["cold_start"] == true,
                "{word}: a fresh instance's first"
            );
            assert!(error_of(invocation).contains(reason), "{word}: {}", error_of(invocation));
        }
        assert!(ended.stdout.contains(further) || further == "500", "{}", ended.stdout);
        let logs = std::fs::read_dir(place.path("logs")).unwrap();
        let told = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap()).collect::<String>();
        assert!(told.contains(&format!("asked to {word}")), "{told}");
        assert_eq!(containers(&engine, &name), [""; 0], "{word}");
    }
    // An instance that raised lives on; one that is no more is replaced, and the next start is cold again.
    let input = place.write("input.json", r#"{"do": "fine"}"#).display().to_string();
    place.run(&words(&benchmark, &name, &["--input", &input])).expect(0, &["cold"]);
    let folders = std::fs::read_dir(place.path(".")).unwrap();
    let names = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let results = names.filter(|name| name.starts_with("experiments")).count();
    assert_eq!(results, cases.len() + 1, "each earlier result is set aside, none is lost");
}

#[test]
fn an_instance_whose_end_is_seen_late_is_not_taken_for_alive() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("late");
    let name = support::unique("late");
    // As after a kill on a busy machine: nothing answers any more, and only then the container ends.
    let code = "import os, socket, time\n\
        def handler(event):\n    \
            for name in os.listdir('/proc/self/fd'):\n        \
                try: socket.socket(fileno=os.dup(int(name))).shutdown(socket.SHUT_RDWR)\n        \
                except OSError: pass\n    \
            time.sleep(4)\n    \
            os._exit(7)\n";
    let benchmark = function(&place, "late", code);
    place.run(&words(&benchmark, &name, &["--repetitions", "2"])).expect(3, &["failed"]);
    let invocations = place.invocations();
    assert_eq!(invocations.len(), 2);
    for invocation in &invocations {
        assert!(error_of(invocation).contains("ended with exit code 7"), "{}", error_of(invocation));
    }
    assert_ne!(invocations[0]["invocation"]["instance_id"], invocations[1]["invocation"]["instance_id"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_benchmark_that_is_wrong_is_refused_before_anything_is_started() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("refused");
    let name = support::unique("refused");
    let benchmark = function(&place, "wrong", "def handler(event):\n    return {'result': 1}\n");
    let run = |more: &[&str]| place.run(&words(&benchmark, &name, more));
    place.write("wrong/input.py", "def generate_input(\n");
    run(&[]).expect(1, &["input.py", "SyntaxError"]);
    place.write("wrong/input.py", "import no_such_module_here\n");
    run(&[]).expect(2, &["no_such_module_here", "--input-python"]);
    place.write("wrong/input.py", "def generate_input(*args):\n    return {}\n");
    run(&["--language", "nodejs"]).expect(2, &["nodejs", "python"]);
    run(&["--language", "cobol"]).expect(2, &["cobol", "`python`"]);
    run(&["--language-variant", "pypy"]).expect(2, &["pypy", "default"]);
    run(&["--trigger", "storage"]).expect(2, &["STORAGE", "HTTP"]);
    run(&["--env", "broken"]).expect(2, &["NAME=VALUE"]);
    run(&["--memory", "3"]).expect(2, &["--memory 3", "at least 6 MB"]);
    run(&["--memory", "99999999999999999"]).expect(2, &["at most 1099511627776 MB"]);
    run(&["--cpus", "1e-12"]).expect(2, &["--cpus", "0.01"]);
    run(&["--cpus", "NaN"]).expect(2, &["--cpus"]);
    run(&["--start-timeout", "0"]).expect(2, &["--start-timeout"]);
    run(&["--repetitions", "0"]).expect(2, &["at least 1"]);
    run(&["--port", "1024", "--address", "bridge"]).expect(2, &["--port"]);
    run(&["--image", "x", "--image-source", "host"]).expect(2, &["--image-source"]);
    let large =
        place.write("large.json", &format!("{{\"text\": \"{}\"}}", "x".repeat(1000))).display().to_string();
    run(&["--input", &large, "--max-payload", "1kB"]).expect(2, &["--max-payload"]);
    run(&["--output-dir", "wrong/config.json"]).expect(1, &["wrong/config.json"]);
    place
        .write("wrong/config.json", "{\"timeout\": 20,\n \"memory\": \"much\", \"languages\": [\"python\"]}");
    run(&[]).expect(2, &["config.json", "line 2", "memory"]);
    place.write("wrong/config.json", "{\"timeout\": 20 \"memory\": 128}");
    run(&[]).expect(2, &["config.json", "line 1"]);
    place.run(&["benchmark", "invoke", "110.dynamic-htm", "test"]).expect(2, &["110.dynamic-html"]);
    place.run(&["benchmark", "invoke", "./nosuch", "test"]).expect(2, &["nosuch"]);
    for words in
        [&["invoke", "010.sleep", "test"][..], &["invoke", "./wrong", "test"], &["list"], &["regression"]]
    {
        let words = [&["benchmark"], words, &["--benchmarks", "/no/roots"]].concat();
        place.run(&words).expect(2, &["/no/roots"]);
    }
    place
        .run(&["benchmark", "invoke", "110.dynamic-html", "huge"])
        .expect(2, &["`test`, `small` or `large`"]);
    place
        .run(&["benchmark", "invoke", "110.dynamic-html", "test", "--language-version", "99"])
        .expect(2, &["version `99` of python", "version `99` of nodejs"]);
    place.run(&["benchmark", "invoke"]).expect(2, &["size"]);
    let version = |more: &[&str]| {
        let words = ["benchmark", "invoke", "010.sleep", "test", "--language-version"];
        place.run(&[&words, more].concat())
    };
    version(&["9.9"]).expect(2, &["of python is not", "of nodejs is not"]);
    // A version of Python alone: that it is none of Node.js is no news.
    let unknown = ["3.7", "--repository", "sebs-lite-test-no-such-image", "--image-source", "local"];
    let refused = version(&unknown).expect(1, &["no image for python 3.7"]);
    assert!(!refused.stderr.contains("nodejs"), "{}", refused.stderr);
    assert!(!place.path("experiments.json").exists());
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn an_engine_that_is_not_there_or_not_ours_to_use_is_named() {
    let place = Place::create("no-engine");
    let run = |host: &str| {
        let mut command = place.command(&["benchmark", "invoke", "010.sleep", "test"]);
        Ended::from(command.env("DOCKER_HOST", host).output().unwrap())
    };
    run("unix:///no/such.sock").expect(1, &["/no/such.sock"]);
    run("tcp://127.0.0.1:2375").expect(2, &["unix://"]);
    if support::engine().is_none() || !nix::unistd::getuid().is_root() {
        return;
    }
    let socket = std::os::unix::net::UnixListener::bind(place.path("own.sock")).unwrap();
    std::fs::set_permissions(place.path("own.sock"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    std::fs::set_permissions(place.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let program = place.path("program");
    // Not by this process: what another thread starts meanwhile would hold the copy open, so that nobody may run it.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_sebs-lite")).arg(&program).status().unwrap();
    assert!(copied.success());
    let mut command = Command::new(&program);
    command
        .args(["benchmark", "invoke", "010.sleep", "test"])
        .current_dir(place.path("."))
        .uid(65534)
        .gid(65534);
    command.env("DOCKER_HOST", format!("unix://{}", place.path("own.sock").display()));
    Ended::from(command.output().unwrap()).expect(1, &["own.sock", "only root may use it"]);
    drop(socket);
}

#[test]
fn an_answer_that_is_longer_than_the_limit_is_refused() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("long-answer");
    let name = support::unique("long-answer");
    let benchmark = function(&place, "long", "def handler(event):\n    return {'result': 'x' * 3000}\n");
    place.run(&words(&benchmark, &name, &["--max-payload", "100"])).expect(3, &["longer than 100 bytes"]);
    place.run(&words(&benchmark, &name, &["--max-payload", "10kB"])).expect(0, &[]);
}

#[test]
fn what_becomes_of_a_kept_function_is_said_in_words_and_once() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("kept-words");
    let name = support::unique("kept-words");
    let benchmark = function(&place, "plain", "def handler(event):\n    return {'result': 1}\n");
    let told =
        place.run(&words(&benchmark, &name, &["--deployments", "2", "--keep"])).expect(0, &["is kept at"]);
    assert_eq!(told.stderr.matches("is kept at").count(), 1, "{}", told.stderr);
    assert_eq!(told.stderr.matches("resources cleanup").count(), 1, "{}", told.stderr);
    let kept = containers(&engine, &name);
    let more = ["--memory", "256", "--cpus", "0.5", "--timeout", "30", "--keep"];
    place
        .run(&words(&benchmark, &name, &more))
        .expect(0, &["goes on with other limits: memory 256 MiB, 0.5 CPUs, timeout 30 s\n"]);
    for container in kept {
        let _ = engine.remove_container(&container);
    }
    place.run(&["resources", "cleanup", &name]).expect(0, &[]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("port");
    let name = support::unique("port");
    let benchmark = function(&place, "plain", "def handler(event):\n    return {'result': 1}\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    place.run(&words(&benchmark, &name, &["--port", &port])).expect(1, &[&format!("port {port}"), "taken"]);
    assert_eq!(containers(&engine, &name), [""; 0]);
    place
        .run(&words(&benchmark, &name, &["--address", "published", "--repetitions", "2"]))
        .expect(0, &["warm"]);
    drop(taken);
    place
        .run(&words(&benchmark, &name, &["--port", &port, "--keep-alive", "--repetitions", "2"]))
        .expect(0, &[]);
    let reused: Vec<bool> = place
        .invocations()
        .iter()
        .map(|one| one["invocation"]["reused_connection"].as_bool().unwrap())
        .collect();
    assert_eq!(reused, [false, true]);
    assert_eq!(containers(&engine, &name), [""; 0]);
}

#[test]
fn a_function_gets_its_limits_its_environment_and_nothing_it_may_harm() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("limits");
    let name = support::unique("limits");
    let code = "import os\n\
        def handler(event):\n    \
            try:\n        open('/function/function/new', 'w'); written = True\n    \
            except OSError: written = False\n    \
            open('/tmp/scratch', 'w').close()\n    \
            status = dict(line.split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)\n    \
            return {'result': {'uid': os.getuid(), 'env': os.environ['GREETING'], 'written': written,\n        \
                    'capabilities': status['CapEff'].strip(), 'no_new_privileges': status['NoNewPrivs'].strip()}}\n";
    let benchmark = function(&place, "limited", code);
    place
        .run(&words(
            &benchmark,
            &name,
            &["--env", "GREETING=a=b", "--cpus", "0.5", "--warmup", "1", "--json"],
        ))
        .expect(0, &[]);
    let invocation = &place.invocations()[0];
    assert_eq!(invocation["stats"]["cold_start"], false, "a warm-up comes first");
    let result = &invocation["output"]["result"]["output"]["result"];
    let expected = serde_json::json!({
        "uid": nix::unistd::getuid().as_raw(), "env": "a=b", "written": false,
        "capabilities": "0000000000000000", "no_new_privileges": "1",
    });
    assert_eq!(*result, expected);
}

#[test]
fn a_function_in_the_current_folder_is_run_again_and_again_without_taking_in_what_runs_leave() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("here");
    let name = support::unique("here");
    place.write("function.py", "def handler(event):\n    print('hello')\n    return {'result': 1}\n");
    let run = || place.run(&words(".", &name, &["--language", "python"])).expect(0, &["cold"]);
    assert!(run().stderr.contains("packaging"));
    assert!(!run().stderr.contains("packaging"), "nothing changed");
    assert!(place.path("logs").is_dir() && place.path("cache/CACHEDIR.TAG").is_file());
    // What was damaged in the cache is built anew, rather than run.
    let packaged = place.run(&["benchmark", "package", ".", "--language", "python", "--json"]).expect(0, &[]);
    let packaged: Value = serde_json::from_str(&packaged.stdout).unwrap();
    std::fs::remove_file(format!("{}/function/function.py", packaged["location"].as_str().unwrap())).unwrap();
    assert!(run().stderr.contains("not as it was built"));
    assert!(!run().stderr.contains("packaging"));
}

#[test]
fn a_validator_that_fails_finds_no_output_right_and_loses_none() {
    let Some(_) = support::engine() else { return };
    let place = Place::create("validator");
    let name = support::unique("validator");
    let benchmark = function(&place, "judged", "def handler(event):\n    return {'result': 1}\n");
    let script = "def generate_input(*args):\n    return {}\n\
        def validate_output(data_dir, event, output, language, storage):\n    raise ValueError('no idea')\n";
    place.write("judged/input.py", script);
    place
        .run(&words(&benchmark, &name, &["--validate", "--repetitions", "2"]))
        .expect(3, &["no idea", "2 wrong"]);
    assert_eq!(place.invocations().len(), 2);
    let experiments = place.experiments();
    let function = &experiments["config"]["function"];
    assert_eq!((&function["limits"]["memory"], &function["limits"]["timeout"]), (&128.into(), &20.into()));
}

/// A server that answers as SeBS's own does: it times the import, knows no cold start and adds no key of ours.
const SEBS_LIKE_SERVER: &str = r#"
import http.server, json, os, sys, time, uuid
sys.path.append('/function')
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200, {'result': 'ok'})
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        begin = time.time()
        from function import function
        end = time.time()
        self.reply(200, {'begin': '%.6f' % begin, 'end': '%.6f' % end, 'request_id': str(uuid.uuid4()),
                         'is_cold': False, 'result': {'output': function.handler(event)}})
    def reply(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(('0.0.0.0', int(sys.argv[1])), Server).serve_forever()
"#;

/// An entry that does as root what SeBS's does: it takes over a folder, and goes on as the user it is told.
const SEBS_LIKE_ENTRY: &str = r#"
import os, sys
uid, gid = int(os.environ['CONTAINER_UID']), int(os.environ['CONTAINER_GID'])
assert os.getuid() == 0 and os.environ['CONTAINER_USER']
os.makedirs('/home/someone'); os.chown('/home/someone', 4711, 4711); os.listdir('/home/someone')
os.setgid(4711); os.setuid(4711)
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn an_image_of_sebs_runs_as_it_is_and_its_times_are_not_taken_for_more_than_they_are() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("sebs-image");
    // The image of ours to build on is there once anything has run.
    place.run(&["benchmark", "package", "010.sleep", "--language", "python"]).expect(0, &[]);
    let packaged =
        place.run(&["benchmark", "package", "010.sleep", "--language", "python", "--json"]).expect(0, &[]);
    let packaged: Value = serde_json::from_str(&packaged.stdout).unwrap();
    let image = support::unique("sebs-image");
    let dockerfile = format!(
        "FROM {}\nLABEL server= sebs-lite.source= sebs-lite.build= sebs-lite.libc= sebs-lite.interpreter=\n\
         COPY server.py entry.py run_server.sh /sebs/\nENTRYPOINT [\"python3\", \"/sebs/entry.py\"]\n",
        packaged["image"].as_str().unwrap()
    );
    support::build(
        &engine,
        &image,
        &[
            ("Dockerfile", &dockerfile),
            ("server.py", SEBS_LIKE_SERVER),
            ("entry.py", SEBS_LIKE_ENTRY),
            ("run_server.sh", "exec python3 /sebs/server.py \"$@\"\n"),
        ],
    );
    let name = support::unique("sebs");
    let code = "import os\ndef handler(event):\n    return {'result': os.getuid()}\n";
    let benchmark = function(&place, "plain", code);
    let ended = place.run(&words(&benchmark, &name, &["--image", &image, "--repetitions", "2"]));
    engine.remove_image(&image).unwrap();
    let ended = ended.expect(0, &["does not time the handler", "as you named it"]);
    assert!(!ended.stdout.contains("handler"), "{}", ended.stdout);
    for invocation in place.invocations() {
        assert_eq!(invocation["output"]["result"]["output"]["result"], 4711);
        assert_eq!(invocation["invocation"]["handler_us"], Value::Null);
        assert_eq!(invocation["stats"]["cold_start"], false);
    }
}
