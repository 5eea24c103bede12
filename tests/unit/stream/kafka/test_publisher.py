"""The publisher's order: within a stream, nothing is sent after an output that failed; other streams go on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecord
from aiokafka.record.memory_records import MemoryRecords

from intentrec_core.errors import BrokerError
from intentrec_core.history.changelog_codec import Marker
from stream.delivery.changelog import Checkpoint, TransactionalWriter
from stream.kafka.publisher import OutputStream, Published, Publisher, fill
from stream.settings import Settings
from stream.wire.codec import NO_LATENCY, with_latency
from stream.wire.records import ID_HEADER, OutputKind, OutputRecord
from stream.wire.routing import home_partition

TOPICS = {OutputKind.RECOMMENDATION: "recommendations"}


def records_of(builder: BatchBuilder) -> list[DefaultRecord]:
    """What a batch holds, as a consumer decodes it."""
    return list(MemoryRecords(bytes(builder._build())).next_batch())


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

    def create_batch(self) -> BatchBuilder:
        """Full after one record."""
        return BatchBuilder(1, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[None]:
        await asyncio.sleep(0)
        acknowledged = asyncio.get_running_loop().create_future()
        (record,) = records_of(batch)
        if record.key == self._fails:
            acknowledged.set_exception(ConnectionError("lost"))
        else:
            self.sent.append(record.key)
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


def test_every_output_goes_to_the_partition_of_its_key_or_without_one_of_its_offset() -> None:
    """Also next to outputs of the same key, of another one, and of none."""
    num_partitions, keys = 7, [b"a", b"a", b"b", None, b"b", None, b"a", b"c", b"c"]

    async def scenario() -> None:
        producer = FailingProducer(fails=b"")
        producer.partitions = set(range(num_partitions))
        publisher = Publisher(producer, TOPICS, on_published=lambda _: None)
        await publisher.start()
        outputs = [
            OutputRecord(OutputKind.RECOMMENDATION, key, b'{"a":1' + NO_LATENCY, (), offset, 0)
            for offset, key in enumerate(keys)
        ]
        await publisher.publish(outputs, OutputStream()).future
        expected = [
            offset % num_partitions if key is None else home_partition(key, num_partitions)
            for offset, key in enumerate(keys)
        ]
        assert sorted(zip(producer.sent, producer.sent_to, strict=True), key=repr) == sorted(
            zip(keys, expected, strict=True), key=repr
        )
        await publisher.stop()

    asyncio.run(scenario())


def test_an_output_that_did_not_fit_into_a_batch_does_not_fail_with_it() -> None:
    async def scenario() -> None:
        producer = FailingProducer(fails=b"1")
        publisher = Publisher(producer, TOPICS, on_published=lambda _: None)
        await publisher.start()
        own, other = OutputStream(), OutputStream()
        failed, waiting = publisher.publish([_output(b"1")], own), publisher.publish([_output(b"a")], other)
        await asyncio.wait([failed.future, waiting.future])
        assert own.ended
        assert not other.ended
        assert waiting.future.exception() is None
        assert producer.sent == [b"a"]
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
    times_ms = [-1, 9_000, 9_000, 8_500, 9_000, 11_000, -1]
    outputs = [OutputRecord(OutputKind.RECOMMENDATION, b"k", VALUE, (), 0, time_ms) for time_ms in times_ms]
    builder = BatchBuilder(1 << 20, 0)
    latencies_s = fill(builder, outputs, 10.0, takes_latency=takes_latency)
    assert latencies_s == [10.001, 1.0, 1.0, 1.5, 1.0, 0.0, 10.001]
    stamped = [with_latency(VALUE, latency_s) for latency_s in latencies_s]
    assert [record.value for record in records_of(builder)] == (stamped if takes_latency else [VALUE] * 7)


def test_a_batch_is_filled_over_several_calls_as_aiokafka_fills_it() -> None:
    """The same bytes, the same number of records and the same end as through aiokafka's own ``append``."""
    headers = ((ID_HEADER, b"id"), ("empty", b""))
    outputs = [OutputRecord(OutputKind.LATE, key, b"x" * 90, headers, 0, 0) for key in (b"a", None, b"c", b"d", b"e")]
    ours, theirs = (BatchBuilder(500, 0) for _ in range(2))
    added = [len(fill(ours, part, 10.0, takes_latency=False)) for part in (outputs[:2], outputs[2:], outputs[3:])]
    appended = [
        theirs.append(timestamp=10_000, key=o.key, value=o.value, headers=list(o.headers)) is not None for o in outputs
    ]
    assert added == [2, appended.count(True) - 2, 0]
    assert 2 < ours.record_count() == theirs.record_count() < len(outputs)
    assert ours.closed()
    assert ours._build() == theirs._build()
    assert [record.offset for record in records_of(ours)] == list(range(ours.record_count()))


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


@pytest.mark.parametrize("broken", ["batch", "output"])
def test_a_batch_that_cannot_be_made_fails_its_outputs_and_holds_up_no_others(broken: str) -> None:
    class Producer(FailingProducer):
        is_broken = broken == "batch"

        def create_batch(self) -> BatchBuilder:
            if self.is_broken:
                self.is_broken = False
                raise TypeError("cannot be made")
            return super().create_batch()

    async def scenario() -> None:
        producer = Producer(fails=b"")
        publisher = Publisher(producer, TOPICS, on_published=lambda _: None)
        await publisher.start()
        own, other = OutputStream(), OutputStream()
        first_output = _output(b"1")
        if broken == "output":
            first_output = msgspec.structs.replace(first_output, value="no bytes")
        first, second = publisher.publish([first_output], own), publisher.publish([_output(b"2")], other)
        async with asyncio.timeout(5):
            with pytest.raises(TypeError):
                await first.future
            await second.future
        assert own.ended
        assert producer.sent == [b"2"]
        await publisher.stop()

    asyncio.run(scenario())
