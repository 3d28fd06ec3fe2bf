# The images that 210.thumbnailer shrinks for each size, and how to tell that a thumbnail shows its image.
#
# They are PNG files made here: a chequered field of colours with noise over it, which is what makes them large. So
# each colour has to be found again in the thumbnail, at its place.

import os
import random
import struct
import tempfile
import zlib

# Width and height: files of 0.5 MB, 8 MB and 34 MB.
IMAGES = {"test": (600, 400), "small": (2250, 1500), "large": (4800, 3200)}
BOX = {"test": (90, 90), "small": (200, 200), "large": (200, 200)}
COLUMNS, ROWS = 4, 3
SEED = 210
# Noise adds half of it, on average.
NOISE = 15
# Thumbnails of some formats are not exact, and their pixels are averages of noise.
TOLERANCE = 12


def buckets_count():
    return (1, 1)


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    width, height = IMAGES[size]
    key = key_of(size)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, key)
        write_image(path, width, height)
        upload_func(0, key, path)
    return {
        "object": {"key": key, "width": BOX[size][0], "height": BOX[size][1]},
        "bucket": {"bucket": benchmarks_bucket, "input": input_paths[0], "output": output_paths[0]},
    }


def key_of(size):
    return "field-{}x{}.png".format(*IMAGES[size])


def colour(column, row):
    number = row * COLUMNS + column
    return (16 + number * 16, 208 - number * 16, 32 + number % 3 * 80)


def write_image(path, width, height):
    noise = random.Random(SEED)
    weaken = bytes(value & NOISE for value in range(256))
    packer = zlib.compressobj(level=1)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        for y in range(height):
            plain = plain_line(y * ROWS // height, width)
            # As one large number: no sum of two bytes is more than a byte holds.
            total = int.from_bytes(plain, "little")
            total += int.from_bytes(noise.randbytes(len(plain)).translate(weaken), "little")
            packed = packer.compress(b"\0" + total.to_bytes(len(plain), "little"))
            if packed:
                write_chunk(file, b"IDAT", packed)
        write_chunk(file, b"IDAT", packer.flush())
        write_chunk(file, b"IEND", b"")


def plain_line(row, width):
    borders = [column * width // COLUMNS for column in range(COLUMNS + 1)]
    cells = zip(borders, borders[1:])
    return b"".join(bytes(colour(column, row)) * (end - begin) for column, (begin, end) in enumerate(cells))


def write_chunk(file, kind, content):
    checksum = zlib.crc32(kind + content)
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum))


def validate_output(data_dir, input_config, output, language, storage):
    bucket, wanted, result = input_config["bucket"], input_config["object"], output.get("result")
    if not isinstance(result, dict) or not isinstance(result.get("key"), str):
        return "the result should name the thumbnail and is {!r}".format(result)
    key = result["key"]
    if result.get("bucket") != bucket["bucket"] or not key.startswith(bucket["output"] + "/"):
        return "it should be below `{}` in {}, and is {!r}".format(bucket["output"], bucket["bucket"], result)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "thumbnail")
        try:
            storage.download(bucket["bucket"], key, path)
        except Exception as error:
            return "`{}` cannot be fetched from the storage: {}".format(key, error)
        with open(path, "rb") as file:
            content = file.read()
    if output["measurement"]["upload_size"] != len(content):
        return "`{}` has {} bytes, not what is told".format(key, len(content))
    sources = {key_of(size): dimensions for size, dimensions in IMAGES.items()}
    source = sources.get(wanted["key"])
    if source is None:
        # What a user's own image shows is not known here.
        return None if content else "`{}` is empty".format(key)
    try:
        width, height, pixels = read_png(content)
    except (ValueError, struct.error, zlib.error) as error:
        return "`{}` is no such PNG as its source is: {}".format(key, error)
    scale = min(wanted["width"] / source[0], wanted["height"] / source[1])
    if abs(width - source[0] * scale) > 1 or abs(height - source[1] * scale) > 1:
        return "`{}` is {} x {}, its source {} x {}".format(key, width, height, *source)
    for row in range(ROWS):
        for column in range(COLUMNS):
            x, y = (2 * column + 1) * width // (2 * COLUMNS), (2 * row + 1) * height // (2 * ROWS)
            shown, expected = pixels[y][3 * x : 3 * x + 3], colour(column, row)
            if any(abs(a - b - NOISE / 2) > TOLERANCE for a, b in zip(shown, expected)):
                return "`{}` shows {} at {}, {} instead of {}".format(key, tuple(shown), x, y, expected)
    return None


def read_png(content):
    """Width, height and lines of a PNG with 8 bits for each of red, green and blue."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("it does not begin as one")
    chunks, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, at + 8 + length)
        if zlib.crc32(kind + data) != checksum:
            raise ValueError("a checksum is wrong")
        chunks[kind] = chunks.get(kind, b"") + data
        at += 12 + length
    if b"IEND" not in chunks:
        raise ValueError("it is cut off")
    width, height, *form = struct.unpack(">IIBBBBB", chunks.get(b"IHDR", b""))
    if form != [8, 2, 0, 0, 0]:
        raise ValueError("its form is {}".format(form))
    packed, length = zlib.decompress(chunks.get(b"IDAT", b"")), 3 * width + 1
    if len(packed) != length * height:
        raise ValueError("it has {} bytes of pixels".format(len(packed)))
    lines, above = [], bytes(3 * width)
    for begin in range(0, len(packed), length):
        above = unfiltered(packed[begin], packed[begin + 1 : begin + length], above)
        lines.append(above)
    return width, height, lines


def unfiltered(kind, line, above):
    """A line of pixels, of which the file has the differences to those before and above."""
    done = bytearray()
    for index, value in enumerate(line):
        left, corner = (done[index - 3], above[index - 3]) if index >= 3 else (0, 0)
        top = above[index]
        guess = left + top - corner
        nearest = min((abs(guess - left), 0, left), (abs(guess - top), 1, top), (abs(guess - corner), 2, corner))
        guesses = [0, left, top, (left + top) // 2, nearest[2]]
        done.append((value + guesses[kind]) & 0xFF)
    return bytes(done)
