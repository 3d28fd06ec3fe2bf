// The function server for Node.js 14 and later: HTTP/1.1 in front of the one function of this container.
//
//   GET /alive   200, also between the turns of a handler; one that does not give up its turn keeps it waiting
//   POST /       a JSON object, the event, to the handler; its return value as JSON
"use strict";

const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const os = require("os");
const path = require("path");
const util = require("util");

const ROOT = process.env.SEBS_LITE_FUNCTION_DIR || "/function";
const MAX_BODY_BYTES = Number(process.env.SEBS_LITE_MAX_PAYLOAD_BYTES || 256 * 1024 * 1024);

// ---- the function ------------------------------------------------------------------------------------------------

let handler = null;
let invoked = false;

// How often loading failed.
let failedLoads = 0;

async function loadHandler() {
  const file = path.join(ROOT, "function", "function.js");
  try {
    const loaded = await loadModule(file);
    const found = loaded.handler || (loaded.default && loaded.default.handler);
    if (typeof found !== "function") throw new TypeError("function.js exports no `handler`");
    return found;
  } catch (error) {
    // The next invocation reads the file again.
    failedLoads += 1;
    delete require.cache[file];
    throw error;
  }
}

async function loadModule(file) {
  const { href } = require("url").pathToFileURL(file);
  // An ES module is kept under its address for good, even one that failed; this way takes the other kind as well.
  if (failedLoads > 0) return import(`${href}?${failedLoads}`);
  try {
    return require(file);
  } catch (error) {
    const isModule = error && (error.code === "ERR_REQUIRE_ESM" || error.code === "ERR_REQUIRE_ASYNC_MODULE");
    if (!isModule && !isModuleSyntax(error)) throw error;
    return import(href);
  }
}

function isModuleSyntax(error) {
  return error instanceof SyntaxError && /import statement outside a module|Unexpected token 'export'/.test(error.message);
}

// One invocation: the status and the body of the answer.
async function invoke(event, incomeTimestamp) {
  const requestId = uuid();
  const about = { request_id: requestId, is_cold: !invoked };
  invoked = true;
  event["request-id"] = requestId;
  event["income-timestamp"] = incomeTimestamp;
  let reply;
  try {
    let initUs = 0;
    if (handler === null) {
      const start = process.hrtime.bigint();
      handler = await loadHandler();
      // At least 1, so that 0 says that nothing was imported.
      initUs = Math.max(1, microseconds(process.hrtime.bigint() - start));
    }
    const begin = epochMicroseconds();
    const start = process.hrtime.bigint();
    const cpuStart = process.cpuUsage();
    const output = await orUncaught(() => handler(event));
    const cpu = process.cpuUsage(cpuStart);
    const handlerNs = process.hrtime.bigint() - start;
    const end = epochMicroseconds();
    reply = {
      ...about, begin: seconds(begin), end: seconds(end), init_us: initUs, handler_us: microseconds(handlerNs),
      cpu_us: cpu.user + cpu.system, container_id: containerId(),
      result: { output: output === undefined ? null : output },
    };
  } catch (error) {
    return [500, failure(about, error, "")];
  }
  try {
    return [200, toJson(reply)];
  } catch (error) {
    return [500, failure(about, error, "the handler's return value cannot be written as JSON: ")];
  }
}

// Rejects with what nobody caught in the meantime, such as an error in a timer: nothing else may ever settle a handler
// that waits for it.
let failRunning = null;

function orUncaught(run) {
  return new Promise((resolve, reject) => {
    failRunning = reject;
    // An `async` function, so that what `run` throws at once is a rejection, too.
    (async () => run())().then(resolve, reject);
  }).finally(() => { failRunning = null; });
}

function onUncaught(error) {
  if (failRunning !== null) failRunning(error);
  else log(describe(error).traceback);
}

// What `JSON.stringify` makes of a value without saying that it is another: NaN and infinities become null, a function
// is left out, and half a surrogate pair is written as an escape that hardly any reader takes.
function toJson(reply) {
  if (["function", "symbol"].includes(typeof reply.result.output)) {
    throw new TypeError(`a ${typeof reply.result.output} is not JSON`);
  }
  const text = JSON.stringify(reply);
  // Looking at each part takes far longer than writing it, and few texts give cause to.
  if (text.includes("null") || text.includes("\\ud")) JSON.stringify(reply, checkPart);
  return text;
}

