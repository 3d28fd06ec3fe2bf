# How large a graph 501.graph-pagerank ranks for each size, and which rank its first vertex has to have.

VERTICES = {"test": 10, "small": 10000, "large": 100000}
SEED = 42

# The same for igraph 0.10 and 0.11, which draw from Python's own seeded generator, on Python 3.7 to 3.13.
RANKS = {10: 0.1, 10000: 0.0012122480931530, 100000: 0.00033384438552590}


def buckets_count():
    return (0, 0)


def generate_input(
    data_dir, size, benchmarks_bucket, input_paths, output_paths, upload_func, nosql_func
):
    return {"size": VERTICES[size], "seed": SEED}


def validate_output(data_dir, input_config, output, language, storage):
    rank = output.get("result")
    if not isinstance(rank, float) or not 0 < rank < 1:
        return "the rank of the first vertex should be between 0 and 1 and is {!r}".format(rank)
    expected = RANKS.get(input_config["size"]) if input_config.get("seed") == SEED else None
    if expected is not None and abs(rank - expected) > 1e-9 * expected:
        return "the rank of the first vertex should be {} and is {}".format(expected, rank)
    return None
