//! The wrapper `storage` against a real SeaweedFS, and against connections that fail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sebs_lite::faas::Language;
use serde_json::{Value, json};

use super::relay::{BUSY, Fault, Relay};
use super::{Driver, few_interpreters, interpreters};
use crate::s3::patterned;
use crate::storage_servers::{ACCESS_KEY, Kind, PASS, Proxy, SECRET_KEY, Server, cut_end};
use crate::support;
use crate::wire::Interpreter;

fn driver(interpreter: &Interpreter, address: &str) -> Driver {
    driver_with(interpreter, address, (ACCESS_KEY, SECRET_KEY))
}

fn driver_with(interpreter: &Interpreter, address: &str, (access, secret): (&str, &str)) -> Driver {
    let keys = [("MINIO_ACCESS_KEY", access), ("MINIO_SECRET_KEY", secret)];
    Driver::start(interpreter, &[keys[0], keys[1], ("MINIO_ADDRESS", address)])
}

fn bytes(content: &[u8]) -> Value {
    let digits: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"$bytes": digits})
}

/// The key under which `wanted` was stored: with eight digits before its extension.
#[track_caller]
fn stored(key: &Value, stem: &str, extension: &str) -> String {
    let key = key.as_str().unwrap();
    let random = key.strip_prefix(&format!("{stem}.")).and_then(|rest| rest.strip_suffix(extension));
    let is_random = random.is_some_and(|text| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(is_random, "{key}");
    key.to_string()
}

const KEYS: [(&str, &str); 9] = [
    ("plain", ".txt"),
    ("deep.er/fi.le", ".gz"),
    ("deep.er/.hidden", ""),
    ("with space and  two", ""),
    ("plus+plus", ".a+b"),
    ("percent%20%", ""),
    ("ünï/コード/😀", ".ü"),
    ("a&b<c>\"d'e", ""),
    ("q?x=1#y;z:@!$*(),[]{}|^`~\n\r\t", ".x"),
];

#[test]
fn every_method_works_with_every_key() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::SeaweedFs);
    for (number, interpreter) in interpreters().enumerate() {
        let bucket = &format!("keys-{number}");
        server.objects().create_bucket(bucket).unwrap();
        let mut driver = driver(interpreter, &server.address);
        let mut expected = BTreeSet::new();
        for (stem, extension) in KEYS {
            let wanted = format!("{stem}{extension}");
            let content = format!("content of {wanted}").into_bytes();
            let source = driver.folder.put("source", &content);
            let first = driver.call("storage", "upload", json!([bucket, wanted, source]));
            let second = driver.call("storage", "upload_stream", json!([bucket, wanted, bytes(&content)]));
            assert_ne!(first, second);
            for key in [first, second] {
                let key = stored(&key, stem, extension);
                // Another client sees the same.
                assert_eq!(server.objects().get_bytes(bucket, &key, 1000).unwrap(), content, "{key}");
                let read = driver.call("storage", "download_stream", json!([bucket, key]));
                assert_eq!(read, bytes(&content), "{}: {key}", driver.about);
                let target = driver.path("new/folder/target");
                driver.call("storage", "download", json!([bucket, key, target]));
                assert_eq!(std::fs::read(&target).unwrap(), content);
                expected.insert(key);
            }
        }
        let everything = driver.path("everything");
        driver.call("storage", "download_directory", json!([bucket, "", everything]));
        for key in &expected {
            assert!(everything.join(key).is_file(), "{}: {key}", driver.about);
        }
        let deep = driver.path("deep");
        driver.call("storage", "download_directory", json!([bucket, "deep.er/", deep]));
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(deep.join("deep.er")).unwrap().count(), 4);
        // Nothing is left of what was being written.
        assert_eq!(std::fs::read_dir(driver.path("new/folder")).unwrap().count(), 1);

        for content in ["", "x"] {
            let source = driver.folder.put("small", content);
            let key = driver.call("storage", "upload", json!([bucket, "small", source]));
            let read = driver.call("storage", "download_stream", json!([bucket, key]));
            assert_eq!(read, bytes(content.as_bytes()));
            let key = driver.call("storage", "upload_pieces", json!([bucket, "small", source]));
            assert_eq!(driver.call("storage", "download_stream", json!([bucket, key])), read);
        }
        driver.end();
    }
    server.container.remove().unwrap();
}

/// A list that no good server would give, with all that XML may have.
const LEADING_OUT: Fault = Fault::Answer(
    "200 OK",
    "<?xml version=\"1.0\"?><a:List xmlns:a='x'><!-- > --><a:IsTruncated>false</a:IsTruncated>\
     <a:Contents b='>'><a:None/><a:Key>up/../../&#x6f;ut<![CDATA[&]]></a:Key></a:Contents></a:List>",
);

#[test]
fn a_key_cannot_lead_out_of_the_folder() {
    for interpreter in interpreters() {
        let relay = Relay::start("127.0.0.1:1", &[LEADING_OUT]);
        let mut driver = driver(interpreter, &relay.address);
        let folder = driver.path("inside");
        let error = driver.refused("storage", "download_directory", json!(["b", "up", folder]));
        assert!(error.text.contains("`up/../../out&`") && error.text.contains("outside"), "{error:?}");
    }
}

