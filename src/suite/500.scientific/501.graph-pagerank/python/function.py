# Ranks the vertices of a random scale-free graph (Barabasi and Albert's model) with PageRank.

import random
import time

import igraph

EDGES_PER_VERTEX = 10


def handler(event):
    if "seed" in event:
        # igraph draws from Python's generator.
        random.seed(event["seed"])
    begin = time.perf_counter()
    graph = igraph.Graph.Barabasi(event["size"], EDGES_PER_VERTEX)
    generated = time.perf_counter()
    ranks = graph.pagerank()
    end = time.perf_counter()
    return {
        "result": ranks[0],
        "measurement": {
            "graph_generating_time": (generated - begin) * 1000000,
            "compute_time": (end - generated) * 1000000,
        },
    }
