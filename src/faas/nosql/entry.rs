//! What the cache knows of a benchmark's tables: `{"scylladb": {"nosql": {"tables": {…}, "instance_id": …}}}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cache::{Cache, StorageKey};
use crate::error::Result;

/// One benchmark's tables, true only of the storage that is named.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The real name of each, by the name that the benchmark gives it.
    pub(super) tables: BTreeMap<String, String>,
    /// Identity of the storage; absent in what SeBS wrote, which is true of no storage that is known.
    #[serde(default)]
    pub(super) instance_id: String,
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
}

fn key<'a>(deployment: &'a str, benchmark: &'a str) -> StorageKey<'a> {
    StorageKey { benchmark, deployment, part: "nosql" }
}
