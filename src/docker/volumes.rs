//! The life of a volume: create, inspect, list, remove.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use super::Engine;
use super::call::escaped;
use super::labels::{self, Labelled};
use crate::error::{Context, Result};

/// A volume as the engine holds it (`GET /volumes/{name}`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(deserialize_with = "super::api::null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// The folder of the engine's host that it is.
    pub mountpoint: String,
    /// When it was made: RFC 3339; empty: the engine does not tell.
    pub created_at: String,
}

/// A volume as a container sees it.
///
/// The engine makes one that is not there when it creates the container, even where it was removed after the creation
/// was asked for: with its labels it can be found again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeMount {
    /// The volume's name.
    pub name: String,
    /// Path in the container.
    pub target: String,
    /// The labels of a volume that is made.
    pub labels: BTreeMap<String, String>,
}

impl Serialize for VolumeMount {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let VolumeMount { name, target, labels } = self;
        json!({"Type": "volume", "Source": name, "Target": target, "VolumeOptions": {"Labels": labels}})
            .serialize(serializer)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeList {
    #[serde(default, deserialize_with = "super::api::null_as_default")]
    volumes: Vec<Volume>,
}

impl Labelled for Volume {
    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

impl Engine {
    /// Creates a volume of the engine's own disk. One of that name that is there already is left as it is, labels and
    /// all, and given back.
    ///
    /// # Errors
    /// When the name is none, or the volume belongs to another driver.
    pub fn create_volume(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Volume> {
        let volume = json!({"Name": name, "Labels": labels});
        let create = || self.post("/volumes/create").json(&volume)?.repeatable().fetch();
        create().context(|| format!("failed to create volume `{name}`"))
    }

    /// A volume as it is now.
    ///
    /// # Errors
    /// `is_not_found` when there is none of that name.
    pub fn inspect_volume(&self, name: &str) -> Result<Volume> {
        let inspect = || self.get(&path(name)).fetch();
        inspect().context(|| format!("failed to inspect volume `{name}`"))
    }

    /// The volumes that have all these labels, `name` or `name=value` each.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub fn list_volumes(&self, labels: &[&str]) -> Result<Vec<Volume>> {
        let list = || labels::filter(self.get("/volumes"), labels)?.fetch();
        let listed: VolumeList = labels::listed(list).context(|| "failed to list volumes".to_string())?;
        Ok(labels::with_all(listed.volumes, labels))
    }

    /// Removes a volume with all in it. One that is not there is fine.
    ///
    /// # Errors
    /// `is_conflict` when a container, running or not, has it.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let remove = || self.delete(&path(name)).perform();
        let removed = match remove() {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        };
        removed.context(|| format!("failed to remove volume `{name}`"))
    }
}

fn path(name: &str) -> String {
    format!("/volumes/{}", escaped(name))
}
