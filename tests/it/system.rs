//! The local platform by the methods that all platforms have: names, resources, ports, functions that come and go.

use sebs_lite::benchmark::{Benchmark, Search};
use sebs_lite::cache::Cache;
use sebs_lite::cancel::Cancel;
use sebs_lite::docker::Engine;
use sebs_lite::faas::{CodePackage, FunctionConfig, Stores, System, TriggerType};
use sebs_lite::local::{BuildChoices, Local, LocalOptions, allocate_port, prepare};
use sebs_lite::progress::Progress;
use sebs_lite::storage::{EngineType, StorageConfig, StorageFile, StorageKind};

use crate::platform_storage::Setting;
use crate::program::{Place, function};
use crate::support::{self, containers, storage_image, unique};

fn package(place: &Place, engine: &Engine, cache: &Cache) -> CodePackage {
    let path = function(place, "echo", "def handler(event):\n    return {'result': event}\n");
    let bundled = place.path("bundled");
    let search = Search { roots: &[], data: None, extract_to: &bundled };
    let benchmark = Benchmark::find(&path, &search).unwrap();
    let (choices, cancel) = (BuildChoices::default(), Cancel::new());
    prepare(&benchmark, &choices, engine, cache, &cancel, &Progress::quiet()).unwrap().package
}

#[test]
fn a_function_is_built_kept_at_a_port_of_its_own_made_cold_and_deleted() {
    let Some(engine) = support::engine() else { return };
    let place = Place::create("system");
    let cancel = Cancel::new();
    let cache = Cache::open(&place.path("cache"), &cancel).unwrap();
    let built = package(&place, &engine, &cache);
    let config = FunctionConfig::from_package(&built);
    let open = |options| Local::new(engine.clone(), cache.clone(), options, &cancel).unwrap();

    let mut local = open(LocalOptions { keep: true, ..LocalOptions::default() });
    local.quiet();
    local.initialize(Some("lab"), &Stores::default()).unwrap();
    let id = local.resources().id().unwrap().to_string();
    assert!(id.starts_with("lab-"), "{id}");
    assert_eq!(
        local.default_function_name(&built, Some(&id)),
        format!("sebs-{id}-echo-python-{}", built.runtime.version)
    );
    assert_eq!(local.format_function_name("a.b"), "a.b");
    let same = local.build_function(&built.runtime, &mut || Ok(built.clone())).unwrap();
    assert_eq!(same.location, built.location);
    assert!(local.finalize_container_build(&same).unwrap().is_none());
    let ancient = sebs_lite::faas::Runtime { version: "2.7".to_string(), ..built.runtime.clone() };
    let refused = local.build_function(&ancient, &mut || Ok(built.clone())).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains("3.7, 3.8"), "{refused}");

    let port = allocate_port(&mut local.config_mut().resources, &cache).unwrap();
    drop(local);
    let mut local = open(LocalOptions { keep: true, host_port: Some(port), ..LocalOptions::default() });
    assert!(local.resources().allocated_ports.contains(&port));
    assert_ne!(allocate_port(&mut local.config_mut().resources, &cache).unwrap(), port);
    let name = unique("system");
    let mut deployed = local.get_function(&built, Some(&name), &config).unwrap();
    assert_eq!((deployed.instances[0].port, deployed.triggers_all().len()), (port, 1));
    for kind in [TriggerType::Library, TriggerType::Storage] {
        let refused = local.create_trigger(&mut deployed, kind).unwrap_err();
        assert!(refused.is_usage() && refused.to_string().contains("not supported on the local platform"));
    }
    assert!(!local.is_configuration_changed(&deployed, &config));
    local.keep(&deployed).unwrap();
    assert!(local.invoke(&mut deployed, "{}").unwrap().stats.cold_start);
    assert!(!local.invoke(&mut deployed, "{}").unwrap().stats.cold_start);
    let counter = local.cold_start_counter();
    local.enforce_cold_start(&mut deployed).unwrap();
    assert_eq!(local.cold_start_counter(), counter + 1);
    assert!(local.invoke(&mut deployed, "{}").unwrap().stats.cold_start);
    local.keep(&deployed).unwrap();
    local.shutdown().unwrap();

    let mut later = open(LocalOptions::default());
    assert_eq!(later.description()["resources"]["resources_id"], id);
    assert_eq!(later.cleanup_functions(true).unwrap(), [name.as_str()]);
    let resources = later.cleanup_resources(&mut Stores::default(), true).unwrap();
    assert_eq!((resources.functions.len(), resources.buckets.len()), (1, 0));
    // As long as a command has its package, it may use the function.
    assert!(later.delete_function(&name).unwrap_err().is_conflict());
    drop(built);
    drop((same, local));
    assert_eq!(later.delete_function(&name).unwrap(), 1);
    assert_eq!(later.delete_function(&name).unwrap(), 0);
    assert_eq!(containers(&engine, &name), [""; 0]);
    assert!(!later.resources().allocated_ports.contains(&port));
    assert!(cache.functions("local").unwrap().is_empty());
}

#[test]
fn storage_is_found_and_emptied_and_none_is_started_for_that() {
    let Some(engine) = support::engine() else { return };
    storage_image(&engine, "dynoxide");
    let dynoxide = StorageConfig::of(EngineType::Dynoxide);
    let setting = Setting::new(&engine, StorageFile { object: None, nosql: Some(dynoxide) });
    let mut resources = setting.resources();
    assert!(!resources.find(StorageKind::Nosql).unwrap() && resources.started().is_empty());
    let script = "def generate_input(data_dir, size, bucket, inputs, outputs, upload, nosql):\n    return {}\n\
                  def allocate_nosql():\n    return {'t': {'primary_key': 'id'}}\n";
    setting.prepare(script, &mut resources).unwrap();
    assert!(resources.find(StorageKind::Nosql).unwrap());
    let cancel = Cancel::new();
    let cache = Cache::open(&setting.cache_folder(), &cancel).unwrap();
    let mut local = Local::new(engine.clone(), cache, LocalOptions::default(), &cancel).unwrap();
    let mut stores = Stores { object: None, nosql: Some(resources.get_nosql_storage().unwrap()) };
    assert!(local.find_deployments(&stores).unwrap().is_empty());
    let dry = local.cleanup_resources(&mut stores, true).unwrap();
    assert!(dry.tables.len() == 1 && dry.tables[0].ends_with("-t"), "{dry:?}");
    assert_eq!(local.cleanup_resources(&mut stores, false).unwrap(), dry);
    assert!(local.cleanup_resources(&mut stores, false).unwrap().tables.is_empty());
    resources.shutdown().unwrap();
}
