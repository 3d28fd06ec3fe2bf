//! A client of DynamoDB and of the engines that speak its JSON protocol, over plain HTTP.
//!
//! It sends the operations that DynamoDB, Alternator and dynoxide all know, and no others: CreateTable, DescribeTable,
//! ListTables, DeleteTable, PutItem, GetItem, UpdateItem, DeleteItem, Query, Scan, BatchWriteItem.
//!
//! Source: DynamoDB API reference, *Low-level API*, version 2012-08-10.

mod call;
mod refusal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::value::{Attribute, Attributes, Item, Value, from_attributes, to_attribute, to_attributes};
use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::error::{Context, Error, Kind, Result};
use call::{Caller, Repeat};

/// The most items that BatchWriteItem takes at once.
const BATCH: usize = 25;

/// How often a batch is sent of which the server takes nothing.
const FRUITLESS_BATCHES: u32 = 8;

/// How long a table may take to become what was asked for: Alternator has been seen to take seconds.
const TABLE: Duration = Duration::from_secs(60);

/// Where the tables are, and who may use them.
#[derive(Clone)]
pub struct DynamoOptions {
    /// `host:port`; always plain HTTP.
    pub address: String,
    /// The access key id.
    pub access_key: String,
    /// The secret key; not part of what `Debug` shows.
    pub secret_key: String,
    /// The region that signatures name: `us-east-1`, or any text for engines that have none.
    pub region: String,
}

