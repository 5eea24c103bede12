"""One task of one source partition: from its opening to whatever ends it. There is one way in, and one way back.

    open     writer.open() fences the owner before → the changelog is read to its end → the committed offset is read
             → both are checked against the marker → the histories go to the pipeline → seek → ready
    ready    results arrive in source order; every commit interval their outputs are awaited and a checkpoint is committed
    end      finish(): a last checkpoint, then close;  or abandon(): drop everything. Both let go of writer, state and caches.

A task that has failed is never mended: the worker abandons it and opens a new one, which starts from what was committed.
Nothing here skips plays because they are "already in memory".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from intentrec_core.errors import BrokerError, Fenced, RecoveryTimeout, StateError
from stream.delivery.changelog import Checkpoint
from stream.delivery.start_offset import SourceFacts, start_offset
from stream.kafka.publisher import OutputStream, PublishFailed
from stream.wire.deferred_counts import DeferredCounts

if TYPE_CHECKING:
    from intentrec_core.history.changelog_codec import Marker
    from intentrec_core.history.history import History
    from stream.delivery.changelog import ChangelogWriter
    from stream.delivery.restore import Restored
    from stream.kafka.publisher import Receipt
    from stream.wire.records import OutputRecord, PartitionResult

logger = logging.getLogger(__name__)


class Membership(Enum):
    """Whether the group's coordinator says, now, that a partition is ours."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class SourceConsumer(Protocol):
    """What a task needs from the consumer of the plays topic."""

    async def source_facts(self, partition: int) -> SourceFacts:
        """Committed offset and bounds of the partition, and how many partitions there are."""
        ...

    async def first_timestamp_ms(self, partition: int) -> int | None:
        """The timestamp of the first play that the log holds; None when it holds none."""
        ...

    async def seek_source(self, partition: int, offset: int) -> None:
        """Makes ``offset`` the next one that is fetched."""
        ...

    async def commit_source(self, partition: int, offset: int) -> bool:
        """Commits an offset outside any transaction; False when the partition is not ours."""
        ...

    async def source_positions(self, partitions: set[int]) -> dict[int, tuple[int, int]]:
        """By partition, the fetcher's position and the end of the log."""
        ...

    async def membership(self, partition: int) -> Membership:
        """Asks the coordinator; the assignment in memory may be stale."""
        ...


class TaskPhase(Enum):
    """Where a task stands."""

    OPENING = "opening"
    READY = "ready"
    FINISHING = "finishing"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class TaskDependencies:
    """What a task is made of; the same for all tasks of a worker."""

    source: SourceConsumer
    writer: Callable[[int, Callable[[int], Marker]], ChangelogWriter]
    marker: Callable[[int, int], Marker]
    restore: Callable[[int], Awaitable[Restored]]
    transactional: bool
    fingerprint: str
    commit_interval_s: float
    recovery_deadline_s: float


class TaskOwner(Protocol):
    """The worker, seen from one of its partition tasks."""

    async def open_state(self, partition: int, histories: dict[str, History]) -> None:
        """Hands a restored state to the pipeline."""
        ...

    async def close_state(self, partition: int) -> None:
        """Has the pipeline drop a state."""
        ...

    def restored(self, partition: int, restored: Restored) -> None:
        """A task is ready."""
        ...

    def committed(self, task: PartitionTask, num_plays: int, duration_s: float) -> None:
        """A checkpoint is durable."""
        ...

    def commit_failed(self, task: PartitionTask, error: BaseException) -> None:
        """A regular checkpoint of a task failed."""
        ...


@dataclass(slots=True)
class _Uncommitted:
    next_offset: int = -1
    num_plays: int = 0
    changes: dict[bytes, bytes | None] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    outputs: list[OutputRecord] = field(default_factory=list)
    counts: DeferredCounts = field(default_factory=DeferredCounts)


