// Object storage for functions, as SeBS has it: `new storage.storage()` or `storage.storage.get_instance()`.
//
// Speaks S3 to the server that the environment names: MINIO_ADDRESS, MINIO_ACCESS_KEY, MINIO_SECRET_KEY and, if it is
// not us-east-1, SEBS_LITE_S3_REGION. They are read when a client is made, not when this is loaded.
"use strict";

const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const { PassThrough } = require("stream");

const http = require("./_sebs_lite_http");
const xml = require("./_sebs_lite_xml");

// Up to this size an object is sent in one request.
const SINGLE_BYTES = 64 * 1024 * 1024;
// The size of a part, unless there would be too many of them.
const PART_BYTES = 16 * 1024 * 1024;
// The same for a stream, of which a part is held in memory.
const HELD_BYTES = 8 * 1024 * 1024;
const MAX_PARTS = 10000;

class storage {
  constructor() {
    const purpose = "object storage";
    const address = http.setting("MINIO_ADDRESS", purpose);
    const key = {
      access: http.setting("MINIO_ACCESS_KEY", purpose),
      secret: http.setting("MINIO_SECRET_KEY", purpose),
      region: process.env.SEBS_LITE_S3_REGION || "us-east-1",
      service: "s3",
    };
    this.server = new http.Server(address, "MINIO_ADDRESS", key, refusal);
  }

  static get_instance() {
    if (!storage.instance) storage.instance = new storage();
    return storage.instance;
  }

  // `folder/name.png` as `folder/name.0123abcd.png`, so that uploads never replace each other.
  unique_name(name) {
    const base = name.slice(name.lastIndexOf("/") + 1);
    const dot = base.lastIndexOf(".");
    // The dots that a name begins with are no extension.
    const extension = /[^.]/.test(base.slice(0, Math.max(dot, 0))) ? base.slice(dot) : "";
    const stem = name.slice(0, name.length - extension.length);
    return `${stem}.${crypto.randomBytes(4).toString("hex")}${extension}`;
  }

  // Stores a file under a unique name: [that name, a promise that is kept when it is stored].
  upload(bucket, key, file) {
    const stored = this.unique_name(key);
    return [stored, this.putFile(bucket, stored, file)];
  }

  // [a stream to write to, a promise that is kept when all that was written is stored, the unique name of the object].
  uploadStream(bucket, key) {
    const stored = this.unique_name(key);
    const stream = new PassThrough();
    return [stream, this.putStream(bucket, stored, stream), stored];
  }

  // Writes an object to a file, which appears once it is whole; folders on the way are made.
  async download(bucket, key, file) {
    const target = path.resolve(file);
    const part = path.join(path.dirname(target), `.${crypto.randomBytes(8).toString("hex")}.part`);
    await fs.promises.mkdir(path.dirname(target), { recursive: true });
    try {
      await this.server.ask(call("download", "GET", bucket, key), (response) => writeFile(response, part));
      await fs.promises.rename(part, target);
    } catch (error) {
      await fs.promises.unlink(part).catch(() => {});
      throw error;
    }
  }

  // A promise of a stream of an object's bytes, which fails if they do not all come.
  downloadStream(bucket, key) {
    return this.server.ask(call("download", "GET", bucket, key), async (response, sent) => {
      const out = new PassThrough();
      // A reader that takes its time is not a silent server.
      sent.isSlow = () => out.writableLength >= out.writableHighWaterMark;
      out.on("close", () => sent.request.destroy());
      const take = (piece) => (out.write(piece) ? null : http.drained(out));
      http.consume(response, take).then(() => out.end(), (error) => {
        sent.request.destroy();
        const text = `failed to download object \`${key}\` in bucket \`${bucket}\`: ${error.message}`;
        out.destroy(error instanceof http.Broken ? new http.NoAnswerError(text) : error);
      });
      return out;
    });
  }

