//! Tables of a platform by means of DynamoDB's protocol, whichever engine speaks it.

use super::config::Resources;
use super::nosql::{NoSqlState, NoSqlStorage};
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::storage::{DynamoClient, DynamoOptions, Item, StorageConfig};

/// The region that signatures name where none is configured.
const REGION: &str = "us-east-1";

/// What stands for a key where the engine asks for none, as SeBS writes it.
const NO_KEY: &str = "None";

/// Tables that are reached by DynamoDB's protocol.
#[derive(Debug)]
pub struct DynamoStorage {
    client: DynamoClient,
    config: StorageConfig,
    state: NoSqlState,
}

/// A client of the tables that `config` says are running.
///
/// # Errors
/// A usage error, where it says of none.
pub(super) fn client(config: &StorageConfig, cancel: &Cancel) -> Result<DynamoClient> {
    let address = config.tool_address().ok_or_else(|| Error::usage("the nosql storage has no address"))?;
    let or = |value: &Option<String>, other: &str| value.clone().unwrap_or_else(|| other.to_string());
    let options = DynamoOptions {
        address: address.to_string(),
        access_key: or(&config.access_key, NO_KEY),
        secret_key: or(&config.secret_key, NO_KEY),
        region: or(&config.region, REGION),
    };
    DynamoClient::new(options, cancel)
}

impl DynamoStorage {
    /// The tables that `config` says are running; nothing is asked of them yet. The resources must have an id.
    ///
    /// # Errors
    /// A usage error, where it says of none.
    pub fn new(
        config: &StorageConfig,
        cache: &Cache,
        resources: Resources,
        cancel: &Cancel,
    ) -> Result<DynamoStorage> {
        let client = client(config, cancel)?;
        Ok(DynamoStorage { client, config: config.clone(), state: NoSqlState::new(cache, resources) })
    }
}

impl NoSqlStorage for DynamoStorage {
    fn deployment_name(&self) -> &'static str {
        "scylladb"
    }

    fn region(&self) -> &str {
        self.config.region.as_deref().unwrap_or(REGION)
    }

    fn identity(&self) -> String {
        self.config.identity().unwrap_or_default()
    }

    fn state(&self) -> &NoSqlState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut NoSqlState {
        &mut self.state
    }

    fn endpoint_envs(&self) -> Vec<(String, String)> {
        let config = &self.config;
        let mut envs = vec![
            ("NOSQL_STORAGE_TYPE", "scylladb".to_string()),
            ("NOSQL_STORAGE_ENDPOINT", config.address.clone().unwrap_or_default()),
        ];
        // The engines that are started here check no signature; one that is not ours may.
        if let (true, Some(access_key), Some(secret_key)) =
            (config.engine.is_external(), &config.access_key, &config.secret_key)
        {
            envs.push(("SEBS_LITE_NOSQL_ACCESS_KEY", access_key.clone()));
            envs.push(("SEBS_LITE_NOSQL_SECRET_KEY", secret_key.clone()));
            envs.push(("SEBS_LITE_NOSQL_REGION", self.region().to_string()));
        }
        envs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn make_table(&self, name: &str, primary_key: &str, secondary_key: Option<&str>) -> Result<()> {
        match self.client.create_table(name, primary_key, secondary_key) {
            // Another process was first.
            Err(error) if error.is_conflict() => self.client.wait_until_active(name),
            made => made,
        }
    }

    fn exists_table(&self, name: &str) -> Result<bool> {
        if !self.client.table_exists(name)? {
            return Ok(false);
        }
        // Another process may be making it.
        self.client.wait_until_active(name)?;
        Ok(true)
    }

    fn list_tables(&self) -> Result<Vec<String>> {
        self.client.list_tables()
    }

    fn write_items(&self, name: &str, items: &[Item]) -> Result<()> {
        self.client.write_batch(name, items)
    }

    fn clear_table(&mut self, name: &str) -> Result<()> {
        self.client.clear_table(name).map(drop)
    }

    fn remove_table(&mut self, name: &str) -> Result<()> {
        self.client.delete_table(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;
    use crate::storage::EngineType;

    fn envs(config: StorageConfig) -> String {
        let folder = TempFolder::create().unwrap();
        let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
        let storage = DynamoStorage::new(&config, &cache, Resources::default(), &Cancel::new()).unwrap();
        assert!(!format!("{storage:?}").contains("hush"));
        let envs = storage.envs("x").into_iter().map(|(name, value)| format!("{name}={value}"));
        envs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn functions_are_told_keys_only_where_they_are_asked_for() {
        let config = |engine| StorageConfig {
            address: Some("172.17.0.9:8000".into()),
            host_address: Some("127.0.0.1:1".into()),
            access_key: Some("who".into()),
            secret_key: Some("hush".into()),
            ..StorageConfig::of(engine)
        };
        let plain = "NOSQL_STORAGE_TYPE=scylladb NOSQL_STORAGE_ENDPOINT=172.17.0.9:8000";
        assert_eq!(envs(config(EngineType::Dynoxide)), plain);
        let external = format!(
            "{plain} SEBS_LITE_NOSQL_ACCESS_KEY=who SEBS_LITE_NOSQL_SECRET_KEY=hush SEBS_LITE_NOSQL_REGION=us-east-1"
        );
        assert_eq!(envs(config(EngineType::DynamoDb)), external);
        let open = StorageConfig { secret_key: None, ..config(EngineType::DynamoDb) };
        assert_eq!(envs(open), plain);
    }
}
