//! The client of S3 against real servers that refuse, die and run full, and networks that garble and break.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sebs_lite::cancel::Cancel;
use sebs_lite::storage::{S3Client, S3Options};

use crate::s3::patterned;
use crate::storage_servers::{
    ACCESS_KEY, Kind, Meddle, PASS, Proxy, SECRET_KEY, Server, boto3, cut_end, object_options,
};
use crate::support::{Folder, engine};

const KINDS: [Kind; 2] = [Kind::SeaweedFs, Kind::JuiceFs];

fn client(options: S3Options) -> S3Client {
    S3Client::new(options, &Cancel::new()).unwrap()
}

/// How many uploads in parts the bucket has that came to no end.
fn unfinished(server: &Server, bucket: &str) -> usize {
    let program =
        format!("print(len(objects.list_multipart_uploads(Bucket='{bucket}').get('Uploads') or []))");
    boto3(server, &program).trim().parse().unwrap()
}

#[test]
fn a_refusal_names_what_was_asked_for_and_why_it_was_refused() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        let client = server.objects();
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

        for (access_key, secret_key, code) in [
            (ACCESS_KEY, "wrong secret", "SignatureDoesNotMatch"),
            ("nobody", SECRET_KEY, "InvalidAccessKeyId"),
        ] {
            let (access_key, secret_key) = (access_key.to_string(), secret_key.to_string());
            let wrong = S3Options { access_key, secret_key, ..object_options(&server.address) };
            let wrong = self::client(wrong);
            // Large enough that the server may refuse before it has read all of it.
            let refused = wrong.put_bytes("files", "key", &vec![0; 8 << 20]).unwrap_err().to_string();
            assert!(refused.contains(code) && refused.contains("key right"), "{refused}");
            assert!(!refused.contains(SECRET_KEY) && !refused.contains("wrong secret"), "{refused}");
        }
        server.remove();
    }
}

#[test]
fn a_region_that_the_server_does_not_serve_is_asked_about() {
    let Some(engine) = engine() else { return };
    let server = Server::start_with(&engine, Kind::JuiceFs, |spec| {
        spec.env.push("MINIO_REGION=us-east-1".to_string());
    });
    let region = "eu-west-1".to_string();
    let wrong = client(S3Options { region, ..object_options(&server.address) });
    let refused = wrong.put_bytes("any", "key", b"x").unwrap_err().to_string();
    assert!(refused.contains("is the region right?") && refused.contains("us-east-1"), "{refused}");
    server.remove();
}

/// Has the client's clock lag by years.
const LAG: Meddle = |_, piece| {
    let name = b"x-amz-date: ";
    if let Some(at) = piece.windows(name.len()).position(|window| window == name) {
        piece[at + name.len()..][..4].copy_from_slice(b"2016");
    }
    Some(())
};

#[test]
fn a_clock_that_is_wrong_is_asked_about() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        let proxy = Proxy::start(&server.address, LAG, PASS);
        let refused = client(object_options(&proxy.address)).list_buckets().unwrap_err().to_string();
        assert!(refused.contains("RequestTimeTooSkewed"), "{kind:?}: {refused}");
        assert!(refused.contains("do the clocks of both machines agree?"), "{refused}");
        server.remove();
    }
}

/// Turns a bit of each long piece.
const GARBLE: Meddle = |_, piece| {
    if piece.len() > 16 << 10 {
        *piece.last_mut().unwrap() ^= 1;
    }
    Some(())
};

/// As [`GARBLE`], but in the first MiB alone.
const GARBLE_FIRST: Meddle = |before, piece| {
    if before < 1 << 20 { GARBLE(before, piece) } else { Some(()) }
};

#[test]
fn what_the_network_garbles_is_stored_right_or_not_at_all() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        let direct = server.objects();
        direct.create_bucket("files").unwrap();
        let folder = Folder::create();
        let small = folder.put("small", patterned(4 << 20));
        let large = folder.put("large", patterned(65 << 20));
        let garbled = client(object_options(&Proxy::start(&server.address, GARBLE, PASS).address));
        for (key, stored) in [
            ("bytes", garbled.put_bytes("files", "bytes", &patterned(4 << 20))),
            ("small", garbled.put_file("files", "small", &small)),
            ("large", garbled.put_file("files", "large", &large)),
        ] {
            let Err(refused) = stored else { panic!("{kind:?} took {key}") };
            let refused = refused.to_string();
            assert!(refused.contains("is the network at fault?"), "{kind:?}: {key}: {refused}");
            assert!(direct.head("files", key).unwrap_err().is_not_found(), "{kind:?}: {key}");
        }
        assert_eq!(unfinished(&server, "files"), 0, "{kind:?}");
        let garbled = client(object_options(&Proxy::start(&server.address, GARBLE_FIRST, PASS).address));
        garbled.put_file("files", "small", &small).unwrap();
        assert!(direct.get_bytes("files", "small", 4 << 20).unwrap() == patterned(4 << 20));
        server.remove();
    }
}

/// Ends each connection on which much comes, after a MiB.
const CUT: Meddle = |before, piece| (before < 1 << 20 || piece.len() < 1 << 10).then_some(());

/// Ends the first connection alone after a MiB.
const CUT_ONCE: Meddle = |before, _| (!(1 << 20..(1 << 20) + (64 << 10)).contains(&before)).then_some(());

