"""Writes the counts of plays to the item-counts topic every few seconds: the blocks that changed, then the head.

One leader writes: the lead is confirmed before each table, and of two heads with one number readers take the first. A table that
could not be written whole is written with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError, Fenced
from intentrec_core.features.count_columns import DECAYS_S
from intentrec_core.times import iso_time
from stream.kafka.clients import close_producer, start_producer
from stream.wire.codec import encode
from stream.wire.item_counts_record import HEAD_KEY, PackedCounts, block_hash, block_key
from stream.wire.messages import ItemCountsHead

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

    from stream.ops.metrics import Metrics
    from stream.settings import Settings
    from stream.trainer.play_counter import PlayCounter

logger = logging.getLogger(__name__)

#: Without new plays a head is written so often, so that its age says that a trainer is there.
_HEARTBEAT_S = 60.0
#: All blocks are written again so often: a topic that was made anew has lost those that do not change.
_WHOLE_EVERY_S = 600.0
#: Blocks sent before the first of them is acknowledged: 4 MB.
_NUM_IN_FLIGHT = 64


class CountsWriter:
    """Owned by the event loop.

    ``continues``: the table that the counter went on from, None where it counted anew. ``last_sequence``: the highest number on
    the topic. ``confirm_lead(token)`` raises where another trainer leads.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        counter: PlayCounter,
        continues: PackedCounts | None,
        last_sequence: int,
        confirm_lead: Callable[[str], Awaitable[None]],
    ) -> None:
        self._settings, self._metrics, self._counter, self._confirm = settings, metrics, counter, confirm_lead
        self._sequence = last_sequence
        self._written = dict(enumerate(continues.head.blocks)) if continues is not None else {}
        self._unwritten: set[int] = set()
        self._head_s = self._whole_s = float("-inf")
        if continues is not None:
            self._whole_s = time.monotonic()
        self._is_failing = False

    async def run(self) -> None:
        """Writes a table every ``item_counts_refresh_s`` seconds until cancelled.

        Where the lead is not confirmed nothing is written. Whether the process ends is for the lock to say: a commit also fails
        while the group takes in another trainer.
        """
        async with contextlib.AsyncExitStack() as stack:
            producer: AIOKafkaProducer | None = None
            while True:
                started_s = time.monotonic()
                try:
                    if producer is None:
                        producer = await start_producer(self._settings)
                        stack.push_async_callback(close_producer, producer)
                    await self._write(producer)
                    self._is_failing = False
                except (KafkaError, BrokerError, Fenced) as error:
                    if not self._is_failing:
                        logger.warning("counts cannot be written to %s, will retry: %r", self._topic, error)
                    self._is_failing = True
                    # After a refused batch the broker takes nothing more from an idempotent producer.
                    await stack.aclose()
                    producer = None
                await asyncio.sleep(max(0.0, self._settings.item_counts_refresh_s + started_s - time.monotonic()))

    @property
    def _topic(self) -> str:
        return self._settings.item_counts_topic

    async def _write(self, producer: AIOKafkaProducer) -> None:
        """Writes a table, if there is anything new to say. Raises: KafkaError, BrokerError, Fenced."""
        counter, fold, now_s = self._counter, self._counter.fold, time.monotonic()
        is_whole = now_s - self._whole_s >= _WHOLE_EVERY_S
        # From here to the head there is no await: blocks, offsets and time are those of one moment.
        changed = fold.take_changed()
        if fold.newest_ms is None or not (changed or self._unwritten or now_s - self._head_s >= _HEARTBEAT_S):
            return
        numbers = range(fold.num_blocks) if is_whole else sorted(self._unwritten | changed.keys())
        self._unwritten.update(numbers)
        blocks = {number: changed.get(number) or fold.block(number) for number in numbers}
        hashes = self._written | {number: block_hash(block) for number, block in blocks.items()}
        head = ItemCountsHead(
            sequence=self._sequence + 1,
            event_time_ms=fold.newest_ms,
            offsets={str(partition): offset for partition, offset in sorted(counter.offsets.items())},
            decays_s=list(DECAYS_S),
            num_items=len(fold),
            blocks=[hashes[number] for number in range(fold.num_blocks)],
            written_at=iso_time(time.time_ns() // 1_000_000),
        )
        await self._confirm(f"counts-{head.sequence}")
        # Used up, whatever the broker answers: a head that failed may be on the topic all the same.
        self._sequence = head.sequence
        sent: list[asyncio.Future[Any]] = []
        for number, block in blocks.items():
            sent.append(await producer.send(self._topic, block, key=block_key(number), partition=0))
            if len(sent) >= _NUM_IN_FLIGHT:
                await asyncio.gather(*sent)
                sent.clear()
        await asyncio.gather(*sent)
        await producer.send_and_wait(self._topic, encode(head), key=HEAD_KEY, partition=0)
        self._head_s, self._written = now_s, hashes
        self._unwritten.clear()
        if is_whole:
            self._whole_s = now_s
        self._metrics.item_counts_sequence.set(head.sequence)
        self._metrics.item_counts_written.set(time.time())
