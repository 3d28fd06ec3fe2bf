# Allocates exactly the memory that each step asks for, holds it, gives it back to the kernel, and tells when.
#
# What it returns is a ground truth for memory measurement: between `begin` and `end` of a step every page of its
# bytes is resident; for `allocation_us` before `begin` the pages are being touched, and `release_us` after `end` they
# are unmapped.

import mmap
import time


def handler(event):
    begin = time.perf_counter()
    steps = [climb(step["bytes"], step["hold_ms"]) for step in event["steps"]]
    end = time.perf_counter()
    return {
        "result": {"page_bytes": mmap.PAGESIZE, "steps": steps},
        "measurement": {"compute_time": (end - begin) * 1000000},
    }


def climb(size, hold_ms):
    allocation = time.monotonic_ns()
    pages = allocate(size) if size > 0 else None
    begin, begin_epoch = time.monotonic_ns(), time.time()
    time.sleep(hold_ms / 1000)
    end, end_epoch = time.monotonic_ns(), time.time()
    if pages is not None:
        pages.close()
    released = time.monotonic_ns()
    return {
        "bytes": size,
        "hold_ms": hold_ms,
        "allocation_us": (begin - allocation) / 1000,
        "release_us": (released - end) / 1000,
        "begin_monotonic_ns": begin,
        "end_monotonic_ns": end,
        "begin_epoch_us": round(begin_epoch * 1000000),
        "end_epoch_us": round(end_epoch * 1000000),
    }


def allocate(size):
    # Private and anonymous: a shared mapping, Python's default, would be charged as a file's pages.
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(pages, "madvise") and hasattr(mmap, "MADV_NOHUGEPAGE"):
        # With huge pages (Python 3.8 can refuse them), up to 2 MiB more than asked for would be charged.
        try:
            pages.madvise(mmap.MADV_NOHUGEPAGE)
        except OSError:
            pass  # A kernel without huge pages does not know the advice either.
    for offset in range(0, size, mmap.PAGESIZE):
        pages[offset] = 1
    return pages
