"""The worker on the event loop: takes plays from the transport, runs micro-batches, puts results into checkpoints.

    transport ──accept──▶ buffer ──micro-batch──▶ inference thread ──results──▶ publisher, and the partition's next checkpoint
        ▲                                                                            │
        └──── wait_for_capacity: fetched and uncommitted plays are bounded ◀──committed──┘

It owns the task of each partition. Every failure, wherever it comes from, goes through ``failed``: the task is abandoned, and if
the coordinator confirms that the partition is still assigned to this worker, a new task is opened. An error that a new task
cannot fix ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from intentrec_core.errors import BrokerError, DeviceLost, EngineError, Fenced, IntentRecError, StateError
from stream.delivery.background_tasks import BackgroundTasks
from stream.delivery.flow_control import FlowControl, InFlight
from stream.delivery.inference_loop import InferenceLoop
from stream.delivery.overload import Overload
from stream.delivery.partition import LogGap, Membership, PartitionTask, TaskDependencies
from stream.delivery.play_buffer import PlayBuffer
from stream.delivery.retries import MAX_FAILURES, Retries
from stream.ops.liveness import WorkProgress

if TYPE_CHECKING:
    from intentrec_core.history.history import History
    from stream.delivery.inference_loop import PlaysPipeline
    from stream.delivery.restore import Restored
    from stream.delivery.worker_metrics import WorkerMetrics
    from stream.kafka.publisher import Publisher, Receipt
    from stream.settings import Settings
    from stream.wire.records import Fetched, OutputRecord, PartitionResult

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Partitions opened at once. A restore takes its memory twice and most of the loop's time; more at once only delays all of them.
_NUM_OPENING = 8
#: Part of the rebalance timeout: the last checkpoint must be committed before the group removes this worker and another owner
#: fences it.
_REVOKE_RATIO = 0.5
#: The coordinator announces nothing to a worker that it does not answer.
_ASK_AGAIN_S = 1.0
#: A new task would fail in the same way.
_FINAL = (StateError, DeviceLost)


class PlaysWorker:
    """An async context manager, within which micro-batches run. Owned by the event loop.

    It is the transport's sink, the inference loop's sink, and the owner of the partition tasks. ``publisher`` is None where
    outputs are part of the transaction.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: PlaysPipeline[Any],
        metrics: WorkerMetrics,
        dependencies: TaskDependencies,
        publisher: Publisher | None,
        *,
        rebalance_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        retries: Retries | None = None,
    ) -> None:
        self.metrics = metrics
        self._pipeline, self._dependencies, self._publisher = pipeline, dependencies, publisher
        self._revoke_deadline_s = rebalance_timeout_s * _REVOKE_RATIO
        self._buffer = PlayBuffer(
            max_batch=settings.max_batch, deadline_s=settings.batch_deadline_ms / 1000, clock=clock
        )
        self._in_flight = InFlight(max_plays=settings.max_uncommitted, max_bytes=settings.max_uncommitted_bytes)
        max_buffered = settings.max_batch * settings.max_buffered_batches
        self._flow = FlowControl(self._buffer, self._in_flight, max_buffered=max_buffered)
        self.overload = Overload(settings.coalesce_above_lag, lambda: self._buffer.has_full_batch)
        self._inference = InferenceLoop(self._buffer, pipeline, self)
        self._background = BackgroundTasks()
        self._assigned: set[int] = set()
        self._tasks: dict[int, PartitionTask] = {}
        self._turns: dict[int, asyncio.Lock] = {}
        self._opening: dict[int, asyncio.Future[None]] = {}
        self._openings = asyncio.Semaphore(_NUM_OPENING)
        self._retries = retries or Retries(clock)
        #: For each partition whose processed plays were dropped uncommitted, the offset up to which they have to be replayed.
        self._to_replay: dict[int, int] = {}
        self._draining = False
        self._was_ready = False
        self.joined = False
        #: Whether the consumer of the plays got no answer at the last look.
        self.is_cut_off = False
        self.progress = WorkProgress(clock)

    async def __aenter__(self) -> Self:
        """Begins to run micro-batches."""
        self._background.spawn(self._inference.run(), "inference")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all background work; does not wait for the inference thread."""
        await self._background.stop()
        self._inference.stop()

    @property
    def fatal(self) -> asyncio.Future[IntentRecError]:
        """Done with the error for which the process must end."""
        return self._background.fatal

    @property
    def ready(self) -> bool:
        """Whether every assigned partition is served."""
        return not self._draining and len(self.fetchable()) == len(self._assigned)

    async def on_inference_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Runs a function between two micro-batches, on the thread that owns the pipeline."""
        return await self._inference.on_thread(function, *args)

    async def drain(self) -> frozenset[int]:
        """Accepts no more plays, finishes and commits those in inference, and closes every partition.

        Returns the partitions with processed plays that are not committed: those whose last checkpoint failed, and those that
        had failed before and were not read back yet. These plays are replayed.
        """
        self._draining = True
        self._flow.close()
        tasks = [task for partition in list(self._tasks) if (task := self._take_out(partition))]
        await asyncio.gather(*(self._finish(task) for task in tasks))
        return frozenset(self._to_replay.keys() & self._assigned)

    # --- for the transport and the lag monitor

    async def wait_for_capacity(self) -> None:
        """Returns when more plays may be fetched."""
        await self._flow.wait_for_capacity()

    def had_capacity(self) -> bool:
        """Whether plays could be fetched all the time since the last call."""
        return self._flow.had_capacity()

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that the group assigned to this worker."""
        return frozenset(self._assigned)

    def saw_broker(self, *, answers: bool) -> None:
        """Reports whether the broker answered the consumer of the plays just now."""
        self.is_cut_off = not answers
        self.metrics.cut_off(self.is_cut_off)

    def unopened(self) -> set[int]:
        """Assigned partitions without a task, not even one that is being opened."""
        return self._assigned - self._tasks.keys()

    def fetchable(self) -> dict[int, PartitionTask]:
        """The tasks that are ready, by partition."""
        return {partition: task for partition, task in self._tasks.items() if task.ready}

    def lag_plays(self, task: PartitionTask, end: int) -> int:
        """How many plays of a task's partition are in no checkpoint, if the log of the partition ends at ``end``.

        Not ``end`` less the committed offset: that offset never passes the control records of transactional producers at the end
        of a log. The fetcher passes them, and from there on plays are counted instead of offsets.
        """
        return max(0, end - task.next_fetch) + self._in_flight.num_plays(task)

    def accept(self, task: PartitionTask, fetched: Fetched) -> None:
        """Accepts a fetch for a task, unless the task has ended. A fetch that repeats or skips plays fails the task."""
        if self._tasks.get(task.partition) is not task or not task.ready or self._draining:
            return
        if fetched.start != task.next_fetch:
            # Only this worker seeks. But if the offset is no longer in the log (retention, a topic created anew), aiokafka
            # continues at the log's beginning and would skip plays. Reopening the partition checks the bounds of the log.
            gap = (
                f"the fetcher of partition {task.partition} is at offset {fetched.start}, but {task.next_fetch} is next"
            )
            self.failed(task, LogGap(gap))
            return
        task.next_fetch = fetched.end
        if fetched.records:
            self._in_flight.fetched(task, fetched)
            self._buffer.add(task.partition, fetched.records)
            self.metrics.buffered(self._buffer.num_plays)
            self.progress.work_arrived(task.partition)

    def partitions_assigned(self, partitions: set[int]) -> None:
        """Opens newly assigned partitions, in the background."""
        self._assigned, self.joined = set(partitions), True
        logger.info("the group assigns %d partitions to this worker: %s", len(partitions), sorted(partitions))
        self._count_partitions()
        for partition in partitions:
            self._background.spawn(self._open(partition), f"open partition {partition}")

    async def partitions_revoked(self, partitions: set[int]) -> None:
        """Closes partitions in order; one that misses the deadline is abandoned in the background. Never raises."""
        self._assigned -= partitions
        tasks = [task for partition in partitions if (task := self._take_out(partition))]
        finishing = {
            self._background.spawn(self._finish(task), f"finish partition {task.partition}"): task for task in tasks
        }
        late = (await asyncio.wait(finishing, timeout=self._revoke_deadline_s))[1] if tasks else set()
        for finish in late:
            task = finishing[finish]
            logger.warning("partition %d did not close in time: its uncommitted plays will be replayed", task.partition)
            # Not waited for: ending a task closes its state on the inference thread, and that may be what hangs.
            finish.cancel()
            self._background.spawn(self._abandon(task), f"abandon partition {task.partition}")
        self._count_partitions()

    # --- tasks: opened, finished, abandoned, reopened

    async def _open(self, partition: int) -> None:
        async with self._turn(partition):
            if partition not in self._assigned or partition in self._tasks or self._draining:
                return
            task = self._tasks[partition] = PartitionTask(partition, self._dependencies, self)
            self._in_flight.begin(task)
            opening = self._opening[partition] = asyncio.ensure_future(self._open_in_turn(task))
            await asyncio.wait([opening])
            given_up = self._opening.pop(partition, None) is None
            error = BrokerError("the opening was cancelled from within") if opening.cancelled() else opening.exception()
            if error is not None:
                if not given_up:
                    self.failed(task, error)
                # Still within the turn: its end must not close the state of the next task.
                await task.abandon()
            self._count_partitions()

    async def _open_in_turn(self, task: PartitionTask) -> None:
        async with self._openings:
            await task.open()
        # A checkpoint can be durable although its task failed: the acknowledgement was lost.
        self._note_durable(task)

    async def _finish(self, task: PartitionTask) -> None:
        """Commits the last checkpoint of a task and ends it. The next owner replays the plays that still wait for inference."""
        await self._stop_opening(task.partition)
        async with self._turn(task.partition):
            try:
                await task.finish()
            except Fenced as error:
                # Another worker took the partition before it was released here: the group had declared this worker dead.
                self._background.end_process(error)
            except Exception as error:  # whatever a client raises: the next owner replays what is not committed
                logger.warning(
                    "the last checkpoint of partition %d failed; its plays will be replayed: %r", task.partition, error
                )
            finally:
                self._settle(task)

    async def _abandon(self, task: PartitionTask) -> None:
        async with self._turn(task.partition):
            await task.abandon()
            self._settle(task)

    async def _stop_opening(self, partition: int) -> None:
        """Cancels an opening: a restore can take minutes, and a revoke must not wait for it."""
        opening = self._opening.pop(partition, None)
        if opening is not None and opening is not asyncio.current_task():
            opening.cancel()
            await asyncio.wait([opening])

    def failed(self, task: PartitionTask, error: BaseException) -> None:
        """Handles every failure of a task: abandons the task and reopens the partition, or ends the process."""
        # Also a task that is being closed: its last checkpoint must not move the offset past the failed plays.
        task.fail(error)
        if self._tasks.get(task.partition) is not task:
            return
        self._take_out(task.partition)
        self._count_partitions()
        if isinstance(error, _FINAL):
            # First, because abandoning waits for the inference thread, which may hang.
            self._background.end_process(error)
        self._background.spawn(self._reopen(task, error), f"reopen partition {task.partition}")

    def _take_out(self, partition: int) -> PartitionTask | None:
        """Removes a task that begins to end. Its buffered plays are dropped: the partition's next task fetches them again."""
        task = self._tasks.pop(partition, None)
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
        if failures >= MAX_FAILURES:
            return self._background.end_process(
                EngineError(f"partition {partition} failed {failures} times without progress, last: {error!r}")
            )
        await asyncio.sleep(self._retries.pause_s(failures))
        if await self._still_ours(partition):
            self.metrics.reopened(error)
            await self._open(partition)
        elif isinstance(error, Fenced):
            self._background.end_process(error)
        return None

    async def _still_ours(self, partition: int) -> bool:
        """Queries the coordinator until it answers: opening a partition without its consent could fence the rightful owner."""
        while partition in self._assigned and not self._draining:
            membership = await self._dependencies.source.membership(partition)
            if membership is not Membership.UNKNOWN:
                return membership is Membership.YES
            await asyncio.sleep(_ASK_AGAIN_S)
        return False

    def _turn(self, partition: int) -> asyncio.Lock:
        """Serializes opening and ending the tasks of a partition: nothing of the previous task may be left for the next one."""
        return self._turns.setdefault(partition, asyncio.Lock())

    def _settle(self, task: PartitionTask) -> None:
        """A task has ended: it has no plays in flight."""
        if task.processed_offset > task.committed_offset:
            self._to_replay[task.partition] = max(task.processed_offset, self._to_replay.get(task.partition, 0))
        if self._in_flight.end(task):
            self.progress.work_done(task.partition, idle=True)
        self._flow.update()

    def _note_durable(self, task: PartitionTask) -> None:
        """What earlier tasks of the partition processed is no longer to be replayed, if a checkpoint holds it."""
        if task.committed_offset >= self._to_replay.get(task.partition, 0):
            self._to_replay.pop(task.partition, None)

    # --- for the inference loop

    def coalesces(self) -> bool:
        """Whether the next micro-batch takes all waiting plays, and is coalesced."""
        return self.overload.coalesces()

    def task_of(self, partition: int) -> PartitionTask | None:
        """The task that a partition's plays belong to now."""
        return self._tasks.get(partition)

    def batch_taken(self) -> None:
        """A micro-batch left the buffer."""
        self.metrics.buffered(self._buffer.num_plays)
        self._flow.update()

    def publish(self, task: PartitionTask, outputs: Sequence[OutputRecord]) -> Receipt | None:
        """Publishes outputs; None where they wait for the task's transaction."""
        return None if self._publisher is None else self._publisher.publish(outputs, task.output_stream)

    def completed(self, task: PartitionTask, result: PartitionResult, receipts: Sequence[Receipt]) -> None:
        """A result goes into its task's next checkpoint."""
        task.add(result, receipts, in_transaction=self._publisher is None)

    # --- for partition tasks

    async def open_state(self, partition: int, histories: dict[str, History]) -> None:
        """Passes a restored state to the pipeline."""
        await self._inference.on_thread(self._pipeline.open_partition, partition, histories)

    async def close_state(self, partition: int) -> None:
        """Makes the pipeline drop a state."""
        await self._inference.on_thread(self._pipeline.close_partition, partition)

    def restored(self, partition: int, restored: Restored) -> None:
        """The partition was restored, and its task is ready."""
        self.metrics.restored(partition, restored)

    def committed(self, task: PartitionTask, num_plays: int, duration_s: float) -> None:
        """A checkpoint is durable."""
        self._retries.succeeded(task.partition)
        self._note_durable(task)
        self._in_flight.committed(task, num_plays, task.committed_offset)
        self.metrics.committed(duration_s)
        self.progress.work_done(task.partition, idle=not self._in_flight.holds(task))
        self._flow.update()

    def commit_failed(self, task: PartitionTask, error: BaseException) -> None:
        """A periodic checkpoint of a task failed."""
        self.metrics.commit_failed(error)
        self.failed(task, error)

    def _count_partitions(self) -> None:
        num_ready = len(self.fetchable())
        self.metrics.partitions(assigned=len(self._assigned), ready=num_ready)
        is_ready = self.joined and self.ready
        if is_ready and not self._was_ready:
            logger.info("ready: all %d assigned partitions are served", num_ready)
        self._was_ready = is_ready
