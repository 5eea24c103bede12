"""What a search costs, by kind of index and size of catalogue, and what an approximate kind misses.

    OMP_NUM_THREADS=1 python -m tests.bench.bench_index [--items 1700 20000 100000]

Items lie in clusters, with lengths and biases that differ as popularity makes them; queries carry 200 watched items to
exclude, as serving does. Times are CPU time of one thread, so that another process on the machine does not count. The bound
beside them is one read of all vectors from memory: what no exact search of a single query can beat.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from index import artifact
from index.conditioning import augment, query
from index.exact import ExactIndex
from index.recall import recall_at_k

WIDTH, NUM_LABELS, NUM_QUERIES, NUM_WATCHED, K, ROUNDS = 64, 22, 64, 200, 10, 7
MEMORY_BYTES_PER_S = 10e9


def world(num_items, rng):
    """Vectors f32[V, D'] and queries f32[B, D']."""
    centres = rng.normal(size=(200, WIDTH))
    lengths = rng.gamma(4.0, 0.25, size=(num_items + 1, 1))
    weights = (
        (centres[rng.integers(0, 200, num_items + 1)] + 0.8 * rng.normal(size=(num_items + 1, WIDTH))) * lengths / 8
    )
    labels = (rng.random((num_items + 1, NUM_LABELS)) < 0.12).astype(np.float32)
    vectors = augment(weights.astype(np.float32), rng.normal(size=num_items + 1).astype(np.float32), [labels])
    members = centres[rng.integers(0, 200, NUM_QUERIES)] + rng.normal(size=(NUM_QUERIES, WIDTH))
    intents = rng.dirichlet(np.full(NUM_LABELS, 0.3), NUM_QUERIES).astype(np.float32)
    return vectors, query(members.astype(np.float32), [intents], beta=0.5)


def timed(call, num_queries):
    """Median and largest microseconds of CPU a query, after one round to warm up."""
    call()
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        call()
        rounds.append((time.process_time() - began) / num_queries * 1e6)
    return round(float(np.median(rounds)), 1), round(max(rounds), 1)


def measure(num_items):
    rng = np.random.default_rng(20240811)
    vectors, queries = world(num_items, rng)
    watched = [rng.integers(1, num_items + 1, size=NUM_WATCHED) for _ in range(NUM_QUERIES)]
    narrow = rng.random(num_items + 1) < 0.03
    exact = ExactIndex(vectors)
    bound_us = vectors.nbytes / MEMORY_BYTES_PER_S * 1e6
    rows = []
    for kind in artifact.KINDS:
        began = time.process_time()
        index = artifact.build(vectors, kind)
        row = {"items": num_items, "kind": kind, "build_s": round(time.process_time() - began, 2)}
        row["us"], row["us_max"] = timed(lambda i=index: i.search(queries, K, excluded=watched), NUM_QUERIES)
        row["us_alone"], _ = timed(lambda i=index: i.search(queries[:1], K, excluded=watched[:1]), 1)
        row["us_narrow"], _ = timed(
            lambda i=index: i.search(queries, K, excluded=watched, allowed=[narrow] * NUM_QUERIES), NUM_QUERIES
        )
        row["recall_at_10"] = round(recall_at_k(index, exact, queries, K), 4)
        row["read_bound_us"] = round(bound_us, 1)
        rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[1700, 20_000, 100_000])
    options = parser.parse_args()
    print(json.dumps({"bench": "index", "rows": [row for num in options.items for row in measure(num)]}))


if __name__ == "__main__":
    main()
