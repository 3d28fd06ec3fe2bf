//! What `experiments.json` holds: every invocation of an experiment, what it was run with, and on what machine.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::docker::Limit;
use crate::faas::ExecutionResult;
use crate::host::Host;

use super::config::ResultConfig;
use super::memory::Measurement;
use super::storage::StorageUsed;

/// The version of the file's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of an experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExperimentResult {
    /// Function -> request id -> invocation, in the order they were made.
    #[serde(rename = "_invocations")]
    pub invocations: Ordered<Ordered<ExecutionResult>>,
    /// Metrics of the platform, by function.
    #[serde(rename = "_metrics", default)]
    pub metrics: serde_json::Map<String, serde_json::Value>,
    /// When the experiment began, in seconds since 1970-01-01 UTC.
    pub begin_time: f64,
    /// When its last invocation so far had ended.
    pub end_time: f64,
    /// The bucket with what was stored; none without storage.
    pub result_bucket: Option<String>,
    /// What it was run with.
    pub config: ResultConfig,
    /// The version of this shape.
    #[serde(default)]
    pub schema_version: u32,
    /// The machine it ran on.
    #[serde(default)]
    pub environment: Environment,
    /// How memory was sampled; absent where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measurement: Option<Measurement>,
}

/// The machine and the parts that an experiment ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// The machine.
    #[serde(flatten)]
    pub host: Host,
    /// Name of the engine: `Docker`, `Podman`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Version of the engine.
    pub engine_version: Option<String>,
    /// Does the engine run without root's rights? Absent: not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_engine_rootless: Option<bool>,
    /// What of a container the engine cannot limit: what the configuration says of these was not in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits_not_set: Vec<Limit>,
    /// Id of the runtime image.
    pub image_id: Option<String>,
    /// Where that image came from: `pulled`, `built`, `host`, …
    pub image_source: Option<String>,
    /// The interpreter in it, by its own words.
    pub interpreter: Option<String>,
    /// The C library in it.
    pub libc: Option<String>,
    /// The storage that functions used; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageUsed>,
    /// Version of this tool; `git describe` where it was built from a checkout.
    pub tool: Option<String>,
}

impl ExperimentResult {
    /// A result without any invocation, that begins now.
    pub fn begin(config: ResultConfig, environment: Environment, begin_time: f64) -> ExperimentResult {
        ExperimentResult {
            invocations: Ordered::default(),
            metrics: serde_json::Map::new(),
            begin_time,
            end_time: begin_time,
            result_bucket: None,
            config,
            schema_version: SCHEMA_VERSION,
            environment,
            measurement: None,
        }
    }

    /// Adds an invocation of a function under its request id; a failed one without an id is `failed-<n>`, n counting
    /// from those already here.
    pub fn add_invocation(&mut self, function: &str, mut result: ExecutionResult, end_time: f64) {
        self.end_time = end_time;
        let invocations = self.invocations.entry(function);
        if result.request_id.is_empty() {
            let failed = invocations.0.iter().filter(|(id, _)| id.starts_with("failed-")).count();
            result.request_id = format!("failed-{failed}");
        }
        if invocations.get(&result.request_id).is_some() {
            // A server that gives an id twice costs no result.
            result.request_id = format!("{}-{}", result.request_id, invocations.0.len());
        }
        invocations.0.push((result.request_id.clone(), result));
    }

    /// All invocations of a function, in the order they were made.
    pub fn invocations_of(&self, function: &str) -> impl Iterator<Item = &ExecutionResult> {
        self.invocations.get(function).into_iter().flat_map(Ordered::values)
    }
}

/// A JSON object that keeps its order; few enough entries to be looked through.
#[derive(Clone, Debug)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Ordered<T> {
        Ordered(Vec::new())
    }
}

impl<T> Ordered<T> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The values, in order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values, in order, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    fn entry(&mut self, key: &str) -> &mut T
    where
        T: Default,
    {
        let at = self.0.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            self.0.push((key.to_string(), T::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ordered<T>, D::Error> {
        struct Entries<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Ordered<T>, M::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}
