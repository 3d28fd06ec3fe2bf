//! Functions and storage on a bridge that has IPv6 alone, as far as anybody can tell.
//!
//! Engines before 27 make no such bridge: a relay strikes the IPv4 addresses and published ports out of what the engine
//! says, and the bridge has no IPv4 address on this host any more, so that what is reached is reached by IPv6.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::deployment;
use crate::own_engine::OwnEngine;
use crate::program::{Place, error_of, function, read_json, words};
use crate::support::{containers, storage_image, unique};

/// The names whose values an engine of IPv6 alone leaves empty.
const EMPTY: [&[u8]; 2] = [b"\"IPAddress\":\"", b"\"HostPort\":\""];

/// Listens for clients of the engine behind `target`; its threads end with the test's process.
fn relay(socket: &Path, target: PathBuf) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut engine) = (client.unwrap(), UnixStream::connect(&target).unwrap());
            let (mut to_client, mut to_engine) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut client, &mut to_engine);
                let _ = to_engine.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                strike_out(&mut engine, &mut to_client);
                let _ = to_client.shutdown(Shutdown::Both);
            });
        }
    });
}

/// Copies all, with spaces for the characters of values that are to be empty: no length changes.
fn strike_out(engine: &mut UnixStream, client: &mut UnixStream) {
    let (mut held, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let Ok(amount @ 1..) = engine.read(&mut buffer) else { return };
        held.extend_from_slice(&buffer[..amount]);
        for name in EMPTY {
            let mut from = 0;
            while let Some(at) = held[from..].windows(name.len()).position(|window| window == name) {
                let begin = from + at + name.len();
                let length = held[begin..].iter().take_while(|byte| **byte != b'"').count();
                if begin + length < held.len() {
                    held[begin..=begin + length].rotate_right(1);
                    held[begin + 1..=begin + length].fill(b' ');
                }
                from = begin;
            }
        }
        // A name or value that is cut off is held back until the rest of it is there.
        let is_cut = |from: usize| {
            EMPTY.iter().any(|name| {
                let rest = &held[from..];
                name.starts_with(rest) || (rest.starts_with(name) && !rest[name.len()..].contains(&b'"'))
            })
        };
        let keep =
            (held.len().saturating_sub(64)..held.len()).find(|from| is_cut(*from)).unwrap_or(held.len());
        if client.write_all(&held[..keep]).is_err() {
            return;
        }
        held.drain(..keep);
    }
}

#[test]
fn functions_and_storage_are_reached_by_ipv6_where_there_is_nothing_else() {
    let prefix = format!("fd5e:b5{:02x}:{:x}::", std::process::id() >> 16, std::process::id() & 0xffff);
    let subnet = format!("{prefix}/64");
    let Some(own) = OwnEngine::start(&["--ipv6", "--fixed-cidr-v6", &subnet]) else { return };
    own.forget_ipv4();
    let (place, name) = (Place::create("ipv6"), unique("ipv6"));
    let socket = own.socket().with_file_name("relay");
    relay(&socket, own.socket());
    let host = format!("unix://{}", socket.display());
    let run = |words: &[&str]| {
        crate::program::Ended::from(own.command(&place, words).env("DOCKER_HOST", &host).output().unwrap())
    };

    // The script of the input, the function and the validation all use the tables.
    storage_image(&own.engine(), "dynoxide");
    place.write("tables.json", r#"{"nosql": {"type": "dynoxide", "dynoxide": {}}}"#);
    let more = ["--storage-configuration", "tables.json", "--validate", "--language", "python"];
    let ended = run(&words("130.crud-api", &name, &more));
    let told = ended.expect(0, &["cold", &format!("answers at [{prefix}")]).stderr;
    let invocation = &place.invocations()[0];
    assert_eq!(
        (error_of(invocation), &invocation["invocation"]["validation"]["verdict"]),
        ("", &"valid".into())
    );
    assert!(!told.contains("127.0.0.1"), "{told}");

    let benchmark = function(&place, "echo", deployment::ECHO);
    let event = place.write("event.json", "{}").display().to_string();
    run(&deployment::start(&benchmark, &name, &["--input", &event]))
        .expect(0, &[&format!("http://[{prefix}")]);
    let url = read_json(&place.path("out/d.json"))["functions"][0]["url"].as_str().unwrap().to_string();
    assert!(url.starts_with('[') && url.ends_with("]:9000"), "{url}");
    assert_eq!(deployment::invoke(&url, r#"{"n": 1}"#)["result"]["output"]["result"], 2);
    run(&["local", "status", "out/d.json"]).expect(0, &["running", "yes", &url]);
    run(&["local", "stop", "out/d.json", "out/stats.json"]).expect(0, &["removed"]);

    let start = ["storage", "start", "nosql", "tables.json", "--output-json=s.json"];
    run(&start).expect(0, &[&format!("[{prefix}")]);
    run(&["storage", "status", "s.json"]).expect(0, &["running", &format!("[{prefix}")]);
    run(&["storage", "stop", "all", "s.json"]).expect(0, &["removed"]);
    assert_eq!(containers(&own.engine(), "sebs-lite"), [""; 0]);
}
