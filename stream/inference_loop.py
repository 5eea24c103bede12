"""From waiting plays to results: micro-batches go to the one inference thread, and come back in order.

    buffer ──due──▶ a free slot ──▶ inference thread (pipeline.process) ──▶ results, batch by batch, in the order taken

The event loop never runs inference, and the inference thread never touches the broker. What needs the pipeline otherwise (opening
and closing partitions, swapping bundles) queues up for the same thread, and so happens between two micro-batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from intentrec_core.history import History
    from stream.batcher import PlayBuffer
    from stream.partition import PartitionLife
    from stream.records import PartitionResult, SourceRecord

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: One micro-batch in inference, one behind it: the thread never waits for the loop, and latency gains nothing from more.
NUM_SLOTS = 2


class PlaysPipeline(Protocol):
    """The part of stream.pipeline.Pipeline that delivery needs; all of it runs on the inference thread."""

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        """Takes over a restored state."""
        ...

    def close_partition(self, partition: int) -> None:
        """Drops a state."""
        ...

    def process(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        """Folds and answers plays, ``coalesced`` only each member's last one; one result a partition."""
        ...


class InferenceLoop:
    """Owned by the event loop; owns the inference thread.

    ``life_of`` names the life a partition's plays belong to now, ``on_result`` takes what came of them, ``on_error`` is told
    of each life whose plays were in a micro-batch that raised. While ``is_overloaded`` a micro-batch takes all that waits, and is
    coalesced.
    """

    def __init__(
        self,
        buffer: PlayBuffer,
        pipeline: PlaysPipeline,
        *,
        is_overloaded: Callable[[], bool],
        life_of: Callable[[int], PartitionLife | None],
        on_taken: Callable[[], None],
        on_result: Callable[[PartitionLife, PartitionResult], None],
        on_error: Callable[[PartitionLife, Exception], None],
    ) -> None:
        self._buffer = buffer
        self._pipeline = pipeline
        self._is_overloaded = is_overloaded
        self._life_of = life_of
        self._on_taken = on_taken
        self._on_result = on_result
        self._on_error = on_error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self._slots = asyncio.Semaphore(NUM_SLOTS)
        self._submitted: asyncio.Queue[tuple[asyncio.Future[list[PartitionResult]], dict[int, PartitionLife]]]
        self._submitted = asyncio.Queue()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._submit(), name="submit micro-batches")
            group.create_task(self._collect(), name="collect results")

    async def on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Runs a function on the inference thread, between two micro-batches; also when the caller is cancelled meanwhile."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, function, *args))

    def stop(self) -> None:
        """Lets go of the thread without waiting for it: it may hang, and the process is about to end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _submit(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._buffer.wait_until_due()
            await self._slots.acquire()
            coalesced = self._is_overloaded()
            taken = self._buffer.take(everything=coalesced)
            lives = {partition: life for partition in taken if (life := self._life_of(partition))}
            batch = {partition: taken[partition] for partition in lives}
            self._on_taken()
            if not batch:
                self._slots.release()
                continue
            for life in lives.values():
                life.begin_inference()
            process = partial(self._pipeline.process, batch, coalesced=coalesced)
            self._submitted.put_nowait((loop.run_in_executor(self._thread, process), lives))

    async def _collect(self) -> None:
        while True:
            processed, lives = await self._submitted.get()
            try:
                for result in await processed:
                    self._on_result(lives[result.partition], result)
            except Exception as error:
                # The pipeline answers every play or dead-letters it. If it raises, what it did to its state is unknown.
                logger.exception("inference failed")
                for life in lives.values():
                    self._on_error(life, error)
            finally:
                for life in lives.values():
                    life.end_inference()
                self._slots.release()
