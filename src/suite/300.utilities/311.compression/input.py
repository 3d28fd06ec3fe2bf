# The folders that 311.compression packs for each size, and how to tell that an archive holds what is in them.
#
# Their files are made here: most are texts of random words, every fourth one noise that cannot be compressed.

import hashlib
import os
import random
import tempfile
import zipfile

KIB = 1024
# How many files, and how many KiB each has on average: 180 KiB, 10 MiB, 96 MiB.
FOLDERS = {"test": (12, 15), "small": (64, 160), "large": (96, 1024)}
SEED = 311
# Longer than any compressor here looks back, so that texts may be pieces of the same one.
TEXT_BYTES = 2 * KIB * KIB


def buckets_count():
    return (1, 1)


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    key = key_of(size)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        for name, content in contents(*FOLDERS[size]):
            with open(path, "wb") as file:
                file.write(content)
            upload_func(0, "{}/{}".format(key, name), path)
    return {
        "object": {"key": key},
        "bucket": {"bucket": benchmarks_bucket, "input": input_paths[0], "output": output_paths[0]},
    }


def key_of(size):
    return "folder-" + size


def contents(count, average_kib):
    """Names and contents of the files, the same each time."""
    source = random.Random(SEED)
    letters = "aaabcdeeeefghiiijklmnnooopqrrssttuuvwxyz"
    words = ["".join(source.choices(letters, k=source.randint(2, 9))) for _ in range(4000)]
    text = " ".join(source.choices(words, k=TEXT_BYTES // 6)).encode()
    text = (text * 2)[:TEXT_BYTES]
    for number in range(count):
        # Between half and one and a half of the average.
        size = average_kib * KIB // 2 + source.randrange(average_kib * KIB + 1)
        if number % 4 == 3:
            yield "noise/{:03}.bin".format(number), source.randbytes(size)
        else:
            begin = source.randrange(TEXT_BYTES)
            name = "texts/{}/chapter {:03}.txt".format("abc"[number % 3], number)
            yield name, (text[begin:] + text[:begin])[:size]


def validate_output(data_dir, input_config, output, language, storage):
    bucket, result = input_config["bucket"], output.get("result")
    if not isinstance(result, dict) or not isinstance(result.get("key"), str):
        return "the result should name the archive and is {!r}".format(result)
    key = result["key"]
    if result.get("bucket") != bucket["bucket"] or not key.startswith(bucket["output"] + "/"):
        return "it should be below `{}` in {}, and is {!r}".format(bucket["output"], bucket["bucket"], result)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "archive.zip")
        try:
            storage.download(bucket["bucket"], key, path)
        except Exception as error:
            return "`{}` cannot be fetched from the storage: {}".format(key, error)
        if output["measurement"]["upload_size"] != os.path.getsize(path):
            return "`{}` has {} bytes, not what is told".format(key, os.path.getsize(path))
        try:
            packed = read_archive(path)
        except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
            return "`{}` is no whole archive: {}".format(key, error)
    folders = {key_of(size): shape for size, shape in FOLDERS.items()}
    shape = folders.get(input_config["object"]["key"])
    if shape is None:
        # What is in a user's own folder is not known here.
        return None if packed else "`{}` is empty".format(key)
    total = 0
    for name, content in contents(*shape):
        total += len(content)
        if name not in packed:
            return "`{}` has no file `{}`".format(key, name)
        if packed.pop(name) != digest(content):
            return "`{}` of `{}` is not what was to be packed".format(name, key)
    if packed:
        return "`{}` has files that were not to be packed: {}".format(key, ", ".join(sorted(packed)[:5]))
    if output["measurement"]["download_size"] != total:
        return "the files have {} bytes, not what is told".format(total)
    return None


def read_archive(path):
    """The hash of each file in it; its checksums are checked on the way."""
    with zipfile.ZipFile(path) as archive:
        if all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("nothing in it is compressed")
        return {entry.filename: digest(archive.read(entry)) for entry in archive.infolist()}


def digest(content):
    return hashlib.sha256(content).hexdigest()
