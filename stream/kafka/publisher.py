"""Outputs to their topics: in whole batches, keyed by user, stamped with their latency right before they are sent.

    outputs of a micro-batch → lane of each (topic, partition) → one record batch in flight a lane → receipt

While a lane waits for its acknowledgement, what arrives gathers in it: batches grow with the load, and a user's outputs keep
their order. A receipt is settled when every output of its micro-batch is acknowledged, which is what a commit waits for.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from intentrec_core.errors import BrokerError
from stream.kafka.steady_clock import SteadyClock
from stream.wire.records import OutputKind, OutputRecord
from stream.wire.routing import key_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

    from stream.kafka.outputs_producer import OutputsProducer

#: Kafka's default limit on a batch is 1 MiB. A single larger record still gets a batch of its own.
BATCH_BYTES = 900 * 1024
#: aiokafka gives a batch up after its request timeout of 40 s; a lane that waits for longer waits for nothing.
ACKNOWLEDGED_WITHIN_S = 60.0


class PublishFailed(BrokerError):
    """Outputs were not acknowledged. Their plays are replayed, and answered again under the same ids."""


@dataclass(frozen=True, slots=True)
class Published:
    """What is reported of a batch that can be read: by kind, how many outputs and their latencies in seconds."""

    kind: OutputKind
    latencies_s: list[float]


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """Outputs in an open transaction: the batches' acknowledgements to await, and what was handed over when (seconds)."""

    acknowledged: list[asyncio.Future[object]]
    batches: list[tuple[Published, float]]


class OutputStream:
    """The outputs of one partition's task, in source order. Once one of them failed, or the task ended, no later one is sent.

    A subscriber drops what lies below the source offset it has seen: past a gap, what is replayed would be dropped.
    """

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False


