"""The inference loop: results of a micro-batch and of its queued chunks reach the sink complete and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from stream.delivery.inference_loop import InferenceLoop
from stream.delivery.partition import PartitionTask, TaskPhase
from stream.delivery.play_buffer import PlayBuffer
from stream.wire.records import OutputRecord, PartitionResult

NUM_CHUNKS = 2


class ColdPipeline:
    """The answers of its first micro-batch are queued as two chunks; that micro-batch may raise as well."""

    def __init__(self, *, raises: bool = False) -> None:
        self.num_queued_chunks = 0
        self._num_batches, self._raises = 0, raises

    def encode(self, batches: Mapping[int, Sequence[Any]], *, coalesced: bool = False) -> list[PartitionResult]:
        self._num_batches += 1
        if self._num_batches == 1:
            self.num_queued_chunks += NUM_CHUNKS
            if self._raises:
                raise RuntimeError("inference failed")
        return [PartitionResult(0, batches[0][-1].offset + 1, len(batches[0]))]

    def encode_prefill(self) -> list[PartitionResult]:
        self.num_queued_chunks -= 1
        return [PartitionResult(0, 1, 0)]

    def respond(self, encoded: list[PartitionResult]) -> list[PartitionResult]:
        return encoded


class RecordingSink:
    """Keeps what it gets; ``ended`` is set when the plays of both micro-batches have left inference."""

    def __init__(self) -> None:
        self.completed_results: list[tuple[int, int]] = []
        self.receipts: list[Any] = []
        self.num_failures = self._num_published = self._num_ended = 0
        self.ended = asyncio.Event()
        self._task: Any = SimpleNamespace(begin_inference=lambda: None, end_inference=self._end)

    def _end(self) -> None:
        self._num_ended += 1
        if self._num_ended == 2:
            self.ended.set()

    def coalesces(self) -> bool:
        return False

    def task_of(self, partition: int) -> PartitionTask:
        return self._task

    def batch_taken(self) -> None:
        pass

    def publish(self, task: PartitionTask, outputs: Sequence[OutputRecord]) -> Any:
        self._num_published += 1
        return self._num_published

    def completed(self, task: PartitionTask, result: PartitionResult, receipts: Sequence[Any]) -> None:
        self.completed_results.append((result.next_offset, result.num_records))
        self.receipts += receipts

    def failed(self, task: PartitionTask, error: Exception) -> None:
        self.num_failures += 1


def two_micro_batches(pipeline: ColdPipeline) -> RecordingSink:
    async def run() -> RecordingSink:
        buffer, sink = PlayBuffer(max_batch=1, deadline_s=0, clock=lambda: 0.0), RecordingSink()
        loop = InferenceLoop(buffer, pipeline, sink)
        working = asyncio.create_task(loop.run())
        records: Any = [[SimpleNamespace(offset=0)], [SimpleNamespace(offset=1)]]
        for record in records:
            buffer.add(0, record)
        async with asyncio.timeout(30):
            await sink.ended.wait()
        working.cancel()
        loop.stop()
        return sink

    return asyncio.run(run())


def test_a_micro_batch_is_complete_after_its_last_chunk_and_before_the_next_one() -> None:
    sink = two_micro_batches(ColdPipeline())
    assert sink.completed_results == [(1, 1), (1, 0), (1, 0), (2, 1)]
    assert sorted(sink.receipts) == [1, 2, 3, 4]


def test_nothing_of_a_micro_batch_that_raised_is_complete_not_even_its_chunks() -> None:
    sink = two_micro_batches(ColdPipeline(raises=True))
    assert (sink.num_failures, sink.completed_results) == (1, [(2, 1)])


def test_a_chunk_does_not_move_the_offset_of_the_next_checkpoint_back() -> None:
    async def run() -> None:
        unused: Any = None  # dependencies and owner: neither is used before a commit
        task = PartitionTask(0, unused, unused)
        task.phase = TaskPhase.READY
        for next_offset, num_records in ((3, 3), (7, 4), (3, 0)):
            task.add(PartitionResult(0, next_offset, num_records), [], in_transaction=False)
        assert (task._uncommitted.next_offset, task._uncommitted.num_plays) == (7, 7)

    asyncio.run(run())
