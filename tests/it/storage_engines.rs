//! The life of storage engines in real containers: started, stopped, killed, started again on the same data, cleaned up.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sebs_lite::cancel::Cancel;
use sebs_lite::docker::{ContainerSpec, HostConfig, Lifetime, Owner, VolumeMount, sweep};
use sebs_lite::storage::{EngineType, Item, StorageConfig, StorageEnd, StorageKind, Value, status, stop};

use crate::engine_support::{Session, dynoxide, names, objects_of, s3, tables};
use crate::support::{TestImage, build, engine, storage_image, unique, wait_until};

#[test]
fn a_minio_finds_its_objects_with_the_same_keys_after_a_stop_and_after_a_kill() {
    objects_outlive_their_server(EngineType::Minio);
}

#[test]
fn a_seaweedfs_finds_its_objects_with_the_same_keys_after_a_stop_and_after_a_kill() {
    objects_outlive_their_server(EngineType::SeaweedFs);
}

fn objects_outlive_their_server(kind: EngineType) {
    let Some(engine) = engine() else { return };
    let mut session = Session::new(&engine);
    session.keeps_data = true;
    session.lifetime = Lifetime::Kept { file: session.path("storage.json") };
    let config = objects_of(&engine, kind);
    let volume = format!("{kind}-volume");
    let key_file = format!("{volume}.keys.json");

    let first = session.start(StorageKind::Object, &config).unwrap();
    assert!(first.reason.starts_with(&format!("{kind}: its image ")), "{}", first.reason);
    assert_eq!(session.files(), [volume.as_str(), key_file.as_str()]);
    let taken = session.start(StorageKind::Object, &config).unwrap_err();
    let name = engine.inspect_container(first.config.instance_id.as_ref().unwrap()).unwrap().name;
    assert!(taken.is_usage() && taken.to_string().contains(&name), "{taken}");
    assert_eq!(session.left(), [name.as_str()]);
    let first = first.keep();
    assert_eq!(first.data_volume.as_deref(), session.path(&volume).to_str());
    assert!(first.address.as_ref().unwrap().ends_with(":9000"));
    assert!(!first.owns_volume && first.mapped_port.is_some());
    let client = s3(&first);
    client.create_bucket("bucket").unwrap();
    client.put_bytes("bucket", "before", b"as it was").unwrap();
    assert_eq!(client.list_buckets().unwrap(), ["bucket"]);
    assert_secret_only_in(&first, session.folder.path(), &key_file);
    assert_eq!(stop(&engine, &first, false).unwrap(), StorageEnd::Removed);
    assert_eq!(stop(&engine, &first, false).unwrap(), StorageEnd::Gone);
    assert!(session.left().is_empty());

    let second = session.start(StorageKind::Object, &config).unwrap().keep();
    assert_eq!((&second.access_key, &second.secret_key), (&first.access_key, &first.secret_key));
    let client = s3(&second);
    assert_eq!(client.get_bytes("bucket", "before", 100).unwrap(), b"as it was");
    // Killed while a large object comes in.
    let large = session.path("large");
    File::create(&large).unwrap().set_len(2 << 30).unwrap();
    let id = second.instance_id.clone().unwrap();
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| client.put_file("bucket", "large", &large));
        wait_until("the upload has begun", || size_of(&session.path(&volume)) > 8 << 20);
        engine.kill_container(&id, "KILL").unwrap();
        let error = upload.join().unwrap().unwrap_err();
        assert!(error.is_disconnected(), "{error}");
    });
    std::fs::remove_file(&large).unwrap();
    let seen = status(&engine, StorageKind::Object, &second, &Cancel::new()).unwrap();
    assert_eq!((seen.state.as_deref(), seen.answers), (Some("exited"), false));
    let refused = session.start(StorageKind::Object, &second).unwrap_err().to_string();
    assert!(refused.contains("does not run: it is exited"), "{refused}");

    let third = session.start(StorageKind::Object, &config).unwrap().keep();
    assert_eq!(third.secret_key, first.secret_key);
    let taken = session.start(StorageKind::Object, &StorageConfig::default()).unwrap_err().to_string();
    if kind == EngineType::SeaweedFs {
        // `auto` knows whose data are where data are by default.
        assert!(
            taken.contains(&format!("folder `{}` is in use", session.path(&volume).display())),
            "{taken}"
        );
    }
    let client = s3(&third);
    assert_eq!(client.get_bytes("bucket", "before", 100).unwrap(), b"as it was");
    assert!(client.head("bucket", "large").unwrap_err().is_not_found());
    client.put_bytes("bucket", "after", b"more").unwrap();
    let seen = status(&engine, StorageKind::Object, &third, &Cancel::new()).unwrap();
    assert!(seen.answers && seen.error.is_none(), "{seen:?}");
    // That of the killed one would take the data of the one that runs.
    let used = stop(&engine, &second, true).unwrap_err();
    assert!(used.is_usage() && used.to_string().contains("in use by container"), "{used}");
    assert_eq!(stop(&engine, &second, false).unwrap(), StorageEnd::Removed);
    assert_eq!(stop(&engine, &third, true).unwrap(), StorageEnd::Removed);
    assert!(session.left().is_empty());
    assert!(session.files().is_empty());
}

