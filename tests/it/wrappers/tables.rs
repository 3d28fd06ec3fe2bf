//! The wrapper `nosql` against a real server of tables, and against connections that fail.

use serde_json::{Value, json};

use super::relay::{BUSY, Fault, Relay};
use super::{Driver, interpreters};
use crate::storage_servers::{Kind, Server};
use crate::support;
use crate::wire::Interpreter;

fn driver(interpreter: &Interpreter, address: &str, real_table: &str) -> Driver {
    let environment = [
        ("NOSQL_STORAGE_TYPE", "scylladb"),
        ("NOSQL_STORAGE_ENDPOINT", address),
        ("NOSQL_STORAGE_TABLE_shopping_cart", real_table),
        ("NOSQL_STORAGE_TABLE_Single-Key", "single"),
        ("NOSQL_STORAGE_TABLE_gone", "no-such-table"),
    ];
    Driver::start(interpreter, &environment)
}

/// Values of every kind, as the drivers write them.
fn values() -> Value {
    json!({
        "text": "ünï 😀 \"quoted\" \u{1}",
        "empty": "",
        "whole": -42,
        "zero": 0,
        "fraction": 0.1,
        "third": 0.333_333_333_333_333_3,
        "tiny": 1.5e-100,
        "large": 1.25e20,
        "exact": {"$int": "12345678901234567890123456789012345678"},
        "beyond": {"$int": "9007199254740993"},
        "yes": true,
        "no": false,
        "nothing": null,
        "bytes": {"$bytes": "00ff10"},
        "list": [1, "two", [3.5, null], {"four": [true]}],
        "map": {"status": {"deep": {"er": [{"$bytes": ""}, {}]}}},
        "words": {"$set": ["a", "b"]},
        "numbers": {"$set": [1, 2.5]},
    })
}

#[test]
fn values_of_every_kind_come_back_as_they_were() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::Dynoxide);
    for (number, interpreter) in interpreters().enumerate() {
        let table = format!("values-{number}");
        server.tables().create_table(&table, "cart_id", Some("product_id")).unwrap();
        let mut driver = driver(interpreter, &server.address, &table);
        let (first, second) = (json!(["cart_id", "c"]), json!(["product_id", "p"]));
        let mut expected = values();
        driver.call("nosql", "insert", json!(["shopping_cart", first, second, expected]));
        expected["cart_id"] = json!("c");
        expected["product_id"] = json!("p");
        // A whole number that a float holds is that number.
        expected["large"] = json!({"$int": "125000000000000000000"});
        let found = driver.call("nosql", "get", json!(["shopping_cart", first, second]));
        assert_eq!(found, expected, "{}", driver.about);

        let decimals =
            json!({"price": {"$decimal": "1.50"}, "total": {"$decimal": "2E+3"}, "status": "#new"});
        driver.call("nosql", "update", json!(["shopping_cart", first, second, decimals]));
        for (name, value) in [("price", json!(1.5)), ("total", json!(2000)), ("status", json!("#new"))] {
            expected[name] = value;
        }
        let found = driver.call("nosql", "get", json!(["shopping_cart", first, second]));
        assert_eq!(found, expected, "{}", driver.about);
        let queried = driver.call("nosql", "query", json!(["shopping_cart", first, "product_id"]));
        assert_eq!(queried, json!([expected]), "{}", driver.about);

        // An insert replaces, an update adds or makes, a delete of nothing is fine.
        driver.call("nosql", "insert", json!(["shopping_cart", first, second, {"only": 1}]));
        let found = driver.call("nosql", "get", json!(["shopping_cart", first, second]));
        assert_eq!(found, json!({"cart_id": "c", "product_id": "p", "only": 1}));
        let other = json!(["product_id", "a"]);
        driver.call("nosql", "update", json!(["shopping_cart", first, other, {"made": true}]));
        driver.call("nosql", "update", json!(["shopping_cart", first, other, {}]));
        let queried = driver.call("nosql", "query", json!(["shopping_cart", first, "product_id"]));
        assert_eq!(queried[0], json!({"cart_id": "c", "product_id": "a", "made": true}));
        assert_eq!(queried.as_array().unwrap().len(), 2);
        for _ in 0..2 {
            driver.call("nosql", "delete", json!(["shopping_cart", first, second]));
        }
        let missing = driver.refused("nosql", "get", json!(["shopping_cart", first, second]));
        assert!([missing.kind.as_str(), missing.code.as_str()].contains(&"KeyError"), "{missing:?}");
        assert!(
            missing.text.contains("`shopping_cart`") && missing.text.contains("product_id"),
            "{missing:?}"
        );
        let none = driver.call("nosql", "query", json!(["shopping_cart", ["cart_id", "x"], "product_id"]));
        assert_eq!(none, json!([]));
        driver.end();
    }
    server.container.remove().unwrap();
}

