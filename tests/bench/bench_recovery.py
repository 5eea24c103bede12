"""Restoring one partition: records a second, seconds, bytes a play in the changelog and in memory.

    python -m tests.bench.bench_recovery [USERS] [PLAYS_PER_USER]

On Apache Kafka, through the transactional writer and the reader that a worker uses. Beside it, in the same run, as a bound:
the same records through confluent-kafka's consumer, rebuilding nothing. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import confluent_kafka

from intentrec_core.changelog_codec import Marker, encode_changes
from intentrec_core.domain_file import load_domain
from intentrec_core.history import EventLayout, History
from stream.broker import start_broker
from stream.changelog import Cut, TransactionalWriter
from stream.recovery import Restored, read_changelog
from stream.settings import Settings
from stream.topics import create_topics

USERS_A_CUT = 500


async def _fill(settings: Settings, layout: EventLayout, users: int, plays: int) -> None:
    def marker(offset: int) -> Marker:
        return Marker(num_partitions=1, next_offset=offset, fingerprint=layout.domain.fingerprint)

    writer = TransactionalWriter(settings, 0, marker, None)
    await writer.open()
    offset, changes = 0, dict[bytes, bytes | None]()
    for user in range(users):
        history = History()
        for number in range(plays):
            event_id = f"{user}-{number}"
            play = layout.pack(item_id="i", event_id=event_id, ts_ms=number, duration_s=None, attributes={})
            history.apply(layout, play, offset)
            offset += 1
        changes.update(encode_changes(layout, f"user-{user}", history, first_changed=0, anchor_moved=True))
        if user % USERS_A_CUT == USERS_A_CUT - 1 or user == users - 1:
            await writer.commit(Cut(offset, changes))
            changes = {}
    await writer.close()


def _bound(settings: Settings, num_records: int) -> float:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": settings.broker, "group.id": "bound", "log_level": 0})
    consumer.assign([confluent_kafka.TopicPartition(settings.changelog_topic, 0, 0)])
    started_s, seen = time.monotonic(), 0
    while seen < num_records:
        seen += len(consumer.consume(10_000, 1))
    consumer.close()
    return time.monotonic() - started_s


def main() -> None:
    """See the module."""
    users = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    plays = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    layout = EventLayout(load_domain("movielens"))
    with tempfile.TemporaryDirectory() as folder, start_broker(engine="kafka", data_dir=Path(folder)) as broker:
        settings = Settings.load(broker=broker.address, num_partitions=1)
        asyncio.run(create_topics(settings))
        asyncio.run(_fill(settings, layout, users, plays))
        restored: Restored = asyncio.run(read_changelog(settings, 0, layout))
        bound_s = _bound(settings, restored.num_records)
    tracemalloc.start()
    copies = []
    for history in list(restored.histories.values())[:1000]:
        copy = History()
        copy.events = bytearray(history.events)
        copy.evicted_items = bytes(bytearray(history.evicted_items))
        copies.append(copy)
    in_memory = tracemalloc.get_traced_memory()[0] / sum(len(copy.events) // layout.size for copy in copies)
    held = sum(len(history.events) // layout.size for history in restored.histories.values())
    result = {
        "bench": "recovery",
        "users": users,
        "plays_per_user": plays,
        "plays_held": held,
        "records": restored.num_records,
        "seconds": round(restored.duration_s, 2),
        "records_per_s": round(restored.num_records / restored.duration_s),
        "plays_per_s": round(held / restored.duration_s),
        "changelog_bytes_per_play": round(restored.num_bytes / held, 1),
        "memory_bytes_per_play": round(in_memory, 1),
        "reading_alone_s": round(bound_s, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