/// Only the file of the keys, which only its owner may read, holds the secret.
fn assert_secret_only_in(config: &StorageConfig, folder: &Path, key_file: &str) {
    let secret = config.secret_key.as_ref().unwrap();
    let mode = std::fs::metadata(folder.join(key_file)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut holders = Vec::new();
    for path in walk(folder) {
        let content = std::fs::read(&path).unwrap();
        if content.windows(secret.len()).any(|window| window == secret.as_bytes()) {
            holders.push(path);
        }
    }
    assert_eq!(holders, [folder.join(key_file)]);
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for name in names(folder) {
        let path = folder.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => files.append(&mut walk(&path)),
            Ok(metadata) if metadata.is_file() => files.push(path),
            _ => {}
        }
    }
    files
}

fn size_of(folder: &Path) -> u64 {
    let listed = Command::new("du").arg("-sk").arg(folder).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.split_whitespace().next().and_then(|size| size.parse::<u64>().ok()).unwrap_or_default() << 10
}

fn item(name: &str) -> Item {
    Item::from([("key".to_string(), Value::from(name))])
}

#[test]
fn tables_are_found_again_in_a_volume_that_has_a_name() {
    let Some(engine) = engine() else { return };
    tables_outlive_their_server(&Session::new(&engine), &dynoxide(&engine));
}

#[test]
fn scylladb_is_started_with_its_arguments_and_finds_its_tables_again() {
    let Some(engine) = engine() else { return };
    // Played by a server that looks at no argument, and keeps its data where ScyllaDB has them.
    let stand_in = unique("scylla");
    let shell = TestImage::import(&engine);
    let dockerfile = format!(
        "FROM {}\nCOPY --from={} /dynoxide /dynoxide\nENTRYPOINT [\"/bin/sh\", \"-c\", \
         \"exec /dynoxide serve --host 0.0.0.0 --port 8000 --db-path /var/lib/scylla/d.db\"]\n",
        shell.reference,
        storage_image(&engine, "dynoxide")
    );
    build(&engine, &stand_in, &[("Dockerfile", &dockerfile)]);
    let config = StorageConfig {
        image: Some(stand_in.clone()),
        memory: Some(900),
        ..StorageConfig::of(EngineType::ScyllaDb)
    };
    let session = Session::new(&engine);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tables_outlive_their_server(&session, &config)
    }));
    engine.remove_image(&stand_in).unwrap();
    outcome.unwrap();
}

fn tables_outlive_their_server(session: &Session, config: &StorageConfig) {
    let engine = &session.engine;
    let volume = unique("tables");
    let config = StorageConfig { data_volume: Some(volume.clone()), ..config.clone() };
    let first = session.start(StorageKind::Nosql, &config).unwrap().keep();
    assert!(first.address.as_ref().unwrap().ends_with(":8000"));
    assert_eq!((first.alternator_port, first.region.as_deref()), (Some(8000), Some("None")));
    assert_eq!((first.access_key.as_deref(), first.secret_key.as_deref()), (Some("None"), Some("None")));
    let client = tables(&first);
    client.create_table("table", "key", None).unwrap();
    client.put_item("table", &item("before")).unwrap();
    assert_eq!(client.list_tables().unwrap(), ["table"]);
    let taken = session.start(StorageKind::Nosql, &config).unwrap_err();
    assert!(
        taken.is_usage() && taken.to_string().contains(&format!("volume `{volume}` is in use")),
        "{taken}"
    );
    assert_eq!(stop(engine, &first, false).unwrap(), StorageEnd::Removed);

    let second = session.start(StorageKind::Nosql, &config).unwrap().keep();
    assert_eq!(tables(&second).scan("table").unwrap(), [item("before")]);
    engine.kill_container(second.instance_id.as_ref().unwrap(), "KILL").unwrap();
    let third = session.start(StorageKind::Nosql, &config).unwrap();
    assert_eq!(tables(&third.config).scan("table").unwrap(), [item("before")]);
    // Dropped, its container goes and the volume with a name stays.
    drop(third);
    assert_eq!(stop(engine, &second, false).unwrap(), StorageEnd::Removed);
    assert!(session.left().is_empty() && session.has_volume(&volume));
    let auto = StorageConfig { data_volume: Some(volume.clone()), ..StorageConfig::default() };
    if config.engine == EngineType::Dynoxide {
        let found = session.start(StorageKind::Nosql, &auto).unwrap();
        assert!(found.reason.contains(&format!("the data in `{volume}`")), "{}", found.reason);
        found.remove().unwrap();
    } else {
        let other = StorageConfig { data_volume: Some(volume.clone()), ..dynoxide(engine) };
        let error = session.start(StorageKind::Nosql, &other).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("holds data of `scylladb`"), "{error}");
    }
    let last = session.start(StorageKind::Nosql, &config).unwrap().keep();
    assert_eq!(stop(engine, &last, true).unwrap(), StorageEnd::Removed);
    assert!(session.left().is_empty() && !session.has_volume(&volume));
}

