"""The worker's edges: a revoke that meets an inference which hangs, what it takes, what it bounds, what it counts as waiting."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from intentrec_core.errors import IntentRecError, RecoveryTimeout
from stream.delivery import inference_loop
from stream.delivery.inference_loop import MAX_PREFILL_CHUNKS
from stream.delivery.partition import PartitionTask
from stream.delivery.restore import Restored
from stream.delivery.worker import PlaysWorker
from stream.ops.metrics import Metrics
from stream.wire.records import Fetched, OutputKind, OutputRecord, PartitionResult, SourceRecord
from tests.property.virtual_time import VirtualLoop, VirtualThread
from tests.rigs.worker_bench import (
    REBALANCE_TIMEOUT_S,
    Broker,
    HangingPipeline,
    keep_the_loop_busy,
    records,
    run_worker,
    until,
)


@pytest.fixture
def pipeline() -> Iterator[HangingPipeline]:
    made = HangingPipeline()
    yield made
    made.go_on.set()


def test_a_revoke_returns_by_its_deadline_although_inference_hangs(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On virtual time, where a micro-batch takes ten times as long as a rebalance waits."""
    loop, thread = VirtualLoop(), VirtualThread()
    monkeypatch.setattr(inference_loop, "ThreadPoolExecutor", lambda *_, **__: thread)
    pipeline.go_on.set()

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        thread.next_s = lambda: 10 * REBALANCE_TIMEOUT_S
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await asyncio.sleep(0.1)
        thread.next_s = lambda: 0.0
        started_s = loop.time()
        await worker.partitions_revoked({0})
        assert loop.time() - started_s == pytest.approx(REBALANCE_TIMEOUT_S / 2)
        assert not worker.fetchable()
        worker.partitions_assigned({0})
        await asyncio.sleep(REBALANCE_TIMEOUT_S)
        assert broker.num_opened == 1, "nothing is opened while something of the last life is left"
        await until(worker.fetchable)
        assert broker.num_opened == 2
        assert pipeline.opened == [0]
        assert broker.cuts == [], "what came out of a life that had ended is committed by nobody"

    run_worker(pipeline, scenario, loop=loop)


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
            await until(lambda end=offset: broker.cuts and broker.cuts[-1] == end)
        assert pipeline.taken == [
            (256, False), (44, False), (300, True), (200, False), (300, True), (256, False), (44, False),
        ]  # fmt: skip

    run_worker(pipeline, scenario)


def _output(record: SourceRecord) -> OutputRecord:
    return OutputRecord(OutputKind.INTENT, b"ann", b"{", (), record.offset, 0)


class HoldingBack(HangingPipeline):
    """Its first micro-batch is held back in as many parts as given; each is answered when told."""

    def __init__(self, num_parts: int) -> None:
        super().__init__()
        self.go_on.set()
        self._num_parts, self.answer = num_parts, threading.Semaphore(0)
        self._held_outputs: list[OutputRecord] = []

    def encode(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        results = super().encode(batches, coalesced=coalesced)
        outputs = [_output(record) for records in batches.values() for record in records]
        if self._num_parts:
            self._held_outputs = outputs
        else:
            results = [replace(results[0], outputs=outputs)]
        self.num_queued, self._num_parts = self.num_queued + self._num_parts, 0
        return results

    def encode_prefill(self) -> list[PartitionResult]:
        assert self.answer.acquire(timeout=20)
        self.num_queued -= 1
        outputs, self._held_outputs = self._held_outputs, []
        return [PartitionResult(0, 0, 0, outputs)]


def test_outputs_are_given_out_in_the_order_in_which_the_thread_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, given_out = HoldingBack(1), []
    monkeypatch.setattr(
        PlaysWorker, "publish", lambda _, life, outputs: given_out.extend(output.source_offset for output in outputs)
    )

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        for offset in (100, 101):
            worker.accept(life, Fetched(offset, records(offset, 1), offset + 1))
            await until(lambda end=offset: pipeline.num_queued)
            await asyncio.sleep(0.1)  # the second one stands behind the part that is being answered
        pipeline.answer.release()
        await keep_the_loop_busy(0.3)  # both are done before it looks
        await until(lambda: broker.cuts and broker.cuts[-1] == 102)
        assert given_out == [100, 101]

    run_worker(pipeline, scenario)


class Failing(HangingPipeline):
    """Its first micro-batch raises when it is told to go on."""

    def encode(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        results = super().encode(batches, coalesced=coalesced)
        if len(self.taken) == 1:
            raise RuntimeError("inference failed")
        return [replace(results[0], outputs=[_output(r) for records in batches.values() for r in records])]


def test_nothing_is_sent_behind_a_micro_batch_that_failed_although_the_next_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, sent = Failing(), []

    def give_out(_: object, life: PartitionTask, outputs: Sequence[OutputRecord]) -> None:
        if not life.output_stream.ended:
            sent.extend(output.source_offset for output in outputs)

    monkeypatch.setattr(PlaysWorker, "publish", give_out)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, records(100, 1), 101))
        await asyncio.to_thread(pipeline.began.wait, 30)
        worker.accept(life, Fetched(101, records(101, 1), 102))
        await asyncio.sleep(0.1)  # the second one stands behind the first
        pipeline.go_on.set()
        await keep_the_loop_busy(0.3)  # both are done before it looks
        await until(lambda: broker.num_opened == 2)
        assert len(pipeline.taken) == 2
        assert sent == []

    run_worker(pipeline, scenario)


