"""Restores a partition: reads its changelog from the beginning to the end, and rebuilds the histories.

Faust's own recovery is not used: it waits for the record AT the last offset, which after a transaction is a control record that
consumers never receive. Here the position decides where reading ends. Only committed records are read, outside any group.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import TopicPartition

from intentrec_core.history.changelog_codec import MARKER_KEY, Restorer
from stream.delivery.start_offset import check_domain
from stream.kafka.clients import close_consumer, reader
from stream.kafka.topic_reader import FETCH_BYTES, read_until

if TYPE_CHECKING:
    from intentrec_core.history.changelog_codec import Marker
    from intentrec_core.history.history import EventLayout, History
    from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition's state as of the last checkpoint in its changelog.

    ``checkpoint_ms``: when that checkpoint was written; -1 if there is none.
    """

    histories: dict[str, History]
    marker: Marker | None
    num_records: int
    num_bytes: int
    duration_s: float
    checkpoint_ms: int = -1


async def read_changelog(settings: Settings, partition: int, layout: EventLayout) -> Restored:
    """Restores a partition. The caller sets the deadline, and fences the previous owner first, so that the end is final.

    Raises: StateError when the records contradict each other; KafkaError when the broker fails.
    Cost: one pass over the partition; all its histories are in memory.
    """
    started_s = time.monotonic()
    source = TopicPartition(settings.changelog_topic, partition)
    restorer, num_bytes, checkpoint_ms = Restorer(layout), 0, -1
    consumer = reader(settings, f"recovery-{partition}", max_partition_fetch_bytes=FETCH_BYTES)
    try:
        await consumer.start()
        consumer.assign([source])
        await consumer.seek_to_beginning(source)
        # With read_committed this is the last stable offset: the fence has ended every earlier transaction.
        end = (await consumer.end_offsets([source]))[source]
        # Not exact: the end that the embedded broker reports is a lower bound.
        async for records in read_until(consumer, source, end, exact=False):
            for record in records:
                if record.key is not None:  # a changelog record always has a key
                    restorer.feed(record.key, record.value)
                    if record.key == MARKER_KEY:
                        checkpoint_ms = record.timestamp
                    num_bytes += len(record.key) + len(record.value or b"")
            # A chunk that was fetched already comes without a wait: let heartbeats and other partitions run in between.
            await asyncio.sleep(0)
    finally:
        await close_consumer(consumer)
    histories, marker = await asyncio.to_thread(unpack, restorer, layout, partition)
    return Restored(histories, marker, restorer.num_records, num_bytes, time.monotonic() - started_s, checkpoint_ms)


def unpack(restorer: Restorer, layout: EventLayout, partition: int) -> tuple[dict[str, History], Marker | None]:
    """Histories and marker from the records of a partition.

    Raises: StateError when the records belong to another domain or schema, or contradict each other.
    """
    marker = restorer.marker()
    if marker is not None:
        check_domain(marker, layout.domain.fingerprint, partition)
    return restorer.finish()
