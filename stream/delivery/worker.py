"""The worker's event-loop side: plays in from the transport, micro-batches to the inference thread, results into checkpoints.

    transport ──accept──▶ buffer ──micro-batch──▶ inference thread ──results──▶ publisher and the partition's next checkpoint
        ▲                                                                            │
        └──── wait_for_capacity: fetched and uncommitted plays are bounded ◀──committed──┘

It owns which task each partition has. Whatever fails, in whatever place, goes through ``_failed``: the task is abandoned, the
coordinator is asked whether the partition is still ours, and a new task is opened. What must not go on ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from intentrec_core.errors import BrokerError, DeviceLost, EngineError, Fenced, IntentRecError, StateError
from stream.delivery.in_flight import InFlight
from stream.delivery.inference_loop import InferenceLoop
from stream.delivery.overload import Overload
from stream.delivery.partition import Membership, PartitionTask, TaskDependencies
from stream.delivery.play_buffer import PlayBuffer
from stream.delivery.retries import MAX_FAILURES, Retries, pause_s
from stream.delivery.worker_metrics import WorkerMetrics
from stream.ops.liveness import WorkProgress

if TYPE_CHECKING:
    from stream.delivery.inference_loop import PlaysPipeline
    from stream.kafka.publisher import Publisher, Receipt
    from stream.ops.metrics import Metrics
    from stream.settings import Settings
    from stream.wire.records import Fetched, OutputRecord, PartitionResult

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: A restore takes memory twice over and most of the loop's time; more at once would only make all of them late.
_NUM_OPENING = 8
#: Of the rebalance timeout: the last checkpoint must be in before the group gives up on us and another owner fences it.
_REVOKE_SHARE = 0.5
#: No task of this process can do better: opening again would only fail again.
_FINAL = (StateError, DeviceLost)


class PlaysWorker:
    """Owned by the event loop. ``parts`` is called once with the worker's callbacks, and returns what tasks are made of."""

    def __init__(
        self,
        settings: Settings,
        pipeline: PlaysPipeline,
        metrics: Metrics,
        *,
        rebalance_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self.figures = WorkerMetrics(metrics)
        self._revoke_deadline_s = rebalance_timeout_s * _REVOKE_SHARE
        self._buffer = PlayBuffer(
            max_batch=settings.max_batch, deadline_s=settings.batch_deadline_ms / 1000, clock=clock
        )
        self._partition_tasks: dict[int, PartitionTask] = {}
        self.overload = Overload(settings.coalesce_above_lag, lambda: self._buffer.has_full_batch)
        self._inference = InferenceLoop(
            self._buffer,
            pipeline,
            is_overloaded=self.overload.coalesces,
            task_of=self._partition_tasks.get,
            on_taken=self._taken,
            on_outputs=self._give_out,
            on_result=self._processed,
            on_error=self._failed,
        )
        self._assigned: set[int] = set()
        self._turns: dict[int, asyncio.Lock] = {}
        self._retries = Retries(clock)
        self._in_flight = InFlight(max_plays=settings.max_uncommitted, max_bytes=settings.max_uncommitted_bytes)
        self._opening: dict[int, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._openings = asyncio.Semaphore(_NUM_OPENING)
        self._room, self._always_had_capacity = asyncio.Event(), True
        self._draining = False
        self._parts: TaskDependencies | None = None
        self._publisher: Publisher | None = None
        self.joined = False
        self.progress = WorkProgress(clock)
        self.fatal: asyncio.Future[IntentRecError] = asyncio.get_running_loop().create_future()

    def start(self, parts: TaskDependencies, publisher: Publisher | None) -> None:
        """Begins to take micro-batches to the inference thread. ``publisher`` is None where outputs go into the transaction."""
        self._parts, self._publisher = parts, publisher
        self._spawn(self._inference.run(), "inference")

    async def on_inference_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Runs a function between two micro-batches, on the thread that owns the pipeline."""
        return await self._inference.on_thread(function, *args)

    # --- the transport's side

    async def wait_for_capacity(self) -> None:
        """Returns when more plays may be fetched: the bound on memory, and on what a crash replays."""
        while self._draining or not self._has_capacity():
            self._always_had_capacity = False
            self._room.clear()
            await self._room.wait()

    def had_capacity(self) -> bool:
        """Whether nothing kept plays from being fetched since this was last asked."""
        had, self._always_had_capacity = self._always_had_capacity, self._has_capacity()
        return had

    def _has_capacity(self) -> bool:
        num_most = self._settings.max_batch * self._settings.max_buffered_batches
        return self._buffer.num_plays < num_most and self._in_flight.has_capacity

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that are ours."""
        return frozenset(self._assigned)

    def unopened(self) -> set[int]:
        """Partitions that are ours and have no task, not even one that is being opened."""
        return self._assigned - self._partition_tasks.keys()

    def fetchable(self) -> dict[int, PartitionTask]:
        """The tasks that are ready, by partition."""
        return {partition: task for partition, task in self._partition_tasks.items() if task.ready}

    def accept(self, task: PartitionTask, fetched: Fetched) -> None:
        """Takes what was fetched for a task: nothing of one that has ended, nothing twice, nothing behind a gap."""
        if self._partition_tasks.get(task.partition) is not task or not task.ready or self._draining:
            return
        if fetched.start != task.next_fetch:
            # Only we seek, but where the log has lost the offset (retention, a topic made anew) aiokafka goes on at its
            # beginning, and plays between would be skipped unseen. Opening again asks how far the log reaches.
            where = f"partition {task.partition} goes on at offset {fetched.start} instead of {task.next_fetch}"
            self._failed(task, EngineError(where))
            return
        task.next_fetch = fetched.end
        if fetched.records:
            self._in_flight.fetched(task, fetched)
            self._buffer.add(task.partition, fetched.records)
            self.figures.buffered(self._buffer.num_plays)
            self.progress.work_arrived(task.partition)

    def partitions_assigned(self, partitions: set[int]) -> None:
        """Opens what is newly ours, in the background."""
        self._assigned, self.joined = set(partitions), True
        self._count_partitions()
        for partition in partitions:
            self._spawn(self._open(partition), f"open partition {partition}")

    async def partitions_revoked(self, partitions: set[int]) -> None:
        """Closes partitions in good order, or leaves them to an end of their own at the deadline. Never raises."""
        self._assigned -= partitions
        tasks = [task for partition in partitions if (task := self._take_out(partition))]
        finishing = {self._spawn(self._finish(task), f"finish partition {task.partition}"): task for task in tasks}
        late = (await asyncio.wait(finishing, timeout=self._revoke_deadline_s))[1] if tasks else set()
        for finish in late:
            task = finishing[finish]
            logger.warning("partition %d did not close in time: its last plays will be replayed", task.partition)
            # Not waited for: a task's end closes its state on the inference thread, and that may be what hangs.
            finish.cancel()
            self._spawn(self._abandon(task), f"abandon partition {task.partition}")
        self._count_partitions()

    # --- tasks

    async def _open(self, partition: int) -> None:
        assert self._parts is not None
        async with self._turn(partition):
            if partition not in self._assigned or partition in self._partition_tasks or self._draining:
                return
            task = self._partition_tasks[partition] = PartitionTask(partition, self._parts)
            self._in_flight.begin(task)
            opening = self._opening[partition] = asyncio.ensure_future(self._open_in_turn(task))
            await asyncio.wait([opening])
            given_up = self._opening.pop(partition, None) is None
            error = BrokerError("the opening was cancelled from within") if opening.cancelled() else opening.exception()
            if error is not None:
                if not given_up:
                    self._failed(task, error)
                # Still in turn: its end must not close what the next task has opened.
                await task.abandon()
            self._count_partitions()

    async def _open_in_turn(self, task: PartitionTask) -> None:
        async with self._openings:
            await task.open()

    async def _finish(self, task: PartitionTask) -> None:
        """The last checkpoint of a task, then its end. What waits for inference is left for the next owner."""
        await self._stop_opening(task.partition)
        async with self._turn(task.partition):
            try:
                await task.finish()
            except Fenced as error:
                # Whoever fenced us took the partition before we gave it away: we had been declared dead.
                self._end_process(error)
            except Exception as error:
                logger.warning(
                    "last checkpoint of partition %d failed, its plays will be replayed: %r", task.partition, error
                )
            finally:
                self._settle(task)

    async def _abandon(self, task: PartitionTask) -> None:
        async with self._turn(task.partition):
            await task.abandon()
            self._settle(task)

    async def _stop_opening(self, partition: int) -> None:
        """A restore can take minutes; a partition that goes away does not wait for it."""
        opening = self._opening.pop(partition, None)
        if opening is not None and opening is not asyncio.current_task():
            opening.cancel()
            await asyncio.wait([opening])

    def _failed(self, task: PartitionTask, error: BaseException) -> None:
        """The one way back."""
        # Also a task that is being given up: its last checkpoint must not carry the offset past what failed.
        task.fail(error)
        if self._partition_tasks.get(task.partition) is not task:
            return
        self._take_out(task.partition)
        self._count_partitions()
        if isinstance(error, _FINAL):
            self._end_process(error)  # first, because abandoning waits for the inference thread, which may hang
        self._spawn(self._reopen(task, error), f"reopen partition {task.partition}")

    def _take_out(self, partition: int) -> PartitionTask | None:
        """A task begins to end: what waits for inference is left for the next one, or the next owner."""
        task = self._partition_tasks.pop(partition, None)
        if task is not None:
            self._buffer.drop(partition)
        return task

    async def _reopen(self, task: PartitionTask, error: BaseException) -> None:
        partition = task.partition
        await self._abandon(task)
        if isinstance(error, _FINAL):
            return None
        failures = self._retries.failed(partition)
        logger.warning("partition %d failed (%d in a row), opening it again: %r", partition, failures, error)
        if failures > MAX_FAILURES:
            return self._end_process(
                EngineError(f"partition {partition} failed {failures} times without progress, last: {error!r}")
            )
        await asyncio.sleep(pause_s(failures))
        if await self._still_ours(partition):
            self.figures.reopened(error)
            await self._open(partition)
        elif isinstance(error, Fenced):
            self._end_process(error)
        return None

    async def _still_ours(self, partition: int) -> bool:
        """Asks until there is an answer. Without one nothing may be opened: that would fence the rightful owner."""
        assert self._parts is not None
        while partition in self._assigned and not self._draining:
            membership = await self._parts.source.membership(partition)
            if membership is not Membership.UNKNOWN:
                return membership is Membership.YES
            await asyncio.sleep(1)
        return False

    def _end_process(self, error: Exception) -> None:
        if not self.fatal.done():
            logger.error("this process must end: %s", error)  # here, because the end itself may hang
            self.fatal.set_result(error if isinstance(error, IntentRecError) else EngineError(repr(error)))

    def _turn(self, partition: int) -> asyncio.Lock:
        """Of tasks of one partition, one is opened or ended at a time: the next must find nothing of the last."""
        return self._turns.setdefault(partition, asyncio.Lock())

    def _settle(self, task: PartitionTask) -> None:
        """A task has ended: nothing of it is outstanding."""
        if self._in_flight.end(task):
            self.progress.work_done(task.partition, idle=True)
        self._update_capacity()

    # --- the inference loop's side

    def _taken(self) -> None:
        self.figures.buffered(self._buffer.num_plays)
        self._update_capacity()

    def _give_out(self, task: PartitionTask, outputs: Sequence[OutputRecord]) -> Receipt | None:
        return None if self._publisher is None else self._publisher.publish(outputs, task.output_stream)

    def _processed(self, task: PartitionTask, result: PartitionResult, receipts: Sequence[Receipt]) -> None:
        task.add(result, receipts, in_transaction=self._publisher is None)

    # --- callbacks of tasks

    def committed(self, task: PartitionTask, num_plays: int, duration_s: float) -> None:
        """A checkpoint is durable."""
        self._retries.succeeded(task.partition)
        self._in_flight.committed(task, num_plays, task.committed_offset)
        self.figures.committed(duration_s)
        self.progress.work_done(task.partition, idle=not self._in_flight.holds(task))
        self._update_capacity()

    def task_failed(self, task: PartitionTask, error: BaseException) -> None:
        """A task's regular checkpoint failed."""
        self.figures.commit_failed(error)
        self._failed(task, error)

    def _count_partitions(self) -> None:
        self.figures.partitions(assigned=len(self._assigned), ready=len(self.fetchable()))

    def _update_capacity(self) -> None:
        if not self._draining and self._has_capacity():
            self._room.set()

    # --- the end

    @property
    def ready(self) -> bool:
        """Whether every assigned partition is served."""
        return not self._draining and len(self.fetchable()) == len(self._assigned)

    async def drain(self) -> None:
        """Takes no more plays, finishes what is in inference, commits it, closes every partition."""
        self._draining = True
        tasks = [task for partition in list(self._partition_tasks) if (task := self._take_out(partition))]
        await asyncio.gather(*(self._finish(task) for task in tasks))

    async def stop(self) -> None:
        """Ends the tasks; the inference thread is not waited for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._inference.stop()

    def _spawn(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # Nobody asked for it, see stream.kafka.closing: this work would never be taken up again.
            if not task.cancelling():
                self._end_process(EngineError(f"{task.get_name()} was cancelled from within"))
        elif (error := task.exception()) is not None:
            logger.error("task %s ended", task.get_name(), exc_info=error)
            self._end_process(EngineError(f"{task.get_name()}: {error!r}"))
