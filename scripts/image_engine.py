"""Imports files into a Docker engine as an image, over its Unix socket, and tells whether it is there already."""

import http.client
import io
import json
import os
import socket
import sys
import tarfile
import tempfile
import urllib.parse


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's Unix socket."""

    def __init__(self):
        super().__init__("docker", timeout=120)

    def connect(self):
        address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        if not address.startswith("unix://"):
            sys.exit(f"DOCKER_HOST is `{address}`: only a Unix socket can be spoken to, unix:///path")
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(address[len("unix://") :])
        except OSError as error:
            sys.exit(f"no Docker engine at {address}: {error}")


def ask(method, path, body=None):
    """Sends one request to the engine: its status, and its answer as bytes."""
    connection = EngineConnection()
    headers = {"Content-Type": "application/x-tar"}
    connection.request(method, path, body=body, headers=headers, encode_chunked=False)
    answer = connection.getresponse()
    return answer.status, answer.read()


def is_there(image, labels, entrypoint):
    """Has the engine this image, made of the same package, started in the same way?"""
    status, answer = ask("GET", f"/images/{image}/json")
    if status != 200:
        return False
    config = json.loads(answer)["Config"]
    theirs = config.get("Labels") or {}
    return config.get("Entrypoint") == entrypoint and all(theirs.get(name) == text for name, text in labels.items())


def import_image(image, files, changes):
    """Makes the image of `files`, path in the image -> path on this host, and of the folders that a server needs."""
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, source in sorted(files.items()):
                entry = tar.gettarinfo(os.path.realpath(source), name.lstrip("/"))
                entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o755, 0, 0, "", ""
                with open(source, "rb") as content:
                    tar.addfile(entry, content)
            # The server may run as any user, and keeps its data and its temporary files here.
            for name, mode in [("data", 0o777), ("tmp", 0o1777)]:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, mode
                tar.addfile(entry)
        size = archive.seek(0, io.SEEK_END)
        archive.seek(0)
        # The tag as a part of the name: Podman 4.3 takes no notice of one by itself.
        query = [("fromSrc", "-"), ("repo", image)] + [("changes", line) for line in changes]
        print(f"importing {image} ({size >> 20} MiB)", file=sys.stderr)
        status, answer = ask("POST", "/images/create?" + urllib.parse.urlencode(query), archive)
    if status != 200 or b'"error"' in answer:
        sys.exit(f"the engine made no image {image}: {answer.decode(errors='replace').strip()}")