function checkPart(key, part) {
  if (typeof part === "number" && !Number.isFinite(part)) throw new RangeError(`${part} at \`${key}\` is not JSON`);
  if (LONE_SURROGATE.test(key) || (typeof part === "string" && LONE_SURROGATE.test(part))) {
    throw new RangeError(`half a surrogate pair at \`${key}\` is not JSON`);
  }
  return part;
}

const LONE_SURROGATE = /[\ud800-\udfff]/u; // by the `u`, a whole pair is another character

// The body for an invocation that threw `error`; its trace goes to the log, too.
function failure(about, error, prefix) {
  const { type, message, traceback } = describe(error);
  log(traceback);
  return JSON.stringify({ error: { type, message: prefix + message, traceback }, ...about });
}

// What was thrown, which may be anything, as texts.
function describe(error) {
  try {
    const isError = error instanceof Error || util.types.isNativeError(error);
    const type = isError ? String(error.name) : typeof error;
    const message = isError ? String(error.message) : util.inspect(error);
    const traceback = isError && error.stack ? String(error.stack) : `${type}: ${message}`;
    const [typeText, messageText, tracebackText] = [type, message, traceback].map(wellFormed);
    return { type: typeText, message: messageText, traceback: tracebackText };
  } catch (second) {
    return { type: typeof error, message: "an error that cannot be shown", traceback: "an error that cannot be shown" };
  }
}

function wellFormed(text) {
  return text.replace(new RegExp(LONE_SURROGATE, "gu"), "\ufffd");
}

function log(text) {
  try {
    console.error(text);
  } catch (error) {
    // the handler may have replaced it
  }
}

function microseconds(nanoseconds) {
  return Number(nanoseconds / 1000n);
}

// The wall clock as Node.js tells it has milliseconds alone; the monotonic one tells the digits below.
const { performance } = require("perf_hooks");
let offsetUs = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) - process.hrtime.bigint() / 1000n;

function epochMicroseconds() {
  const epochUs = process.hrtime.bigint() / 1000n + offsetUs;
  const stepUs = BigInt(Date.now()) * 1000n - epochUs;
  // The wall clock was set, or the machine slept.
  if (stepUs > 10000n || stepUs < -10000n) offsetUs += stepUs;
  else return epochUs;
  return epochUs + stepUs;
}

function seconds(epochUs) {
  return `${epochUs / 1000000n}.${String(epochUs % 1000000n).padStart(6, "0")}`;
}

function uuid() {
  const bytes = crypto.randomBytes(16);
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = bytes.toString("hex");
  return [digits.slice(0, 8), digits.slice(8, 12), digits.slice(12, 16), digits.slice(16, 20), digits.slice(20)].join("-");
}

// 64 hexadecimal digits where they can be had, else the name of this host.
let knownContainerId = process.env.SEBS_LITE_CONTAINER_ID || null;

