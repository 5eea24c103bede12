"""Runs micro-batches: takes them from the buffer to the inference thread, and collects their results in order.

    buffer ──due──▶ a free slot ──▶ inference thread ──▶ responder thread ─▶ outputs, at once
                                        ▲   └─ queued for prefill ─┐     └──▶ results, batch by batch, in the order taken,
                                        └───── chunk by chunk ◀────┘          each once all of its outputs are published

The event loop never runs inference, and the inference thread never touches the broker. Everything else that needs the pipeline
(opening and closing partitions, swapping bundles) queues for the inference thread, and so happens between two micro-batches.

Encoding and searching release Python's lock: while one micro-batch is answered, the next one is encoded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from intentrec_core.errors import DeviceLost, EngineError

if TYPE_CHECKING:
    from intentrec_core.history.history import History
    from stream.delivery.partition import PartitionTask
    from stream.delivery.play_buffer import PlayBuffer
    from stream.kafka.publisher import Receipt
    from stream.wire.records import OutputRecord, PartitionResult, SourceRecord

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: One micro-batch in inference and one queued after it: the thread never waits for the loop, and more would only add latency.
NUM_SLOTS = 2
#: Prefill chunks in the queue: a second or two of encoding, which a revoke and the end of the process have to wait for. With
#: more, no micro-batch is taken until a chunk is answered, and warm members no longer overtake cold ones.
MAX_PREFILL_CHUNKS = 16
#: With this many chunks, members are cold: an overloaded worker must not take thousands of plays into one micro-batch then.
_MANY_ARE_COLD = 4

_EncodedT = TypeVar("_EncodedT")


class PlaysPipeline(Protocol[_EncodedT]):
    """The part of stream.pipeline.pipeline.Pipeline that delivery needs. All of it but ``respond`` runs on the inference thread.

    ``_EncodedT`` is what the pipeline passes from one thread to the other; delivery does not look into it.
    """

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        """Takes a restored state."""
        ...

    def close_partition(self, partition: int) -> None:
        """Drops a state."""
        ...

    def encode(self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False) -> _EncodedT:
        """Folds and encodes plays; with ``coalesced`` only each member's last one is answered. Some answers may be queued."""
        ...

    @property
    def num_queued_chunks(self) -> int:
        """Number of queued prefill chunks."""
        ...

    def encode_prefill(self) -> _EncodedT:
        """Encodes the oldest queued chunk: outputs and counts, and no records."""
        ...

    def respond(self, encoded: _EncodedT) -> list[PartitionResult]:
        """Answers what was encoded, on the responder thread; results are in source order."""
        ...


class ResultSink(Protocol):
    """Where results go: the worker, as the inference loop sees it. All of it runs on the event loop."""

    def coalesces(self) -> bool:
        """Whether the next micro-batch takes all waiting plays, and is coalesced."""
        ...

    def task_of(self, partition: int) -> PartitionTask | None:
        """The task that a partition's plays belong to now."""
        ...

    def batch_taken(self) -> None:
        """A micro-batch left the buffer."""
        ...

    def publish(self, task: PartitionTask, outputs: Sequence[OutputRecord]) -> Receipt | None:
        """Publishes outputs; None where they wait for the task's transaction instead."""
        ...

    def completed(self, task: PartitionTask, result: PartitionResult, receipts: Sequence[Receipt]) -> None:
        """All outputs of a micro-batch were published; each of its results comes here, in source order."""
        ...

    def failed(self, task: PartitionTask, error: EngineError) -> None:
        """A micro-batch with plays of this task raised."""
        ...


@dataclass(frozen=True, slots=True)
class _Processed:
    """The results of a micro-batch, how many chunks of it were queued, and what it raised."""

    results: list[PartitionResult]
    num_queued: int
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class _MicroBatch:
    """A micro-batch between the buffer and the sink: its tasks, its results and receipts so far, and its queued chunks."""

    tasks: dict[int, PartitionTask]
    results: list[PartitionResult] = field(default_factory=list)
    receipts: dict[int, list[Receipt]] = field(default_factory=dict)
    num_queued: int = 0
    has_failed: bool = False
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class _Job:
    """Work on the threads: a micro-batch, or one of its queued chunks."""

    batch: _MicroBatch
    processed: asyncio.Future[_Processed]
    is_chunk: bool = False