class SlowWriting(HangingPipeline):
    """Answering its first micro-batch hangs until it is told to go on, and may raise then; the others are answered at once."""

    def __init__(self, *, raises: bool = False) -> None:
        super().__init__()
        self.go_on.set()
        self.write_on, self._raises = threading.Event(), raises
        self._num_answered = 0

    def encode(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        results = super().encode(batches, coalesced=coalesced)
        return [replace(results[0], outputs=[_output(r) for records in batches.values() for r in records])]

    def respond(self, encoded: list[PartitionResult]) -> list[PartitionResult]:
        self._num_answered += 1
        if self._num_answered == 1:
            assert self.write_on.wait(20)
            if self._raises:
                raise RuntimeError("a label that cannot be written")
        return encoded


def test_the_next_micro_batch_is_in_inference_while_one_is_written_and_both_are_given_out_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, given_out = SlowWriting(), []
    monkeypatch.setattr(
        PlaysWorker, "publish", lambda _, life, outputs: given_out.extend(output.source_offset for output in outputs)
    )

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        for num_taken, offset in enumerate((100, 101), 1):
            worker.accept(life, Fetched(offset, records(offset, 1), offset + 1))
            await until(lambda num=num_taken: len(pipeline.taken) == num)
        await asyncio.sleep(0.1)
        assert (given_out, broker.cuts) == ([], [])
        pipeline.write_on.set()
        await until(lambda: broker.cuts and broker.cuts[-1] == 102)
        assert given_out == [100, 101]

    run_worker(pipeline, scenario)


def test_nothing_is_sent_behind_a_micro_batch_that_could_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, sent = SlowWriting(raises=True), []

    def give_out(_: object, life: PartitionTask, outputs: Sequence[OutputRecord]) -> None:
        if not life.output_stream.ended:
            sent.extend(output.source_offset for output in outputs)

    monkeypatch.setattr(PlaysWorker, "publish", give_out)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        for num_taken, offset in enumerate((100, 101), 1):
            worker.accept(life, Fetched(offset, records(offset, 1), offset + 1))
            await until(lambda num=num_taken: len(pipeline.taken) == num)
        pipeline.write_on.set()
        await until(lambda: broker.num_opened == 2)
        assert (sent, broker.cuts) == ([], [])

    run_worker(pipeline, scenario)


def test_no_micro_batch_is_taken_while_too_much_is_held_back() -> None:
    pipeline = HoldingBack(MAX_PREFILL_CHUNKS + 1)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        life = worker.fetchable()[0]
        worker.accept(life, Fetched(100, records(100, 5), 105))
        await until(lambda: pipeline.num_queued > MAX_PREFILL_CHUNKS)
        await asyncio.sleep(0.1)  # the loop has seen it
        worker.accept(life, Fetched(105, records(105, 5), 110))
        pipeline.answer.release()
        await until(lambda: pipeline.num_queued == MAX_PREFILL_CHUNKS)
        await asyncio.sleep(0.1)
        assert len(pipeline.taken) == 1
        assert broker.cuts == [], "a cut waits for what is held back"
        pipeline.answer.release(2)  # with the first of them there is room; the second was on the thread already
        await until(lambda: len(pipeline.taken) == 2)
        assert broker.cuts == []
        pipeline.answer.release(MAX_PREFILL_CHUNKS)
        await until(lambda: broker.cuts and broker.cuts[-1] == 110)

    run_worker(pipeline, scenario)


def test_a_recovery_past_its_deadline_ends_the_process_although_inference_hangs(pipeline: HangingPipeline) -> None:
    async def never(partition: int) -> Restored:
        await asyncio.sleep(3600)
        raise AssertionError

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        hung = asyncio.ensure_future(worker.on_inference_thread(pipeline.encode, {0: records(0, 1)}))
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


def test_who_watches_the_fetching_is_told_when_it_had_to_wait(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        assert worker.had_capacity()
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5000), 5100))
        waiting = asyncio.ensure_future(worker.wait_for_capacity())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert not worker.had_capacity()
        assert not worker.had_capacity(), "it waits still"
        pipeline.go_on.set()
        await waiting
        assert not worker.had_capacity(), "it waited since"
        assert worker.had_capacity()

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
                    await worker.wait_for_capacity()
                start = 100 + num_fetched
                worker.accept(life, Fetched(start, records(start, 100), start + 100))
                num_fetched += 100
                await asyncio.sleep(0)
        # What waits for inference has a bound of its own; everything here was processed at once.
        assert num_fetched == 1100, "the bound, rounded up to a fetch"
        commit_again.set()
        await worker.wait_for_capacity()

    run_worker(pipeline, scenario, settings={"max_uncommitted": 1024})


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
