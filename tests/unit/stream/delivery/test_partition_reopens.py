"""A partition that failed is reopened, and keeps nothing of the failed task; what ends the process, and what does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from intentrec_core.errors import BrokerError, DeviceLost
from intentrec_core.history.changelog_codec import Marker
from stream.delivery import inference_loop
from stream.delivery.changelog import Checkpoint
from stream.delivery.partition import Membership
from stream.delivery.restore import Restored
from stream.delivery.retries import MAX_FAILURES, Retries
from stream.delivery.start_offset import SourceFacts
from stream.delivery.worker import PlaysWorker
from stream.ops.metrics import Metrics, ReopenReason
from stream.wire.records import Fetched, PartitionResult, SourceRecord
from tests.property.virtual_time import VirtualLoop, VirtualThread
from tests.rigs.worker_bench import Broker, HangingPipeline, records, run_worker, until


def at_once(**changes: float) -> Retries:
    """Retries without a pause."""
    return Retries(time.monotonic, first_pause_s=0.0, **changes)


@pytest.fixture
def pipeline() -> Iterator[HangingPipeline]:
    made = HangingPipeline()
    yield made
    made.go_on.set()


@pytest.fixture
def virtual_thread(monkeypatch: pytest.MonkeyPatch) -> VirtualThread:
    """The inference thread and the responder thread of a worker on a VirtualLoop."""
    thread = VirtualThread()
    monkeypatch.setattr(inference_loop, "ThreadPoolExecutor", lambda *_, **__: thread)
    return thread


@pytest.mark.parametrize("start", [90, 106], ids=["too low", "too high"])
def test_a_fetch_from_another_offset_reopens_the_partition(pipeline: HangingPipeline, start: int) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, metrics: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        worker.accept(task, Fetched(100, records(100, 5), 105))
        await until(lambda: broker.committed == [105])
        worker.accept(task, Fetched(start, records(start, 30), start + 30))
        await until(lambda: worker.fetchable().get(0, task) is not task)
        assert broker.committed == [105]
        assert broker.num_opened == 2
        labels = {"reason": "rewound"}
        assert metrics.registry.get_sample_value("intentrec_partitions_reopened_total", labels) == 1

    run_worker(pipeline, scenario, retries=at_once())


def test_a_partition_whose_inference_failed_is_counted_as_such() -> None:
    class Failing(HangingPipeline):
        def encode(self, *_: Any, **__: Any) -> list[PartitionResult]:
            raise RuntimeError("the search failed")

    async def scenario(worker: PlaysWorker, broker: Broker, metrics: Metrics) -> None:
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.num_opened == 2)
        reopened = {
            reason: metrics.registry.get_sample_value("intentrec_partitions_reopened_total", {"reason": reason})
            for reason in ReopenReason
        }
        assert reopened == dict.fromkeys(ReopenReason, 0) | {ReopenReason.INFERENCE_FAILED: 1}

    run_worker(Failing(), scenario, retries=at_once())


def test_plays_of_a_failed_checkpoint_are_counted_when_they_are_committed(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, metrics: Metrics) -> None:
        def applied() -> float | None:
            return metrics.registry.get_sample_value("intentrec_plays_total", {"outcome": "applied"})

        pipeline.go_on.set()
        broker.num_failures = 2
        for num_opened in range(1, 4):
            await until(lambda num=num_opened: broker.num_opened == num and worker.fetchable())
            assert applied() == 0
            worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.committed)
        assert applied() == 5

    run_worker(pipeline, scenario, retries=at_once())


def test_the_last_checkpoint_does_not_pass_plays_whose_inference_failed(virtual_thread: VirtualThread) -> None:
    class Failing(HangingPipeline):
        """Its first micro-batch raises, the next one succeeds."""

        num_batches = 0

        def encode(
            self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
        ) -> list[PartitionResult]:
            results = super().encode(batches, coalesced=coalesced)
            self.num_batches += 1
            if self.num_batches == 1:
                raise RuntimeError("the search failed")
            return results

    pipeline = Failing()
    pipeline.go_on.set()

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        virtual_thread.next_s = lambda: 0.1
        task = worker.fetchable()[0]
        worker.accept(task, Fetched(100, records(100, 5), 105))
        await asyncio.sleep(0.01)  # the first micro-batch has its slot
        worker.accept(task, Fetched(105, records(105, 5), 110))
        await asyncio.sleep(0.01)
        assert pipeline.num_batches == 0, "both are in inference when the partition is revoked"
        await worker.partitions_revoked({0})
        await asyncio.sleep(30)
        assert pipeline.num_batches == 2
        assert broker.committed == []

    run_worker(pipeline, scenario, loop=VirtualLoop())


def test_a_lost_device_ends_the_process_and_reopens_no_partition(virtual_thread: VirtualThread) -> None:
    class Lost(HangingPipeline):
        def encode(self, *_: Any, **__: Any) -> list[PartitionResult]:
            self.began.set()
            raise DeviceLost("the device cuda:0 is lost")

    pipeline = Lost()

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        assert isinstance(await worker.fatal, DeviceLost)
        assert not worker.ready
        await asyncio.sleep(30)
        assert (broker.num_opened, broker.committed) == (1, [])

    run_worker(pipeline, scenario, loop=VirtualLoop())


def test_a_failed_opening_closes_nothing_of_the_next_task(
    pipeline: HangingPipeline, virtual_thread: VirtualThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    openings = 0

    async def open_(broker: Broker) -> None:
        nonlocal openings
        openings += 1
        if openings == 2:
            await asyncio.sleep(0.4)  # until the retry of the previous task waits for its turn
            raise BrokerError("the opening failed")

    monkeypatch.setattr(Broker, "open", open_)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        broker.num_failures = 1
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: not worker.fetchable())
        await worker.partitions_revoked({0})
        worker.partitions_assigned({0})
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.committed == [105])
        await asyncio.sleep(30)  # the failed opening may still be closing
        assert openings == 3
        assert worker.fetchable()
        assert pipeline.opened == [0]

    run_worker(pipeline, scenario, loop=VirtualLoop())


def test_plays_that_waited_for_inference_are_not_passed_to_the_next_task(
    pipeline: HangingPipeline, virtual_thread: VirtualThread
) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        worker.accept(task, Fetched(100, records(100, 5), 105))  # waits for more plays, or the deadline
        worker.accept(task, Fetched(90, records(90, 5), 95))  # fails the task
        await until(lambda: worker.fetchable().get(0, task) is not task)
        assert not pipeline.began.is_set(), "the next task opened before the deadline"
        await asyncio.sleep(10)
        assert broker.committed == []
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 3), 103))
        await until(lambda: broker.committed)
        assert broker.committed == [103]

    run_worker(pipeline, scenario, loop=VirtualLoop(), retries=at_once(), batch_deadline_ms=1000)


@pytest.mark.parametrize("num_failures", [MAX_FAILURES - 1, MAX_FAILURES])
def test_the_tenth_failure_in_a_row_ends_the_process(pipeline: HangingPipeline, num_failures: int) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        broker.num_failures = num_failures
        for num_opened in range(1, min(num_failures + 1, MAX_FAILURES) + 1):
            await until(lambda num=num_opened: broker.num_opened == num and worker.fetchable())
            worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        if num_failures < MAX_FAILURES:
            await until(lambda: broker.committed)
            assert not worker.fatal.done()
        else:
            assert "failed 10 times without progress" in str(await worker.fatal)
            assert not broker.committed

    run_worker(pipeline, scenario, retries=at_once())


def test_failures_with_a_quiet_time_in_between_do_not_end_the_process(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        broker.num_failures = num_failures = 15  # more than end the process when they come in a row
        for num_opened in range(1, num_failures + 2):
            await until(lambda num=num_opened: broker.num_opened == num and worker.fetchable())
            worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.committed)
        assert not worker.fatal.done()

    run_worker(pipeline, scenario, retries=at_once(quiet_s=0.0))


def test_work_that_a_client_library_cancelled_ends_the_process(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leak(broker: Broker, partition: int) -> Membership:
        raise asyncio.CancelledError

    monkeypatch.setattr(Broker, "membership", leak)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        broker.num_failures = 1
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        error = await worker.fatal
        assert "cancelled from within" in str(error)

    run_worker(pipeline, scenario, retries=at_once())


@pytest.mark.parametrize("call", ["restore", "commit"])
def test_a_cancellation_out_of_a_client_library_leaves_no_partition_closed(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    leaks = iter([True])

    async def leak(broker: Broker, given: Any) -> Any:
        if next(leaks, False):
            raise asyncio.CancelledError
        return await original(broker, given)

    original = getattr(Broker, call)
    monkeypatch.setattr(Broker, call, lambda self, given: leak(self, given))

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        while not broker.committed:
            await until(worker.fetchable)
            task = worker.fetchable()[0]
            worker.accept(task, Fetched(100, records(100, 5), 105))
            await until(lambda task=task: broker.committed or worker.fetchable().get(0) is not task)
        assert broker.num_opened == 2

    run_worker(pipeline, scenario, retries=at_once())


@pytest.mark.parametrize(("num_replayed", "expected"), [(0, {0}), (3, {0}), (5, set())])
def test_a_drain_names_partitions_whose_processed_plays_are_not_replayed_yet(
    pipeline: HangingPipeline, num_replayed: int, expected: set[int]
) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        broker.num_failures = 1
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.num_opened == 2 and worker.fetchable())
        if num_replayed:
            worker.accept(worker.fetchable()[0], Fetched(100, records(100, num_replayed), 100 + num_replayed))
            await until(lambda: broker.committed)
        assert await worker.drain() == expected

    run_worker(pipeline, scenario, retries=at_once())


@pytest.mark.parametrize(("num_failures", "expected"), [(0, set()), (1, {0})])
def test_a_drain_names_partitions_whose_last_checkpoint_fails(
    pipeline: HangingPipeline, num_failures: int, expected: set[int]
) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(pipeline.began.is_set)
        broker.num_failures = num_failures
        draining = asyncio.ensure_future(worker.drain())
        await asyncio.sleep(0)
        pipeline.go_on.set()
        assert await draining == expected

    run_worker(pipeline, scenario)


def test_a_drain_names_no_partition_whose_last_checkpoint_is_durable_but_was_not_acknowledged(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def commit(broker: Broker, checkpoint: Checkpoint) -> None:
        broker.committed.append(checkpoint.next_offset)
        raise BrokerError("the acknowledgement was lost")

    async def restore(broker: Broker, partition: int) -> Restored:
        fingerprint = "f" * 16
        markers = [Marker(num_partitions=1, next_offset=at, fingerprint=fingerprint) for at in broker.committed]
        return Restored({}, markers[-1] if markers else None, 0, 0, 0.0)

    async def source_facts(broker: Broker, partition: int) -> SourceFacts:
        committed = broker.committed[-1] if broker.committed else None
        return SourceFacts(committed=committed, beginning=100, end=1000, num_partitions=1)

    monkeypatch.setattr(Broker, "commit", commit)
    monkeypatch.setattr(Broker, "restore", restore)
    monkeypatch.setattr(Broker, "source_facts", source_facts)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.num_opened == 2 and worker.fetchable())
        assert worker.fetchable()[0].committed_offset == 105
        assert await worker.drain() == set()

    run_worker(pipeline, scenario, retries=at_once())


def test_plays_of_a_revoked_partition_are_the_next_owners(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        broker.num_failures = 1
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.num_opened == 2 and worker.fetchable())
        await worker.partitions_revoked({0})
        assert await worker.drain() == set()

    run_worker(pipeline, scenario, retries=at_once())


def test_the_lag_counts_unfetched_offsets_and_fetched_plays_but_no_control_records(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        assert worker.lag_plays(task, 160) == 60
        worker.accept(task, Fetched(100, records(100, 5), 150))  # and 45 offsets of control records and aborted plays
        assert worker.lag_plays(task, 160) == 10 + 5
        pipeline.go_on.set()
        await until(lambda: broker.committed == [105])
        assert worker.lag_plays(task, 150) == worker.lag_plays(task, 149) == 0

    run_worker(pipeline, scenario)
