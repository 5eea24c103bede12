"""Cost of a play from bytes to bytes by the size of micro-batches, in a process without a broker.

    python -m tests.bench.batch_sizes BUNDLE MEMBERS PLAYS

A worker with few plays answers them one by one, and pays the fixed cost of a micro-batch for each. Members have full contexts,
each of them cached. Sizes take turns. Times are processor time of the thread, which other programs change least; a worker encodes
on one thread and answers on another, here one does both. The last line of stdout is JSON: seconds a play by size, median of
rounds; of it ``SIZE_encode``, the rest is answering.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from stream.pipeline.pipeline import Pipeline
from tests.bench.pipeline_stages import warm_pipeline
from tests.bench.worker_world import POOL_BYTES
from tests.worlds.bundle_world import Record

SIZES = (1, 2, 8, 64)
ROUNDS = 9


def measure(pipeline: Pipeline, plays: Iterator[list[Record]], num_plays: int) -> dict[str, float]:
    """Seconds a play by size, of ``num_plays`` in each round. ``plays``: micro-batches of one partition each, of 64 or more."""
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for size in SIZES:
            batches = list(islice(chain.from_iterable(_pieces(batch, size) for batch in plays), -(-num_plays // size)))
            encode_s = respond_s = 0.0
            for batch in batches:
                began_s = time.thread_time()
                encoded = pipeline.encode({batch[0].partition: batch})
                encoded_s = time.thread_time()
                pipeline.respond(encoded)
                encode_s, respond_s = encode_s + encoded_s - began_s, respond_s + time.thread_time() - encoded_s
            num = sum(map(len, batches))
            found.setdefault(str(size), []).append((encode_s + respond_s) / num)
            found.setdefault(f"{size}_encode", []).append(encode_s / num)
    return {name: statistics.median(costs_s) for name, costs_s in found.items()}


def _pieces(batch: list[Record], size: int) -> Iterator[list[Record]]:
    for first in range(0, len(batch), size):
        yield batch[first : first + size]


def main() -> None:
    """See the module."""
    bundle, num_active, num_plays = sys.argv[1:]
    pipeline, plays = warm_pipeline(Path(bundle), int(num_active), POOL_BYTES)
    print(json.dumps(measure(pipeline, plays, int(num_plays))))


if __name__ == "__main__":
    main()
