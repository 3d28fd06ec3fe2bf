//! The engine client against a socket that answers as other engines do, or as no engine should.

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{BuildOptions, ContainerSpec, Engine, Lifetime, Owner};
use sebs_lite::progress::Progress;

use crate::support::unique;

/// What a [`FakeEngine`] does with a request, once it has read the head.
pub(crate) enum Reply {
    /// Reads the body and answers.
    Json(u16, &'static str),
    /// Writes this and closes, without a look at the body.
    Early(String),
    /// Reads the body and answers with the head of an answer alone, then waits for the client to leave.
    HeadAlone,
    /// Reads whatever comes, and never answers.
    Drain,
    /// Closes.
    Nothing,
}

/// A Unix socket that answers each request as a function of `METHOD /path?query` says.
pub(crate) struct FakeEngine {
    pub(crate) socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeEngine {
    pub(crate) fn start(
        api_version: &'static str,
        reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> FakeEngine {
        let socket = std::env::temp_dir().join(unique("sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (reply, seen) = (Arc::new(reply), requests.clone());
        // Both kinds of thread end with the test's process: they hold nothing else.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (reply, seen) = (reply.clone(), seen.clone());
                thread::spawn(move || serve(stream.unwrap(), api_version, &*reply, &seen));
            }
        });
        FakeEngine { socket, requests }
    }

    pub(crate) fn connect(&self) -> sebs_lite::Result<Engine> {
        Engine::connect_to(&self.socket, &Cancel::new())
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn serve(stream: UnixStream, api_version: &str, reply: &dyn Fn(&str) -> Reply, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line);
        }
        let request = head[0].trim_end().trim_end_matches(" HTTP/1.1").to_string();
        seen.lock().unwrap().push(request.clone());
        let reply = match request.as_str() {
            "GET /_ping" => Reply::Json(200, "OK"),
            _ => reply(&request),
        };
        if !matches!(reply, Reply::Early(_)) {
            let _ = reader.read_exact(&mut vec![0; length]);
        }
        match reply {
            Reply::Json(status, body) => {
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} Fine\r\nApi-Version: {api_version}\r\nContent-Length: {length}\r\n\r\n{body}"
                );
            }
            Reply::Early(answer) => {
                let _ = stream.write_all(answer.as_bytes());
                return;
            }
            Reply::HeadAlone => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                let _ = reader.read(&mut [0]);
                return;
            }
            Reply::Drain => {
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
                return;
            }
            Reply::Nothing => return,
        }
    }
}

#[test]
fn an_engine_that_wants_1_44_or_newer_is_spoken_to_in_what_it_knows() {
    let fake = FakeEngine::start("1.52", |request| match request {
        "GET /v1.47/containers/x/json" => Reply::Json(200, r#"{"Id":"1","Name":"/x"}"#),
        _ => Reply::Json(
            400,
            r#"{"message":"client version 1.40 is too old. Minimum supported API version is 1.44"}"#,
        ),
    });
    let engine = fake.connect().unwrap();
    assert_eq!(engine.api_version(), "1.47");
    assert_eq!(engine.inspect_container("x").unwrap().name, "x");
    // What the next engines may say to us one day.
    let error = engine.inspect_container("y").unwrap_err().to_string();
    assert!(
        error.contains("Minimum supported API version is 1.44 (this sebs-lite speaks up to 1.47"),
        "{error}"
    );
}

#[test]
fn an_engine_that_is_too_old_is_refused_at_once() {
    let fake = FakeEngine::start("1.39", |_| Reply::Nothing);
    let error = fake.connect().unwrap_err().to_string();
    assert!(error.contains("it speaks API 1.39 and we need 1.40"), "{error}");
    assert!(error.contains(fake.socket.to_str().unwrap()), "{error}");
    assert_eq!(fake.requests(), ["GET /_ping"]);
}

#[test]
fn a_socket_without_an_engine_says_what_to_do() {
    let missing = std::env::temp_dir().join(unique("missing"));
    let error = Engine::connect_to(&missing, &Cancel::new()).unwrap_err();
    assert!(error.is_disconnected() && error.to_string().contains("there is no such socket"), "{error}");

    let dead = std::env::temp_dir().join(unique("dead"));
    drop(UnixListener::bind(&dead).unwrap());
    let error = Engine::connect_to(&dead, &Cancel::new()).unwrap_err();
    std::fs::remove_file(&dead).unwrap();
    assert!(error.is_disconnected() && error.to_string().contains("is the daemon running?"), "{error}");
}

#[test]
fn an_address_is_found_where_newer_engines_tell_it() {
    let fake = FakeEngine::start("1.52", |_| {
        Reply::Json(
            200,
            r#"{"Id":"1","Name":"/x","State":{"Status":"running","Running":true},"Config":{"Labels":null},"Mounts":null,
                "NetworkSettings":{"Ports":{"9000/tcp":[{"HostIp":"127.0.0.1","HostPort":"32768"}],"1/udp":null},
                "Networks":{"bridge":{"IPAddress":"172.17.0.2","GlobalIPv6Address":""}}}}"#,
        )
    });
    let found = fake.connect().unwrap().inspect_container("x").unwrap();
    assert_eq!(found.network_settings.address(), Some("172.17.0.2"));
    assert_eq!(found.network_settings.ports["1/udp"], None);
}

