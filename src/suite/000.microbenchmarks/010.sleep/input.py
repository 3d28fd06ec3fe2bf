# How long 010.sleep sleeps for each size, and what it has to answer.

SECONDS = {"test": 1, "small": 100, "large": 1000}


def buckets_count():
    return (0, 0)


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    return {"sleep": SECONDS[size]}


def validate_output(data_dir, input_config, output, language, storage):
    asked = input_config["sleep"]
    if output.get("result") != asked:
        return "the result should be {} and is {!r}".format(asked, output.get("result"))
    slept_us = output["measurement"]["compute_time"]
    # Node's timers may fire up to a millisecond early.
    if slept_us < asked * 1000000 - 1000:
        return "{} s were asked for, but only {} us were slept".format(asked, slept_us)
    return None
