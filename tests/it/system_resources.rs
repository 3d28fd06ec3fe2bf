//! The storage of a platform: started for a run, or kept and found again, or started anew where it is gone.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sebs_lite::docker::{Engine, Lifetime};
use sebs_lite::storage::{EngineType, StorageConfig, StorageFile, StorageKind, stop};

use crate::engine_support::{dynoxide, objects_of};
use crate::platform_storage::{GENERATE, Setting, record};
use crate::support::{engine, storage_image, wait_until};

fn is_there(engine: &Engine, config: &StorageConfig) -> bool {
    engine.inspect_container(config.instance_id.as_ref().unwrap()).is_ok()
}

#[test]
fn storage_is_started_when_it_is_first_asked_for_and_goes_with_its_run() {
    let Some(engine) = engine() else { return };
    storage_image(&engine, "dynoxide");
    let object = Some(objects_of(&engine, EngineType::SeaweedFs));
    let mut setting = Setting::new(&engine, StorageFile { object, nosql: None });
    let mut resources = setting.resources();
    let script = format!(
        "{GENERATE}    upload(0, 'k', '/etc/hostname')\n    nosql('100.x', 't', {{}}, ('id', '1'))\n    return {{}}\n\
         def buckets_count():\n    return (1, 0)\n\
         def allocate_nosql():\n    return {{'t': {{'primary_key': 'id'}}}}\n"
    );
    setting.prepare(&script, &mut resources).unwrap();
    assert_eq!(resources.started(), StorageKind::ALL);
    let in_use = resources.in_use();
    let (object, nosql) = (in_use.object.unwrap(), in_use.nosql.unwrap());
    assert_eq!((object.engine, nosql.engine), (EngineType::SeaweedFs, EngineType::Dynoxide));
    let envs = resources.envs("100.x");
    let address = |name: &str| envs.iter().find(|(known, _)| known == name).unwrap().1.clone();
    assert_eq!(Some(address("MINIO_ADDRESS")), object.address);
    assert_eq!(Some(address("NOSQL_STORAGE_ENDPOINT")), nosql.address);
    // It answers functions, and they are not of this host: the address is a container's.
    assert_ne!(object.address, object.host_address);
    resources.shutdown().unwrap();
    assert!(!is_there(&engine, &object) && !is_there(&engine, &nosql));
    assert_eq!(resources.envs("100.x"), []);

    // Dropped in the middle of an error, it goes as well; released, it lives as long as its file says.
    let mut resources = setting.resources();
    resources.get_nosql_storage().unwrap();
    let nosql = resources.in_use().nosql.unwrap();
    drop(resources);
    assert!(!is_there(&engine, &nosql));
    let file = setting.folder.path().join("deployment.json");
    setting.options.lifetime = Lifetime::Kept { file: file.clone() };
    let mut resources = setting.resources();
    resources.get_nosql_storage().unwrap();
    let nosql = resources.in_use().nosql.unwrap();
    resources.release();
    drop(resources);
    let inspected = engine.inspect_container(nosql.instance_id.as_ref().unwrap()).unwrap();
    assert_eq!(inspected.config.labels["sebs-lite.file"], file.display().to_string());
    stop(&engine, &nosql, false).unwrap();
}

/// The tables that a command uses, and what it started for that.
fn used(setting: &Setting) -> (StorageConfig, Vec<StorageKind>) {
    let mut resources = setting.resources();
    resources.get_nosql_storage().unwrap();
    let used = (resources.in_use().nosql.unwrap(), resources.started());
    resources.shutdown().unwrap();
    used
}

