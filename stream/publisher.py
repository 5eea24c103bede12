"""Outputs to their topics: in whole batches, keyed by user, stamped with their latency right before they are sent.

    outputs of a micro-batch → lane of each (topic, partition) → one record batch in flight a lane → receipt

While a lane waits for its acknowledgement, what arrives gathers in it: batches grow with the load, and a user's outputs keep
their order. A receipt is settled when every output of its micro-batch is acknowledged, which is what a commit waits for.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka.partitioner import murmur2

from intentrec_core.errors import BrokerError
from stream.records import OutputKind, OutputRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

#: Kafka's default limit on a batch is 1 MiB. A single larger record still gets a batch of its own.
BATCH_BYTES = 900 * 1024
#: Of keys' hashes: murmur2 in Python takes 5 µs a key, and members come back.
_HASHES_KEPT = 1 << 16


@functools.lru_cache(maxsize=_HASHES_KEPT)
def key_hash(key: bytes) -> int:
    """Kafka's non-negative murmur2 of a key; modulo the number of partitions it is the record's partition."""
    return int(murmur2(key)) & 0x7FFFFFFF


class PublishFailed(BrokerError):
    """Outputs were not acknowledged. Their plays are replayed, and answered again under the same ids."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a lane reports of a batch that was acknowledged: by kind, how many outputs and their latencies in seconds."""

    kind: OutputKind
    latencies_s: list[float]


class Receipt:
    """The acknowledgement of one micro-batch's outputs, all of them."""

    __slots__ = ("_remaining", "abandoned", "future")

    def __init__(self, num_outputs: int) -> None:
        self._remaining = num_outputs
        self.abandoned = False
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A receipt nobody waits for any more (its partition was closed) must not be reported as forgotten.
        self.future.add_done_callback(_retrieve)
        if not num_outputs:
            self.future.set_result(None)

    def settle(self, num_outputs: int) -> None:
        """Counts acknowledged outputs."""
        self._remaining -= num_outputs
        if not self._remaining and not self.future.done():
            self.future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Fails the whole: one output that is missing is enough to replay."""
        if not self.future.done():
            self.future.set_exception(error)

    def abandon(self) -> None:
        """What is not sent yet need not be: the plays will be replayed."""
        self.abandoned = True
        if not self.future.done():
            self.future.cancel()


@dataclass(slots=True)
class _Lane:
    topic: str
    partition: int
    queue: deque[tuple[OutputRecord, Receipt]] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Publisher:
    """Publishes outputs through one producer.

    Invariant: outputs of one key leave in the order in which they were given.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        topics: Mapping[OutputKind, str],
        *,
        on_published: Callable[[Published], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._on_published = on_published
        self._clock = clock
        self._lanes: dict[tuple[str, int], _Lane] = {}

    async def start(self) -> None:
        """Learns the output topics' partitions.

        Raises: KafkaError when the broker cannot be reached.
        """
        for topic in self._topics.values():
            await self._producer.partitions_for(topic)

    def publish(self, outputs: Sequence[OutputRecord]) -> Receipt:
        """Queues outputs and returns at once."""
        receipt = Receipt(len(outputs))
        for output in outputs:
            topic = self._topics[output.kind]
            partition = partition_of(output, self._num_partitions(topic))
            lane = self._lanes.get((topic, partition)) or self._open_lane(topic, partition)
            lane.queue.append((output, receipt))
            lane.wake.set()
        return receipt

    async def send_in_transaction(
        self, producer: AIOKafkaProducer, outputs: Iterable[OutputRecord]
    ) -> list[asyncio.Future[object]]:
        """Sends outputs through a producer that is in a transaction; returns the batches' acknowledgements to await."""
        lanes: dict[tuple[str, int], deque[OutputRecord]] = {}
        for output in outputs:
            topic = self._topics[output.kind]
            partition = partition_of(output, self._num_partitions(topic))
            lanes.setdefault((topic, partition), deque()).append(output)
        acknowledged = []
        for (topic, partition), queue in lanes.items():
            while queue:
                builder = producer.create_batch()
                published, now_s = Published(queue[0].kind, []), self._clock()
                while queue and append(builder, queue[0], now_s, published.latencies_s):
                    queue.popleft()
                builder.close()
                acknowledged.append(await producer.send_batch(builder, topic, partition=partition))
                self._on_published(published)
        return acknowledged

    async def stop(self) -> None:
        """Ends the lanes; what was not acknowledged is failed."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            for _, receipt in lane.queue:
                receipt.fail(BrokerError("the publisher was stopped"))

    def _num_partitions(self, topic: str) -> int:
        partitions = self._producer.client.cluster.partitions_for_topic(topic)
        if not partitions:
            raise BrokerError(f"output topic {topic} does not exist; create the topics first: intentrec topics")
        return len(partitions)

    def _open_lane(self, topic: str, partition: int) -> _Lane:
        lane = self._lanes[topic, partition] = _Lane(topic, partition)
        lane.task = asyncio.create_task(self._run(lane), name=f"publish {topic}-{partition}")
        return lane

    async def _run(self, lane: _Lane) -> None:
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            while lane.queue:
                await self._send_some(lane)

    async def _send_some(self, lane: _Lane) -> None:
        builder = self._producer.create_batch()
        sent: dict[Receipt, int] = {}
        published, now_s = Published(lane.queue[0][0].kind, []), self._clock()
        while lane.queue:
            output, receipt = lane.queue[0]
            if not receipt.abandoned:
                if not append(builder, output, now_s, published.latencies_s):
                    break
                sent[receipt] = sent.get(receipt, 0) + 1
            lane.queue.popleft()
        if not sent:
            return
        builder.close()
        try:
            await (await self._producer.send_batch(builder, lane.topic, partition=lane.partition))
        except asyncio.CancelledError:
            for receipt in sent:
                receipt.fail(BrokerError("the publisher was stopped"))
            raise
        except Exception as error:
            for receipt in sent:
                receipt.fail(error)
        else:
            for receipt, num in sent.items():
                receipt.settle(num)
            self._on_published(published)


def partition_of(output: OutputRecord, num_partitions: int) -> int:
    """Where an output belongs: by its key, or by its source offset where it has none."""
    return (key_hash(output.key) if output.key is not None else output.source_offset) % num_partitions


def append(builder: BatchBuilder, output: OutputRecord, now_s: float, latencies_s: list[float]) -> bool:
    """Appends an output to a batch, closing its value with the latency as of ``now_s``; False when the batch is full."""
    value = output.value
    latency_s = now_s - output.source_timestamp_ms / 1000
    if output.kind.takes_latency:
        value = b'%b,"latency_s":%.6f}' % (value, latency_s)
    if builder.append(timestamp=None, key=output.key, value=value, headers=list(output.headers)) is None:
        return False
    latencies_s.append(latency_s)
    return True


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
