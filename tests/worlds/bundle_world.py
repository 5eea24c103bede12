"""Real bundles of the small world, and plays as Kafka would deliver them, for tests of the pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from index import artifact
from index.conditioning import augment, query
from index.golden import golden_bytes
from intentrec_core.bundle.contents import item_vectors, pack_files
from intentrec_core.bundle.format import BundleRef, write_bundle
from intentrec_core.engine.item_counts import CountFold, ItemCounts
from intentrec_core.history.history import hash64
from intentrec_core.model.intent_score import weighted_scores
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.profile import measure
from intentrec_core.successors import Successors
from stream.bundles.serving import PLAYS_UNTIL, Serving, load_serving
from stream.ops.metrics import Metrics
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.pipeline import Pipeline, PipelineConfig
from stream.wire.erasure_record import CONTROL_HEADER, FORGET
from tests.worlds.tiny_plays import random_plays
from tests.worlds.tiny_world import DOMAIN, START_MS, TinyWorld

SLOTS_BYTES = 2 * 1024 * 1024
CREATED_AT = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the plays topic."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    partition: int = 0
    topic: str = "plays"
    timestamp: int = START_MS + 10**9
    headers: tuple[tuple[str, bytes], ...] = ()


def make_bundle(
    root: Path,
    world: TinyWorld,
    model: IntentRec,
    *,
    domain_text: str | None = None,
    popularity: Sequence[float] | None = None,
    parent: str | None = None,
    created_at: str = CREATED_AT,
    index_kind: str = artifact.AUTO,
    successors: Successors | None = None,
) -> BundleRef:
    """Writes a bundle of ``world`` with ``model``'s weights, as the trainer does."""
    vectors = item_vectors(model.weights(), world.table, START_MS / 1000)
    augmented = augment(vectors.weights, vectors.bias, list(vectors.labels.values()))
    index = artifact.build(augmented, index_kind)
    random = np.random.default_rng(0)
    asked = random.normal(size=(4, model.config.width)).astype(np.float32)
    probabilities = [
        random.dirichlet(np.ones(labels.shape[1]), 4).astype(np.float32) for labels in vectors.labels.values()
    ]
    counts = (
        np.arange(len(world.vocabulary), dtype=np.float32) if popularity is None else np.array(popularity, np.float32)
    )
    with tempfile.TemporaryDirectory() as folder:
        files = pack_files(
            Path(folder),
            domain_text=domain_text or DOMAIN.format(window=world.window),
            weights=model.weights(),
            vocabulary=world.vocabulary,
            catalogue=world.catalogue,
            vectors=vectors,
            popularity=counts,
            index=artifact.to_bytes(index),
            golden=golden_bytes(index, query(asked, weighted_scores(probabilities, [0.5] * len(probabilities))), 5),
            profile=measure(world.features, world.table, random_plays(members=3, plays=20)),
            successors=successors,
        )
        return write_bundle(
            root,
            files=files,
            parent=parent,
            created_at=created_at,
            code_version="0.1.0",
            facts={PLAYS_UNTIL: START_MS},
        )


def make_serving(root: Path, world: TinyWorld, model: IntentRec, **options: Any) -> Serving:
    """A bundle on disk, loaded the way a worker loads it."""
    return load_serving(make_bundle(root, world, model, **options).path, device="cpu", pool_bytes=SLOTS_BYTES)


@dataclass
class PlayLog:
    """Makes valid plays of one partition, one offset after another."""

    partition: int = 0
    records: list[Record] = field(default_factory=list)

    def play(self, user: str, item: int | str, at_s: float, **fields: Any) -> Record:
        """Appends a play of ``item``, ``at_s`` seconds after the world began."""
        offset = len(self.records)
        document: dict[str, Any] = {
            "event_id": f"event-{offset}",
            "user_id": user,
            "item_id": f"item-{item}" if isinstance(item, int) else item,
            "ts": START_MS + int(at_s * 1000),
            "duration_s": 90.0,
            "context": {"device": "tv", "max_maturity": 4},
        }
        document |= fields
        return self.raw(msgspec.json.encode(document), user.encode())

    def forget(self, user: str) -> Record:
        """Appends an erasure request."""
        return self.raw(None, user.encode(), ((CONTROL_HEADER, FORGET),))

    def raw(self, value: bytes | None, key: bytes | None = None, headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
        """Appends any bytes."""
        record = Record(len(self.records), value, key, self.partition, headers=headers)
        self.records.append(record)
        return record


def count_table(plays: Sequence[tuple[str, float]], at_s: float, sequence: int = 1) -> ItemCounts:
    """The table of plays (item id, seconds after the world began), as of ``at_s``."""
    fold = CountFold()
    fold.add([hash64(item) for item, _ in plays], [START_MS + int(1000 * played_s) for _, played_s in plays])
    blocks = [fold.block(number) for number in range(fold.num_blocks)]
    return ItemCounts.of(blocks, sequence, START_MS + int(1000 * at_s), 0.0)


def make_pipeline(
    serving: Serving,
    metrics: Metrics | None = None,
    catalogue: LiveCatalogue | None = None,
    counts: ItemCounts | None = None,
    **config: Any,
) -> Pipeline:
    """A pipeline with partition 0 open and empty."""
    given = PipelineConfig(**({"num_partitions": 1} | config))
    pipeline = Pipeline(serving, given, metrics or Metrics(), catalogue, counts)
    pipeline.open_partition(0, {})
    return pipeline
