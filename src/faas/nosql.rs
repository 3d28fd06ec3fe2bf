//! Tables as a platform sees them: a benchmark's own, by the names that it gives them.

mod entry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::Cache;
use crate::error::{Context, Error, Result};
use crate::storage::{Item, Value};

use super::config::Resources;
use entry::Entry;

/// How many items are gathered before they are sent.
const GATHERED: usize = 100;

/// The most characters that the name of a table may have.
const LONGEST_NAME: usize = 255;

/// What every storage of tables has to remember.
#[derive(Debug)]
pub struct NoSqlState {
    /// Where it is remembered for later commands.
    pub cache: Cache,
    /// The platform's resources, whose tables these are.
    pub resources: Resources,
    /// Of each benchmark the tables that are known and have been there, by the names that it gives them.
    tables: BTreeMap<String, BTreeMap<String, String>>,
    /// The benchmarks whose entry in the cache was looked at.
    looked_up: BTreeSet<String>,
    /// The keys of tables, by their real names.
    keys: BTreeMap<String, Vec<String>>,
    /// What is yet to be sent, by the real names of tables.
    pending: BTreeMap<String, Vec<Item>>,
}

impl NoSqlState {
    /// Nothing is known but the resources, which have an id.
    pub fn new(cache: &Cache, resources: Resources) -> NoSqlState {
        NoSqlState {
            cache: cache.clone(),
            resources,
            tables: BTreeMap::new(),
            looked_up: BTreeSet::new(),
            keys: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    fn note(&mut self, benchmark: &str, table: &str, name: &str) {
        let tables = self.tables.entry(benchmark.to_string()).or_default();
        tables.insert(table.to_string(), name.to_string());
    }

    fn known(&self, benchmark: &str, table: &str) -> Option<String> {
        self.tables.get(benchmark)?.get(table).cloned()
    }

    /// The real name of a table: `sebs-benchmarks-<resources id>-<benchmark>-<table>`.
    ///
    /// Source of the limits: *Naming rules* in the DynamoDB developer guide.
    fn table_name(&self, benchmark: &str, table: &str) -> Result<String> {
        let name = format!("sebs-benchmarks-{}-{benchmark}-{table}", self.resources.id()?);
        let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.len() <= LONGEST_NAME && name.chars().all(is_fine) {
            return Ok(name);
        }
        Err(Error::usage(format!(
            "table `{table}` of benchmark `{benchmark}` would be called `{name}`, but the name of a table has at most \
             {LONGEST_NAME} letters, digits, `_`, `.` and `-`: give the table or the resources another name"
        )))
    }
}

/// Tables of a platform. The required methods are one protocol's; the rest is the same for all.
///
/// The table that a benchmark calls `x` is `sebs-benchmarks-<resources id>-<benchmark>-x`.
pub trait NoSqlStorage {
    /// Name of the storage as the cache has it: `scylladb`.
    fn deployment_name(&self) -> &'static str;

    /// The region; empty where there is none.
    fn region(&self) -> &str;

    /// What tells this storage from another that may have the same name.
    fn identity(&self) -> String;

    /// What it has to remember.
    fn state(&self) -> &NoSqlState;

    /// The same, to be changed.
    fn state_mut(&mut self) -> &mut NoSqlState;

    /// What functions are told of where it is, as environment variables; it may have secrets.
    fn endpoint_envs(&self) -> Vec<(String, String)>;

    /// Makes a table of that real name, whose keys hold text, and waits until it can be used; one that is there is fine.
    ///
    /// # Errors
    /// The storage refused.
    fn make_table(&self, name: &str, primary_key: &str, secondary_key: Option<&str>) -> Result<()>;

    /// Is there a table of that real name?
    ///
    /// # Errors
    /// The storage refused.
    fn exists_table(&self, name: &str) -> Result<bool>;

    /// The real names of all tables.
    ///
    /// # Errors
    /// The storage refused.
    fn list_tables(&self) -> Result<Vec<String>>;

    /// Writes items into a table, by its real name; of those with the same keys the last one counts.
    ///
    /// # Errors
    /// The storage refused.
    fn write_items(&self, name: &str, items: &[Item]) -> Result<()>;

    /// Removes all items of a table, by its real name.
    ///
    /// # Errors
    /// The storage refused.
    fn clear_table(&mut self, name: &str) -> Result<()>;

    /// Removes a table, by its real name.
    ///
    /// # Errors
    /// The storage refused.
    fn remove_table(&mut self, name: &str) -> Result<()>;

    /// What functions are told of it, as environment variables: where it is, and the real name of each table of the
    /// benchmark.
    fn envs(&self, benchmark: &str) -> Vec<(String, String)> {
        let mut envs = self.endpoint_envs();
        let tables = self.get_tables(benchmark).into_iter();
        envs.extend(tables.map(|(table, name)| (format!("NOSQL_STORAGE_TABLE_{table}"), name)));
        envs
    }

    /// Makes a benchmark's table, unless it is known and there. Whether it is there is asked once.
    ///
    /// # Errors
    /// The storage refused, or the cache cannot be read.
    fn create_benchmark_tables(
        &mut self,
        benchmark: &str,
        table: &str,
        primary_key: &str,
        secondary_key: Option<&str>,
    ) -> Result<()> {
        if !self.state().looked_up.contains(benchmark) {
            self.retrieve_cache(benchmark)?;
        }
        let name = match self.state().known(benchmark, table) {
            Some(name) => name,
            None => self.create_table(benchmark, table, primary_key, secondary_key)?,
        };
        let keys = [Some(primary_key), secondary_key].into_iter().flatten().map(str::to_string).collect();
        self.state_mut().keys.insert(name, keys);
        Ok(())
    }

    /// Makes a table, and gives its real name; one that is there is fine.
    ///
    /// # Errors
    /// The storage refused.
    fn create_table(
        &mut self,
        benchmark: &str,
        table: &str,
        primary_key: &str,
        secondary_key: Option<&str>,
    ) -> Result<String> {
        let name = self.state().table_name(benchmark, table)?;
        if !self.exists_table(&name)? {
            log::info!("making table `{name}`");
            self.make_table(&name, primary_key, secondary_key)?;
        }
        self.state_mut().note(benchmark, table, &name);
        Ok(name)
    }

    /// Writes an item, keys and all, into a benchmark's table. It may be sent later, at the latest by
    /// [`NoSqlStorage::flush`]; what could not be sent is tried again then.
    ///
    /// # Errors
    /// There is no such table, the item lacks the text of a key, or the storage refused.
    fn write_to_table(&mut self, benchmark: &str, table: &str, item: Item) -> Result<()> {
        let state = self.state_mut();
        let Some(name) = state.known(benchmark, table) else {
            let known = state.tables.get(benchmark).into_iter().flatten();
            let known: Vec<String> = known.map(|(table, _)| format!("`{table}`")).collect();
            return Err(Error::usage(format!(
                "benchmark `{benchmark}` has no table `{table}`; its `allocate_nosql` names {}",
                if known.is_empty() { "none".to_string() } else { known.join(", ") }
            )));
        };
        for key in state.keys.get(&name).into_iter().flatten() {
            if !matches!(item.get(key), Some(Value::Text(_))) {
                let message = format!("an item for table `{table}` needs a text as its key `{key}`");
                return Err(Error::usage(message));
            }
        }
        let pending = state.pending.entry(name).or_default();
        pending.push(item);
        if pending.len() < GATHERED { Ok(()) } else { self.flush() }
    }

    /// Sends all that was written.
    ///
    /// # Errors
    /// The storage refused.
    fn flush(&mut self) -> Result<()> {
        while let Some((name, items)) = self.state_mut().pending.pop_first() {
            let sent = self.write_items(&name, &items);
            if sent.is_err() {
                // Not lost, even if whoever is told of the error goes on.
                self.state_mut().pending.insert(name.clone(), items);
                return sent.context(|| format!("failed to write items into table `{name}`"));
            }
        }
        Ok(())
    }

    /// The real name of each of a benchmark's tables.
    fn get_tables(&self, benchmark: &str) -> BTreeMap<String, String> {
        self.state().tables.get(benchmark).cloned().unwrap_or_default()
    }

    /// Removes all tables of this resources id, and gives their names; with `dry_run` it only says which.
    ///
    /// # Errors
    /// The storage refused.
    fn cleanup_tables(&mut self, dry_run: bool) -> Result<Vec<String>> {
        let prefix = format!("sebs-benchmarks-{}-", self.state().resources.id()?);
        let benchmarks = self.state().cache.benchmarks()?;
        let mut names = self.list_tables()?;
        names
            .retain(|name| name.strip_prefix(&prefix).is_some_and(|rest| is_of_benchmark(rest, &benchmarks)));
        if dry_run {
            return Ok(names);
        }
        for name in &names {
            self.remove_table(name)?;
            let state = self.state_mut();
            state.pending.remove(name);
            state.tables.values_mut().for_each(|tables| tables.retain(|_, real| real != name));
        }
        Ok(names)
    }

    /// Takes over what the cache knows of a benchmark's tables, if they are of this storage and still there; says whether
    /// it knew any, and all of them are.
    ///
    /// # Errors
    /// The cache or the storage cannot be asked.
    fn retrieve_cache(&mut self, benchmark: &str) -> Result<bool> {
        self.state_mut().looked_up.insert(benchmark.to_string());
        let known = Entry::read(&self.state().cache, self.deployment_name(), benchmark)?;
        let Some(known) = known.filter(|known| known.instance_id == self.identity()) else {
            return Ok(false);
        };
        let mut is_whole = !known.tables.is_empty();
        for (table, name) in &known.tables {
            // Under another resources id it has another name.
            let is_ours = self.state().table_name(benchmark, table).is_ok_and(|ours| ours == *name);
            if is_ours && self.exists_table(name)? {
                self.state_mut().note(benchmark, table, name);
                continue;
            }
            log::debug!("table `{name}`, which the cache knows, is not of these resources, or gone");
            is_whole = false;
        }
        Ok(is_whole)
    }

    /// Writes into the cache what is known of a benchmark's tables.
    ///
    /// # Errors
    /// The cache cannot be written.
    fn update_cache(&mut self, benchmark: &str) -> Result<()> {
        let entry = Entry { tables: self.get_tables(benchmark), instance_id: self.identity() };
        entry.write(&self.state().cache, self.deployment_name(), benchmark)
    }
}

/// Does `rest`, what stands behind the resources id in the name of a table, begin with a benchmark? One of SeBS begins
/// with a number, another is known by name; anything else may be the rest of a longer id.
fn is_of_benchmark(rest: &str, benchmarks: &[String]) -> bool {
    let number = rest.split('.').next().unwrap_or_default();
    let is_numbered = rest.contains('.') && number.len() == 3 && number.bytes().all(|c| c.is_ascii_digit());
    let is_known = |name: &String| rest.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'));
    is_numbered || benchmarks.iter().any(is_known)
}
