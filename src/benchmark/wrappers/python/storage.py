"""Object storage for functions, as SeBS has it: `storage.storage.get_instance()`, for Python 3.7 and later.

Speaks S3 to the server that the environment names: MINIO_ADDRESS, MINIO_ACCESS_KEY, MINIO_SECRET_KEY and, if it is not
us-east-1, SEBS_LITE_S3_REGION. They are read when a client is made, not when this is imported.
"""

import hashlib
import io
import itertools
import os

if __package__:
    from . import _sebs_lite_http as http
else:
    import _sebs_lite_http as http

# What a server's refusal and a connection that broke for good are raised as.
ServerError = http.ServerError
NoAnswerError = http.NoAnswerError

# Up to this size an object is sent in one request.
SINGLE_BYTES = 64 << 20
# The size of a part, unless there would be too many of them.
PART_BYTES = 16 << 20
# The same for a stream, of which a part is held in memory.
HELD_BYTES = 8 << 20
MAX_PARTS = 10000


class storage:
    """A client that any number of threads may use."""

    instance = None

    def __init__(self):
        purpose = "object storage"
        address = http.setting("MINIO_ADDRESS", purpose)
        access, secret = http.setting("MINIO_ACCESS_KEY", purpose), http.setting("MINIO_SECRET_KEY", purpose)
        key = http.Key(access, secret, os.environ.get("SEBS_LITE_S3_REGION") or "us-east-1", "s3")
        self._server = http.Server(address, "MINIO_ADDRESS", key, _refusal)

    @staticmethod
    def get_instance():
        if storage.instance is None:
            storage.instance = storage()
        return storage.instance

    @staticmethod
    def unique_name(name):
        """`folder/name.png` as `folder/name.0123abcd.png`, so that uploads never replace each other."""
        stem, extension = os.path.splitext(name)
        return "{}.{}{}".format(stem, os.urandom(4).hex(), extension)

    def upload(self, bucket, key, path):
        """Stores a file under a unique name, which it returns."""
        stored = self.unique_name(key)
        with open(path, "rb") as file:
            self._put(bucket, stored, file)
        return stored

    def upload_stream(self, bucket, key, stream):
        """Stores what is left to read of an open binary file or another stream of bytes; returns the unique name."""
        stored = self.unique_name(key)
        self._put(bucket, stored, stream)
        return stored

    def download(self, bucket, key, path):
        """Writes an object to a file, which appears once it is whole; folders on the way are made."""
        folder = os.path.dirname(os.path.abspath(path))
        os.makedirs(folder, exist_ok=True)
        part = os.path.join(folder, ".{}.part".format(os.urandom(8).hex()))

        def write(answer):
            with open(part, "wb") as file:
                for piece in answer.pieces():
                    file.write(piece)

        try:
            self._server.ask(_call("download", "GET", bucket, key), write)
            os.replace(part, path)
        except BaseException:
            if os.path.exists(part):
                os.remove(part)
            raise

    def download_stream(self, bucket, key):
        """The bytes of an object."""
        return self._server.ask(_call("download", "GET", bucket, key))

    def download_directory(self, bucket, prefix, path):
        """Writes every object whose key begins with `prefix` to `path/<its whole key>`."""
        for key in self._keys(bucket, prefix):
            target = os.path.join(path, "./" + key)
            inside = os.path.abspath(path).rstrip(os.sep) + os.sep
            if not os.path.abspath(target).startswith(inside):
                text = "object `{}` in bucket `{}` would be written outside of `{}`"
                raise ValueError(text.format(key, bucket, path))
            if key.endswith("/"):
                os.makedirs(target, exist_ok=True)
            else:
                self.download(bucket, key, target)

    def _keys(self, bucket, prefix):
        token = None
        while True:
            query = [("list-type", "2"), ("encoding-type", "url"), ("prefix", prefix)]
            if token:
                query.append(("continuation-token", token))
            call = http.Call("list bucket `{}`".format(bucket), "GET", _path(bucket), query)
            root = self._ask(call)
            decode = str
            if root.findtext("EncodingType") == "url":
                from urllib.parse import unquote_plus as decode
            for entry in root.iter("Contents"):
                yield decode(entry.findtext("Key"))
            if root.findtext("IsTruncated") != "true":
                return
            last, token = token, root.findtext("NextContinuationToken")
            if not token or token == last:
                raise self._server.error(call, 200, "", "the list is cut off and does not go on")

    def _put(self, bucket, key, stream):
        call = _call("upload", "PUT", bucket, key)
        if isinstance(stream, (bytes, bytearray, memoryview)):
            stream = io.BytesIO(stream)
        extent = _extent(stream)
        if extent is None:
            parts = _held_parts(stream)
            first = next(parts)
            if len(first) < HELD_BYTES:
                call.body = first
                self._server.ask(call)
            else:
                self._put_parts(bucket, key, itertools.chain([first], parts))
            return
        start, end = extent
        if end - start <= SINGLE_BYTES:
            call.body = http.FilePart(stream, start, end - start)
            self._server.ask(call)
        else:
            self._put_parts(bucket, key, _file_parts(stream, start, end))
        stream.seek(end)

    def _put_parts(self, bucket, key, parts):
        begin = _call("begin the upload of", "POST", bucket, key, [("uploads", "")])
        # An upload that is begun twice would stay there for good.
        begin.is_repeatable = False
        upload = self._ask(begin).findtext("UploadId")
        if not upload:
            raise self._server.error(begin, 200, "", "the server gave the upload no id")
        try:
            tags, size = [], 0
            for part in parts:
                query = [("partNumber", str(len(tags) + 1)), ("uploadId", upload)]
                call = _call("upload a part of", "PUT", bucket, key, query)
                call.body = part
                tags.append(self._server.ask(call, _headers).get("etag", ""))
                size += len(part)
            end = _call("end the upload of", "POST", bucket, key, [("uploadId", upload)])
            end.body = _completion(tags)
            try:
                self._ask(end)
            except ServerError as error:
                # The upload has ended before, where the answer that said so was lost.
                if error.status != 404 or not self._is_stored(bucket, key, tags, size):
                    raise
        except BaseException:
            try:
                self._server.ask(_call("abort the upload of", "DELETE", bucket, key, [("uploadId", upload)]))
            except (ServerError, NoAnswerError):
                # The first failure is the one to tell.
                pass
            raise

    def _is_stored(self, bucket, key, tags, size):
        """Is an object there that was put together from parts with these ETags?"""
        expected = _joined_tag(tags)
        try:
            found = self._server.ask(_call("look at", "HEAD", bucket, key), _headers)
        except (ServerError, NoAnswerError):
            return False
        is_like = found.get("etag", "").strip('"') == expected
        return expected is not None and is_like and found.get("content-length") == str(size)

    def _ask(self, call):
        """The root element of an answer, without name spaces; a long operation fails after it has answered 200."""
        def read(answer):
            root = _tree(answer.read())
            if root.tag == "Error":
                raise self._server.error(call, answer.status, root.findtext("Code", ""), root.findtext("Message", ""))
            return root

        return self._server.ask(call, read)


