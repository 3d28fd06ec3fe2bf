//! What configuration files and `storage.json` say of storage: which engine, where it is, and the keys to it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Context, Error, Result};
use crate::files::{self, Access};

/// What stands in place of a secret where one is shown.
const STRUCK_OUT: &str = "***";

/// The two kinds of storage that a benchmark may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// Buckets of objects, over S3.
    Object,
    /// Tables of items, over DynamoDB's protocol.
    Nosql,
}

/// Which program stores, as the key `type` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineType {
    /// The first of those that can be had here.
    #[default]
    Auto,
    /// MinIO.
    Minio,
    /// SeaweedFS.
    SeaweedFs,
    /// An S3 endpoint that is not ours to start.
    S3,
    /// ScyllaDB with its Alternator.
    ScyllaDb,
    /// dynoxide.
    Dynoxide,
    /// A DynamoDB endpoint that is not ours to start.
    DynamoDb,
}

/// One storage: how it is to be started, and where it is when it has been. In JSON, SeBS's keys and ours.
///
/// Without an `address` it is yet to be started.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StorageConfig {
    /// Which engine.
    #[serde(rename = "type", default)]
    pub engine: EngineType,
    /// The port of 127.0.0.1 that it is published at; `None` (in JSON also -1): the container engine chooses.
    #[serde(default, deserialize_with = "port")]
    pub mapped_port: Option<u16>,
    /// The image's tag; `None`: the one that is known to work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The whole name of the image; `None`: the engine's own with `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Where the data are: for object storage a folder of this host, for tables the name of a volume; `None`: a volume
    /// that lives as long as the storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_volume: Option<String>,
    /// Is `data_volume` a volume that was made for this storage and goes with it?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub owns_volume: bool,
    /// How many CPUs it may use, for ScyllaDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// How much memory it may use in MB, for ScyllaDB; in JSON a number or a text.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "megabytes")]
    pub memory: Option<u64>,
    /// The network of the engine's that it is started on, or that `address` is on; `None`: the default one.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `host:port` that functions use; empty in JSON, where it has not been started.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `host:port` that this program uses; `None`: `address`.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub host_address: Option<String>,
    /// The access key id.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
    /// The secret key; not part of what `Debug` shows.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
    /// Id of its container; `None`: it has none that is known.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The region that signatures name.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// ScyllaDB's port inside its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternator_port: Option<u16>,
    /// The prefixes of inputs that SeBS has in its own files.
    #[serde(default)]
    pub input_buckets: Vec<String>,
    /// The prefixes of outputs that SeBS has in its own files.
    #[serde(default)]
    pub output_buckets: Vec<String>,
    /// Is its container removed when it is stopped? `None`: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_containers: Option<bool>,
}

/// What a file says of both kinds of storage: `{"object": {"type": T, T: {…}}, "nosql": {"type": T, T: {…}}}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageFile {
    /// Object storage; `None`: nothing is said of it.
    pub object: Option<StorageConfig>,
    /// Tables; `None`: nothing is said of them.
    pub nosql: Option<StorageConfig>,
}

impl StorageKind {
    /// Both, in the order in which they are shown.
    pub const ALL: [StorageKind; 2] = [StorageKind::Object, StorageKind::Nosql];

    /// The word for it in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            StorageKind::Object => "object",
            StorageKind::Nosql => "nosql",
        }
    }
}

impl fmt::Display for StorageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl EngineType {
    /// All, in the order in which they are named to the user.
    pub const ALL: [EngineType; 7] = [
        EngineType::Auto,
        EngineType::Minio,
        EngineType::SeaweedFs,
        EngineType::S3,
        EngineType::ScyllaDb,
        EngineType::Dynoxide,
        EngineType::DynamoDb,
    ];

    /// The word for it in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            EngineType::Auto => "auto",
            EngineType::Minio => "minio",
            EngineType::SeaweedFs => "seaweedfs",
            EngineType::S3 => "s3",
            EngineType::ScyllaDb => "scylladb",
            EngineType::Dynoxide => "dynoxide",
            EngineType::DynamoDb => "dynamodb",
        }
    }

    /// What it stores; `None`: either.
    pub fn kind(self) -> Option<StorageKind> {
        match self {
            EngineType::Auto => None,
            EngineType::Minio | EngineType::SeaweedFs | EngineType::S3 => Some(StorageKind::Object),
            EngineType::ScyllaDb | EngineType::Dynoxide | EngineType::DynamoDb => Some(StorageKind::Nosql),
        }
    }

    /// Is it an endpoint that is there already, and not ours to start or stop?
    pub fn is_external(self) -> bool {
        matches!(self, EngineType::S3 | EngineType::DynamoDb)
    }
}

