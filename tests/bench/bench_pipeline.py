"""What a play costs in the pipeline, by stage, from bytes to bytes; no broker.

    OMP_NUM_THREADS=1 python -m tests.bench.bench_pipeline [--items 1682] [--kind exact] [--batch 256] [--rounds 60]

A MovieLens-sized world: 943 members, items played by a power law, the shipped domain, a model of the default size with random
weights. Members are played in first, so that contexts are full and anchors move. Times are CPU time of the one inference
thread, so that another process on the machine counts little. The encode stage, which no pipeline can do without, is the bound
that the whole is shown beside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import torch

import intentrec_core
import stream.pipeline
from index import artifact
from index.conditioning import augment
from index.golden import golden_bytes
from intentrec_core.bundle import write_bundle
from intentrec_core.bundle_contents import item_vectors, pack_files
from intentrec_core.catalogue import Catalogue, Item
from intentrec_core.domain_file import parse_domain
from intentrec_core.model import IntentRec, ModelConfig
from intentrec_core.vocabulary import ItemTable, Vocabulary
from stream.metrics import Stage
from stream.serving import load_serving
from tests.bundle_world import Record, make_pipeline

NUM_MEMBERS, START_MS, WARM_PLAYS = 943, 1_000_000_000_000, 64_000
STAGES = (Stage.FOLD, Stage.ENCODE, Stage.SEARCH, Stage.JUDGE, Stage.MESSAGES)


class ThreadClock:
    """Stands in for the pipeline's clock: CPU seconds of the thread."""

    perf_counter = staticmethod(time.thread_time)


def serving(num_items, kind, root):
    """A bundle of a random model, loaded as a worker loads it."""
    text = (Path(intentrec_core.__file__).parent / "domains" / "movielens.toml").read_text()
    domain = parse_domain(text, "movielens.toml")
    genres = domain.multi_fields[0].values
    items = [
        Item(
            f"i{i}",
            f"A Film of Some Title, Part {i} (19{i % 100:02})",
            {"genres": [genres[i % 18]], "year": 1960 + i % 39},
        )
        for i in range(num_items)
    ]
    vocabulary, catalogue = Vocabulary.build(item.item_id for item in items), Catalogue(items)
    torch.manual_seed(0)
    model = IntentRec(ModelConfig(), domain, table := ItemTable(domain, vocabulary, catalogue)).eval()
    vectors = item_vectors(model, table, START_MS / 1000)
    searched = augment(vectors.weights, vectors.bias, list(vectors.labels.values()))
    index = artifact.build(searched, kind)
    files = pack_files(
        root,
        domain_text=text,
        model=model,
        vocabulary=vocabulary,
        catalogue=catalogue,
        vectors=vectors,
        popularity=np.ones(num_items + 1, dtype=np.float32),
        index=artifact.to_bytes(index),
        golden=golden_bytes(index, searched[1:3], 5),
    )
    ref = write_bundle(
        root / "b", files=files, parent=None, created_at="2024-01-01T00:00:00.000Z", code_version="bench"
    )
    return load_serving(ref.path, device="cpu", pool_bytes=1 << 30)


def plays(rng, first, num, num_items):
    """The next ``num`` plays of the log."""
    members, items = rng.integers(NUM_MEMBERS, size=num), rng.zipf(1.3, size=num) % num_items
    records = []
    for offset, (member, item) in enumerate(zip(members.tolist(), items.tolist(), strict=True), start=first):
        user, ts_ms = f"user-{member}", START_MS + 1000 * offset
        play = {
            "event_id": f"e{offset}",
            "user_id": user,
            "item_id": f"i{item}",
            "ts": ts_ms,
            "context": {"rating": "4"},
        }
        records.append(Record(offset, msgspec.json.encode(play), user.encode(), timestamp=ts_ms))
    return records


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("items", 1682), ("batch", 256), ("rounds", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kind", default="exact")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stream.pipeline.time = ThreadClock
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = make_pipeline(serving(options.items, options.kind, Path(folder)))
    for first in range(0, WARM_PLAYS, 256):
        pipeline.process({0: plays(rng, first, 256, options.items)})

    def seconds(stage):
        return pipeline.metrics.registry.get_sample_value("intentrec_stage_seconds_sum", {"stage": stage})

    before, batches_us = {stage: seconds(stage) for stage in STAGES}, []
    for number in range(options.rounds):
        batch = plays(rng, WARM_PLAYS + number * options.batch, options.batch, options.items)
        began = time.thread_time()
        pipeline.process({0: batch})
        batches_us.append((time.thread_time() - began) / options.batch * 1e6)
    num = options.batch * options.rounds
    stages = {stage.value: round((seconds(stage) - before[stage]) / num * 1e6, 1) for stage in STAGES}
    for name, value in stages.items():
        print(f"{name:>9} {value:8.1f} us/play")
    total, p99 = float(np.median(batches_us)), float(np.quantile(batches_us, 0.99))
    print(f"{'all':>9} {total:8.1f} us/play (median batch of {options.batch}; p99 {p99:.1f})")
    row = {
        "bench": "pipeline",
        **vars(options),
        "stages_us": stages,
        "us_per_play": round(total, 1),
        "p99_us": round(p99, 1),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
