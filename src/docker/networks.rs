//! Networks: list, remove.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::Engine;
use super::call::escaped;
use crate::error::{Context, Result};

/// A network as the engine lists it (`GET /networks`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made: RFC 3339.
    pub created: String,
    /// Its labels.
    #[serde(deserialize_with = "super::api::null_as_default")]
    pub labels: BTreeMap<String, String>,
}

impl Engine {
    /// The networks that have all these labels, `name` or `name=value` each.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub fn list_networks(&self, labels: &[&str]) -> Result<Vec<Network>> {
        let filters = json!({ "label": labels });
        let list = || self.get("/networks").query_json("filters", &filters)?.send()?.json();
        list().context(|| "failed to list networks".to_string())
    }

    /// Removes a network. One that is not there is fine.
    ///
    /// # Errors
    /// When a container has joined it.
    pub fn remove_network(&self, id: &str) -> Result<()> {
        let remove = || self.delete(&format!("/networks/{}", escaped(id))).send()?.done();
        let removed = match remove() {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        };
        removed.context(|| format!("failed to remove network `{id}`"))
    }
}
