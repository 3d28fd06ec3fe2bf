//! The client of tables against a real dynoxide in a container, beside boto3.

use std::collections::BTreeSet;

use sebs_lite::cancel::Cancel;
use sebs_lite::storage::{DynamoClient, Item, item_from_json};

use crate::storage_servers::{Kind, PASS, Proxy, SECRET_KEY, Server, boto3, table_options};
use crate::support::engine;

fn item(json: &str) -> Item {
    item_from_json(json).unwrap()
}

/// Items with a number each, of two hundred bytes and more.
fn numbered(count: usize) -> Vec<Item> {
    let filling = "x".repeat(200);
    (0..count)
        .map(|n| item(&format!(r#"{{"id":"{}","at":"{n:05}","number":{n},"text":"{filling}"}}"#, n % 7)))
        .collect()
}

/// What tells items apart.
fn places(items: &[Item]) -> BTreeSet<String> {
    items.iter().map(|item| format!("{:?}", item["at"])).collect()
}

#[test]
fn tables_come_and_go_and_are_listed_by_pages() {
    let Some(engine) = engine() else { return };
    let server = Server::start(&engine, Kind::Dynoxide);
    let tables = server.tables();
    assert_eq!(tables.list_tables().unwrap(), [""; 0]);
    // More than the hundred that one page has.
    let names: Vec<String> = (0..130).map(|number| format!("table-{number:03}")).collect();
    names.iter().for_each(|name| tables.create_table(name, "id", Some("at")).unwrap());
    assert_eq!(tables.list_tables().unwrap(), names);
    assert!(tables.table_exists("table-000").unwrap());
    assert!(!tables.table_exists("another").unwrap());
    assert!(tables.create_table("table-000", "id", None).unwrap_err().is_conflict());
    tables.delete_table("table-000").unwrap();
    assert!(!tables.table_exists("table-000").unwrap());
    let missing = tables.delete_table("table-000").unwrap_err();
    assert!(missing.is_not_found() && missing.to_string().contains("`table-000`"), "{missing}");
    assert!(tables.put_item("table-000", &item(r#"{"id":"a"}"#)).unwrap_err().is_not_found());
    assert_eq!(tables.list_tables().unwrap(), names[1..]);
    server.remove();
}

#[test]
fn an_item_comes_back_with_all_its_types_and_digits() {
    let Some(engine) = engine() else { return };
    let server = Server::start(&engine, Kind::Dynoxide);
    let tables = server.tables();
    tables.create_table("items", "id", Some("at")).unwrap();
    let key = item(r#"{"id":"ünï/コード 😀","at":"\"quoted\"\n"}"#);
    assert_eq!(tables.get_item("items", &key).unwrap(), None);
    let rest = item(
        r#"{"text":"e\u0301\u0000","empty":"","yes":true,"no":false,"nothing":null,
            "small":-0.00000000000000000000000000000000000001,"digits":12345678901234567890123456789012345678,
            "list":[1,"two",[3.5,null],{"four":4}],"object":{"a":{"b":[]},"c":{}}}"#,
    );
    let mut whole = key.clone();
    whole.extend(rest);
    tables.put_item("items", &whole).unwrap();
    let back = tables.get_item("items", &key).unwrap().unwrap();
    let (digits, small) = ("12345678901234567890123456789012345678", 1e-38);
    assert_eq!(back["digits"].to_json(), digits);
    // The server may write the same number in another way.
    assert_eq!(-back["small"].to_json().parse::<f64>().unwrap(), small);
    whole.insert("small".to_string(), back["small"].clone());
    assert_eq!(back, whole);

    let updates = item(r#"{"yes":[],"size":1e30,"object":{"new":9007199254740993}}"#);
    tables.update_item("items", &key, &updates).unwrap();
    let back = tables.get_item("items", &key).unwrap().unwrap();
    assert_eq!(
        (back["object"].to_json().as_str(), &back["text"]),
        (r#"{"new":9007199254740993}"#, &whole["text"])
    );
    assert_eq!(back["size"].to_json().parse::<f64>().unwrap(), 1e30);
    // Where there is none, it is made.
    let other = item(r#"{"id":"other","at":"x"}"#);
    tables.update_item("items", &other, &item(r#"{"n":1}"#)).unwrap();
    assert_eq!(tables.scan("items").unwrap().len(), 2);
    tables.delete_item("items", &other).unwrap();
    tables.delete_item("items", &other).unwrap();
    assert_eq!(tables.get_item("items", &other).unwrap(), None);
    let wrong = tables.put_item("items", &item(r#"{"id":"a"}"#)).unwrap_err().to_string();
    assert!(wrong.contains("PutItem of table `items`: ValidationException"), "{wrong}");
    server.remove();
}

#[test]
fn thousands_of_items_are_written_in_batches_and_read_by_pages() {
    let Some(engine) = engine() else { return };
    // In memory: this is no test of the disk.
    let server = Server::start_with(&engine, Kind::Dynoxide, |spec| {
        spec.host_config.tmpfs.insert("/data".to_string(), "mode=1777".to_string());
    });
    let tables = server.tables();
    tables.create_table("many", "id", Some("at")).unwrap();
    let mut items = numbered(5000);
    tables.write_batch("many", &items).unwrap();
    let found = tables.scan("many").unwrap();
    assert_eq!((found.len(), places(&found)), (5000, places(&items)));
    items.retain(|item| item["id"].to_json() == "\"3\"");
    assert_eq!(tables.query("many", "id", "3").unwrap(), items);
    assert_eq!(tables.query("many", "id", "none").unwrap(), []);
    // More than the MiB that one page has, in the order of the second key.
    let filling = "y".repeat(100_000);
    let large: Vec<Item> =
        (0..25).map(|n| item(&format!(r#"{{"id":"large","at":"{n:02}","text":"{filling}"}}"#))).collect();
    large.iter().for_each(|item| tables.put_item("many", item).unwrap());
    assert!(tables.query("many", "id", "large").unwrap() == large);
    assert_eq!(tables.clear_table("many").unwrap(), 5025);
    assert_eq!(tables.scan("many").unwrap(), []);
    assert_eq!(tables.clear_table("many").unwrap(), 0);
    server.remove();
}

#[test]
fn a_server_that_dies_in_mid_batch_loses_nothing_that_was_written() {
    let Some(engine) = engine() else { return };
    let mut server = Server::start(&engine, Kind::Dynoxide);
    server.tables().create_table("many", "id", Some("at")).unwrap();
    let proxy = Proxy::start(&server.address, PASS, PASS);
    let items = numbered(5000);
    let tables = DynamoClient::new(table_options(&proxy.address), &Cancel::new()).unwrap();
    let written = std::thread::scope(|scope| {
        let batch = scope.spawn(|| tables.write_batch("many", &items));
        proxy.wait_for(300_000, || !batch.is_finished());
        server.kill();
        server.start_again();
        proxy.lead_to(&server.address);
        batch.join().unwrap()
    });
    // It is back before the client gives up, unless this machine has a lot to do.
    if let Err(error) = written {
        assert!(
            error.is_disconnected() && error.to_string().contains("BatchWriteItem of table `many`"),
            "{error}"
        );
        tables.write_batch("many", &items).unwrap();
    }
    let found = server.tables().scan("many").unwrap();
    assert_eq!((found.len(), places(&found)), (5000, places(&items)));

    server.kill();
    let error = tables.write_batch("many", &items).unwrap_err();
    assert!(error.is_disconnected() && error.to_string().contains("`many`"), "{error}");
    assert!(!error.to_string().contains(SECRET_KEY), "{error}");
    server.remove();
}

#[test]
fn what_answers_there_may_be_no_server_of_tables() {
    let Some(engine) = engine() else { return };
    let server = Server::start(&engine, Kind::JuiceFs);
    let error = server.tables().list_tables().unwrap_err().to_string();
    assert!(error.contains("ListTables") && error.contains(&server.address), "{error}");
    assert!(!error.contains(SECRET_KEY), "{error}");
    server.remove();
}

#[test]
fn another_client_reads_what_was_written_and_the_other_way_round() {
    let Some(engine) = engine() else { return };
    let server = Server::start(&engine, Kind::Dynoxide);
    let tables = server.tables();
    tables.create_table("ours", "id", Some("at")).unwrap();
    tables.create_table("theirs", "id", None).unwrap();
    let ours = item(
        r#"{"id":"a","at":"ü 😀","n":-12.5,"digits":12345678901234567890123456789012345678,
            "list":[true,null,{"x":[""]}],"object":{}}"#,
    );
    tables.put_item("ours", &ours).unwrap();
    let seen = boto3(
        &server,
        "print(json.dumps(tables.scan(TableName='ours')['Items']))\n\
         tables.put_item(TableName='theirs', Item={'id': {'S': 'b'}, 'n': {'N': '1e-5'}, 'bytes': {'B': b'\\0\\xff'},\n    \
             'texts': {'SS': ['x', 'y']}, 'numbers': {'NS': ['98765432109876543210987654321098765432']},\n    \
             'none': {'NULL': True}, 'map': {'M': {'deep': {'L': [{'BOOL': False}]}}}})\n",
    );
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(
        seen,
        serde_json::json!([{
            "id": {"S": "a"}, "at": {"S": "ü 😀"}, "n": {"N": "-12.5"},
            "digits": {"N": "12345678901234567890123456789012345678"},
            "list": {"L": [{"BOOL": true}, {"NULL": true}, {"M": {"x": {"L": [{"S": ""}]}}}]},
            "object": {"M": {}},
        }])
    );
    let mut theirs = tables.get_item("theirs", &item(r#"{"id":"b"}"#)).unwrap().unwrap();
    assert_eq!(theirs.remove("n").unwrap().to_json().parse::<f64>().unwrap(), 1e-5);
    let expected = r#"{"id":"b","bytes":"AP8=","texts":["x","y"],"none":null,"map":{"deep":[false]},
        "numbers":[98765432109876543210987654321098765432]}"#;
    assert_eq!(theirs, item(expected));
    server.remove();
}
