//! The function servers as processes: connections, concurrency, signals, output, and where the package's modules come from.

use std::path::Path;

use nix::sys::signal::Signal;
use sebs_lite::faas::Language;
use serde_json::json;

use crate::wire::{self, Code, Setup};

/// Tells that it runs, by a file, and waits for another one.
const WAITS: Code = Code {
    python: "import os, time\n\ndef handler(event):\n    open('../begun', 'w').close()\n    \
             while not os.path.exists('../go'): time.sleep(0.002)\n    return event",
    nodejs: "const fs = require('fs');\nexports.handler = async (event) => {\n    fs.writeFileSync('../begun', '');\n    \
             while (!fs.existsSync('../go')) await new Promise((resolve) => setTimeout(resolve, 2));\n    return event;\n};",
};

#[test]
fn handlers_run_one_at_a_time_and_the_instance_answers_meanwhile() {
    for interpreter in wire::all() {
        let server = Setup::new(interpreter, WAITS).start();
        let mut wires: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for wire in &mut wires {
            wire.send_request("POST", "/", b"{}");
        }
        server.wait_for("begun");
        assert_eq!(server.connect().ask("GET", "/alive", b"").status, 200, "{}", server.about);
        std::fs::write(server.path("go"), "").unwrap();
        let mut spans: Vec<(f64, f64)> = Vec::new();
        for wire in &mut wires {
            let reply = wire.answer().json();
            let time = |key: &str| reply[key].as_str().unwrap().parse::<f64>().unwrap();
            spans.push((time("begin"), time("end")));
        }
        spans.sort_by(|one, other| one.0.total_cmp(&other.0));
        let is_one_by_one = spans.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        assert!(is_one_by_one, "{}: {spans:?}", server.about);
    }
}

#[test]
fn connections_are_kept_and_closed_as_the_client_says() {
    for interpreter in wire::all() {
        let server = Setup::new(interpreter, WAITS).start();
        std::fs::write(server.path("go"), "").unwrap();
        let mut wire = server.connect();
        for n in 0..20 {
            wire.send_request("POST", "/", format!("{{\"n\": {n}}}").as_bytes());
            // Head and body in one write.
            let answer = String::from_utf8(wire.read_once()).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}'),
                "{}: {answer}",
                server.about
            );
            assert!(answer.contains(&format!("\"n\":{n}")), "{answer}");
        }
        // Two requests at once are answered in their order.
        wire.send("GET /alive HTTP/1.1\r\nHost: x\r\n\r\nGET /no HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((wire.answer().status, wire.answer().status), (200, 404), "{}", server.about);
        wire.send("GET /alive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = wire.answer();
        assert!(answer.has_header("connection: close") && wire.is_ended(), "{}: {answer:?}", server.about);
        let mut wire = server.connect();
        wire.send("GET /alive HTTP/1.0\r\n\r\n");
        assert!(wire.answer().status == 200 && wire.is_ended(), "{}", server.about);
    }
}

#[test]
fn a_client_that_leaves_does_no_harm() {
    for interpreter in wire::all() {
        let server = Setup::new(interpreter, WAITS).start();
        drop(server.connect());
        let mut wire = server.connect();
        wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{");
        drop(wire);
        let mut wire = server.connect();
        wire.send_request("POST", "/", b"{\"left\": 1}");
        server.wait_for("begun");
        drop(wire);
        std::fs::write(server.path("go"), "").unwrap();
        assert_eq!(server.output("{\"stayed\": 1}")["stayed"], 1, "{}", server.about);
        assert!(!server.log("stderr").contains("rror"), "{}: {}", server.about, server.log("stderr"));
    }
}

#[test]
fn a_burst_of_connections_fits_the_queue() {
    for interpreter in wire::all() {
        let server = Setup::new(interpreter, WAITS).start();
        // While the process stands still only the kernel's queue takes connections; on old kernels it ends at 128.
        server.signal(Signal::SIGSTOP);
        let mut wires: Vec<_> = (0..100).map(|_| server.connect()).collect();
        server.signal(Signal::SIGCONT);
        for wire in &mut wires {
            assert_eq!(wire.ask("GET", "/alive", b"").status, 200, "{}", server.about);
        }
    }
}

#[test]
fn both_families_of_addresses_are_served() {
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    for interpreter in wire::all() {
        let server = Setup::new(interpreter, WAITS).start();
        let addresses: &[&str] = if has_ipv6 { &["127.0.0.1", "::1"] } else { &["127.0.0.1"] };
        for address in addresses {
            assert_eq!(server.connect_to(address).ask("GET", "/alive", b"").status, 200, "{}", server.about);
        }
    }
}

#[test]
fn sigterm_ends_the_process_even_while_a_handler_runs() {
    for interpreter in wire::all() {
        let mut server = Setup::new(interpreter, WAITS).start();
        let mut wire = server.connect();
        wire.send_request("POST", "/", b"{}");
        server.wait_for("begun");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(), Some(143), "{}", server.about);
        let mut idle = Setup::new(interpreter, WAITS).start();
        idle.signal(Signal::SIGTERM);
        assert_eq!(idle.wait(), Some(143), "{}", idle.about);
    }
}

