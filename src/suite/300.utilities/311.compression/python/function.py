# Packs all files below a folder of the storage into a zip archive, and uploads that.

import os
import posixpath
import tempfile
import time
import zipfile

from . import storage

client = storage.storage.get_instance()


def handler(event):
    bucket, key = event["bucket"], event["object"]["key"]
    prefix = posixpath.join(bucket["input"], key)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        # With its end, or a folder whose name only begins like this one's would come too.
        client.download_directory(bucket["bucket"], prefix + "/", folder)
        downloaded = time.perf_counter()
        source = os.path.join(folder, prefix)
        files = sorted(os.path.join(root, name) for root, _, names in os.walk(source) for name in names)
        download_size = sum(os.path.getsize(file) for file in files)
        archive = os.path.join(folder, "archive.zip")
        computing = time.perf_counter()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            for file in files:
                target.write(file, os.path.relpath(file, source))
        computed = time.perf_counter()
        stored = client.upload(bucket["bucket"], posixpath.join(bucket["output"], key + ".zip"), archive)
        end = time.perf_counter()
        upload_size = os.path.getsize(archive)
    return {
        "result": {"bucket": bucket["bucket"], "key": stored},
        "measurement": {
            "download_time": (downloaded - begin) * 1000000,
            "download_size": download_size,
            "upload_time": (end - computed) * 1000000,
            "upload_size": upload_size,
            "compute_time": (computed - computing) * 1000000,
        },
    }