impl fmt::Display for EngineType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EngineType {
    type Err = Error;

    fn from_str(name: &str) -> Result<EngineType> {
        EngineType::ALL.into_iter().find(|engine| engine.name() == name).ok_or_else(|| {
            let known = EngineType::ALL.map(EngineType::name).join(", ");
            Error::usage(format!("storage `{name}` is not known: it must be one of {known}"))
        })
    }
}

impl fmt::Debug for StorageConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageConfig({})", self.without_secrets())
    }
}

impl StorageConfig {
    /// A storage of that engine which is yet to be started, with nothing else chosen.
    pub fn of(engine: EngineType) -> StorageConfig {
        StorageConfig { engine, ..StorageConfig::default() }
    }

    /// Has it been started, or is it an endpoint that is there already?
    pub fn is_running(&self) -> bool {
        self.address.is_some()
    }

    /// `host:port` that this program uses; `None`: it is not running.
    pub fn tool_address(&self) -> Option<&str> {
        self.host_address.as_deref().or(self.address.as_deref())
    }

    /// What tells this storage from others, so that what is remembered of one is not taken for true of another; `None`: it
    /// is not running.
    pub fn identity(&self) -> Option<String> {
        match (&self.instance_id, &self.address) {
            (Some(id), Some(_)) => Some(id.clone()),
            (None, Some(address)) => Some(format!("{}:{address}", self.engine)),
            (_, None) => None,
        }
    }

    /// Is that the id of its container, or the name of a volume of its own?
    pub(crate) fn names(&self, name: &str) -> bool {
        self.instance_id.as_deref() == Some(name)
            || (self.owns_volume && self.data_volume.as_deref() == Some(name))
    }

    /// Its JSON, flat, with its keys struck out.
    pub fn without_secrets(&self) -> Value {
        let mut value = json!(self);
        for key in ["access_key", "secret_key"] {
            if let Some(key) = value.get_mut(key) {
                *key = json!(STRUCK_OUT);
            }
        }
        value
    }
}

