//! What a platform's resources are called, and which of them there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::files;

const ID: &str = "resources_id";
const BUCKETS: &str = "storage_buckets";
const PORTS: &str = "allocated_ports";

/// What a bucket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageBucketType {
    /// Code packages.
    Deployment,
    /// The input and output of benchmarks.
    Benchmarks,
    /// The results of experiments.
    Experiments,
}

impl StorageBucketType {
    /// All.
    pub const ALL: [StorageBucketType; 3] =
        [StorageBucketType::Deployment, StorageBucketType::Benchmarks, StorageBucketType::Experiments];

    /// The word for it in names and files.
    pub fn name(self) -> &'static str {
        match self {
            StorageBucketType::Deployment => "deployment",
            StorageBucketType::Benchmarks => "benchmarks",
            StorageBucketType::Experiments => "experiments",
        }
    }
}

impl fmt::Display for StorageBucketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for StorageBucketType {
    type Err = Error;

    fn from_str(name: &str) -> Result<StorageBucketType> {
        match name {
            "deployment" => Ok(StorageBucketType::Deployment),
            "benchmarks" => Ok(StorageBucketType::Benchmarks),
            "experiments" => Ok(StorageBucketType::Experiments),
            _ => Err(Error::usage(format!(
                "bucket type `{name}` is not known: it must be deployment, benchmarks or experiments"
            ))),
        }
    }
}

/// The resources of one user on one platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The platform, whose file in the cache has its name: `local`.
    #[serde(skip)]
    pub platform: String,
    /// What sets their names apart from those of others: `local-0123abcd`; `None`: none was chosen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources_id: Option<String>,
    /// The bucket of each type that is known to be there.
    #[serde(default)]
    pub storage_buckets: BTreeMap<StorageBucketType, String>,
    /// The ports of 127.0.0.1 that functions which outlive their command are published at.
    #[serde(default)]
    pub allocated_ports: BTreeSet<u16>,
}

