//! A platform's whole configuration: its name, its region, its credentials and its resources.

use serde_json::{Value, json};

use crate::cache::Cache;
use crate::error::{Error, Result};

use super::config::Resources;
use super::credentials::{CredentialName, Credentials};

/// What is fixed of a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Its name in configuration files: `local`.
    pub name: &'static str,
    /// The credentials that it needs; empty: none.
    pub credentials: &'static [CredentialName],
}

impl Platform {
    /// The one among `known` that has that name.
    ///
    /// # Errors
    /// A usage error that lists the known ones.
    pub fn named(name: &str, known: &[Platform]) -> Result<Platform> {
        known.iter().find(|platform| platform.name == name).copied().ok_or_else(|| {
            let known: Vec<String> = known.iter().map(|platform| format!("`{}`", platform.name)).collect();
            Error::usage(format!("platform `{name}` is not supported: it must be {}", known.join(" or ")))
        })
    }
}

/// The configuration of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The platform's name.
    pub name: String,
    /// The region; empty, where there is none.
    pub region: String,
    /// Never cached, and never shown.
    pub credentials: Credentials,
    /// What it has, by name.
    pub resources: Resources,
}

impl Config {
    /// From `configured`, the platform's object in a configuration file (null: there is none), from the environment and
    /// from the cache.
    ///
    /// # Errors
    /// A usage error: a credential is nowhere. The cache cannot be read.
    pub fn deserialize(
        platform: Platform,
        configured: &Value,
        cache: &Cache,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config> {
        let Platform { name, credentials } = platform;
        let below = |key: &str| configured.get(key).unwrap_or(&Value::Null);
        let resources = below("resources");
        // SeBS has the ports beside the resources.
        let mut resources = match resources {
            Value::Object(_) => resources.clone(),
            _ => json!({}),
        };
        if resources.get("allocated_ports").is_none() {
            resources["allocated_ports"] = below("allocated_ports").clone();
        }
        Ok(Config {
            name: name.to_string(),
            region: below("region").as_str().unwrap_or_default().to_string(),
            credentials: Credentials::deserialize(name, credentials, below("credentials"), environment)?,
            resources: Resources::deserialize(name, &resources, cache)?,
        })
    }

    /// What a result file says of the platform: `{"name", "region", "resources"}`, without any secret.
    pub fn serialize(&self) -> Value {
        json!({"name": self.name, "region": self.region, "resources": self.resources.serialize()})
    }

    /// Records in the cache what later commands need: the resources, and no credentials.
    ///
    /// # Errors
    /// The cache cannot be read or written.
    pub fn update_cache(&self, cache: &Cache) -> Result<()> {
        self.resources.update_cache(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::files::{self, TempFolder};

    const CLOUD: Platform = Platform {
        name: "cloud",
        credentials: &[CredentialName { key: "secret_key", variable: "CLOUD_SECRET_KEY" }],
    };

    #[test]
    fn a_configuration_is_written_to_the_cache_without_its_secrets_and_read_back() {
        let folder = TempFolder::create().unwrap();
        let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
        let configured = json!({
            "region": "here", "credentials": {"secret_key": "hush"}, "allocated_ports": [9000],
            "resources": {"resources_id": "cloud-1"},
        });
        let read = |configured: &Value| Config::deserialize(CLOUD, configured, &cache, &|_| None);
        let config = read(&configured).unwrap();
        assert_eq!(config.credentials.get("secret_key"), Some("hush"));
        assert_eq!(config.serialize()["resources"]["allocated_ports"], json!([9000]));
        assert_eq!(
            (&config.serialize()["name"], &config.serialize()["region"]),
            (&json!("cloud"), &json!("here"))
        );
        config.update_cache(&cache).unwrap();
        let text = files::read_text(&cache.root().join("cloud.json")).unwrap();
        assert!(text.contains("cloud-1") && !text.contains("hush"), "{text}");
        assert!(!config.serialize().to_string().contains("hush") && !format!("{config:?}").contains("hush"));
        let again = read(&json!({"credentials": {"secret_key": "hush"}})).unwrap();
        assert_eq!(again.resources.id().unwrap(), "cloud-1");
        assert!(read(&Value::Null).unwrap_err().is_usage());
    }

    #[test]
    fn an_unknown_platform_is_an_error_that_lists_the_known() {
        let other = Platform { name: "other", credentials: &[] };
        assert_eq!(Platform::named("other", &[CLOUD, other]).unwrap(), other);
        let error = Platform::named("aws", &[CLOUD, other]).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("`cloud` or `other`"), "{error}");
    }
}
