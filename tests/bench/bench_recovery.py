"""Restoring one partition: records a second, seconds, bytes a play in the changelog and in memory.

    python -m tests.bench recovery

On Apache Kafka, through the transactional writer and the reader that a worker uses; the window is such that every play is still
in its member's context. Beside it, in the same run: the same records through confluent-kafka's consumer, rebuilding nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import resource
import tempfile
import time
import tracemalloc
from pathlib import Path

import confluent_kafka
import numpy as np

from intentrec_core.domain.toml import load_domain
from intentrec_core.history.changelog_codec import Marker, encode_changes
from intentrec_core.history.history import EventLayout, History
from stream.delivery.changelog import Checkpoint, TransactionalWriter
from stream.delivery.restore import Restored, read_changelog
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import start_broker
from stream.settings import Settings
from tests.bench.harness import BenchOptions, Figures
from tests.rigs.changelog_bytes import BUDGET_BYTES, NUM_PLAYS, written_bytes

PARTS = ()
USERS_A_CUT = 500


def _history(layout: EventLayout, rng: np.random.Generator, plays: int, offset: int) -> History:
    """As if ``plays`` had been folded in; made at once, because folding them takes longer than what is measured."""
    events = np.zeros(plays, dtype=layout.dtype)
    events["item_hash"], events["event_hash"] = rng.integers(1 << 63, size=(2, plays), dtype=np.uint64)
    events["ts_ms"] = np.arange(plays)
    history = History()
    history.count, history.last_offset, history.events = plays, offset, events.tobytes()
    return history


async def _fill(settings: Settings, layout: EventLayout, users: int, plays: int) -> None:
    def marker(offset: int) -> Marker:
        return Marker(num_partitions=1, next_offset=offset, fingerprint=layout.domain.fingerprint)

    writer, rng = TransactionalWriter(settings, 0, marker, None), np.random.default_rng(0)
    await writer.open()
    changes: dict[bytes, bytes | None] = {}
    for user in range(users):
        history = _history(layout, rng, plays, (user + 1) * plays - 1)
        changes.update(encode_changes(layout, f"user-{user}", history, first_changed=0, anchor_moved=False))
        if user % USERS_A_CUT == USERS_A_CUT - 1 or user == users - 1:
            await writer.commit(Checkpoint((user + 1) * plays, changes))
            changes = {}
    await writer.close()


def _reading_alone(settings: Settings, num_records: int) -> float:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": settings.broker, "group.id": "alone", "log_level": 0})
    consumer.assign([confluent_kafka.TopicPartition(settings.changelog_topic, 0, 0)])
    started_s, seen = time.monotonic(), 0
    while seen < num_records:
        seen += len(consumer.consume(10_000, 1))
    consumer.close()
    return time.monotonic() - started_s


def _in_memory(histories: list[History]) -> float:
    """Bytes that histories take in this process."""
    tracemalloc.start()
    copies = {}
    for number, history in enumerate(histories):
        copy = History()
        copy.count, copy.last_offset = history.count, history.last_offset
        copy.events = bytes(bytearray(history.events))  # bytes of its own: a copy of bytes is the same object
        copies[f"user-{number:08d}"] = copy
    return float(tracemalloc.get_traced_memory()[0])


def measure(options: BenchOptions) -> Figures:
    """See the module."""
    users, plays = 500 if options.quick else 100_000, NUM_PLAYS
    layout = EventLayout(dataclasses.replace(load_domain("movielens"), window=plays))
    with tempfile.TemporaryDirectory() as folder, start_broker(engine="kafka", data_dir=Path(folder)) as broker:
        settings = Settings.load(broker=broker.address, num_partitions=1)
        asyncio.run(create_topics(settings))
        asyncio.run(_fill(settings, layout, users, plays))
        cpu_s = time.process_time()
        restored: Restored = asyncio.run(read_changelog(settings, 0, layout))
        cpu_s = time.process_time() - cpu_s
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        reading_s = _reading_alone(settings, restored.num_records)
    sizes = [len(history.events) // layout.size for history in restored.histories.values()]
    held = sum(sizes)
    assert held == users * plays, "every play is there"
    sample = list(restored.histories.values())[:1000]
    figures: Figures = {
        "users": users,
        "plays_per_user": plays,
        "records": restored.num_records,
        "seconds": round(restored.duration_s, 2),
        "cpu_seconds": round(cpu_s, 2),
        "records_per_s": round(restored.num_records / restored.duration_s),
        "plays_per_s": round(held / restored.duration_s),
        "plays_per_cpu_s": round(held / cpu_s),
        "changelog_bytes_per_play": round(restored.num_bytes / held, 1),
        "changelog_written_bytes_per_play": round(written_bytes(layout, plays), 1),
        "changelog_budget_bytes": BUDGET_BYTES,
        "memory_bytes_per_play": round(_in_memory(sample) / sum(sizes[:1000]), 1),
        "peak_mb": round(peak_mb),
        "reading_alone_s": round(reading_s, 2),
    }
    for name, value in figures.items():
        print(f"{name:>32} {value:,}", flush=True)
    return figures
