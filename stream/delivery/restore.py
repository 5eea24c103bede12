"""Reads one partition of the changelog from its beginning to its end, and rebuilds the histories it holds.

A reader of our own, because Faust's waits for the record AT the last offset, which after a transaction is a control record that
nobody is ever given. This one watches its position instead, reads what was committed only, and knows nothing of groups.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import TopicPartition

from intentrec_core.history.changelog_codec import MARKER_KEY, Restorer
from stream.delivery.start_offset import check_domain
from stream.kafka.closing import close_consumer
from stream.kafka.reader import reader

if TYPE_CHECKING:
    from intentrec_core.history.changelog_codec import Marker
    from intentrec_core.history.history import EventLayout, History
    from stream.settings import Settings

#: Large fetches: a restore is bound by the round trip and by Python's loop over records.
_FETCH_BYTES = 8 * 1024 * 1024
#: About 10 ms of work between two turns of the event loop, so that heartbeats and other partitions go on.
_RECORDS_A_TURN = 5000
_POLL_MS = 200


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition's state as of the last checkpoint in its changelog, which was written at ``checkpoint_ms`` (-1:
    there is none).
    """

    histories: dict[str, History]
    marker: Marker | None
    num_records: int
    num_bytes: int
    duration_s: float
    checkpoint_ms: int = -1


async def read_changelog(settings: Settings, partition: int, layout: EventLayout) -> Restored:
    """Restores a partition. The caller sets the deadline, and has fenced the owner before: the end is final then.

    Raises: StateError when the records contradict each other; KafkaError when the broker fails.
    Cost: one pass over the partition; all its histories in memory.
    """
    started_s = time.monotonic()
    source = TopicPartition(settings.changelog_topic, partition)
    restorer, num_bytes, checkpoint_ms = Restorer(layout), 0, -1
    consumer = reader(settings, f"recovery-{partition}", max_partition_fetch_bytes=_FETCH_BYTES)
    try:
        await consumer.start()
        consumer.assign([source])
        await consumer.seek_to_beginning(source)
        # With read_committed this is the last stable offset: the fence has settled every transaction before it.
        end = (await consumer.end_offsets([source]))[source]
        while True:
            fetched = (await consumer.getmany(source, timeout_ms=_POLL_MS, max_records=_RECORDS_A_TURN)).get(source, ())
            # The embedded broker counts its last batch as one record, so its end is a lower bound: read until nothing comes.
            if not fetched and await consumer.position(source) >= end:
                break
            for record in fetched:
                if record.key is not None:  # ours always have one
                    restorer.feed(record.key, record.value)
                    if record.key == MARKER_KEY:
                        checkpoint_ms = record.timestamp
                    num_bytes += len(record.key) + len(record.value or b"")
            await asyncio.sleep(0)
    finally:
        await close_consumer(consumer)
    histories, marker = await asyncio.to_thread(unpack, restorer, layout, partition)
    return Restored(histories, marker, restorer.num_records, num_bytes, time.monotonic() - started_s, checkpoint_ms)


def unpack(restorer: Restorer, layout: EventLayout, partition: int) -> tuple[dict[str, History], Marker | None]:
    """What the records of a partition make up.

    Raises: StateError when they are of another domain or schema, or contradict each other.
    """
    marker = restorer.marker()
    if marker is not None:
        check_domain(marker, layout.domain.fingerprint, partition)
    return restorer.finish()
