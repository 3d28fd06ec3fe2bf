// Calls the wrappers of a package as a test asks it to: a line of JSON for each call, and one for what came of it.
//
// usage: drive.js FOLDER, which holds `function/`. Values that JSON has not are objects with one key: `$bytes` (in
// hexadecimal digits), `$int` and `$decimal` (in digits), `$set`. It ends when nothing keeps it from ending.
"use strict";

const fs = require("fs");
const path = require("path");
const readline = require("readline");
const { pipeline } = require("stream");

const FOLDER = path.join(process.argv[2], "function");

function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (value === null || typeof value !== "object") return value;
  if ("$bytes" in value) return Buffer.from(value.$bytes, "hex");
  if ("$int" in value) return BigInt(value.$int);
  if ("$decimal" in value) return Number(value.$decimal);
  if ("$set" in value) return new Set(decode(value.$set));
  return Object.fromEntries(Object.entries(value).map(([name, element]) => [name, decode(element)]));
}

function encode(value) {
  if (value === undefined) return null;
  if (typeof value === "bigint") return { $int: String(value) };
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) return { $int: String(BigInt(value)) };
  if (Array.isArray(value)) return value.map(encode);
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString("hex") };
  if (value instanceof Set) return { $set: [...value].map(encode).sort() };
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, element]) => [name, encode(element)]));
}

// The most memory that this process has held at once.
function peakBytes() {
  return Number(/^VmHWM:\s+(\d+)/m.exec(fs.readFileSync("/proc/self/status", "utf8"))[1]) * 1024;
}

function sign(requests) {
  const { authorization } = require(path.join(FOLDER, "_sebs_lite_http"));
  return requests.map((one) => {
    const headers = Object.fromEntries(one.headers.map(([name, value]) => [name.toLowerCase(), value]));
    return authorization({ ...one, headers, payloadHash: one.payload_hash }, one.key, one.stamp);
  });
}

async function readAll(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function uploadStream(client, [bucket, key, content]) {
  const [stream, promise, stored] = client.uploadStream(bucket, key);
  stream.end(content);
  await promise;
  return stored;
}

async function uploadPieces(client, [bucket, key, file]) {
  const [stream, promise, stored] = client.uploadStream(bucket, key);
  pipeline(fs.createReadStream(file), stream, () => {});
  await promise;
  return stored;
}

async function upload(client, words) {
  const [stored, promise] = client.upload(...words);
  await promise;
  return stored;
}

async function move(client, bucket, number) {
  const content = Buffer.from(`content ${number}`);
  const key = await uploadStream(client, [bucket, "many.txt", content]);
  return (await readAll(await client.downloadStream(bucket, key))).equals(content);
}

async function moveMany(client, [bucket, count]) {
  let right = 0;
  const numbers = [...Array(count).keys()];
  const work = async () => {
    while (numbers.length > 0) {
      const isRight = await move(client, bucket, numbers.pop());
      right += isRight;
    }
  };
  await Promise.all([...Array(8)].map(work));
  return right;
}

async function call(module, method, words) {
  if (method === "peak_bytes") return peakBytes();
  if (method === "sign") return sign(...words);
  const client = require(path.join(FOLDER, module))[module].get_instance();
  switch (method) {
    case "upload": return upload(client, words);
    case "upload_stream": return uploadStream(client, words);
    case "upload_pieces": return uploadPieces(client, words);
    case "download_stream": return readAll(await client.downloadStream(...words));
    case "download_directory": return client.downloadDirectory(...words);
    case "move_many": return moveMany(client, words);
    default: return client[method](...words);
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    let told;
    try {
      told = { value: encode(await call(asked.module, asked.method, decode(asked.arguments))) };
    } catch (error) {
      told = { error: { type: error.name, code: error.code || null, text: error.message } };
    }
    console.log(JSON.stringify(told));
  }
}

main();
