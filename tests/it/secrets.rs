//! What must not be seen is not in what the program and the library's clients log, at any level.

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{BuildOptions, ContainerSpec, Engine, Lifetime, Owner};
use sebs_lite::progress::Progress;
use sebs_lite::storage::{DynamoClient, DynamoOptions, S3Client, S3Options, item_from_json};

use crate::docker_faults::{FakeEngine, Reply};
use crate::logged::logged_by;
use crate::program::{Place, function, words};
use crate::storage_servers::{Kind, Server, object_options, table_options};
use crate::support::{self, engine, unique};

const SECRET: &str = "Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7Xq7";

/// Is any of it in the text? What dumps bytes breaks them into short lines.
fn shows_secret(text: &str) -> bool {
    text.contains("Xq7Xq7")
}

#[test]
fn the_program_hides_the_environment_of_containers_whatever_is_asked_for() {
    let Some(_) = engine() else { return };
    let place = Place::create("secrets");
    let benchmark = function(&place, "plain", "def handler(event): return {'result': 1}");
    let name = unique("secrets");
    let environment = format!("PASSWORD={SECRET}");
    for asked in ["trace", "trace,ureq=trace,ureq_proto=trace,ureq_proto::util=trace,ureq::run=trace"] {
        let arguments = words(&benchmark, &name, &["--env", &environment, "--verbose"]);
        let output = place.command(&arguments).env("RUST_LOG", asked).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        // The engine's calls are in it, but what they carried is not.
        assert!(text.contains("/containers/create -> 201"), "{text}");
        assert!(!shows_secret(&text), "{asked}: {text}");
    }
    assert_eq!(support::containers(&engine().unwrap(), &name), [""; 0]);
}

#[test]
fn the_clients_log_what_they_ask_for_without_what_they_carry() {
    let Some(engine) = engine() else { return };
    // What ureq dumps at trace, the program never shows.
    let mut lines = logged_by(|| ask_for_secrets(&engine));
    lines.retain(|line| line.starts_with("sebs_lite"));
    for seen in [
        "PUT object `key` in bucket `secrets`: 200",
        "PutItem -> 4",
        "/build -> 200",
        "/containers/create -> 500",
    ] {
        assert!(lines.iter().any(|line| line.contains(seen)), "{seen}: {lines:#?}");
    }
    let shown: Vec<&String> = lines.iter().filter(|line| shows_secret(line)).collect();
    assert!(shown.is_empty(), "{shown:#?}");
}

/// Has each client send something that must not be seen.
fn ask_for_secrets(engine: &Engine) {
    let server = Server::start(engine, Kind::JuiceFs);
    for secret_key in [crate::storage_servers::SECRET_KEY, SECRET] {
        let options = S3Options { secret_key: secret_key.to_string(), ..object_options(&server.address) };
        let objects = S3Client::new(options, &Cancel::new()).unwrap();
        let _ = objects.create_bucket("secrets");
        let _ = objects.put_bytes("secrets", "key", SECRET.as_bytes());
        let _ = objects.get_bytes("secrets", "key", 100);
        let options = DynamoOptions { secret_key: SECRET.to_string(), ..table_options(&server.address) };
        let tables = DynamoClient::new(options, &Cancel::new()).unwrap();
        let item = item_from_json(&format!(r#"{{"id":"{SECRET}"}}"#)).unwrap();
        assert!(tables.put_item("table", &item).is_err());
    }
    server.remove();

    let fake = FakeEngine::start("1.41", |request| match request {
        line if line.starts_with("POST /v1.41/build") => Reply::Json(200, r#"{"stream":"done"}"#),
        _ => Reply::Json(500, r#"{"message":"no"}"#),
    });
    let engine = fake.connect().unwrap();
    let proxy = format!("http://me:{SECRET}@proxy:3128");
    let build_args = [("HTTP_PROXY".to_string(), proxy)].into();
    let options = BuildOptions { tag: "x:y".to_string(), build_args, ..BuildOptions::default() };
    let _ = engine.build_image(&mut &b""[..], &options, &Progress::quiet());
    let spec = ContainerSpec { env: vec![format!("A={SECRET}")], ..ContainerSpec::default() };
    let owner = Owner::current().unwrap();
    assert!(engine.create_owned(&owner, &Lifetime::Run, "x", spec).is_err());
}
