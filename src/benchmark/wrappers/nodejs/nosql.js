// Tables for functions, with the methods that SeBS has in Python, as promises: `nosql.nosql.get_instance()`.
//
// Speaks DynamoDB's protocol to the server that the environment names: NOSQL_STORAGE_TYPE, NOSQL_STORAGE_ENDPOINT, for
// each table NOSQL_STORAGE_TABLE_<its name in the benchmark>, and for a server that checks signatures
// SEBS_LITE_NOSQL_ACCESS_KEY, SEBS_LITE_NOSQL_SECRET_KEY and SEBS_LITE_NOSQL_REGION. They are read when a client is
// made, and a table's when it is first used, not when this is loaded.
//
// A key is a pair, [name, value]; for a table without a second key it is null. Numbers come back as numbers, but whole
// ones that a number cannot hold as BigInt, which goes in as well; Buffers, text, null, booleans, arrays, objects and
// Sets come back as they are.
"use strict";

const http = require("./_sebs_lite_http");

class nosql {
  constructor() {
    const purpose = "NoSQL storage";
    const kind = http.setting("NOSQL_STORAGE_TYPE", purpose);
    if (kind !== "scylladb") {
      throw new Error(`NOSQL_STORAGE_TYPE is \`${kind}\`: only \`scylladb\`, DynamoDB's protocol, is spoken`);
    }
    // Engines of our own check no signature; the protocol has one all the same.
    const key = {
      access: process.env.SEBS_LITE_NOSQL_ACCESS_KEY || "None",
      secret: process.env.SEBS_LITE_NOSQL_SECRET_KEY || "None",
      region: process.env.SEBS_LITE_NOSQL_REGION || "us-east-1",
      service: "dynamodb",
    };
    const address = http.setting("NOSQL_STORAGE_ENDPOINT", purpose);
    this.server = new http.Server(address, "NOSQL_STORAGE_ENDPOINT", key, refusal);
  }

  static get_instance() {
    if (!nosql.instance) nosql.instance = new nosql();
    return nosql.instance;
  }

  // Stores an item, in place of one with the same key.
  async insert(table, primaryKey, secondaryKey, data) {
    await this.ask("PutItem", table, { Item: toItem({ ...data, ...keyOf(primaryKey, secondaryKey) }) });
  }

  // The item with that key; an error whose code is `KeyError`, as Python's is called, if there is none.
  async get(table, primaryKey, secondaryKey) {
    const key = keyOf(primaryKey, secondaryKey);
    // What was inserted before is seen, whatever the engine does by default.
    const { Item } = await this.ask("GetItem", table, { Key: toItem(key), ConsistentRead: true });
    if (Item) return fromItem(Item);
    const error = new Error(`table \`${table}\` has no item with ${JSON.stringify(key)}`);
    throw Object.assign(error, { code: "KeyError" });
  }

  // Sets attributes of the item with that key, which is made if there is none.
  async update(table, primaryKey, secondaryKey, updates) {
    const request = { Key: toItem(keyOf(primaryKey, secondaryKey)) };
    const values = Object.entries(toItem(updates));
    if (values.length > 0) {
      // Names are given apart from the expression, in which words like `status` have a meaning.
      request.UpdateExpression = `SET ${values.map((_, number) => `#n${number} = :v${number}`).join(", ")}`;
      request.ExpressionAttributeNames = Object.fromEntries(values.map(([name], number) => [`#n${number}`, name]));
      request.ExpressionAttributeValues = Object.fromEntries(values.map(([, value], number) => [`:v${number}`, value]));
    }
    await this.ask("UpdateItem", table, request);
  }

  // All items with that first key, in the order of the second one, whose name, a third argument, this protocol does not
  // need.
  async query(table, [name, value]) {
    const request = {
      KeyConditionExpression: "#k = :k",
      ConsistentRead: true,
      ExpressionAttributeNames: { "#k": name },
      ExpressionAttributeValues: { ":k": toValue(value) },
    };
    const items = [];
    for (;;) {
      const page = await this.ask("Query", table, request);
      items.push(...(page.Items || []).map(fromItem));
      if (!page.LastEvaluatedKey || Object.keys(page.LastEvaluatedKey).length === 0) return items;
      request.ExclusiveStartKey = page.LastEvaluatedKey;
    }
  }