impl StorageFile {
    /// Reads a file such as `storage start` writes, or as configures it.
    ///
    /// # Errors
    /// A usage error that names the file and what in it is wrong.
    pub fn read(path: &Path) -> Result<StorageFile> {
        let about = || format!("failed to read the storage configuration `{}`", path.display());
        let text = files::read_text(path).map_err(|error| Error::usage(error.to_string())).context(about)?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| Error::usage(error.to_string())).context(about)?;
        StorageFile::from_value(&value).context(about)
    }

    /// What a JSON value says: both kinds by name, or one storage flat. A flat one whose `address` is empty means none, as
    /// in SeBS's example configuration.
    ///
    /// # Errors
    /// A usage error that says what is wrong.
    pub fn from_value(value: &Value) -> Result<StorageFile> {
        let wrong = |why: &str| {
            Error::usage(format!(
                "{why}: write {{\"object\": {{\"type\": \"minio\", \"minio\": {{…}}}}, \"nosql\": {{\"type\": \"scylladb\", …}}}}"
            ))
        };
        let Value::Object(map) = value else { return Err(wrong("a storage configuration is an object")) };
        let mut file = StorageFile::default();
        if map.contains_key("object") || map.contains_key("nosql") {
            for kind in StorageKind::ALL {
                match map.get(kind.name()) {
                    None | Some(Value::Null) => {}
                    Some(Value::Object(inner)) => *file.place(kind) = Some(one(inner, kind)?),
                    Some(_) => return Err(wrong(&format!("`{kind}` is not an object"))),
                }
            }
            return Ok(file);
        }
        if map.is_empty() {
            return Ok(file);
        }
        let named = map.get("type").and_then(Value::as_str);
        let engine = named.map_or(Ok(EngineType::Minio), str::parse)?;
        let kind = engine.kind().ok_or_else(|| wrong("type `auto` does not say which kind of storage"))?;
        let config = one(map, kind)?;
        if named.is_some() || config.is_running() {
            *file.place(kind) = Some(StorageConfig { engine, ..config });
        }
        Ok(file)
    }

    /// What is said of one kind.
    pub fn of(&self, kind: StorageKind) -> Option<&StorageConfig> {
        match kind {
            StorageKind::Object => self.object.as_ref(),
            StorageKind::Nosql => self.nosql.as_ref(),
        }
    }

    /// Each kind of which something is said.
    pub fn kinds(&self) -> impl Iterator<Item = (StorageKind, &StorageConfig)> {
        StorageKind::ALL.into_iter().filter_map(|kind| Some((kind, self.of(kind)?)))
    }

    /// Where one kind stands.
    pub fn place(&mut self, kind: StorageKind) -> &mut Option<StorageConfig> {
        match kind {
            StorageKind::Object => &mut self.object,
            StorageKind::Nosql => &mut self.nosql,
        }
    }

    /// Takes over what this does not say from another.
    pub fn or(mut self, other: StorageFile) -> StorageFile {
        for kind in StorageKind::ALL {
            if self.of(kind).is_none() {
                *self.place(kind) = other.of(kind).cloned();
            }
        }
        self
    }

    /// Writes the file, which only its owner may read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{:#}\n", self.to_value(|config| json!(config)));
        files::write(path, text.as_bytes(), Access::Owner)
    }

    /// The JSON, with keys struck out.
    pub fn without_secrets(&self) -> Value {
        self.to_value(StorageConfig::without_secrets)
    }

    fn to_value(&self, show: impl Fn(&StorageConfig) -> Value) -> Value {
        let mut map = Map::new();
        map.insert("schema_version".to_string(), json!(1));
        for kind in StorageKind::ALL {
            if let Some(config) = self.of(kind) {
                let name = config.engine.name();
                map.insert(kind.name().to_string(), json!({"type": name, name: show(config)}));
            }
        }
        Value::Object(map)
    }
}

/// One storage, whose own keys stand below its type's name or beside it.
fn one(map: &Map<String, Value>, kind: StorageKind) -> Result<StorageConfig> {
    let named = match map.get("type") {
        Some(Value::String(name)) => Some(name.parse::<EngineType>()?),
        None => None,
        Some(_) => return Err(Error::usage(format!("`type` of `{kind}` storage is not a text"))),
    };
    // Without a type, the one key that names an engine does.
    let engine = named
        .or_else(|| EngineType::ALL.into_iter().find(|engine| map.contains_key(engine.name())))
        .unwrap_or_default();
    if engine.kind().is_some_and(|of_engine| of_engine != kind) {
        return Err(Error::usage(format!("`{engine}` is no engine for `{kind}` storage")));
    }
    let inner = map.get(engine.name()).cloned().unwrap_or_else(|| Value::Object(map.clone()));
    let about = || format!("`{engine}` of `{kind}` storage is not understood");
    let mut inner = match inner {
        Value::Object(inner) => inner,
        _ => return Err(Error::usage("it is not an object")).context(about),
    };
    inner.insert("type".to_string(), json!(engine));
    let config = StorageConfig::deserialize(Value::Object(inner))
        .map_err(|error| Error::usage(error.to_string()))
        .context(about)?;
    if engine.is_external() && !config.is_running() {
        return Err(Error::usage(format!("`{engine}` needs an `address`, host:port, where it is")));
    }
    Ok(config)
}

/// A text that says something.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<String>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        // Not shown: it may be a key.
        Some(_) => Err(serde::de::Error::custom("addresses, networks, keys, ids and regions are texts")),
    }
}

/// A port; SeBS writes -1 where there is none.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<u16>, D::Error> {
    match Option::<i64>::deserialize(deserializer)? {
        None | Some(-1 | 0) => Ok(None),
        Some(port) => u16::try_from(port).map(Some).map_err(|_| {
            serde::de::Error::custom(format!("port {port} is none: it must be 1 to 65535, or -1"))
        }),
    }
}