impl Resources {
    /// The resources with the configured id, else those that the cache knows. The cache's buckets are another's, where
    /// it has another id.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn load(platform: &str, configured_id: Option<&str>, cache: &Cache) -> Result<Resources> {
        let record = cache.resources(platform)?;
        let cached_id = text(record.get(ID));
        let resources_id = configured_id.map(str::to_string).or_else(|| cached_id.clone());
        let storage_buckets = if cached_id == resources_id { buckets(&record) } else { BTreeMap::new() };
        let allocated_ports = ports(record.get(PORTS));
        Ok(Resources { platform: platform.to_string(), resources_id, storage_buckets, allocated_ports })
    }

    /// The resources that a configuration describes: its id, else the cache's; the cache's ports, else its own.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn deserialize(platform: &str, configured: &Value, cache: &Cache) -> Result<Resources> {
        let mut resources = Resources::load(platform, text(configured.get(ID)).as_deref(), cache)?;
        if resources.allocated_ports.is_empty() {
            resources.allocated_ports = ports(configured.get(PORTS));
        }
        Ok(resources)
    }

    /// Chooses an id where there is none yet: the one that the cache has meanwhile, else the first of `found` that
    /// contains the prefix, else one that is made up of it. It is recorded in the cache, where no other is.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn choose_id(&mut self, cache: &Cache, prefix: &str, found: &[String]) -> Result<&str> {
        let (platform, known) = (&self.platform, &self.resources_id);
        let recorded = cache.resource(platform, ID, || {
            // Names of buckets are in lower case, whatever the prefix is.
            let prefix = prefix.to_ascii_lowercase();
            let found = || found.iter().find(|id| id.to_ascii_lowercase().contains(&prefix)).cloned();
            let id = known.clone().or_else(found);
            id.unwrap_or_else(|| format!("{prefix}-{}", files::random_hex(8)))
        })?;
        Ok(self.resources_id.get_or_insert(recorded))
    }

    /// Was an id chosen?
    pub fn has_resources_id(&self) -> bool {
        self.resources_id.is_some()
    }

    /// The id.
    ///
    /// # Errors
    /// None was chosen yet.
    pub fn id(&self) -> Result<&str> {
        self.resources_id.as_deref().ok_or_else(|| Error::new("no resources id has been chosen yet"))
    }

    /// The region; empty, where there is none.
    pub fn region(&self) -> &str {
        ""
    }

    /// The names of all buckets that are known.
    pub fn get_buckets(&self) -> Vec<String> {
        self.storage_buckets.values().cloned().collect()
    }

    /// The bucket of that type; `None`: none is known.
    pub fn get_storage_bucket(&self, kind: StorageBucketType) -> Option<&str> {
        self.storage_buckets.get(&kind).map(String::as_str)
    }

    /// What a bucket of that type is called: `sebs-<type>-<resources id>`.
    ///
    /// # Errors
    /// No id was chosen yet.
    pub fn get_storage_bucket_name(&self, kind: StorageBucketType) -> Result<String> {
        Ok(format!("sebs-{kind}-{}", self.id()?))
    }

    /// Notes the bucket of that type.
    pub fn set_storage_bucket(&mut self, kind: StorageBucketType, bucket: &str) {
        self.storage_buckets.insert(kind, bucket.to_string());
    }

    /// Notes a port, here and in the cache; `false`: it was noted there already, perhaps by another process.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn allocate_port(&mut self, cache: &Cache, port: u16) -> Result<bool> {
        let is_free = self.change_ports(cache, |known| known.insert(port))?;
        self.allocated_ports.insert(port);
        Ok(is_free)
    }

    /// Forgets a port, here and in the cache; one that is not known is fine.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn release_port(&mut self, cache: &Cache, port: u16) -> Result<()> {
        self.allocated_ports.remove(&port);
        self.change_ports(cache, |known| known.remove(&port)).map(drop)
    }

    /// What the cache holds of them: `{"resources_id": …, "storage_buckets": {"<type>": "<name>"}, "allocated_ports": […]}`.
    pub fn serialize(&self) -> Value {
        json!(self)
    }

    /// Records them in the cache, beside what else it knows of the platform, unless it has another id.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn update_cache(&self, cache: &Cache) -> Result<()> {
        self.change_record(cache, |known| {
            known.extend(self.storage_buckets.iter().map(|(kind, name)| (*kind, name.clone())));
        })
    }

    /// Forgets buckets that are gone, here and in the cache.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn cleanup_deleted_buckets(&mut self, cache: &Cache, deleted: &[String]) -> Result<()> {
        self.storage_buckets.retain(|_, name| !deleted.contains(name));
        self.change_record(cache, |known| known.retain(|_, name| !deleted.contains(name)))
    }

    fn change_ports(&self, cache: &Cache, change: impl FnOnce(&mut BTreeSet<u16>) -> bool) -> Result<bool> {
        let mut has_changed = false;
        cache.change_resources(&self.platform, |record| {
            let mut known = ports(record.get(PORTS));
            has_changed = change(&mut known);
            record.insert(PORTS.to_string(), json!(known));
        })?;
        Ok(has_changed)
    }

    fn change_record(
        &self,
        cache: &Cache,
        change: impl FnOnce(&mut BTreeMap<StorageBucketType, String>),
    ) -> Result<()> {
        cache.change_resources(&self.platform, |record| {
            let recorded = text(record.get(ID));
            if recorded.is_some() && recorded != self.resources_id {
                return;
            }
            let mut known = if recorded.is_some() { buckets(record) } else { BTreeMap::new() };
            change(&mut known);
            record.insert(ID.to_string(), json!(self.resources_id));
            record.insert(BUCKETS.to_string(), json!(known));
        })
    }
}

/// A text that says something.
fn text(value: Option<&Value>) -> Option<String> {
    value?.as_str().filter(|text| !text.is_empty()).map(str::to_string)
}

/// The ports in a record; what is none is passed over.
fn ports(value: Option<&Value>) -> BTreeSet<u16> {
    let all = value.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|port| u16::try_from(port.as_u64()?).ok()).collect()
}

