//! What the client sends, and how it meets each answer, against a server of canned answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;
use crate::storage::value::item_from_json;

const SECRET: &str = "a-very-secret-key";

/// What the server does with a request.
enum Reply {
    /// Answers with a status and a body.
    Say(u16, String),
    /// Sends this and closes the connection.
    Cut(&'static str),
    /// Keeps silent until the client goes.
    Nothing,
}

/// A request as it came: its operation, its body, its headers.
struct Came {
    operation: String,
    body: serde_json::Value,
    headers: BTreeMap<String, String>,
}

/// A client, and a server that gives one reply after the other and tells of each request.
fn client(replies: Vec<Reply>) -> (DynamoClient, Cancel, Receiver<Came>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, came) = channel();
    std::thread::spawn(move || {
        let mut replies = replies.into_iter().peekable();
        while replies.peek().is_some() {
            let (stream, _) = listener.accept().unwrap();
            serve(&stream, &mut replies, &told);
        }
    });
    let cancel = Cancel::new();
    let options = DynamoOptions {
        address,
        access_key: "access".to_string(),
        secret_key: SECRET.to_string(),
        region: "us-east-1".to_string(),
    };
    let mut client = DynamoClient::new(options, &cancel).unwrap();
    client.caller.first_pause = Duration::from_millis(1);
    (client, cancel, came)
}

/// Answers the requests of one connection, until it ends or a reply ends it.
fn serve(stream: &TcpStream, replies: &mut impl Iterator<Item = Reply>, told: &Sender<Came>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut headers = BTreeMap::new();
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        assert_eq!(line, "POST / HTTP/1.1\r\n");
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_string()),
                None => break,
            };
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let operation = headers["x-amz-target"].strip_prefix("DynamoDB_20120810.").unwrap().to_string();
        let _ = told.send(Came { operation, body: serde_json::from_slice(&body).unwrap(), headers });
        match replies.next() {
            Some(Reply::Say(status, body)) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
                (&mut &*stream).write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
            Some(Reply::Nothing) => drop(reader.read_to_end(&mut Vec::new())),
            Some(Reply::Cut(part)) => return (&mut &*stream).write_all(part.as_bytes()).unwrap(),
            None => return,
        }
    }
}

fn say(body: &str) -> Reply {
    Reply::Say(200, body.to_string())
}

fn refuse(name: &str) -> Reply {
    Reply::Say(
        400,
        format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{name}","message":"no, {SECRET}"}}"#),
    )
}

fn item(json: &str) -> Item {
    item_from_json(json).unwrap()
}

const DESCRIBED: &str = r#"{"Table":{"TableStatus":"ACTIVE","KeySchema":[
    {"AttributeName":"id","KeyType":"HASH"},{"AttributeName":"at","KeyType":"RANGE"}]}}"#;