#[test]
fn two_at_once_have_nothing_in_common_and_leave_nothing() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    let config = objects_of(&engine, EngineType::Minio);
    let tables_config = dynoxide(&engine);
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| session.start(StorageKind::Object, &config).unwrap());
        let two = session.start(StorageKind::Object, &config).unwrap();
        (one.join().unwrap(), two)
    });
    let three = session.start(StorageKind::Nosql, &tables_config).unwrap();
    assert_eq!(session.left().len(), 6);
    assert!(session.files().is_empty());
    for what in [
        |config: &StorageConfig| config.instance_id.clone(),
        |config: &StorageConfig| config.data_volume.clone(),
        |config: &StorageConfig| config.host_address.clone(),
        |config: &StorageConfig| config.address.clone(),
    ] {
        let (one, two, three) = (what(&one.config), what(&two.config), what(&three.config));
        assert!(one.is_some() && one != two && two != three && one != three, "{one:?}");
    }
    assert_ne!(one.config.secret_key, two.config.secret_key);
    assert!(one.config.owns_volume && two.config.owns_volume && three.config.owns_volume);
    s3(&one.config).create_bucket("only-in-one").unwrap();
    assert!(!s3(&two.config).bucket_exists("only-in-one").unwrap());
    one.remove().unwrap();
    drop(two);
    let kept = three.keep();
    assert_eq!(session.left().len(), 2);
    assert_eq!(stop(&engine, &kept, false).unwrap(), StorageEnd::Removed);
    assert!(session.left().is_empty());
    assert_eq!(stop(&engine, &kept, false).unwrap(), StorageEnd::Gone);
    // A configuration of a volume that went with its storage gets another one.
    let again = StorageConfig { address: None, instance_id: None, ..kept.clone() };
    let again = session.start(StorageKind::Nosql, &StorageConfig { mapped_port: None, ..again }).unwrap();
    assert_ne!(again.config.data_volume, kept.data_volume);
    again.remove().unwrap();
}

#[test]
fn a_container_that_is_to_stay_is_only_stopped() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    let config = StorageConfig { remove_containers: Some(false), ..dynoxide(&engine) };
    let kept = session.start(StorageKind::Nosql, &config).unwrap().keep();
    assert_eq!(stop(&engine, &kept, false).unwrap(), StorageEnd::Stopped);
    assert_eq!(session.left().len(), 2);
    assert_eq!(stop(&engine, &kept, true).unwrap(), StorageEnd::Removed);
    assert!(session.left().is_empty());
}

#[test]
fn a_start_that_is_given_up_leaves_nothing_whenever_that_is() {
    let Some(engine) = engine() else { return };
    let config = objects_of(&engine, EngineType::SeaweedFs);
    for after_ms in [0, 30, 120, 400, 900, 1500] {
        for keeps_data in [false, true] {
            let mut session = Session::new(&engine);
            session.keeps_data = keeps_data;
            let error = std::thread::scope(|scope| {
                let cancel = session.cancel.clone();
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(after_ms));
                    cancel.trigger();
                });
                session.start(StorageKind::Object, &config).unwrap_err()
            });
            assert!(error.is_cancelled(), "{error}");
            assert_eq!(session.left(), Vec::<String>::new(), "given up after {after_ms} ms");
            assert_eq!(session.files(), Vec::<String>::new(), "given up after {after_ms} ms");
        }
    }
}

