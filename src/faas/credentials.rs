//! A platform's credentials: from its configuration, else from the environment, else an error that names both.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What stands in place of a secret where one is shown.
const STRUCK_OUT: &str = "***";

/// One credential that a platform needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialName {
    /// Its key below `credentials` in the platform's configuration: `access_key`.
    pub key: &'static str,
    /// The environment variable that is looked at where the configuration has none: `AWS_ACCESS_KEY_ID`.
    pub variable: &'static str,
}

/// The values of all credentials that a platform needs. They are never cached.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<&'static str, String>);

impl Credentials {
    /// Looks for each of `names` in `configured`, an object, then by `environment`. An empty text is none.
    ///
    /// # Errors
    /// A usage error that names all that are nowhere, and where each could be.
    pub fn deserialize(
        platform: &str,
        names: &[CredentialName],
        configured: &Value,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Credentials> {
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for CredentialName { key, variable } in names {
            let from_file = configured.get(key).and_then(Value::as_str).map(str::to_string);
            let is_something = |value: &String| !value.is_empty();
            let value = from_file.filter(is_something).or_else(|| environment(variable).filter(is_something));
            match value {
                Some(value) => drop(found.insert(*key, value)),
                None => missing.push(format!(
                    "`{key}` (configure `deployment.{platform}.credentials.{key}`, or set {variable})"
                )),
            }
        }
        if missing.is_empty() {
            return Ok(Credentials(found));
        }
        let missing = missing.join(", ");
        Err(Error::usage(format!("platform `{platform}` has no credentials: it needs {missing}")))
    }

    /// The value of one of them; `None`: the platform has no such.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Their keys, with the values struck out: all that may be shown or saved.
    pub fn serialize(&self) -> Value {
        let keys: Map<String, Value> =
            self.0.keys().map(|key| (key.to_string(), json!(STRUCK_OUT))).collect();
        Value::Object(keys)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.serialize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [CredentialName; 2] = [
        CredentialName { key: "access_key", variable: "CLOUD_ACCESS_KEY" },
        CredentialName { key: "secret_key", variable: "CLOUD_SECRET_KEY" },
    ];

    fn environment(name: &str) -> Option<String> {
        match name {
            "CLOUD_ACCESS_KEY" => Some("env-access".to_string()),
            "CLOUD_SECRET_KEY" => Some("env-secret".to_string()),
            _ => None,
        }
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn the_configuration_comes_before_the_environment() {
        let configured = json!({"access_key": "mine", "secret_key": ""});
        let credentials = Credentials::deserialize("cloud", &NAMES, &configured, &environment).unwrap();
        assert_eq!(credentials.get("access_key"), Some("mine"));
        assert_eq!(credentials.get("secret_key"), Some("env-secret"));
        assert_eq!(credentials.get("region"), None);
        assert_eq!(credentials.serialize(), json!({"access_key": "***", "secret_key": "***"}));
        let shown = format!("{credentials:?}");
        assert!(!shown.contains("mine") && !shown.contains("env-secret"), "{shown}");
    }

    #[test]
    fn what_is_nowhere_is_named_with_where_it_could_be() {
        let configured = json!({"access_key": "mine"});
        let error = Credentials::deserialize("cloud", &NAMES, &configured, &nothing).unwrap_err();
        let told = error.to_string();
        assert!(error.is_usage() && !told.contains("mine") && !told.contains("access_key"), "{told}");
        assert!(
            told.contains("deployment.cloud.credentials.secret_key") && told.contains("CLOUD_SECRET_KEY")
        );
        let none = Credentials::deserialize("local", &[], &Value::Null, &nothing).unwrap();
        assert_eq!(none.serialize(), json!({}));
    }
}
