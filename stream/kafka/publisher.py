"""Publishes outputs in record batches, keyed by user; each output gets its latency right before it is sent.

    outputs of a micro-batch → queue of each (topic, partition) → one record batch in flight per queue → receipt

While a batch of a queue is unacknowledged, new outputs gather in the queue. So batches grow with the load, and the outputs of a
user stay in order. A receipt is settled when every output of its micro-batch is acknowledged. Commits wait for receipts.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from intentrec_core.errors import BrokerError
from stream.kafka.clients import mark_retrieved
from stream.kafka.steady_clock import SteadyClock
from stream.wire.codec import BEFORE_LATENCY, latency_text
from stream.wire.records import OutputKind, OutputRecord
from stream.wire.routing import key_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

    from stream.kafka.outputs_producer import OutputsProducer
    from stream.wire.sizes import TopicLimits

#: Kafka's default limit on a batch is 1 MiB. A single record above this size gets a batch of its own; its size was checked
#: when it was written.
BATCH_BYTES = 900 * 1024
#: aiokafka abandons a batch after its request timeout of 40 s, so waiting longer than this is useless.
ACKNOWLEDGED_WITHIN_S = 60.0


class PublishFailed(BrokerError):
    """Outputs were not acknowledged. Their plays are replayed, and the outputs repeated with the same ids."""


@dataclass(frozen=True, slots=True)
class Published:
    """One batch of outputs that subscribers can read, for the metrics. Units: seconds; one latency per output."""

    kind: OutputKind
    latencies_s: list[float]


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """Outputs in an open transaction: acknowledgements to await, and each batch with the time it was sent. Units: seconds."""

    acknowledged: list[asyncio.Future[object]]
    batches: list[tuple[Published, float]]


class OutputStream:
    """The outputs of one partition task, in source order. After one fails, or the task ends, no later output is sent.

    Subscribers drop outputs at or below the highest source offset they have seen. If a later output were sent after a failed
    one, they would drop the failed one when it is repeated.
    """

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False


class Receipt:
    """Completes when all outputs of one micro-batch in a stream are acknowledged."""

    __slots__ = ("_remaining", "future", "stream")

    def __init__(self, num_outputs: int, stream: OutputStream) -> None:
        self._remaining = num_outputs
        self.stream = stream
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # If its partition was closed, no task awaits the receipt; asyncio must not report its exception as never retrieved.
        self.future.add_done_callback(mark_retrieved)
        if not num_outputs:
            self.future.set_result(None)

    def settle(self, num_outputs: int) -> None:
        """Records ``num_outputs`` more acknowledged outputs."""
        self._remaining -= num_outputs
        if not self._remaining and not self.future.done():
            self.future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Fails the whole receipt: one missing output is enough to require a replay."""
        self.stream.ended = True
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True)
class _OutputQueue:
    """Outputs that wait for one partition of one output topic: chunks of micro-batches, oldest first."""

    kind: OutputKind
    topic: str
    partition: int
    chunks: deque[tuple[Receipt, list[OutputRecord]]] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Publisher:
    """Publishes outputs through one producer.

    Invariant: the outputs of one key in a stream are sent in the order given, and none is sent after one that failed.
    """

    def __init__(
        self,
        producer: OutputsProducer,
        topics: Mapping[OutputKind, str],
        *,
        on_published: Callable[[Published], None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._producer = producer
        self._topics = topics
        self._on_published = on_published
        self._clock = clock or SteadyClock()
        self._num_partitions: dict[OutputKind, int] = {}
        self._queues: dict[tuple[OutputKind, int], _OutputQueue] = {}

    async def start(self) -> None:
        """Reads the partition counts of the output topics, once. Later metadata can miss a topic for a moment, while its leader
        moves, and keys must not change their partition.

        Raises: KafkaError when the broker cannot be reached; BrokerError when a topic does not exist.
        """
        for kind, topic in self._topics.items():
            partitions = await self._producer.partitions_for(topic)
            if not partitions:
                raise BrokerError(f"output topic {topic} does not exist; create the topics first: intentrec topics")
            self._num_partitions[kind] = len(partitions)

    def publish(self, outputs: Sequence[OutputRecord], stream: OutputStream) -> Receipt:
        """Queues the outputs and returns immediately. Outputs of a stream that has ended are not sent."""
        receipt = Receipt(len(outputs), stream)
        for (kind, partition), chunk in self._by_partition(outputs).items():
            queue = self._queues.get((kind, partition)) or self._open_queue(kind, partition)
            queue.chunks.append((receipt, chunk))
            queue.wake.set()
        return receipt

    async def send_in_transaction(self, producer: AIOKafkaProducer, outputs: Sequence[OutputRecord]) -> Uncommitted:
        """Sends outputs through a producer in a transaction. After the commit, the caller calls ``committed``."""
        sent = Uncommitted([], [])
        for (kind, partition), chunk in self._by_partition(outputs).items():
            num_done = 0
            while num_done < len(chunk):
                builder, now_s = producer.create_batch(), self._clock()
                latencies_s = fill(builder, chunk[num_done:], now_s, takes_latency=kind.takes_latency)
                builder.close()
                num_done += len(latencies_s)
                acknowledged = await producer.send_batch(builder, self._topics[kind], partition=partition)
                acknowledged.add_done_callback(mark_retrieved)  # if a later send raises, nothing awaits this one
                sent.acknowledged.append(acknowledged)
                sent.batches.append((Published(kind, latencies_s), now_s))
        return sent

    def committed(self, sent: Uncommitted) -> None:
        """Reports outputs of a committed transaction. Subscribers can read them from now on, so their latencies end now."""
        now_s = self._clock()
        for batch, sent_s in sent.batches:
            waited_s = now_s - sent_s
            self._on_published(Published(batch.kind, [latency_s + waited_s for latency_s in batch.latencies_s]))

    def _by_partition(self, outputs: Sequence[OutputRecord]) -> dict[tuple[OutputKind, int], list[OutputRecord]]:
        """Outputs by kind and partition. The partition is murmur2 of the key, or the source offset if there is no key."""
        chunks: defaultdict[tuple[OutputKind, int], list[OutputRecord]] = defaultdict(list)
        num_partitions, last, place = self._num_partitions, None, 0
        for output in outputs:
            kind, key = output.kind, output.key
            if key is None:
                place = output.source_offset
            elif key is not last:  # the outputs of a play share their key
                place = key_hash(key)
            last = key
            chunks[kind, place % num_partitions[kind]].append(output)
        return chunks

    async def stop(self) -> None:
        """Ends all queues. Receipts that are not settled fail."""
        tasks = [queue.task for queue in self._queues.values() if queue.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for queue in self._queues.values():
            for receipt, _ in queue.chunks:
                receipt.fail(BrokerError("the publisher was stopped"))

    def _open_queue(self, kind: OutputKind, partition: int) -> _OutputQueue:
        queue = self._queues[kind, partition] = _OutputQueue(kind, self._topics[kind], partition)
        queue.task = asyncio.create_task(self._run(queue), name=f"publish {queue.topic}-{partition}")
        return queue

    async def _run(self, queue: _OutputQueue) -> None:
        while True:
            await queue.wake.wait()
            queue.wake.clear()
            while queue.chunks:
                await self._send_batch(queue)

    async def _send_batch(self, queue: _OutputQueue) -> None:
        taken: list[Receipt] = []
        try:
            builder, sent, latencies_s = self._next_batch(queue, taken)
            if not latencies_s:
                return
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
                await (await self._producer.send_batch(builder, queue.topic, partition=queue.partition))
        except asyncio.CancelledError:
            for receipt in taken:
                receipt.fail(BrokerError("the publisher was stopped"))
            raise
        except Exception as error:  # whatever the producer raises: the receipts carry it
            # Also if the batch could not even be built: if this task ended, all later outputs of the queue would wait forever.
            for receipt in taken or [queue.chunks.popleft()[0]]:
                receipt.fail(error)
        else:
            for receipt, num in sent:
                receipt.settle(num)
            self._on_published(Published(queue.kind, latencies_s))

    def _next_batch(
        self, queue: _OutputQueue, taken: list[Receipt]
    ) -> tuple[BatchBuilder, list[tuple[Receipt, int]], list[float]]:
        """The next batch, how many outputs of each receipt are in it, and their latencies. Appends the receipts to ``taken``."""
        builder = self._producer.create_batch()
        sent: list[tuple[Receipt, int]] = []
        latencies_s: list[float] = []
        now_s, takes_latency = self._clock(), queue.kind.takes_latency
        while queue.chunks and not builder.closed():
            receipt, chunk = queue.chunks.popleft()
            if receipt.stream.ended:
                receipt.fail(BrokerError("an earlier output of this stream failed"))
                continue
            taken.append(receipt)
            added_s = fill(builder, chunk, now_s, takes_latency=takes_latency)
            if len(added_s) < len(chunk):
                queue.chunks.appendleft((receipt, chunk[len(added_s) :]))
            if not added_s:
                taken.pop()  # nothing of it is in this batch, and may not fail with it
                break
            latencies_s += added_s
            sent.append((receipt, len(added_s)))
        builder.close()
        return builder, sent, latencies_s


def max_batch_bytes(limits: TopicLimits) -> int:
    """The size of a batch that every topic of a worker takes: one producer sends to all of them."""
    return min(BATCH_BYTES, limits.smallest)


def fill(builder: BatchBuilder, outputs: Sequence[OutputRecord], now_s: float, *, takes_latency: bool) -> list[float]:
    """Appends outputs until the batch is full, each with its latency as of ``now_s``.

    Returns the latencies in seconds of those appended. A batch that is full is closed.
    """
    # Not through builder.append: its two calls in Python and its keywords take longer than the compiled append itself.
    append, offset = builder._builder.append, builder._relative_offset
    latencies_s: list[float] = []
    now_ms, latency_s, latency, source_ms = int(now_s * 1000), 0.0, b"", None
    for output in outputs:
        if output.source_timestamp_ms != source_ms:  # under load many plays share a millisecond
            source_ms = output.source_timestamp_ms
            # A producer's clock can be ahead of ours.
            latency_s = max(0.0, now_s - source_ms / 1000)
            latency = latency_text(latency_s)
        value = output.value[:BEFORE_LATENCY] + latency if takes_latency else output.value
        if append(offset, now_ms, output.key, value, [*output.headers]) is None:
            builder.close()
            break
        offset += 1
        latencies_s.append(latency_s)
    builder._relative_offset = offset
    return latencies_s
