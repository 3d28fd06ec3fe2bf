//! Object storage as a platform sees it: the bucket of each type, and a benchmark's prefixes in it.

mod entry;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::storage::ObjectSummary;
use crate::units::Bytes;

use super::config::{Resources, StorageBucketType};
use entry::{Entry, Prefixes};
use keys::{path_below, plain};

/// What every object storage has to remember.
#[derive(Debug)]
pub struct StorageState {
    /// Where it is remembered for later commands.
    pub cache: Cache,
    /// The platform's resources, whose buckets these are.
    pub resources: Resources,
    /// Are files uploaded that are there already?
    pub replaces_existing: bool,
    /// Was the present benchmark's input found to be uploaded, as far as the cache knows?
    pub is_cached: bool,
    /// The present benchmark; empty: there is none yet.
    pub benchmark: String,
    /// The present benchmark's prefixes for inputs.
    pub input_prefixes: Vec<String>,
    /// The present benchmark's prefixes for outputs.
    pub output_prefixes: Vec<String>,
    /// What is below each prefix for inputs, sorted by key.
    pub input_prefixes_files: Vec<Vec<ObjectSummary>>,
    /// What became of the present benchmark's input files.
    pub uploads: Uploads,
    /// The keys, as [`plain`] has them, that the present benchmark's input has.
    wanted: BTreeSet<String>,
    /// The buckets that this process has seen to be there.
    confirmed: BTreeSet<String>,
}

/// What became of a benchmark's input files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uploads {
    /// How many were uploaded.
    pub uploaded: u64,
    /// The size of these.
    pub uploaded_bytes: u64,
    /// How many were there already, with the same content.
    pub unchanged: u64,
}

impl StorageState {
    /// Nothing is known but the resources, which have an id.
    pub fn new(cache: &Cache, resources: Resources) -> StorageState {
        StorageState {
            cache: cache.clone(),
            resources,
            replaces_existing: false,
            is_cached: false,
            benchmark: String::new(),
            input_prefixes: Vec::new(),
            output_prefixes: Vec::new(),
            input_prefixes_files: Vec::new(),
            uploads: Uploads::default(),
            wanted: BTreeSet::new(),
            confirmed: BTreeSet::new(),
        }
    }

    /// Forgets the present benchmark for another.
    fn begin(&mut self, benchmark: &str) {
        self.benchmark = benchmark.to_string();
        self.is_cached = false;
        self.input_prefixes.clear();
        self.output_prefixes.clear();
        self.input_prefixes_files.clear();
        self.uploads = Uploads::default();
        self.wanted.clear();
    }

    /// The object below the input prefix of that index, or where it would stand in the list.
    fn find(&self, index: usize, key: &str) -> Result<usize, usize> {
        self.input_prefixes_files[index].binary_search_by(|object| object.key.as_str().cmp(key))
    }
}

/// Object storage of a platform. The required methods are one protocol's; the rest is the same for all.
///
/// Buckets are named `sebs-<type>-<resources id>`; a benchmark's data have prefixes in the one for benchmarks.
pub trait PersistentStorage {
    /// Name of the storage as the cache has it: `minio`.
    fn deployment_name(&self) -> &'static str;

    /// The region; empty where there is none.
    fn region(&self) -> &str;

    /// What tells this storage from another that may have the same name.
    fn identity(&self) -> String;

    /// What it has to remember.
    fn state(&self) -> &StorageState;

    /// The same, to be changed.
    fn state_mut(&mut self) -> &mut StorageState;

    /// The name, changed as far as the storage's rules for names of buckets demand.
    fn correct_name(&self, name: &str) -> String;

    /// What functions are told of it, as environment variables; it has secrets.
    fn envs(&self) -> Vec<(String, String)>;

    /// Makes a bucket; one that is there is fine.
    ///
    /// # Errors
    /// The storage refused.
    fn create_bucket(&self, bucket: &str) -> Result<()>;