#[test]
fn a_list_of_more_than_a_thousand_is_followed_to_its_end() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::SeaweedFs);
    let client = server.objects();
    client.create_bucket("many").unwrap();
    let keys: Vec<String> = (0..1100).map(|number| format!("some folder/{number:04} +")).collect();
    std::thread::scope(|scope| {
        for keys in keys.chunks(275) {
            let client = client.clone();
            scope.spawn(move || keys.iter().for_each(|key| client.put_bytes("many", key, b"x").unwrap()));
        }
    });
    for interpreter in few_interpreters() {
        let relay = Relay::start(&server.address, &[]);
        let mut driver = driver(interpreter, &relay.address);
        let folder = driver.path("target");
        driver.call("storage", "download_directory", json!(["many", "some", folder]));
        assert_eq!(std::fs::read_dir(folder.join("some folder")).unwrap().count(), keys.len());
        // Two lists and 1100 objects.
        assert_eq!(relay.connections(), 1, "{}", driver.about);
    }
    server.container.remove().unwrap();
}

#[test]
fn connections_are_kept_and_shared_by_no_two_at_a_time() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::SeaweedFs);
    server.objects().create_bucket("files").unwrap();
    for interpreter in interpreters() {
        let relay = Relay::start(&server.address, &[]);
        let mut driver = driver(interpreter, &relay.address);
        for _ in 0..5 {
            let key = driver.call("storage", "upload_stream", json!(["files", "a", bytes(b"a")]));
            driver.call("storage", "download_stream", json!(["files", key]));
            // An answer that is an error is read to its end, too.
            driver.refused("storage", "download_stream", json!(["files", "none"]));
        }
        assert_eq!(relay.connections(), 1, "{}", driver.about);
        assert_eq!(driver.call("storage", "move_many", json!(["files", 200])), 200);
        let connections = relay.connections();
        assert!((2..=16).contains(&connections), "{}: {connections}", driver.about);
        if driver.language == Language::Python {
            let key = driver.call("storage", "upload_stream", json!(["files", "a", bytes(b"a")]));
            let read = driver.call("storage", "download_in_a_child", json!(["files", key]));
            assert_eq!((read, relay.connections()), (bytes(b"a"), connections + 1));
        }
        driver.end();
    }
    server.container.remove().unwrap();
}

#[test]
fn a_large_file_moves_in_little_memory() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::SeaweedFs);
    server.objects().create_bucket("large").unwrap();
    for interpreter in few_interpreters() {
        let mut driver = driver(interpreter, &server.address);
        let source = driver.path("source");
        std::fs::write(&source, patterned(100 << 20)).unwrap();
        // What the interpreter itself takes, once it has done all of it with little.
        for method in ["upload", "upload_pieces"] {
            let small = driver.folder.put("small", "x");
            let key = driver.call("storage", method, json!(["large", "small", small]));
            let target = driver.path("target");
            driver.call("storage", "download", json!(["large", key, target]));
        }
        let before = driver.call("", "peak_bytes", json!([])).as_u64().unwrap();
        let content = std::fs::read(&source).unwrap();
        for (method, parts) in [("upload", 7), ("upload_pieces", 13)] {
            let key = driver.call("storage", method, json!(["large", "hundred.bin", source]));
            let key = key.as_str().unwrap();
            let etag = server.objects().head("large", key).unwrap().etag.unwrap();
            assert!(etag.ends_with(&format!("-{parts}")), "{}: {etag}", driver.about);
            let target = driver.path("target");
            driver.call("storage", "download", json!(["large", key, target]));
            assert!(std::fs::read(&target).unwrap() == content, "{}", driver.about);
            server.objects().delete("large", key).unwrap();
        }
        let peak = driver.call("", "peak_bytes", json!([])).as_u64().unwrap();
        // Node.js holds some 50 MiB of pieces until it collects them, whoever reads an answer of this size.
        let (most, grown) = if driver.language == Language::Python { (60, 32) } else { (140, 80) };
        let is_bounded = peak < most << 20 && peak - before < grown << 20;
        assert!(is_bounded, "{}: {before} -> {peak} bytes", driver.about);
    }
    server.container.remove().unwrap();
}