#[test]
fn a_query_reads_every_page() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::Dynoxide);
    server.tables().create_table("pages", "id", Some("number")).unwrap();
    for (count, interpreter) in interpreters().enumerate() {
        let relay = Relay::start(&server.address, &[]);
        let mut driver = driver(interpreter, &relay.address, "pages");
        let id = json!(["id", format!("{count}")]);
        // A page has 1 MiB at most.
        let text = "x".repeat(300_000);
        for number in 0..9 {
            let key = json!(["number", format!("{number}")]);
            driver.call("nosql", "insert", json!(["shopping_cart", id, key, {"text": text}]));
        }
        let items = driver.call("nosql", "query", json!(["shopping_cart", id, "number"]));
        let numbers: Vec<&str> =
            items.as_array().unwrap().iter().map(|item| item["number"].as_str().unwrap()).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4", "5", "6", "7", "8"], "{}", driver.about);
        assert_eq!(relay.connections(), 1, "{}", driver.about);
    }
    server.container.remove().unwrap();
}

/// How DynamoDB says that it has too much to do.
const THROTTLED: Fault = Fault::Answer(
    "400 Bad Request",
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}"#,
);

#[test]
fn a_table_may_have_one_key_and_a_refusal_carries_the_words_of_the_server() {
    let Some(engine) = support::engine() else { return };
    let server = Server::start(&engine, Kind::Dynoxide);
    server.tables().create_table("single", "id", None).unwrap();
    for interpreter in interpreters() {
        let relay = Relay::start(&server.address, &[THROTTLED, Fault::Cut, BUSY]);
        let mut driver = driver(interpreter, &relay.address, "single");
        let id = json!(["id", "1"]);
        driver.call("nosql", "insert", json!(["Single-Key", id, null, {"a": 1}]));
        assert_eq!(relay.connections(), 4, "{}", driver.about);
        driver.call("nosql", "update", json!(["Single-Key", id, null, {"a": 2}]));
        let found = driver.call("nosql", "get", json!(["Single-Key", id, null]));
        assert_eq!(found, json!({"id": "1", "a": 2}));
        driver.call("nosql", "delete", json!(["Single-Key", id, null]));

        let error = driver.refused("nosql", "get", json!(["gone", id, null]));
        assert_eq!(error.code, "ResourceNotFoundException", "{error:?}");
        assert!(error.kind == "ServerError" && error.text.contains("GetItem of table `gone`"), "{error:?}");
        let error = driver.refused("nosql", "insert", json!(["Single-Key", ["wrong", "1"], null, {}]));
        assert_eq!(error.code, "ValidationException", "{error:?}");
        let error = driver.refused("nosql", "insert", json!(["Single-Key", id, null, {"a": {"$set": []}}]));
        assert!(error.kind == "TypeError" && error.text.contains("elements"), "{error:?}");
        let error = driver.refused("nosql", "insert", json!(["unknown", id, null, {}]));
        assert!(error.text.contains("NOSQL_STORAGE_TABLE_unknown"), "{error:?}");
    }
    server.container.remove().unwrap();
}
