//! The configuration file: what an experiment is to be run with, in SeBS's words, every key optional.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::faas::{Architecture, FunctionConfig, FunctionImage, Runtime};
use crate::files;
use crate::storage::StorageFile;

/// What `--config` names, as far as it is understood here; other keys are left alone.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Configuration {
    /// How to run.
    #[serde(default)]
    pub experiments: ExperimentChoices,
    /// Where to run.
    #[serde(default)]
    pub deployment: DeploymentChoices,
}

/// How to run; what is `None` is left to the program.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ExperimentChoices {
    /// Build the code package even if nothing changed?
    pub update_code: Option<bool>,
    /// Upload input data even if they are there?
    pub update_storage: Option<bool>,
    /// Download what the function stored?
    pub download_results: Option<bool>,
    /// The architecture to build for.
    pub architecture: Option<Architecture>,
    /// `package` or `container`.
    pub system_variant: Option<String>,
    /// The older word for `"system_variant": "container"`.
    pub container_deployment: Option<bool>,
    /// What to run on.
    #[serde(default)]
    pub runtime: RuntimeChoices,
}

/// What to run on.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RuntimeChoices {
    /// Name of the language, which need not be one that is supported here: a flag may choose another.
    pub language: Option<String>,
    /// Version of the language.
    pub version: Option<String>,
    /// Variant of the benchmark's code.
    #[serde(rename = "language-variant")]
    pub variant: Option<String>,
}

/// Where to run.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DeploymentChoices {
    /// Name of the platform.
    pub name: Option<String>,
    /// What is chosen of the local platform.
    #[serde(default)]
    pub local: Option<LocalChoices>,
}

/// What is chosen of the local platform.
#[derive(Clone, Default, Deserialize)]
pub struct LocalChoices {
    /// What it is to use.
    #[serde(default)]
    pub resources: Option<ResourceChoices>,
    /// The storage that functions are to use, keys among what it may say; see [`Configuration::storage`].
    #[serde(default)]
    pub storage: Option<Value>,
}

/// What a platform is to use.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ResourceChoices {
    /// What sets the names of its resources apart from those of others: `local-0123abcd`.
    #[serde(default)]
    pub resources_id: Option<String>,
}

impl fmt::Debug for LocalChoices {
    /// Without the storage, which may have keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalChoices").field("resources", &self.resources).finish_non_exhaustive()
    }
}

impl Configuration {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// A usage error that names the file, and for a wrong value the line and column it stands at.
    pub fn read(path: &Path) -> Result<Configuration> {
        let text = files::read_text(path).map_err(|error| Error::usage(error.to_string()))?;
        let parsed = serde_json::from_str(&text).map_err(|error| Error::usage(error.to_string()));
        parsed.context(|| format!("failed to read the configuration `{}`", path.display()))
    }

    /// The id that sets the local platform's resources apart from those of others; `None` where none is chosen.
    pub fn resources_id(&self) -> Option<&str> {
        let id = self.deployment.local.as_ref()?.resources.as_ref()?.resources_id.as_deref()?;
        (!id.is_empty()).then_some(id)
    }

    /// The storage that the local platform's functions are to use, as far as the file says.
    ///
    /// # Errors
    /// A usage error that says what of it is wrong.
    pub fn storage(&self) -> Result<StorageFile> {
        let said = self.deployment.local.as_ref().and_then(|local| local.storage.as_ref());
        let read = said.filter(|said| !said.is_null()).map(StorageFile::from_value).transpose();
        Ok(read.context(|| "`deployment.local.storage` is not understood".to_string())?.unwrap_or_default())
    }

    /// Is the function to be baked into an image, by either word for it?
    pub fn wants_container(&self) -> bool {
        match &self.experiments.system_variant {
            Some(variant) => variant == "container",
            None => self.experiments.container_deployment == Some(true),
        }
    }
}

/// What an experiment was run with, as a result file holds it: SeBS's own reader asks for each of these keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResultConfig {
    /// Where it ran.
    pub deployment: Value,
    /// How it ran.
    pub experiments: ExperimentSettings,
    /// What the function's instances were given, and how they were invoked.
    #[serde(default)]
    pub function: Option<FunctionSettings>,
}

