//! What storage engines refuse and keep to themselves: places that are taken, strangers' things, open ports, secrets.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, ExecSpec, Lifetime};
use sebs_lite::storage::{EngineType, StorageConfig, StorageEnd, StorageKind, status, stop};

use crate::engine_support::{Session, dynoxide, objects_of, s3, tables};
use crate::logged::logged_by;
use crate::support::{TestImage, engine, unique};

#[test]
fn only_the_s3_port_of_seaweedfs_speaks_to_its_neighbours_and_to_none_without_keys() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    let storage = session.start(StorageKind::Object, &objects_of(&engine, EngineType::SeaweedFs)).unwrap();
    let address = storage.config.address.clone().unwrap();
    let host = address.strip_suffix(":9000").unwrap();
    let image = TestImage::import(&engine);
    let cmd = ["/bin/sleep", "600"].map(str::to_string).to_vec();
    let spec = ContainerSpec { image: image.id.clone(), cmd, ..ContainerSpec::default() };
    let neighbour = engine.create_owned(&session.owner, &Lifetime::Run, &unique("neighbour"), spec).unwrap();
    engine.start_container(neighbour.id()).unwrap();
    let run = |script: &str| {
        let cmd = ["/bin/bash", "-c", script].map(str::to_string).to_vec();
        let done = engine.exec(neighbour.id(), &ExecSpec { cmd, ..ExecSpec::default() }).unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let open = run(&format!(
        "for ((port = 1; port < 65536; port++)); do {{ : </dev/tcp/{host}/$port; }} 2>/dev/null && echo $port; done"
    ));
    let open: Vec<&str> = open.lines().collect();
    assert_eq!(open, ["9000", "19000"]);
    // The second is an internal gRPC server, which takes a connection and then says nothing to it.
    let said = run(&format!(
        "trap '' PIPE; exec 3<>/dev/tcp/{host}/19000; printf 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0' >&3; \
         read -r -t 3 -N 1 byte <&3; echo \"said ${{#byte}}\""
    ));
    assert_eq!(said.trim(), "said 0");
    neighbour.remove().unwrap();

    s3(&storage.config).create_bucket("bucket").unwrap();
    for request in ["GET /", "GET /bucket", "PUT /bucket/key", "PUT /other", "DELETE /bucket"] {
        let mut connection = TcpStream::connect(storage.config.host_address.as_ref().unwrap()).unwrap();
        write!(connection, "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
    }
    storage.remove().unwrap();
    assert!(session.left().is_empty());
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_left() {
    let Some(engine) = engine() else { return };
    let mut session = Session::new(&engine);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    session.keeps_data = true;
    let config = objects_of(&engine, EngineType::Minio);
    let config = StorageConfig { mapped_port: Some(port), ..config };
    let error = session.start(StorageKind::Object, &config).unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert!(error.to_string().contains(&format!("port {port} of 127.0.0.1 is taken")), "{error}");
    assert!(session.left().is_empty() && session.files().is_empty());
    drop(listener);
    let storage = session.start(StorageKind::Object, &config).unwrap();
    assert_eq!(storage.config.host_address, Some(format!("127.0.0.1:{port}")));
    storage.remove().unwrap();
}

#[test]
fn what_is_not_ours_is_neither_stopped_nor_removed() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    let image = TestImage::import(&engine);
    let cmd = ["/bin/sleep", "600"].map(str::to_string).to_vec();
    let spec = ContainerSpec { image: image.id.clone(), cmd, ..ContainerSpec::default() };
    let stranger = engine.create_owned(&session.owner, &Lifetime::Run, &unique("stranger"), spec).unwrap();
    engine.start_container(stranger.id()).unwrap();
    let config = StorageConfig {
        address: Some("127.0.0.1:1".into()),
        instance_id: Some(stranger.id().to_string()),
        ..StorageConfig::of(EngineType::Minio)
    };
    let refused = stop(&engine, &config, true).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains("is not stopped"), "{refused}");
    assert!(engine.inspect_container(stranger.id()).unwrap().state.running);
    stranger.remove().unwrap();

    let foreign = unique("foreign");
    engine.create_volume(&foreign, &BTreeMap::new()).unwrap();
    let config = StorageConfig { data_volume: Some(foreign.clone()), ..dynoxide(&engine) };
    let storage = session.start(StorageKind::Nosql, &config).unwrap().keep();
    let refused = stop(&engine, &storage, true).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains(&format!("volume `{foreign}`")), "{refused}");
    assert!(session.has_container(storage.instance_id.as_ref().unwrap()));
    assert_eq!(stop(&engine, &storage, false).unwrap(), StorageEnd::Removed);
    assert!(session.has_volume(&foreign));
    engine.remove_volume(&foreign).unwrap();

    // Objects of somebody's own, whose keys are configured.
    session.folder.put("theirs/file", "1");
    let config = objects_of(&engine, EngineType::Minio);
    let config = StorageConfig { data_volume: Some("theirs".into()), ..config };
    let unknown = session.start(StorageKind::Object, &config).unwrap_err();
    assert!(unknown.is_usage() && unknown.to_string().contains("theirs.keys.json"), "{unknown}");
    let (access_key, secret_key) = (Some("mine".to_string()), Some("configured secret".to_string()));
    let config = StorageConfig { access_key, secret_key, ..config };
    let storage = session.start(StorageKind::Object, &config).unwrap().keep();
    assert_eq!(storage.access_key.as_deref(), Some("mine"));
    let refused = stop(&engine, &storage, true).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains("is not removed"), "{refused}");
    assert_eq!(stop(&engine, &storage, false).unwrap(), StorageEnd::Removed);
    assert!(session.path("theirs/file").exists() && session.left().is_empty());
}

