# Fetches what a URL leads to into a file, and uploads that file to the storage.

import hashlib
import hmac
import os
import posixpath
import shutil
import tempfile
import time
import urllib.parse
import urllib.request

from . import storage

client = storage.storage.get_instance()

PIECE_BYTES = 256 * 1024
# Some servers refuse requests that do not say who asks.
USER_AGENT = "sebs-lite-uploader/1.0"


def handler(event):
    bucket, output = event["bucket"]["bucket"], event["bucket"]["output"]
    url = event["object"]["url"]
    name = posixpath.basename(urllib.parse.urlsplit(url).path) or "object"
    address = signed(url) if url.startswith("s3://") else url
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "object")
        begin = time.perf_counter()
        fetch(address, path)
        fetched = time.perf_counter()
        key = client.upload(bucket, posixpath.join(output, name), path)
        end = time.perf_counter()
        size = os.path.getsize(path)
    fetch_time = (fetched - begin) * 1000000
    return {
        "result": {"bucket": bucket, "url": url, "key": key},
        "measurement": {
            "download_time": fetch_time,
            "download_size": size,
            "upload_time": (end - fetched) * 1000000,
            "upload_size": size,
            # To fetch is the work of this benchmark: its time counts here too, where SeBS has it.
            "compute_time": fetch_time,
        },
    }


def fetch(url, path):
    # Another scheme could name a file of this machine.
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("only http://, https:// and s3:// URLs can be fetched, not " + url)
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
    with urllib.request.urlopen(request) as answer, open(path, "wb") as file:
        shutil.copyfileobj(answer, file, PIECE_BYTES)
        expected = answer.headers.get("Content-Length")
        # A connection that is lost in between looks like an end.
        if expected is not None and file.tell() != int(expected):
            raise OSError("{} of {} bytes came".format(file.tell(), expected))


def signed(url):
    """The storage's own URL of `s3://<bucket>/<key>`, with a signature (AWS, version 4) that lets it be read."""
    host, access_key = os.environ["MINIO_ADDRESS"], os.environ["MINIO_ACCESS_KEY"]
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    region = os.environ.get("SEBS_LITE_S3_REGION", "us-east-1")
    scope = [now[:8], region, "s3", "aws4_request"]
    path = "/" + urllib.parse.quote(url[len("s3://") :], safe="/~")
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": "/".join([access_key] + scope),
        "X-Amz-Date": now,
        "X-Amz-Expires": "3600",
        "X-Amz-SignedHeaders": "host",
    }
    query = urllib.parse.urlencode(sorted(query.items()), quote_via=urllib.parse.quote, safe="~")
    request = "\n".join(["GET", path, query, "host:" + host, "", "host", "UNSIGNED-PAYLOAD"])
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", now, "/".join(scope), digest])
    key = ("AWS4" + os.environ["MINIO_SECRET_KEY"]).encode()
    for part in scope + [text]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return "http://{}{}?{}&X-Amz-Signature={}".format(host, path, query, key.hex())
