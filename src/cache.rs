//! The cache folder: JSON records and code packages by key, shared by any number of processes at once.
//!
//! `<cache>/<benchmark>/config.json` says what is known of a benchmark on each platform, in SeBS's shape:
//! `{"local": {"<language>": {"code_package": {"<variant>": {"<version>": {"<architecture>": …}}}, "containers": {},
//! "functions": {"<name>": …}}}, "<storage>": {"storage": …, "nosql": …}}`; `<cache>/<platform>.json` what is known of a
//! platform's resources. Keys that are not ours are kept as they are. A change reads, modifies and writes under a lock
//! between processes; a reader needs none, since files are replaced as a whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cancel::Cancel;
use crate::clock;
use crate::error::{Error, Result};
use crate::files::{self, Access, Sharing};

/// The file by which a folder says that it is a cache, so that backups and our own builds pass it by
/// (<https://bford.info/cachedir/>).
pub(crate) const CACHE_TAG: &str = "CACHEDIR.TAG";

const CACHE_TAG_CONTENT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of sebs-lite. Nothing in it is precious.\n";

/// A cache folder; clones share it.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    cancel: Cancel,
}

/// Which code package of a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct PackageKey<'a> {
    /// Name of the benchmark.
    pub benchmark: &'a str,
    /// Name of the platform.
    pub platform: &'a str,
    /// Name of the language.
    pub language: &'a str,
    /// Variant of the benchmark's code.
    pub variant: &'a str,
    /// Version of the language.
    pub version: &'a str,
    /// Name of the architecture.
    pub architecture: &'a str,
}

/// What is known of a code package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackageRecord {
    /// Bytes of all files in it.
    pub size: u64,
    /// Hash of all that went in.
    pub hash: String,
    /// The folder, relative to the cache.
    pub location: PathBuf,
    /// When it was built.
    pub date: Dates,
}

/// When a record was made and last changed, by the wall clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dates {
    /// RFC 3339, in UTC.
    pub created: String,
    /// RFC 3339, in UTC.
    pub modified: String,
}

impl Cache {
    /// The cache in the folder `root`, which is made where it is not there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(root: &Path, cancel: &Cancel) -> Result<Cache> {
        files::create_folder(root)?;
        let tag = root.join(CACHE_TAG);
        if !tag.is_file() {
            files::write(&tag, CACHE_TAG_CONTENT.as_bytes(), Access::Everyone)?;
        }
        Ok(Cache { root: files::canonical(root)?, cancel: cancel.clone() })
    }

    /// The folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that holds what is known of a benchmark.
    pub fn record_file(&self, benchmark: &str) -> PathBuf {
        self.root.join(benchmark).join("config.json")
    }

    /// The folder below which the builds of a code package live.
    pub fn package_folder(&self, key: &PackageKey<'_>) -> PathBuf {
        let PackageKey { benchmark, platform, language, variant, version, architecture } = key;
        let below = [benchmark, platform, language, "code_package", variant, version, architecture];
        below.iter().fold(self.root.clone(), |path, part| path.join(part))
    }

    /// What is known of a code package; `None` if nothing is, or what is there cannot be understood.
    ///
    /// # Errors
    /// The record is there but cannot be read.
    pub fn package(&self, key: &PackageKey<'_>) -> Result<Option<PackageRecord>> {
        let record = self.read(key.benchmark)?;
        let found = key.path().iter().try_fold(&record, |value, part| value.get(part));
        Ok(found.and_then(|value| PackageRecord::deserialize(value).ok()))
    }

    /// Records a code package that has been built; its date of creation stays that of the first build.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn put_package(&self, key: &PackageKey<'_>, location: &Path, size: u64, hash: &str) -> Result<()> {
        let now = clock::timestamp();
        let location = location.strip_prefix(&self.root).unwrap_or(location).to_path_buf();
        self.change(key.benchmark, |record| {
            let place = entry(record, &key.path());
            let created = place.pointer("/date/created").and_then(Value::as_str).unwrap_or(&now).to_string();
            let date = Dates { created, modified: now.clone() };
            *place = to_value(&PackageRecord { size, hash: hash.to_string(), location, date });
            // SeBS's own layout has this key, empty until a function is baked into an image.
            if let Value::Object(language) = entry(record, &[key.platform, key.language]) {
                language.entry("containers").or_insert_with(|| Value::Object(Map::new()));
                language.entry("functions").or_insert_with(|| Value::Object(Map::new()));
            }
        })
    }

    /// A function that was kept, as it was recorded.
    ///
    /// # Errors
    /// The record is there but cannot be read.
    pub fn function(&self, key: &FunctionKey<'_>) -> Result<Option<Value>> {
        let record = self.read(key.benchmark)?;
        Ok(key.path().iter().try_fold(&record, |value, part| value.get(part)).cloned())
    }

    /// Records a function that outlives its command.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn put_function(&self, key: &FunctionKey<'_>, function: Value) -> Result<()> {
        self.change(key.benchmark, |record| *entry(record, &key.path()) = function)
    }

    /// Forgets a function; one that is not there is fine.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn remove_function(&self, key: &FunctionKey<'_>) -> Result<()> {
        if self.function(key)?.is_none() {
            return Ok(());
        }
        let path = key.path();
        self.change(key.benchmark, |record| {
            if let Value::Object(functions) = entry(record, &path[..path.len() - 1]) {
                functions.remove(key.name);
            }
        })
    }

    /// One of a platform's resources, `resources.<key>` in its file: the text that is recorded there, else what `make`
    /// gives, which is recorded then. Of processes that ask at once, all are told the same.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn resource(&self, platform: &str, key: &str, make: impl FnOnce() -> String) -> Result<String> {
        let path = self.resources_file(platform);
        let known = |record: &Value| {
            let text = record.get("resources")?.get(key)?.as_str()?;
            (!text.is_empty()).then(|| text.to_string())
        };
        if let Some(text) = known(&read(&path)?) {
            return Ok(text);
        }
        let mut told = String::new();
        self.change_file(&path, |record| {
            told = known(record).unwrap_or_else(make);
            *entry(record, &["resources", key]) = Value::String(told.clone());
        })?;
        Ok(told)
    }

    /// All that is recorded of a platform's resources, by name.
    ///
    /// # Errors
    /// The record is there but cannot be read.
    pub fn resources(&self, platform: &str) -> Result<Map<String, Value>> {
        let record = read(&self.resources_file(platform))?;
        Ok(record.get("resources").and_then(Value::as_object).cloned().unwrap_or_default())
    }

    /// Changes what is recorded of a platform's resources; no other process changes it meanwhile.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn change_resources(
        &self,
        platform: &str,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<()> {
        self.change_file(&self.resources_file(platform), |record| {
            change(object(entry(record, &["resources"])));
        })
    }

    /// What is recorded of a benchmark's data in a storage; `None` if nothing is.
    ///
    /// # Errors
    /// The record is there but cannot be read.
    pub fn storage(&self, key: &StorageKey<'_>) -> Result<Option<Value>> {
        let record = self.read(key.benchmark)?;
        Ok(key.path().iter().try_fold(&record, |value, part| value.get(part)).cloned())
    }

    /// Changes what is recorded of a benchmark's data in a storage, which is null where nothing is; no other process
    /// changes it meanwhile.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn change_storage(&self, key: &StorageKey<'_>, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.change(key.benchmark, |record| change(entry(record, &key.path())))
    }

    /// The benchmarks of which something is recorded, sorted by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn benchmarks(&self) -> Result<Vec<String>> {
        let has_record = |path: &PathBuf| path.join("config.json").is_file();
        let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_string());
        Ok(files::list(&self.root)?.into_iter().filter(has_record).filter_map(name).collect())
    }

    /// Waits until no other process holds the lock of that name, and holds it until dropped.
    pub(crate) fn lock(&self, name: &str) -> Result<files::Lock> {
        files::lock(&self.root.join(format!(".{name}.lock")), Sharing::Exclusive, &self.cancel)
    }

    fn resources_file(&self, platform: &str) -> PathBuf {
        self.root.join(format!("{platform}.json"))
    }

    fn read(&self, benchmark: &str) -> Result<Value> {
        read(&self.record_file(benchmark))
    }

    fn change(&self, benchmark: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.change_file(&self.record_file(benchmark), change)
    }

    fn change_file(&self, path: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
        let _lock = files::lock(&path.with_file_name(".lock"), Sharing::Exclusive, &self.cancel)?;
        let mut record = read(path)?;
        change(&mut record);
        let mut text = serde_json::to_vec_pretty(&record).expect("a JSON value can be written");
        text.push(b'\n');
        files::write(path, &text, Access::Everyone)
    }
}

