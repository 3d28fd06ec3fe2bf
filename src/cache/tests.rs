//! What the cache keeps, and how it behaves when others write at the same time.

use super::*;
use crate::files::TempFolder;

const PACKAGE: PackageKey<'_> = PackageKey {
    benchmark: "110.dynamic-html",
    platform: "local",
    language: "python",
    variant: "default",
    version: "3.11",
    architecture: "x64",
};
const FUNCTION: FunctionKey<'_> =
    FunctionKey { benchmark: "110.dynamic-html", platform: "local", language: "python", name: "f" };

#[test]
fn records_are_found_again_in_sebs_shape_beside_keys_of_others() {
    let folder = TempFolder::create().unwrap();
    let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
    assert_eq!(cache.package(&PACKAGE).unwrap(), None);
    let path = cache.record_file(PACKAGE.benchmark);
    files::write(&path, br#"{"aws": {"kept": 1}}"#, Access::Everyone).unwrap();
    let location = cache.package_folder(&PACKAGE).join("code");
    cache.put_package(&PACKAGE, &location, 7, "abc").unwrap();
    cache.put_function(&FUNCTION, serde_json::json!({"name": "f"})).unwrap();
    let recorded = cache.functions("local").unwrap();
    assert_eq!(
        (recorded.len(), recorded[0].name.as_str(), recorded[0].language.as_str()),
        (1, "f", "python")
    );
    assert_eq!(cache.functions("aws").unwrap(), []);
    let (known, other) = (recorded[0].record.clone(), serde_json::json!({"name": "of another"}));
    for before in [None, Some(&other)] {
        assert!(!cache.replace_function(&FUNCTION, before, other.clone()).unwrap());
    }
    assert!(cache.replace_function(&FUNCTION, Some(&known), other.clone()).unwrap());
    assert_eq!(cache.function(&FUNCTION).unwrap(), Some(other.clone()));
    cache.remove_function(&FUNCTION).unwrap();
    assert!(cache.replace_function(&FUNCTION, Some(&other), known).unwrap());
    cache.forget_function(&FUNCTION, &other).unwrap();
    assert_eq!(cache.functions("local").unwrap(), recorded);
    let record: Value = files::read_json(&path).unwrap();
    assert_eq!(record["aws"]["kept"], 1);
    let package = &record["local"]["python"]["code_package"]["default"]["3.11"]["x64"];
    assert_eq!(package["size"], 7);
    assert_eq!(package["location"], "110.dynamic-html/local/python/code_package/default/3.11/x64/code");
    assert_eq!(record["local"]["python"]["containers"], serde_json::json!({}));
    assert_eq!(cache.package(&PACKAGE).unwrap().unwrap().hash, "abc");
    let created = cache.package(&PACKAGE).unwrap().unwrap().date.created;
    cache.put_package(&PACKAGE, &location, 8, "def").unwrap();
    assert_eq!(cache.package(&PACKAGE).unwrap().unwrap().date.created, created);
    let container = |uri: Option<&str>, created: &str| ContainerRecord {
        size: 9,
        hash: "def".to_string(),
        date: Dates { created: created.to_string(), modified: created.to_string() },
        image_uri: uri.map(str::to_string),
        image_id: "sha256:0f".to_string(),
    };
    cache.put_container(&PACKAGE, container(None, "1")).unwrap();
    cache.put_container(&PACKAGE, container(Some("r/f:1"), "2")).unwrap();
    cache.put_container(&PACKAGE, container(Some("r/f:1"), "3")).unwrap();
    let known = cache.container(&PACKAGE).unwrap().unwrap();
    assert_eq!((known.date.created.as_str(), known.date.modified.as_str()), ("1", "2"));
    let record: Value = files::read_json(&path).unwrap();
    let image = &record["local"]["python"]["containers"]["default"]["3.11"]["x64"];
    assert_eq!((&image["image-uri"], &image["image-id"]), (&"r/f:1".into(), &"sha256:0f".into()));
    assert!(cache.function(&FUNCTION).unwrap().is_some());
    cache.remove_function(&FUNCTION).unwrap();
    cache.remove_function(&FUNCTION).unwrap();
    assert_eq!(cache.function(&FUNCTION).unwrap(), None);
}

#[test]
fn a_resource_is_made_once_beside_keys_of_others() {
    let folder = TempFolder::create().unwrap();
    let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
    let path = cache.root().join("local.json");
    files::write(&path, br#"{"resources": {"id": "", "ports": [1]}, "x": 2}"#, Access::Everyone).unwrap();
    assert_eq!(cache.resource("local", "id", || "first".to_string()).unwrap(), "first");
    assert_eq!(cache.resource("local", "id", || "second".to_string()).unwrap(), "first");
    let record: Value = files::read_json(&path).unwrap();
    assert_eq!(record, serde_json::json!({"resources": {"id": "first", "ports": [1]}, "x": 2}));
    let ids = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|id| {
                scope.spawn({
                    let cache = &cache;
                    move || cache.resource("other", "id", || id.to_string()).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<std::collections::BTreeSet<_>>()
    });
    assert_eq!(ids.len(), 1);
}

#[test]
fn storage_and_resources_change_beside_keys_of_others() {
    let folder = TempFolder::create().unwrap();
    let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
    let key = StorageKey { benchmark: "x", deployment: "minio", part: "storage" };
    assert_eq!(cache.storage(&key).unwrap(), None);
    cache.put_function(&FunctionKey { benchmark: "x", ..FUNCTION }, Value::Bool(true)).unwrap();
    cache.change_storage(&key, |value| *value = serde_json::json!({"a": 1})).unwrap();
    cache.change_storage(&key, |value| value["b"] = Value::from(2)).unwrap();
    assert_eq!(cache.storage(&key).unwrap().unwrap(), serde_json::json!({"a": 1, "b": 2}));
    assert!(cache.function(&FunctionKey { benchmark: "x", ..FUNCTION }).unwrap().is_some());
    assert_eq!(cache.benchmarks().unwrap(), ["x"]);
    assert!(cache.resources("local").unwrap().is_empty());
    files::write(&cache.root().join("local.json"), br#"{"y": 1}"#, Access::Everyone).unwrap();
    cache.change_resources("local", |map| _ = map.insert("ports".into(), Value::from(3))).unwrap();
    let record: Value = files::read_json(&cache.root().join("local.json")).unwrap();
    assert_eq!(record, serde_json::json!({"resources": {"ports": 3}, "y": 1}));
}

#[test]
fn a_damaged_record_is_named_and_not_overwritten() {
    let folder = TempFolder::create().unwrap();
    let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
    let path = cache.record_file("x");
    files::write(&path, b"{\"local\": ", Access::Everyone).unwrap();
    let key = FunctionKey { benchmark: "x", ..FUNCTION };
    let error = cache.put_function(&key, Value::Null).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("line 1"), "{error}");
    assert_eq!(files::read_text(&path).unwrap(), "{\"local\": ");
}

#[test]
fn processes_that_write_at_once_lose_nothing() {
    let folder = TempFolder::create().unwrap();
    let root = folder.path();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            scope.spawn(move || {
                let cache = Cache::open(root, &Cancel::new()).unwrap();
                for turn in 0..10 {
                    let name = format!("{writer}-{turn}");
                    cache.put_function(&FunctionKey { name: &name, ..FUNCTION }, Value::Bool(true)).unwrap();
                }
            });
        }
    });
    let record: Value = files::read_json(&root.join("110.dynamic-html/config.json")).unwrap();
    assert_eq!(record["local"]["python"]["functions"].as_object().unwrap().len(), 80);
}

#[test]
fn a_function_is_claimed_by_one_at_a_time_whatever_it_is_called() {
    let folder = TempFolder::create().unwrap();
    let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
    let odd = FunctionKey { name: "../f", ..FUNCTION };
    let claim = cache.claim_function(&FUNCTION).unwrap().unwrap();
    assert!(cache.is_function_claimed(&FUNCTION) && !cache.is_function_claimed(&odd));
    assert!(cache.claim_function(&FUNCTION).unwrap().is_none());
    let other = cache.claim_function(&odd).unwrap().unwrap();
    drop(claim);
    assert!(!cache.is_function_claimed(&FUNCTION) && cache.is_function_claimed(&odd));
    assert!(cache.claim_function(&FUNCTION).unwrap().is_some());
    drop(other);
    assert_eq!(files::list(&cache.root().join(FUNCTION.benchmark)).unwrap(), [""; 0].map(PathBuf::from));
}
