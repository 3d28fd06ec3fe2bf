"""Calls the wrappers of a package as a test asks it to: a line of JSON for each call, and one for what came of it.

usage: drive.py FOLDER, which holds `function/`. Values that JSON has not are objects with one key: `$bytes` (in
hexadecimal digits), `$int` and `$decimal` (in digits), `$set`.
"""

import concurrent.futures
import decimal
import importlib
import io
import json
import os
import sys


class Unseekable:
    """A stream that can be read but once, such as the body of a download."""

    def __init__(self, path):
        self.file = open(path, "rb")

    def read(self, size):
        return self.file.read(size)


def decode(value):
    if isinstance(value, list):
        return [decode(element) for element in value]
    if not isinstance(value, dict):
        return value
    for tag, make in [("$bytes", bytes.fromhex), ("$int", int), ("$decimal", decimal.Decimal)]:
        if tag in value:
            return make(value[tag])
    if "$set" in value:
        return set(decode(value["$set"]))
    return {name: decode(element) for name, element in value.items()}


def encode(value):
    if isinstance(value, list):
        return [encode(element) for element in value]
    if isinstance(value, dict):
        return {name: encode(element) for name, element in value.items()}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, set):
        return {"$set": sorted(encode(element) for element in value)}
    if type(value) is int and abs(value) >= 1 << 53:
        return {"$int": str(value)}
    assert value is None or type(value) in (bool, int, float, str), type(value)
    return value


def peak_bytes():
    """The most memory that this process has held at once."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def sign(requests):
    http = importlib.import_module("function._sebs_lite_http")
    headers = []
    for one in requests:
        signed = {name.lower(): value for name, value in one["headers"]}
        request = http.Request(one["method"], one["path"], one["query"], signed, one["payload_hash"])
        headers.append(http.authorization(request, http.Key(**one["key"]), one["stamp"]))
    return headers


def in_a_child(storage, arguments):
    """Downloads in a child process that has this one's client and its connections."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.write(theirs, storage.download_stream(*arguments))
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as told:
        content = told.read()
    assert os.wait()[1] == 0
    return content


def call(module, method, arguments):
    if method == "peak_bytes":
        return peak_bytes()
    if method == "sign":
        return sign(*arguments)
    client = getattr(importlib.import_module("function." + module), module).get_instance()
    if method == "upload_stream":
        bucket, key, content = arguments
        return client.upload_stream(bucket, key, io.BytesIO(content))
    if method == "upload_pieces":
        bucket, key, path = arguments
        return client.upload_stream(bucket, key, Unseekable(path))
    if method == "download_in_a_child":
        return in_a_child(client, arguments)
    if method == "move_many":
        bucket, count = arguments

        def move(number):
            content = b"content %d" % number
            key = client.upload_stream(bucket, "many.txt", io.BytesIO(content))
            return client.download_stream(bucket, key) == content

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            return sum(threads.map(move, range(count)))
    return getattr(client, method)(*arguments)


sys.path.insert(0, sys.argv[1])
for line in sys.stdin:
    asked = json.loads(line)
    try:
        told = {"value": encode(call(asked["module"], asked["method"], decode(asked["arguments"])))}
    except Exception as error:
        told = {"error": {"type": type(error).__name__, "code": getattr(error, "code", None), "text": str(error)}}
    print(json.dumps(told), flush=True)
