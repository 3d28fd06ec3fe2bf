//! The client of S3 against a real SeaweedFS in a container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, Engine, HostConfig, Lifetime, OwnedContainer, Owner, PortBinding};
use sebs_lite::storage::{S3Client, S3Options};

use crate::support::{Folder, engine, unique};

const ACCESS_KEY: &str = "sebs-lite-test";
const SECRET_KEY: &str = "a secret that nobody may see";

/// A SeaweedFS of a test's own, removed when dropped.
struct Server {
    container: OwnedContainer,
    address: String,
}

impl Server {
    fn start(engine: &Engine) -> Server {
        let port = "9000/tcp".to_string();
        let binding = PortBinding { host_ip: "127.0.0.1".to_string(), host_port: String::new() };
        let spec = ContainerSpec {
            image: image(engine),
            cmd: vec!["-s3.allowDeleteBucketNotEmpty=false".to_string()],
            env: vec![
                format!("AWS_ACCESS_KEY_ID={ACCESS_KEY}"),
                format!("AWS_SECRET_ACCESS_KEY={SECRET_KEY}"),
                "GOMEMLIMIT=160MiB".to_string(),
            ],
            exposed_ports: vec![port.clone()],
            host_config: HostConfig {
                port_bindings: BTreeMap::from([(port.clone(), vec![binding])]),
                tmpfs: BTreeMap::from([("/tmp".to_string(), String::new())]),
                ..HostConfig::default()
            },
            ..ContainerSpec::default()
        };
        let owner = Owner::current().unwrap();
        let container = engine.create_owned(&owner, &Lifetime::Run, &unique("s3"), spec).unwrap();
        engine.start_container(container.id()).unwrap();
        let inspected = engine.inspect_container(container.id()).unwrap();
        let published = inspected.network_settings.ports[&port].as_ref().unwrap();
        let server = Server { address: format!("127.0.0.1:{}", published[0].host_port), container };
        server.wait(engine);
        server
    }

    /// Waits until a bucket can be made.
    fn wait(&self, engine: &Engine) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let client = client(&self.address);
        while let Err(error) = client.put_bytes("ready", "probe", b"1") {
            if Instant::now() > deadline {
                let logs = engine.container_logs(self.container.id(), Some(20)).unwrap();
                panic!("SeaweedFS is not ready: {error}\n{}", logs.combined());
            }
            let _ = client.create_bucket("ready");
        }
        client.clean_bucket("ready", "").unwrap();
        client.remove_bucket("ready").unwrap();
    }
}

/// The image that `scripts/storage-images` makes; what it downloads stays below `target`.
fn image(engine: &Engine) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/storage-images");
    let mut command = Command::new(script);
    command.args(["--cache", env!("CARGO_TARGET_TMPDIR"), "seaweedfs"]);
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    let made = command.output().expect("the script needs Python 3");
    let errors = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "no image of SeaweedFS (it comes from PyPI): {errors}");
    String::from_utf8(made.stdout).unwrap().trim().to_string()
}

fn options(address: &str) -> S3Options {
    S3Options {
        address: address.to_string(),
        access_key: ACCESS_KEY.to_string(),
        secret_key: SECRET_KEY.to_string(),
        region: "us-east-1".to_string(),
    }
}

fn client(address: &str) -> S3Client {
    S3Client::new(options(address), &Cancel::new()).unwrap()
}

