//! The rules that all storages of tables share, on one that is a map in memory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::cancel::Cancel;
use crate::files::{self, TempFolder};
use crate::storage::item_from_json;

type Tables = Rc<RefCell<BTreeMap<String, Vec<Item>>>>;

/// Tables in memory.
struct Memory {
    tables: Tables,
    identity: String,
    state: NoSqlState,
    asked: Cell<u32>,
    batches: Cell<u32>,
    refuses: Cell<bool>,
}

impl NoSqlStorage for Memory {
    fn deployment_name(&self) -> &'static str {
        "memory"
    }

    fn region(&self) -> &str {
        ""
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn state(&self) -> &NoSqlState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut NoSqlState {
        &mut self.state
    }

    fn endpoint_envs(&self) -> Vec<(String, String)> {
        vec![("WHERE".into(), "here".into())]
    }

    fn make_table(&self, name: &str, _: &str, _: Option<&str>) -> Result<()> {
        self.tables.borrow_mut().entry(name.to_string()).or_default();
        Ok(())
    }

    fn exists_table(&self, name: &str) -> Result<bool> {
        self.asked.set(self.asked.get() + 1);
        Ok(self.tables.borrow().contains_key(name))
    }

    fn list_tables(&self) -> Result<Vec<String>> {
        Ok(self.tables.borrow().keys().cloned().collect())
    }

    fn write_items(&self, name: &str, items: &[Item]) -> Result<()> {
        if self.refuses.get() {
            return Err(Error::new("the disk is full"));
        }
        self.batches.set(self.batches.get() + 1);
        self.tables.borrow_mut().get_mut(name).unwrap().extend_from_slice(items);
        Ok(())
    }

    fn clear_table(&mut self, name: &str) -> Result<()> {
        self.tables.borrow_mut().get_mut(name).unwrap().clear();
        Ok(())
    }

    fn remove_table(&mut self, name: &str) -> Result<()> {
        self.tables.borrow_mut().remove(name).unwrap();
        Ok(())
    }
}

/// A cache and a server.
struct Setting {
    folder: TempFolder,
    tables: Tables,
}

const TABLE: &str = "sebs-benchmarks-local-1-b-cart";

impl Setting {
    fn new() -> Setting {
        Setting { folder: TempFolder::create().unwrap(), tables: Tables::default() }
    }

    /// What another process has of the tables.
    fn storage(&self, id: &str, identity: &str) -> Memory {
        let cache = Cache::open(self.folder.path(), &Cancel::new()).unwrap();
        let mut resources = Resources::load("local", Some(id), &cache).unwrap();
        resources.choose_id(&cache, "local", &[]).unwrap();
        Memory {
            tables: self.tables.clone(),
            identity: identity.to_string(),
            state: NoSqlState::new(&cache, resources),
            asked: Cell::new(0),
            batches: Cell::new(0),
            refuses: Cell::new(false),
        }
    }

    fn first(&self) -> Memory {
        self.storage("local-1", "a")
    }
}

fn make(storage: &mut Memory) {
    storage.create_benchmark_tables("b", "cart", "id", Some("at")).unwrap();
    storage.update_cache("b").unwrap();
}

fn item(json: &str) -> Item {
    item_from_json(json).unwrap()
}

#[test]
fn a_table_is_made_once_found_by_the_cache_and_made_again_where_it_is_gone() {
    let setting = Setting::new();
    let mut storage = setting.first();
    make(&mut storage);
    make(&mut storage);
    assert_eq!(storage.asked.get(), 1);
    let envs = [("WHERE", "here"), ("NOSQL_STORAGE_TABLE_cart", TABLE)];
    assert_eq!(storage.envs("b"), envs.map(|(name, value)| (name.to_string(), value.to_string())));
    assert_eq!(storage.envs("other").len(), 1);
    let record: serde_json::Value = files::read_json(&setting.folder.path().join("b/config.json")).unwrap();
    let expected = serde_json::json!({"tables": {"cart": TABLE}, "instance_id": "a"});
    assert_eq!(record["memory"]["nosql"], expected);

    let mut later = setting.first();
    assert!(later.retrieve_cache("b").unwrap());
    assert_eq!(later.get_tables("b")["cart"], TABLE);
    let mut later = setting.first();
    setting.tables.borrow_mut().clear();
    assert!(!later.retrieve_cache("b").unwrap());
    make(&mut later);
    assert!(setting.tables.borrow().contains_key(TABLE));
}