#[test]
fn storage_that_was_kept_as_configured_is_found_again_wherever_its_container_is() {
    let Some(engine) = engine() else { return };
    let configured = StorageFile { object: None, nosql: Some(dynoxide(&engine)) };
    let mut setting = Setting::new(&engine, configured);
    setting.options.keeps_storage = true;
    let (kept, _) = used(&setting);
    let id = kept.instance_id.clone().unwrap();
    assert_eq!(used(&setting), (kept.clone(), Vec::new()));

    // The container engine chooses another port, and maybe another address.
    engine.stop_container(&id, Duration::ZERO).unwrap();
    engine.start_container(&id).unwrap();
    wait_until("it answers", || {
        used_port(&engine, &id).is_some_and(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
    });
    let (found, started) = used(&setting);
    assert_eq!((found.instance_id.as_ref(), started), (Some(&id), Vec::new()));
    assert_eq!(found.mapped_port, used_port(&engine, &id));
    let network = engine.inspect_container(&id).unwrap().network_settings;
    assert_eq!(found.address, network.address().map(|address| format!("{address}:8000")));
    // So it is where its file is given as the configuration.
    let given = Setting::new(&engine, StorageFile { object: None, nosql: Some(kept.clone()) });
    assert_eq!(used(&given).0, found);

    // Another one is meant.
    let other = StorageConfig { cpus: Some(1), ..dynoxide(&engine) };
    setting.options.configured.nosql = Some(other);
    setting.options.keeps_storage = false;
    let (next, started) = used(&setting);
    assert_ne!(next.instance_id.as_ref(), Some(&id));
    assert_eq!(started, [StorageKind::Nosql]);
    stop(&engine, &kept, false).unwrap();
}

fn used_port(engine: &Engine, id: &str) -> Option<u16> {
    let network = engine.inspect_container(id).unwrap().network_settings;
    let bindings = network.ports["8000/tcp"].as_ref()?;
    bindings.iter().find_map(|binding| binding.host_port.parse().ok())
}

#[test]
fn storage_that_is_kept_is_found_by_the_cache_until_it_is_gone() {
    let Some(engine) = engine() else { return };
    storage_image(&engine, "dynoxide");
    let mut setting = Setting::new(&engine, StorageFile::default());
    setting.options.keeps_storage = true;
    // Of two that come at once, one starts it and the other finds it.
    let both = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| used(&setting)));
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(both[0].0, both[1].0);
    assert_eq!(both.iter().map(|(_, started)| started.len()).sum::<usize>(), 1);
    let kept = &both[0].0;
    let noted = record(&setting.cache_folder().join("local.json"))["resources"]["nosql"].clone();
    assert_eq!(noted["instance_id"], kept.instance_id.clone().unwrap());
    let file = setting.cache_folder().join(noted["file"].as_str().unwrap());
    assert_eq!(StorageFile::read(&file).unwrap().nosql.as_ref(), Some(kept));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = noted.to_string();
    assert!(!text.contains("secret_key") && !text.contains("access_key"), "{text}");

    // Also by those who would not keep any.
    setting.options.keeps_storage = false;
    assert_eq!(used(&setting), (kept.clone(), Vec::new()));

    stop(&engine, kept, false).unwrap();
    let (next, started) = used(&setting);
    assert_ne!(next.instance_id, kept.instance_id);
    assert_eq!(started, [StorageKind::Nosql]);
    assert!(!is_there(&engine, &next), "it was for the run");
    let noted = record(&setting.cache_folder().join("local.json"));
    assert!(noted["resources"].get("nosql").is_none() && !file.exists(), "{noted}");
}

#[test]
fn a_storage_that_is_paused_is_told_of_at_once_and_one_that_was_kept_gives_way() {
    let Some(engine) = engine() else { return };
    storage_image(&engine, "dynoxide");
    let mut setting = Setting::new(&engine, StorageFile::default());
    setting.options.keeps_storage = true;
    let mut resources = setting.resources();
    resources.get_nosql_storage().unwrap();
    let kept = resources.in_use().nosql.unwrap();
    engine.pause_container(kept.instance_id.as_ref().unwrap()).unwrap();

    let configured = StorageFile { object: None, nosql: Some(kept.clone()) };
    let other = Setting::new(&engine, configured);
    let error = other.resources().get_nosql_storage().map(drop).unwrap_err().to_string();
    assert!(error.contains("is paused") && error.contains("configured nosql storage"), "{error}");

    setting.options.keeps_storage = false;
    let mut resources = setting.resources();
    resources.get_nosql_storage().unwrap();
    assert_eq!(resources.started(), [StorageKind::Nosql]);
    resources.shutdown().unwrap();
    stop(&engine, &kept, false).unwrap();
}
