# Makes a small copy of an image, which keeps its proportions and its format.

import io
import posixpath
import time

from PIL import Image

from . import storage

client = storage.storage.get_instance()


def handler(event):
    bucket, wanted = event["bucket"], event["object"]
    begin = time.perf_counter()
    image = client.download_stream(bucket["bucket"], posixpath.join(bucket["input"], wanted["key"]))
    downloaded = time.perf_counter()
    thumbnail = shrink(image, (wanted["width"], wanted["height"]))
    computed = time.perf_counter()
    # An upload may close what it has read.
    size = thumbnail.getbuffer().nbytes
    target = posixpath.join(bucket["output"], wanted["key"])
    key = client.upload_stream(bucket["bucket"], target, thumbnail)
    end = time.perf_counter()
    return {
        "result": {"bucket": bucket["bucket"], "key": key},
        "measurement": {
            "download_time": (downloaded - begin) * 1000000,
            "download_size": len(image),
            "upload_time": (end - computed) * 1000000,
            "upload_size": size,
            "compute_time": (computed - downloaded) * 1000000,
        },
    }


def shrink(content, box):
    thumbnail = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        # A smaller image stays as it is.
        image.thumbnail(box)
        image.save(thumbnail, format=image.format)
    thumbnail.seek(0)
    return thumbnail