def _path(bucket):
    if not bucket or bucket.startswith(".") or "/" in bucket:
        raise ValueError("`{}` is no name of a bucket".format(bucket))
    return "/" + bucket


def _call(verb, method, bucket, key, query=()):
    if not key:
        raise ValueError("an object in bucket `{}` needs a key that is not empty".format(bucket))
    about = "{} object `{}` in bucket `{}`".format(verb, key, bucket)
    return http.Call(about, method, "{}/{}".format(_path(bucket), key), query)


def _tree(text):
    # Small objects are moved without it.
    from xml.etree import ElementTree

    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _refusal(content):
    """Code and message of an error's body; what is no XML has neither."""
    try:
        root = _tree(content)
    except SyntaxError:
        return "", ""
    return root.findtext("Code", ""), root.findtext("Message", "")


def _headers(answer):
    answer.read()
    return answer.headers


def _joined_tag(tags):
    """The ETag of what is put together from parts that have these; None where one of these is no MD5."""
    hashes = [tag.strip('"') for tag in tags]
    if not all(len(digits) == 32 and set(digits) <= set("0123456789abcdef") for digits in hashes):
        return None
    return "{}-{}".format(hashlib.md5(bytes.fromhex("".join(hashes))).hexdigest(), len(tags))


def _completion(tags):
    from xml.sax.saxutils import escape

    parts = ["<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>".format(number, escape(tag))
             for number, tag in enumerate(tags, 1)]
    return "<CompleteMultipartUpload>{}</CompleteMultipartUpload>".format("".join(parts)).encode("utf-8")


def _extent(stream):
    """From where to where a stream can be read, as often as wanted; None where it can be read but once."""
    try:
        start = stream.tell()
        stream.seek(0, os.SEEK_END)
        end = stream.tell()
    except (AttributeError, OSError, ValueError):
        return None
    # Who has gone beyond the end has nothing left.
    return start, max(start, end)


def _file_parts(file, start, end):
    size = PART_BYTES
    while size * MAX_PARTS < end - start:
        size *= 2
    for offset in range(start, end, size):
        yield http.FilePart(file, offset, min(size, end - offset))


def _held_parts(stream):
    """Parts of a stream that can be read but once: held, so that they can be sent again; only the last is shorter.

    Each is good until the next is asked for, so that one at a time is in memory.
    """
    for number in itertools.count():
        # A stream may be longer than the most parts of that size.
        size = HELD_BYTES * (1 + number // 1000)
        held = bytearray()
        while len(held) < size:
            piece = stream.read(min(size - len(held), http.PIECE_BYTES))
            if not piece:
                break
            held += piece
        if held or number == 0:
            yield held
        if len(held) < size:
            return
        held.clear()
