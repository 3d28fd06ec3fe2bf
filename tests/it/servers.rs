//! The function servers keep their contract, with every interpreter of this host, as processes of this host.

use serde_json::{Value, json};

use crate::wire::{self, Code, Interpreter, Server, Setup};

const ECHO: Code =
    Code { python: "def handler(event): return event", nodejs: "exports.handler = async (event) => event;" };

fn start(interpreter: &Interpreter, code: Code) -> Server {
    Setup::new(interpreter, code).start()
}

/// `<seconds>.<six digits>` as microseconds.
fn microseconds(value: &Value) -> u64 {
    let (seconds, fraction) = value.as_str().unwrap().split_once('.').unwrap();
    assert_eq!(fraction.len(), 6, "{value}");
    seconds.parse::<u64>().unwrap() * 1_000_000 + fraction.parse::<u64>().unwrap()
}

fn is_uuid4(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let is_hex = text.chars().all(|c| c == '-' || matches!(c, '0'..='9' | 'a'..='f'));
    lengths == [8, 4, 4, 4, 12]
        && is_hex
        && text.as_bytes()[14] == b'4'
        && b"89ab".contains(&text.as_bytes()[19])
}

fn epoch_us() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64
}

#[test]
fn a_reply_tells_what_was_measured_and_the_event_who_asked() {
    let code = Code {
        python: "import time\ntime.sleep(0.1)\n\ndef handler(event):\n    \
                 end = time.perf_counter() + 0.02\n    while time.perf_counter() < end: pass\n    return event",
        nodejs: "const spin = (ms) => { const end = Date.now() + ms; while (Date.now() < end); };\nspin(101);\n\
                 exports.handler = async (event) => { spin(21); return event; };",
    };
    for interpreter in wire::all() {
        let server = Setup::new(interpreter, code).env("SEBS_LITE_CONTAINER_ID", "c0ffee").start();
        let before = epoch_us();
        let (status, cold) = server.invoke(r#"{"number": 7, "text": "Zürich"}"#);
        assert_eq!(status, 200, "{}: {cold}", server.about);
        let (_, warm) = server.invoke("{}");
        let after = epoch_us();
        assert_eq!((&cold["is_cold"], &warm["is_cold"]), (&json!(true), &json!(false)));
        assert!(cold["init_us"].as_u64() >= Some(99_000), "{}: {cold}", server.about);
        assert_eq!(warm["init_us"], 0);
        for reply in [&cold, &warm] {
            let (begin, end) = (microseconds(&reply["begin"]), microseconds(&reply["end"]));
            // The last digits of Node's clock are derived: ± 3 ms once the clock has been set.
            assert!(before <= begin + 3000 && end <= after + 3000, "{before} {reply} {after}");
            let handler_us = reply["handler_us"].as_u64().unwrap();
            assert!(handler_us >= 19_000 && end - begin + 5000 >= handler_us, "{}: {reply}", server.about);
            let cpu_us = reply["cpu_us"].as_u64().unwrap();
            assert!(cpu_us > 0, "{}: {reply}", server.about);
            assert_eq!(reply["container_id"], "c0ffee");
            assert!(is_uuid4(&reply["request_id"]), "{reply}");
            let event = &reply["result"]["output"];
            assert_eq!(event["request-id"], reply["request_id"]);
            let income = (event["income-timestamp"].as_f64().unwrap() * 1e6) as u64;
            assert!(before <= income + 3000 && income <= begin + 3000, "{}: {reply}", server.about);
        }
        // The import lies before `begin`.
        let begin = microseconds(&cold["begin"]);
        let income = cold["result"]["output"]["income-timestamp"].as_f64().unwrap() * 1e6;
        assert!(begin as f64 - income >= 95_000.0, "{}: {cold}", server.about);
        assert_ne!(cold["request_id"], warm["request_id"]);
        assert_eq!(cold["result"]["output"]["text"], "Zürich");
    }
}

#[test]
fn a_server_that_is_not_told_its_container_names_one_all_the_same() {
    for interpreter in wire::all() {
        let server = start(interpreter, ECHO);
        let (_, reply) = server.invoke("{}");
        assert!(!reply["container_id"].as_str().unwrap().is_empty(), "{reply}");
    }
}

#[test]
fn a_handler_that_raises_fails_its_invocation_alone() {
    let code = Code {
        python: "import sys\n\nclass Odd(BaseException):\n    def __str__(self): raise ValueError\n\n\
                 def handler(event):\n    \
                     if 'text' in event: raise KeyError('näme')\n    \
                     if 'exit' in event: sys.exit(3)\n    \
                     if 'odd' in event: raise Odd()\n    \
                     if 'closed' in event: sys.stderr.close(); sys.stdout.close(); raise ValueError('closed')\n    \
                     return 1",
        nodejs: "exports.handler = async (event) => {\n    \
                     if ('text' in event) throw new RangeError('näme');\n    \
                     if ('exit' in event) throw 'words';\n    \
                     if ('odd' in event) { setTimeout(() => { throw new TypeError('late'); }, 1); await new Promise(() => {}); }\n    \
                     if ('closed' in event) { Promise.reject(new EvalError('alone')); await new Promise(() => {}); }\n    \
                     return 1;\n};",
    };
    for interpreter in wire::all() {
        let server = start(interpreter, code);
        let is_python = interpreter.language == sebs_lite::faas::Language::Python;
        let types = if is_python {
            ["KeyError", "SystemExit", "Odd", "ValueError"]
        } else {
            ["RangeError", "string", "TypeError", "EvalError"]
        };
        let mut wire = server.connect();
        for (number, (name, kind)) in ["text", "exit", "odd", "closed"].iter().zip(types).enumerate() {
            let (status, reply) = wire.invoke(&json!({ *name: 1 }).to_string());
            assert_eq!((status, &reply["error"]["type"]), (500, &json!(kind)), "{}: {reply}", server.about);
            assert_eq!(reply["is_cold"], number == 0);
            assert!(is_uuid4(&reply["request_id"]) && reply["error"]["message"].is_string(), "{reply}");
            let traceback = reply["error"]["traceback"].as_str().unwrap();
            assert!(!traceback.contains("in invoke"), "{traceback}");
            if number == 0 {
                assert!(reply["error"]["message"].as_str().unwrap().contains("näme"), "{reply}");
                assert!(traceback.contains("näme") && traceback.contains("function."), "{traceback}");
                assert!(server.log("stderr").contains(traceback.trim_end()), "{}", server.log("stderr"));
            }
        }
        let (status, reply) = wire.invoke("{}");
        assert_eq!((status, &reply["is_cold"]), (200, &json!(false)), "{}: {reply}", server.about);
    }
}

#[test]
fn an_import_that_fails_is_tried_again() {
    let code = Code { python: "import no_such_module", nodejs: "require('no_such_module');" };
    for interpreter in wire::all() {
        let server = start(interpreter, code);
        for is_cold in [true, false] {
            let (status, reply) = server.invoke("{}");
            assert_eq!((status, &reply["is_cold"]), (500, &json!(is_cold)), "{}: {reply}", server.about);
            assert!(reply["error"]["message"].as_str().unwrap().contains("no_such_module"), "{reply}");
        }
        for (name, text) in
            [("py", "def handler(event): return 'now'"), ("js", "exports.handler = () => 'now';")]
        {
            std::fs::write(server.path(&format!("package/function/function.{name}")), text).unwrap();
        }
        let (status, reply) = server.invoke("{}");
        assert_eq!((status, &reply["is_cold"]), (200, &json!(false)), "{}: {reply}", server.about);
        assert_eq!(reply["result"]["output"], "now");
    }
}

#[test]
fn a_result_that_is_not_json_is_a_failure_that_says_so() {
    let code = Code {
        python: "cycle = []\ncycle.append(cycle)\n\
                 results = [float('nan'), [float('-inf')], {1, 2}, cycle, '\\ud800', {(1, 2): 3}]\n\n\
                 def handler(event): return results[event['n']] if 'n' in event else None",
        nodejs: "const cycle = {};\ncycle.cycle = cycle;\n\
                 const results = [NaN, [-Infinity], 1n, cycle, () => {}, Symbol('x')];\n\
                 exports.handler = (event) => results[event.n];",
    };
    for interpreter in wire::all() {
        let server = start(interpreter, code);
        for n in 0..6 {
            let (status, reply) = server.invoke(&json!({ "n": n }).to_string());
            assert_eq!(status, 500, "{}: {reply}", server.about);
            let message = reply["error"]["message"].as_str().unwrap();
            assert!(
                message.starts_with("the handler's return value cannot be written as JSON: "),
                "{message}"
            );
        }
        assert_eq!(server.output("{}"), Value::Null);
    }
}

#[test]
fn bad_requests_are_refused_and_count_as_no_invocation() {
    for interpreter in wire::all() {
        let server = start(interpreter, ECHO);
        let mut wire = server.connect();
        let deep = "[".repeat(200_000);
        let bodies: [&[u8]; 7] =
            [b"", b"{", b"[1]", b"null", b"{\"a\": NaN}", b"{\"a\": \"\xff\"}", deep.as_bytes()];
        for body in bodies {
            let answer = wire.ask("POST", "/", body);
            assert_eq!(answer.status, 400, "{}: {answer:?}", server.about);
            assert!(answer.json()["error"]["message"].as_str().unwrap().contains("JSON"), "{answer:?}");
        }
        for (method, path, status) in [
            ("GET", "/", 405),
            ("PUT", "/?a=b", 405),
            ("POST", "/alive", 405),
            ("POST", "/other", 404),
            ("GET", "/alive/", 404),
            ("GET", "/alive?x", 200),
            ("GET", "http://x/alive", 200),
        ] {
            let answer = wire.ask(method, path, b"{}");
            assert_eq!(answer.status, status, "{}: {method} {path} {answer:?}", server.about);
            assert!(answer.has_header("content-type: application/json"), "{answer:?}");
            assert!(status == 200 || answer.json()["error"]["message"].is_string(), "{answer:?}");
            assert!(status != 405 || answer.head.to_lowercase().contains("\r\nallow: "), "{answer:?}");
        }
        // All on one connection, which still serves; and the first invocation is still to come.
        assert_eq!(wire.invoke("{}").1["is_cold"], true, "{}", server.about);

        wire.send("POST / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(wire.answer().status, 411, "{}", server.about);
        for head in ["nonsense\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n"] {
            let mut wire = server.connect();
            wire.send(head);
            let answer = String::from_utf8(wire.read_once()).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{}: {answer}", server.about);
        }
    }
}

#[test]
fn bodies_come_in_chunks_and_on_invitation() {
    for interpreter in wire::all() {
        let server = start(interpreter, ECHO);
        let mut wire = server.connect();
        wire.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6;x=y\r\n{\"a\": \r\n");
        wire.send("2\r\n1}\r\n0\r\nTrailer: x\r\n\r\n");
        let answer = wire.answer();
        assert_eq!(answer.json()["result"]["output"]["a"], 1, "{}: {answer:?}", server.about);

        wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(wire.answer().status, 100, "{}", server.about);
        wire.send("{\"a\": 2}");
        assert_eq!(wire.answer().json()["result"]["output"]["a"], 2, "{}", server.about);

        wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: more\r\n\r\n");
        assert!(wire.read_once().starts_with(b"HTTP/1.1 417 "), "{}", server.about);
    }
}

#[test]
fn a_body_above_the_limit_is_refused_so_that_the_client_learns_it() {
    let body = vec![b' '; 5_000_000];
    for interpreter in wire::all() {
        let server = Setup::new(interpreter, ECHO).env("SEBS_LITE_MAX_PAYLOAD_BYTES", "1000").start();
        let mut wire = server.connect();
        let answer = wire.ask("POST", "/", &body);
        assert_eq!(answer.status, 413, "{}: {answer:?}", server.about);
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("1000 bytes"), "{answer:?}");
        assert!(answer.has_header("connection: close") && wire.is_ended(), "{}: {answer:?}", server.about);

        let mut wire = server.connect();
        wire.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send([b"3e9\r\n".as_slice(), &body[..1001], b"\r\n0\r\n\r\n"].concat());
        assert_eq!(wire.answer().status, 413, "{}", server.about);

        let mut wire = server.connect();
        wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(wire.answer().status, 413, "{}", server.about);

        let full = format!("{{\"a\": \"{}\"}}", "x".repeat(991));
        assert_eq!(server.invoke(&full).0, 200, "{}", server.about);
    }
}

#[test]
fn a_body_of_100_mb_goes_in_and_a_reply_of_20_mb_out() {
    let code = Code {
        python: "def handler(event): return [len(event['a']), 'y' * 20000000]",
        nodejs: "exports.handler = (event) => [event.a.length, 'y'.repeat(20000000)];",
    };
    let event = format!("{{\"a\": \"{}\"}}", "x".repeat(100_000_000));
    for interpreter in wire::pythons().iter().take(1).chain(wire::nodes().iter().take(1)) {
        let output = start(interpreter, code).output(&event);
        assert_eq!(output[0], 100_000_000, "{}", interpreter.about());
        assert_eq!(output[1].as_str().unwrap().len(), 20_000_000, "{}", interpreter.about());
    }
}
