"""The world of the worker's bench on a broker: bundles with random weights, topics of a row, plays and histories filled in.

Plays topics are shared by all rows, each with a group of its own; everything else is a row's. Histories go straight into the
changelog: folding a quarter of a million plays in would take longer than what is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import confluent_kafka
import numpy as np
import torch

from index import artifact
from index.conditioning import augment
from index.golden import golden_bytes
from intentrec_core.bundle.contents import item_vectors, pack_files
from intentrec_core.bundle.format import BundleRef, write_bundle
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.changelog_codec import Marker, encode_changes
from intentrec_core.history.history import EventLayout, anchor
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.profile import measure
from intentrec_core.plays.table import PLAYS
from intentrec_core.successors import Successors, SuccessorTable
from stream.bundles.announcements import announce
from stream.bundles.builder import planning_queries
from stream.delivery.changelog import Checkpoint, TransactionalWriter
from stream.kafka.topics import create_topics
from stream.settings import Settings
from stream.wire.routing import home_partition
from tests.bench.worker_plays import (
    MODEL,
    NUM_ACTIVE,
    START_MS,
    catalogue,
    domain_text,
    history,
    load_domain,
    past,
    user_id,
)

#: Histories of a cut when the changelog is filled; a cut is one transaction.
_MEMBERS_A_CUT = 5000
#: A member who is known and does not play: one block of the changelog.
_IDLE_PLAYS = 8
#: Members whose queries the index is planned from: 256 shape it and 256 judge it, as many as judge a product's.
NUM_PLANNING = 512
#: 1,000 members of 340 plays, 5 cached layers of width 128: 1.75 GB.
POOL_BYTES = 2 << 30


def make_bundle(
    root: Path, scratch: Path, seed: int, num_planning: int = NUM_PLANNING, *, has_successors: bool = False
) -> BundleRef:
    """A bundle of the bench's world; random weights cost what trained ones do. Its index is planned from what ``num_planning``
    members ask, as the product's builder does it; from fewer than 128 it is FAISS flat. ``has_successors``: with successors
    in the plays of all active members before the log begins.

    Cost: encoding the contexts of these members, some 25 ms each.
    """
    domain = load_domain()
    items = catalogue(domain)
    vocabulary = Vocabulary.build(item.item_id for item in items)
    table = ItemTable(domain, vocabulary, items)
    torch.manual_seed(seed)
    model = IntentRec(MODEL, domain, table).eval()
    vectors = item_vectors(model.weights(), table, START_MS / 1000)
    searched = augment(vectors.weights, vectors.bias, list(vectors.labels.values()))
    features = FeatureBuilder(domain, vocabulary, table)
    asked = planning_queries(model, features, _contexts(features.layout, num_planning)) if num_planning else None
    index = artifact.build(searched, queries=asked)
    scratch.mkdir(parents=True, exist_ok=True)
    files = pack_files(
        scratch,
        domain_text=domain_text(),
        weights=model.weights(),
        vocabulary=vocabulary,
        catalogue=items,
        vectors=vectors,
        popularity=np.ones(len(vocabulary), dtype=np.float32),
        index=artifact.to_bytes(index),
        golden=golden_bytes(index, searched[1:3], 5),
        profile=measure(features, table, PLAYS.empty_table()),
        successors=_successors(features, len(vocabulary)) if has_successors else None,
    )
    return write_bundle(root, files=files, parent=None, created_at="2026-01-01T00:00:00.000Z", code_version="bench")


def _successors(features: FeatureBuilder, num_rows: int) -> Successors:
    pasts = [features.layout.view(past(features.layout, number)) for number in range(NUM_ACTIVE)]
    rows = features.rows(np.concatenate([plays["item_hash"] for plays in pasts]))
    member = np.repeat(np.arange(len(pasts)), [len(plays) for plays in pasts])
    return Successors(SuccessorTable.empty(num_rows).counted(rows, member), 1.0)


def _contexts(layout: EventLayout, num: int) -> list[bytes]:
    """What the first members have played before the log begins, from the anchor on, packed."""
    pasts = [past(layout, number) for number in range(num)]
    return [events[layout.size * anchor(len(events) // layout.size, layout.window) :] for events in pasts]


def row_settings(broker: str, row: str, folder: Path, *, plays_topic: str, num_partitions: int = 4) -> Settings:
    """Settings of one row: the plays topic may be shared, everything else is its own."""
    domain = folder / "movielens.toml"
    domain.write_text(domain_text())
    return Settings.load(
        broker=broker,
        app_id=row,
        plays_topic=plays_topic,
        recommendations_topic=f"{row}-recommendations",
        intents_topic=f"{row}-intents",
        dead_letter_topic=f"{row}-dlq",
        late_topic=f"{row}-late",
        model_updates_topic=f"{row}-updates",
        item_counts_topic=f"{row}-counts",
        num_partitions=num_partitions,
        domain=str(domain),
        bundle_url=str(folder / "bundles"),
        cache_dir=folder / "cache",
        device="cpu",
        pool_bytes=POOL_BYTES,
        coalesce_above_lag=0,  # every row answers every play: what is counted is answers
    )


def open_row(settings: Settings, *, num_active: int = 0, num_idle: int = 0, bundle: str | None = None) -> None:
    """Makes a row's topics, fills its changelog with active members (full contexts) and idle ones, announces a bundle."""

    async def work() -> None:
        await create_topics(settings)
        await _fill_changelog(settings, num_active, num_idle)
        if bundle is not None:
            await announce(settings, bundle=bundle, url=settings.bundle_url)

    asyncio.run(work())


def fill_plays(settings: Settings, plays: Iterable[tuple[bytes, bytes]]) -> int:
    """Makes the plays topic and fills it; returns how many. Offset 0 of every partition is behind the state: no play of these."""
    asyncio.run(create_topics(settings))
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": settings.broker,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 0,
        }
    )
    for partition in range(settings.num_partitions):
        producer.produce(settings.plays_topic, key=b"nobody", value=b"{}", partition=partition)
    producer.flush()
    num = 0
    for num, (key, value) in enumerate(plays, start=1):
        producer.produce(settings.plays_topic, key=key, value=value)
        if num % 10_000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0
    return num


async def _fill_changelog(settings: Settings, num_active: int, num_idle: int) -> None:
    layout = EventLayout(load_domain())

    def marker(offset: int) -> Marker:
        return Marker(num_partitions=settings.num_partitions, next_offset=offset, fingerprint=layout.domain.fingerprint)

    idle = history(layout, num_active, _IDLE_PLAYS)
    members: list[list[int]] = [[] for _ in range(settings.num_partitions)]
    for number in range(num_active + num_idle):
        members[home_partition(user_id(number).encode(), settings.num_partitions)].append(number)
    for partition, numbers in enumerate(members):
        writer = TransactionalWriter(settings, partition, marker, None)
        await writer.open()
        for low in range(0, len(numbers), _MEMBERS_A_CUT):
            changes: dict[bytes, bytes | None] = {}
            for number in numbers[low : low + _MEMBERS_A_CUT]:
                held = history(layout, number) if number < num_active else idle
                changes.update(encode_changes(layout, user_id(number), held, first_changed=0, anchor_moved=False))
            await writer.commit(Checkpoint(1, changes))
        await writer.close()