#[test]
fn what_may_pass_is_tried_again_and_the_rest_is_told() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::SeaweedFs);
    server.objects().create_bucket("files").unwrap();
    server.objects().put_bytes("files", "key", b"content").unwrap();
    let large = vec![7; 1 << 20];
    for interpreter in interpreters() {
        for faults in [&[BUSY, Fault::Cut][..], &[Fault::Short, Fault::Short]] {
            let relay = Relay::start(&server.address, faults);
            let mut driver = driver(interpreter, &relay.address);
            let target = driver.path("target");
            driver.call("storage", "download", json!(["files", "key", target]));
            assert_eq!((std::fs::read(&target).unwrap(), relay.connections()), (b"content".to_vec(), 3));
        }
        let relay = Relay::start(&server.address, &[Fault::Cut, BUSY]);
        let mut sender = driver(interpreter, &relay.address);
        let source = sender.folder.put("large", &large);
        let key = sender.call("storage", "upload", json!(["files", "large", source]));
        assert!(server.objects().get_bytes("files", key.as_str().unwrap(), 2 << 20).unwrap() == large);
        assert_eq!(relay.connections(), 3);
    }
    std::thread::scope(|scope| {
        // All at once, since each waits for seconds.
        for interpreter in interpreters() {
            scope.spawn(|| what_does_not_pass_is_told(interpreter, &server.address));
        }
    });
    server.container.remove().unwrap();
}

fn what_does_not_pass_is_told(interpreter: &Interpreter, server: &str) {
    let relays = [Relay::start(server, &[BUSY; 8]), Relay::start(server, &[Fault::Cut; 8])];
    let [mut busy, mut broken] = [0, 1].map(|index: usize| driver(interpreter, &relays[index].address));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = busy.refused("storage", "download_stream", json!(["files", "key"]));
            assert_eq!((error.kind.as_str(), error.code.as_str()), ("ServerError", "SlowDown"));
            assert!(error.text.contains("503: SlowDown, slow down"), "{error:?}");
        });
        let target = broken.path("below/target");
        let error = broken.refused("storage", "download", json!(["files", "key", target]));
        assert_eq!(error.kind, "NoAnswerError", "{error:?}");
        assert!(error.text.contains("`key`") && error.text.contains(&relays[1].address), "{error:?}");
        assert_eq!(std::fs::read_dir(broken.path("below")).unwrap().count(), 0);
    });
    assert_eq!(relays.map(|relay| relay.connections()), [8, 8], "{}", interpreter.about());
}

#[test]
fn an_upload_whose_last_answer_was_lost_is_stored() {
    let Some(engine) = support::engine() else { return };
    for kind in [Kind::SeaweedFs, Kind::JuiceFs] {
        let server = Server::start(&engine, kind);
        server.objects().create_bucket("large").unwrap();
        let content = patterned(65 << 20);
        for interpreter in few_interpreters() {
            let is_cut = Arc::new(AtomicBool::new(false));
            let proxy = Proxy::start(&server.address, PASS, cut_end(&is_cut));
            let mut driver = driver(interpreter, &proxy.address);
            let source = driver.folder.put("source", &content);
            let key = driver.call("storage", "upload", json!(["large", "key", source]));
            assert!(is_cut.load(Ordering::Relaxed), "{kind:?}: {}", driver.about);
            let stored = server.objects().get_bytes("large", key.as_str().unwrap(), 1 << 30).unwrap();
            assert!(stored == content, "{kind:?}: {}", driver.about);
            driver.end();
        }
        server.remove();
    }
}

#[test]
fn a_refusal_carries_the_words_of_the_server() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::SeaweedFs);
    server.objects().create_bucket("files").unwrap();
    for interpreter in few_interpreters() {
        let mut right = driver(interpreter, &server.address);
        let target = right.folder.put("target", "as before");
        for (method, arguments, code) in [
            ("download_stream", json!(["files", "none"]), "NoSuchKey"),
            ("download", json!(["files", "none", target]), "NoSuchKey"),
            ("download", json!(["nowhere", "none", target]), "NoSuchBucket"),
            ("download_directory", json!(["nowhere", "", target]), "NoSuchBucket"),
        ] {
            let error = right.refused("storage", method, arguments);
            assert_eq!((error.kind.as_str(), error.code.as_str()), ("ServerError", code), "{error:?}");
            assert!(error.text.contains(&format!("404: {code}")), "{error:?}");
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"as before");
        for (method, arguments) in [
            ("download_stream", json!(["files", ""])),
            ("download_stream", json!(["a/b", "key"])),
            ("upload", json!(["files", "key", right.path("no such file")])),
        ] {
            let error = right.refused("storage", method, arguments);
            assert_ne!(error.kind, "ServerError", "{error:?}");
        }

        for (keys, code) in [
            ((ACCESS_KEY, "wrong secret"), "SignatureDoesNotMatch"),
            (("nobody", SECRET_KEY), "InvalidAccessKeyId"),
        ] {
            let mut wrong = driver_with(interpreter, &server.address, keys);
            let small = wrong.refused("storage", "download_stream", json!(["files", "key"]));
            // Large enough that the server refuses before it has read all of it.
            let source = wrong.folder.put("large", vec![0; 70 << 20]);
            let large = wrong.refused("storage", "upload", json!(["files", "large", source]));
            let source = wrong.folder.put("single", vec![0; 40 << 20]);
            let single = wrong.refused("storage", "upload", json!(["files", "single", source]));
            for error in [small, large, single] {
                assert_eq!((error.kind.as_str(), error.code.as_str()), ("ServerError", code), "{error:?}");
                assert!(!error.text.contains(keys.1), "{error:?}");
            }
        }
    }
    server.container.remove().unwrap();
}