impl fmt::Debug for DynamoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoOptions")
            .field("address", &self.address)
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// The tables of one server.
///
/// Every operation's errors name it and its table. `is_not_found`: there is no such table. `is_disconnected`: the
/// server could not be reached, or hung up, again and again where the operation may be repeated. `is_timeout`,
/// `is_cancelled`. Throttling and failures of the server are met with pauses that grow, several seconds in all.
#[derive(Debug)]
pub struct DynamoClient {
    caller: Caller,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    table: Description,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    table_status: String,
    #[serde(default)]
    key_schema: Vec<KeyElement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyElement {
    attribute_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TablePage {
    table_names: Vec<String>,
    last_evaluated_table_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ItemPage {
    #[serde(default)]
    items: Vec<Attributes>,
    last_evaluated_key: Option<Attributes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Got {
    item: Option<Attributes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batched {
    #[serde(default)]
    unprocessed_items: HashMap<String, Vec<Write>>,
}

/// One part of BatchWriteItem.
#[derive(Serialize, Deserialize)]
enum Write {
    PutRequest {
        #[serde(rename = "Item")]
        item: Attributes,
    },
    DeleteRequest {
        #[serde(rename = "Key")]
        key: Attributes,
    },
}

/// Answers whose contents do not matter.
#[derive(Deserialize)]
struct Done {}

impl DynamoClient {
    /// A client; nothing is sent yet. Long waits end soon after `cancel` is triggered.
    ///
    /// # Errors
    /// `is_usage`: the address is not `host:port`.
    pub fn new(options: DynamoOptions, cancel: &Cancel) -> Result<DynamoClient> {
        Ok(DynamoClient { caller: Caller::new(options, cancel)? })
    }

    /// Makes a table, on demand, and waits until it can be used.
    ///
    /// Both keys hold text: `primary` is its HASH key and `secondary` its RANGE key.
    ///
    /// # Errors
    /// As above; `is_conflict`: there is a table of that name. `is_timeout`: it cannot be used yet after a minute.
    pub fn create_table(&self, table: &str, primary: &str, secondary: Option<&str>) -> Result<()> {
        let keys: Vec<(&str, &str)> =
            [Some((primary, "HASH")), secondary.map(|name| (name, "RANGE"))].into_iter().flatten().collect();
        let types = keys.iter().map(|(name, _)| json!({"AttributeName": name, "AttributeType": "S"}));
        let schema = keys.iter().map(|(name, role)| json!({"AttributeName": name, "KeyType": role}));
        let request = json!({
            "TableName": table,
            "AttributeDefinitions": types.collect::<Vec<_>>(),
            "KeySchema": schema.collect::<Vec<_>>(),
            "BillingMode": "PAY_PER_REQUEST",
        });
        let _: Done = self.caller.call("CreateTable", table, &request, Repeat::IfNothingWasDone)?;
        self.wait_until_active(table)
    }

    /// Waits until a table, which somebody else is making, can be used.
    ///
    /// # Errors
    /// As above; `is_timeout`: it cannot be used yet after a minute.
    pub fn wait_until_active(&self, table: &str) -> Result<()> {
        self.wait(table, "active", |status| status == Some("ACTIVE"))
    }

    /// Is there a table of that name, and is it not about to go?
    ///
    /// # Errors
    /// As above.
    pub fn table_exists(&self, table: &str) -> Result<bool> {
        Ok(self.status(table)?.is_some_and(|status| status != "DELETING"))
    }

    /// The names of all tables, in the server's order.
    ///
    /// # Errors
    /// As above.
    pub fn list_tables(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut request = json!({"Limit": 100});
            if let Some(name) = &after {
                request["ExclusiveStartTableName"] = json!(name);
            }
            let page: TablePage = self.caller.call("ListTables", "", &request, Repeat::Always)?;
            names.extend(page.table_names);
            match page.last_evaluated_table_name.filter(|name| !name.is_empty()) {
                None => return Ok(names),
                Some(next) if after.as_ref() == Some(&next) => {
                    return Err(Error::new(format!("failed at ListTables: two pages end with `{next}`")));
                }
                next => after = next,
            }
        }
    }

    /// Removes a table with all its items, and waits until it is gone.
    ///
    /// # Errors
    /// As above; `is_timeout`: it is still there after a minute.
    pub fn delete_table(&self, table: &str) -> Result<()> {
        let request = json!({"TableName": table});
        let _: Done = self.caller.call("DeleteTable", table, &request, Repeat::IfNothingWasDone)?;
        self.wait(table, "gone", |status| status.is_none())
    }

    /// Writes `item`, which holds the table's keys, in place of the one with the same keys.
    ///
    /// # Errors
    /// As above; also: a key is missing or no text, or the item is too large for the server.
    pub fn put_item(&self, table: &str, item: &Item) -> Result<()> {
        let request = json!({"TableName": table, "Item": to_attributes(item)});
        self.caller.call("PutItem", table, &request, Repeat::Always).map(|Done {}| ())
    }

    /// The item with these keys; `None`: there is none.
    ///
    /// # Errors
    /// As above; also: `key` is not all of the table's keys.
    pub fn get_item(&self, table: &str, key: &Item) -> Result<Option<Item>> {
        let request = json!({"TableName": table, "Key": to_attributes(key), "ConsistentRead": true});
        let got: Got = self.caller.call("GetItem", table, &request, Repeat::Always)?;
        got.item.map(|item| understood("GetItem", table, item)).transpose()
    }

    /// Sets attributes of the item with these keys, and leaves its others; where there is none, it is made.
    ///
    /// # Errors
    /// As above; also: `key` is not all of the table's keys, or `updates` holds one of them.
    pub fn update_item(&self, table: &str, key: &Item, updates: &Item) -> Result<()> {
        let mut request = json!({"TableName": table, "Key": to_attributes(key)});
        // Names and values are passed beside the expression, for any of them may be a reserved word.
        if !updates.is_empty() {
            let mut names = BTreeMap::new();
            let mut values = BTreeMap::new();
            let mut parts = Vec::new();
            for (index, (name, value)) in updates.iter().enumerate() {
                names.insert(format!("#n{index}"), name);
                values.insert(format!(":v{index}"), to_attribute(value));
                parts.push(format!("#n{index} = :v{index}"));
            }
            request["UpdateExpression"] = json!(format!("SET {}", parts.join(", ")));
            request["ExpressionAttributeNames"] = json!(names);
            request["ExpressionAttributeValues"] = json!(values);
        }
        self.caller.call("UpdateItem", table, &request, Repeat::Always).map(|Done {}| ())
    }

    /// Removes the item with these keys, if there is one.
    ///
    /// # Errors
    /// As above; also: `key` is not all of the table's keys.
    pub fn delete_item(&self, table: &str, key: &Item) -> Result<()> {
        let request = json!({"TableName": table, "Key": to_attributes(key)});
        self.caller.call("DeleteItem", table, &request, Repeat::Always).map(|Done {}| ())
    }

    /// All items whose primary key, called `primary`, is `value`, in the order of the secondary key.
    ///
    /// # Errors
    /// As above; also: `primary` is not the name of the table's primary key.
    pub fn query(&self, table: &str, primary: &str, value: &str) -> Result<Vec<Item>> {
        let request = json!({
            "TableName": table,
            "KeyConditionExpression": "#k = :v",
            "ExpressionAttributeNames": {"#k": primary},
            "ExpressionAttributeValues": {":v": Attribute::S(value.to_string())},
            "ConsistentRead": true,
        });
        let mut items = Vec::new();
        self.pages("Query", table, request, &mut |page| {
            items.extend(page);
            Ok(())
        })?;
        items.into_iter().map(|item| understood("Query", table, item)).collect()
    }

    /// All items of a table, in no order.
    ///
    /// # Errors
    /// As above.
    pub fn scan(&self, table: &str) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        self.pages("Scan", table, json!({"TableName": table, "ConsistentRead": true}), &mut |page| {
            items.extend(page);
            Ok(())
        })?;
        items.into_iter().map(|item| understood("Scan", table, item)).collect()
    }

    /// Writes many items as [`put_item`](DynamoClient::put_item) would one after the other, 25 in a request.
    ///
    /// # Errors
    /// As above; also: an item has no key, or the server takes no item however often it is asked.
    /// Some items are written then.
    pub fn write_batch(&self, table: &str, items: &[Item]) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let keys = self.keys(table)?;
        // Of items with the same keys the last one counts, and the server refuses a batch that holds both.
        let mut last: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let place = keys.iter().map(|key| match item.get(key) {
                Some(Value::Text(text)) => Ok(text.as_str()),
                _ => Err(Error::new(format!(
                    "failed at BatchWriteItem of table `{table}`: item {} lacks the text of key `{key}`",
                    index + 1
                ))),
            });
            last.insert(place.collect::<Result<_>>()?, index);
        }
        let mut indices: Vec<usize> = last.into_values().collect();
        indices.sort_unstable();
        let writes = indices.chunks(BATCH).map(|chunk| {
            chunk.iter().map(|index| Write::PutRequest { item: to_attributes(&items[*index]) }).collect()
        });
        for chunk in writes {
            self.write_chunk(table, chunk)?;
        }
        Ok(())
    }

    /// Removes all items of a table, and leaves the table. Returns how many there were.
    ///
    /// # Errors
    /// As above; some items are gone then.
    pub fn clear_table(&self, table: &str) -> Result<usize> {
        let keys = self.keys(table)?;
        let names: BTreeMap<String, &String> =
            keys.iter().enumerate().map(|(index, key)| (format!("#k{index}"), key)).collect();
        let wanted = names.keys().cloned().collect::<Vec<_>>().join(", ");
        let request = json!({
            "TableName": table,
            "ProjectionExpression": wanted,
            "ExpressionAttributeNames": names,
            "ConsistentRead": true,
        });
        let mut removed = 0;
        self.pages("Scan", table, request, &mut |page| {
            removed += page.len();
            let mut page = page.into_iter().peekable();
            while page.peek().is_some() {
                let chunk = page.by_ref().take(BATCH).map(|key| Write::DeleteRequest { key });
                self.write_chunk(table, chunk.collect())?;
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// Sends at most 25 writes, and those that the server did not come to again until it has.
    fn write_chunk(&self, table: &str, mut writes: Vec<Write>) -> Result<()> {
        let mut fruitless = 0;
        loop {
            let count = writes.len();
            let request = json!({"RequestItems": {table: writes}});
            let mut batched: Batched = self.caller.call("BatchWriteItem", table, &request, Repeat::Always)?;
            writes = batched.unprocessed_items.remove(table).unwrap_or_default();
            if writes.is_empty() {
                return Ok(());
            }
            fruitless = if writes.len() < count { 0 } else { fruitless + 1 };
            if fruitless == FRUITLESS_BATCHES {
                return Err(Error::new(format!(
                    "failed at BatchWriteItem of table `{table}`: the server took none of {count} items, \
                     {FRUITLESS_BATCHES} times in a row"
                )));
            }
            log::debug!("{} of {count} items for table `{table}` are to be sent again", writes.len());
            self.caller.pause(fruitless)?;
        }
    }

    /// Hands each page of a Query or Scan to `sink`.
    fn pages(
        &self,
        operation: &'static str,
        table: &str,
        mut request: serde_json::Value,
        sink: &mut dyn FnMut(Vec<Attributes>) -> Result<()>,
    ) -> Result<()> {
        let mut after: Option<Attributes> = None;
        loop {
            if let Some(key) = &after {
                request["ExclusiveStartKey"] = json!(key);
            }
            let page: ItemPage = self.caller.call(operation, table, &request, Repeat::Always)?;
            sink(page.items)?;
            match page.last_evaluated_key.filter(|key| !key.is_empty()) {
                None => return Ok(()),
                // Another request would give the same page for ever.
                Some(next) if after.as_ref() == Some(&next) => {
                    return Err(Error::new(format!(
                        "failed at {operation} of table `{table}`: two pages end with the same key"
                    )));
                }
                next => after = next,
            }
        }
    }

    fn describe(&self, table: &str) -> Result<Description> {
        let request = json!({"TableName": table});
        let described: Described = self.caller.call("DescribeTable", table, &request, Repeat::Always)?;
        Ok(described.table)
    }

    /// The names of a table's keys.
    fn keys(&self, table: &str) -> Result<Vec<String>> {
        let keys: Vec<String> =
            self.describe(table)?.key_schema.into_iter().map(|key| key.attribute_name).collect();
        if keys.is_empty() {
            return Err(Error::new(format!("failed at DescribeTable of table `{table}`: it tells no keys")));
        }
        Ok(keys)
    }

    /// `ACTIVE`, `CREATING`, …; `None`: there is no such table.
    fn status(&self, table: &str) -> Result<Option<String>> {
        match self.describe(table) {
            Ok(description) => Ok(Some(description.table_status)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until the status of `table` is what `is_wanted` says, which a word calls `wanted`.
    fn wait(&self, table: &str, wanted: &str, is_wanted: impl Fn(Option<&str>) -> bool) -> Result<()> {
        let deadline = Instant::now().after(TABLE);
        let mut looks = 0;
        loop {
            let status = self.status(table)?;
            if is_wanted(status.as_deref()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let is = status.as_deref().unwrap_or("not there");
                let message =
                    format!("table `{table}` is {is}, and not {wanted}, after {} s", TABLE.as_secs());
                return Err(Error::with_kind(Kind::Timeout, message));
            }
            self.caller.pause(looks.min(3))?;
            looks += 1;
        }
    }
}

/// An item that came, or what is wrong with it.
fn understood(operation: &str, table: &str, item: Attributes) -> Result<Item> {
    from_attributes(item).context(|| format!("failed at {operation} of table `{table}`"))
}
