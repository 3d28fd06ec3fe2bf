//! A benchmark's data in storage: its prefixes and tables, and the input that `input.py` makes and uploads.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{InputCallbacks, InputProcess, NoStorage, NosqlItem, TableKeys};
use crate::error::{Error, Result};
use crate::faas::{StorageBucketType, SystemResources};
use crate::progress::{Progress, Step};
use crate::units::Bytes;

/// What a benchmark needs of storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// How many prefixes for inputs and outputs; `(0, 0)`: no object storage.
    pub buckets: (u32, u32),
    /// Its tables; empty: no tables.
    pub tables: Vec<TableKeys>,
}

impl Needs {
    /// What the benchmark's `input.py` says.
    ///
    /// # Errors
    /// Its functions fail, or do not give what they should.
    pub fn of(process: &mut InputProcess) -> Result<Needs> {
        let buckets = process.buckets_count()?.unwrap_or_default();
        Ok(Needs { buckets, tables: process.allocate_nosql()?.unwrap_or_default() })
    }

    /// Does it need object storage?
    pub fn has_buckets(&self) -> bool {
        self.buckets != (0, 0)
    }
}

/// Where a benchmark's data are in object storage; nowhere, if it needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// The bucket.
    pub bucket: Option<String>,
    /// The prefixes of its inputs.
    pub inputs: Vec<String>,
    /// The prefixes of its outputs.
    pub outputs: Vec<String>,
}

/// Allocates what a benchmark needs in the storage of a platform: prefixes and tables, with nothing in them. Without needs
/// no storage is asked for.
///
/// # Errors
/// No storage can be had, or it refused.
pub fn allocate(benchmark: &str, needs: &Needs, resources: &mut SystemResources) -> Result<Allocated> {
    let mut allocated = Allocated::default();
    if needs.has_buckets() {
        let storage = resources.get_storage(None)?;
        allocated.bucket = Some(storage.get_bucket(StorageBucketType::Benchmarks)?);
        (allocated.inputs, allocated.outputs) = storage.benchmark_data(benchmark, needs.buckets)?;
    }
    if !needs.tables.is_empty() {
        let tables = resources.get_nosql_storage()?;
        for keys in &needs.tables {
            let secondary_key = keys.secondary_key.as_deref();
            tables.create_benchmark_tables(benchmark, &keys.table, &keys.primary_key, secondary_key)?;
        }
        tables.update_cache(benchmark)?;
    }
    Ok(allocated)
}

/// Allocates what a benchmark needs in the storage of a platform, and has its `input.py` make the input of that size,
/// whose files and items are uploaded. Without needs no storage is asked for.
///
/// The script always runs, for it makes the input, some of it by chance; files that are in the storage already are not
/// sent again. Items are gathered before they are sent, so the script may be told of one that the storage refuses a few
/// calls later, and at the latest this function fails.
///
/// # Errors
/// No storage can be had, or `input.py` fails.
pub fn prepare_input(
    process: &mut InputProcess,
    benchmark: &str,
    needs: &Needs,
    size: &str,
    resources: &mut SystemResources,
    progress: &Progress,
) -> Result<Value> {
    let Allocated { bucket, inputs, outputs } = allocate(benchmark, needs, resources)?;
    let mut callbacks = InputStorage { resources, needs, progress, files: 0, bytes: 0, items: 0 };
    let input = process.generate_input(size, bucket.as_deref(), &inputs, &outputs, &mut callbacks)?;
    if !needs.tables.is_empty() {
        resources.get_nosql_storage()?.flush()?;
    }
    if needs.has_buckets() {
        resources.get_storage(None)?.finish_inputs()?;
    }
    Ok(input)
}

/// The storage that an `input.py` fills.
struct InputStorage<'a> {
    resources: &'a mut SystemResources,
    needs: &'a Needs,
    progress: &'a Progress,
    files: u64,
    bytes: u64,
    items: u64,
}

impl InputStorage<'_> {
    fn tell(&self, task: &str, detail: &str, done: u64) {
        self.progress.tell(&Step { task, detail, done, total: None });
    }
}

impl InputCallbacks for InputStorage<'_> {
    fn upload(&mut self, index: usize, key: &str, path: &Path) -> Result<()> {
        if !self.needs.has_buckets() {
            return Err(Error::usage(format!(
                "`{key}` cannot be uploaded: the benchmark's `buckets_count` asks for no prefix"
            )));
        }
        let size_bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let (size, before) = (Bytes(size_bytes), Bytes(self.bytes));
        let detail = format!("{key} ({size}), after {} files of {before}", self.files);
        self.tell("uploading inputs", &detail, self.files);
        self.resources.get_storage(None)?.uploader(index, key, path)?;
        self.files += 1;
        self.bytes += size_bytes;
        Ok(())
    }

    fn nosql_write(&mut self, item: &NosqlItem) -> Result<()> {
        if self.needs.tables.is_empty() {
            return Err(Error::usage(format!(
                "nothing can be written to table `{}`: the benchmark's `allocate_nosql` names no tables",
                item.table
            )));
        }
        self.tell("writing items", &format!("table {}", item.table), self.items);
        let mut whole = item.data.clone();
        whole.extend([Some(item.primary_key.clone()), item.secondary_key.clone()].into_iter().flatten());
        self.resources.get_nosql_storage()?.write_to_table(&item.benchmark, &item.table, whole)?;
        self.items += 1;
        Ok(())
    }

    fn download(&mut self, bucket: &str, key: &str, path: &Path) -> Result<()> {
        ResultStorage(self.resources).download(bucket, key, path)
    }
}

/// What `validate_output` may fetch results with: the storage in use, and where none is, nothing.
pub struct ResultStorage<'a>(pub &'a mut SystemResources);

impl InputCallbacks for ResultStorage<'_> {
    fn upload(&mut self, index: usize, key: &str, path: &Path) -> Result<()> {
        NoStorage.upload(index, key, path)
    }

    fn nosql_write(&mut self, item: &NosqlItem) -> Result<()> {
        NoStorage.nosql_write(item)
    }

    fn download(&mut self, bucket: &str, key: &str, path: &Path) -> Result<()> {
        match self.0.storage_in_use() {
            Some(storage) => storage.download(bucket, key, path),
            None => NoStorage.download(bucket, key, path),
        }
    }
}
