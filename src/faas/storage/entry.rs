//! What the cache knows of a benchmark's prefixes: `{"minio": {"storage": {"buckets": {…}, "instance_id": …}}}`.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cache::{Cache, StorageKey};
use crate::error::Result;

/// One benchmark's prefixes, true only of the storage and bucket that are named.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The prefixes.
    pub(super) buckets: Prefixes,
    /// Identity of the storage; absent in what SeBS wrote, which is true of no storage that is known.
    #[serde(default)]
    pub(super) instance_id: String,
    /// The bucket that they are in, which another resources id has not.
    #[serde(default)]
    pub(super) bucket: String,
}

/// A benchmark's prefixes, under SeBS's keys.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Prefixes {
    pub(super) input: Vec<String>,
    pub(super) output: Vec<String>,
    /// Has all input been uploaded?
    pub(super) input_uploaded: bool,
}

impl Entry {
    /// What is recorded; `None`: nothing, or nothing that can be understood.
    pub(super) fn read(cache: &Cache, deployment: &str, benchmark: &str) -> Result<Option<Entry>> {
        let found = cache.storage(&key(deployment, benchmark))?;
        Ok(found.and_then(|value| Entry::deserialize(value).ok()))
    }

    pub(super) fn write(&self, cache: &Cache, deployment: &str, benchmark: &str) -> Result<()> {
        cache.change_storage(&key(deployment, benchmark), |value| *value = json!(self))
    }

    /// Is it true of that storage and bucket?
    pub(super) fn is_of(&self, identity: &str, bucket: &str) -> bool {
        self.instance_id == identity && self.bucket == bucket
    }

    /// Have the inputs below all those prefixes been uploaded?
    pub(super) fn has_uploaded(&self, inputs: &[String]) -> bool {
        self.buckets.input_uploaded && inputs.iter().all(|prefix| self.buckets.input.contains(prefix))
    }
}

fn key<'a>(deployment: &'a str, benchmark: &'a str) -> StorageKey<'a> {
    StorageKey { benchmark, deployment, part: "storage" }
}
