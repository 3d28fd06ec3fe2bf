//! The client of S3 against real servers in containers: SeaweedFS, and JuiceFS with MinIO's code.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::storage_servers::{Kind, Server, boto3, object_options};
use crate::support::{Folder, engine};

/// The servers that the same tests are run against.
const KINDS: [Kind; 2] = [Kind::SeaweedFs, Kind::JuiceFs];

/// Tells the process that measures itself where the server is.
const CHILD: &str = "SEBS_LITE_TEST_LARGE_OBJECT";

#[test]
fn objects_with_any_key_come_back_as_they_were_stored() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        let client = server.objects();
        assert!(!client.bucket_exists("one").unwrap());
        client.create_bucket("one").unwrap();
        client.create_bucket("two").unwrap();
        assert!(client.bucket_exists("one").unwrap());
        let buckets = client.list_buckets().unwrap();
        assert!(["one", "two"].iter().all(|name| buckets.iter().any(|bucket| bucket == name)), "{buckets:?}");
        assert!(client.create_bucket("one").unwrap_err().is_conflict());

        let folder = Folder::create();
        let long = ["long name ".repeat(20), "ü".repeat(100), "x".repeat(200)].join("/");
        let keys = [
            "plain.txt",
            "deep/er/file",
            "with space and  two",
            "plus+plus",
            "percent%20%",
            "ünï/コード/😀",
            "e\u{301} is not é, \u{202e}turned\u{200d}",
            "\u{7f}\u{80}\u{fffd}\u{10ffff}",
            "a&b<c>\"d'e",
            // No backslash, of which SeaweedFS makes a slash.
            "q?x=1#y;z:@!$*(),[]{}|^`~",
            "line\nbreak\r\ttab",
            &long,
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

        // Both list it without its slash.
        client.put_bytes("one", "/leading", b"slash").unwrap();
        assert_eq!(client.get_bytes("one", "/leading", 10).unwrap(), b"slash");
        client.delete("one", "/leading").unwrap();

        assert!(client.remove_bucket("one").unwrap_err().is_conflict());
        client.delete("one", "plain.txt").unwrap();
        client.delete("one", "plain.txt").unwrap();
        client.delete_many("one", &keys).unwrap();
        // JuiceFS shows the empty folders of what was deleted.
        let left = client.list("one", "").unwrap();
        assert!(left.iter().all(|object| object.key.ends_with('/')), "{left:?}");
        client.clean_bucket("one", "").unwrap();
        assert_eq!(client.list("one", "").unwrap(), []);
        client.remove_bucket("one").unwrap();
        client.clean_bucket("two", "deep/").unwrap();
        assert_eq!(client.list("two", "").unwrap().len(), keys.len() - 1);
        client.clean_bucket("two", "").unwrap();
        assert_eq!(client.list("two", "").unwrap(), []);
        server.remove();
    }
}

#[test]
fn a_list_of_more_than_a_thousand_is_whole() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        let client = server.objects();
        client.create_bucket("many").unwrap();
        let keys: Vec<String> = (0..1100).map(|number| format!("some folder/{number:04} +")).collect();
        std::thread::scope(|scope| {
            for keys in keys.chunks(275) {
                let client = client.clone();
                scope.spawn(move || {
                    keys.iter().for_each(|key| client.put_bytes("many", key, b"x").unwrap());
                });
            }
        });
        let listed = client.list("many", "some").unwrap();
        let listed: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(listed, keys);
        client.clean_bucket("many", "").unwrap();
        assert_eq!(client.list("many", "").unwrap(), []);
        server.remove();
    }
}