    /// Is there such a bucket?
    ///
    /// # Errors
    /// The storage refused.
    fn exists_bucket(&self, bucket: &str) -> Result<bool>;

    /// The names of all buckets, or of those that begin with `prefix`.
    ///
    /// # Errors
    /// The storage refused.
    fn list_buckets(&self, prefix: Option<&str>) -> Result<Vec<String>>;

    /// Removes all objects of a bucket.
    ///
    /// # Errors
    /// The storage refused.
    fn clean_bucket(&self, bucket: &str) -> Result<()>;

    /// Removes a bucket, which must be empty.
    ///
    /// # Errors
    /// The storage refused.
    fn remove_bucket(&self, bucket: &str) -> Result<()>;

    /// The objects of a bucket whose key begins with `prefix`.
    ///
    /// # Errors
    /// The storage refused.
    fn list_objects(&self, bucket: &str, prefix: &str) -> Result<Vec<ObjectSummary>>;

    /// Removes objects; those that are not there are fine.
    ///
    /// # Errors
    /// The storage refused.
    fn remove_objects(&self, bucket: &str, keys: &[&str]) -> Result<()>;

    /// Uploads a file, whether or not it is there.
    ///
    /// # Errors
    /// The file cannot be read, or the storage refused.
    fn upload(&self, bucket: &str, file: &Path, key: &str) -> Result<()>;

    /// Downloads an object to a file.
    ///
    /// # Errors
    /// `is_not_found` where there is none; the file cannot be written.
    fn download(&self, bucket: &str, key: &str, file: &Path) -> Result<()>;

    /// The ETag that an object with the file's content has, where [`PersistentStorage::upload`] made it; `None`: it
    /// cannot be told, and whether such an object is there neither.
    ///
    /// # Errors
    /// The file cannot be read.
    fn etag_of(&self, file: &Path) -> Result<Option<String>>;

    /// Are files uploaded that are there already?
    fn replace_existing(&self) -> bool {
        self.state().replaces_existing
    }

    /// The present benchmark's prefixes for inputs.
    fn input_prefixes(&self) -> &[String] {
        &self.state().input_prefixes
    }

    /// The present benchmark's prefixes for outputs.
    fn output_prefixes(&self) -> &[String] {
        &self.state().output_prefixes
    }

    /// The bucket of that type, made where it is not there yet. Whether it is there is asked once.
    ///
    /// # Errors
    /// The storage refused, or the cache cannot be written.
    fn get_bucket(&mut self, kind: StorageBucketType) -> Result<String> {
        if let Some(known) = self.state().resources.get_storage_bucket(kind).map(str::to_string) {
            if self.state().confirmed.contains(&known) || self.exists_bucket(&known)? {
                self.state_mut().confirmed.insert(known.clone());
                return Ok(known);
            }
            log::info!("bucket `{known}` is not there any more");
        }
        let name = self.correct_name(&self.state().resources.get_storage_bucket_name(kind)?);
        if !self.exists_bucket(&name)? {
            log::info!("making bucket `{name}`");
            self.create_bucket(&name)?;
        }
        let state = self.state_mut();
        state.confirmed.insert(name.clone());
        state.resources.set_storage_bucket(kind, &name);
        state.resources.update_cache(&state.cache)?;
        Ok(name)
    }

