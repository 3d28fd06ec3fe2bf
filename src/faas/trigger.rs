//! By which way a function is invoked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A way to invoke functions; read whatever the case, written in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TriggerType {
    /// A request over HTTP.
    Http,
    /// A call through the platform's own library.
    Library,
    /// An object that appears in storage.
    Storage,
}

impl TriggerType {
    /// The name in files: `HTTP`.
    pub fn name(self) -> &'static str {
        match self {
            TriggerType::Http => "HTTP",
            TriggerType::Library => "LIBRARY",
            TriggerType::Storage => "STORAGE",
        }
    }
}

impl fmt::Display for TriggerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TriggerType {
    type Err = Error;

    fn from_str(text: &str) -> Result<TriggerType, Error> {
        let all = [TriggerType::Http, TriggerType::Library, TriggerType::Storage];
        let found = all.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            Error::usage(format!("trigger `{text}` is not known: it must be `http`, `library` or `storage`"))
        })
    }
}

impl TryFrom<String> for TriggerType {
    type Error = Error;

    fn try_from(text: String) -> Result<TriggerType, Error> {
        text.parse()
    }
}

impl From<TriggerType> for String {
    fn from(kind: TriggerType) -> String {
        kind.name().to_string()
    }
}

/// One way to invoke one function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Which way.
    #[serde(rename = "type")]
    pub kind: TriggerType,
    /// Where: `172.17.0.2:9000`.
    pub url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_is_read_whatever_the_case_and_written_in_capitals() {
        let trigger: Trigger = serde_json::from_str(r#"{"type": "http", "url": "1.2.3.4:5"}"#).unwrap();
        assert_eq!(trigger.kind, TriggerType::Http);
        assert_eq!(serde_json::to_string(&trigger).unwrap(), r#"{"type":"HTTP","url":"1.2.3.4:5"}"#);
        let unknown = "carrier-pigeon".parse::<TriggerType>().unwrap_err();
        assert!(unknown.is_usage() && unknown.to_string().contains("`http`"));
    }
}