#[test]
fn another_client_reads_what_was_stored_and_the_other_way_round() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        let client = server.objects();
        client.create_bucket("ours").unwrap();
        let keys = ["plain", "ünï/コード 😀+%20&", "large"];
        let folder = Folder::create();
        let content = [b"\0\xff\r\n".to_vec(), b"<a>".to_vec(), patterned(66 << 20)];
        for (key, content) in keys.iter().zip(&content) {
            client.put_file("ours", key, &folder.put("source", content)).unwrap();
        }
        let seen = boto3(
            &server,
            "import hashlib\n\
             objects.create_bucket(Bucket='theirs')\n\
             found = []\n\
             for entry in objects.list_objects_v2(Bucket='ours')['Contents']:\n    \
                 content = objects.get_object(Bucket='ours', Key=entry['Key'])['Body'].read()\n    \
                 found.append([entry['Key'], len(content), hashlib.sha256(content).hexdigest(), entry['ETag'].strip('\"')])\n    \
                 objects.put_object(Bucket='theirs', Key=entry['Key'], Body=content)\n\
             print(json.dumps([found, objects.list_multipart_uploads(Bucket='ours').get('Uploads') or []]))",
        );
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen[1], serde_json::json!([]), "{kind:?}");
        let listed = client.list("ours", "").unwrap();
        let found = seen[0].as_array().unwrap();
        assert_eq!(found.len(), keys.len());
        for (key, content) in keys.iter().zip(&content) {
            let entry = found.iter().find(|entry| entry[0] == *key).unwrap();
            assert_eq!(entry[1], content.len(), "{key}");
            assert_eq!(entry[2], sebs_lite::sigv4::hash(content), "{key}");
            let ours = listed.iter().find(|object| object.key == *key).unwrap();
            assert_eq!(entry[3], ours.etag.as_deref().unwrap(), "{key}");
            assert!(client.get_bytes("theirs", key, 1 << 30).unwrap() == *content, "{key}");
        }
        server.remove();
    }
}

#[test]
fn a_large_object_goes_through_little_memory() {
    if let Ok(address) = std::env::var(CHILD) {
        return print_memory_of_a_large_object(&address);
    }
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        // A process of its own, since others' memory would count, too.
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "s3::a_large_object_goes_through_little_memory", "--nocapture"])
            .env(CHILD, &server.address)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{kind:?}: {text}{}", String::from_utf8_lossy(&ran.stdout));
        let peak = text.lines().find_map(|line| line.split_once("VmHWM:")).unwrap().1;
        let peak_kib: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        eprintln!("{kind:?}: {peak_kib} KiB at most");
        assert!(peak_kib < 32 << 10, "{kind:?}: {peak_kib} KiB");
        server.remove();
    }
}

/// Stores and reads an object of `SEBS_LITE_TEST_MIB`, by default 128 MiB.
fn print_memory_of_a_large_object(address: &str) {
    let mib: u32 = std::env::var("SEBS_LITE_TEST_MIB").map_or(128, |text| text.parse().unwrap());
    let folder = Folder::create();
    let [source, target] = ["source", "target"].map(|name| folder.path().join(name));
    let mut file = File::create(&source).unwrap();
    let mut piece = patterned(1 << 20);
    for number in 0..mib {
        piece[..4].copy_from_slice(&number.to_le_bytes());
        file.write_all(&piece).unwrap();
    }
    let options = object_options(address);
    let client = sebs_lite::storage::S3Client::new(options, &sebs_lite::cancel::Cancel::new()).unwrap();
    client.create_bucket("large").unwrap();
    client.put_file("large", "key", &source).unwrap();
    let head = client.head("large", "key").unwrap();
    assert_eq!(head.size_bytes, u64::from(mib) << 20);
    // The number of parts stands behind the hash of theirs.
    assert!(head.etag.unwrap().ends_with(&format!("-{}", mib.div_ceil(16))));
    client.get_to_file("large", "key", &target).unwrap();
    assert!(are_alike(&source, &target));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    eprintln!("\n{line}");
}

fn are_alike(one: &Path, other: &Path) -> bool {
    let [mut one, mut other] = [one, other].map(|path| File::open(path).unwrap());
    let mut pieces = [vec![0; 1 << 20], vec![0; 1 << 20]];
    loop {
        let read = one.read(&mut pieces[0]).unwrap();
        if read == 0 {
            return other.read(&mut pieces[1]).unwrap() == 0;
        }
        if other.read_exact(&mut pieces[1][..read]).is_err() || pieces[0][..read] != pieces[1][..read] {
            return false;
        }
    }
}

/// Bytes of which no two pages are alike; not a formula for each byte, which takes seconds where nothing is optimised.
pub(crate) fn patterned(length: u32) -> Vec<u8> {
    const PAGE: u32 = 4096;
    let page: Vec<u8> = (0..PAGE).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut content = Vec::with_capacity(length.next_multiple_of(PAGE) as usize);
    for number in 0..length.div_ceil(PAGE) {
        content.extend_from_slice(&number.to_le_bytes());
        content.extend_from_slice(&page[4..]);
    }
    content.truncate(length as usize);
    content
}