    /// The prefixes of a benchmark for its inputs and outputs, as many of each as asked for, in the bucket for
    /// benchmarks; those of the benchmark before are forgotten.
    ///
    /// # Errors
    /// The storage refused, or the cache cannot be read or written.
    fn benchmark_data(
        &mut self,
        benchmark: &str,
        requested: (u32, u32),
    ) -> Result<(Vec<String>, Vec<String>)> {
        let bucket = self.get_bucket(StorageBucketType::Benchmarks)?;
        self.state_mut().begin(benchmark);
        let names = |count: u32, what: &str| -> Vec<String> {
            (0..count).map(|index| format!("{benchmark}-{index}-{what}")).collect()
        };
        let (inputs, outputs) = (names(requested.0, "input"), names(requested.1, "output"));
        let mut listed = Vec::new();
        for prefix in &inputs {
            let mut objects = self.list_objects(&bucket, &format!("{prefix}/"))?;
            objects.sort_by(|one, other| one.key.cmp(&other.key));
            listed.push(objects);
        }
        let known = Entry::read(&self.state().cache, self.deployment_name(), benchmark)?;
        let known = known.filter(|known| known.is_of(&self.identity(), &bucket));
        // What was uploaded may have been removed since by somebody else.
        let is_there = listed.iter().all(|objects| !objects.is_empty());
        let is_cached = is_there && known.is_some_and(|known| known.has_uploaded(&inputs));
        let state = self.state_mut();
        state.is_cached = is_cached;
        state.input_prefixes.clone_from(&inputs);
        state.output_prefixes.clone_from(&outputs);
        state.input_prefixes_files = listed;
        record_benchmark(self, &bucket, is_cached)?;
        Ok((inputs, outputs))
    }

    /// Uploads a benchmark's input file below the prefix of that index, unless it is there with the same size and
    /// content, or [`StorageState::replaces_existing`] demands it.
    ///
    /// # Errors
    /// There is no such prefix, the file cannot be read, or the storage refused.
    fn uploader(&mut self, index: usize, key: &str, file: &Path) -> Result<()> {
        let state = self.state();
        let Some(prefix) = state.input_prefixes.get(index) else {
            return Err(Error::usage(format!(
                "`{key}` cannot be uploaded below input prefix {index}: benchmark `{}` asks for {} of them, counted from 0",
                state.benchmark,
                state.input_prefixes.len()
            )));
        };
        let key = format!("{prefix}/{key}");
        let size_bytes = fs::metadata(file).context(|| format!("failed to read `{}`", file.display()))?.len();
        let found = state.find(index, &key);
        let listed = found.ok().map(|place| &state.input_prefixes_files[index][place]);
        let is_there = match listed {
            Some(listed) if !state.replaces_existing && listed.size_bytes == size_bytes => {
                let told = listed.etag.as_deref();
                told.is_some() && told == self.etag_of(file)?.as_deref()
            }
            _ => false,
        };
        self.state_mut().wanted.insert(plain(&key));
        if is_there {
            log::debug!("`{key}` is in the storage as it is in `{}`", file.display());
            self.state_mut().uploads.unchanged += 1;
            return Ok(());
        }
        let bucket = self.get_bucket(StorageBucketType::Benchmarks)?;
        self.upload(&bucket, file, &key)?;
        let state = self.state_mut();
        // Without an ETag: if another file follows under the same key, it is uploaded whatever it is.
        let uploaded = ObjectSummary { key, size_bytes, etag: None };
        match found {
            Ok(place) => state.input_prefixes_files[index][place] = uploaded,
            Err(place) => state.input_prefixes_files[index].insert(place, uploaded),
        }
        state.uploads.uploaded += 1;
        state.uploads.uploaded_bytes += size_bytes;
        Ok(())
    }

    /// Says that all input files of the present benchmark have been handed to [`PersistentStorage::uploader`]. Objects
    /// below its input prefixes that are none of them, left by an earlier input, are removed where
    /// [`StorageState::replaces_existing`], and else warned of: another run at the same time, or a deployment that was
    /// kept, may need them, but a function that downloads a whole folder gets them, too.
    ///
    /// # Errors
    /// The storage refused, or the cache cannot be written.
    fn finish_inputs(&mut self) -> Result<()> {
        let bucket = self.get_bucket(StorageBucketType::Benchmarks)?;
        let state = self.state();
        for (prefix, objects) in state.input_prefixes.iter().zip(&state.input_prefixes_files) {
            let is_left = |key: &&str| !key.ends_with('/') && !state.wanted.contains(&plain(key));
            let left: Vec<&str> = objects.iter().map(|object| object.key.as_str()).filter(is_left).collect();
            let Some(first) = left.first() else { continue };
            let count = left.len();
            if state.replaces_existing {
                log::info!(
                    "removing {count} objects below `{prefix}` that are not of this input: `{first}`, …"
                );
                self.remove_objects(&bucket, &left)?;
            } else {
                log::warn!(
                    "{count} objects below `{prefix}` in bucket `{bucket}` are not of this input, the first of them \
                     `{first}`: a function that downloads a whole folder gets them, too; `--update-storage` removes them"
                );
            }
        }
        let Uploads { uploaded, uploaded_bytes, unchanged } = state.uploads;
        if uploaded + unchanged > 0 {
            let size = Bytes(uploaded_bytes);
            log::info!("uploaded {uploaded} input files ({size}), {unchanged} were there already");
        }
        record_benchmark(self, &bucket, true)
    }