/// A whole number of MB, as a number or as a text.
fn megabytes<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<u64>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    let wrong = |value: &Value| serde::de::Error::custom(format!("memory {value} is no number of MB"));
    match &value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => number.as_u64().map(Some).ok_or_else(|| wrong(&json!(number))),
        Some(Value::String(text)) => text.trim().parse().map(Some).map_err(|_| wrong(&json!(text))),
        Some(other) => Err(wrong(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StorageFile> {
        StorageFile::from_value(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn sebs_shape_is_read_and_written_with_its_keys() {
        let file = parse(
            r#"{"object": {"type": "minio", "minio": {"mapped_port": 9011, "version": "R", "data_volume": "minio-volume"}},
                "nosql": {"type": "scylladb", "scylladb": {"mapped_port": -1, "version": "6.0", "cpus": 1, "memory": "750",
                "data_volume": "scylladb-volume", "unknown": 1}}}"#,
        )
        .unwrap();
        let (object, nosql) = (file.object.clone().unwrap(), file.nosql.clone().unwrap());
        assert_eq!((object.engine, object.mapped_port), (EngineType::Minio, Some(9011)));
        assert_eq!((nosql.memory, nosql.mapped_port, nosql.cpus), (Some(750), None, Some(1)));
        assert!(!object.is_running());
        let written = file.to_value(|config| json!(config));
        assert_eq!(written["object"]["minio"]["type"], "minio");
        assert_eq!(written["nosql"]["scylladb"]["data_volume"], "scylladb-volume");
        assert_eq!(StorageFile::from_value(&written).unwrap(), file);
    }

    #[test]
    fn a_flat_storage_is_of_the_kind_of_its_engine_and_none_without_address_or_type() {
        assert_eq!(
            parse(r#"{"address": "", "mapped_port": -1, "access_key": ""}"#).unwrap(),
            StorageFile::default()
        );
        assert_eq!(parse("{}").unwrap(), StorageFile::default());
        let flat = parse(r#"{"type": "dynamodb", "address": "h:1", "region": "r"}"#).unwrap();
        assert_eq!(flat.nosql.unwrap().tool_address(), Some("h:1"));
        let old = parse(r#"{"address": "172.17.0.3:9000", "access_key": "a", "secret_key": "s"}"#).unwrap();
        assert_eq!(old.object.unwrap().engine, EngineType::Minio);
    }

    #[test]
    fn wrong_words_are_usage_errors_that_say_what_would_be_right() {
        for (text, told) in [
            ("[]", "object"),
            (r#"{"object": 1}"#, "`object` is not an object"),
            (r#"{"object": {"type": "scylladb"}}"#, "no engine for `object`"),
            (r#"{"object": {"type": "redis"}}"#, "must be one of auto, minio"),
            (r#"{"object": {"type": "s3", "s3": {}}}"#, "needs an `address`"),
            (r#"{"nosql": {"type": "scylladb", "scylladb": {"memory": "much"}}}"#, "no number of MB"),
            (r#"{"object": {"type": "minio", "minio": {"mapped_port": 70000}}}"#, "1 to 65535"),
            (
                r#"{"object": {"type": "minio", "minio": {"secret_key": 12345678}}}"#,
                "keys, ids and regions are texts",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(told), "{error}");
            assert!(!error.to_string().contains("12345678"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_in_the_file_and_in_nothing_that_is_shown() {
        let config = StorageConfig {
            access_key: Some("name".into()),
            secret_key: Some("hush-hush".into()),
            ..StorageConfig::of(EngineType::Minio)
        };
        let file = StorageFile { object: Some(config.clone()), nosql: None };
        assert!(!format!("{file:?}{}{config:?}", file.without_secrets()).contains("hush"));
        let folder = files::TempFolder::create().unwrap();
        let path = folder.path().join("storage.json");
        file.write(&path).unwrap();
        assert_eq!(StorageFile::read(&path).unwrap(), file);
    }

    #[test]
    fn what_one_file_does_not_say_another_does() {
        let object = parse(r#"{"object": {"type": "minio"}}"#).unwrap();
        let both = parse(r#"{"object": {"type": "seaweedfs"}, "nosql": {"type": "dynoxide"}}"#).unwrap();
        let merged = object.or(both);
        assert_eq!(merged.object.unwrap().engine, EngineType::Minio);
        assert_eq!(merged.nosql.unwrap().engine, EngineType::Dynoxide);
    }
}
