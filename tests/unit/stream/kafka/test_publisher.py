"""The publisher's order: within a stream, nothing is sent after an output that failed; other streams go on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError
from intentrec_core.history.changelog_codec import Marker
from stream.delivery.changelog import Checkpoint, TransactionalWriter
from stream.kafka.publisher import OutputStream, Published, Publisher, fill
from stream.settings import Settings
from stream.wire.codec import NO_LATENCY, with_latency
from stream.wire.records import ID_HEADER, OutputKind, OutputRecord

TOPICS = {OutputKind.RECOMMENDATION: "recommendations"}


class Batch(list[bytes]):
    """A batch builder that keeps the keys; full after one record."""

    def append(self, *, key: bytes, **_: Any) -> object | None:
        if self:
            return None
        super().append(key)
        return object()

    def close(self) -> None:
        pass

    def closed(self) -> bool:
        return bool(self)


class FailingProducer:
    """Acknowledges every batch but those of the key ``fails``."""

    def __init__(self, fails: bytes) -> None:
        self.sent: list[bytes] = []
        self.sent_to: list[int] = []
        self._fails = fails
        self.partitions: set[int] = {0}

    async def start(self) -> None:
        pass

    async def partitions_for(self, topic: str) -> set[int]:
        return self.partitions

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        await asyncio.sleep(0)
        acknowledged = asyncio.get_running_loop().create_future()
        if batch[0] == self._fails:
            acknowledged.set_exception(ConnectionError("lost"))
        else:
            self.sent.append(batch[0])
            self.sent_to.append(partition)
            acknowledged.set_result(None)
        return acknowledged


def _output(key: bytes) -> OutputRecord:
    return OutputRecord(OutputKind.RECOMMENDATION, key, b'{"a":1', ((ID_HEADER, key),), 0, 0)


def test_nothing_of_a_stream_is_sent_after_an_output_that_failed() -> None:
    async def scenario() -> None:
        producer = FailingProducer(fails=b"2")
        publisher = Publisher(producer, TOPICS, on_published=lambda _: None)
        await publisher.start()
        own, other = OutputStream(), OutputStream()
        keys = {b"1": own, b"2": own, b"a": other, b"3": own, b"b": other}
        receipts = {key: publisher.publish([_output(key)], stream) for key, stream in keys.items()}
        await asyncio.wait([receipt.future for receipt in receipts.values()])
        assert producer.sent == [b"1", b"a", b"b"]
        assert own.ended
        assert not other.ended
        for key in (b"2", b"3"):
            with pytest.raises(Exception, match=r"lost|earlier output"):
                receipts[key].future.result()
        await publisher.stop()

    asyncio.run(scenario())


def test_nothing_of_a_stream_that_has_ended_is_sent() -> None:
    async def scenario() -> None:
        producer = FailingProducer(fails=b"")
        publisher = Publisher(producer, TOPICS, on_published=lambda _: None)
        await publisher.start()
        own = OutputStream()
        receipts = [publisher.publish([_output(key)], own) for key in (b"1", b"2")]
        own.ended = True
        await asyncio.wait([receipt.future for receipt in receipts])
        assert producer.sent == []
        await publisher.stop()

    asyncio.run(scenario())


def test_metadata_that_misses_a_topic_for_a_moment_fails_nothing_and_moves_no_key() -> None:
    async def scenario() -> None:
        producer = FailingProducer(fails=b"")
        publisher = Publisher(producer, TOPICS, on_published=lambda _: None)
        await publisher.start()
        producer.partitions = set()
        await publisher.publish([_output(b"1")], OutputStream()).future
        producer.partitions = {0, 1, 2}
        await publisher.publish([_output(b"1")], OutputStream()).future
        assert producer.sent == [b"1", b"1"]
        assert producer.sent_to == [0, 0]
        await publisher.stop()

    asyncio.run(scenario())


def test_a_topic_that_does_not_exist_is_said_at_the_start() -> None:
    producer = FailingProducer(fails=b"")
    producer.partitions = set()
    publisher = Publisher(producer, TOPICS, on_published=lambda _: None)
    with pytest.raises(BrokerError, match="intentrec topics"):
        asyncio.run(publisher.start())


def test_outputs_of_a_transaction_are_reported_once_it_is_committed_with_the_time_that_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Transaction(FailingProducer):
        def __init__(self, fails: bytes) -> None:
            super().__init__(fails)
            self.seen_before_the_commit = -1

        async def begin_transaction(self) -> None:
            pass

        async def send_offsets_to_transaction(self, offsets: dict[Any, int], group: str) -> None:
            now_s[0] += 2.0

        async def commit_transaction(self) -> None:
            self.seen_before_the_commit = len(seen)
            now_s[0] += 1.0
            if self._fails == b"commit":
                raise KafkaError("lost")

    def marker(next_offset: int) -> Marker:
        return Marker(num_partitions=1, next_offset=next_offset, fingerprint="f" * 16)

    async def commit(fails: bytes) -> None:
        publisher = Publisher(FailingProducer(b""), TOPICS, on_published=seen.append, clock=lambda: now_s[0])
        await publisher.start()
        producer = Transaction(fails)
        writer = TransactionalWriter(Settings(), 0, marker, publisher, make_producer=lambda **_: producer)
        await writer.open()
        with contextlib.nullcontext() if not fails else pytest.raises(Exception, match="lost"):
            await writer.commit(Checkpoint(3, {}, [_output(b"1"), _output(b"2")]))
        assert producer.seen_before_the_commit <= 0

    now_s, seen = [10.0], list[Published]()
    for fails in (b"2", b"commit"):
        asyncio.run(commit(fails))
        assert not seen
    now_s[0] = 10.0
    asyncio.run(commit(b""))
    assert seen == [Published(OutputKind.RECOMMENDATION, [13.0])] * 2


VALUE = b'{"a":1' + NO_LATENCY


@pytest.mark.parametrize("takes_latency", [True, False])
def test_each_output_carries_the_latency_from_its_own_source(takes_latency: bool) -> None:
    """Equal times in a row, others behind them, a record without one (-1), and a producer whose clock is ahead."""

    class Values(list[bytes]):
        def append(self, *, value: bytes, **_: Any) -> object:
            super().append(value)
            return object()

    values, times_ms = Values(), [-1, 9_000, 9_000, 8_500, 9_000, 11_000, -1]
    outputs = [OutputRecord(OutputKind.RECOMMENDATION, b"k", VALUE, (), 0, time_ms) for time_ms in times_ms]
    latencies_s = fill(values, outputs, 10.0, takes_latency=takes_latency)
    assert latencies_s == [10.001, 1.0, 1.0, 1.5, 1.0, 0.0, 10.001]
    stamped = [with_latency(VALUE, latency_s) for latency_s in latencies_s]
    assert values == (stamped if takes_latency else [VALUE] * 7)


def test_a_connection_that_times_out_is_not_called_a_transaction_that_took_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Producer(FailingProducer):
        async def begin_transaction(self) -> None:
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    async def scenario() -> None:
        writer = TransactionalWriter(Settings(), 0, lambda _: None, None, make_producer=lambda **_: Producer(b""))
        await writer.open()
        with pytest.raises(TimeoutError, match="Connection timed out"):
            await writer.commit(Checkpoint(3, {}))

    asyncio.run(scenario())


@pytest.mark.parametrize("broken", ["create_batch", "append"])
def test_a_batch_that_cannot_be_made_fails_its_outputs_and_holds_up_no_others(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    owner = FailingProducer if broken == "create_batch" else Batch
    whole, calls = getattr(owner, broken), 0

    def breaks(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("cannot be made")
        return whole(*args, **options)

    monkeypatch.setattr(owner, broken, breaks)

    async def scenario() -> None:
        producer = FailingProducer(fails=b"")
        publisher = Publisher(producer, TOPICS, on_published=lambda _: None)
        await publisher.start()
        own, other = OutputStream(), OutputStream()
        first, second = publisher.publish([_output(b"1")], own), publisher.publish([_output(b"2")], other)
        async with asyncio.timeout(5):
            with pytest.raises(ValueError, match="cannot be made"):
                await first.future
            await second.future
        assert own.ended
        assert producer.sent == [b"2"]
        await publisher.stop()

    asyncio.run(scenario())