#[test]
fn the_cache_speaks_only_of_its_own_storage_and_resources() {
    let setting = Setting::new();
    make(&mut setting.first());
    assert!(!setting.storage("local-1", "another").retrieve_cache("b").unwrap());
    let mut second = setting.storage("local-2", "a");
    assert!(!second.retrieve_cache("b").unwrap());
    make(&mut second);
    assert_eq!(second.get_tables("b")["cart"], "sebs-benchmarks-local-2-b-cart");
    assert_eq!(setting.tables.borrow().len(), 2);
    make(&mut setting.first());
    assert_eq!(setting.tables.borrow().len(), 2);
}

#[test]
fn items_are_sent_together_and_none_is_lost() {
    let setting = Setting::new();
    let mut storage = setting.first();
    make(&mut storage);
    for number in 0..GATHERED + 1 {
        storage.write_to_table("b", "cart", item(&format!(r#"{{"id": "{number}", "at": "0"}}"#))).unwrap();
    }
    assert_eq!((storage.batches.get(), setting.tables.borrow()[TABLE].len()), (1, GATHERED));
    storage.refuses.set(true);
    let error = storage.flush().unwrap_err().to_string();
    assert!(error.contains(TABLE) && error.contains("the disk is full"), "{error}");
    storage.refuses.set(false);
    storage.flush().unwrap();
    storage.flush().unwrap();
    assert_eq!((storage.batches.get(), setting.tables.borrow()[TABLE].len()), (2, GATHERED + 1));
}

#[test]
fn a_wrong_item_is_refused_at_once() {
    let setting = Setting::new();
    let mut storage = setting.first();
    make(&mut storage);
    for (table, json, told) in [
        ("log", "{}", "has no table `log`; its `allocate_nosql` names `cart`"),
        ("cart", r#"{"id": "1"}"#, "needs a text as its key `at`"),
        ("cart", r#"{"id": 1, "at": "0"}"#, "needs a text as its key `id`"),
    ] {
        let error = storage.write_to_table("b", table, item(json)).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(told), "{error}");
    }
    assert!(storage.write_to_table("c", "cart", item("{}")).unwrap_err().to_string().contains("none"));
    for table in ["é".to_string(), "x".repeat(250)] {
        let error = storage.create_table("b", &table, "id", None).unwrap_err().to_string();
        assert!(error.contains(&table) && error.contains("255"), "{error}");
    }
}

#[test]
fn only_tables_of_this_resources_id_are_removed() {
    let setting = Setting::new();
    let mut storage = setting.storage("local", "a");
    make(&mut storage);
    storage.create_benchmark_tables("130.crud-api", "cart", "id", None).unwrap();
    // The ids of others begin with ours.
    for other in ["local-1", "local-0123abcd"] {
        setting.storage(other, "a").create_benchmark_tables("130.crud-api", "cart", "id", None).unwrap();
    }
    storage.make_table("somebody-elses", "id", None).unwrap();
    let ours = storage.cleanup_tables(true).unwrap();
    assert_eq!(ours, ["sebs-benchmarks-local-130.crud-api-cart", "sebs-benchmarks-local-b-cart"]);
    assert_eq!(setting.tables.borrow().len(), 5);
    assert_eq!(storage.cleanup_tables(false).unwrap(), ours);
    assert_eq!(setting.tables.borrow().len(), 3);
    assert!(storage.get_tables("b").is_empty());
    make(&mut storage);
    assert_eq!(setting.tables.borrow().len(), 4);
}
