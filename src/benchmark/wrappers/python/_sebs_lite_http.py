"""Signed requests over plain HTTP, on kept connections, sent again where that may help.

What S3 and DynamoDB have in common, for Python 3.7 and later. It speaks HTTP itself and imports little, because both
are part of what is measured: `http.client` would bring the email package and TLS into every cold start.
"""

import collections
import hashlib
import hmac
import os
import select
import socket
import time

# How often a request is sent at most: for 6 to 7 s, in which a server that was killed and started again can be used.
ATTEMPTS = 8
# How long to wait before the second attempt, at most; twice as long before each further one, up to the longest.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2
# How long a server may take to accept a connection.
CONNECT_LIMIT_S = 5
# How long a server may say nothing, or take nothing.
SILENCE_LIMIT_S = 120
MAX_IDLE_CONNECTIONS = 32
MAX_LINE_BYTES = 64 * 1024
MAX_HEADERS = 256
PIECE_BYTES = 256 * 1024

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
PASSING_STATUSES = {429, 500, 502, 503, 504}
PASSING_CODES = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "InternalServerError",
                 "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"}


class ServerError(Exception):
    """The server refused: `code` and `message` are its own words, `status` is that of HTTP."""

    def __init__(self, text, status, code, message):
        super().__init__(text)
        self.status = status
        self.code = code
        self.message = message

    def __reduce__(self):
        return ServerError, (self.args[0], self.status, self.code, self.message)


class NoAnswerError(ConnectionError):
    """The server could not be reached, or broke the connection, and further attempts did not help."""


def setting(name, purpose):
    """The value of an environment variable that must be there."""
    value = os.environ.get(name)
    if not value:
        text = "environment variable {} is not set, so there is no {} for this function"
        raise RuntimeError(text.format(name, purpose))
    return value


# ---- the signature ---------------------------------------------------------------------------------------------

# `method`; `path`, not encoded; `query`, pairs, not encoded; `headers`, all that are to be signed, by lower-case name;
# `payload_hash`.
Request = collections.namedtuple("Request", "method path query headers payload_hash")

# Who signs, and what the signature is good for.
Key = collections.namedtuple("Key", "access secret region service")


def _table(kept):
    return [chr(byte) if chr(byte).isalnum() and byte < 128 or chr(byte) in kept else "%{:02X}".format(byte)
            for byte in range(256)]


_IN_QUERY = _table("-._~")
_IN_PATH = _table("-._~/")


def encode_path(path):
    """All but letters, digits, `-`, `.`, `_`, `~` and `/` as `%XX`: once, as S3 has it."""
    return "".join([_IN_PATH[byte] for byte in path.encode("utf-8")])


def encode_query(query):
    def encode(text):
        return "".join([_IN_QUERY[byte] for byte in text.encode("utf-8")])

    return "&".join(["=".join(pair) for pair in sorted((encode(name), encode(value)) for name, value in query)])


def authorization(request, key, stamp):
    """The header `authorization` of AWS Signature Version 4, for the moment that the header `x-amz-date` tells."""
    headers = sorted(request.headers.items())
    names = ";".join([name for name, _ in headers])
    lines = "".join(["{}:{}\n".format(name, " ".join(value.split())) for name, value in headers])
    canonical = "\n".join([request.method, encode_path(request.path), encode_query(request.query), lines, names,
                           request.payload_hash])
    day = stamp[:8]
    scope = "/".join([day, key.region, key.service, "aws4_request"])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode("utf-8")).hexdigest()])
    signing = ("AWS4" + key.secret).encode("utf-8")
    for part in (day, key.region, key.service, "aws4_request", text):
        signing = hmac.digest(signing, part.encode("utf-8"), "sha256")
    return "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}".format(
        key.access, scope, names, signing.hex())


# ---- what is sent ----------------------------------------------------------------------------------------------

class Call:
    """One thing asked of a server; `about` says it in words, for errors."""

    def __init__(self, about, method, path, query=(), headers=None, body=b"", is_repeatable=True):
        self.about = about
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers or {}
        # What has bytes, or a FilePart.
        self.body = body
        # Does it no harm to send it again where an answer was lost?
        self.is_repeatable = is_repeatable


