"""The worker's edges: a revoke that meets an inference which hangs, and fetches that do not follow one another."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from intentrec_core.errors import BrokerError, DeviceLost, IntentRecError, RecoveryTimeout
from stream import retries
from stream.closing import close_consumer
from stream.metrics import Metrics
from stream.partition import Membership
from stream.records import Fetched, PartitionResult, SourceRecord
from stream.recovery import Restored
from stream.worker import PlaysWorker
from tests.worker_bench import REBALANCE_TIMEOUT_S, Broker, HangingPipeline, records, run_worker, until


@pytest.fixture
def pipeline() -> Iterator[HangingPipeline]:
    made = HangingPipeline()
    yield made
    made.go_on.set()


def test_a_revoke_returns_by_its_deadline_although_inference_hangs(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
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
        await until(worker.fetchable)
        assert broker.num_opened == 2
        assert pipeline.opened == [0]
        assert broker.cuts == [], "what came out of a life that had ended is committed by nobody"

    run_worker(pipeline, scenario)


def test_an_overloaded_worker_coalesces_all_that_waits_and_what_is_no_full_micro_batch_never(
    pipeline: HangingPipeline,
) -> None:
    pipeline.go_on.set()

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        offset = 100
        for lag, num in ((100_000, 300), (100_001, 300), (100_001, 200), (60_000, 300), (50_000, 300)):
            worker.overload.saw_lag(lag)
            worker.accept(life, Fetched(offset, records(offset, num), offset + num))
            offset += num
            await until(lambda end=offset: broker.cuts and broker.cuts[-1] == end)  # type: ignore[misc]
        assert pipeline.taken == [
            (256, False), (44, False), (300, True), (200, False), (300, True), (256, False), (44, False),
        ]  # fmt: skip

    run_worker(pipeline, scenario)


def test_a_recovery_past_its_deadline_ends_the_process_although_inference_hangs(pipeline: HangingPipeline) -> None:
    async def never(partition: int) -> Restored:
        await asyncio.sleep(3600)
        raise AssertionError

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        hung = asyncio.ensure_future(worker.on_inference_thread(pipeline.process, {0: records(0, 1)}))
        error: IntentRecError = await worker.fatal
        assert isinstance(error, RecoveryTimeout)
        assert not hung.done()

    run_worker(pipeline, scenario, restore=never, recovery_deadline_s=0.05)


def test_fetches_that_follow_one_another_are_taken_whatever_offsets_are_missing(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, records(100, 5), 107))  # 105 and 106: a transaction's end, an aborted play
        worker.accept(life, Fetched(107, [], 109))
        worker.accept(life, Fetched(109, records(111, 2), 113))
        await until(lambda: broker.cuts and broker.cuts[-1] == 113)
        assert broker.num_opened == 1

    run_worker(pipeline, scenario)


@pytest.mark.parametrize("start", [90, 106], ids=["behind", "ahead"])
def test_a_fetcher_that_is_elsewhere_has_the_partition_opened_again(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    monkeypatch.setattr(retries, "_FIRST_RETRY_S", 0.0)

    async def scenario(worker: PlaysWorker, broker: Broker, metrics: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, records(100, 5), 105))
        await until(lambda: broker.cuts == [105])
        worker.accept(life, Fetched(start, records(start, 30), start + 30))
        await until(lambda: worker.fetchable().get(0, life) is not life)
        assert broker.cuts == [105]
        assert broker.num_opened == 2
        labels = {"reason": "rewound"}
        assert metrics.registry.get_sample_value("intentrec_partitions_reopened_total", labels) == 1

    run_worker(pipeline, scenario)


def test_who_watches_the_fetching_is_told_when_it_had_to_wait(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        assert worker.had_room()
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5000), 5100))
        waiting = asyncio.ensure_future(worker.wait_for_room())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert not worker.had_room()
        assert not worker.had_room(), "it waits still"
        pipeline.go_on.set()
        await waiting
        assert not worker.had_room(), "it waited since"
        assert worker.had_room()

    run_worker(pipeline, scenario)


def test_what_is_fetched_and_not_committed_is_bounded_whatever_becomes_of_the_commits(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_again = asyncio.Event()

    async def hang(broker: Broker, cut: object) -> None:
        await commit_again.wait()

    monkeypatch.setattr(Broker, "commit", hang)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        life, num_fetched = worker.fetchable()[0], 0
        with contextlib.suppress(TimeoutError):
            while num_fetched < 20_000:
                async with asyncio.timeout(0.5):
                    await worker.wait_for_room()
                start = 100 + num_fetched
                worker.accept(life, Fetched(start, records(start, 100), start + 100))
                num_fetched += 100
                await asyncio.sleep(0)
        # What waits for inference has a bound of its own; everything here was processed at once.
        assert num_fetched == 1100, "the bound, rounded up to a fetch"
        commit_again.set()
        await worker.wait_for_room()

    run_worker(pipeline, scenario, settings={"max_uncommitted": 1024})


def test_plays_of_a_cut_that_failed_are_counted_when_they_are_committed(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_FIRST_RETRY_S", 0.0)

    async def scenario(worker: PlaysWorker, broker: Broker, metrics: Metrics) -> None:
        def applied() -> float | None:
            return metrics.registry.get_sample_value("intentrec_plays_total", {"outcome": "applied"})

        pipeline.go_on.set()
        broker.num_failures = 2
        for life in range(1, 4):
            await until(lambda life=life: broker.num_opened == life and worker.fetchable())  # type: ignore[misc]
            assert applied() == 0
            worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.cuts)
        assert applied() == 5

    run_worker(pipeline, scenario)


def test_plays_whose_inference_failed_are_not_passed_over_by_the_last_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(HangingPipeline):
        """Its first micro-batch raises, the one behind it is fine."""

        num_batches = 0

        def process(
            self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
        ) -> list[PartitionResult]:
            results = super().process(batches, coalesced=coalesced)
            self.num_batches += 1
            if self.num_batches == 1:
                raise RuntimeError("the search failed")
            return results

    pipeline = Failing()

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, records(100, 5), 105))
        await asyncio.to_thread(pipeline.began.wait, 30)
        worker.accept(life, Fetched(105, records(105, 5), 110))
        await asyncio.sleep(0.05)
        revoked = asyncio.ensure_future(worker.partitions_revoked({0}))
        await asyncio.sleep(0.05)
        pipeline.go_on.set()
        await revoked
        assert pipeline.num_batches == 2
        assert broker.cuts == []

    run_worker(pipeline, scenario)


def test_a_device_that_is_lost_ends_the_process_which_opens_nothing_again() -> None:
    class Lost(HangingPipeline):
        def process(self, *_: Any, **__: Any) -> list[PartitionResult]:
            self.began.set()
            raise DeviceLost("the device cuda:0 is lost")

    pipeline = Lost()

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        assert isinstance(await worker.fatal, DeviceLost)
        assert not worker.ready
        await asyncio.sleep(0.05)
        assert (broker.num_opened, broker.cuts) == (1, [])

    run_worker(pipeline, scenario)


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
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: not worker.fetchable())
        await worker.partitions_revoked({0})
        worker.partitions_assigned({0})
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.cuts == [105])
        await asyncio.sleep(0.5)  # whatever the failed opening still has to end
        assert openings == 3
        assert worker.fetchable()
        assert pipeline.opened == [0]

    run_worker(pipeline, scenario)


def test_what_waited_for_inference_is_not_taken_into_the_next_life(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_FIRST_RETRY_S", 0.0)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, records(100, 5), 105))  # waits for more plays, or the deadline
        worker.accept(life, Fetched(90, records(90, 5), 95))  # the life fails
        await until(lambda: worker.fetchable().get(0, life) is not life)
        assert not pipeline.began.is_set(), "the next life began before the deadline"
        await asyncio.sleep(1.5)
        assert broker.cuts == []
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 3), 103))
        await until(lambda: broker.cuts)
        assert broker.cuts == [103]

    run_worker(pipeline, scenario, batch_deadline_ms=1000)


def test_what_is_in_inference_when_a_partition_is_revoked_goes_into_its_last_cut(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await asyncio.to_thread(pipeline.began.wait, 30)
        revoked = asyncio.ensure_future(worker.partitions_revoked({0}))
        await asyncio.sleep(0.05)
        pipeline.go_on.set()
        await revoked
        assert broker.cuts == [105], "nothing is replayed by the next owner"

    run_worker(pipeline, scenario)


def test_work_that_a_client_library_cancelled_ends_the_process(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_FIRST_RETRY_S", 0.0)

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

    run_worker(pipeline, scenario)


def test_failures_with_a_quiet_time_in_between_end_nothing(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_FIRST_RETRY_S", 0.0)
    monkeypatch.setattr(retries, "QUIET_S", 0.0)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        broker.num_failures = num_failures = 15  # above what ends the process in a row
        for life in range(1, num_failures + 2):
            await until(lambda life=life: broker.num_opened == life and worker.fetchable())  # type: ignore[misc]
            worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await until(lambda: broker.cuts)
        assert not worker.fatal.done()

    run_worker(pipeline, scenario)


@pytest.mark.parametrize("call", ["restore", "commit"])
def test_a_cancellation_that_comes_out_of_a_client_library_leaves_no_partition_behind(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(retries, "_FIRST_RETRY_S", 0.0)
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
            await until(worker.fetchable)
            life = worker.fetchable()[0]
            worker.accept(life, Fetched(100, records(100, 5), 105))
            await until(lambda life=life: broker.cuts or worker.fetchable().get(0) is not life)  # type: ignore[misc]
        assert broker.num_opened == 2

    run_worker(pipeline, scenario)


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
