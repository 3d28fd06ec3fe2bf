//! The rules that all object storages share, on one that is a map in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use super::*;
use crate::cancel::Cancel;
use crate::error::Kind;
use crate::files::{self, Access, TempFolder};

/// The buckets that any number of storages share, as processes share a server.
type Buckets = Rc<RefCell<BTreeMap<String, BTreeMap<String, Vec<u8>>>>>;

/// An object storage in memory; the ETag of an object is its content backwards.
struct Memory {
    buckets: Buckets,
    identity: String,
    state: StorageState,
    has_etags: bool,
    asked: Cell<u32>,
}

impl PersistentStorage for Memory {
    fn deployment_name(&self) -> &'static str {
        "memory"
    }

    fn region(&self) -> &str {
        ""
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn state(&self) -> &StorageState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut StorageState {
        &mut self.state
    }

    fn correct_name(&self, name: &str) -> String {
        name.to_lowercase()
    }

    fn envs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.buckets.borrow_mut().entry(bucket.to_string()).or_default();
        Ok(())
    }

    fn exists_bucket(&self, bucket: &str) -> Result<bool> {
        self.asked.set(self.asked.get() + 1);
        Ok(self.buckets.borrow().contains_key(bucket))
    }

    fn list_buckets(&self, prefix: Option<&str>) -> Result<Vec<String>> {
        let buckets = self.buckets.borrow();
        Ok(buckets.keys().filter(|name| name.starts_with(prefix.unwrap_or_default())).cloned().collect())
    }

    fn clean_bucket(&self, bucket: &str) -> Result<()> {
        self.buckets.borrow_mut().get_mut(bucket).unwrap().clear();
        Ok(())
    }

    fn remove_bucket(&self, bucket: &str) -> Result<()> {
        assert!(self.buckets.borrow_mut().remove(bucket).unwrap().is_empty());
        Ok(())
    }

    fn list_objects(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectSummary>> {
        let buckets = self.buckets.borrow();
        let objects = buckets[bucket].iter().filter(|(key, _)| key.starts_with(prefix));
        let summary = |(key, content): (&String, &Vec<u8>)| ObjectSummary {
            key: key.clone(),
            size_bytes: content.len() as u64,
            etag: self.has_etags.then(|| backwards(content)),
        };
        // Not in order, which nobody promised.
        Ok(objects.map(summary).rev().collect())
    }

    fn remove_objects(&self, bucket: &str, keys: &[&str]) -> Result<()> {
        self.buckets.borrow_mut().get_mut(bucket).unwrap().retain(|key, _| !keys.contains(&key.as_str()));
        Ok(())
    }

    fn upload(&self, bucket: &str, file: &Path, key: &str) -> Result<()> {
        let content = files::read_bytes(file)?;
        self.buckets.borrow_mut().get_mut(bucket).unwrap().insert(key.to_string(), content);
        Ok(())
    }

    fn download(&self, bucket: &str, key: &str, file: &Path) -> Result<()> {
        let buckets = self.buckets.borrow();
        let missing = || Error::with_kind(Kind::NotFound, format!("no object `{key}`"));
        files::write(file, buckets[bucket].get(key).ok_or_else(missing)?, Access::Everyone)
    }

    fn etag_of(&self, file: &Path) -> Result<Option<String>> {
        Ok(self.has_etags.then(|| backwards(&fs::read(file).unwrap())))
    }
}

fn backwards(content: &[u8]) -> String {
    String::from_utf8_lossy(content).chars().rev().collect()
}

/// A cache, files and a server.
struct Setting {
    folder: TempFolder,
    buckets: Buckets,
}

const BUCKET: &str = "sebs-benchmarks-local-1";

impl Setting {
    fn new() -> Setting {
        Setting { folder: TempFolder::create().unwrap(), buckets: Buckets::default() }
    }

    /// What another process has of the storage.
    fn storage(&self, id: &str, identity: &str) -> Memory {
        let cache = Cache::open(&self.folder.path().join("cache"), &Cancel::new()).unwrap();
        let mut resources = Resources::load("local", Some(id), &cache).unwrap();
        resources.choose_id(&cache, "local", &[]).unwrap();
        Memory {
            buckets: self.buckets.clone(),
            identity: identity.to_string(),
            state: StorageState::new(&cache, resources),
            has_etags: true,
            asked: Cell::new(0),
        }
    }

    fn first(&self) -> Memory {
        self.storage("local-1", "a")
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        files::write(&path, content.as_bytes(), Access::Everyone).unwrap();
        path
    }