  // Removes the item with that key; that there is none is fine.
  async delete(table, primaryKey, secondaryKey) {
    await this.ask("DeleteItem", table, { Key: toItem(keyOf(primaryKey, secondaryKey)) });
  }

  async ask(operation, table, request) {
    const TableName = http.setting(`NOSQL_STORAGE_TABLE_${table}`, `table \`${table}\``);
    const answer = await this.server.ask({
      // Each operation here, done twice, leaves what it leaves done once.
      about: `${operation} of table \`${table}\``,
      method: "POST",
      path: "/",
      headers: { "content-type": "application/x-amz-json-1.0", "x-amz-target": `DynamoDB_20120810.${operation}` },
      body: Buffer.from(JSON.stringify({ ...request, TableName })),
    });
    return answer.length > 0 ? JSON.parse(answer.toString()) : {};
  }
}

function keyOf(primaryKey, secondaryKey) {
  return Object.fromEntries([primaryKey, secondaryKey].filter((key) => key !== null && key !== undefined));
}

// Name and message of an error, whichever of the protocol's shapes it has.
function refusal(text) {
  let told;
  try {
    told = JSON.parse(text);
  } catch (error) {
    told = null;
  }
  if (told === null || typeof told !== "object") return ["", text.split(/\s+/).join(" ").trim().slice(0, 500)];
  return [String(told.__type || "").replace(/^.*#/, ""), String(told.message || told.Message || "")];
}

// ---- values ------------------------------------------------------------------------------------------------------

function toItem(item) {
  // As in JSON, what is undefined is not there.
  const values = Object.entries(item).filter(([, value]) => value !== undefined);
  return Object.fromEntries(values.map(([name, value]) => [name, toValue(value)]));
}

function toValue(value) {
  if (value === null) return { NULL: true };
  if (typeof value === "boolean") return { BOOL: value };
  if (typeof value === "string") return { S: value };
  if (typeof value === "bigint" || Number.isFinite(value)) return { N: String(value) };
  if (value instanceof Uint8Array) return { B: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return { L: value.map(toValue) };
  if (value instanceof Set) return toSet([...value].map(toValue));
  const isPlain = typeof value === "object" && [Object.prototype, null].includes(Object.getPrototypeOf(value));
  if (isPlain) return { M: toItem(value) };
  const what = typeof value === "object" ? value.constructor.name : String(value);
  throw new TypeError(`\`${what}\` is no value that can be stored in a table`);
}

function toSet(values) {
  const kinds = new Set(values.flatMap((value) => Object.keys(value)));
  const [kind] = kinds;
  if (kinds.size !== 1 || !["S", "N", "B"].includes(kind)) {
    throw new TypeError("a Set that is stored in a table must have elements, all texts, all numbers or all bytes");
  }
  return { [`${kind}S`]: values.map((value) => value[kind]) };
}

function fromItem(item) {
  return Object.fromEntries(Object.entries(item).map(([name, value]) => [name, fromValue(value)]));
}

function fromValue(value) {
  const [[kind, content]] = Object.entries(value);
  if (kind === "N") return fromNumber(content);
  if (kind === "M") return fromItem(content);
  if (kind === "L") return content.map(fromValue);
  if (kind === "NULL") return null;
  if (kind === "B") return Buffer.from(content, "base64");
  if (["SS", "NS", "BS"].includes(kind)) return new Set(content.map((element) => fromValue({ [kind[0]]: element })));
  // Text and truth.
  return content;
}

function fromNumber(text) {
  const number = Number(text);
  if (Number.isSafeInteger(number) || !/^-?\d+$/.test(text)) return number;
  const whole = BigInt(text);
  return BigInt(number) === whole ? number : whole;
}

exports.nosql = nosql;
exports.ServerError = http.ServerError;
exports.NoAnswerError = http.NoAnswerError;
