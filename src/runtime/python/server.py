"""The function server for Python 3.7 and later: HTTP/1.1 in front of the one function of this container.

    GET /alive   200, also while a handler runs
    POST /       a JSON object, the event, to the handler; its return value as JSON

Only what every start needs is imported: `http.server` would bring the `email` package and double the start-up time.
A thread reads each connection; the handler runs on the main thread, where signals and asyncio expect to be, one at a
time. `_thread` rather than `threading`, since a thread is started for every new connection.
"""

import _thread
import collections
import json
import os
import re
import resource
import signal
import socket
import sys
import time

ROOT = os.environ.get("SEBS_LITE_FUNCTION_DIR", "/function")
MAX_BODY_BYTES = int(os.environ.get("SEBS_LITE_MAX_PAYLOAD_BYTES", 256 * 1024 * 1024))
MAX_LINE_BYTES = 64 * 1024
MAX_HEADERS = 256
# How long a client that was refused may take to notice, before its connection is closed on it.
LINGER_S = 10

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 411: "Length Required",
           413: "Payload Too Large", 417: "Expectation Failed", 431: "Request Header Fields Too Large",
           500: "Internal Server Error", 501: "Not Implemented", 505: "HTTP Version Not Supported"}


# ---- the function ----------------------------------------------------------------------------------------------

