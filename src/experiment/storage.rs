//! What a result says of the storage that functions used: which, and where, never the keys to it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::docker::Engine;
use crate::error::Result;
use crate::faas::Resources;
use crate::storage::{StorageConfig, StorageFile};

/// The storage that functions used, of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageUsed {
    /// Objects; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<StorageProgram>,
    /// Tables; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nosql: Option<StorageProgram>,
}

/// The program that stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageProgram {
    /// The engine: `minio`.
    #[serde(rename = "type")]
    pub engine: String,
    /// The image's tag; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name of its image; absent where it runs in no container that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Id of that image, `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
}

impl StorageUsed {
    /// What is known of the storage that is in use; `None`: none is.
    ///
    /// # Errors
    /// The engine cannot be asked.
    pub fn of(engine: &Engine, file: &StorageFile) -> Result<Option<StorageUsed>> {
        let program = |config: &Option<StorageConfig>| {
            config.as_ref().map(|config| StorageProgram::of(engine, config)).transpose()
        };
        let used = StorageUsed { object: program(&file.object)?, nosql: program(&file.nosql)? };
        Ok((used != StorageUsed::default()).then_some(used))
    }
}

impl StorageProgram {
    fn of(engine: &Engine, config: &StorageConfig) -> Result<StorageProgram> {
        let inspected = match config.instance_id.as_deref().map(|id| engine.inspect_container(id)) {
            None => None,
            Some(Ok(inspected)) => Some(inspected),
            // It runs in another engine.
            Some(Err(error)) if error.is_not_found() => None,
            Some(Err(error)) => return Err(error),
        };
        let (image, image_id) = match inspected {
            Some(inspected) => (Some(inspected.config.image), Some(inspected.image)),
            None => (config.image.clone(), None),
        };
        let tag = image.as_deref().and_then(|image| image.rsplit_once(':')).map(|(_, tag)| tag.to_string());
        Ok(StorageProgram {
            engine: config.engine.name().to_string(),
            version: config.version.clone().or(tag),
            image,
            image_id,
        })
    }
}

/// Says in a platform's description, as a result holds it, which storage and resources were used: under SeBS's keys, but
/// without those to the storage.
pub fn note_storage(description: &mut Value, file: &StorageFile, resources: &Resources) {
    let Some(description) = description.as_object_mut() else { return };
    for (key, config) in [("storage", &file.object), ("nosql", &file.nosql)] {
        if let Some(config) = config {
            description.insert(key.to_string(), without_keys(config));
        }
    }
    let place = description.entry("resources").or_insert_with(|| Value::Object(Map::new()));
    if let (Some(place), Value::Object(known)) = (place.as_object_mut(), json!(resources)) {
        place.extend(known.into_iter().filter(|(_, value)| !value.is_null()));
    }
}

fn without_keys(config: &StorageConfig) -> Value {
    let bare = StorageConfig { access_key: None, secret_key: None, ..config.clone() };
    json!(bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::EngineType;

    #[test]
    fn a_result_names_the_storage_and_not_its_keys() {
        let object = StorageConfig {
            address: Some("172.17.0.9:9000".into()),
            access_key: Some("who".into()),
            secret_key: Some("hush".into()),
            ..StorageConfig::of(EngineType::Minio)
        };
        let file = StorageFile { object: Some(object), nosql: None };
        let resources = Resources { resources_id: Some("local-01234567".into()), ..Resources::default() };
        let mut deployment = json!({"name": "local", "resources": {"allocated_ports": []}});
        note_storage(&mut deployment, &file, &resources);
        assert_eq!(deployment["storage"]["type"], "minio");
        assert_eq!(deployment["storage"]["address"], "172.17.0.9:9000");
        assert_eq!(deployment["resources"]["resources_id"], "local-01234567");
        assert_eq!(deployment["resources"]["allocated_ports"], json!([]));
        let text = deployment.to_string();
        assert!(!text.contains("hush") && !text.contains("who"), "{text}");
    }
}
