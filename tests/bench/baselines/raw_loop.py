"""Baseline (e): the fastest loop over aiokafka that writes the records and bytes that (d) writes, and promises nothing.

No framework, no state, no transaction, no thread: fetch, three outputs a play into one record batch a topic and partition, sent
through an idempotent producer while the next plays are fetched; every 100 ms a changelog record of each member who played.
Settings from the environment as a worker's, bodies of answers from ``BENCH_BODIES`` as the pass-through's.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.producer.message_accumulator import BatchBuilder

from intentrec_core.domain.toml import load_domain
from intentrec_core.history.changelog_codec import BLOCK_PLAYS
from intentrec_core.history.history import EventLayout
from stream.kafka.publisher import BATCH_BYTES
from stream.settings import Settings
from tests.bench.baselines.pass_through import read_bodies

#: Plays of one fetch, over all partitions.
MAX_RECORDS = 4096
#: A play of the bench begins as an answer of (d) does, so nothing has to be parsed: {"event_id":"event-123456789"
_OPENING_BYTES = 29
#: Fetches whose outputs may be unacknowledged while the next one is worked on.
_IN_FLIGHT = 2


class RawLoop:
    """See the module."""

    def __init__(
        self, settings: Settings, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, bodies: Path
    ) -> None:
        self._settings, self._consumer, self._producer = settings, consumer, producer
        recommendation, intent = (b'%b,"latency_s":0.012345}' % body for body in read_bodies(bodies).values())
        self._outputs = (
            (settings.recommendations_topic, recommendation, b"%b-%d-%d-recommendation"),
            (settings.intents_topic, intent, b"%b-%d-%d-intent"),
            (settings.late_topic, None, b"%b-%d-%d-late"),
        )
        size = EventLayout(load_domain(settings.domain)).size
        #: The mean of a member's newest block, as the changelog codec writes it.
        self._change = b"x" * (17 + size * (BLOCK_PLAYS + 1) // 2)
        self._changed: dict[tuple[int, bytes], None] = {}
        self._changes_due_s = time.monotonic() + settings.commit_interval_s

    async def run(self) -> None:
        """Works until it is killed."""
        in_flight: list[list[asyncio.Future[object]]] = []
        while True:
            fetched = await self._consumer.getmany(timeout_ms=100, max_records=MAX_RECORDS)
            sent = []
            for source, records in fetched.items():
                sent += await self._answer(source.partition, records)
            if time.monotonic() >= self._changes_due_s:
                sent += await self._write_changes()
            in_flight.append(sent)
            if len(in_flight) > _IN_FLIGHT:
                await asyncio.gather(*in_flight.pop(0))

    async def _answer(self, partition: int, records: Sequence[ConsumerRecord]) -> list[asyncio.Future[object]]:
        sent, now_ms, topic = [], int(time.time() * 1000), self._settings.plays_topic.encode()
        for output_topic, body, id_format in self._outputs:
            builder = self._producer.create_batch()
            for record in records:
                value = record.value if body is None else record.value[:_OPENING_BYTES] + body
                headers = [("intentrec-id", id_format % (topic, partition, record.offset))]
                if builder.append(timestamp=now_ms, key=record.key, value=value, headers=headers) is None:
                    sent.append(await self._send(builder, output_topic, partition))
                    builder = self._producer.create_batch()
                    builder.append(timestamp=now_ms, key=record.key, value=value, headers=headers)
            sent.append(await self._send(builder, output_topic, partition))
        for record in records:
            self._changed[partition, record.key] = None
        return sent

    async def _write_changes(self) -> list[asyncio.Future[object]]:
        builders: dict[int, BatchBuilder] = {}
        for partition, key in self._changed:
            builder = builders.get(partition) or builders.setdefault(partition, self._producer.create_batch())
            builder.append(timestamp=None, key=key + b"xxxx", value=self._change)
        self._changed.clear()
        self._changes_due_s = time.monotonic() + self._settings.commit_interval_s
        return [await self._send(builder, self._settings.changelog_topic, p) for p, builder in builders.items()]

    async def _send(self, builder: BatchBuilder, topic: str, partition: int) -> asyncio.Future[object]:
        builder.close()
        return await self._producer.send_batch(builder, topic, partition=partition)


async def main() -> None:
    """See the module."""
    settings = Settings.load()
    consumer = AIOKafkaConsumer(
        settings.plays_topic, **settings.connection(), group_id=settings.app_id, auto_offset_reset="earliest"
    )
    producer = AIOKafkaProducer(**settings.connection(), enable_idempotence=True, max_batch_size=BATCH_BYTES)
    async with consumer, producer:
        await RawLoop(settings, consumer, producer, Path(os.environ["BENCH_BODIES"])).run()


if __name__ == "__main__":
    asyncio.run(main())
