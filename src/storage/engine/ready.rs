//! Waits with a deadline until a storage can be written to, and asks one whether it answers.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::Duration;

use super::folder::DataFolder;
use super::keys::Keys;
use super::{EngineType, StorageConfig, StorageKind};
use crate::cancel::Cancel;
use crate::clock::{self, Instant};
use crate::docker::{ContainerInspect, Engine, log_tail};
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::progress::Progress;
use crate::storage::{DynamoClient, DynamoOptions, Item, S3Client, S3Options, Value};
use crate::units::Bytes;

/// The bucket or table by which a storage is tried; one that a killed start left is used again, and removed.
const PROBE: &str = "sebs-lite-probe";

/// What signatures name where a storage knows no regions.
pub(super) const REGION: &str = "us-east-1";

/// How soon a storage is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// How often the container is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// With less on its disk, a storage that cannot be written to is said to have a full one: engines keep a reserve.
const LOW_DISK: u64 = 128 << 20;

/// How long a storage on a full disk may try to get ready all the same.
const LOW_DISK_LIMIT: Duration = Duration::from_secs(10);

/// A storage whose container was started.
pub(super) struct Wait<'a> {
    pub(super) engine: &'a Engine,
    pub(super) cancel: &'a Cancel,
    pub(super) progress: &'a Progress,
    pub(super) engine_type: EngineType,
    pub(super) container: &'a str,
    pub(super) keys: &'a Keys,
    /// The folder of its data on this host; `None`: they are in a volume.
    pub(super) folder: Option<&'a Path>,
    pub(super) limit: Duration,
}

impl Wait<'_> {
    /// Waits until something was written to it where `placed` says that it is.
    ///
    /// # Errors
    /// The container ended, or the time has passed (`is_timeout`): with the last it wrote, and the full disk if that may
    /// be why.
    pub(super) fn until_ready(&self, placed: &StorageConfig) -> Result<()> {
        let task = format!("starting storage {}", self.engine_type);
        self.progress.step(&task, "waiting until it can be written to");
        let begin = Instant::now();
        let mut next_look = begin.after(LOOK);
        let mut last = None;
        loop {
            if answers_http(placed.tool_address(), self.cancel)? {
                match write(placed, self.cancel) {
                    Ok(()) => return Ok(()),
                    Err(error) if error.is_cancelled() => return Err(error),
                    Err(error) => last = Some(error),
                }
            }
            let now = Instant::now();
            if now >= next_look {
                self.check_running()?;
                next_look = Instant::now().after(LOOK);
            }
            let waited = now.since(begin);
            if waited >= self.limit || (waited >= LOW_DISK_LIMIT && self.is_disk_low()) {
                return Err(self.not_ready(waited, last));
            }
            clock::wait_until(Instant::now().after(PAUSE), self.cancel)?;
        }
    }

    /// The container, which runs.
    ///
    /// # Errors
    /// It has ended: with the last it wrote.
    pub(super) fn check_running(&self) -> Result<ContainerInspect> {
        let inspected = self.engine.inspect_container(self.container)?;
        if inspected.state.running {
            return Ok(inspected);
        }
        let text = format!(
            "container `{}` of storage `{}` ended with exit code {} before it could be written to{}",
            inspected.name,
            self.engine_type,
            inspected.state.exit_code,
            self.circumstances()
        );
        Err(Error::new(text))
    }

    fn not_ready(&self, waited: Duration, last: Option<Error>) -> Error {
        let text = format!(
            "storage `{}` could not be written to within {} s{}",
            self.engine_type,
            waited.as_secs(),
            self.circumstances()
        );
        match last {
            Some(error) => Error::from_source(Kind::Timeout, text, error),
            None => Error::with_kind(Kind::Timeout, text),
        }
    }

    fn circumstances(&self) -> String {
        let disk = match self.folder {
            Some(folder) if self.is_disk_low() => {
                let left = Bytes(DataFolder::free_bytes(folder).unwrap_or_default());
                format!(": the disk of `{}` is full, {left} are left on it", folder.display())
            }
            _ => String::new(),
        };
        disk + &self.keys.strike_out(&log_tail(&self.engine.without_cancel(), self.container))
    }

    fn is_disk_low(&self) -> bool {
        self.folder.and_then(DataFolder::free_bytes).is_some_and(|free| free < LOW_DISK)
    }
}

