//! A deployed benchmark: its configuration, its instances and its triggers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

use super::language::{Architecture, Runtime};
use super::package::CodePackage;
use super::trigger::{Trigger, TriggerType};

/// How many processes and threads an instance may have, unless its configuration says otherwise.
pub const DEFAULT_PIDS_LIMIT: u64 = 1024;

/// What an instance of a function is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionConfig {
    /// The longest an invocation may take, in seconds; 0: no limit.
    pub timeout: u64,
    /// Memory limit in MB of 2²⁰ bytes; 0: no limit.
    pub memory: u64,
    /// What it runs on.
    pub runtime: Runtime,
    /// What it runs on.
    #[serde(default = "x64")]
    pub architecture: Architecture,
    /// CPU limit in CPUs; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// CPUs it may run on, as the kernel lists them: `0-1,3`; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    /// The most processes and threads.
    #[serde(default = "default_pids_limit")]
    pub pids_limit: u64,
}

fn x64() -> Architecture {
    Architecture::X64
}

fn default_pids_limit() -> u64 {
    DEFAULT_PIDS_LIMIT
}

impl FunctionConfig {
    /// What the benchmark's own configuration asks for.
    pub fn from_package(package: &CodePackage) -> FunctionConfig {
        FunctionConfig {
            timeout: package.timeout_s,
            memory: package.memory_mb,
            runtime: package.runtime.clone(),
            architecture: package.architecture,
            cpus: package.cpus,
            cpuset: None,
            pids_limit: DEFAULT_PIDS_LIMIT,
        }
    }
}

/// One copy of a function, which serves one invocation at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The platform's id of it: locally the container's.
    pub instance_id: String,
    /// Address and port to invoke it at: `172.17.0.2:9000`.
    pub url: String,
    /// The port in `url`.
    pub port: u16,
    /// The platform's count of enforced cold starts when it was started; absent where nobody counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start_counter: Option<u64>,
}

/// A deployed benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Name of the function.
    pub name: String,
    /// Name of the benchmark.
    pub benchmark: String,
    /// Hash of the code package that its instances run.
    pub code_package_hash: String,
    /// What each instance is given.
    pub config: FunctionConfig,
    /// Its copies.
    pub instances: Vec<Instance>,
    /// The ways to invoke it.
    pub triggers: Vec<Trigger>,
    /// Was its code replaced since it was looked up?
    pub updated_code: bool,
}

impl Function {
    /// The triggers of one type.
    pub fn triggers(&self, kind: TriggerType) -> Vec<&Trigger> {
        self.triggers.iter().filter(|trigger| trigger.kind == kind).collect()
    }

    /// All triggers.
    pub fn triggers_all(&self) -> &[Trigger] {
        &self.triggers
    }

    /// Adds a way to invoke it; one that it has already is not added again.
    pub fn add_trigger(&mut self, trigger: Trigger) {
        if !self.triggers.contains(&trigger) {
            self.triggers.push(trigger);
        }
    }

    /// The function that a record in the cache describes.
    ///
    /// # Errors
    /// The record is not understood.
    pub(crate) fn deserialize_record(record: Value) -> Result<Function> {
        serde_json::from_value(record).map_err(|error| Error::new(error.to_string()))
    }
}

/// The JSON of a function: SeBS describes one instance beside the function's own keys, so those describe the first.
#[derive(Serialize, Deserialize)]
struct FunctionRecord {
    name: String,
    benchmark: String,
    hash: String,
    config: FunctionConfig,
    #[serde(default)]
    triggers: Vec<Trigger>,
    #[serde(default)]
    instance_id: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    instances: Vec<Instance>,
}

impl Serialize for Function {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let first = self.instances.first();
        FunctionRecord {
            name: self.name.clone(),
            benchmark: self.benchmark.clone(),
            hash: self.code_package_hash.clone(),
            config: self.config.clone(),
            triggers: self.triggers.clone(),
            instance_id: first.map(|instance| instance.instance_id.clone()).unwrap_or_default(),
            url: first.map(|instance| instance.url.clone()).unwrap_or_default(),
            port: first.map(|instance| instance.port).unwrap_or_default(),
            instances: self.instances.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Function {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Function, D::Error> {
        let mut record = FunctionRecord::deserialize(deserializer)?;
        if record.instances.is_empty() && !record.instance_id.is_empty() {
            record.instances = vec![Instance {
                instance_id: record.instance_id,
                url: record.url,
                port: record.port,
                cold_start_counter: None,
            }];
        }
        Ok(Function {
            name: record.name,
            benchmark: record.benchmark,
            code_package_hash: record.hash,
            config: record.config,
            instances: record.instances,
            triggers: record.triggers,
            updated_code: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faas::language::Language;

    #[test]
    fn a_record_of_sebs_becomes_a_function_with_one_instance() {
        let record = r#"{"benchmark": "110.dynamic-html", "name": "f", "hash": "abc", "instance_id": "0123",
            "url": "172.17.0.2:9000", "port": 9000, "triggers": [{"type": "HTTP", "url": "172.17.0.2:9000"}],
            "config": {"timeout": 10, "memory": 128, "architecture": "x64",
                       "runtime": {"language": "python", "version": "3.11"}}}"#;
        let function: Function = serde_json::from_str(record).unwrap();
        assert_eq!(function.instances[0].instance_id, "0123");
        assert_eq!(function.config.runtime.language, Language::Python);
        assert_eq!(function.config.runtime.variant, "default");
        assert_eq!(function.triggers(TriggerType::Http).len(), 1);
        assert!(function.triggers(TriggerType::Storage).is_empty());
        let mut function = function;
        function.add_trigger(function.triggers[0].clone());
        assert_eq!(function.triggers_all().len(), 1);
        let written = serde_json::to_value(&function).unwrap();
        assert_eq!(written["instance_id"], "0123");
        assert_eq!(written["config"]["runtime"]["language-variant"], "default");
        assert_eq!(serde_json::from_value::<Function>(written).unwrap(), function);
    }
}