#[test]
fn an_image_that_cannot_be_had_is_an_error_that_names_the_script() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    // No machine has a registry of that name.
    let nowhere = "registry.invalid/none:1".to_string();
    for (kind, engine_type, script) in [
        (StorageKind::Object, EngineType::Minio, "`scripts/storage-images seaweedfs`"),
        (StorageKind::Object, EngineType::SeaweedFs, "`scripts/storage-images seaweedfs`"),
        (StorageKind::Nosql, EngineType::ScyllaDb, "`scripts/storage-images dynoxide`"),
        (StorageKind::Nosql, EngineType::Dynoxide, "`scripts/storage-images dynoxide`"),
    ] {
        let config = StorageConfig { image: Some(nowhere.clone()), ..StorageConfig::of(engine_type) };
        let error = session.start(kind, &config).unwrap_err();
        let text = error.to_string();
        assert!(error.is_not_found() && text.contains(script), "{text}");
        assert!(text.contains("failed to pull image `registry.invalid/none:1`: "), "{text}");
    }
    let config = StorageConfig { version: Some("0.0".into()), ..StorageConfig::of(EngineType::SeaweedFs) };
    let text = session.start(StorageKind::Object, &config).unwrap_err().to_string();
    assert!(text.contains("`sebs-lite:storage.seaweedfs.0.0` is not here, and no registry has it"), "{text}");
    for (kind, engine_type) in
        [(StorageKind::Object, EngineType::Dynoxide), (StorageKind::Nosql, EngineType::S3)]
    {
        assert!(session.start(kind, &StorageConfig::of(engine_type)).unwrap_err().is_usage());
    }
    let config = StorageConfig { image: Some(nowhere), ..StorageConfig::default() };
    let error = session.start(StorageKind::Object, &config).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("`minio` or `seaweedfs`"), "{error}");
    assert!(session.left().is_empty());
}

#[test]
fn auto_takes_the_first_engine_whose_image_is_here() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    objects_of(&engine, EngineType::SeaweedFs);
    dynoxide(&engine);
    let minio = "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z";
    let scylladb = "scylladb/scylla:6.0";
    for (kind, first, second) in
        [(StorageKind::Object, minio, "seaweedfs"), (StorageKind::Nosql, scylladb, "dynoxide")]
    {
        let storage = session.start(kind, &StorageConfig::default()).unwrap();
        if engine.inspect_image(first).is_ok() {
            assert!(storage.reason.ends_with(&format!("its image {first} is here")), "{}", storage.reason);
        } else {
            let expected = format!("{second}: its image sebs-lite:storage.{second}.");
            assert!(storage.reason.starts_with(&expected), "{}", storage.reason);
            assert_eq!(storage.config.engine.name(), second);
        }
        storage.remove().unwrap();
    }
    assert!(session.left().is_empty());
}