class PartitionTask:
    """Owned by the event loop. ``next_fetch`` is the offset the fetcher must deliver next, or a later one."""

    def __init__(self, partition: int, dependencies: TaskDependencies, owner: TaskOwner) -> None:
        self.partition = partition
        self.phase = TaskPhase.OPENING
        self.next_fetch = -1
        self.committed_offset = -1
        self.output_stream = OutputStream()
        self._dependencies, self._owner = dependencies, owner
        self._writer: ChangelogWriter | None = None
        self._num_partitions = 0
        self._uncommitted = _Uncommitted()
        self._committing = asyncio.Lock()
        self._something = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._num_in_inference = 0
        self._commits: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether plays may be fetched for it."""
        return self.phase is TaskPhase.READY

    async def open(self) -> None:
        """Takes the partition over. Returns when it is ready.

        Raises: StateError when state and log disagree; RecoveryTimeout past the deadline; KafkaError when the broker fails.
        """
        needs = self._dependencies
        deadline = asyncio.timeout(needs.recovery_deadline_s)
        try:
            async with deadline:
                await self._open()
        except TimeoutError:
            if not deadline.expired():  # a connection's own
                raise
            raise RecoveryTimeout(
                f"partition {self.partition} was not restored within {needs.recovery_deadline_s:.0f} s; "
                "raise recovery_deadline_s if its changelog is that large"
            ) from None

    async def _open(self) -> None:
        needs, partition = self._dependencies, self.partition
        self._writer = needs.writer(partition, self._marker)
        await self._writer.open()
        # Only now is the end of the changelog final, and the committed offset too: nobody else can move them.
        restored = await needs.restore(partition)
        facts = await needs.source.source_facts(partition)
        if needs.transactional and restored.marker is not None and facts.committed is None:
            facts = replace(facts, first_ms=await needs.source.first_timestamp_ms(partition))
        self._num_partitions = facts.num_partitions
        try:
            start = start_offset(
                facts,
                restored.marker,
                partition=partition,
                has_state=bool(restored.histories),
                fingerprint=needs.fingerprint,
                transactional=needs.transactional,
                checkpoint_ms=restored.checkpoint_ms,
            )
        except StateError:
            # Whoever fenced us between the two reads has moved both since: the state is sound, and it is not ours.
            restored.histories.clear()  # of two states in memory one is for nothing
            if (await needs.restore(partition)).marker != restored.marker:
                raise Fenced(
                    f"partition {partition} has a newer owner, who took it while it was being opened"
                ) from None
            raise
        await self._owner.open_state(partition, restored.histories)
        await needs.source.seek_source(partition, start)
        self.next_fetch = self.committed_offset = start
        self.phase = TaskPhase.READY
        self._commits = asyncio.create_task(self._commit_regularly(), name=f"commits of partition {partition}")
        self._owner.restored(partition, restored)

    def _marker(self, next_offset: int) -> Marker:
        return self._dependencies.marker(self._num_partitions, next_offset)

    def begin_inference(self) -> None:
        """A micro-batch with plays of this partition went to the inference thread."""
        self._num_in_inference += 1
        self._idle.clear()

    def end_inference(self) -> None:
        """... and came back."""
        self._num_in_inference -= 1
        if not self._num_in_inference:
            self._idle.set()

    def add(self, result: PartitionResult, receipts: Sequence[Receipt], *, in_transaction: bool) -> None:
        """Takes a micro-batch's result into the next checkpoint, which waits for the receipts or takes the outputs in as well.

        A task that has ended takes nothing.
        """
        if self.phase not in (TaskPhase.READY, TaskPhase.FINISHING):
            return
        pending = self._uncommitted
        # A result without records, of a chunk that waited, may be older than the newest one.
        pending.next_offset = max(pending.next_offset, result.next_offset)
        pending.num_plays += result.num_records
        pending.changes.update(result.changelog)
        pending.counts.add_all(result.counts)
        pending.receipts.extend(receipts)
        if in_transaction:
            pending.outputs.extend(result.outputs)
        self._something.set()

    def fail(self, error: BaseException) -> None:
        """From here on nothing of it is committed or sent: what failed would lie below the next checkpoint's offset,
        and below what a
        subscriber has seen.
        """
        self.output_stream.ended = True  # now: the thread may have done the next micro-batch already
        self._failure = self._failure or (error if isinstance(error, Exception) else BrokerError(repr(error)))

    async def finish(self) -> None:
        """Gives the partition up in good order: nothing that was processed will be replayed.

        Raises: whatever the last checkpoint raised. The task has ended in any case.
        """
        if self.phase is TaskPhase.READY:
            self.phase = TaskPhase.FINISHING
            try:
                await self._idle.wait()
                await self._commit()
            finally:
                await self._end()
        else:
            await self._end()

    async def abandon(self) -> None:
        """Drops work, state and writer. What was not committed will be replayed by whoever opens the partition next."""
        await self._end()

    async def _end(self) -> None:
        if self.phase is TaskPhase.ENDED:
            return
        self.phase = TaskPhase.ENDED
        if self._commits is not None:
            self._commits.cancel()
        self.output_stream.ended = True
        self._uncommitted = _Uncommitted()
        if self._writer is not None:
            await self._writer.close()
        await self._owner.close_state(self.partition)

    async def _commit_regularly(self) -> None:
        try:
            while True:
                await self._something.wait()
                await asyncio.sleep(self._dependencies.commit_interval_s)
                await self._commit()
        except asyncio.CancelledError:
            if self.phase is TaskPhase.ENDED:
                raise
            # A client library cancelled it, see stream.kafka.closing.
            self._owner.commit_failed(self, BrokerError("a commit was cancelled from within"))
        except Exception as error:
            if self.phase is not TaskPhase.ENDED:
                self._owner.commit_failed(self, error)

    async def _commit(self) -> None:
        async with self._committing:
            # A checkpoint after one that failed would carry the offset past plays that are in neither: there is none.
            if self._failure is not None:
                raise self._failure
            try:
                await self._commit_checkpoint()
            except BaseException as error:
                self.fail(error)
                raise

    async def _commit_checkpoint(self) -> None:
        checkpoint, self._uncommitted = self._uncommitted, _Uncommitted()
        self._something.clear()
        if not checkpoint.num_plays or self._writer is None:
            return
        started_s = time.monotonic()
        # Outputs acknowledged → state and offset committed: a play whose outputs are missing must be replayed.
        try:
            await asyncio.gather(*(receipt.future for receipt in checkpoint.receipts))
        except Exception as error:
            raise PublishFailed(f"outputs of partition {self.partition} were not acknowledged: {error!r}") from error
        await self._writer.commit(Checkpoint(checkpoint.next_offset, checkpoint.changes, checkpoint.outputs))
        self.committed_offset = checkpoint.next_offset
        checkpoint.counts.count()
        self._owner.committed(self, checkpoint.num_plays, time.monotonic() - started_s)
