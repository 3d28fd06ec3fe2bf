//! `config.json` of a benchmark: what its author says it needs, read leniently and refused clearly.

use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::error::{Error, Kind, Result};
use crate::faas::Language;
use crate::files;

/// What `config.json` says. Keys that are not known here are ignored.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct BenchmarkConfig {
    /// Time-out of one invocation in seconds, at least 1; key `timeout`.
    #[serde(rename = "timeout", deserialize_with = "positive_seconds")]
    pub timeout_s: u64,
    /// Memory limit in MB of 2²⁰ bytes, at least 1; key `memory`.
    #[serde(rename = "memory", deserialize_with = "positive_megabytes")]
    pub memory_mb: u64,
    /// CPU limit in CPUs, above 0; `None`: none. A key that SeBS does not know.
    #[serde(default, deserialize_with = "positive_cpus")]
    pub cpus: Option<f64>,
    /// The languages it is written in, in the order of the file; some may not be supported here.
    pub languages: Vec<LanguageSupport>,
    /// `storage`, `nosql`: informative, for `input.py` has the last word.
    #[serde(default)]
    pub modules: Vec<String>,
}

/// One language that a benchmark is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageSupport {
    /// The name as the file has it: `python`, or one that is not supported here, such as `cpp`.
    pub name: String,
    /// Variants of the code, `default` among them unless the file leaves it out.
    pub variants: Vec<String>,
}

impl BenchmarkConfig {
    /// Time-out of a folder that has code and no `config.json`, in seconds.
    pub const DEFAULT_TIMEOUT_S: u64 = 300;
    /// Memory limit of a folder that has code and no `config.json`, in MB of 2²⁰ bytes.
    pub const DEFAULT_MEMORY_MB: u64 = 512;

    /// What holds for a folder that has code and no `config.json`.
    pub fn without_file(languages: &[Language]) -> BenchmarkConfig {
        let languages =
            languages.iter().map(|language| LanguageSupport::of_default_variant(language.name())).collect();
        BenchmarkConfig {
            timeout_s: BenchmarkConfig::DEFAULT_TIMEOUT_S,
            memory_mb: BenchmarkConfig::DEFAULT_MEMORY_MB,
            cpus: None,
            languages,
            modules: Vec::new(),
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file is not there, is not JSON, lacks a key or has a value of a wrong type; the path, the line and what
    /// would have been right are named.
    pub fn read(path: &Path) -> Result<BenchmarkConfig> {
        BenchmarkConfig::parse(&files::read_text(path)?, path)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<BenchmarkConfig> {
        serde_json::from_str(text).map_err(|error| {
            Error::from_source(
                Kind::Usage,
                format!("failed to read benchmark configuration `{}`", path.display()),
                error,
            )
        })
    }

    /// How the benchmark supports `language`, where it does.
    pub fn support(&self, language: Language) -> Option<&LanguageSupport> {
        self.languages.iter().find(|support| support.name == language.name())
    }

    /// The languages that are both in the file and supported here, in the file's order.
    pub fn supported_languages(&self) -> Vec<Language> {
        self.languages.iter().filter_map(|support| support.name.parse().ok()).collect()
    }
}

impl LanguageSupport {
    fn of_default_variant(name: &str) -> LanguageSupport {
        LanguageSupport { name: name.to_string(), variants: vec!["default".to_string()] }
    }
}

impl<'de> Deserialize<'de> for LanguageSupport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LanguageSupport, D::Error> {
        deserializer.deserialize_any(LanguageSupportVisitor)
    }
}

struct LanguageSupportVisitor;

impl<'de> Visitor<'de> for LanguageSupportVisitor {
    type Value = LanguageSupport;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a language such as "python" or {"language": "nodejs", "variants": ["default"]}"#)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<LanguageSupport, E> {
        Ok(LanguageSupport::of_default_variant(name))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LanguageSupport, A::Error> {
        let (mut name, mut variants) = (None::<String>, None::<Vec<String>>);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "language" => name = Some(map.next_value()?),
                "variants" => variants = Some(map.next_value()?),
                _ => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        let name = name.ok_or_else(|| de::Error::missing_field("language"))?;
        match variants {
            Some(variants) if !variants.is_empty() => Ok(LanguageSupport { name, variants }),
            _ => Ok(LanguageSupport::of_default_variant(&name)),
        }
    }
}

/// Takes an integer of at least 1; holds what is counted, for the error.
struct PositiveVisitor(&'static str);

impl Visitor<'_> for PositiveVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number of {}, at least 1", self.0)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        if value > 0 { Ok(value) } else { Err(E::invalid_value(de::Unexpected::Unsigned(value), &self)) }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        Err(E::invalid_value(de::Unexpected::Signed(value), &self))
    }
}

fn positive_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(PositiveVisitor("seconds for `timeout`"))
}

fn positive_megabytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(PositiveVisitor("MB for `memory`"))
}

fn positive_cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match Option::<f64>::deserialize(deserializer)? {
        Some(cpus) if cpus <= 0.0 || !cpus.is_finite() => Err(de::Error::invalid_value(
            de::Unexpected::Float(cpus),
            &"a number of CPUs for `cpus`, above 0",
        )),
        cpus => Ok(cpus),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BenchmarkConfig> {
        BenchmarkConfig::parse(text, Path::new("x/config.json"))
    }

    #[test]
    fn languages_may_be_names_or_objects_and_unknown_things_are_kept_or_ignored() {
        let config = parse(
            r#"{"timeout": 60, "memory": 256, "cpp_dependencies": ["sdk"], "modules": ["storage"], "cpus": 0.5,
                "languages": ["python", {"language": "nodejs", "variants": ["default", "bun"], "x": 1}, "cpp"]}"#,
        )
        .unwrap();
        assert_eq!((config.timeout_s, config.memory_mb, config.cpus), (60, 256, Some(0.5)));
        assert_eq!(config.modules, ["storage"]);
        let names: Vec<_> = config.languages.iter().map(|support| support.name.as_str()).collect();
        assert_eq!(names, ["python", "nodejs", "cpp"]);
        assert_eq!(config.support(Language::Nodejs).unwrap().variants, ["default", "bun"]);
        assert_eq!(config.support(Language::Python).unwrap().variants, ["default"]);
        assert_eq!(config.supported_languages(), [Language::Python, Language::Nodejs]);
    }

    #[test]
    fn an_error_names_the_path_the_line_the_key_and_what_would_have_been_right() {
        let cases = [
            ("{\n\"timeout\": 60,\n\"memory\": 128\n}", &["`languages`", "line 4"][..]),
            ("{\"memory\": 128, \"languages\": []}", &["`timeout`"]),
            ("{\"timeout\": \"60\"}", &["string \"60\"", "whole number of seconds for `timeout`", "line 1"]),
            ("{\"timeout\": 0}", &["at least 1"]),
            ("{\n\"memory\": -5}", &["`-5`", "whole number of MB", "line 2"]),
            ("{\"timeout\": 1, \"memory\": 1, \"languages\": [7]}", &["a language such as \"python\""]),
            ("{\"timeout\": 1, \"memory\": 1, \"cpus\": 0}", &["a number of CPUs"]),
            ("{\"timeout\": 60,,}", &["line 1 column 16"]),
        ];
        for (text, parts) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.is_usage());
            let shown = error.to_string();
            assert!(shown.contains("`x/config.json`"), "{shown}");
            for part in parts {
                assert!(shown.contains(part), "`{part}` is not in: {shown}");
            }
        }
    }
}