#[test]
fn an_endpoint_that_is_there_is_asked_with_its_keys_and_left_alone() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    let objects = session.start(StorageKind::Object, &objects_of(&engine, EngineType::Minio)).unwrap();
    let external = StorageConfig {
        address: objects.config.host_address.clone(),
        access_key: objects.config.access_key.clone(),
        secret_key: objects.config.secret_key.clone(),
        ..StorageConfig::of(EngineType::S3)
    };
    let found = session.start(StorageKind::Object, &external).unwrap();
    assert_eq!(found.config.region.as_deref(), Some("us-east-1"));
    assert_eq!(stop(&engine, &found.config, true).unwrap(), StorageEnd::External);
    found.remove().unwrap();
    let seen = status(&engine, StorageKind::Object, &external, &Cancel::new()).unwrap();
    assert!(seen.answers && seen.state.is_none(), "{seen:?}");
    let keyless = StorageConfig { access_key: None, ..external.clone() };
    let error = session.start(StorageKind::Object, &keyless).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("`secret_key`"), "{error}");
    let wrong = StorageConfig { secret_key: Some("not the right one".into()), ..external.clone() };
    let error = session.start(StorageKind::Object, &wrong).unwrap_err().to_string();
    assert!(error.contains("SignatureDoesNotMatch") && !error.contains("not the right one"), "{error}");
    let seen = status(&engine, StorageKind::Object, &wrong, &Cancel::new()).unwrap();
    assert!(!seen.answers && seen.error.unwrap().contains("SignatureDoesNotMatch"));
    let nobody = StorageConfig { address: Some("127.0.0.1:1".into()), ..external };
    let error = session.start(StorageKind::Object, &nobody).unwrap_err();
    assert!(error.is_disconnected() && error.to_string().contains("127.0.0.1:1"), "{error}");

    // One that an earlier start has kept is given back as it is.
    let again = session.start(StorageKind::Object, &objects.config).unwrap();
    assert_eq!(again.config, objects.config);
    drop(again);
    assert!(s3(&objects.config).list_buckets().unwrap().is_empty());
    objects.remove().unwrap();

    let dynoxide = session.start(StorageKind::Nosql, &dynoxide(&engine)).unwrap();
    let external = StorageConfig {
        address: dynoxide.config.host_address.clone(),
        access_key: Some("any".into()),
        secret_key: Some("any".into()),
        ..StorageConfig::of(EngineType::DynamoDb)
    };
    assert!(session.start(StorageKind::Nosql, &external).unwrap().config.region.is_some());
    assert!(tables(&dynoxide.config).list_tables().unwrap().is_empty());
    dynoxide.remove().unwrap();
    assert!(session.left().is_empty());
}

#[test]
fn a_full_disk_is_told() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    let mount = session.path("disk");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&mount).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: only root can mount a small disk");
        return;
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fill_before_the_start(&session);
        fill_by_objects(&session);
    }));
    assert!(Command::new("umount").arg(&mount).status().unwrap().success());
    outcome.unwrap();
    assert!(session.left().is_empty());
}