#[test]
fn objects_with_any_key_come_back_as_they_were_stored() {
    let Some(engine) = engine() else { return };
    let server = Server::start(&engine);
    let client = client(&server.address);
    assert!(!client.bucket_exists("one").unwrap());
    client.create_bucket("one").unwrap();
    client.create_bucket("two").unwrap();
    assert!(client.bucket_exists("one").unwrap());
    let buckets = client.list_buckets().unwrap();
    assert!(["one", "two"].iter().all(|name| buckets.iter().any(|bucket| bucket == name)), "{buckets:?}");
    assert!(client.create_bucket("one").unwrap_err().is_conflict());

    let folder = Folder::create();
    let keys = [
        "plain.txt",
        "deep/er/file",
        "with space and  two",
        "plus+plus",
        "percent%20%",
        "ünï/コード/😀",
        "a&b<c>\"d'e",
        // No backslash, of which SeaweedFS makes a slash.
        "q?x=1#y;z:@!$*(),[]{}|^`~",
        "line\nbreak\r\ttab",
    ];
    for (index, key) in keys.iter().enumerate() {
        let content = format!("content of {key}").repeat(index);
        client.put_bytes("one", key, content.as_bytes()).unwrap();
        assert_eq!(client.get_bytes("one", key, 10_000).unwrap(), content.as_bytes(), "{key}");
        let head = client.head("one", key).unwrap();
        assert_eq!(head.size_bytes, content.len() as u64, "{key}");
        assert!(head.etag.is_some(), "{key}");
        let source = folder.put("source", content.as_bytes());
        client.put_file("two", key, &source).unwrap();
        let target = folder.path().join("below/target");
        client.get_to_file("two", key, &target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), content.as_bytes(), "{key}");
    }
    let listed = client.list("one", "").unwrap();
    let names: BTreeSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(names, keys.into_iter().collect());
    let deep = client.list("one", "deep/").unwrap();
    assert_eq!((deep.len(), deep[0].key.as_str(), deep[0].size_bytes), (1, "deep/er/file", 23));
    assert_eq!(deep[0].etag, client.head("one", "deep/er/file").unwrap().etag);

    // SeaweedFS lists it without its slash.
    client.put_bytes("one", "/leading", b"slash").unwrap();
    assert_eq!(client.get_bytes("one", "/leading", 10).unwrap(), b"slash");
    client.delete("one", "/leading").unwrap();

    assert!(client.remove_bucket("one").unwrap_err().is_conflict());
    client.delete("one", "plain.txt").unwrap();
    client.delete("one", "plain.txt").unwrap();
    client.delete_many("one", &keys).unwrap();
    assert_eq!(client.list("one", "").unwrap(), []);
    client.remove_bucket("one").unwrap();
    client.clean_bucket("two", "deep/").unwrap();
    assert_eq!(client.list("two", "").unwrap().len(), keys.len() - 1);
    client.clean_bucket("two", "").unwrap();
    assert_eq!(client.list("two", "").unwrap(), []);
    server.container.remove().unwrap();
}

#[test]
fn a_refusal_names_what_was_asked_for_and_why_it_was_refused() {
    let Some(engine) = engine() else { return };
    let server = Server::start(&engine);
    let client = client(&server.address);
    client.create_bucket("files").unwrap();
    let folder = Folder::create();
    let target = folder.put("target", "as before");
    let missing = client.get_to_file("files", "no such", &target).unwrap_err();
    let text = missing.to_string();
    assert!(missing.is_not_found() && text.contains("`no such`") && text.contains("`files`"), "{text}");
    assert!(text.contains("404: NoSuchKey"), "{text}");
    assert_eq!(std::fs::read(&target).unwrap(), b"as before");
    assert!(client.head("files", "no such").unwrap_err().is_not_found());
    assert!(client.list("nowhere", "").unwrap_err().is_not_found());
    assert!(client.put_file("files", "key", &folder.path().join("none")).unwrap_err().is_not_found());

    client.put_bytes("files", "key", &[7; 100]).unwrap();
    let large = client.get_bytes("files", "key", 99).unwrap_err().to_string();
    assert!(large.contains("100 bytes, more than the 99"), "{large}");

    for (access_key, secret_key, code) in
        [(ACCESS_KEY, "wrong secret", "SignatureDoesNotMatch"), ("nobody", SECRET_KEY, "InvalidAccessKeyId")]
    {
        let (access_key, secret_key) = (access_key.to_string(), secret_key.to_string());
        let wrong = S3Options { access_key, secret_key, ..options(&server.address) };
        let wrong = S3Client::new(wrong, &Cancel::new()).unwrap();
        // Large enough that the server may refuse before it has read all of it.
        let refused = wrong.put_bytes("files", "key", &vec![0; 8 << 20]).unwrap_err().to_string();
        assert!(refused.contains(code) && refused.contains("key right"), "{refused}");
        assert!(!refused.contains(SECRET_KEY) && !refused.contains("wrong secret"), "{refused}");
    }
    server.container.remove().unwrap();
}