/// Which function of a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct FunctionKey<'a> {
    /// Name of the benchmark.
    pub benchmark: &'a str,
    /// Name of the platform.
    pub platform: &'a str,
    /// Name of the language.
    pub language: &'a str,
    /// Name of the function.
    pub name: &'a str,
}

/// Which storage's data of a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct StorageKey<'a> {
    /// Name of the benchmark.
    pub benchmark: &'a str,
    /// Name of the storage: `minio`, `scylladb`.
    pub deployment: &'a str,
    /// Which of its data: `storage` for objects, `nosql` for tables.
    pub part: &'a str,
}

impl<'a> StorageKey<'a> {
    fn path(&self) -> [&'a str; 2] {
        [self.deployment, self.part]
    }
}

impl<'a> FunctionKey<'a> {
    fn path(&self) -> [&'a str; 4] {
        [self.platform, self.language, "functions", self.name]
    }
}

impl<'a> PackageKey<'a> {
    fn path(&self) -> [&'a str; 6] {
        [self.platform, self.language, "code_package", self.variant, self.version, self.architecture]
    }
}

fn read(path: &Path) -> Result<Value> {
    match files::read_json(path) {
        Ok(record) => Ok(record),
        Err(error) if error.is_not_found() => Ok(Value::Object(Map::new())),
        Err(error) => Err(advise(error)),
    }
}

/// The value at a path of keys, made where it is not there; what stands in the way and is no object is replaced.
fn entry<'a>(record: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(record, |value, part| object(value).entry(*part).or_insert(Value::Null))
}

/// The object that a value is, made where it is another.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it is an object")
}

fn to_value(record: &impl Serialize) -> Value {
    serde_json::to_value(record).expect("a record is made of text and numbers")
}

fn advise(error: Error) -> Error {
    error.context("the cache is damaged (remove the file it names and run again)")
}

#[cfg(test)]
mod tests {
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
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<std::collections::BTreeSet<_>>()
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
                        cache
                            .put_function(&FunctionKey { name: &name, ..FUNCTION }, Value::Bool(true))
                            .unwrap();
                    }
                });
            }
        });
        let record: Value = files::read_json(&root.join("110.dynamic-html/config.json")).unwrap();
        assert_eq!(record["local"]["python"]["functions"].as_object().unwrap().len(), 80);
    }
}