fn fill_before_the_start(session: &Session) {
    let config = objects_of(&session.engine, EngineType::Minio);
    let config = StorageConfig { data_volume: Some("disk/minio".into()), ..config };
    let storage = session.start(StorageKind::Object, &config).unwrap();
    let client = s3(&storage.config);
    client.create_bucket("bucket").unwrap();
    client.put_bytes("bucket", "small", b"fits").unwrap();
    storage.remove().unwrap();
    let rest = session.path("disk/rest");
    assert!(std::fs::write(&rest, vec![7; 64 << 20]).is_err());
    let error = session.start(StorageKind::Object, &config).unwrap_err().to_string();
    assert!(error.contains("is full, ") && error.contains("are left on it"), "{error}");
    std::fs::remove_file(&rest).unwrap();
    let storage = session.start(StorageKind::Object, &config).unwrap();
    assert_eq!(s3(&storage.config).get_bytes("bucket", "small", 10).unwrap(), b"fits");
    assert_eq!(stop(&session.engine, &storage.keep(), true).unwrap(), StorageEnd::Removed);
}

fn fill_by_objects(session: &Session) {
    let config = objects_of(&session.engine, EngineType::SeaweedFs);
    let config = StorageConfig { data_volume: Some("disk/seaweedfs".into()), ..config };
    let storage = session.start(StorageKind::Object, &config).unwrap();
    let client = s3(&storage.config);
    client.create_bucket("bucket").unwrap();
    client.put_bytes("bucket", "small", b"fits").unwrap();
    let refused = (0..8).find_map(|number| {
        let key = format!("large-{number}");
        client.put_bytes("bucket", &key, &vec![7; 16 << 20]).err()
    });
    let error = refused.expect("128 MiB do not fit on 64").to_string();
    assert!(error.contains("PUT object `large-") && error.contains("the storage answered 500"), "{error}");
    assert_eq!(client.get_bytes("bucket", "small", 10).unwrap(), b"fits");
    drop(storage);
}

#[test]
fn a_server_that_ends_is_told_at_once_with_its_last_words() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    // This image's program of the name takes none of the arguments.
    let image = TestImage::import(&engine);
    let config = StorageConfig {
        image: Some(image.reference.clone()),
        access_key: Some("who".into()),
        secret_key: Some("hush-hush".into()),
        ..StorageConfig::of(EngineType::Minio)
    };
    let begin = Instant::now();
    let error = session.start(StorageKind::Object, &config).unwrap_err().to_string();
    assert!(begin.elapsed() < Duration::from_secs(50), "the deadline was waited for");
    assert!(!error.contains("hush-hush"), "{error}");
    assert!(session.left().is_empty());

    let stand_in = unique("ends");
    let dockerfile = format!(
        "FROM {}\nENTRYPOINT [\"/bin/sh\", \"-c\", \"echo I cannot go on with $MINIO_ROOT_PASSWORD; exit 7\"]\n",
        image.reference
    );
    crate::support::build(&engine, &stand_in, &[("Dockerfile", &dockerfile)]);
    let config = StorageConfig { image: Some(stand_in.clone()), ..config };
    let error = session.start(StorageKind::Object, &config).unwrap_err().to_string();
    engine.remove_image(&stand_in).unwrap();
    assert!(!error.contains("hush-hush"), "{error}");
    assert!(error.contains("ended with exit code 7") && error.contains("I cannot go on with ***"), "{error}");
    assert!(session.left().is_empty());
}

#[test]
fn no_secret_is_logged_or_shown() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    let (mut shown, mut secret) = (String::new(), String::new());
    let mut logged = logged_by(|| {
        let storage = session.start(StorageKind::Object, &objects_of(&engine, EngineType::Minio)).unwrap();
        secret = storage.config.secret_key.clone().unwrap();
        s3(&storage.config).create_bucket("bucket").unwrap();
        status(&engine, StorageKind::Object, &storage.config, &Cancel::new()).unwrap();
        shown = format!("{storage:?} {:?} {}", storage.config, storage.config.without_secrets());
        storage.remove().unwrap();
    });
    for module in ["sebs_lite::docker", "sebs_lite::storage"] {
        assert!(logged.iter().any(|line| line.starts_with(module)), "{logged:#?}");
    }
    // ureq's dump of all bytes, which the program never shows, is the one that has it, sixteen bytes a line.
    logged.retain(|line| !line.starts_with("ureq_proto::util: "));
    for line in logged.iter().map(String::as_str).chain(shown.lines()) {
        assert!(!line.contains(&secret[..8]), "{line}");
    }
}
