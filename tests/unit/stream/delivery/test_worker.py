"""The worker: a revoke while inference hangs, which fetches it accepts, what it bounds, and the order of its outputs."""

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
    """On virtual time: a micro-batch takes ten times the rebalance timeout."""
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
        assert broker.num_opened == 1, "no task is opened before the previous one has ended"
        await until(worker.fetchable)
        assert broker.num_opened == 2
        assert pipeline.opened == [0]
        assert broker.committed == [], "results of a task that has ended are not committed"

    run_worker(pipeline, scenario, loop=loop)


def test_a_worker_says_that_it_is_ready_once_it_has_joined(
    pipeline: HangingPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        worker.joined = False
        await worker.partitions_revoked({0})  # Faust revokes before the first assignment
        assert "ready" not in caplog.text
        worker.partitions_assigned({0})
        await until(lambda: "ready: all 1 assigned partitions are served" in caplog.text)

    with caplog.at_level("INFO"):
        run_worker(pipeline, scenario)


def test_an_overloaded_worker_coalesces_all_waiting_plays_but_never_less_than_a_full_micro_batch(
    pipeline: HangingPipeline,
) -> None:
    pipeline.go_on.set()

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        offset = 100
        for lag, num in ((100_000, 300), (100_001, 300), (100_001, 200), (60_000, 300), (50_000, 300)):
            worker.overload.saw_lag(lag)
            worker.accept(task, Fetched(offset, records(offset, num), offset + num))
            offset += num
            await until(lambda end=offset: broker.committed and broker.committed[-1] == end)
        assert pipeline.taken == [
            (256, False), (44, False), (300, True), (200, False), (300, True), (256, False), (44, False),
        ]  # fmt: skip

    run_worker(pipeline, scenario)


def _output(record: SourceRecord) -> OutputRecord:
    return OutputRecord(OutputKind.INTENT, b"ann", b"{", (), record.offset, 0)


class QueueingPipeline(HangingPipeline):
    """Queues its first micro-batch for prefill, in ``num_chunks`` chunks; each ``answer.release()`` answers one of them."""

    def __init__(self, num_chunks: int) -> None:
        super().__init__()
        self.go_on.set()
        self._num_chunks, self.answer = num_chunks, threading.Semaphore(0)
        self._queued_outputs: list[OutputRecord] = []

    def encode(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        results = super().encode(batches, coalesced=coalesced)
        outputs = [_output(record) for records in batches.values() for record in records]
        if self._num_chunks:
            self._queued_outputs = outputs
        else:
            results = [replace(results[0], outputs=outputs)]
        self.num_queued_chunks, self._num_chunks = self.num_queued_chunks + self._num_chunks, 0
        return results

    def encode_prefill(self) -> list[PartitionResult]:
        assert self.answer.acquire(timeout=20)
        self.num_queued_chunks -= 1
        outputs, self._queued_outputs = self._queued_outputs, []
        return [PartitionResult(0, 0, 0, outputs)]


def test_outputs_are_published_in_the_order_in_which_they_were_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, published = QueueingPipeline(1), []
    monkeypatch.setattr(
        PlaysWorker, "publish", lambda _, task, outputs: published.extend(output.source_offset for output in outputs)
    )

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        for offset in (100, 101):
            worker.accept(task, Fetched(offset, records(offset, 1), offset + 1))
            await until(lambda end=offset: pipeline.num_queued_chunks)
            await asyncio.sleep(0.1)  # the second micro-batch waits for the chunk that is being encoded
        pipeline.answer.release()
        await keep_the_loop_busy(0.3)  # both are done before the loop runs again
        await until(lambda: broker.committed and broker.committed[-1] == 102)
        assert published == [100, 101]

    run_worker(pipeline, scenario)


class Failing(HangingPipeline):
    """Its first micro-batch raises once ``go_on`` is set."""

    def encode(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        results = super().encode(batches, coalesced=coalesced)
        if len(self.taken) == 1:
            raise RuntimeError("inference failed")
        return [replace(results[0], outputs=[_output(r) for records in batches.values() for r in records])]


def test_nothing_is_sent_after_a_micro_batch_that_failed_although_the_next_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, sent = Failing(), []

    def publish(_: object, task: PartitionTask, outputs: Sequence[OutputRecord]) -> None:
        if not task.output_stream.ended:
            sent.extend(output.source_offset for output in outputs)

    monkeypatch.setattr(PlaysWorker, "publish", publish)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        worker.accept(task, Fetched(100, records(100, 1), 101))
        await asyncio.to_thread(pipeline.began.wait, 30)
        worker.accept(task, Fetched(101, records(101, 1), 102))
        await asyncio.sleep(0.1)  # the second micro-batch waits for the first
        pipeline.go_on.set()
        await keep_the_loop_busy(0.3)  # both are done before the loop runs again
        await until(lambda: broker.num_opened == 2)
        assert len(pipeline.taken) == 2
        assert sent == []

    run_worker(pipeline, scenario)


class SlowWriting(HangingPipeline):
    """Answers its first micro-batch once ``write_on`` is set, or raises then; answers the others at once."""

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


def test_the_next_micro_batch_is_encoded_while_one_is_written_and_both_are_published_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, published = SlowWriting(), []
    monkeypatch.setattr(
        PlaysWorker, "publish", lambda _, task, outputs: published.extend(output.source_offset for output in outputs)
    )

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        for num_taken, offset in enumerate((100, 101), 1):
            worker.accept(task, Fetched(offset, records(offset, 1), offset + 1))
            await until(lambda num=num_taken: len(pipeline.taken) == num)
        await asyncio.sleep(0.1)
        assert (published, broker.committed) == ([], [])
        pipeline.write_on.set()
        await until(lambda: broker.committed and broker.committed[-1] == 102)
        assert published == [100, 101]

    run_worker(pipeline, scenario)


def test_nothing_is_sent_after_a_micro_batch_that_could_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, sent = SlowWriting(raises=True), []

    def publish(_: object, task: PartitionTask, outputs: Sequence[OutputRecord]) -> None:
        if not task.output_stream.ended:
            sent.extend(output.source_offset for output in outputs)

    monkeypatch.setattr(PlaysWorker, "publish", publish)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        for num_taken, offset in enumerate((100, 101), 1):
            worker.accept(task, Fetched(offset, records(offset, 1), offset + 1))
            await until(lambda num=num_taken: len(pipeline.taken) == num)
        pipeline.write_on.set()
        await until(lambda: broker.num_opened == 2)
        assert (sent, broker.committed) == ([], [])

    run_worker(pipeline, scenario)


def test_no_micro_batch_is_taken_while_the_prefill_queue_is_full() -> None:
    pipeline = QueueingPipeline(MAX_PREFILL_CHUNKS + 1)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        worker.accept(task, Fetched(100, records(100, 5), 105))
        await until(lambda: pipeline.num_queued_chunks > MAX_PREFILL_CHUNKS)
        await asyncio.sleep(0.1)  # the loop has seen it
        worker.accept(task, Fetched(105, records(105, 5), 110))
        pipeline.answer.release()
        await until(lambda: pipeline.num_queued_chunks == MAX_PREFILL_CHUNKS)
        await asyncio.sleep(0.1)
        assert len(pipeline.taken) == 1
        assert broker.committed == [], "the checkpoint waits for queued answers"
        pipeline.answer.release(2)  # the first one makes room in the queue; the second is on the thread already
        await until(lambda: len(pipeline.taken) == 2)
        assert broker.committed == []
        pipeline.answer.release(MAX_PREFILL_CHUNKS)
        await until(lambda: broker.committed and broker.committed[-1] == 110)

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


def test_fetches_without_a_gap_between_them_are_accepted_whatever_offsets_have_no_record(
    pipeline: HangingPipeline,
) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        task = worker.fetchable()[0]
        worker.accept(task, Fetched(100, records(100, 5), 107))  # 105 and 106: a control record, an aborted play
        worker.accept(task, Fetched(107, [], 109))
        worker.accept(task, Fetched(109, records(111, 2), 113))
        await until(lambda: broker.committed and broker.committed[-1] == 113)
        assert broker.num_opened == 1

    run_worker(pipeline, scenario)


def test_had_capacity_is_false_while_fetching_waits_and_once_after(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        assert worker.had_capacity()
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5000), 5100))
        waiting = asyncio.ensure_future(worker.wait_for_capacity())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert not worker.had_capacity()
        assert not worker.had_capacity(), "it is still waiting"
        pipeline.go_on.set()
        await waiting
        assert not worker.had_capacity(), "it has waited since the last call"
        assert worker.had_capacity()

    run_worker(pipeline, scenario)


def test_plays_in_flight_are_bounded_although_commits_hang(
    pipeline: HangingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_again = asyncio.Event()

    async def hang(broker: Broker, checkpoint: object) -> None:
        await commit_again.wait()

    monkeypatch.setattr(Broker, "commit", hang)

    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        pipeline.go_on.set()
        await until(worker.fetchable)
        task, num_fetched = worker.fetchable()[0], 0
        with contextlib.suppress(TimeoutError):
            while num_fetched < 20_000:
                async with asyncio.timeout(0.5):
                    await worker.wait_for_capacity()
                start = 100 + num_fetched
                worker.accept(task, Fetched(start, records(start, 100), start + 100))
                num_fetched += 100
                await asyncio.sleep(0)
        # Buffered plays have another bound; here every play was processed at once.
        assert num_fetched == 1100, "the bound, rounded up to one fetch"
        commit_again.set()
        await worker.wait_for_capacity()

    run_worker(pipeline, scenario, settings={"max_uncommitted": 1024})


def test_plays_in_inference_at_a_revoke_are_in_the_last_checkpoint(pipeline: HangingPipeline) -> None:
    async def scenario(worker: PlaysWorker, broker: Broker, _: Metrics) -> None:
        await until(worker.fetchable)
        worker.accept(worker.fetchable()[0], Fetched(100, records(100, 5), 105))
        await asyncio.to_thread(pipeline.began.wait, 30)
        revoked = asyncio.ensure_future(worker.partitions_revoked({0}))
        await asyncio.sleep(0.05)
        pipeline.go_on.set()
        await revoked
        assert broker.committed == [105], "the next owner replays nothing"

    run_worker(pipeline, scenario)
