//! A benchmark's tables in a real dynoxide: made once, made again where one is gone, and filled by its script.

use sebs_lite::docker::Engine;
use sebs_lite::storage::{EngineType, StorageFile, Value, item_from_json};
use serde_json::json;

use crate::platform_storage::{GENERATE, Server, Setting, record};
use crate::support::engine;

const TABLE: &str = "sebs-benchmarks-local-one-100.x-cart";

fn setting(engine: &Engine, server: &Server) -> Setting {
    let nosql = Some(server.external(EngineType::DynamoDb));
    let mut setting = Setting::new(engine, StorageFile { object: None, nosql });
    setting.options.resources_id = Some("local-one".to_string());
    setting
}

/// A script whose lines write.
fn script(lines: &[&str]) -> String {
    format!(
        "{GENERATE}    {}\n    return {{}}\n\
         def allocate_nosql():\n    return {{'cart': {{'primary_key': 'id', 'secondary_key': 'at'}}}}\n",
        lines.join("\n    ")
    )
}

#[test]
fn a_script_fills_its_table_with_all_digits_and_the_last_of_each_key() {
    let Some(engine) = engine() else { return };
    let server = Server::of_tables(&engine);
    let setting = setting(&engine, &server);
    let script = script(&[
        "for i in range(260):",
        "    nosql('100.x', 'cart', {'n': i, 'huge': 3 ** 60}, ('id', str(i % 130)), ('at', 'now'))",
    ]);
    let mut resources = setting.resources();
    assert_eq!(setting.prepare(&script, &mut resources).unwrap(), json!({}));
    let items = server.tables().scan(TABLE).unwrap();
    assert_eq!(items.len(), 130);
    let key = item_from_json(r#"{"id": "7", "at": "now"}"#).unwrap();
    let item = server.tables().get_item(TABLE, &key).unwrap().unwrap();
    assert_eq!(
        Value::Object(item).to_json(),
        r#"{"at":"now","huge":42391158275216203514294433201,"id":"7","n":137}"#
    );
    let envs = resources.envs("100.x");
    assert!(envs.contains(&("NOSQL_STORAGE_TABLE_cart".to_string(), TABLE.to_string())), "{envs:?}");
    assert!(envs[1].1.starts_with("storage.invalid:"), "{envs:?}");
    let entry = record(&setting.cache_folder().join("100.x/config.json"));
    assert_eq!(entry["scylladb"]["nosql"]["tables"], json!({ "cart": TABLE }));
    server.remove();
}

#[test]
fn a_table_is_there_for_whoever_comes_next() {
    let Some(engine) = engine() else { return };
    let server = Server::of_tables(&engine);
    let mut setting = setting(&engine, &server);
    let script = script(&["nosql('100.x', 'cart', {}, ('id', size), ('at', 'now'))"]);
    // Others make the same table at the same time.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut resources = setting.resources();
                let tables = resources.get_nosql_storage().unwrap();
                tables.create_benchmark_tables("100.x", "cart", "id", Some("at")).unwrap();
                tables.update_cache("100.x").unwrap();
            });
        }
    });
    assert_eq!(server.tables().list_tables().unwrap(), [TABLE]);
    setting.prepare(&script, &mut setting.resources()).unwrap();
    let mut resources = setting.resources();
    assert!(resources.get_nosql_storage().unwrap().retrieve_cache("100.x").unwrap());
    resources.get_nosql_storage().unwrap().clear_table(TABLE).unwrap();
    assert_eq!(server.tables().scan(TABLE).unwrap(), []);

    server.tables().delete_table(TABLE).unwrap();
    setting.prepare(&script, &mut setting.resources()).unwrap();
    assert_eq!(server.tables().scan(TABLE).unwrap().len(), 1);

    setting.options.resources_id = Some("local-two".to_string());
    let mut second = setting.resources();
    setting.prepare(&script, &mut second).unwrap();
    let other = "sebs-benchmarks-local-two-100.x-cart";
    assert_eq!(second.get_nosql_storage().unwrap().get_tables("100.x")["cart"], other);
    assert_eq!(second.get_nosql_storage().unwrap().cleanup_tables(true).unwrap(), [other]);
    assert_eq!(server.tables().list_tables().unwrap().len(), 2);
    second.get_nosql_storage().unwrap().cleanup_tables(false).unwrap();
    assert_eq!(server.tables().list_tables().unwrap(), [TABLE]);

    let other = Server::of_tables(&engine);
    setting.options.resources_id = None;
    setting.options.configured.nosql = Some(other.external(EngineType::DynamoDb));
    setting.prepare(&script, &mut setting.resources()).unwrap();
    assert_eq!(other.tables().scan(TABLE).unwrap().len(), 1);
    server.remove();
    other.remove();
}

#[test]
fn a_script_hears_of_a_wrong_item_and_the_user_of_one_that_is_refused() {
    let Some(engine) = engine() else { return };
    let server = Server::of_tables(&engine);
    let setting = setting(&engine, &server);
    let caught = script(&[
        "try:",
        "    nosql('100.x', 'cart', {}, ('id', 1), ('at', 'now'))",
        "except Exception as error:",
        "    return {'caught': str(error)}",
    ]);
    let input = setting.prepare(&caught, &mut setting.resources()).unwrap();
    assert!(input["caught"].as_str().unwrap().contains("needs a text as its key `id`"), "{input}");
    let uncaught = script(&["nosql('100.x', 'log', {}, ('id', '1'))"]);
    let error = setting.prepare(&uncaught, &mut setting.resources()).unwrap_err().to_string();
    assert!(error.contains("no table `log`") && error.contains("input.py"), "{error}");
    // An empty text is none for a key; only the server knows.
    let refused = script(&["nosql('100.x', 'cart', {}, ('id', ''), ('at', 'now'))"]);
    let error = setting.prepare(&refused, &mut setting.resources()).unwrap_err().to_string();
    assert!(error.contains(&format!("failed to write items into table `{TABLE}`")), "{error}");
    server.remove();
}
