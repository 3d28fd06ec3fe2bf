# Runs the input.py of one benchmark for sebs-lite, which asks for each call over a Unix socket, in lines of JSON.
#
# Called as `python3 input_worker.py SOCKET OUTPUT`; all that input.py prints goes to the file OUTPUT. The first line
# from the other side says what to load; each following one names a call: {"call": name, ...}. The answer is one line,
# {"result": value} or {"error": {...}}. Before it may come lines {"callback": name, "arguments": [...]}, each of which
# is answered with {"result": null} or {"error": text}: uploads, writes and downloads are done by the other side.

import importlib.util
import json
import os
import pathlib
import socket
import sys
import traceback
import types


class StorageError(Exception):
    """What sebs-lite could not do for input.py."""


class Channel:
    """Lines of JSON over a socket, one at a time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")

    def receive(self):
        line = self.lines.readline()
        if not line:
            sys.exit(0)
        return json.loads(line)

    def send(self, message):
        # No NaN: JSON has none, and whoever reads it would fail.
        self.socket.sendall((json.dumps(message, allow_nan=False) + "\n").encode("utf-8"))

    def ask(self, callback, *arguments):
        self.send({"callback": callback, "arguments": list(arguments)})
        answer = self.receive()
        if "error" in answer:
            raise StorageError(answer["error"])
        return answer["result"]


class Storage:
    """What validate_output may fetch results with."""

    def __init__(self, channel):
        self.channel = channel

    def download(self, bucket, key, filepath):
        self.channel.ask("download", str(bucket), str(key), os.path.abspath(filepath))


class Calls:
    """The functions of input.py, each by the name that it is called by."""

    def __init__(self, module, channel, data):
        self.module = module
        self.channel = channel
        self.data = data

    def buckets_count(self, call):
        function = getattr(self.module, "buckets_count", None)
        return None if function is None else function()

    def allocate_nosql(self, call):
        function = getattr(self.module, "allocate_nosql", None)
        return None if function is None else function()

    def generate_input(self, call):
        def upload(index, key, filepath):
            self.channel.ask("upload", int(index), str(key), os.path.abspath(filepath))

        def write(benchmark, table, data, primary_key, secondary_key=None):
            secondary = None if secondary_key is None else list(secondary_key)
            self.channel.ask("nosql_write", str(benchmark), str(table), data, list(primary_key), secondary)

        return self.module.generate_input(
            self.data,
            call["size"],
            call["benchmarks_bucket"],
            call["input_paths"],
            call["output_paths"],
            upload,
            write if hasattr(self.module, "allocate_nosql") else None,
        )

    def validate_output(self, call):
        function = getattr(self.module, "validate_output", None)
        if function is None:
            return {"verdict": "not validated"}
        storage = Storage(self.channel)
        reason = function(
            self.data, call["input"], json.loads(call["output"]), call["language"], storage
        )
        if reason is None or reason is True:
            return {"verdict": "valid"}
        return {"verdict": "invalid", "reason": "no reason given" if reason is False else str(reason)}


def main(socket_path, output_path):
    output = os.open(output_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    # What was printed is there to be shown, even if the script ends this process.
    sys.stdout.reconfigure(line_buffering=True)
    # The benchmark's folder may be read-only, and is not ours to fill.
    sys.dont_write_bytecode = True
    channel = Channel(socket_path)
    load = channel.receive()
    calls = None
    try:
        stub_sebs(load["project_root"])
        calls = Calls(load_module(load["script"]), channel, load["data"])
        channel.send({"result": None})
    except BaseException as error:
        channel.send({"error": described(error)})
        sys.exit(1)
    while True:
        call = channel.receive()
        try:
            answer = {"result": getattr(calls, call["call"])(call)}
            flush()
            channel.send(answer)
        except BaseException as error:
            flush()
            channel.send({"error": described(error)})


def load_module(path):
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("input", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["input"] = module
    spec.loader.exec_module(module)
    return module


def stub_sebs(root):
    """The one function of SeBS that a benchmark's input.py imports."""
    package = types.ModuleType("sebs")
    utils = types.ModuleType("sebs.utils")
    utils.get_project_root = lambda: pathlib.Path(root)
    package.utils = utils
    sys.modules["sebs"] = package
    sys.modules["sebs.utils"] = utils


def described(error):
    """What went wrong, without the parts of the traceback that are this program's, before the script's and after."""
    frames = traceback.extract_tb(error.__traceback__)
    shown = [frame for frame in frames if not is_own(frame.filename)]
    lines = [line for text in traceback.format_list(shown) for line in text.splitlines()]
    lines += [line for text in traceback.format_exception_only(type(error), error) for line in text.splitlines()]
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return {"lines": lines, "missing_module": missing}


def is_own(filename):
    return filename == __file__ or filename.startswith("<frozen importlib")


def flush():
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