#[test]
fn a_list_of_more_than_a_thousand_is_whole() {
    let Some(engine) = engine() else { return };
    let server = Server::start(&engine);
    let client = client(&server.address);
    client.create_bucket("many").unwrap();
    let keys: Vec<String> = (0..1100).map(|number| format!("some folder/{number:04} +")).collect();
    std::thread::scope(|scope| {
        for keys in keys.chunks(275) {
            let client = client.clone();
            scope.spawn(move || keys.iter().for_each(|key| client.put_bytes("many", key, b"x").unwrap()));
        }
    });
    let listed = client.list("many", "some").unwrap();
    let listed: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(listed, keys);
    client.clean_bucket("many", "").unwrap();
    assert_eq!(client.list("many", "").unwrap(), []);
    server.container.remove().unwrap();
}

#[test]
fn a_large_file_goes_in_parts_and_a_server_that_dies_meanwhile_is_an_error() {
    let Some(engine) = engine() else { return };
    let server = Server::start(&engine);
    let client = client(&server.address);
    client.create_bucket("large").unwrap();
    let folder = Folder::create();
    let content: Vec<u8> =
        (0..70 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let source = folder.put("source", &content);
    client.put_file("large", "seventy", &source).unwrap();
    let head = client.head("large", "seventy").unwrap();
    assert_eq!(head.size_bytes, content.len() as u64);
    // The number of parts stands behind the hash of theirs.
    assert!(head.etag.as_ref().is_some_and(|etag| etag.ends_with("-5")), "{head:?}");
    let target = folder.path().join("target");
    client.get_to_file("large", "seventy", &target).unwrap();
    assert!(std::fs::read(&target).unwrap() == content);

    let huge = folder.path().join("huge");
    File::create(&huge).unwrap().set_len(4 << 30).unwrap();
    let (proxy, passed) = proxy(&server.address);
    let error = std::thread::scope(|scope| {
        let upload = scope.spawn(|| self::client(&proxy).put_file("large", "huge", &huge).unwrap_err());
        let deadline = Instant::now() + Duration::from_secs(30);
        while passed.load(Ordering::Relaxed) < 40 << 20 {
            assert!(Instant::now() < deadline && !upload.is_finished(), "the upload has not begun");
            std::thread::yield_now();
        }
        engine.kill_container(server.container.id(), "KILL").unwrap();
        upload.join().unwrap()
    });
    let text = error.to_string();
    assert!(error.is_disconnected() && text.contains("`huge`") && text.contains("`large`"), "{text}");
    assert!(!text.contains(SECRET_KEY), "{text}");
    server.container.remove().unwrap();
}

/// A port that passes connections on to the server, and how many bytes it has passed to it.
fn proxy(server: &str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let passed = Arc::new(AtomicU64::new(0));
    let (server, counter) = (server.to_string(), passed.clone());
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let near = near.unwrap();
            // Dropped where the server is gone: the client sees that the connection ends.
            let Ok(far) = TcpStream::connect(&server) else { continue };
            let (back, forth) = ((far.try_clone().unwrap(), near.try_clone().unwrap()), (near, far));
            std::thread::spawn(move || pass(back, &AtomicU64::new(0)));
            let counter = counter.clone();
            std::thread::spawn(move || pass(forth, &counter));
        }
    });
    (address, passed)
}

fn pass((mut from, mut to): (TcpStream, TcpStream), passed: &AtomicU64) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut piece)
        && read > 0
        && to.write_all(&piece[..read]).is_ok()
    {
        passed.fetch_add(read as u64, Ordering::Relaxed);
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
