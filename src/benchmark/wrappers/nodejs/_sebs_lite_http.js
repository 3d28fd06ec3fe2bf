// Signed requests over plain HTTP, on kept connections, sent again where that may help.
//
// What S3 and DynamoDB have in common, for Node.js 14 and later, on its standard library alone.
"use strict";

const crypto = require("crypto");
const http = require("http");

// How often a request is sent at most: for 6 to 7 s, in which a server that was killed and started again can be used.
const ATTEMPTS = 8;
// How long to wait before the second attempt, at most; twice as long before each further one, up to the longest.
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;
// How long a server may take to accept a connection.
const CONNECT_LIMIT_MS = 5000;
// How long a server may say nothing, or take nothing.
const SILENCE_LIMIT_MS = 120000;
const MAX_IDLE_CONNECTIONS = 32;
const PIECE_BYTES = 256 * 1024;
// How long to wait for the server's word that it wants a body; some never say it.
const CONTINUE_LIMIT_MS = 1000;

const UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD";
const PASSING_STATUSES = new Set([429, 500, 502, 503, 504]);
const PASSING_CODES = new Set(["SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout",
  "InternalServerError", "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]);

// The server refused: `code` and `message` hold its own words, `status` is that of HTTP.
class ServerError extends Error {
  constructor(text, status, code) {
    super(text);
    this.name = "ServerError";
    this.status = status;
    this.code = code;
  }
}

// The server could not be reached, or broke the connection, and further attempts did not help.
class NoAnswerError extends Error {
  constructor(text) {
    super(text);
    this.name = "NoAnswerError";
  }
}

// The exchange came to no end.
class Broken extends Error {
  constructor(message, isPassing, isUnconnected = false) {
    super(message);
    this.isPassing = isPassing;
    this.isUnconnected = isUnconnected;
  }
}

// The value of an environment variable that must be there.
function setting(name, purpose) {
  const value = process.env[name];
  if (!value) throw new Error(`environment variable ${name} is not set, so there is no ${purpose} for this function`);
  return value;
}

// ---- the signature -----------------------------------------------------------------------------------------------

// All but letters, digits, `-`, `.`, `_` and `~` as `%XX`.
function encode(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

// The same, but for `/`: once, as S3 has it.
function encodePath(path) {
  return path.split("/").map(encode).join("/");
}

function encodeQuery(query) {
  return query.map(([name, value]) => [encode(name), encode(value)])
    .sort(([name, value], [otherName, otherValue]) => order(name, otherName) || order(value, otherValue))
    .map(([name, value]) => `${name}=${value}`).join("&");
}

function order(one, other) {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

function sha256(body) {
  return crypto.createHash("sha256").update(body).digest("hex");
}

// The header `authorization` of AWS Signature Version 4, for the moment that the header `x-amz-date` tells.
//
// `request`: `method`; `path` and `query`, not encoded; `headers`, all that are to be signed, by lower-case name;
// `payloadHash`. `key`: `access`, `secret`, `region`, `service`.
function authorization(request, key, stamp) {
  const names = Object.keys(request.headers).sort();
  const lines = names.map((name) => `${name}:${request.headers[name].trim().replace(/\s+/g, " ")}\n`).join("");
  const signedHeaders = names.join(";");
  const canonical = [request.method, encodePath(request.path), encodeQuery(request.query), lines, signedHeaders,
    request.payloadHash].join("\n");
  const day = stamp.slice(0, 8);
  const scope = [day, key.region, key.service, "aws4_request"].join("/");
  const text = ["AWS4-HMAC-SHA256", stamp, scope, sha256(canonical)].join("\n");
  const signature = [day, key.region, key.service, "aws4_request", text].reduce(
    (signing, part) => crypto.createHmac("sha256", signing).update(part).digest(), `AWS4${key.secret}`);
  return `AWS4-HMAC-SHA256 Credential=${key.access}/${scope}, SignedHeaders=${signedHeaders}, ` +
    `Signature=${signature.toString("hex")}`;
}

// ---- what is sent ------------------------------------------------------------------------------------------------

// Bytes of an open file from `offset` on, read anew for each attempt, and never more than a piece of them held.
class FilePart {
  constructor(handle, offset, length) {
    this.handle = handle;
    this.offset = offset;
    this.length = length;
  }

  // Not by a stream of `fs`, which would close the file when it is given up.
  async pipe(request) {
    const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, this.length));
    for (let read = 0; read < this.length && !request.destroyed;) {
      const wanted = Math.min(piece.length, this.length - read);
      const { bytesRead } = await this.handle.read(piece, 0, wanted, this.offset + read);
      if (bytesRead === 0) throw new Error("what is uploaded became shorter meanwhile");
      read += bytesRead;
      await written(request, piece.subarray(0, bytesRead));
    }
    request.end();
  }
}

// ---- a server ----------------------------------------------------------------------------------------------------

// Where requests go. A `call` is one thing asked: `about` says it in words, for errors; `method`, `path`, and where
// there is any `query`, `headers`, `body` (a Buffer or a FilePart) and `isOnce`: not to be sent again where an answer
// was lost.
class Server {
  // `variable` is where `address` comes from; `refusal` reads [code, message] from the body of an error.
  constructor(address, variable, key, refusal) {
    this.address = address.replace(/^http:\/\//, "").replace(/\/+$/, "");
    const parts = /^(\[[^\]]+\]|[^:/@?#\s]+)(?::(\d+))?$/.exec(this.address);
    if (!parts) throw new Error(`${variable} is \`${address}\`: it must be host:port, spoken to over plain HTTP`);
    this.host = parts[1].replace(/^\[|\]$/g, "");
    this.port = Number(parts[2] || 80);
    this.key = key;
    this.refusal = refusal;
    // Its idle sockets do not keep the process from ending.
    this.agent = new http.Agent({ keepAlive: true, maxFreeSockets: MAX_IDLE_CONNECTIONS, scheduling: "lifo" });
  }

  // Sends a request until it is answered for good, and gives what `read` makes of the answer.
  async ask(call, read = readAll) {
    let pauseMs = FIRST_PAUSE_MS;
    for (let attempt = 1; ; attempt += 1) {
      let sent;
      try {
        sent = this.send(call);
        const response = await sent.response;
        if (response.statusCode < 300) return await read(response, sent);
        const [code, message] = this.refusal((await readAll(response)).toString());
        throw this.error(call, response.statusCode, code, message);
      } catch (caught) {
        if (sent) sent.request.destroy();
        const error = (caught instanceof Broken && sent.failure) || caught;
        if (error instanceof Broken) {
          // Where there was no connection, the server cannot have done anything.
          const mayRepeat = !call.isOnce || error.isUnconnected;
          if (!error.isPassing || !mayRepeat || attempt === ATTEMPTS) {
            throw new NoAnswerError(`failed to ${call.about} at ${this.address}: ${error.message}`);
          }
          // Where the server had closed a kept connection there is no reason to wait.
          if (sent.request.reusedSocket) continue;
        } else if (!(error instanceof ServerError) || !isPassing(error) || attempt === ATTEMPTS) {
          throw error;
        }
      }
      // Not all functions that met a busy server come back at once.
      await new Promise((resolve) => setTimeout(resolve, pauseMs * (0.8 + Math.random() / 5)));
      pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
    }
  }

  // What is thrown for a refusal.
  error(call, status, code, message) {
    const words = [code, message].filter((word) => word).join(", ");
    return new ServerError(`failed to ${call.about} at ${this.address}: ${status}${words ? `: ${words}` : ""}`, status,
      code);
  }

  // Sends a request once: `request`, the promise `response`, `failure` if it was given up, and `isSlow`, which a reader
  // sets that may itself be what is waited for.
  send(call) {
    const { method, body = Buffer.alloc(0), query = [] } = call;
    const payloadHash = body instanceof FilePart ? UNSIGNED_PAYLOAD : sha256(body);
    const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
    const signed = { ...call.headers, host: this.address, "x-amz-content-sha256": payloadHash, "x-amz-date": stamp };
    const headers = { ...signed, "user-agent": "sebs-lite" };
    const toSign = { method, path: call.path, query, headers: signed, payloadHash };
    headers.authorization = authorization(toSign, this.key, stamp);
    if (method === "PUT" || method === "POST") headers["content-length"] = body.length;
    if (body.length > PIECE_BYTES) headers.expect = "100-continue";
    const search = encodeQuery(query);
    const request = http.request({
      agent: this.agent, host: this.host, port: this.port, method, headers,
      path: encodePath(call.path) + (search ? `?${search}` : ""),
    });
    const sent = { request, response: null, failure: null, isSlow: () => false };
    sent.response = new Promise((resolve, reject) => {
      // Left on for as long as the answer is read: what breaks then is told there, too.
      request.on("error", (error) => reject(broken(error)));
      request.on("response", (response) => {
        // Seen before any reader is, so that an error in between is not an uncaught one.
        response.on("error", () => {});
        resolve(response);
      });
      request.on("close", () => reject(new Broken("the connection ended where an answer was due", true)));
      limit(request, sent);
      const fail = (error) => {
        reject(error);
        request.destroy();
      };
      whenWanted(request, body.length, () => {
        if (body instanceof FilePart) body.pipe(request).catch(fail);
        else request.end(body);
      });
    });
    return sent;
  }
}

// Sends a large body once the server wants it: the answer of one that refuses is lost if it comes while we send.
function whenWanted(request, length, send) {
  if (length <= PIECE_BYTES) {
    send();
    return;
  }
  let isDone = false;
  const once = () => {
    clearTimeout(timer);
    if (!isDone) send();
    isDone = true;
  };
  const timer = setTimeout(once, CONTINUE_LIMIT_MS);
  const never = () => {
    clearTimeout(timer);
    isDone = true;
  };
  request.on("continue", once);
  request.on("response", never);
  request.on("close", never);
}

function isPassing(error) {
  return PASSING_STATUSES.has(error.status) || PASSING_CODES.has(error.code);
}

function broken(error) {
  if (error instanceof Broken) return error;
  // Of what Node calls parse errors, another attempt would be one more.
  const isPassing = !String(error.code).startsWith("HPE_");
  return new Broken(error.message, isPassing, ["connect", "getaddrinfo"].includes(error.syscall));
}

// Gives up a server that accepts no connection, or is silent for too long: it has had its chance.
function limit(request, sent) {
  request.on("socket", (socket) => {
    if (socket.connecting) {
      const late = new Broken(`no connection within ${CONNECT_LIMIT_MS / 1000} s`, false);
      const timer = setTimeout(() => request.destroy(late), CONNECT_LIMIT_MS);
      const clear = () => clearTimeout(timer);
      socket.once("connect", clear);
      socket.once("close", clear);
    }
  });
  request.setTimeout(SILENCE_LIMIT_MS, () => {
    if (sent.isSlow()) return;
    sent.failure = new Broken(`silent for ${SILENCE_LIMIT_MS / 1000} s`, false);
    request.destroy(sent.failure);
  });
}

// The whole body of an answer, in as few pieces as it came.
async function readAll(response) {
  const pieces = [];
  await consume(response, (piece) => { pieces.push(piece); });
  return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
}

// Gives each piece of an answer's body to `take`, waits where that gives a promise, and fails if the body is not whole.
async function consume(response, take) {
  try {
    for await (const piece of response) {
      const taken = take(piece);
      if (taken) await taken.catch((error) => { throw new Local(error); });
    }
  } catch (error) {
    if (error instanceof Local) throw error.cause;
    throw broken(error);
  }
  // Node.js 14 ends some bodies that were cut off as if they were whole.
  if (!response.complete) throw new Broken("the connection ended within an answer", true);
}

// Writes a piece, which may be used again once it is sent, or the request is given up.
function written(request, piece) {
  return new Promise((resolve) => {
    request.once("close", resolve);
    request.write(piece, () => {
      request.removeListener("close", resolve);
      resolve();
    });
  });
}

// Waits until a stream has room again, or nobody reads it any more.
function drained(stream) {
  return new Promise((resolve) => {
    const done = () => {
      stream.removeListener("drain", done);
      stream.removeListener("close", done);
      resolve();
    };
    stream.on("drain", done);
    stream.on("close", done);
    if (stream.destroyed) done();
  });
}

// Carries an error of this side through the reading of an answer.
class Local extends Error {
  constructor(cause) {
    super();
    this.cause = cause;
  }
}

module.exports = {
  Broken, FilePart, NoAnswerError, Server, ServerError, authorization, consume, drained, readAll, setting,
};
