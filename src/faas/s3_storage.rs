//! Object storage of a platform by means of S3, whichever engine speaks it.

use std::path::Path;

use md5::{Digest, Md5};

use super::config::Resources;
use super::storage::{PersistentStorage, StorageState};
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::storage::{ObjectSummary, S3Client, S3Options, StorageConfig};
use crate::units;

/// The region that signatures name where none is configured.
const REGION: &str = "us-east-1";

/// The most characters that the name of a bucket may have.
const LONGEST_NAME: usize = 63;

/// Object storage that speaks S3.
#[derive(Debug)]
pub struct S3Storage {
    client: S3Client,
    config: StorageConfig,
    state: StorageState,
}

/// A client of the storage that `config` says is running.
///
/// # Errors
/// A usage error, where it says of none.
pub(super) fn client(config: &StorageConfig, cancel: &Cancel) -> Result<S3Client> {
    let address = config.tool_address().ok_or_else(|| Error::usage("the object storage has no address"))?;
    let options = S3Options {
        address: address.to_string(),
        access_key: config.access_key.clone().unwrap_or_default(),
        secret_key: config.secret_key.clone().unwrap_or_default(),
        region: config.region.clone().unwrap_or_else(|| REGION.to_string()),
    };
    S3Client::new(options, cancel)
}

impl S3Storage {
    /// The storage that `config` says is running; nothing is asked of it yet. The resources must have an id by
    /// the time that a bucket is asked for.
    ///
    /// # Errors
    /// A usage error, where it says of none.
    pub fn new(
        config: &StorageConfig,
        cache: &Cache,
        resources: Resources,
        cancel: &Cancel,
    ) -> Result<S3Storage> {
        let client = client(config, cancel)?;
        Ok(S3Storage { client, config: config.clone(), state: StorageState::new(cache, resources) })
    }
}

impl PersistentStorage for S3Storage {
    fn deployment_name(&self) -> &'static str {
        "minio"
    }

    fn region(&self) -> &str {
        self.config.region.as_deref().unwrap_or(REGION)
    }

    fn identity(&self) -> String {
        self.config.identity().unwrap_or_default()
    }

    fn state(&self) -> &StorageState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut StorageState {
        &mut self.state
    }

    /// Source: *Bucket naming rules* in the S3 user guide.
    fn correct_name(&self, name: &str) -> String {
        let is_fine = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let lower = name.to_ascii_lowercase();
        let replaced: String = lower.chars().map(|c| if is_fine(&c) { c } else { '-' }).collect();
        // Dots stand alone, between letters and digits.
        let labels =
            replaced.split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty());
        let correct = labels.collect::<Vec<_>>().join(".");
        if correct.len() <= LONGEST_NAME {
            return correct;
        }
        // What is cut off still sets two names apart.
        let hash = units::hexadecimal(&Md5::digest(name.as_bytes())[..4]);
        let kept = &correct[..LONGEST_NAME - hash.len() - 1];
        format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
    }

    fn envs(&self) -> Vec<(String, String)> {
        let config = &self.config;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        [
            ("MINIO_ADDRESS", text(&config.address)),
            ("MINIO_ACCESS_KEY", text(&config.access_key)),
            ("MINIO_SECRET_KEY", text(&config.secret_key)),
            ("SEBS_LITE_S3_REGION", self.region().to_string()),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into()
    }

    fn create_bucket(&self, bucket: &str) -> Result<()> {
        match self.client.create_bucket(bucket) {
            // Another process was first.
            Err(error) if error.is_conflict() => Ok(()),
            made => made,
        }
    }

    fn exists_bucket(&self, bucket: &str) -> Result<bool> {
        self.client.bucket_exists(bucket)
    }

    fn list_buckets(&self, prefix: Option<&str>) -> Result<Vec<String>> {
        let mut buckets = self.client.list_buckets()?;
        buckets.retain(|bucket| prefix.is_none_or(|prefix| bucket.starts_with(prefix)));
        Ok(buckets)
    }

    fn clean_bucket(&self, bucket: &str) -> Result<()> {
        self.client.clean_bucket(bucket, "")
    }

    fn remove_bucket(&self, bucket: &str) -> Result<()> {
        self.client.remove_bucket(bucket)
    }

    fn list_objects(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectSummary>> {
        self.client.list(bucket, prefix)
    }

    fn remove_objects(&self, bucket: &str, keys: &[&str]) -> Result<()> {
        self.client.delete_many(bucket, keys)
    }

    fn upload(&self, bucket: &str, file: &Path, key: &str) -> Result<()> {
        self.client.put_file(bucket, key, file)
    }

    fn download(&self, bucket: &str, key: &str, file: &Path) -> Result<()> {
        self.client.get_to_file(bucket, key, file)
    }

    fn etag_of(&self, file: &Path) -> Result<Option<String>> {
        S3Client::etag_of_file(file).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TempFolder;
    use crate::storage::EngineType;

    fn storage(folder: &TempFolder) -> S3Storage {
        let config = StorageConfig {
            address: Some("172.17.0.9:9000".into()),
            host_address: Some("127.0.0.1:1".into()),
            access_key: Some("who".into()),
            secret_key: Some("hush".into()),
            ..StorageConfig::of(EngineType::SeaweedFs)
        };
        let cache = Cache::open(folder.path(), &Cancel::new()).unwrap();
        S3Storage::new(&config, &cache, Resources::default(), &Cancel::new()).unwrap()
    }

    #[test]
    fn names_of_buckets_follow_the_rules_of_s3() {
        let folder = TempFolder::create().unwrap();
        let storage = storage(&folder);
        for (name, correct) in [
            ("sebs-benchmarks-local-0123abcd", "sebs-benchmarks-local-0123abcd"),
            ("sebs-benchmarks-My_Lab-1", "sebs-benchmarks-my-lab-1"),
            ("a..b.-c-.d.", "a.b.c.d"),
            ("é-x", "x"),
        ] {
            assert_eq!(storage.correct_name(name), correct);
        }
        let long = ["a", "b"].map(|end| storage.correct_name(&format!("{}{end}", "x-".repeat(40))));
        assert!(long.iter().all(|name| name.len() <= LONGEST_NAME) && long[0] != long[1], "{long:?}");
    }

    #[test]
    fn functions_are_told_their_address_and_the_secret_is_not_shown() {
        let folder = TempFolder::create().unwrap();
        let storage = storage(&folder);
        let envs = storage.envs().into_iter().map(|(name, value)| format!("{name}={value}"));
        let expected = "MINIO_ADDRESS=172.17.0.9:9000 MINIO_ACCESS_KEY=who MINIO_SECRET_KEY=hush \
                        SEBS_LITE_S3_REGION=us-east-1";
        assert_eq!(envs.collect::<Vec<_>>().join(" "), expected);
        assert_eq!(storage.identity(), "seaweedfs:172.17.0.9:9000");
        assert!(!format!("{storage:?}").contains("hush"));
    }
}
