//! What of ours is on this machine and in its engine, and who needs it: looked up and judged, not changed.

mod judge;
mod look;
mod remove;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::cache::{Cache, RecordedFunction};
use crate::docker::Engine;
use crate::error::{Error, Result};

pub use remove::{Cleaned, CleanupRequest};

/// What a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// A container, of a function, a storage or a build.
    Container,
    /// What the cache records of a function that was kept.
    Function,
    /// A volume of the engine's.
    Volume,
    /// A network of the engine's.
    Network,
    /// A code package in the cache.
    Package,
    /// An image of a runtime, or with a function in it.
    Image,
}

impl ResourceKind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            ResourceKind::Container => "container",
            ResourceKind::Function => "function",
            ResourceKind::Volume => "volume",
            ResourceKind::Network => "network",
            ResourceKind::Package => "package",
            ResourceKind::Image => "image",
        }
    }
}

/// Who needs a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A command that runs, or a container.
    InUse,
    /// A file that names it.
    Kept,
    /// It cannot be told: whoever made it is of another host, or its file cannot be read.
    Unknown,
    /// Nobody, as far as it can be told: the file that is to name it is gone, or does not name it. It may have been moved.
    Orphan,
    /// Nobody now; it saves the next command time.
    Idle,
    /// Nobody: the command that it was made for is dead, or what it tells of is gone.
    Leftover,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::InUse => "in use",
            Standing::Kept => "kept",
            Standing::Unknown => "unknown",
            Standing::Orphan => "orphan",
            Standing::Idle => "idle",
            Standing::Leftover => "leftover",
        })
    }
}

/// A thing of ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FoundResource {
    /// What it is.
    pub kind: ResourceKind,
    /// The engine's id, or the path of a package; of a function its name.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Who needs it.
    pub standing: Standing,
    /// Why that is so, for people.
    pub reason: String,
    /// `running`, `exited`, …; `None`: it has no states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The network of the engine's that a container was put on; absent: its default one, or it is on none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// How long ago it was made, in seconds; `None`: nobody knows.
    pub age_s: Option<u64>,
    /// Bytes; `None`: the engine does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The containers that alone make it be in use, or that serve a function.
    #[serde(skip)]
    pub(super) containers: Vec<String>,
    /// What the cache says of a function.
    #[serde(skip)]
    pub(super) record: Option<RecordedFunction>,
}

impl FoundResource {
    /// Was this one meant? By its id, the first 12 digits of it or more, or its name.
    pub fn is_called(&self, text: &str) -> bool {
        const SHORTEST: usize = 12;
        let bare = self.id.strip_prefix("sha256:").unwrap_or(&self.id);
        let is_engines = !matches!(self.kind, ResourceKind::Function | ResourceKind::Package);
        let is_abbreviation = is_engines && text.len() >= SHORTEST && bare.starts_with(text);
        self.id == text || is_abbreviation || self.name.split(", ").any(|name| name == text)
    }
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Sorted by kind, then by name.
    pub items: Vec<FoundResource>,
}

impl Serialize for Inventory {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.items.serialize(serializer)
    }
}

impl Inventory {
    /// What of ours an engine has, whoever made it, and what a cache has. Nothing is changed.
    ///
    /// # Errors
    /// The engine does not answer, or the cache cannot be read.
    pub fn take(engine: &Engine, cache: &Cache) -> Result<Inventory> {
        let mut items = look::all(engine, cache)?;
        items.sort_by(|one, other| (one.kind, &one.name, &one.id).cmp(&(other.kind, &other.name, &other.id)));
        Ok(Inventory { items })
    }

    /// The names of containers that are in use and have one of those addresses in their environment.
    ///
    /// # Errors
    /// The engine does not answer.
    pub fn told_of(&self, addresses: &[&str], engine: &Engine) -> Result<Vec<String>> {
        let is_used =
            |item: &&FoundResource| item.kind == ResourceKind::Container && item.standing == Standing::InUse;
        let mut told = Vec::new();
        for item in self.items.iter().filter(is_used) {
            let found = match engine.inspect_container(&item.id) {
                Ok(found) => found,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let values = found.config.env.iter().filter_map(|variable| variable.split_once('='));
            if values.map(|(_, value)| value).any(|value| addresses.contains(&value)) {
                told.push(item.name.clone());
            }
        }
        Ok(told)
    }

    /// The things that those words mean, in the order of the inventory.
    ///
    /// # Errors
    /// A usage error: a word means none of them.
    fn called(&self, words: &[String]) -> Result<Vec<&FoundResource>> {
        for word in words {
            if !self.items.iter().any(|item| item.is_called(word)) {
                return Err(Error::usage(format!(
                    "nothing of ours is called `{word}`: `sebs-lite resources list` tells what there is"
                )));
            }
        }
        let is_called = |item: &&FoundResource| words.iter().any(|word| item.is_called(word));
        Ok(self.items.iter().filter(is_called).collect())
    }
}