function containerId() {
  // cgroup v2 hides the path from a container, but the files that the engine mounts into it lie in a folder of that
  // name. (Names of image layers look alike: hence the folder above.)
  const places = [
    ["/proc/self/cgroup", /[/-]([0-9a-f]{64})(?:\.scope)?(?:\/|$)/m],
    ["/proc/self/mountinfo", /containers\/([0-9a-f]{64})\//m],
  ];
  for (const [file, pattern] of knownContainerId === null ? places : []) {
    try {
      const found = pattern.exec(fs.readFileSync(file, "utf8"));
      if (found) knownContainerId = knownContainerId || found[1];
    } catch (error) {
      if (error.code !== "ENOENT" && error.code !== "EACCES") throw error;
    }
  }
  knownContainerId = knownContainerId || process.env.HOSTNAME || os.hostname();
  return knownContainerId;
}

// ---- HTTP --------------------------------------------------------------------------------------------------------

// How long a client that was refused may still send, before its connection is closed on it.
const LINGER_MS = 10000;

function answer(request, response, status, body, headers) {
  response.writeHead(status, {
    "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body), ...headers,
  });
  // Head and body leave in one write: two of them would meet the client's delayed acknowledgement.
  if (request.complete) return response.end(body);
  // A client that still sends reads the answer first; to end it, or to close on unread bytes, could reset the connection.
  response.write(body);
  const timer = setTimeout(() => request.destroy(), LINGER_MS);
  request.on("close", () => clearTimeout(timer));
  request.on("end", () => {
    clearTimeout(timer);
    response.end();
  });
  request.resume();
}

function refuse(request, response, status, message, headers) {
  answer(request, response, status, JSON.stringify({ error: { type: "BadRequest", message } }), headers);
}

function serve(request, response) {
  const target = request.url.replace(/^https?:\/\/[^/?#]*/i, "").split(/[?#]/)[0] || "/";
  request.on("error", () => {}); // the client's affair
  if (request.method === "POST" && request.headers["content-length"] === undefined
      && request.headers["transfer-encoding"] === undefined) {
    return refuse(request, response, 411, "the length of the body is not given", { Connection: "close" });
  }
  if (Number(request.headers["content-length"]) > MAX_BODY_BYTES) return refuseSize(request, response);
  if (request.expectsContinue) response.writeContinue();
  const chunks = [];
  let size = 0;
  request.on("data", (chunk) => {
    size += chunk.length;
    if (size <= MAX_BODY_BYTES) return chunks.push(chunk);
    chunks.length = 0;
    if (!response.headersSent) refuseSize(request, response);
  });
  request.on("end", () => {
    // Emptied: while the handler runs, what the event was read from would count as the handler's memory.
    if (!response.headersSent) route(request, response, target, Buffer.concat(chunks.splice(0)));
  });
}

function route(request, response, target, body) {
  if (target === "/alive") {
    if (request.method !== "GET") return refuse(request, response, 405, "/alive is asked with GET", { Allow: "GET" });
    return answer(request, response, 200, '{"status":"ok"}');
  }
  if (target !== "/") return refuse(request, response, 404, "there is only / and /alive here");
  if (request.method !== "POST") {
    return refuse(request, response, 405, "a function is invoked with POST", { Allow: "POST" });
  }
  accept(request, response, body);
}

function refuseSize(request, response) {
  const message = `the body is larger than ${MAX_BODY_BYTES} bytes`;
  refuse(request, response, 413, message, { Connection: "close" });
}

// Invocations wait for each other: one handler at a time.
let last = Promise.resolve();

function accept(request, response, body) {
  const incomeTimestamp = Number(epochMicroseconds()) / 1e6;
  let event;
  try {
    event = JSON.parse(new util.TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (error) {
    return refuse(request, response, 400, `the request's body is not JSON: ${error.message}`);
  }
  if (event === null || typeof event !== "object" || Array.isArray(event)) {
    return refuse(request, response, 400, "the request's body is not a JSON object");
  }
  last = last.then(async () => {
    const [status, reply] = await invoke(event, incomeTimestamp);
    answer(request, response, status, reply);
  }).catch(onUncaught); // a defect of ours must not end the instance
}

process.on("SIGTERM", () => process.exit(143));
process.on("SIGINT", () => process.exit(130));
try {
  process.chdir(ROOT);
} catch (error) {
  console.error(`${ROOT}: ${error.message}`);
}
const server = http.createServer(serve);
// An invocation may take as long as its client waits, and its connection may rest as long as the client keeps it.
server.requestTimeout = 0;
server.headersTimeout = 2 ** 31 - 1;
server.keepAliveTimeout = 0;
server.timeout = 0;
server.on("checkContinue", (request, response) => {
  request.expectsContinue = true; // invited once it is known that its body is not too large
  serve(request, response);
});
server.on("connection", (socket) => socket.setNoDelay(true));
const port = Number(process.argv[2] || 9000);
const onEither = { port, host: "::", ipv6Only: false, backlog: 1024 };
server.once("error", (error) => {
  if (error.code !== "EAFNOSUPPORT" && error.code !== "EADDRNOTAVAIL") throw error;
  server.listen({ port, host: "0.0.0.0", backlog: 1024 });
});
server.once("listening", () => process.on("uncaughtException", onUncaught));
server.listen(onEither);