/// The buckets in a record; of types that are not known here nothing is said.
fn buckets(record: &Map<String, Value>) -> BTreeMap<StorageBucketType, String> {
    let all = record.get(BUCKETS).and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(kind, name)| Some((kind.parse().ok()?, text(Some(name))?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::files::{Access, TempFolder};

    fn cache(folder: &TempFolder) -> Cache {
        Cache::open(folder.path(), &Cancel::new()).unwrap()
    }

    fn load(configured: Option<&str>, cache: &Cache) -> Resources {
        Resources::load("local", configured, cache).unwrap()
    }

    #[test]
    fn an_id_is_configured_else_cached_else_found_else_made_up() {
        let folder = TempFolder::create().unwrap();
        let cache = cache(&folder);
        assert!(!load(None, &cache).has_resources_id() && load(None, &cache).id().is_err());
        assert_eq!(load(Some("mine"), &cache).choose_id(&cache, "local", &[]).unwrap(), "mine");
        assert_eq!(load(None, &cache).choose_id(&cache, "local", &[]).unwrap(), "mine");
        assert_eq!(load(Some("other"), &cache).choose_id(&cache, "local", &[]).unwrap(), "other");
        assert_eq!(load(None, &cache).id().unwrap(), "mine");

        let folder = TempFolder::create().unwrap();
        let cache = self::cache(&folder);
        let found = ["aws-1".to_string(), "local-2".to_string(), "local-3".to_string()];
        assert_eq!(load(None, &cache).choose_id(&cache, "local", &found).unwrap(), "local-2");
        assert_eq!(load(None, &cache).id().unwrap(), "local-2");

        let folder = TempFolder::create().unwrap();
        let cache = self::cache(&folder);
        let mut made = load(None, &cache);
        let id = made.choose_id(&cache, "lab", &found).unwrap();
        let digits = id.strip_prefix("lab-").unwrap();
        assert!(digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        assert_eq!(load(None, &cache), made);
    }

    #[test]
    fn buckets_are_found_again_by_their_id_beside_what_others_recorded() {
        let folder = TempFolder::create().unwrap();
        let cache = cache(&folder);
        let sebs = br#"{"resources": {"resources_id": "local-1", "allocated_ports": [9000],
            "storage_buckets": {"benchmarks": "b", "unheard-of": "u"}}}"#;
        files::write(&cache.root().join("local.json"), sebs, Access::Everyone).unwrap();
        let mut resources = load(None, &cache);
        assert_eq!(resources.get_storage_bucket(StorageBucketType::Benchmarks), Some("b"));
        let name = resources.get_storage_bucket_name(StorageBucketType::Experiments).unwrap();
        assert_eq!(name, "sebs-experiments-local-1");
        resources.set_storage_bucket(StorageBucketType::Experiments, &name);
        resources.update_cache(&cache).unwrap();
        assert_eq!(load(None, &cache), resources);
        assert_eq!(resources.get_buckets(), ["b", "sebs-experiments-local-1"]);
        let record = cache.resources("local").unwrap();
        assert_eq!(record["allocated_ports"], json!([9000]));
        assert_eq!(record[BUCKETS], resources.serialize()[BUCKETS]);

        let mut other = load(Some("local-2"), &cache);
        assert_eq!(other.get_buckets(), [""; 0]);
        other.set_storage_bucket(StorageBucketType::Benchmarks, "theirs");
        other.update_cache(&cache).unwrap();
        assert_eq!(load(None, &cache), resources);

        resources.cleanup_deleted_buckets(&cache, &["b".to_string()]).unwrap();
        assert_eq!(resources.get_buckets(), ["sebs-experiments-local-1"]);
        assert_eq!(load(None, &cache), resources);
    }

    #[test]
    fn ports_are_the_caches_else_the_configured_ones_and_each_is_had_once() {
        let folder = TempFolder::create().unwrap();
        let cache = cache(&folder);
        let configured = json!({"resources_id": "mine", "allocated_ports": [9001, "x", 70000]});
        let deserialize = || Resources::deserialize("local", &configured, &cache).unwrap();
        let mut one = deserialize();
        assert_eq!((one.id().unwrap(), &one.allocated_ports), ("mine", &BTreeSet::from([9001])));
        let mut other = deserialize();
        assert!(one.allocate_port(&cache, 9002).unwrap());
        assert!(!other.allocate_port(&cache, 9002).unwrap());
        assert_eq!(deserialize().allocated_ports, BTreeSet::from([9002]));
        assert_eq!(deserialize().serialize()["allocated_ports"], json!([9002]));
        other.release_port(&cache, 9002).unwrap();
        other.release_port(&cache, 9002).unwrap();
        assert_eq!(load(None, &cache).allocated_ports, BTreeSet::new());
    }

    #[test]
    fn types_of_buckets_are_read_as_they_are_written() {
        for kind in StorageBucketType::ALL {
            assert_eq!(kind.name().parse::<StorageBucketType>().unwrap(), kind);
            assert_eq!(json!(kind), kind.name());
        }
        assert!("x".parse::<StorageBucketType>().unwrap_err().is_usage());
    }
}