class Function:
    """The handler of the package at ROOT, imported when it is first invoked."""

    def __init__(self):
        self.handler = None
        self.invoked = False
        self.container_id = None

    def invoke(self, event, income_timestamp):
        """One invocation: (status, body)."""
        request_id = new_uuid()
        about = {"request_id": request_id, "is_cold": not self.invoked}
        self.invoked = True
        event["request-id"] = request_id
        event["income-timestamp"] = income_timestamp
        try:
            init_us = self.load()
            handler = self.handler
            children_ns = children_cpu_ns()
            begin_ns = time.time_ns()
            start_ns = time.perf_counter_ns()
            # Within the wall clock's readings, so that a handler that only computes never shows more CPU than time.
            cpu_ns = time.process_time_ns()
            output = handler(event)
            cpu_ns = time.process_time_ns() - cpu_ns
            handler_ns = time.perf_counter_ns() - start_ns
            end_ns = time.time_ns()
            cpu_ns += children_cpu_ns() - children_ns
        except BaseException as error:  # `sys.exit()` in a handler is a failed invocation, not the end of the instance
            return 500, failure(about, error, "")
        finally:
            flush()
        if self.container_id is None:
            self.container_id = container_id()
        reply = dict(about, begin=epoch(begin_ns), end=epoch(end_ns), init_us=init_us, handler_us=handler_ns // 1000,
                     cpu_us=cpu_ns // 1000, container_id=self.container_id, result={"output": output})
        try:
            # Without `ensure_ascii`, half a surrogate pair, which no JSON reader takes, fails here and not there.
            return 200, to_json(reply).encode("utf-8")
        except Exception as error:
            return 500, failure(about, error, "the handler's return value cannot be written as JSON: ")
        finally:
            flush()

    def load(self):
        """Imports the handler, if it is not yet there: microseconds that took."""
        if self.handler is not None:
            return 0
        start_ns = time.perf_counter_ns()
        # Modules as heavy as this one are only paid for where a function is invoked.
        import importlib
        importlib.invalidate_caches()  # a failed attempt may have left the list of a folder behind
        try:
            handler = importlib.import_module("function.function").handler
            if not callable(handler):
                raise TypeError("function.function.handler is not a function")
        except BaseException:
            # A module without a handler is one that did not import: the next invocation reads it again.
            sys.modules.pop("function.function", None)
            raise
        # At least 1, so that 0 says that nothing was imported.
        init_us = max(1, (time.perf_counter_ns() - start_ns) // 1000)
        self.handler = handler
        return init_us


def failure(about, error, prefix):
    """The body for an invocation that raised `error`; its traceback goes to the log, too."""
    import traceback
    # The first frame is the server's own.
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    try:
        message = str(error)
    except BaseException as second:  # even `sys.exit()` there must not reach the main thread's loop
        message = "<%s in __str__>" % type(second).__name__
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:
        text = "%s: %s\n" % (type(error).__name__, message)
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:
        pass  # the handler may have closed it
    reply = {"error": {"type": type(error).__name__, "message": prefix + message, "traceback": text}}
    reply.update(about)
    return to_json(reply).encode("utf-8", "replace")


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the handler may have closed or replaced it


def children_cpu_ns():
    """CPU time of the children that this process has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((children.ru_utime + children.ru_stime) * 1e9)


def epoch(nanoseconds):
    return "%d.%06d" % divmod(nanoseconds // 1000, 1000000)


def new_uuid():
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def container_id():
    """64 hexadecimal digits where they can be had, else the name of this host."""
    if os.environ.get("SEBS_LITE_CONTAINER_ID"):
        return os.environ["SEBS_LITE_CONTAINER_ID"]
    # cgroup v2 hides the path from a container, but the files that the engine mounts into it lie in a folder of that
    # name. (Names of image layers look alike: hence the folder above.)
    for path, pattern in (("/proc/self/cgroup", r"[/-]([0-9a-f]{64})(?:\.scope)?(?:/|$)"),
                          ("/proc/self/mountinfo", r"containers/([0-9a-f]{64})/")):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = re.search(pattern, file.read(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return found.group(1)
    return os.environ.get("HOSTNAME") or socket.gethostname()


# ---- JSON ------------------------------------------------------------------------------------------------------

to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def no_constant(text):
    raise ValueError("%s is not JSON" % text)


# `NaN` and `Infinity`, which Python reads by default, are no JSON.
from_json = json.JSONDecoder(parse_constant=no_constant).decode


# ---- HTTP ------------------------------------------------------------------------------------------------------

class Refused(Exception):
    """A request that is answered with a status and a reason; where it `closes`, what follows it cannot be read."""

    def __init__(self, status, message, closes=True, allow=None):
        Exception.__init__(self, message)
        self.status = status
        self.closes = closes
        self.allow = allow


class Gone(Exception):
    """The client ended the connection."""


class Connection:
    """A client: reads requests, writes answers."""

    def __init__(self, sock, jobs):
        self.sock = sock
        self.keep = False
        self.is_head = False
        self.body = b""
        self.file = sock.makefile("rb", 64 * 1024)
        self.jobs = jobs

    def serve(self):
        try:
            while self.serve_one():
                pass
        except (OSError, Gone):
            pass  # the client's affair
        finally:
            self.file.close()
            try:
                # A process that the handler forked may hold the connection open: end it for all.
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.sock.close()

    def serve_one(self):
        """Reads and answers one request: does the connection stay open?"""
        self.keep = False
        self.is_head = False
        try:
            method, path, headers = self.read_head()
            self.body = self.read_body(method, headers)
            status, reply = self.route(method, path)
        except Refused as refused:
            reply = to_json({"error": {"type": "BadRequest", "message": str(refused)}}).encode("utf-8", "replace")
            self.keep = self.keep and not refused.closes
            self.answer(refused.status, reply, refused.allow)
            if refused.closes:
                self.linger()
            return self.keep
        self.answer(status, reply)
        return self.keep

    def route(self, method, path):
        if path == "/alive":
            if method != "GET":
                raise Refused(405, "/alive is asked with GET", closes=False, allow="GET")
            return 200, b'{"status":"ok"}'
        if path != "/":
            raise Refused(404, "there is only / and /alive here", closes=False)
        if method != "POST":
            raise Refused(405, "a function is invoked with POST", closes=False, allow="POST")
        # The event, which may be large, is held by the job alone, and the bytes that it was read from by nobody: else
        # they would count as the handler's memory.
        income_timestamp = time.time()
        return self.jobs.do(Job(self.take_event(), income_timestamp))

    def take_event(self):
        """The body, which may be large, as the event; its bytes are let go before the handler runs."""
        body, self.body = self.body, b""
        try:
            text = body.decode("utf-8")
            del body
            event = from_json(text)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the request's body is not JSON: %s" % error, closes=False)
        if not isinstance(event, dict):
            raise Refused(400, "the request's body is not a JSON object", closes=False)
        return event

    def read_head(self):
        line = self.read_line()
        while line == b"":  # left over from the request before; RFC 9112, 2.2
            line = self.read_line()
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/"):
            raise Refused(400, "this is not an HTTP request")
        method, target, version = words
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        self.is_head = method == b"HEAD"
        headers = self.read_headers()
        connection = headers.get(b"connection", b"").lower()
        self.may_expect = version != b"HTTP/1.0"  # RFC 9110, 10.1.1
        self.keep = b"keep-alive" in connection if version == b"HTTP/1.0" else b"close" not in connection
        if not target.startswith(b"/"):  # what a client sends to a proxy: the whole URL
            target = re.sub(br"^https?://[^/?]*", b"", target, flags=re.IGNORECASE)
        path = target.partition(b"?")[0] or b"/"
        return method.decode("latin-1"), path.decode("latin-1"), headers

    def read_headers(self):
        headers = {}
        for _ in range(MAX_HEADERS):
            line = self.read_line()
            if not line:
                return headers
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise Refused(400, "a header line is malformed")
            name, value = name.lower(), value.strip()
            if name in headers and name == b"content-length" and headers[name] != value:
                raise Refused(400, "two different lengths are given")
            if name in headers and name != b"content-length":
                value = headers[name] + b", " + value
            headers[name] = value
        raise Refused(431, "there are more than %d headers" % MAX_HEADERS)

    def read_body(self, method, headers):
        expect = headers.get(b"expect", b"").lower() if self.may_expect else b""
        if expect not in (b"", b"100-continue"):
            raise Refused(417, "only 100-continue may be expected")
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if coding is None and length is None:
            if method in ("POST", "PUT", "PATCH"):
                raise Refused(411, "the length of the body is not given")
            return b""
        if coding is not None:
            if length is not None:
                raise Refused(400, "both a length and a transfer encoding are given")
            if coding.lower() != b"chunked":
                raise Refused(501, "the only transfer encoding known is chunked")
            self.invite(expect)
            return self.read_chunks()
        if not re.match(br"[0-9]{1,18}$", length):
            raise Refused(400, "the length of the body is not a number")
        self.check_size(int(length))
        self.invite(expect)
        return self.read_exactly(int(length))

    def invite(self, expect):
        if expect:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def read_chunks(self):
        chunks, size = [], 0
        while True:
            digits = self.read_line().partition(b";")[0].strip()
            if not re.match(br"[0-9a-fA-F]{1,15}$", digits):
                raise Refused(400, "the size of a chunk is not a number")
            length = int(digits, 16)
            size += length
            self.check_size(size)
            if length == 0:
                self.read_headers()  # trailers
                return b"".join(chunks)
            chunks.append(self.read_exactly(length))
            if self.read_line() != b"":
                raise Refused(400, "a chunk does not end where it should")

    def check_size(self, size):
        if size > MAX_BODY_BYTES:
            raise Refused(413, "the body is larger than %d bytes" % MAX_BODY_BYTES)

    def read_exactly(self, length):
        data = self.file.read(length)
        if len(data) < length:
            raise Gone()
        return data

    def read_line(self):
        line = self.file.readline(MAX_LINE_BYTES)
        if line.endswith(b"\n"):
            return line[:-2] if line.endswith(b"\r\n") else line[:-1]
        if len(line) >= MAX_LINE_BYTES:
            raise Refused(431, "a line is longer than %d bytes" % MAX_LINE_BYTES)
        raise Gone()

    def answer(self, status, body, allow=None):
        head = "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%sConnection: %s\r\n\r\n" % (
            status, REASONS[status], len(body), "Allow: %s\r\n" % allow if allow else "",
            "keep-alive" if self.keep else "close")
        head = head.encode("latin-1")
        if self.is_head:
            body = b""
        # One write: two of them would meet the client's delayed acknowledgement.
        sent = self.sock.sendmsg([head, body])
        if sent < len(head):
            self.sock.sendall(head[sent:])
            sent = len(head)
        if sent < len(head) + len(body):
            self.sock.sendall(memoryview(body)[sent - len(head):])

    def linger(self):
        """Lets a client that still sends read the answer; closing on unread bytes would reset the connection."""
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.settimeout(LINGER_S)
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline and self.sock.recv(1024 * 1024):
            pass


# ---- threads ---------------------------------------------------------------------------------------------------

class Job:
    """One invocation on its way from a connection's thread to the main one, and back."""

    def __init__(self, event, income_timestamp):
        self.event = event
        self.income_timestamp = income_timestamp
        self.answer = None
        self.done = _thread.allocate_lock()
        self.done.acquire()

    def take_event(self):
        event, self.event = self.event, None
        return event


class Jobs:
    """The invocations that wait for the main thread."""

    def __init__(self):
        self.waiting = collections.deque()
        # The main thread sleeps on a pipe, into which a signal writes as well: on a lock it would sleep on after a
        # signal that came just before.
        self.bell, self.button = os.pipe()
        os.set_blocking(self.button, False)

    def do(self, job):
        """On a connection's thread: waits for the main thread's answer."""
        self.waiting.append(job)
        try:
            os.write(self.button, b"\0")
        except BlockingIOError:
            pass  # the pipe is full: it will wake up
        job.done.acquire()
        return job.answer

    def serve(self, function):
        """On the main thread: for ever."""
        while True:
            # Each time, since asyncio in a handler may have taken it away.
            signal.set_wakeup_fd(self.button, warn_on_full_buffer=False)
            os.read(self.bell, 4096)
            while self.waiting:
                job = self.waiting.popleft()
                try:
                    job.answer = function.invoke(job.take_event(), job.income_timestamp)
                except BaseException as error:  # a defect of ours must not end the instance
                    about = {"request_id": new_uuid(), "is_cold": False}
                    job.answer = 500, failure(about, error, "in the function server: ")
                job.done.release()
                job = None  # event and reply may be large, and the next job far


def listen(port):
    """A socket for IPv6 and IPv4 alike, where there is IPv6."""
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((address, port))
            # A short queue overflows under a burst, and a client whose SYN is dropped tries again after a second.
            sock.listen(1024)
            return sock
        except OSError as error:
            if sock is not None:
                sock.close()
            if family == socket.AF_INET:
                sys.exit("failed to listen on port %d: %s" % (port, error))


def accept(listener, jobs):
    while True:
        try:
            sock = listener.accept()[0]
        except OSError as error:
            # Out of descriptors, or the client was gone already.
            sys.stderr.write("failed to accept a connection: %s\n" % error)
            time.sleep(0.01)
            continue
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _thread.start_new_thread(Connection(sock, jobs).serve, ())
        except (OSError, RuntimeError) as error:
            sys.stderr.write("failed to serve a connection: %s\n" % error)
            sock.close()


def main():
    # The first process of a container gets no signal that it has not asked for.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    listener = listen(int(sys.argv[1]) if len(sys.argv) > 1 else 9000)
    # The first entry is the folder of this file, which is no business of the function's.
    sys.path[0] = ROOT
    sys.path.append(os.path.join(ROOT, ".python_packages", "lib", "site-packages"))
    try:
        os.chdir(ROOT)
    except OSError as error:
        sys.stderr.write("failed to enter the function's folder: %s\n" % error)
    jobs = Jobs()
    _thread.start_new_thread(accept, (listener, jobs))
    jobs.serve(Function())


if __name__ == "__main__":
    main()
