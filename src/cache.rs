//! The cache folder: JSON records and code packages by key, shared by any number of processes at once.
//!
//! `<cache>/<benchmark>/config.json` says what is known of a benchmark on each platform, in SeBS's shape:
//! `{"local": {"<language>": {"code_package": {"<variant>": {"<version>": {"<architecture>": …}}}, "containers": {},
//! "functions": {"<name>": …}}}, "<storage>": {"storage": …, "nosql": …}}`; `<cache>/<platform>.json` what is known of a
//! platform's resources. Keys that are not ours are kept as they are. A change reads, modifies and writes under a lock
//! between processes; a reader needs none, since files are replaced as a whole.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::cancel::Cancel;
use crate::clock;
use crate::error::{Error, Result};
use crate::files::{self, Access, Claim, Sharing};
use crate::units;

/// The file by which a folder says that it is a cache, so that backups and our own builds pass it by
/// (<https://bford.info/cachedir/>).
pub(crate) const CACHE_TAG: &str = "CACHEDIR.TAG";

const CACHE_TAG_CONTENT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of sebs-lite. Nothing in it is precious.\n";

/// How often a function is asked for that another command has, and how soon again.
const CLAIM_ATTEMPTS: usize = 5;
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

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

/// What is known of the image that a code package was baked into.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Bytes of all its layers.
    pub size: u64,
    /// Hash of the package in it.
    pub hash: String,
    /// When it was recorded.
    pub date: Dates,
    /// Its name in a registry; `None`: it is in none.
    #[serde(rename = "image-uri", default)]
    pub image_uri: Option<String>,
    /// Its id, `sha256:…`.
    #[serde(rename = "image-id")]
    pub image_id: String,
}

/// When a record was made and last changed, by the wall clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dates {
    /// RFC 3339, in UTC.
    pub created: String,
    /// RFC 3339, in UTC.
    pub modified: String,
}

impl Dates {
    /// Those of a record that is made now.
    pub fn now() -> Dates {
        let now = clock::timestamp();
        Dates { created: now.clone(), modified: now }
    }
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

    /// What is known of the image that a code package was baked into; `None` if nothing is.
    ///
    /// # Errors
    /// The record is there but cannot be read.
    pub fn container(&self, key: &PackageKey<'_>) -> Result<Option<ContainerRecord>> {
        let record = self.read(key.benchmark)?;
        let found = key.container_path().iter().try_fold(&record, |value, part| value.get(part));
        Ok(found.and_then(|value| ContainerRecord::deserialize(value).ok()))
    }

    /// Records the image that a code package was baked into, unless that is known; its date of creation stays that of
    /// the first.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn put_container(&self, key: &PackageKey<'_>, container: ContainerRecord) -> Result<()> {
        let known = self.container(key)?;
        let created = known.as_ref().map(|known| known.date.created.clone());
        if known.is_some_and(|known| ContainerRecord { date: container.date.clone(), ..known } == container) {
            return Ok(());
        }
        let created = created.unwrap_or_else(|| container.date.created.clone());
        let date = Dates { created, ..container.date };
        let record = to_value(&ContainerRecord { date, ..container });
        self.change(key.benchmark, |place| *entry(place, &key.container_path()) = record)
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

    /// Records a function that outlives its command, unless what is recorded of it is neither `before` nor nothing. `false`:
    /// so it is, and stays.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn replace_function(
        &self,
        key: &FunctionKey<'_>,
        before: Option<&Value>,
        function: Value,
    ) -> Result<bool> {
        let mut is_replaced = false;
        self.change(key.benchmark, |record| {
            let known = entry(record, &key.path()[..3]).get(key.name);
            is_replaced = known.is_none() || known == before;
            if is_replaced {
                *entry(record, &key.path()) = function;
            }
        })?;
        Ok(is_replaced)
    }

    /// Keeps other commands from using or recording a function, until it is dropped; `None`: one does.
    pub(crate) fn claim_function(&self, key: &FunctionKey<'_>) -> Result<Option<Claim>> {
        let path = self.claim_file(key);
        for _ in 1..CLAIM_ATTEMPTS {
            if let Some(claim) = files::try_claim(&path)? {
                return Ok(Some(claim));
            }
            // Whoever only looks whether somebody has it has it for a moment.
            std::thread::sleep(CLAIM_PAUSE);
        }
        files::try_claim(&path)
    }

    /// Does a command use a function now, of those that outlive their command?
    pub(crate) fn is_function_claimed(&self, key: &FunctionKey<'_>) -> bool {
        let path = self.claim_file(key);
        path.exists() && matches!(files::try_lock(&path, Sharing::Exclusive), Ok(None))
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

    /// All functions that are recorded of a platform.
    ///
    /// # Errors
    /// A record is there but cannot be read.
    pub fn functions(&self, platform: &str) -> Result<Vec<RecordedFunction>> {
        let mut found = Vec::new();
        for benchmark in self.benchmarks()? {
            let record = self.read(&benchmark)?;
            let languages = record.get(platform).and_then(Value::as_object).into_iter().flatten();
            for (language, known) in languages {
                let functions = known.get("functions").and_then(Value::as_object).into_iter().flatten();
                found.extend(functions.map(|(name, record)| RecordedFunction {
                    benchmark: benchmark.clone(),
                    language: language.clone(),
                    name: name.clone(),
                    record: record.clone(),
                }));
            }
        }
        Ok(found)
    }

    /// Forgets a function, unless what is recorded of it is not `record` any more.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn forget_function(&self, key: &FunctionKey<'_>, record: &Value) -> Result<()> {
        if self.function(key)?.as_ref() != Some(record) {
            return Ok(());
        }
        let path = key.path();
        self.change(key.benchmark, |known| {
            if let Value::Object(functions) = entry(known, &path[..path.len() - 1])
                && functions.get(key.name) == Some(record)
            {
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

    /// Of a name that need not be one of a file's.
    fn claim_file(&self, key: &FunctionKey<'_>) -> PathBuf {
        let digest = units::hexadecimal(&Sha256::digest(key.path().join("/")));
        self.record_file(key.benchmark).with_file_name(format!(".function-{}.lock", &digest[..32]))
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

/// A function that was kept, as it was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedFunction {
    /// Name of the benchmark.
    pub benchmark: String,
    /// Name of the language.
    pub language: String,
    /// Name of the function.
    pub name: String,
    /// What is recorded of it.
    pub record: Value,
}

impl RecordedFunction {
    /// Which one it is, of a platform.
    pub fn key<'a>(&'a self, platform: &'a str) -> FunctionKey<'a> {
        FunctionKey { benchmark: &self.benchmark, platform, language: &self.language, name: &self.name }
    }
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

    fn container_path(&self) -> [&'a str; 6] {
        [self.platform, self.language, "containers", self.variant, self.version, self.architecture]
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