class FilePart:
    """Bytes of a file from `offset` on, read anew for each attempt, and never more than a piece of them held."""

    def __init__(self, file, offset, size):
        self.file = file
        self.offset = offset
        self.size = size

    def __len__(self):
        return self.size

    def pieces(self):
        self.file.seek(self.offset)
        left = self.size
        while left > 0:
            piece = self.file.read(min(left, PIECE_BYTES))
            if not piece:
                raise EOFError("what is uploaded became shorter meanwhile")
            left -= len(piece)
            yield piece


# ---- one connection --------------------------------------------------------------------------------------------

class _Broken(Exception):
    """The exchange came to no end."""

    def __init__(self, why, is_passing):
        super().__init__(str(why) or type(why).__name__)
        self.is_passing = is_passing


def _broken(error):
    # A server that was silent for so long has had its chance.
    return _Broken(error, not isinstance(error, socket.timeout))


class _Connection:
    def __init__(self, host, port):
        try:
            self.socket = socket.create_connection((host, port), CONNECT_LIMIT_S)
        except OSError as error:
            raise _broken(error)
        self.socket.settimeout(SILENCE_LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb", 64 * 1024)
        self.is_used = False
        # Has the server stopped reading what we send?
        self.is_deaf = False

    def is_open(self):
        """A kept connection is good if nothing is there to read: neither an end nor an answer that nobody asked for."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def close(self):
        self.reader.close()
        self.socket.close()

    def send(self, head, body):
        """Head and first piece in one write: two would wait for each other's acknowledgement."""
        if not isinstance(body, FilePart):
            is_small = len(body) <= PIECE_BYTES
            self.write(head + body if is_small else head)
            if not is_small:
                self.write(body)
            return
        for piece in body.pieces():
            self.write(head + piece)
            head = b""
            if self.is_deaf:
                return
        if head:
            self.write(head)

    def write(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # The answer that says why it refused may wait already; reading tells if there is none.
            self.is_deaf = True
        except OSError as error:
            raise _broken(error)

    def read(self, size):
        try:
            data = self.reader.read(size)
        except OSError as error:
            raise _broken(error)
        if len(data) < size:
            raise _Broken("the connection ended within an answer", True)
        return data

    def line(self):
        try:
            line = self.reader.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise _broken(error)
        if not line.endswith(b"\n"):
            raise _Broken("the connection ended where an answer was due" if not line else "the answer is not HTTP",
                          not line)
        return line.strip().decode("latin-1")


class Answer:
    """A success, whose body is not read yet: `pieces` or `read` do, and find out if it is not whole."""

    def __init__(self, connection, method):
        self._connection = connection
        # The headers then are of what GET would give.
        self._has_no_body = method == "HEAD"
        self.status, version = self._status()
        while self.status // 100 == 1:
            self._headers()
            self.status, version = self._status()
        self.headers = self._headers()
        is_kept = version == "HTTP/1.1" and "close" not in self.headers.get("connection", "").lower()
        is_chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        self.is_chunked = is_chunked and not self._has_no_body
        # `None`: as much as comes before the connection ends.
        self.size = self._size()
        self.is_kept = is_kept and (self.is_chunked or self.size is not None) and not connection.is_deaf
        self.is_whole = False

    def _status(self):
        words = self._connection.line().split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise _Broken("the answer is not HTTP", False)
        return int(words[1]), words[0]

    def _headers(self):
        headers = {}
        for _ in range(MAX_HEADERS):
            line = self._connection.line()
            if not line:
                return headers
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        raise _Broken("the answer has too many headers", False)

    def _size(self):
        if self._has_no_body or self.status in (204, 304):
            return 0
        length = self.headers.get("content-length")
        if self.is_chunked or length is None:
            return None
        if not length.isdigit():
            raise _Broken("the answer has no sound length", False)
        return int(length)

    def pieces(self):
        if self.is_chunked:
            for size in self._chunk_sizes():
                for piece in self._counted(size):
                    yield piece
                self._connection.line()
            self._headers()
        elif self.size is not None:
            for piece in self._counted(self.size):
                yield piece
        else:
            for piece in self._until_end():
                yield piece
        self.is_whole = True

    def read(self):
        if self.size is None:
            return b"".join(self.pieces())
        # In one piece, so that a large object is not held twice.
        data = self._connection.read(self.size)
        self.is_whole = True
        return data

    def _counted(self, left):
        while left > 0:
            piece = self._connection.read(min(left, PIECE_BYTES))
            left -= len(piece)
            yield piece

    def _chunk_sizes(self):
        while True:
            digits = self._connection.line().split(";")[0]
            try:
                size = int(digits, 16)
            except ValueError:
                raise _Broken("the answer is not HTTP", False)
            if size == 0:
                return
            yield size

    def _until_end(self):
        while True:
            try:
                piece = self._connection.reader.read(PIECE_BYTES)
            except OSError as error:
                raise _broken(error)
            if not piece:
                return
            yield piece


# ---- a server --------------------------------------------------------------------------------------------------

class Server:
    """Where requests go; any number of threads may share it, each with a connection of its own while it asks."""

    def __init__(self, address, variable, key, refusal):
        """`variable` is where `address` comes from; `refusal` reads (code, message) from the body of an error."""
        self.address = address[len("http://"):] if address.startswith("http://") else address
        self.address = self.address.rstrip("/")
        host, colon, port = self.address.rpartition(":")
        if not colon or self.address.endswith("]"):
            host, port = self.address, "80"
        is_sound = port.isdigit() and host and not set(host) & set("/@?# ")
        if not is_sound or (":" in host and not host.startswith("[")):
            raise RuntimeError("{} is `{}`: it must be host:port, spoken to over plain HTTP".format(variable, address))
        self._place = host.strip("[]"), int(port)
        self._key = key
        self._refusal = refusal
        self._idle = []
        self._process = os.getpid()

    def ask(self, call, read=Answer.read):
        """Sends a request until it is answered for good, and gives what `read` makes of the answer."""
        pause = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            connection = None
            try:
                connection = self._take()
                return self._exchange(connection, call, read)
            except _Broken as broken:
                # Where there was no connection, the server cannot have done anything.
                may_repeat = call.is_repeatable or connection is None
                if not (broken.is_passing and may_repeat) or attempt == ATTEMPTS:
                    text = "failed to {} at {}: {}".format(call.about, self.address, broken)
                    raise NoAnswerError(text) from None
                if connection is not None and connection.is_used:
                    # The server had closed a kept connection: no reason to wait.
                    continue
            except ServerError as error:
                is_passing = error.status in PASSING_STATUSES or error.code in PASSING_CODES
                if not is_passing or attempt == ATTEMPTS:
                    raise
            # Not all functions that met a busy server come back at once.
            time.sleep(pause * (0.8 + os.urandom(1)[0] / 1280))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def error(self, call, status, code, message):
        """What is raised for a refusal."""
        words = ", ".join([word for word in (code, message) if word])
        text = "failed to {} at {}: {}{}".format(call.about, self.address, status, ": " + words if words else "")
        return ServerError(text, status, code, message)

    def _exchange(self, connection, call, read):
        is_kept = False
        try:
            connection.send(self._head(call), call.body)
            answer = Answer(connection, call.method)
            if answer.status // 100 == 2:
                result = read(answer)
                is_kept = answer.is_kept and answer.is_whole
                return result
            content = answer.read()
            is_kept = answer.is_kept and answer.is_whole
            code, message = self._refusal(content)
            raise self.error(call, answer.status, code, message)
        finally:
            if is_kept and len(self._idle) < MAX_IDLE_CONNECTIONS:
                connection.is_used = True
                self._idle.append(connection)
            else:
                connection.close()

    def _head(self, call):
        if isinstance(call.body, FilePart):
            payload_hash = UNSIGNED_PAYLOAD
        else:
            payload_hash = hashlib.sha256(call.body).hexdigest()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = dict(call.headers, host=self.address)
        headers["x-amz-content-sha256"] = payload_hash
        headers["x-amz-date"] = stamp
        request = Request(call.method, call.path, call.query, headers, payload_hash)
        headers["authorization"] = authorization(request, self._key, stamp)
        headers["user-agent"] = "sebs-lite"
        if call.method in ("PUT", "POST"):
            headers["content-length"] = str(len(call.body))
        query = encode_query(call.query)
        target = encode_path(call.path) + ("?" + query if query else "")
        lines = ["{} {} HTTP/1.1".format(call.method, target)]
        for name, value in headers.items():
            if "\r" in value or "\n" in value:
                raise ValueError("the header `{}` cannot have a line break".format(name))
            lines.append("{}: {}".format(name, value))
        return "\r\n".join(lines + ["", ""]).encode("utf-8")

    def _take(self):
        """A connection that nobody else has: a kept one that is still good, else one made now."""
        if self._process != os.getpid():
            # A child process would mix its requests with its parent's.
            self._idle = []
            self._process = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return _Connection(*self._place)
            if connection.is_open():
                return connection
            connection.close()