    fn keys(&self, bucket: &str) -> Vec<String> {
        self.buckets.borrow()[bucket].keys().cloned().collect()
    }
}

/// Uploads as an `input.py` would; how many files went over the line.
fn fill(storage: &mut Memory, files: &[(&str, &Path)]) -> u64 {
    storage.benchmark_data("b", (1, 1)).unwrap();
    for (key, file) in files {
        storage.uploader(0, key, file).unwrap();
    }
    storage.finish_inputs().unwrap();
    storage.state.uploads.uploaded
}

#[test]
fn a_bucket_is_made_once_and_again_where_it_is_gone() {
    let setting = Setting::new();
    let mut storage = setting.first();
    assert_eq!(storage.get_bucket(StorageBucketType::Benchmarks).unwrap(), BUCKET);
    assert_eq!(storage.get_bucket(StorageBucketType::Benchmarks).unwrap(), BUCKET);
    assert_eq!(storage.asked.get(), 1);
    assert_eq!(storage.list_buckets(None).unwrap(), [BUCKET]);

    let mut later = setting.first();
    assert_eq!(later.state.resources.get_buckets(), [BUCKET]);
    setting.buckets.borrow_mut().clear();
    assert_eq!(later.get_bucket(StorageBucketType::Benchmarks).unwrap(), BUCKET);
    assert_eq!(setting.keys(BUCKET), [""; 0]);
    later.get_bucket(StorageBucketType::Experiments).unwrap();
    assert_eq!(setting.buckets.borrow().len(), 2);
}

#[test]
fn prefixes_are_those_of_the_present_benchmark_alone() {
    let setting = Setting::new();
    let mut storage = setting.first();
    let (inputs, outputs) = storage.benchmark_data("311.compression", (2, 1)).unwrap();
    assert_eq!(inputs, ["311.compression-0-input", "311.compression-1-input"]);
    assert_eq!(outputs, ["311.compression-0-output"]);
    storage.benchmark_data("120.uploader", (0, 1)).unwrap();
    assert_eq!(storage.input_prefixes(), [""; 0]);
    assert_eq!(storage.output_prefixes(), ["120.uploader-0-output"]);
    let error = storage.uploader(0, "k", Path::new("/nonexistent")).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("`120.uploader` asks for 0 of them"), "{error}");
}

#[test]
fn a_file_is_uploaded_only_where_its_content_is_not_there() {
    let setting = Setting::new();
    let (one, two) = (setting.file("one", "abc"), setting.file("two", "xyz"));
    let files = [("1", one.as_path()), ("d/2", two.as_path())];
    assert_eq!(fill(&mut setting.first(), &files), 2);
    assert_eq!(setting.keys(BUCKET), ["b-0-input/1", "b-0-input/d/2"]);
    let mut again = setting.first();
    assert_eq!(fill(&mut again, &files), 0);
    assert!(again.state.is_cached);
    assert_eq!((again.state.uploads.unchanged, again.asked.get()), (2, 1));

    // As long as before.
    setting.file("one", "abd");
    assert_eq!(fill(&mut setting.first(), &files), 1);
    assert_eq!(setting.buckets.borrow()[BUCKET]["b-0-input/1"], b"abd");
    setting.buckets.borrow_mut().get_mut(BUCKET).unwrap().remove("b-0-input/d/2");
    assert_eq!(fill(&mut setting.first(), &files), 1);
    let mut forced = setting.first();
    forced.state.replaces_existing = true;
    assert_eq!(fill(&mut forced, &files), 2);
    let mut without = setting.first();
    without.has_etags = false;
    assert_eq!(fill(&mut without, &files), 2);
    // What was uploaded in between is not what was listed.
    assert_eq!(fill(&mut setting.first(), &[("1", &one), ("1", &two), ("1", &one)]), 2);
    assert_eq!(setting.buckets.borrow()[BUCKET]["b-0-input/1"], b"abd");
}

#[test]
fn the_cache_speaks_only_of_its_own_storage_and_bucket() {
    let setting = Setting::new();
    let file = setting.file("one", "abc");
    fill(&mut setting.first(), &[("1", &file)]);
    let is_cached = |id: &str, identity: &str| {
        let mut storage = setting.storage(id, identity);
        storage.benchmark_data("b", (1, 1)).unwrap();
        storage.state.is_cached
    };
    assert!(is_cached("local-1", "a"));
    assert!(!is_cached("local-1", "b"), "another storage");
    assert!(!is_cached("local-1", "a"), "which has taken the place in the cache");
    let uploaded = fill(&mut setting.first(), &[("1", &file)]);
    assert_eq!(uploaded, 0);
    assert_eq!(fill(&mut setting.storage("local-2", "a"), &[("1", &file)]), 1);
    assert_eq!(setting.keys("sebs-benchmarks-local-2"), ["b-0-input/1"]);
    fill(&mut setting.first(), &[("1", &file)]);
    setting.buckets.borrow_mut().get_mut(BUCKET).unwrap().clear();
    assert!(!is_cached("local-1", "a"), "emptied by somebody else");

    let text = files::read_text(&setting.folder.path().join("cache/b/config.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!({
        "buckets": {"input": ["b-0-input"], "output": ["b-0-output"], "input_uploaded": false},
        "instance_id": "a", "bucket": BUCKET,
    });
    assert_eq!(record["memory"]["storage"], expected);
}

