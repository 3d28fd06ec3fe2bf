"""Times the steps of the storage benchmark with boto3 or minio-py, and prints the seconds of each."""

import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor

KIND, ADDRESS, ACCESS, SECRET = sys.argv[1:5]
COUNT, THREADS, BYTES = map(int, sys.argv[5:])
KEYS = [f"folder/{number:06}" for number in range(COUNT)]
CONTENT = b"x" * BYTES


def spread(each, values):
    """Does `each` for all values, a part of them on each thread."""

    def part(number):
        for value in values[number::THREADS]:
            each(value)

    if THREADS == 1:
        return part(0)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(part, range(THREADS)))


def check(is_so):
    if not is_so:
        raise SystemExit("the storage gave something else than was stored")


def timed(name, step):
    begin = time.perf_counter()
    step()
    print(name, time.perf_counter() - begin)


def boto(name):
    import boto3
    from botocore.config import Config

    return boto3.client(
        name,
        endpoint_url=f"http://{ADDRESS}",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(max_pool_connections=max(10, THREADS)),
    )


def boto_objects():
    import base64
    import hashlib

    client = boto("s3")

    def add_hash(request, **_):
        # JuiceFS wants it, and boto3 no longer sends it.
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(request.body).digest()).decode()

    client.meta.events.register("before-sign.s3.DeleteObjects", add_hash)

    def get(key):
        check(len(client.get_object(Bucket="bench", Key=key)["Body"].read()) == BYTES)

    def count():
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="bench", Prefix="folder/")
        return sum(len(page["Contents"]) for page in pages)

    def delete():
        for begin in range(0, COUNT, 1000):
            keys = [{"Key": key} for key in KEYS[begin : begin + 1000]]
            client.delete_objects(Bucket="bench", Delete={"Objects": keys, "Quiet": True})

    timed("put", lambda: spread(lambda key: client.put_object(Bucket="bench", Key=key, Body=CONTENT), KEYS))
    timed("get", lambda: spread(get, KEYS))
    timed("list", lambda: check(count() == COUNT))
    timed("delete", delete)


def minio_objects():
    from minio import Minio
    from minio.deleteobjects import DeleteObject

    client = Minio(ADDRESS, access_key=ACCESS, secret_key=SECRET, region="us-east-1", secure=False)

    def get(key):
        answer = client.get_object("bench", key)
        check(len(answer.read()) == BYTES)
        answer.close()
        answer.release_conn()

    def delete():
        check(not list(client.remove_objects("bench", [DeleteObject(key) for key in KEYS])))

    timed("put", lambda: spread(lambda key: client.put_object("bench", key, io.BytesIO(CONTENT), BYTES), KEYS))
    timed("get", lambda: spread(get, KEYS))
    timed("list", lambda: check(sum(1 for _ in client.list_objects("bench", "folder/", recursive=True)) == COUNT))
    timed("delete", delete)


def tables():
    client = boto("dynamodb")
    text = "x" * 200

    def item(number):
        return {
            "id": {"S": str(number % 7)},
            "at": {"S": f"{number:06}"},
            "number": {"N": str(number)},
            "text": {"S": text},
        }

    items = [item(number) for number in range(COUNT)]
    keys = [{"id": item["id"], "at": item["at"]} for item in items]

    def scan():
        pages = client.get_paginator("scan").paginate(TableName="bench", ConsistentRead=True)
        return sum(len(page["Items"]) for page in pages)

    def write(batch):
        client.batch_write_item(RequestItems={"bench": [{"PutRequest": {"Item": item}} for item in batch]})

    def get(key):
        check("Item" in client.get_item(TableName="bench", Key=key, ConsistentRead=True))

    timed("put", lambda: spread(lambda item: client.put_item(TableName="bench", Item=item), items))
    timed("get", lambda: spread(get, keys))
    timed("scan", lambda: check(scan() == COUNT))
    timed("batch", lambda: spread(write, [items[begin : begin + 25] for begin in range(0, COUNT, 25)]))


{"boto3": boto_objects, "minio-py": minio_objects, "tables": tables}[KIND]()
