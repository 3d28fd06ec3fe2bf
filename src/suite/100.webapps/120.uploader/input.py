# What 120.uploader fetches and stores for each size, and how to tell that it was stored unchanged.
#
# The storage itself serves the object, so nothing beyond this machine is needed: the event's `url` is
# `s3://<bucket>/<key>`. The storage refuses whoever asks without a key, and only the function has keys, so it makes an
# HTTP URL of it that carries a signature. From there on it is a URL like any other, fetched over HTTP from another
# host of the network. An event of a user's own may name an `http://` or `https://` URL.

import hashlib
import os
import random
import tempfile

MIB = 1024 * 1024
BYTES = {"test": MIB // 16, "small": 4 * MIB, "large": 64 * MIB}
SEED = 120


def buckets_count():
    return (1, 1)


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    key = "object-{}.bin".format(size)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, key)
        write_object(path, BYTES[size])
        upload_func(0, key, path)
    return {
        "object": {"url": "s3://{}/{}/{}".format(benchmarks_bucket, input_paths[0], key)},
        "bucket": {"bucket": benchmarks_bucket, "output": output_paths[0]},
    }


def write_object(path, size):
    """The same bytes each time, which no compression on the way makes fewer."""
    source = random.Random(SEED)
    with open(path, "wb") as file:
        for begin in range(0, size, MIB):
            file.write(source.randbytes(min(MIB, size - begin)))


def validate_output(data_dir, input_config, output, language, storage):
    url, where = input_config["object"]["url"], input_config["bucket"]
    result = output.get("result")
    if not isinstance(result, dict) or not isinstance(result.get("key"), str):
        return "the result should name what was stored and is {!r}".format(result)
    if result.get("url") != url or result.get("bucket") != where["bucket"]:
        return "{} was to be stored in {}, the result says {}".format(url, where["bucket"], result)
    if not result["key"].startswith(where["output"] + "/"):
        return "it should be below `{}`, and is `{}`".format(where["output"], result["key"])
    with tempfile.TemporaryDirectory() as folder:
        stored = fetched(storage, where["bucket"], result["key"], folder)
        if isinstance(stored, str):
            return stored
        size, digest = stored
        for name in ("download_size", "upload_size"):
            if output["measurement"][name] != size:
                return "{} bytes are stored, {} is {}".format(size, name, output["measurement"][name])
        # What stands behind another URL is not known here.
        if url.startswith("s3://"):
            bucket, _, key = url[len("s3://") :].partition("/")
            source = fetched(storage, bucket, key, folder)
            if isinstance(source, str):
                return source
            if source != (size, digest):
                return "what is stored as `{}` is not what `{}` is".format(result["key"], url)
    return None


def fetched(storage, bucket, key, folder):
    """Size and hash of an object, or why it cannot be had."""
    path = os.path.join(folder, "object")
    try:
        storage.download(bucket, key, path)
    except Exception as error:
        return "`{}` cannot be fetched from the storage: {}".format(key, error)
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(MIB), b""):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()