#[test]
fn what_a_function_prints_is_out_before_its_answer_and_before_its_death() {
    let code = Code {
        python: "import os, sys\n\ndef handler(event):\n    print('out', end='')\n    print('err', end='', file=sys.stderr)\n    \
                 if 'die' in event: os._exit(7)",
        nodejs: "exports.handler = async (event) => {\n    process.stdout.write('out'); process.stderr.write('err');\n    \
                 if ('die' in event) process.exit(7);\n};",
    };
    for interpreter in wire::all() {
        let mut server = Setup::new(interpreter, code).start();
        server.output("{}");
        assert_eq!((server.log("stdout").as_str(), server.log("stderr").as_str()), ("out", "err"));
        let mut wire = server.connect();
        wire.send_request("POST", "/", b"{\"die\": 1}");
        assert_eq!(server.wait(), Some(7), "{}", server.about);
        assert!(wire.read_once().is_empty(), "{}", server.about);
        assert_eq!((server.log("stdout").as_str(), server.log("stderr").as_str()), ("outout", "errerr"));
    }
}

#[test]
fn a_function_finds_its_package_and_nothing_of_the_server() {
    let code = Code {
        python: "import asyncio, importlib.util, os, signal, sys, threading\nfrom . import sibling\nimport dependency\n\n\
                 def handler(event):\n    \
                     signal.signal(signal.SIGUSR1, lambda *_: None)\n    \
                     loop = asyncio.new_event_loop()\n    \
                     slept = loop.run_until_complete(asyncio.sleep(0, 'slept'))\n    \
                     return [sibling.NAME, dependency.NAME, open('data.txt').read(), slept,\n            \
                             threading.current_thread() is threading.main_thread(),\n            \
                             importlib.util.find_spec('server') is None, sys.path[0] == os.getcwd()]",
        nodejs: "const sibling = require('./sibling');\nconst dependency = require('dependency');\n\
                 exports.handler = async () => [sibling, dependency, require('fs').readFileSync('data.txt', 'utf8'), 'slept',\n    \
                     true, true, process.cwd() === require('path').dirname(__dirname)];",
    };
    for interpreter in wire::all() {
        let setup = Setup::new(interpreter, code);
        for (path, text) in [
            ("data.txt", "data"),
            ("function/sibling.py", "NAME = 'sibling'"),
            ("function/sibling.js", "module.exports = 'sibling';"),
            (".python_packages/lib/site-packages/dependency.py", "NAME = 'dependency'"),
            ("node_modules/dependency/index.js", "module.exports = 'dependency';"),
        ] {
            setup.folder.put(&format!("package/{path}"), text);
        }
        let server = setup.start();
        let expected = json!(["sibling", "dependency", "data", "slept", true, true, true]);
        assert_eq!(server.output("{}"), expected, "{}", server.about);
    }
}

#[test]
fn a_python_function_may_start_processes_and_outlive_them() {
    let code = Code {
        python: "import multiprocessing, os, time\n\ndef busy(seconds):\n    \
                     end = time.process_time() + seconds\n    while time.process_time() < end: pass\n\n\
                 def handler(event):\n    \
                     if 'orphan' in event:\n        \
                         child = os.fork()\n        \
                         if child == 0:\n            time.sleep(60)\n            os._exit(0)\n        \
                         return child\n    \
                     process = multiprocessing.get_context('spawn').Process(target=busy, args=(0.1,))\n    \
                     process.start()\n    process.join()\n    return process.exitcode",
        nodejs: "",
    };
    for interpreter in wire::pythons() {
        let server = Setup::new(interpreter, code).start();
        let (status, reply) = server.invoke("{}");
        assert_eq!((status, &reply["result"]["output"]), (200, &json!(0)), "{}: {reply}", server.about);
        // The child's time is the invocation's.
        assert!(reply["cpu_us"].as_u64() >= Some(100_000), "{}: {reply}", server.about);
        let mut wire = server.connect();
        let body = "{\"orphan\": 1}";
        let length = body.len();
        wire.send(format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        let orphan = wire.answer().json()["result"]["output"].as_i64().unwrap() as i32;
        // Although the orphan holds the connection, too.
        assert!(wire.is_ended(), "{}", server.about);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(orphan), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn the_compiled_form_of_the_python_server_is_enough() {
    let code = Code { python: "def handler(event): return 1", nodejs: "" };
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime/python");
    for interpreter in wire::pythons() {
        let setup = Setup::new(interpreter, code);
        let run_server = std::fs::read(sources.join("run_server.sh")).unwrap();
        let sebs = setup.folder.put("sebs/run_server.sh", run_server).parent().unwrap().to_path_buf();
        let (from, to) = (sources.join("server.py"), sebs.join("server.pyc"));
        let compile = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], doraise=True)";
        setup.interpret(&["-c", compile, from.to_str().unwrap(), to.to_str().unwrap()]);
        assert_eq!(setup.sebs(sebs).start().output("{}"), 1, "{}", interpreter.about());
    }
}

#[test]
fn a_node_function_may_be_an_es_module() {
    let code = Code {
        python: "",
        nodejs: "import { value } from './value.mjs';\nexport async function handler(event) { return value; }",
    };
    for interpreter in wire::nodes() {
        assert_eq!(interpreter.language, Language::Nodejs);
        let setup = Setup::new(interpreter, code);
        setup.folder.put("package/package.json", "{\"type\": \"module\"}");
        setup.folder.put("package/function/value.mjs", "export const value = await Promise.resolve(5);");
        assert_eq!(setup.start().output("{}"), 5, "{}", interpreter.about());
    }
}