#[test]
fn what_a_killed_process_left_is_swept_but_not_what_is_kept_or_has_a_name() {
    let Some(engine) = engine() else { return };
    let config = dynoxide(&engine);
    let mut process = Command::new("sleep").arg("600").spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let start_ticks = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
    let mut session = Session::new(&engine);
    session.owner.pid = process.id().try_into().unwrap();
    session.owner.start = start_ticks;
    let left = session.start(StorageKind::Nosql, &config).unwrap().keep();
    let named = StorageConfig { data_volume: Some(unique("named")), ..config.clone() };
    let named = session.start(StorageKind::Nosql, &named).unwrap().keep();
    session.lifetime = Lifetime::Kept { file: session.path("storage.json") };
    let kept = session.start(StorageKind::Nosql, &config).unwrap().keep();
    let foreign = unique("foreign");
    engine.create_volume(&foreign, &BTreeMap::new()).unwrap();

    let sweeper = Owner::current().unwrap();
    sweep(&engine, &sweeper).unwrap();
    assert!(session.has_container(left.instance_id.as_ref().unwrap()), "its owner lives");
    process.kill().unwrap();
    process.wait().unwrap();
    sweep(&engine, &sweeper).unwrap();
    // Another run of the program may be at the same: what it is removing is left to it.
    wait_until("what was left is gone", || {
        !session.has_container(left.instance_id.as_ref().unwrap())
            && !session.has_volume(left.data_volume.as_ref().unwrap())
            && !session.has_container(named.instance_id.as_ref().unwrap())
    });
    assert!(session.has_volume(named.data_volume.as_ref().unwrap()));
    assert!(session.has_container(kept.instance_id.as_ref().unwrap()));
    assert!(session.has_volume(kept.data_volume.as_ref().unwrap()));
    assert!(session.has_volume(&foreign));

    assert_eq!(stop(&engine, &named, true).unwrap(), StorageEnd::Gone);
    assert!(!session.has_volume(named.data_volume.as_ref().unwrap()));
    stop(&engine, &kept, false).unwrap();
    engine.remove_volume(&foreign).unwrap();
    assert!(session.left().is_empty());
}

#[test]
fn of_two_starts_on_the_same_data_at_once_one_goes_on() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    for (kind, config) in [
        (StorageKind::Nosql, dynoxide(&engine)),
        (StorageKind::Object, objects_of(&engine, EngineType::Minio)),
    ] {
        let config = StorageConfig { data_volume: Some(unique("contested")), ..config };
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| session.start(kind, &config));
            let two = session.start(kind, &config);
            (one.join().unwrap(), two)
        });
        let (started, refused): (Vec<_>, Vec<_>) = [one, two].into_iter().partition(Result::is_ok);
        assert_eq!((started.len(), refused.len()), (1, 1), "{refused:?}");
        for error in refused {
            let error = error.unwrap_err();
            assert!(error.is_usage(), "{error}");
        }
        for storage in started {
            stop(&engine, &storage.unwrap().keep(), true).unwrap();
        }
        assert!(session.left().is_empty());
        let volume = config.data_volume.as_ref().unwrap();
        assert!(session.files().is_empty() && !session.has_volume(volume));
    }
}

#[test]
fn a_container_that_a_killed_start_made_gives_way_and_that_of_a_living_one_does_not() {
    let Some(engine) = engine() else { return };
    let session = Session::new(&engine);
    let volume = unique("abandoned");
    let config = StorageConfig { data_volume: Some(volume.clone()), ..dynoxide(&engine) };
    let created = |owner: &Owner| {
        let mount =
            VolumeMount { name: volume.clone(), target: "/data".to_string(), ..VolumeMount::default() };
        let spec = ContainerSpec {
            image: storage_image(&engine, "dynoxide"),
            labels: BTreeMap::from([("sebs-lite.storage".to_string(), "dynoxide".to_string())]),
            host_config: HostConfig { mounts: vec![mount], ..HostConfig::default() },
            ..ContainerSpec::default()
        };
        engine.create_owned(owner, &Lifetime::Run, &unique("created"), spec).unwrap()
    };
    let living = created(&session.owner);
    let refused = session.start(StorageKind::Nosql, &config).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains("is in use by container"), "{refused}");
    living.remove().unwrap();
    let dead = Owner { start: session.owner.start + 1, ..session.owner.clone() };
    let abandoned = created(&dead).keep();
    let storage = session.start(StorageKind::Nosql, &config).unwrap();
    assert!(!session.has_container(&abandoned));
    storage.remove().unwrap();
    engine.remove_volume(&volume).unwrap();
    assert!(session.left().is_empty());
}