#[test]
fn what_an_earlier_input_left_is_removed_on_demand_alone() {
    let setting = Setting::new();
    let file = setting.file("one", "abc");
    fill(&mut setting.first(), &[("small/1", &file), ("./both\\x", &file)]);
    setting.buckets.borrow_mut().get_mut(BUCKET).unwrap().insert("b-0-output/1".into(), Vec::new());
    // As a storage keeps it that tidies keys.
    let mut tidy = setting.buckets.borrow_mut();
    let objects = tidy.get_mut(BUCKET).unwrap();
    objects.remove("b-0-input/./both\\x");
    objects.insert("b-0-input/both/x".into(), b"abc".to_vec());
    drop(tidy);
    let next = [("large/1", file.as_path()), ("both/x", &file)];
    fill(&mut setting.first(), &next);
    let keys = ["b-0-input/both/x", "b-0-input/large/1", "b-0-input/small/1", "b-0-output/1"];
    assert_eq!(setting.keys(BUCKET), keys);
    let mut forced = setting.first();
    forced.state.replaces_existing = true;
    fill(&mut forced, &[("large/1", &file), ("./both\\x", &file)]);
    let keys = ["b-0-input/./both\\x", "b-0-input/both/x", "b-0-input/large/1", "b-0-output/1"];
    assert_eq!(setting.keys(BUCKET), keys);
}

#[test]
fn a_bucket_is_downloaded_in_folders_and_never_outside() {
    let setting = Setting::new();
    let storage = setting.first();
    storage.create_bucket("x").unwrap();
    let mut buckets = setting.buckets.borrow_mut();
    let objects = buckets.get_mut("x").unwrap();
    for key in ["a/b/c", "a/d", "top", "../out", "/absolute", "folder/", "a/../../out"] {
        objects.insert(key.to_string(), key.as_bytes().to_vec());
    }
    drop(buckets);
    let target = setting.folder.path().join("target");
    files::write(&target.join("top"), b"as before", Access::Everyone).unwrap();
    assert_eq!(storage.download_bucket("x", &target).unwrap(), 2);
    assert_eq!(files::read_text(&target.join("a/b/c")).unwrap(), "a/b/c");
    assert_eq!(files::read_text(&target.join("top")).unwrap(), "as before");
    assert_eq!(files::walk(&target).unwrap().len(), 5);
    assert!(!setting.folder.path().join("out").exists());
    assert_eq!(storage.download_bucket("x", &target).unwrap(), 0);
    assert_eq!(storage.list_bucket("x", "a/").unwrap().len(), 3);
}

#[test]
fn deployments_are_found_and_their_own_buckets_removed() {
    let setting = Setting::new();
    let mut storage = setting.first();
    for kind in StorageBucketType::ALL {
        storage.get_bucket(kind).unwrap();
    }
    setting.storage("local-2", "a").get_bucket(StorageBucketType::Benchmarks).unwrap();
    storage.create_bucket("somebody-elses").unwrap();
    assert_eq!(storage.find_deployments().unwrap(), ["local-1", "local-2"]);
    storage.upload(BUCKET, &setting.file("one", "abc"), "k").unwrap();
    let ours = storage.cleanup_buckets(true).unwrap();
    assert_eq!(ours, [BUCKET, "sebs-deployment-local-1", "sebs-experiments-local-1"]);
    assert_eq!(setting.buckets.borrow().len(), 5);
    assert_eq!(storage.cleanup_buckets(false).unwrap(), ours);
    assert_eq!(storage.list_buckets(None).unwrap(), ["sebs-benchmarks-local-2", "somebody-elses"]);
    assert_eq!(setting.first().state.resources.get_buckets(), [""; 0]);
    assert_eq!(storage.cleanup_buckets(false).unwrap(), [""; 0]);
    assert_eq!(storage.get_bucket(StorageBucketType::Benchmarks).unwrap(), BUCKET);
}