#[test]
fn a_connection_that_breaks_is_told_from_a_refusal() {
    let fake = FakeEngine::start("1.41", |request| match request {
        _ if request.ends_with("/wait") => {
            Reply::Early("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into())
        }
        _ if request.ends_with("/json") => {
            Reply::Early("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"Id\":\"1\"".into())
        }
        _ => Reply::Nothing,
    });
    let engine = fake.connect().unwrap();
    for error in [
        engine.wait_container("x", None).unwrap_err(),
        engine.inspect_container("x").unwrap_err(),
        engine.start_container("x").unwrap_err(),
    ] {
        assert!(error.is_disconnected(), "{error}");
        assert!(error.to_string().contains("container `x`"), "{error}");
    }
}

#[test]
fn the_reason_of_an_early_refusal_of_an_upload_is_heard() {
    let fake = FakeEngine::start("1.41", |_| {
        let body = r#"{"message":"unknown instruction: FORM"}"#;
        Reply::Early(format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    });
    let engine = fake.connect().unwrap();
    /// Without an end, so that only a refusal ends it.
    struct Zeros;
    impl Read for Zeros {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    let options = BuildOptions { tag: "a:b".into(), ..BuildOptions::default() };
    let error = engine.build_image(&mut Zeros, &options, &Progress::quiet()).unwrap_err();
    assert_eq!(error.to_string(), "failed to build image `a:b`: unknown instruction: FORM");
}

#[test]
fn an_upload_without_end_is_given_up_with_the_caller() {
    let fake = FakeEngine::start("1.41", |_| Reply::Drain);
    let cancel = Cancel::new();
    let engine = Engine::connect_to(&fake.socket, &cancel).unwrap();
    /// Gives up after a few pieces.
    struct Triggers(Cancel, usize);
    impl Read for Triggers {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            if self.1 == 5 {
                self.0.trigger();
            }
            buffer.fill(0);
            Ok(buffer.len())
        }
    }
    let error = engine.import_image(&mut Triggers(cancel, 0), "a:b", &[], &Progress::quiet()).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
}

#[test]
fn a_wait_for_a_body_ends_with_its_limit() {
    let fake = FakeEngine::start("1.41", |_| Reply::HeadAlone);
    let engine = fake.connect().unwrap();
    let error = engine.wait_container("x", Some(Duration::from_millis(150))).unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[test]
fn a_removal_that_another_one_began_is_fine() {
    let fake = FakeEngine::start("1.41", |request| match request {
        "DELETE /v1.41/containers/gone?force=1&v=1" => {
            Reply::Json(404, r#"{"message":"No such container: gone"}"#)
        }
        "DELETE /v1.41/containers/busy?force=1&v=1" => {
            Reply::Json(409, r#"{"message":"removal of container busy is already in progress"}"#)
        }
        _ => Reply::Json(500, r#"{"message":"driver failed"}"#),
    });
    let engine = fake.connect().unwrap();
    engine.remove_container("gone").unwrap();
    engine.remove_container("busy").unwrap();
    let error = engine.remove_container("stuck").unwrap_err();
    assert_eq!(error.to_string(), "failed to remove container `stuck`: driver failed");
}

#[test]
fn a_container_whose_creation_was_not_confirmed_is_removed_if_it_is_ours() {
    let owner = Owner::current().unwrap();
    let session = owner.session.clone();
    let inspected: &'static str =
        format!(r#"{{"Id":"42","Config":{{"Labels":{{"sebs-lite.session":"{session}"}}}}}}"#).leak();
    let fake = FakeEngine::start("1.41", move |request| match request {
        "GET /v1.41/containers/ours/json" => Reply::Json(200, inspected),
        "GET /v1.41/containers/theirs/json" => Reply::Json(200, r#"{"Id":"43"}"#),
        "DELETE /v1.41/containers/42?force=1&v=1" => Reply::Json(204, ""),
        _ => Reply::Nothing,
    });
    let engine = fake.connect().unwrap();
    for name in ["ours", "theirs"] {
        let spec = ContainerSpec { image: "x".into(), ..ContainerSpec::default() };
        assert!(engine.create_owned(&owner, &Lifetime::Run, name, spec).unwrap_err().is_disconnected());
    }
    let deleted: Vec<_> =
        fake.requests().into_iter().filter(|request| request.starts_with("DELETE")).collect();
    assert!(!deleted.is_empty());
    assert!(
        deleted.iter().all(|request| request == "DELETE /v1.41/containers/42?force=1&v=1"),
        "{deleted:?}"
    );
}

#[test]
fn a_call_whose_answer_was_lost_is_made_again_where_that_does_no_harm() {
    let owner = Owner::current().unwrap();
    let inspected: &'static str =
        format!(r#"{{"Id":"42","Config":{{"Labels":{{"sebs-lite.session":"{}"}}}}}}"#, owner.session).leak();
    let lost = Mutex::new(Vec::new());
    let fake = FakeEngine::start("1.41", move |request| {
        let mut lost = lost.lock().unwrap();
        if !lost.contains(&request.to_string()) {
            lost.push(request.to_string());
            return Reply::Nothing;
        }
        match request {
            "GET /v1.41/containers/x/json" => Reply::Json(200, inspected),
            "POST /v1.41/containers/create?name=x" => Reply::Json(201, r#"{"Id":"44"}"#),
            _ => Reply::Json(204, ""),
        }
    });
    let engine = fake.connect().unwrap();
    engine.start_container("x").unwrap();
    engine.kill_container("x", "SIGKILL").unwrap();
    assert!(engine.kill_container("x", "SIGUSR1").unwrap_err().is_disconnected());
    let spec = ContainerSpec { image: "x".into(), ..ContainerSpec::default() };
    let made = engine.create_owned(&owner, &Lifetime::Run, "x", spec).unwrap();
    assert_eq!(made.id(), "44");
    made.keep();
    let requests = fake.requests();
    let count = |start: &str| requests.iter().filter(|request| request.starts_with(start)).count();
    assert_eq!((count("POST /v1.41/containers/x/start"), count("POST /v1.41/containers/x/kill")), (2, 3));
    // The one that may have been made is in the way of the next.
    assert_eq!((count("POST /v1.41/containers/create"), count("DELETE /v1.41/containers/42")), (2, 2));
}

#[test]
fn connections_are_kept_for_the_next_call() {
    let fake = FakeEngine::start("1.41", |_| Reply::Json(200, r#"{"Id":"1"}"#));
    let engine = fake.connect().unwrap();
    for _ in 0..20 {
        engine.inspect_container("x").unwrap();
    }
    assert_eq!(fake.requests().len(), 21);
}

#[test]
fn readings_of_memory_are_followed_to_their_end_and_a_lost_engine_is_no_end() {
    const READINGS: &str = "{\"memory_stats\":{\"usage\":1}}\n{\"memory_stats\":{\"usage\":2}}\n";
    let follow = |rest: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{READINGS}{rest}");
        let fake = FakeEngine::start("1.41", move |request| match request.ends_with("/info") {
            true => Reply::Json(200, "{}"),
            false => Reply::Early(answer.clone()),
        });
        let mut readings = Vec::new();
        let followed = fake.connect().unwrap().follow_memory("x", |reading| {
            readings.push(reading.usage_bytes);
            ControlFlow::Continue(())
        });
        (readings, followed)
    };
    // What comes after the reading that is none is not looked at.
    let (readings, followed) = follow("{\"memory_stats\":{}}\n{\"memory_stats\":{\"usage\":3}}\n");
    assert!(readings == [1, 2] && followed.is_ok());
    let (readings, followed) = follow("{\"memory_st");
    assert!(readings == [1, 2] && followed.unwrap_err().is_disconnected());
    let (readings, followed) = follow("<html>");
    assert_eq!(readings, [1, 2]);
    assert!(followed.unwrap_err().to_string().contains("not what its API describes"));
    let gone = FakeEngine::start("1.41", |request| match request.ends_with("/info") {
        true => Reply::Json(200, "{}"),
        false => Reply::Json(404, "{\"message\":\"No such container: x\"}"),
    });
    let followed = gone.connect().unwrap().follow_memory("x", |_| ControlFlow::Continue(()));
    assert!(followed.unwrap_err().is_not_found());
}

#[test]
fn commands_whose_engine_goes_away_in_the_middle_end_in_time_and_say_what_to_do() {
    let place = crate::program::Place::create("goes-away");
    for words in [["resources", "list"], ["resources", "cleanup"]] {
        let socket = Arc::new(Mutex::new(PathBuf::new()));
        let own = socket.clone();
        let fake = FakeEngine::start("1.41", move |_| {
            // Nobody finds it any more.
            let _ = std::fs::remove_file(&*own.lock().unwrap());
            Reply::Nothing
        });
        socket.lock().unwrap().clone_from(&fake.socket);
        let mut command = place.command(&words);
        command.env("DOCKER_HOST", format!("unix://{}", fake.socket.display()));
        command.env("SEBS_LITE_ENGINE_WAIT", "200ms");
        let ended = crate::program::Ended::from(command.output().unwrap());
        let told = ended.expect(1, &["did not come back within 0.2 s (start it, and run the command again)"]);
        assert!(told.stderr.contains("waiting up to 0.2 s for it to come back"), "{}", told.stderr);
    }
}
