"""From waiting plays to results: micro-batches go to the one inference thread, and come back in order.

    buffer ──due──▶ a free slot ──▶ inference thread ──▶ answering thread ─▶ outputs, at once
                                        ▲   └─ held back ─┐                └──▶ results, batch by batch, in the order taken,
                                        └─ part by part ◀─┘                     each once all of its outputs are given out

The event loop never runs inference, and the inference thread never touches the broker. What needs the pipeline otherwise (opening
and closing partitions, swapping bundles) queues up for the inference thread, and so happens between two micro-batches.

Encoding and searching let go of Python's lock: while one micro-batch is answered, the next one is encoded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from intentrec_core.errors import DeviceLost, EngineError

if TYPE_CHECKING:
    from intentrec_core.history.history import History
    from stream.delivery.partition import PartitionTask
    from stream.delivery.play_buffer import PlayBuffer
    from stream.kafka.publisher import Receipt
    from stream.wire.records import OutputRecord, PartitionResult, SourceRecord, Write

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: One micro-batch in inference, one behind it: the thread never waits for the loop, and latency gains nothing from more.
NUM_SLOTS = 2
#: Parts that are held back: a second or two of encoding, which a revoke and the end of the process have to wait for. Beyond, no
#: micro-batch is taken until one of them is answered, and nobody overtakes any more.
MAX_PREFILL_CHUNKS = 16
#: With so many waiting, members are cold: what an overloaded worker has waiting, thousands of plays, must not be taken at once.
_MANY_ARE_COLD = 4


class PlaysPipeline(Protocol):
    """The part of stream.pipeline.pipeline.Pipeline that delivery needs; all of it runs on the inference thread."""

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        """Takes over a restored state."""
        ...

    def close_partition(self, partition: int) -> None:
        """Drops a state."""
        ...

    def begin(self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False) -> Write:
        """Folds and answers plays, ``coalesced`` only each member's last one. Some answers may be held back.

        Returns what writes the others; results are in source order.
        """
        ...

    @property
    def num_queued(self) -> int:
        """How often :meth:`begin_prefill` has something to answer."""
        ...

    def begin_prefill(self) -> Write:
        """Answers the next of what was held back, oldest first: outputs and counts, and no records."""
        ...


@dataclass(frozen=True, slots=True)
class _Processed:
    """What came of a micro-batch at once, in how many parts the rest will come, and what it raised."""

    results: list[PartitionResult]
    num_queued: int
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class _Batch:
    """A micro-batch on its way: whose it is, what came of it, how many parts wait, and the receipts of what was given out."""

    tasks: dict[int, PartitionTask]
    results: list[PartitionResult] = field(default_factory=list)
    receipts: dict[int, list[Receipt]] = field(default_factory=dict)
    num_queued: int = 0
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class _Job:
    """What was given to the thread: a micro-batch, or a part of one that was held back."""

    batch: _Batch
    processed: asyncio.Future[_Processed]
    is_part: bool = False


class InferenceLoop:
    """Owned by the event loop; owns the inference thread and the one that answers.

    ``task_of`` names the task a partition's plays belong to now. ``on_outputs`` gives out what came of them, ``on_result`` takes
    a result whose outputs were all given out, with their receipts; ``on_error`` is told of each task whose plays were in a
    micro-batch that raised. While ``is_overloaded`` a micro-batch takes all that waits, and is coalesced.
    """

    def __init__(
        self,
        buffer: PlayBuffer,
        pipeline: PlaysPipeline,
        *,
        is_overloaded: Callable[[], bool],
        task_of: Callable[[int], PartitionTask | None],
        on_taken: Callable[[], None],
        on_outputs: Callable[[PartitionTask, Sequence[OutputRecord]], Receipt | None],
        on_result: Callable[[PartitionTask, PartitionResult, Sequence[Receipt]], None],
        on_error: Callable[[PartitionTask, EngineError], None],
    ) -> None:
        self._buffer = buffer
        self._pipeline = pipeline
        self._is_overloaded = is_overloaded
        self._task_of = task_of
        self._on_taken = on_taken
        self._on_outputs = on_outputs
        self._on_result = on_result
        self._on_error = on_error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._answers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")
        self._slots = asyncio.Semaphore(NUM_SLOTS)
        #: In the thread's order, which is the order in which outputs of a member must be given out.
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._holding: deque[_Batch] = deque()
        self._part_is_on_thread = False
        self._prefill_has_capacity = asyncio.Event()
        self._prefill_has_capacity.set()
        self._in_order: deque[_Batch] = deque()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._submit(), name="submit micro-batches")
            group.create_task(self._collect(), name="collect results")

    async def on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Runs a function on the inference thread, between two micro-batches; also when the caller is cancelled meanwhile."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, function, *args))

    def stop(self) -> None:
        """Lets go of the threads without waiting for them: they may hang, and the process is about to end."""
        for thread in (self._thread, self._answers):
            thread.shutdown(wait=False, cancel_futures=True)

    async def _submit(self) -> None:
        while True:
            await self._buffer.wait_until_due()
            await self._slots.acquire()
            await self._prefill_has_capacity.wait()
            coalesced = self._is_overloaded()
            taken = self._buffer.take(everything=coalesced and self._pipeline.num_queued < _MANY_ARE_COLD)
            tasks = {partition: task for partition in taken if (task := self._task_of(partition))}
            batch = {partition: taken[partition] for partition in tasks}
            self._on_taken()
            if not batch:
                self._slots.release()
                continue
            for task in tasks.values():
                task.begin_inference()
            processed = self._on_both_threads(partial(self._pipeline.begin, batch, coalesced=coalesced))
            self._jobs.put_nowait(_Job(_Batch(tasks), processed))

    def _on_both_threads(self, begin: Callable[[], Write]) -> asyncio.Future[_Processed]:
        """Begins on the inference thread and writes on the other one; both do so in the order of these calls."""
        processed: Future[_Processed] = Future()
        self._thread.submit(self._begin, begin, processed)
        return asyncio.wrap_future(processed)

    def _begin(self, begin: Callable[[], Write], processed: Future[_Processed]) -> None:
        """On the inference thread. Also of a micro-batch that raised parts may wait, and are counted."""
        num_before = self._pipeline.num_queued
        write, error = None, None
        try:
            write = begin()
        except Exception as raised:  # the caller's, with the count
            error = raised
        num_queued = max(0, self._pipeline.num_queued - num_before)  # a part that is answered waits no more
        self._answers.submit(_write, write, error, num_queued, processed)

    async def _collect(self) -> None:
        while True:
            job = await self._jobs.get()
            batch = job.batch
            if not job.is_part:
                self._in_order.append(batch)
            processed = await job.processed
            if job.is_part:
                self._part_is_on_thread = False
                batch.num_queued -= 1
            else:
                batch.results, batch.num_queued = processed.results, processed.num_queued
                self._slots.release()
            if processed.error is not None:
                self._failed(batch, processed.error)
            self._give_out(batch, processed.results)
            if job.is_part:
                self._add_to(batch, processed.results)
            elif batch.num_queued:
                self._holding.append(batch)
            if not batch.num_queued:
                self._done(batch)
            self._update_prefill_capacity()
            self._answer_next_part()

    def _answer_next_part(self) -> None:
        """One part at a time goes to the thread, so that micro-batches go in between."""
        while self._holding and not self._holding[0].num_queued:
            self._holding.popleft()
        if self._holding and not self._part_is_on_thread:
            self._part_is_on_thread = True
            processed = self._on_both_threads(self._pipeline.begin_prefill)
            self._jobs.put_nowait(_Job(self._holding[0], processed, is_part=True))

    def _update_prefill_capacity(self) -> None:
        if self._pipeline.num_queued < MAX_PREFILL_CHUNKS:
            self._prefill_has_capacity.set()
        else:
            self._prefill_has_capacity.clear()

    def _give_out(self, batch: _Batch, results: Sequence[PartitionResult]) -> None:
        for result in results:
            receipt = self._on_outputs(batch.tasks[result.partition], result.outputs)
            if receipt is not None:
                batch.receipts.setdefault(result.partition, []).append(receipt)

    def _add_to(self, batch: _Batch, parts: Sequence[PartitionResult]) -> None:
        newest = {result.partition: result for result in batch.results}
        for part in parts:
            result = newest.get(part.partition)
            if result is not None:  # it failed meanwhile
                result.take(part)

    def _failed(self, batch: _Batch, error: Exception) -> None:
        # The pipeline answers every play or dead-letters it. If it raises, what it did to its state is unknown.
        logger.error("inference failed", exc_info=error)
        batch.results.clear()
        failure = error if isinstance(error, DeviceLost) else EngineError(f"inference failed: {error!r}")
        for task in batch.tasks.values():
            self._on_error(task, failure)

    def _done(self, batch: _Batch) -> None:
        """All of a micro-batch was given out: it goes into the next checkpoint, behind those before it."""
        batch.is_done = True
        while self._in_order and self._in_order[0].is_done:
            first = self._in_order.popleft()
            for result in first.results:
                self._on_result(first.tasks[result.partition], result, first.receipts.pop(result.partition, []))
            for task in first.tasks.values():
                task.end_inference()


def _write(write: Write | None, error: Exception | None, num_queued: int, processed: Future[_Processed]) -> None:
    """On the answering thread. A micro-batch that raised takes its turn, too."""
    results: list[PartitionResult] = []
    try:
        if write is not None:
            results = write()
    except Exception as raised:  # the caller's
        error = raised
    if processed.set_running_or_notify_cancel():
        processed.set_result(_Processed(results, num_queued, error))