/// Does a signed request with the keys of `config` work?
///
/// # Errors
/// It does not: why.
pub(super) fn ask(kind: StorageKind, config: &StorageConfig, cancel: &Cancel) -> Result<()> {
    check_answers(config, cancel)?;
    match kind {
        StorageKind::Object => objects(config, cancel)?.list_buckets().map(drop),
        StorageKind::Nosql => tables(config, cancel)?.list_tables().map(drop),
    }
}

/// Does anything answer where the storage is said to be?
///
/// # Errors
/// Nothing does, in a few seconds.
pub(super) fn check_answers(config: &StorageConfig, cancel: &Cancel) -> Result<()> {
    if answers_http(config.tool_address(), cancel)? {
        return Ok(());
    }
    let address = config.tool_address().unwrap_or_default();
    let text = format!("nothing at http://{address} answers: is it running there?");
    Err(Error::with_kind(Kind::Disconnected, text))
}

/// As [`check_answers`], of a storage whose container runs: its server may be about to answer, and is waited for.
///
/// # Errors
/// Nothing answers within `limit` or some seconds more.
pub(super) fn wait_until_answers(config: &StorageConfig, limit: Duration, cancel: &Cancel) -> Result<()> {
    let deadline = Instant::now().after(limit);
    loop {
        match check_answers(config, cancel) {
            Err(error) if error.is_disconnected() && Instant::now() < deadline => {
                cancel.check()?;
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}

/// Writes something and removes it.
fn write(config: &StorageConfig, cancel: &Cancel) -> Result<()> {
    match config.engine.kind().unwrap_or(StorageKind::Object) {
        StorageKind::Object => {
            let client = objects(config, cancel)?;
            unless_conflict(client.create_bucket(PROBE))?;
            client.put_bytes(PROBE, "written", b"1")?;
            client.delete(PROBE, "written")?;
            unless_conflict(client.remove_bucket(PROBE))
        }
        StorageKind::Nosql => {
            let client = tables(config, cancel)?;
            unless_conflict(client.create_table(PROBE, "key", None))?;
            let item = Item::from([("key".to_string(), Value::from("written"))]);
            client.put_item(PROBE, &item)?;
            client.delete_table(PROBE)
        }
    }
}

fn unless_conflict(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_conflict() => Ok(()),
        other => other,
    }
}

fn objects(config: &StorageConfig, cancel: &Cancel) -> Result<S3Client> {
    let (access_key, secret_key) = known_keys(config)?;
    let options = S3Options { address: address(config)?, access_key, secret_key, region: region(config) };
    S3Client::new(options, cancel)
}

fn tables(config: &StorageConfig, cancel: &Cancel) -> Result<DynamoClient> {
    let (access_key, secret_key) = known_keys(config)?;
    let options = DynamoOptions { address: address(config)?, access_key, secret_key, region: region(config) };
    DynamoClient::new(options, cancel)
}

fn address(config: &StorageConfig) -> Result<String> {
    let address = config.tool_address().map(str::to_string);
    address.ok_or_else(|| Error::usage(format!("storage `{}` has no `address`", config.engine)))
}

fn region(config: &StorageConfig) -> String {
    config.region.clone().unwrap_or_else(|| REGION.to_string())
}

fn known_keys(config: &StorageConfig) -> Result<(String, String)> {
    match (&config.access_key, &config.secret_key) {
        (Some(access_key), Some(secret_key)) => Ok((access_key.clone(), secret_key.clone())),
        _ => Err(Error::usage(format!(
            "storage `{}` at {} needs an `access_key` and a `secret_key`",
            config.engine,
            config.address.as_deref().unwrap_or_default()
        ))),
    }
}

/// Does anything at an address give any HTTP answer? The engine's proxy takes connections before the server does.
///
/// # Errors
/// A usage error: it is no address. Or the cancel token was triggered.
fn answers_http(address: Option<&str>, cancel: &Cancel) -> Result<bool> {
    cancel.check()?;
    let address = address.unwrap_or_default();
    let plain = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    if !plain.contains(':') || plain.contains('/') {
        return Err(Error::usage(format!("`{address}` is no address of a storage: write host:port")));
    }
    // A name without an address may have one later.
    let Some(address) = plain.to_socket_addrs().ok().and_then(|mut found| found.next()) else {
        return Ok(false);
    };
    http::answers(address, "/", (Duration::from_secs(2), Duration::from_secs(5)), cancel)
}

/// What of an endpoint that is there already is not configured and has a default.
pub(super) fn with_region(config: &StorageConfig) -> StorageConfig {
    let mut config = config.clone();
    config.region.get_or_insert_with(|| REGION.to_string());
    config
}