  // Writes every object whose key begins with `prefix` to `folder/<its whole key>`.
  async downloadDirectory(bucket, prefix, folder) {
    for await (const key of this.keys(bucket, prefix)) {
      const target = path.resolve(folder, `./${key}`);
      if (!target.startsWith(path.resolve(folder).replace(/\/$/, "") + path.sep)) {
        throw new Error(`object \`${key}\` in bucket \`${bucket}\` would be written outside of \`${folder}\``);
      }
      if (key.endsWith("/")) await fs.promises.mkdir(target, { recursive: true });
      else await this.download(bucket, key, target);
    }
  }

  async *keys(bucket, prefix) {
    let token = null;
    for (;;) {
      const query = [["list-type", "2"], ["encoding-type", "url"], ["prefix", prefix]];
      if (token) query.push(["continuation-token", token]);
      const list = { about: `list bucket \`${bucket}\``, method: "GET", path: bucketPath(bucket), query };
      const page = await this.askXml(list);
      const decode = page.text("EncodingType") === "url" ? decodeKey : (key) => key;
      for (const entry of page.all("Contents")) yield decode(entry.text("Key"));
      if (page.text("IsTruncated") !== "true") return;
      const next = page.text("NextContinuationToken");
      if (!next || next === token) throw this.server.error(list, 200, "", "the list is cut off and does not go on");
      token = next;
    }
  }

  async putFile(bucket, key, file) {
    const handle = await fs.promises.open(file, "r");
    try {
      const about = await handle.stat();
      if (!about.isFile()) throw new Error(`\`${file}\` is no file that could be uploaded`);
      if (about.size <= SINGLE_BYTES) {
        const body = new http.FilePart(handle, 0, about.size);
        await this.server.ask({ ...call("upload", "PUT", bucket, key), body });
      } else {
        await this.putParts(bucket, key, fileParts(handle, about.size));
      }
    } finally {
      await handle.close();
    }
  }

  async putStream(bucket, key, stream) {
    try {
      const put = call("upload", "PUT", bucket, key);
      const parts = heldParts(stream);
      const { value: first } = await parts.next();
      if (first.length < HELD_BYTES) await this.server.ask({ ...put, body: first });
      else await this.putParts(bucket, key, chain(first, parts));
    } catch (error) {
      // Whoever still writes is told, rather than left waiting for room.
      stream.on("error", () => {});
      stream.destroy(error);
      throw error;
    }
  }

  async putParts(bucket, key, parts) {
    // An upload that is begun twice would stay there for good.
    const begin = { ...call("begin the upload of", "POST", bucket, key, [["uploads", ""]]), isOnce: true };
    const upload = (await this.askXml(begin)).text("UploadId");
    if (!upload) throw this.server.error(begin, 200, "", "the server gave the upload no id");
    try {
      const tags = [];
      let size = 0;
      for await (const body of parts) {
        const query = [["partNumber", String(tags.length + 1)], ["uploadId", upload]];
        const put = { ...call("upload a part of", "PUT", bucket, key, query), body };
        tags.push((await this.server.ask(put, readHeaders)).etag || "");
        size += body.length;
      }
      const end = call("end the upload of", "POST", bucket, key, [["uploadId", upload]]);
      await this.askXml({ ...end, body: completion(tags) }).catch(async (error) => {
        // The upload has ended before, where the answer that said so was lost.
        if (error.status !== 404 || !(await this.isStored(bucket, key, tags, size))) throw error;
      });
    } catch (error) {
      const abort = call("abort the upload of", "DELETE", bucket, key, [["uploadId", upload]]);
      // The first failure is the one to tell.
      await this.server.ask(abort).catch(() => {});
      throw error;
    }
  }

  // Is an object there that was put together from parts with these ETags?
  async isStored(bucket, key, tags, size) {
    const expected = joinedTag(tags);
    const found = await this.server.ask(call("look at", "HEAD", bucket, key), readHeaders).catch(() => ({}));
    const isLike = unquoted(found.etag || "") === expected;
    return expected !== null && isLike && found["content-length"] === String(size);
  }

  // The root element of an answer; a long operation fails after it has answered 200.
  askXml(what) {
    return this.server.ask(what, async (response) => {
      const root = xml.parse((await http.readAll(response)).toString());
      if (root.name !== "Error") return root;
      throw this.server.error(what, response.statusCode, root.text("Code"), root.text("Message"));
    });
  }
}

