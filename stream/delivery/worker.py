"""The worker's event-loop side: plays in from the transport, micro-batches to the inference thread, results into cuts.

    transport ──accept──▶ buffer ──micro-batch──▶ inference thread ──results──▶ publisher and the partition's next cut
        ▲                                                                            │
        └──── wait_for_room: fetched and uncommitted plays are bounded ◀──committed──┘

It owns which life each partition has. Whatever fails, in whatever place, goes through ``_failed``: the life is abandoned, the
coordinator is asked whether the partition is still ours, and a new life is opened. What must not go on ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from intentrec_core.errors import BrokerError, DeviceLost, EngineError, Fenced, IntentRecError, StateError
from stream.delivery.in_flight import Outstanding
from stream.delivery.inference_loop import InferenceLoop
from stream.delivery.overload import Overload
from stream.delivery.partition import LifeParts, Membership, PartitionLife
from stream.delivery.play_buffer import PlayBuffer
from stream.delivery.retries import MAX_FAILURES, Retries, pause_s
from stream.delivery.worker_metrics import WorkerFigures
from stream.ops.liveness import Progress

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
#: Of the rebalance timeout: the last cut must be in before the group gives up on us and another owner fences it.
_REVOKE_SHARE = 0.5
#: No life of this process can do better: opening again would only fail again.
_FINAL = (StateError, DeviceLost)


class PlaysWorker:
    """Owned by the event loop. ``parts`` is called once with the worker's callbacks, and returns what lives are made of."""

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
        self.figures = WorkerFigures(metrics)
        self._revoke_deadline_s = rebalance_timeout_s * _REVOKE_SHARE
        self._buffer = PlayBuffer(
            max_batch=settings.max_batch, deadline_s=settings.batch_deadline_ms / 1000, clock=clock
        )
        self._lives: dict[int, PartitionLife] = {}
        self.overload = Overload(settings.coalesce_above_lag, lambda: self._buffer.has_full_batch)
        self._inference = InferenceLoop(
            self._buffer,
            pipeline,
            is_overloaded=self.overload.coalesces,
            life_of=self._lives.get,
            on_taken=self._taken,
            on_outputs=self._give_out,
            on_result=self._processed,
            on_error=self._failed,
        )
        self._assigned: set[int] = set()
        self._turns: dict[int, asyncio.Lock] = {}
        self._retries = Retries(clock)
        self._outstanding = Outstanding(max_plays=settings.max_uncommitted, max_bytes=settings.max_uncommitted_bytes)
        self._opening: dict[int, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._openings = asyncio.Semaphore(_NUM_OPENING)
        self._room, self._always_had_room = asyncio.Event(), True
        self._draining = False
        self._parts: LifeParts | None = None
        self._publisher: Publisher | None = None
        self.joined = False
        self.progress = Progress(clock)
        self.fatal: asyncio.Future[IntentRecError] = asyncio.get_running_loop().create_future()

    def start(self, parts: LifeParts, publisher: Publisher | None) -> None:
        """Begins to take micro-batches to the inference thread. ``publisher`` is None where outputs go into the transaction."""
        self._parts, self._publisher = parts, publisher
        self._spawn(self._inference.run(), "inference")

    async def on_inference_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Runs a function between two micro-batches, on the thread that owns the pipeline."""
        return await self._inference.on_thread(function, *args)

    # --- the transport's side

    async def wait_for_room(self) -> None:
        """Returns when more plays may be fetched: the bound on memory, and on what a crash replays."""
        while self._draining or not self._has_room():
            self._always_had_room = False
            self._room.clear()
            await self._room.wait()

    def had_room(self) -> bool:
        """Whether nothing kept plays from being fetched since this was last asked."""
        had, self._always_had_room = self._always_had_room, self._has_room()
        return had

    def _has_room(self) -> bool:
        num_most = self._settings.max_batch * self._settings.max_buffered_batches
        return self._buffer.num_plays < num_most and self._outstanding.has_room

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that are ours."""
        return frozenset(self._assigned)

    def unopened(self) -> set[int]:
        """Partitions that are ours and have no life, not even one that is being opened."""
        return self._assigned - self._lives.keys()

    def fetchable(self) -> dict[int, PartitionLife]:
        """The lives that are ready, by partition."""
        return {partition: life for partition, life in self._lives.items() if life.ready}

    def accept(self, life: PartitionLife, fetched: Fetched) -> None:
        """Takes what was fetched for a life: nothing of one that has ended, nothing twice, nothing behind a gap."""
        if self._lives.get(life.partition) is not life or not life.ready or self._draining:
            return
        if fetched.start != life.next_fetch:
            # Only we seek, but where the log has lost the offset (retention, a topic made anew) aiokafka goes on at its
            # beginning, and plays between would be skipped unseen. Opening again asks how far the log reaches.
            where = f"partition {life.partition} goes on at offset {fetched.start} instead of {life.next_fetch}"
            self._failed(life, EngineError(where))
            return
        life.next_fetch = fetched.end
        if fetched.records:
            self._outstanding.fetched(life, fetched)
            self._buffer.add(life.partition, fetched.records)
            self.figures.buffered(self._buffer.num_plays)
            self.progress.work_arrived(life.partition)

    def partitions_assigned(self, partitions: set[int]) -> None:
        """Opens what is newly ours, in the background."""
        self._assigned, self.joined = set(partitions), True
        self._count_partitions()
        for partition in partitions:
            self._spawn(self._open(partition), f"open partition {partition}")

    async def partitions_revoked(self, partitions: set[int]) -> None:
        """Closes partitions in good order, or leaves them to an end of their own at the deadline. Never raises."""
        self._assigned -= partitions
        lives = [life for partition in partitions if (life := self._take_out(partition))]
        finishing = {self._spawn(self._finish(life), f"finish partition {life.partition}"): life for life in lives}
        late = (await asyncio.wait(finishing, timeout=self._revoke_deadline_s))[1] if lives else set()
        for task in late:
            life = finishing[task]
            logger.warning("partition %d did not close in time: its last plays will be replayed", life.partition)
            # Not waited for: a life's end closes its state on the inference thread, and that may be what hangs.
            task.cancel()
            self._spawn(self._abandon(life), f"abandon partition {life.partition}")
        self._count_partitions()

    # --- lives

    async def _open(self, partition: int) -> None:
        assert self._parts is not None
        async with self._turn(partition):
            if partition not in self._assigned or partition in self._lives or self._draining:
                return
            life = self._lives[partition] = PartitionLife(partition, self._parts)
            self._outstanding.begin(life)
            opening = self._opening[partition] = asyncio.ensure_future(self._open_in_turn(life))
            await asyncio.wait([opening])
            given_up = self._opening.pop(partition, None) is None
            error = BrokerError("the opening was cancelled from within") if opening.cancelled() else opening.exception()
            if error is not None:
                if not given_up:
                    self._failed(life, error)
                # Still in turn: its end must not close what the next life has opened.
                await life.abandon()
            self._count_partitions()

    async def _open_in_turn(self, life: PartitionLife) -> None:
        async with self._openings:
            await life.open()

    async def _finish(self, life: PartitionLife) -> None:
        """The last cut of a life, then its end. What waits for inference is left for the next owner."""
        await self._stop_opening(life.partition)
        async with self._turn(life.partition):
            try:
                await life.finish()
            except Fenced as error:
                # Whoever fenced us took the partition before we gave it away: we had been declared dead.
                self._end_process(error)
            except Exception as error:
                logger.warning("last cut of partition %d failed, its plays will be replayed: %r", life.partition, error)
            finally:
                self._settle(life)

    async def _abandon(self, life: PartitionLife) -> None:
        async with self._turn(life.partition):
            await life.abandon()
            self._settle(life)

    async def _stop_opening(self, partition: int) -> None:
        """A restore can take minutes; a partition that goes away does not wait for it."""
        opening = self._opening.pop(partition, None)
        if opening is not None and opening is not asyncio.current_task():
            opening.cancel()
            await asyncio.wait([opening])

    def _failed(self, life: PartitionLife, error: BaseException) -> None:
        """The one way back."""
        life.fail(error)  # also one that is being given up: its last cut must not carry the offset past what failed
        if self._lives.get(life.partition) is not life:
            return
        self._take_out(life.partition)
        self._count_partitions()
        if isinstance(error, _FINAL):
            self._end_process(error)  # first, because abandoning waits for the inference thread, which may hang
        self._spawn(self._reopen(life, error), f"reopen partition {life.partition}")

    def _take_out(self, partition: int) -> PartitionLife | None:
        """A life begins to end: what waits for inference is left for the next one, or the next owner."""
        life = self._lives.pop(partition, None)
        if life is not None:
            self._buffer.drop(partition)
        return life

    async def _reopen(self, life: PartitionLife, error: BaseException) -> None:
        partition = life.partition
        await self._abandon(life)
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
        """Of lives of one partition, one is opened or ended at a time: the next must find nothing of the last."""
        return self._turns.setdefault(partition, asyncio.Lock())

    def _settle(self, life: PartitionLife) -> None:
        """A life has ended: nothing of it is outstanding."""
        if self._outstanding.end(life):
            self.progress.work_done(life.partition, idle=True)
        self._look_for_room()

    # --- the inference loop's side

    def _taken(self) -> None:
        self.figures.buffered(self._buffer.num_plays)
        self._look_for_room()

    def _give_out(self, life: PartitionLife, outputs: Sequence[OutputRecord]) -> Receipt | None:
        return None if self._publisher is None else self._publisher.publish(outputs, life.output_stream)

    def _processed(self, life: PartitionLife, result: PartitionResult, receipts: Sequence[Receipt]) -> None:
        life.add(result, receipts, in_transaction=self._publisher is None)

    # --- callbacks of lives

    def committed(self, life: PartitionLife, num_plays: int, duration_s: float) -> None:
        """A cut is durable."""
        self._retries.succeeded(life.partition)
        self._outstanding.committed(life, num_plays, life.committed_offset)
        self.figures.committed(duration_s)
        self.progress.work_done(life.partition, idle=not self._outstanding.holds(life))
        self._look_for_room()

    def life_failed(self, life: PartitionLife, error: BaseException) -> None:
        """A life's regular cut failed."""
        self.figures.commit_failed(error)
        self._failed(life, error)

    def _count_partitions(self) -> None:
        self.figures.partitions(assigned=len(self._assigned), ready=len(self.fetchable()))

    def _look_for_room(self) -> None:
        if not self._draining and self._has_room():
            self._room.set()

    # --- the end

    @property
    def ready(self) -> bool:
        """Whether every assigned partition is served."""
        return not self._draining and len(self.fetchable()) == len(self._assigned)

    async def drain(self) -> None:
        """Takes no more plays, finishes what is in inference, commits it, closes every partition."""
        self._draining = True
        lives = [life for partition in list(self._lives) if (life := self._take_out(partition))]
        await asyncio.gather(*(self._finish(life) for life in lives))

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
