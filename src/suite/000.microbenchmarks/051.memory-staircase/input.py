# The staircases of memory for each size, and how to tell that one was climbed as asked.

MIB = 1024 * 1024

# (MiB, how long each step is held in ms): 2 s up to 64 MiB, 10 s up to 256 MiB, 60 s up to 384 MiB.
STAIRS = {
    "test": ([16, 32, 64, 32], 500),
    "small": ([32, 64, 96, 128, 192, 256, 128, 64, 32, 16], 1000),
    "large": (
        [32, 64, 96, 128, 160, 192, 224, 256, 320, 384]
        + [384, 256, 128, 64, 32, 256, 16, 384, 64, 8],
        3000,
    ),
}


def buckets_count():
    return (0, 0)


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    sizes, hold_ms = STAIRS[size]
    return {"steps": [{"bytes": mib * MIB, "hold_ms": hold_ms} for mib in sizes]}


def validate_output(data_dir, input_config, output, language, storage):
    asked = input_config["steps"]
    climbed = output["result"]["steps"]
    if len(climbed) != len(asked):
        return "{} steps were asked for, {} were climbed".format(len(asked), len(climbed))
    last_end = 0
    for number, (plan, step) in enumerate(zip(asked, climbed)):
        if step["bytes"] != plan["bytes"] or step["hold_ms"] != plan["hold_ms"]:
            return "step {} should be {} and is {}".format(number, plan, step)
        held_ns = step["end_monotonic_ns"] - step["begin_monotonic_ns"]
        # Node's timers may fire up to a millisecond early.
        if held_ns < plan["hold_ms"] * 1000000 - 1000000:
            return "step {} was held for {} ns only".format(number, held_ns)
        if step["begin_monotonic_ns"] < last_end:
            return "step {} begins before the one before it ends".format(number)
        last_end = step["end_monotonic_ns"]
    return None
