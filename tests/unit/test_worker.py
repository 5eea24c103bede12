"""The worker's edges: a revoke that meets an inference which hangs, and fetches that do not follow one another."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from intentrec_core.errors import BrokerError, IntentRecError, RecoveryTimeout
from stream import worker as worker_module
from stream.changelog import Cut
from stream.closing import close_consumer
from stream.metrics import Metrics, PlayOutcome
from stream.partition import LifeParts, Membership
from stream.publisher import OutputStream, Receipt
from stream.records import Fetched, OutputRecord, PartitionResult, SourceRecord
from stream.recovery import Restored
from stream.settings import Settings
from stream.start_offset import SourceFacts
from stream.worker import PlaysWorker

REBALANCE_TIMEOUT_S = 2.0


class HangingPipeline:
    """Its first micro-batch hangs until told to go on."""

    def __init__(self) -> None:
        self.go_on, self.began = threading.Event(), threading.Event()
        self.opened: list[int] = []
        self.metrics = Metrics()

    def open_partition(self, partition: int, histories: dict[str, Any]) -> None:
        self.opened.append(partition)

    def close_partition(self, partition: int) -> None:
        self.opened = [opened for opened in self.opened if opened != partition]

    def process(self, batches: Mapping[int, Sequence[SourceRecord]]) -> list[PartitionResult]:
        self.began.set()
        self.go_on.wait(20)
        results = [PartitionResult(p, records[-1].offset + 1, len(records)) for p, records in batches.items()]
        for result in results:
            result.tally.add(self.metrics.plays, PlayOutcome.APPLIED, amount=result.num_records)
        return results


@dataclass
class Broker:
    """The least of a broker: one partition, whose cuts are remembered."""

    cuts: list[int] = field(default_factory=list)
    num_opened: int = 0
    num_failures: int = 0

    def writer(self, partition: int, marker: object) -> Any:
        return self

    async def open(self) -> None:
        self.num_opened += 1

    async def commit(self, cut: Cut) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise BrokerError("the commit failed")
        self.cuts.append(cut.next_offset)

    async def close(self) -> None:
        pass

    async def source_facts(self, partition: int) -> SourceFacts:
        return SourceFacts(committed=None, beginning=100, end=1000, num_partitions=1)

    async def seek_source(self, partition: int, offset: int) -> None:
        pass

    async def membership(self, partition: int) -> Membership:
        return Membership.YES

    async def restore(self, partition: int) -> Restored:
        return Restored({}, None, 0, 0, 0.0)

    def publish(self, outputs: Sequence[OutputRecord], stream: OutputStream) -> Receipt:
        return Receipt(len(outputs), stream)


@pytest.fixture
def pipeline() -> Iterator[HangingPipeline]:
    made = HangingPipeline()
    yield made
    made.go_on.set()


def _run(
    pipeline: HangingPipeline,
    scenario: Callable[[PlaysWorker, Broker, Metrics], Awaitable[None]],
    *,
    batch_deadline_ms: float = 0,
    **changes: Any,
) -> None:
    async def run() -> None:
        metrics, broker = pipeline.metrics, Broker()
        settings = Settings.load(commit_interval_s=0.01, batch_deadline_ms=batch_deadline_ms)
        worker = PlaysWorker(settings, pipeline, metrics, rebalance_timeout_s=REBALANCE_TIMEOUT_S)
        parts: dict[str, Any] = {
            "source": broker,
            "writer": broker.writer,
            "marker": lambda num_partitions, next_offset: None,
            "restore": broker.restore,
            "open_state": lambda *given: worker.on_inference_thread(pipeline.open_partition, *given),
            "close_state": lambda *given: worker.on_inference_thread(pipeline.close_partition, *given),
            "transactional": True,
            "fingerprint": "f" * 16,
            "commit_interval_s": 0.01,
            "recovery_deadline_s": 30.0,
            "on_failed": worker.life_failed,
            "on_committed": worker.committed,
            "on_restored": worker.figures.restored,
        }
        worker.start(LifeParts(**{**parts, **changes}), broker)  # type: ignore[arg-type]
        worker.partitions_assigned({0})
        try:
            async with asyncio.timeout(60):
                await scenario(worker, broker, metrics)
        finally:
            pipeline.go_on.set()
            await worker.stop()

    asyncio.run(run())


async def _until(done: Callable[[], Any]) -> None:
    while not done():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def _records(start: int, num: int) -> list[Any]:
    return [SimpleNamespace(partition=0, offset=offset, value=b"play") for offset in range(start, start + num)]


def test_a_revoke_returns_by_its_deadline_although_inference_hangs(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await _until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, _records(100, 5), 105))
        await asyncio.to_thread(pipeline.began.wait, 30)
        started_s = time.monotonic()
        await worker.partitions_revoked({0})
        # The deadline is half the rebalance timeout; the inference would have hung for longer.
        assert time.monotonic() - started_s < REBALANCE_TIMEOUT_S + 10
        assert not worker.fetchable()
        worker.partitions_assigned({0})
        await asyncio.sleep(0.05)
        assert broker.num_opened == 1, "nothing is opened while something of the last life is left"
        pipeline.go_on.set()
        await _until(worker.fetchable)
        assert broker.num_opened == 2
        assert pipeline.opened == [0]
        assert broker.cuts == [], "what came out of a life that had ended is committed by nobody"

    _run(pipeline, scenario)


def test_a_recovery_past_its_deadline_ends_the_process_although_inference_hangs(pipeline: HangingPipeline) -> None:
    async def never(partition: int) -> Restored:
        await asyncio.sleep(3600)
        raise AssertionError

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        hung = asyncio.ensure_future(worker.on_inference_thread(pipeline.process, {0: _records(0, 1)}))
        error: IntentRecError = await worker.fatal
        assert isinstance(error, RecoveryTimeout)
        assert not hung.done()

    _run(pipeline, scenario, restore=never, recovery_deadline_s=0.05)


def test_fetches_that_follow_one_another_are_taken_whatever_offsets_are_missing(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await _until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, _records(100, 5), 107))  # 105 and 106: a transaction's end, an aborted play
        worker.accept(life, Fetched(107, [], 109))
        worker.accept(life, Fetched(109, _records(111, 2), 113))
        await _until(lambda: broker.cuts and broker.cuts[-1] == 113)
        assert broker.num_opened == 1

    _run(pipeline, scenario)


@pytest.mark.parametrize("start", [90, 106], ids=["behind", "ahead"])
def test_a_fetcher_that_is_elsewhere_has_the_partition_opened_again(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_RETRY_S", 0.0)

    async def scenario(worker: PlaysWorker, broker: Broker, metrics: Metrics) -> None:
        pipeline.go_on.set()
        await _until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, _records(100, 5), 105))
        await _until(lambda: broker.cuts == [105])
        worker.accept(life, Fetched(start, _records(start, 30), start + 30))
        await _until(lambda: worker.fetchable().get(0, life) is not life)
        assert broker.cuts == [105]
        assert broker.num_opened == 2
        labels = {"reason": "rewound"}
        assert metrics.registry.get_sample_value("intentrec_partitions_reopened_total", labels) == 1

    _run(pipeline, scenario)


def test_plays_of_a_cut_that_failed_are_counted_when_they_are_committed(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_RETRY_S", 0.0)

    async def scenario(worker: PlaysWorker, broker: Broker, metrics: Metrics) -> None:
        def applied() -> float | None:
            return metrics.registry.get_sample_value("intentrec_plays_total", {"outcome": "applied"})

        pipeline.go_on.set()
        broker.num_failures = 2
        for life in range(1, 4):
            await _until(lambda life=life: broker.num_opened == life and worker.fetchable())  # type: ignore[misc]
            assert applied() == 0
            worker.accept(worker.fetchable()[0], Fetched(100, _records(100, 5), 105))
        await _until(lambda: broker.cuts)
        assert applied() == 5

    _run(pipeline, scenario)


def test_plays_whose_inference_failed_are_not_passed_over_by_the_last_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(HangingPipeline):
        """Its first micro-batch raises, the one behind it is fine."""

        num_batches = 0

        def process(self, batches: Mapping[int, Sequence[SourceRecord]]) -> list[PartitionResult]:
            results = super().process(batches)
            self.num_batches += 1
            if self.num_batches == 1:
                raise RuntimeError("the search failed")
            return results

    pipeline = Failing()

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await _until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, _records(100, 5), 105))
        await asyncio.to_thread(pipeline.began.wait, 30)
        worker.accept(life, Fetched(105, _records(105, 5), 110))
        await asyncio.sleep(0.05)
        revoked = asyncio.ensure_future(worker.partitions_revoked({0}))
        await asyncio.sleep(0.05)
        pipeline.go_on.set()
        await revoked
        assert pipeline.num_batches == 2
        assert broker.cuts == []

    _run(pipeline, scenario)


def test_an_opening_that_failed_closes_nothing_of_the_life_that_came_after(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    openings = 0

    async def open_(broker: Broker) -> None:
        nonlocal openings
        openings += 1
        if openings == 2:
            await asyncio.sleep(0.4)  # until the retry of the life before queues up behind it
            raise BrokerError("the opening failed")

    monkeypatch.setattr(Broker, "open", open_)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        broker.num_failures = 1
        await _until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, _records(100, 5), 105))
        await _until(lambda: not worker.fetchable())
        await worker.partitions_revoked({0})
        worker.partitions_assigned({0})
        await _until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, _records(100, 5), 105))
        await _until(lambda: broker.cuts == [105])
        await asyncio.sleep(0.5)  # whatever the failed opening still has to end
        assert openings == 3
        assert worker.fetchable()
        assert pipeline.opened == [0]

    _run(pipeline, scenario)


def test_what_waited_for_inference_is_not_taken_into_the_next_life(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_RETRY_S", 0.0)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await _until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, _records(100, 5), 105))  # waits for more plays, or the deadline
        worker.accept(life, Fetched(90, _records(90, 5), 95))  # the life fails
        await _until(lambda: worker.fetchable().get(0, life) is not life)
        assert not pipeline.began.is_set(), "the next life began before the deadline"
        await asyncio.sleep(1.5)
        assert broker.cuts == []
        worker.accept(worker.fetchable()[0], Fetched(100, _records(100, 3), 103))
        await _until(lambda: broker.cuts)
        assert broker.cuts == [103]

    _run(pipeline, scenario, batch_deadline_ms=1000)


def test_what_is_in_inference_when_a_partition_is_revoked_goes_into_its_last_cut(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await _until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, _records(100, 5), 105))
        await asyncio.to_thread(pipeline.began.wait, 30)
        revoked = asyncio.ensure_future(worker.partitions_revoked({0}))
        await asyncio.sleep(0.05)
        pipeline.go_on.set()
        await revoked
        assert broker.cuts == [105], "nothing is replayed by the next owner"

    _run(pipeline, scenario)


def test_work_that_a_client_library_cancelled_ends_the_process(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_RETRY_S", 0.0)

    async def leak(broker: Broker, partition: int) -> Membership:
        raise asyncio.CancelledError

    monkeypatch.setattr(Broker, "membership", leak)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        broker.num_failures = 1
        await _until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, _records(100, 5), 105))
        error = await worker.fatal
        assert "cancelled from within" in str(error)

    _run(pipeline, scenario)


def test_failures_with_a_quiet_time_in_between_end_nothing(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_RETRY_S", 0.0)
    monkeypatch.setattr(worker_module, "_QUIET_S", 0.0)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        broker.num_failures = num_failures = 15  # above what ends the process in a row
        for life in range(1, num_failures + 2):
            await _until(lambda life=life: broker.num_opened == life and worker.fetchable())  # type: ignore[misc]
            worker.accept(worker.fetchable()[0], Fetched(100, _records(100, 5), 105))
        await _until(lambda: broker.cuts)
        assert not worker.fatal.done()

    _run(pipeline, scenario)


@pytest.mark.parametrize("call", ["restore", "commit"])
def test_a_cancellation_that_comes_out_of_a_client_library_leaves_no_partition_behind(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_RETRY_S", 0.0)
    leaks = iter([True])

    async def leak(broker: Broker, given: Any) -> Any:
        if next(leaks, False):
            raise asyncio.CancelledError
        return await original(broker, given)

    original = getattr(Broker, call)
    monkeypatch.setattr(Broker, call, lambda self, given: leak(self, given))

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        while not broker.cuts:
            await _until(worker.fetchable)
            life = worker.fetchable()[0]
            worker.accept(life, Fetched(100, _records(100, 5), 105))
            await _until(lambda life=life: broker.cuts or worker.fetchable().get(0) is not life)  # type: ignore[misc]
        assert broker.num_opened == 2

    _run(pipeline, scenario)


def test_a_consumer_that_stops_badly_is_closed_and_cancels_nobody() -> None:
    class Consumer:
        closed = False

        def __init__(self) -> None:
            self._client = self

        async def stop(self) -> None:
            raise asyncio.CancelledError

        async def close(self) -> None:
            self.closed = True

    async def scenario() -> None:
        consumer = Consumer()
        await close_consumer(consumer)  # type: ignore[arg-type]
        assert consumer.closed

    asyncio.run(scenario())