    /// The keys of a bucket that begin with `prefix`.
    ///
    /// # Errors
    /// The storage refused.
    fn list_bucket(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        Ok(self.list_objects(bucket, prefix)?.into_iter().map(|object| object.key).collect())
    }

    /// Downloads all objects of a bucket below a folder, in folders as their keys have them, and gives how many it were.
    /// Files that are there already are left as they are. A key that is no path below a folder (`../x`, `/x`, `x/`) is
    /// passed over, with a warning.
    ///
    /// # Errors
    /// The storage refused, or a file cannot be written.
    fn download_bucket(&self, bucket: &str, folder: &Path) -> Result<u64> {
        let mut count = 0;
        for object in self.list_objects(bucket, "")? {
            let Some(below) = path_below(&object.key) else {
                log::warn!(
                    "object `{}` of bucket `{bucket}` is not downloaded: its key is no path below a folder",
                    object.key
                );
                continue;
            };
            let file = folder.join(below);
            if fs::symlink_metadata(&file).is_ok() {
                continue;
            }
            self.download(bucket, &object.key, &file)?;
            count += 1;
        }
        Ok(count)
    }

    /// The resources ids of whose deployments there is a bucket for benchmarks.
    ///
    /// # Errors
    /// The storage refused.
    fn find_deployments(&self) -> Result<Vec<String>> {
        let prefix = format!("sebs-{}-", StorageBucketType::Benchmarks);
        let buckets = self.list_buckets(Some(&prefix))?;
        Ok(buckets.iter().filter_map(|bucket| bucket.strip_prefix(&prefix)).map(str::to_string).collect())
    }

    /// Removes all buckets of this resources id with what is in them, and gives their names; with `dry_run` it only says
    /// which.
    ///
    /// # Errors
    /// The storage refused, or the cache cannot be written.
    fn cleanup_buckets(&mut self, dry_run: bool) -> Result<Vec<String>> {
        let mut names: BTreeSet<String> = self.state().resources.get_buckets().into_iter().collect();
        for kind in StorageBucketType::ALL {
            names.insert(self.correct_name(&self.state().resources.get_storage_bucket_name(kind)?));
        }
        let there = self.list_buckets(None)?;
        names.retain(|name| there.contains(name));
        let names: Vec<String> = names.into_iter().collect();
        if dry_run {
            return Ok(names);
        }
        for name in &names {
            self.clean_bucket(name)?;
            self.remove_bucket(name)?;
        }
        let state = self.state_mut();
        state.confirmed.retain(|name| !names.contains(name));
        state.resources.cleanup_deleted_buckets(&state.cache, &names)?;
        Ok(names)
    }
}

/// Writes into the cache what is known of the present benchmark.
fn record_benchmark(
    storage: &(impl PersistentStorage + ?Sized),
    bucket: &str,
    input_uploaded: bool,
) -> Result<()> {
    let state = storage.state();
    let (input, output) = (state.input_prefixes.clone(), state.output_prefixes.clone());
    let buckets = Prefixes { input, output, input_uploaded };
    let entry = Entry { buckets, instance_id: storage.identity(), bucket: bucket.to_string() };
    entry.write(&state.cache, storage.deployment_name(), &state.benchmark)
}