#[test]
fn a_request_is_signed_and_carries_the_item_with_its_types() {
    let (client, _, came) = client(vec![say("{}")]);
    client.put_item("t", &item(r#"{"id":"a","n":12345678901234567890.123}"#)).unwrap();
    let came = came.recv().unwrap();
    assert_eq!(came.operation, "PutItem");
    let expected =
        json!({"TableName": "t", "Item": {"id": {"S": "a"}, "n": {"N": "12345678901234567890.123"}}});
    assert_eq!(came.body, expected);
    assert_eq!(came.headers["content-type"], "application/x-amz-json-1.0");
    let authorization = &came.headers["authorization"];
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=access/"), "{authorization}");
    assert!(
        authorization.contains(
            "/us-east-1/dynamodb/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target, "
        ),
        "{authorization}"
    );
    assert!(came.headers["host"].starts_with("127.0.0.1:"));
}

#[test]
fn a_table_is_made_and_waited_for_and_a_removed_one_too() {
    let status = |status: &str| say(&format!(r#"{{"Table":{{"TableStatus":"{status}"}}}}"#));
    let replies = vec![
        say("{}"),
        refuse("ResourceNotFoundException"),
        status("CREATING"),
        status("ACTIVE"),
        say("{}"),
        status("DELETING"),
        refuse("ResourceNotFoundException"),
    ];
    let (client, _, came) = client(replies);
    client.create_table("t", "id", Some("at")).unwrap();
    client.delete_table("t").unwrap();
    let came: Vec<Came> = came.try_iter().collect();
    let operations: Vec<&str> = came.iter().map(|came| came.operation.as_str()).collect();
    let looks = "DescribeTable";
    assert_eq!(operations, ["CreateTable", looks, looks, looks, "DeleteTable", looks, looks]);
    let made = json!({
        "TableName": "t", "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
        "AttributeDefinitions": [
            {"AttributeName": "id", "AttributeType": "S"}, {"AttributeName": "at", "AttributeType": "S"}],
    });
    assert_eq!(came[0].body, made);
}

#[test]
fn a_table_exists_unless_it_is_not_found_or_about_to_go() {
    let (client, _, _came) = client(vec![
        say(DESCRIBED),
        say(r#"{"Table":{"TableStatus":"DELETING"}}"#),
        refuse("ResourceNotFoundException"),
        refuse("AccessDeniedException"),
    ]);
    assert!(client.table_exists("t").unwrap());
    assert!(!client.table_exists("t").unwrap());
    assert!(!client.table_exists("t").unwrap());
    assert!(client.table_exists("t").is_err());
}

#[test]
fn an_update_names_everything_beside_its_expression() {
    let (client, _, came) = client(vec![say("{}"), say("{}")]);
    client.update_item("t", &item(r#"{"id":"a"}"#), &item(r#"{"size":1,"name":null}"#)).unwrap();
    let expected = json!({
        "TableName": "t", "Key": {"id": {"S": "a"}},
        "UpdateExpression": "SET #n0 = :v0, #n1 = :v1",
        "ExpressionAttributeNames": {"#n0": "name", "#n1": "size"},
        "ExpressionAttributeValues": {":v0": {"NULL": true}, ":v1": {"N": "1"}},
    });
    assert_eq!(came.recv().unwrap().body, expected);
    client.update_item("t", &item(r#"{"id":"a"}"#), &Item::new()).unwrap();
    assert_eq!(came.recv().unwrap().body, json!({"TableName": "t", "Key": {"id": {"S": "a"}}}));
}

#[test]
fn all_pages_are_read_each_from_where_the_last_ended() {
    let (client, _, came) = client(vec![
        say(r#"{"Items":[{"id":{"S":"a"}}],"LastEvaluatedKey":{"id":{"S":"a"}}}"#),
        say(r#"{"Items":[],"LastEvaluatedKey":{"id":{"S":"b"}}}"#),
        say(r#"{"Items":[{"id":{"S":"c"}}],"Count":1}"#),
        say(r#"{"TableNames":["x"],"LastEvaluatedTableName":"x"}"#),
        say(r#"{"TableNames":["y"]}"#),
    ]);
    assert_eq!(client.query("t", "id", "k").unwrap(), [item(r#"{"id":"a"}"#), item(r#"{"id":"c"}"#)]);
    assert_eq!(client.list_tables().unwrap(), ["x", "y"]);
    let starts: Vec<_> = came.try_iter().map(|came| came.body).collect();
    assert_eq!(starts[0].get("ExclusiveStartKey"), None);
    assert_eq!(starts[0]["ExpressionAttributeValues"], json!({":v": {"S": "k"}}));
    assert_eq!(starts[1]["ExclusiveStartKey"], json!({"id": {"S": "a"}}));
    assert_eq!(starts[2]["ExclusiveStartKey"], json!({"id": {"S": "b"}}));
    assert_eq!(starts[4]["ExclusiveStartTableName"], "x");
}

#[test]
fn a_server_whose_pages_have_no_end_is_given_up() {
    let page = r#"{"Items":[],"LastEvaluatedKey":{"id":{"S":"a"}}}"#;
    let (client, _, _came) = client(vec![say(page), say(page)]);
    let error = client.scan("t").unwrap_err().to_string();
    assert!(error.contains("Scan of table `t`") && error.contains("same key"), "{error}");
}

#[test]
fn a_batch_has_25_items_and_sends_the_unprocessed_again() {
    let unprocessed =
        r#"{"UnprocessedItems":{"t":[{"PutRequest":{"Item":{"id":{"S":"3"},"at":{"S":"x"}}}}]}}"#;
    let (client, _, came) = client(vec![say(DESCRIBED), say(unprocessed), say("{}"), say("{}")]);
    let mut items: Vec<Item> = (0..30).map(|n| item(&format!(r#"{{"id":"{n}","at":"x","v":1}}"#))).collect();
    items.push(item(r#"{"id":"0","at":"x","v":2}"#));
    client.write_batch("t", &items).unwrap();
    let bodies: Vec<_> = came.try_iter().map(|came| came.body).collect();
    let count = |body: &serde_json::Value| body["RequestItems"]["t"].as_array().unwrap().len();
    assert_eq!(bodies[1..].iter().map(count).collect::<Vec<_>>(), [25, 1, 5]);
    assert_eq!(bodies[2]["RequestItems"]["t"][0]["PutRequest"]["Item"]["id"]["S"], "3");
    // The later of the two items with the same keys is the one that counts, and stands where it stood.
    assert_eq!(bodies[1]["RequestItems"]["t"][0]["PutRequest"]["Item"]["id"]["S"], "1");
    assert_eq!(bodies[3]["RequestItems"]["t"][4]["PutRequest"]["Item"]["v"]["N"], "2");
}

#[test]
fn a_batch_that_is_never_taken_or_lacks_a_key_is_an_error() {
    let none = r#"{"UnprocessedItems":{"t":[{"PutRequest":{"Item":{"id":{"S":"a"}}}}]}}"#;
    let mut replies = vec![say(r#"{"Table":{"TableStatus":"ACTIVE","KeySchema":[{"AttributeName":"id"}]}}"#)];
    replies.extend((0..FRUITLESS_BATCHES).map(|_| say(none)));
    replies.push(say(DESCRIBED));
    let (client, _, came) = client(replies);
    let error = client.write_batch("t", &[item(r#"{"id":"a"}"#)]).unwrap_err().to_string();
    assert!(error.contains("took none of 1 items") && error.contains("`t`"), "{error}");
    assert_eq!(came.try_iter().count(), 1 + FRUITLESS_BATCHES as usize);
    let error = client.write_batch("t", &[item(r#"{"id":"a"}"#)]).unwrap_err().to_string();
    assert!(error.contains("item 1 lacks the text of key `at`"), "{error}");
    client.write_batch("t", &[]).unwrap();
}

#[test]
fn a_table_is_cleared_by_its_keys() {
    let page = r#"{"Items":[{"id":{"S":"a"},"at":{"S":"b"}}]}"#;
    let (client, _, came) = client(vec![say(DESCRIBED), say(page), say("{}")]);
    assert_eq!(client.clear_table("t").unwrap(), 1);
    let bodies: Vec<_> = came.try_iter().map(|came| came.body).collect();
    assert_eq!(bodies[1]["ProjectionExpression"], "#k0, #k1");
    assert_eq!(bodies[1]["ExpressionAttributeNames"], json!({"#k0": "id", "#k1": "at"}));
    let removal = json!({"DeleteRequest": {"Key": {"id": {"S": "a"}, "at": {"S": "b"}}}});
    assert_eq!(bodies[2]["RequestItems"], json!({"t": [removal]}));
}

#[test]
fn throttling_failures_of_the_server_and_lost_connections_are_met_with_another_attempt() {
    let (client, _, came) = client(vec![
        refuse("ProvisionedThroughputExceededException"),
        refuse("ThrottlingException"),
        Reply::Say(503, "busy".to_string()),
        Reply::Cut(""),
        Reply::Cut("HTTP/1.1 200 OK\r\nConte"),
        Reply::Cut("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"Item\""),
        refuse("RequestLimitExceeded"),
        say(r#"{"Item":{"id":{"S":"a"}}}"#),
    ]);
    assert_eq!(client.get_item("t", &item(r#"{"id":"a"}"#)).unwrap(), Some(item(r#"{"id":"a"}"#)));
    assert_eq!(came.try_iter().count(), 8);
}

#[test]
fn what_goes_on_failing_ends() {
    let (client, _, came) = client((0..20).map(|_| Reply::Say(500, String::new())).collect());
    let error = client.get_item("t", &Item::new()).unwrap_err().to_string();
    assert_eq!(
        error,
        "failed at GetItem of table `t`, 8 times in a row: the server answered with status 500"
    );
    assert_eq!(came.try_iter().count(), 8);
}

#[test]
fn a_table_is_not_asked_for_twice_where_the_first_request_may_have_made_it() {
    for reply in [Reply::Cut(""), Reply::Say(500, String::new())] {
        let (client, _, came) = client(vec![reply]);
        assert!(client.create_table("t", "id", None).is_err());
        assert_eq!(came.try_iter().count(), 1);
    }
    let (client, _, came) = client(vec![refuse("ThrottlingException"), say("{}"), say(DESCRIBED)]);
    client.create_table("t", "id", None).unwrap();
    assert_eq!(came.try_iter().count(), 3);
}

#[test]
fn a_refusal_is_told_once_by_operation_and_table_and_without_the_secret() {
    let (client, _, came) =
        client(vec![refuse("ResourceNotFoundException"), refuse("ResourceInUseException")]);
    let missing = client.delete_item("t", &Item::new()).unwrap_err();
    assert!(missing.is_not_found());
    assert_eq!(missing.to_string(), "failed at DeleteItem of table `t`: ResourceNotFoundException: no, ***");
    assert!(client.create_table("t", "id", None).unwrap_err().is_conflict());
    assert_eq!(came.try_iter().count(), 2);
    assert!(!format!("{client:?}").contains(SECRET) && format!("{client:?}").contains("us-east-1"));
}

#[test]
fn an_answer_of_another_shape_is_an_error_and_no_panic() {
    for body in ["", "{", "[]", r#"{"Item":{"id":{"X":"a"}}}"#, r#"{"Item":{"id":{"N":"many"}}}"#] {
        let (client, _, _came) = client(vec![say(body)]);
        let error = client.get_item("t", &Item::new()).unwrap_err().to_string();
        assert!(error.contains("GetItem of table `t`"), "{error}");
    }
}

#[test]
fn nobody_listening_is_a_disconnection_after_some_attempts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let options = DynamoOptions {
        address: address.clone(),
        access_key: "None".to_string(),
        secret_key: "None".to_string(),
        region: "None".to_string(),
    };
    let mut client = DynamoClient::new(options, &Cancel::new()).unwrap();
    client.caller.first_pause = Duration::from_millis(1);
    let error = client.list_tables().unwrap_err();
    assert!(error.is_disconnected(), "{error:?}");
    assert!(error.to_string().contains("ListTables") && error.to_string().contains(&address), "{error}");
}

#[test]
fn a_silent_server_is_left_once_the_cancel_token_is_triggered() {
    let (client, cancel, came) = client(vec![Reply::Nothing]);
    std::thread::scope(|scope| {
        let cancel = &cancel;
        scope.spawn(move || {
            came.recv().unwrap();
            cancel.trigger();
        });
        assert!(client.scan("t").unwrap_err().is_cancelled());
    });
    assert!(client.scan("t").unwrap_err().is_cancelled());
}
