# Puts a mark on a video, or makes an animated GIF of it, with the ffmpeg that is packaged beside this file.

import os
import posixpath
import subprocess
import tempfile
import time

from . import storage

client = storage.storage.get_instance()

FFMPEG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ffmpeg")
MARK_PIXELS = 48


def handler(event):
    bucket, wanted = event["bucket"], event["object"]
    operation = OPERATIONS.get(wanted["op"])
    if operation is None:
        raise ValueError("`op` should be one of {}, not {}".format(", ".join(OPERATIONS), wanted["op"]))
    with tempfile.TemporaryDirectory() as folder:
        video = os.path.join(folder, posixpath.basename(wanted["key"]))
        begin = time.perf_counter()
        client.download(bucket["bucket"], posixpath.join(bucket["input"], wanted["key"]), video)
        downloaded = time.perf_counter()
        made = operation(folder, video, wanted["duration"])
        computed = time.perf_counter()
        name = posixpath.join(bucket["output"], os.path.basename(made))
        key = client.upload(bucket["bucket"], name, made)
        end = time.perf_counter()
        download_size, upload_size = os.path.getsize(video), os.path.getsize(made)
    return {
        "result": {"bucket": bucket["bucket"], "key": key},
        "measurement": {
            "download_time": (downloaded - begin) * 1000000,
            "download_size": download_size,
            "upload_time": (end - computed) * 1000000,
            "upload_size": upload_size,
            "compute_time": (computed - downloaded) * 1000000,
        },
    }


def watermark(folder, video, seconds):
    mark, target = os.path.join(folder, "mark.pam"), named(video, ".mp4")
    write_mark(mark)
    graph = "[0:v][1:v]overlay=x=(W-w)/2:y=(H-h)/2,format=yuv420p"
    run_ffmpeg(["-i", video, "-i", mark, "-filter_complex", graph, "-t", str(seconds), target])
    return target


def extract_gif(folder, video, seconds):
    target = named(video, ".gif")
    # The colours that a GIF may have are chosen from all its pictures first.
    graph = "[0:v]fps=8,scale=w='min(320,iw)':h=-1,split[a][b];[a]palettegen[colours];[b][colours]paletteuse"
    run_ffmpeg(["-t", str(seconds), "-i", video, "-filter_complex", graph, target])
    return target


OPERATIONS = {"watermark": watermark, "extract-gif": extract_gif}


def named(video, ending):
    # Beside the source, and never it.
    return os.path.join(os.path.dirname(video), "processed-" + os.path.splitext(os.path.basename(video))[0] + ending)


def write_mark(path):
    """A white square with a hole in it, in a format that needs no encoder."""
    white, hole = b"\xff\xff\xff\xff", b"\0\0\0\0"
    border, inside = MARK_PIXELS // 3, MARK_PIXELS - 2 * (MARK_PIXELS // 3)
    full = white * MARK_PIXELS * border
    middle = (white * border + hole * inside + white * border) * inside
    head = "P7\nWIDTH {0}\nHEIGHT {0}\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n".format(MARK_PIXELS)
    with open(path, "wb") as file:
        file.write(head.encode() + full + middle + full)


def run_ffmpeg(arguments):
    program = [os.path.join(FFMPEG, "ffmpeg")]
    loader = os.path.join(FFMPEG, "loader")
    if os.path.exists(loader):
        # The image has other libraries, or none.
        program = [loader, "--library-path", os.path.join(FFMPEG, "lib")] + program
    done = subprocess.run(
        program + ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"] + arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        told = done.stdout.decode("utf-8", "replace").strip()
        raise RuntimeError("ffmpeg ended with {}: {}".format(done.returncode, told))