#[test]
fn a_download_that_breaks_begins_anew_or_leaves_the_file_as_it_was() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        server.objects().create_bucket("files").unwrap();
        let content = patterned(8 << 20);
        server.objects().put_bytes("files", "key", &content).unwrap();
        let folder = Folder::create();
        let target = folder.put("target", "as before");
        let broken = client(object_options(&Proxy::start(&server.address, PASS, CUT).address));
        let error = broken.get_to_file("files", "key", &target).unwrap_err();
        let text = error.to_string();
        assert!(error.is_disconnected() && text.contains("`key`"), "{text}");
        assert_eq!(std::fs::read(&target).unwrap(), b"as before");
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [target.as_path()]);
        let broken = client(object_options(&Proxy::start(&server.address, PASS, CUT_ONCE).address));
        broken.get_to_file("files", "key", &target).unwrap();
        assert!(std::fs::read(&target).unwrap() == content);
        server.remove();
    }
}

#[test]
fn an_upload_that_breaks_or_is_given_up_leaves_no_parts() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        server.objects().create_bucket("files").unwrap();
        let folder = Folder::create();
        let huge = folder.path().join("huge");
        File::create(&huge).unwrap().set_len(1 << 30).unwrap();
        let cut: Meddle = |before, piece| (before < 40 << 20 || piece.len() < 8 << 10).then_some(());
        let broken = client(object_options(&Proxy::start(&server.address, cut, PASS).address));
        let error = broken.put_file("files", "huge", &huge).unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        assert_eq!(unfinished(&server, "files"), 0, "{kind:?}");

        let proxy = Proxy::start(&server.address, PASS, PASS);
        let cancel = Cancel::new();
        let hurried = S3Client::new(object_options(&proxy.address), &cancel).unwrap();
        std::thread::scope(|scope| {
            let upload = scope.spawn(|| hurried.put_file("files", "huge", &huge).unwrap_err());
            proxy.wait_for(40 << 20, || !upload.is_finished());
            cancel.trigger();
            assert!(upload.join().unwrap().is_cancelled());
        });
        assert_eq!(unfinished(&server, "files"), 0, "{kind:?}");
        server.remove();
    }
}

#[test]
fn an_upload_survives_a_server_that_is_back_soon_and_says_which_one_is_not() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let mut server = Server::start(&engine, kind);
        server.objects().create_bucket("files").unwrap();
        let folder = Folder::create();
        let content = patterned(120 << 20);
        let large = folder.put("large", &content);
        let proxy = Proxy::start(&server.address, PASS, PASS);
        std::thread::scope(|scope| {
            let client = client(object_options(&proxy.address));
            let large = &large;
            let upload = scope.spawn(move || client.put_file("files", "large", large));
            proxy.wait_for(30 << 20, || !upload.is_finished());
            // With the pauses between them, these take 3 s.
            proxy.lead_nowhere(4);
            server.kill();
            server.start_again();
            proxy.wait_for_outage(|| !upload.is_finished());
            proxy.lead_to(&server.address);
            upload.join().unwrap().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        });
        assert!(server.objects().get_bytes("files", "large", 1 << 30).unwrap() == content, "{kind:?}");

        let huge = folder.path().join("huge");
        File::create(&huge).unwrap().set_len(1 << 30).unwrap();
        let sent = proxy.sent();
        let error = std::thread::scope(|scope| {
            let client = client(object_options(&proxy.address));
            let huge = &huge;
            let upload = scope.spawn(move || client.put_file("files", "huge", huge).unwrap_err());
            proxy.wait_for(sent + (40 << 20), || !upload.is_finished());
            server.kill();
            upload.join().unwrap()
        });
        let text = error.to_string();
        assert!(error.is_disconnected() && text.contains("`huge`") && text.contains("`files`"), "{text}");
        assert!(!text.contains(SECRET_KEY), "{text}");
        server.remove();
    }
}

#[test]
fn an_upload_whose_last_answer_was_lost_is_stored() {
    let Some(engine) = engine() else { return };
    for kind in KINDS {
        let server = Server::start(&engine, kind);
        let direct = server.objects();
        direct.create_bucket("files").unwrap();
        let folder = Folder::create();
        let content = patterned(65 << 20);
        let large = folder.put("large", &content);
        let is_cut = Arc::new(AtomicBool::new(false));
        let proxy = Proxy::start(&server.address, PASS, cut_end(&is_cut));
        let unlucky = client(object_options(&proxy.address));
        unlucky.put_file("files", "large", &large).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert!(is_cut.load(Ordering::Relaxed), "{kind:?}");
        let head = direct.head("files", "large").unwrap();
        assert_eq!(head.etag.unwrap(), S3Client::etag_of_file(&large).unwrap(), "{kind:?}");
        assert!(direct.get_bytes("files", "large", 1 << 30).unwrap() == content, "{kind:?}");
        assert_eq!(unfinished(&server, "files"), 0, "{kind:?}");
        server.remove();
    }
}

#[test]
fn a_full_disk_is_an_error_that_leaves_no_parts() {
    let Some(engine) = engine() else { return };
    // JuiceFS tries for minutes to write to a disk that is full, and says nothing meanwhile.
    let server = Server::start_with(&engine, Kind::SeaweedFs, |spec| {
        spec.host_config.tmpfs.insert("/data".to_string(), "size=96m,mode=1777".to_string());
    });
    let client = server.objects();
    client.create_bucket("files").unwrap();
    let folder = Folder::create();
    let large = folder.put("large", patterned(150 << 20));
    let error = client.put_file("files", "large", &large).unwrap_err().to_string();
    assert!(
        error.contains("`large`") && error.contains("the storage answered 500: InternalError"),
        "{error}"
    );
    assert!(error.contains("`files`") && error.contains("is the disk of the storage full?"), "{error}");
    assert!(client.head("files", "large").unwrap_err().is_not_found());
    assert_eq!(unfinished(&server, "files"), 0);
    server.remove();
}