function bucketPath(bucket) {
  if (!bucket || bucket.startsWith(".") || bucket.includes("/")) {
    throw new Error(`\`${bucket}\` is no name of a bucket`);
  }
  return `/${bucket}`;
}

function call(verb, method, bucket, key, query = []) {
  if (!key) throw new Error(`an object in bucket \`${bucket}\` needs a key that is not empty`);
  const about = `${verb} object \`${key}\` in bucket \`${bucket}\``;
  return { about, method, path: `${bucketPath(bucket)}/${key}`, query };
}

// Code and message of an error's body; what is no XML has neither.
function refusal(text) {
  try {
    const root = xml.parse(text);
    return [root.text("Code"), root.text("Message")];
  } catch (error) {
    return ["", ""];
  }
}

async function readHeaders(response) {
  await http.readAll(response);
  return response.headers;
}

function unquoted(tag) {
  return tag.replace(/^"|"$/g, "");
}

// The ETag of what is put together from parts that have these; null where one of these is no MD5.
function joinedTag(tags) {
  const hashes = tags.map(unquoted);
  if (!hashes.every((digits) => /^[0-9a-f]{32}$/.test(digits))) return null;
  const hash = crypto.createHash("md5").update(Buffer.from(hashes.join(""), "hex")).digest("hex");
  return `${hash}-${tags.length}`;
}

function completion(tags) {
  const part = (tag, index) => `<Part><PartNumber>${index + 1}</PartNumber><ETag>${xml.escape(tag)}</ETag></Part>`;
  return Buffer.from(`<CompleteMultipartUpload>${tags.map(part).join("")}</CompleteMultipartUpload>`);
}

// What `encoding-type=url` made of a key: `%XX`, and `+` for a space.
function decodeKey(text) {
  return decodeURIComponent(text.replace(/\+/g, " "));
}

async function writeFile(response, file) {
  const handle = await fs.promises.open(file, "w");
  try {
    await http.consume(response, (piece) => writeWhole(handle, piece));
  } finally {
    await handle.close();
  }
}

async function writeWhole(handle, piece) {
  for (let written = 0; written < piece.length;) {
    written += (await handle.write(piece, written, piece.length - written)).bytesWritten;
  }
}

function* fileParts(handle, size) {
  let part = PART_BYTES;
  while (part * MAX_PARTS < size) part *= 2;
  for (let offset = 0; offset < size; offset += part) {
    yield new http.FilePart(handle, offset, Math.min(part, size - offset));
  }
}

// Parts of a stream, held so that they can be sent again; only the last is shorter.
//
// Each is good until the next is asked for, so that one at a time is in memory.
async function* heldParts(stream) {
  let held = Buffer.alloc(0);
  let filled = 0;
  let number = 0;
  for await (const piece of stream) {
    for (let taken = 0; taken < piece.length;) {
      // A stream may be longer than the most parts of that size.
      const size = HELD_BYTES * (1 + Math.floor(number / 1000));
      if (held.length < Math.min(size, filled + piece.length)) held = grown(held, filled, size, piece.length);
      const copied = piece.copy(held, filled, taken, taken + Math.min(piece.length - taken, size - filled));
      taken += copied;
      filled += copied;
      if (filled === size) {
        yield held.subarray(0, filled);
        filled = 0;
        number += 1;
      }
    }
  }
  if (filled > 0 || number === 0) yield held.subarray(0, filled);
}

// A buffer with the same content and more room, for `more` bytes at least, but not for more than `size`.
function grown(held, filled, size, more) {
  const buffer = Buffer.allocUnsafe(Math.min(size, Math.max(2 * held.length, filled + more)));
  held.copy(buffer, 0, 0, filled);
  return buffer;
}

async function* chain(first, parts) {
  yield first;
  yield* parts;
}

exports.storage = storage;
exports.ServerError = http.ServerError;
exports.NoAnswerError = http.NoAnswerError;