class Receipt:
    """The acknowledgement of one micro-batch's outputs in a stream, all of them."""

    __slots__ = ("_remaining", "future", "stream")

    def __init__(self, num_outputs: int, stream: OutputStream) -> None:
        self._remaining = num_outputs
        self.stream = stream
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
        self.stream.ended = True
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True)
class _Lane:
    """What waits for one partition of one kind's topic: shares of micro-batches, oldest first."""

    kind: OutputKind
    topic: str
    partition: int
    queue: deque[tuple[Receipt, list[OutputRecord]]] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Publisher:
    """Publishes outputs through one producer.

    Invariant: outputs of one key in a stream leave in the order in which they were given, and none behind one that failed.
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
        self._lanes: dict[tuple[OutputKind, int], _Lane] = {}

    async def start(self) -> None:
        """Learns how many partitions the output topics have, once: metadata can miss a topic for a moment (its leader moves),
        and keys must not.

        Raises: KafkaError when the broker cannot be reached; BrokerError when a topic does not exist.
        """
        for kind, topic in self._topics.items():
            partitions = await self._producer.partitions_for(topic)
            if not partitions:
                raise BrokerError(f"output topic {topic} does not exist; create the topics first: intentrec topics")
            self._num_partitions[kind] = len(partitions)

    def publish(self, outputs: Sequence[OutputRecord], stream: OutputStream) -> Receipt:
        """Queues outputs and returns at once. Of a stream that has ended nothing is sent."""
        receipt = Receipt(len(outputs), stream)
        for (kind, partition), share in self._shares(outputs).items():
            lane = self._lanes.get((kind, partition)) or self._open_lane(kind, partition)
            lane.queue.append((receipt, share))
            lane.wake.set()
        return receipt

    async def send_in_transaction(self, producer: AIOKafkaProducer, outputs: Sequence[OutputRecord]) -> Uncommitted:
        """Sends outputs through a producer that is in a transaction; once it is committed, ``committed`` is to be told."""
        sent = Uncommitted([], [])
        for (kind, partition), share in self._shares(outputs).items():
            num_done = 0
            while num_done < len(share):
                builder, now_s = producer.create_batch(), self._clock()
                latencies_s = fill(builder, share[num_done:], now_s, takes_latency=kind.takes_latency)
                builder.close()
                num_done += len(latencies_s)
                sent.acknowledged.append(await producer.send_batch(builder, self._topics[kind], partition=partition))
                sent.batches.append((Published(kind, latencies_s), now_s))
        return sent

    def committed(self, sent: Uncommitted) -> None:
        """Reports outputs of a transaction: with its commit they can be read, so their latencies reach up to now."""
        now_s = self._clock()
        for batch, handed_over_s in sent.batches:
            waited_s = now_s - handed_over_s
            self._on_published(Published(batch.kind, [latency_s + waited_s for latency_s in batch.latencies_s]))

    def _shares(self, outputs: Sequence[OutputRecord]) -> dict[tuple[OutputKind, int], list[OutputRecord]]:
        """Outputs by kind and partition: murmur2 of the key, the source offset where there is none."""
        shares: defaultdict[tuple[OutputKind, int], list[OutputRecord]] = defaultdict(list)
        num_partitions = self._num_partitions
        for output in outputs:
            kind, key = output.kind, output.key
            place = key_hash(key) if key is not None else output.source_offset
            shares[kind, place % num_partitions[kind]].append(output)
        return shares

    async def stop(self) -> None:
        """Ends the lanes; what was not acknowledged is failed."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            for receipt, _ in lane.queue:
                receipt.fail(BrokerError("the publisher was stopped"))

    def _open_lane(self, kind: OutputKind, partition: int) -> _Lane:
        lane = self._lanes[kind, partition] = _Lane(kind, self._topics[kind], partition)
        lane.task = asyncio.create_task(self._run(lane), name=f"publish {lane.topic}-{partition}")
        return lane

    async def _run(self, lane: _Lane) -> None:
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            while lane.queue:
                await self._send_some(lane)

    async def _send_some(self, lane: _Lane) -> None:
        taken: list[Receipt] = []
        try:
            builder, sent, latencies_s = self._next_batch(lane, taken)
            if not latencies_s:
                return
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
                await (await self._producer.send_batch(builder, lane.topic, partition=lane.partition))
        except asyncio.CancelledError:
            for receipt in taken:
                receipt.fail(BrokerError("the publisher was stopped"))
            raise
        except Exception as error:
            # Also where the batch could not even be made: a lane that ended would leave all that comes after waiting.
            for receipt in taken or [lane.queue.popleft()[0]]:
                receipt.fail(error)
        else:
            for receipt, num in sent:
                receipt.settle(num)
            self._on_published(Published(lane.kind, latencies_s))

    def _next_batch(
        self, lane: _Lane, taken: list[Receipt]
    ) -> tuple[BatchBuilder, list[tuple[Receipt, int]], list[float]]:
        """A batch of what waits, how many outputs of which receipts are in it, and their latencies; adds to ``taken``."""
        builder = self._producer.create_batch()
        sent: list[tuple[Receipt, int]] = []
        latencies_s: list[float] = []
        now_s, takes_latency = self._clock(), lane.kind.takes_latency
        while lane.queue and not builder.closed():
            receipt, share = lane.queue.popleft()
            if receipt.stream.ended:
                receipt.fail(BrokerError("an output before it failed"))
                continue
            taken.append(receipt)
            stamped = fill(builder, share, now_s, takes_latency=takes_latency)
            latencies_s += stamped
            sent.append((receipt, len(stamped)))
            if len(stamped) < len(share):
                lane.queue.appendleft((receipt, share[len(stamped) :]))
        builder.close()
        return builder, sent, latencies_s


def fill(builder: BatchBuilder, outputs: Sequence[OutputRecord], now_s: float, *, takes_latency: bool) -> list[float]:
    """Appends outputs until the batch is full, closing their values with the latency as of ``now_s``.

    Returns the latencies in seconds of those appended. A batch that is full is closed.
    """
    latencies_s: list[float] = []
    append, now_ms = builder.append, int(now_s * 1000)
    latency_s, closing, source_ms = 0.0, b"", None
    for output in outputs:
        if output.source_timestamp_ms != source_ms:  # under load many plays share a millisecond
            source_ms = output.source_timestamp_ms
            # A producer's clock can be ahead of ours.
            latency_s = max(0.0, now_s - source_ms / 1000)
            closing = b',"latency_s":%.6f}' % latency_s if takes_latency else b""
        value = output.value + closing
        if append(timestamp=now_ms, key=output.key, value=value, headers=list(output.headers)) is None:
            break
        latencies_s.append(latency_s)
    return latencies_s


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
