# The videos that 220.video-processing works on for each size, and how to tell that what it made shows them.
#
# They are made here without compression (YUV4MPEG2): bands of grey with a grain, which move to the left. Whether a
# result shows them, and the mark on them, is only looked at where the Python that runs this finds an ffmpeg; its form
# always is.

import os
import random
import shutil
import struct
import subprocess
import tempfile

# Width, height, pictures a second and seconds: files of 0.3 MB, 17 MB and 100 MB.
VIDEOS = {"test": (160, 120, 10, 1), "small": (640, 360, 24, 2), "large": (1280, 720, 24, 3)}
GIF_RATE, GIF_WIDTH = 8, 320
MARK_PIXELS = 48
SEED = 220
STEP_PIXELS = 2
# What compression, scaling and another range of greys leave of a value.
TOLERANCE = 24


def buckets_count():
    return (1, 1)


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    key = key_of(size)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, key)
        write_video(path, *VIDEOS[size])
        upload_func(0, key, path)
    return {
        "object": {"key": key, "op": "watermark", "duration": VIDEOS[size][3]},
        "bucket": {"bucket": benchmarks_bucket, "input": input_paths[0], "output": output_paths[0]},
    }


def key_of(size):
    return "bands-{}x{}.y4m".format(*VIDEOS[size][:2])


def write_video(path, width, height, rate, seconds):
    colours = bytes([128]) * (width // 2 * (height // 2) * 2)
    # The view moves over a wider picture.
    wide = width + STEP_PIXELS * rate * seconds
    source, weaken = random.Random(SEED), bytes(value & 7 for value in range(256))
    bands = int.from_bytes(bytes(grey(x) for x in range(wide)), "big")
    # As large numbers: no sum of two bytes is more than a byte holds.
    grains = (int.from_bytes(source.randbytes(wide).translate(weaken), "big") for _ in range(height))
    lines = [(bands + grain).to_bytes(wide, "big") for grain in grains]
    with open(path, "wb") as file:
        file.write("YUV4MPEG2 W{} H{} F{}:1 Ip A1:1 C420jpeg\n".format(width, height, rate).encode())
        for begin in range(0, STEP_PIXELS * rate * seconds, STEP_PIXELS):
            picture = b"".join(line[begin : begin + width] for line in lines)
            file.write(b"FRAME\n" + picture + colours)


def grey(x):
    """Up and down again in 128 pixels, and always darker than the mark."""
    return 24 + abs(x % 128 - 64)


def validate_output(data_dir, input_config, output, language, storage):
    bucket, wanted, result = input_config["bucket"], input_config["object"], output.get("result")
    if not isinstance(result, dict) or not isinstance(result.get("key"), str):
        return "the result should name what was made and is {!r}".format(result)
    key = result["key"]
    if result.get("bucket") != bucket["bucket"] or not key.startswith(bucket["output"] + "/"):
        return "it should be below `{}` in {}, and is {!r}".format(bucket["output"], bucket["bucket"], result)
    is_gif = wanted["op"] == "extract-gif"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "made.gif" if is_gif else "made.mp4")
        try:
            storage.download(bucket["bucket"], key, path)
        except Exception as error:
            return "`{}` cannot be fetched from the storage: {}".format(key, error)
        with open(path, "rb") as file:
            content = file.read()
        if output["measurement"]["upload_size"] != len(content):
            return "`{}` has {} bytes, not what is told".format(key, len(content))
        try:
            width, height, pictures = read_gif(content) if is_gif else read_mp4(content)
        except (ValueError, IndexError, KeyError, struct.error) as error:
            return "`{}` is no whole {}: {}".format(key, "GIF" if is_gif else "MP4", error)
        source = {key_of(size): video for size, video in VIDEOS.items()}.get(wanted["key"])
        if source is None:
            # What a user's own video shows is not known here.
            return None if pictures else "`{}` is empty".format(key)
        reason = wrong_form((width, height, pictures), source, wanted)
        program = shutil.which("ffmpeg")
        if reason is None and program is not None:
            reason = wrong_picture(program, path, source, width, height, is_gif)
    return None if reason is None else "`{}` {}".format(key, reason)


def wrong_form(form, source, wanted):
    width, height, rate, seconds = source
    seconds = min(seconds, wanted["duration"])
    if wanted["op"] == "extract-gif":
        height, width = round(height * min(1, GIF_WIDTH / width)), min(width, GIF_WIDTH)
        rate = GIF_RATE
    if form[:2] != (width, height):
        return "is {} x {}, not {} x {}".format(*form[:2], width, height)
    # A GIF shows a picture that does not differ from the one before for longer instead.
    if abs(form[2] - rate * seconds) > 1:
        return "has {} pictures, not {}".format(form[2], rate * seconds)
    return None


def wrong_picture(program, path, source, width, height, is_gif):
    command = [program, "-nostdin", "-loglevel", "error", "-i", path]
    command += ["-frames:v", "1", "-pix_fmt", "gray", "-f", "rawvideo", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    if done.returncode != 0 or len(done.stdout) != width * height:
        return "cannot be shown: {}".format(done.stderr.decode("utf-8", "replace").strip())
    places = [(x * width // 16, height // 8) for x in range(1, 16)]
    for x, y in places:
        shown, expected = done.stdout[y * width + x], grey(x * source[0] // width)
        # The greys between 16 and 235 are those from black to white, in some of the formats.
        if min(abs(shown - expected), abs(shown - (expected - 16) * 255 // 219)) > TOLERANCE:
            return "shows {} instead of {} at {}, {}".format(shown, expected, x, y)
    # In the left border of the mark.
    mark = done.stdout[height // 2 * width + width // 2 - MARK_PIXELS // 2 + MARK_PIXELS // 6]
    if (mark > 255 - TOLERANCE) == is_gif:
        return "has a mark" if is_gif else "has no mark in the middle"
    return None


def read_mp4(content):
    """Width, height and number of pictures of the first track (ISO/IEC 14496-12)."""
    boxes = boxes_of(content)
    if "mdat" not in boxes or "ftyp" not in boxes:
        raise ValueError("it has no content")
    track = boxes_of(boxes_of(boxes["moov"])["trak"])
    width, height = struct.unpack(">II", track["tkhd"][-8:])
    table = boxes_of(boxes_of(boxes_of(track["mdia"])["minf"])["stbl"])
    same_bytes, pictures = struct.unpack_from(">II", table["stsz"], 4)
    sizes = [same_bytes] * pictures if same_bytes else struct.unpack_from(">%dI" % pictures, table["stsz"], 12)
    if sum(sizes) > len(boxes["mdat"]):
        raise ValueError("it is cut off")
    return width >> 16, height >> 16, pictures


def boxes_of(content):
    """The first box of each kind."""
    boxes, at = {}, 0
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", content, at + 8)[0], 16
        end = at + size if size else len(content)
        if size and size < head or end > len(content):
            raise ValueError("it is cut off")
        boxes.setdefault(kind.decode("latin-1"), content[at + head : end])
        at = end
    return boxes


def read_gif(content):
    """Width, height and number of pictures (GIF89a)."""
    if content[:6] != b"GIF89a":
        raise ValueError("it does not begin as one")
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    pictures, at = 0, 13 + table_bytes(flags)
    while content[at] != 0x3B:
        if content[at] == 0x2C:
            pictures += 1
            at += 10 + table_bytes(content[at + 9]) + 1
        elif content[at] == 0x21:
            at += 2
        else:
            raise ValueError("there is no block at {}".format(at))
        while content[at] != 0:
            at += content[at] + 1
        at += 1
    return width, height, pictures


def table_bytes(flags):
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0