/// What the function's instances were given, and how they were invoked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FunctionSettings {
    /// Its limits, as they were in force.
    pub limits: FunctionConfig,
    /// SHA-256 of the code package.
    pub code_package_hash: String,
    /// The image that the package was baked into; `None`: it was mounted.
    #[serde(default)]
    pub container: Option<FunctionImage>,
    /// Names of the environment variables it was given; their values may be secrets.
    pub environment_names: Vec<String>,
    /// Did its containers have all capabilities?
    pub privileged: bool,
    /// The network of the engine's that its containers were put on; absent: the engine's default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Was one connection used for all invocations, rather than one for each?
    pub keep_alive: bool,
    /// How many invocations came before those recorded.
    pub warmup: u32,
    /// How many invocations were under way at a time.
    #[serde(default = "one")]
    pub concurrency: u32,
    /// The most instances that it had at a time; absent: as many as invocations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// Was each invocation to be a cold start?
    #[serde(default)]
    pub cold: bool,
}

fn one() -> u32 {
    1
}

/// How an experiment was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExperimentSettings {
    /// Was the code package built even if nothing had changed?
    pub update_code: bool,
    /// Were input data uploaded even if they were there?
    pub update_storage: bool,
    /// Was what the function stored downloaded?
    pub download_results: bool,
    /// Was the function baked into an image?
    pub container_deployment: bool,
    /// `package` or `container`.
    pub system_variant: String,
    /// The architecture it was built for.
    pub architecture: Architecture,
    /// What it ran on.
    pub runtime: Runtime,
    /// Switches of single experiments; none are known.
    #[serde(default)]
    pub flags: Value,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Access, TempFolder};

    fn read(text: &str) -> Result<Configuration> {
        let folder = TempFolder::create().unwrap();
        let path = folder.path().join("config.json");
        files::write(&path, text.as_bytes(), Access::Everyone).unwrap();
        Configuration::read(&path)
    }

    #[test]
    fn a_configuration_of_sebs_is_read_and_what_is_unknown_left_alone() {
        let configuration = read(
            r#"{"experiments": {"deployment": "local", "update_code": false, "architecture": "x64",
                 "container_deployment": true, "runtime": {"language": "python", "version": "3.9"},
                 "type": "invocation-overhead", "perf-cost": {"benchmark": "110.dynamic-html"}},
                 "deployment": {"name": "local", "aws": {"region": "us-east-1"},
                 "local": {"storage": {}, "resources": {"resources_id": "local-0123abcd"}}}}"#,
        )
        .unwrap();
        assert_eq!(configuration.experiments.update_code, Some(false));
        assert_eq!(configuration.experiments.runtime.language.as_deref(), Some("python"));
        assert!(configuration.wants_container());
        assert_eq!(configuration.deployment.name.as_deref(), Some("local"));
        assert_eq!(configuration.resources_id(), Some("local-0123abcd"));
        assert!(!read("{}").unwrap().wants_container());
        assert_eq!(configuration.storage().unwrap(), StorageFile::default());
        assert_eq!(read(r#"{"deployment": {"local": {"storage": {}}}}"#).unwrap().resources_id(), None);
    }

    #[test]
    fn storage_is_read_in_sebs_shape_and_not_shown() {
        let minio = r#"{"deployment": {"local": {"storage": {"object": {"type": "minio", "minio": {"mapped_port": 9011,
            "secret_key": "hush"}}}}}}"#;
        let configuration = read(minio).unwrap();
        assert_eq!(configuration.storage().unwrap().object.unwrap().mapped_port, Some(9011));
        assert!(!format!("{configuration:?}").contains("hush"));
        let empty =
            r#"{"deployment": {"local": {"storage": {"address": "", "mapped_port": -1, "secret_key": ""}}}}"#;
        assert_eq!(read(empty).unwrap().storage().unwrap(), StorageFile::default());
        let wrong = read(r#"{"deployment": {"local": {"storage": {"object": {"type": "redis"}}}}}"#).unwrap();
        let wrong = wrong.storage().unwrap_err();
        assert!(wrong.is_usage() && wrong.to_string().contains("deployment.local.storage"), "{wrong}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place() {
        let wrong = read("{\"experiments\": {\n\"update_code\": \"yes\"}}").unwrap_err();
        assert!(wrong.is_usage());
        assert!(wrong.to_string().contains("config.json") && wrong.to_string().contains("line 2"), "{wrong}");
        let unknown = read(r#"{"experiments": {"architecture": "mips"}}"#).unwrap_err().to_string();
        assert!(unknown.contains("mips") && unknown.contains("x64"), "{unknown}");
        assert!(Configuration::read(Path::new("/no/such/file")).unwrap_err().is_usage());
    }
}