class InferenceLoop(Generic[_EncodedT]):
    """Owned by the event loop; owns the inference thread and the responder thread."""

    def __init__(self, buffer: PlayBuffer, pipeline: PlaysPipeline[_EncodedT], sink: ResultSink) -> None:
        self._buffer = buffer
        self._pipeline = pipeline
        self._sink = sink
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._responder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="responder")
        self._slots = asyncio.Semaphore(NUM_SLOTS)
        #: In the inference thread's order, in which outputs of a member must be published.
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._with_chunks: deque[_MicroBatch] = deque()
        self._chunk_is_on_thread = False
        self._prefill_has_capacity = asyncio.Event()
        self._prefill_has_capacity.set()
        self._in_order: deque[_MicroBatch] = deque()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._submit(), name="submit micro-batches")
            group.create_task(self._collect(), name="collect results")

    async def on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Runs a function on the inference thread, between two micro-batches; also when the caller is cancelled meanwhile."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, function, *args))

    def stop(self) -> None:
        """Stops the threads without waiting for them: they may hang, and the process is about to end."""
        for thread in (self._thread, self._responder):
            thread.shutdown(wait=False, cancel_futures=True)

    async def _submit(self) -> None:
        while True:
            await self._buffer.wait_until_due()
            await self._slots.acquire()
            await self._prefill_has_capacity.wait()
            coalesced = self._sink.coalesces()
            taken = self._buffer.take(everything=coalesced and self._pipeline.num_queued_chunks < _MANY_ARE_COLD)
            tasks = {partition: task for partition in taken if (task := self._sink.task_of(partition))}
            batch = {partition: taken[partition] for partition in tasks}
            self._sink.batch_taken()
            if not batch:
                self._slots.release()
                continue
            for task in tasks.values():
                task.begin_inference()
            processed = self._on_both_threads(partial(self._pipeline.encode, batch, coalesced=coalesced))
            self._jobs.put_nowait(_Job(_MicroBatch(tasks), processed))

    def _on_both_threads(self, encode: Callable[[], _EncodedT]) -> asyncio.Future[_Processed]:
        """Encodes on the inference thread and answers on the responder thread; both in the order of these calls."""
        processed: Future[_Processed] = Future()
        self._thread.submit(self._encode, encode, processed)
        return asyncio.wrap_future(processed)

    def _encode(self, encode: Callable[[], _EncodedT], processed: Future[_Processed]) -> None:
        """Runs on the inference thread. A micro-batch that raised may have queued chunks too, and they are counted."""
        num_before = self._pipeline.num_queued_chunks
        encoded, error = None, None
        try:
            encoded = encode()
        except Exception as raised:  # passed on with the count
            error = raised
        num_queued = max(0, self._pipeline.num_queued_chunks - num_before)  # a chunk that is encoded leaves the queue
        self._responder.submit(self._respond, encoded, error, num_queued, processed)

    def _respond(
        self, encoded: _EncodedT | None, error: Exception | None, num_queued: int, processed: Future[_Processed]
    ) -> None:
        """Runs on the responder thread. A micro-batch that raised takes its turn here too."""
        results: list[PartitionResult] = []
        try:
            if encoded is not None:
                results = self._pipeline.respond(encoded)
        except Exception as raised:  # passed on
            error = raised
        if processed.set_running_or_notify_cancel():
            processed.set_result(_Processed(results, num_queued, error))

    async def _collect(self) -> None:
        while True:
            job = await self._jobs.get()
            batch = job.batch
            if not job.is_chunk:
                self._in_order.append(batch)
            processed = await job.processed
            if job.is_chunk:
                self._chunk_is_on_thread = False
                batch.num_queued -= 1
            else:
                batch.num_queued = processed.num_queued
                self._slots.release()
                if batch.num_queued:
                    self._with_chunks.append(batch)
            if processed.error is not None:
                self._failed(batch, processed.error)
            self._publish(batch, processed.results)
            if not batch.num_queued:
                self._done(batch)
            self._update_prefill_capacity()
            self._encode_next_chunk()

    def _encode_next_chunk(self) -> None:
        """One chunk at a time goes to the thread, so that micro-batches are encoded in between."""
        while self._with_chunks and not self._with_chunks[0].num_queued:
            self._with_chunks.popleft()
        if self._with_chunks and not self._chunk_is_on_thread:
            self._chunk_is_on_thread = True
            processed = self._on_both_threads(self._pipeline.encode_prefill)
            self._jobs.put_nowait(_Job(self._with_chunks[0], processed, is_chunk=True))

    def _update_prefill_capacity(self) -> None:
        if self._pipeline.num_queued_chunks < MAX_PREFILL_CHUNKS:
            self._prefill_has_capacity.set()
        else:
            self._prefill_has_capacity.clear()

    def _publish(self, batch: _MicroBatch, results: Sequence[PartitionResult]) -> None:
        for result in results:
            receipt = self._sink.publish(batch.tasks[result.partition], result.outputs)
            if receipt is not None:
                batch.receipts.setdefault(result.partition, []).append(receipt)
        if not batch.has_failed:
            batch.results += results

    def _failed(self, batch: _MicroBatch, error: Exception) -> None:
        # The pipeline answers every play or dead-letters it. If it raises, what it did to its state is unknown.
        logger.error("inference failed", exc_info=error)
        batch.has_failed = True
        batch.results.clear()
        failure = error if isinstance(error, DeviceLost) else EngineError(f"inference failed: {error!r}")
        for task in batch.tasks.values():
            self._sink.failed(task, failure)

    def _done(self, batch: _MicroBatch) -> None:
        """All outputs of a micro-batch were published: it goes into the next checkpoint, after the batches taken before it."""
        batch.is_done = True
        while self._in_order and self._in_order[0].is_done:
            first = self._in_order.popleft()
            for result in first.results:
                self._sink.completed(first.tasks[result.partition], result, first.receipts.pop(result.partition, []))
            for task in first.tasks.values():
                task.end_inference()
