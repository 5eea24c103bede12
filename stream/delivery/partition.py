"""The task of one source partition: opens it, commits its checkpoints, and ends it.

    open     writer.open() fences the previous owner → the changelog is read to its end → the committed offset is read
             → both are checked against the marker → the histories go to the pipeline → seek → ready
    ready    results arrive in source order; once per commit interval their outputs are awaited and a checkpoint is committed
    end      finish(): a last checkpoint, then close;  or abandon(): drop everything. Both release writer, state and caches.

A task that has failed is not repaired: the worker abandons it and opens a new one, which starts from what was committed.
No play is skipped because it is "already in memory".
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
    """Whether the group coordinator assigns a partition to this worker right now."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class LogGap(BrokerError):
    """The next play fetched of a partition is not the one that follows: plays were deleted, or the topic was made anew."""


class SourceConsumer(Protocol):
    """The part of the plays consumer that a task needs."""

    async def source_facts(self, partition: int) -> SourceFacts:
        """The committed offset and the bounds of the partition, and the number of partitions."""
        ...

    async def first_timestamp_ms(self, partition: int) -> int | None:
        """The timestamp of the first play in the log; None if the log is empty."""
        ...

    async def seek_source(self, partition: int, offset: int) -> None:
        """Makes ``offset`` the next offset to fetch."""
        ...

    async def commit_source(self, partition: int, offset: int) -> bool:
        """Commits an offset outside any transaction; returns False if the partition is not assigned to this worker."""
        ...

    async def source_positions(self, partitions: set[int]) -> dict[int, tuple[int, int]]:
        """For each partition, the fetcher's position and the end offset of the log. Asks the broker in any case."""
        ...

    async def membership(self, partition: int) -> Membership:
        """Queries the coordinator, because the assignment in memory may be stale."""
        ...


class TaskPhase(Enum):
    """The phases of a task, in order."""

    OPENING = "opening"
    READY = "ready"
    FINISHING = "finishing"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class TaskDependencies:
    """What a task depends on; the same for all tasks of a worker."""

    source: SourceConsumer
    writer: Callable[[int, Callable[[int], Marker]], ChangelogWriter]
    marker: Callable[[int, int], Marker]
    restore: Callable[[int], Awaitable[Restored]]
    transactional: bool
    fingerprint: str
    commit_interval_s: float
    recovery_deadline_s: float


class TaskOwner(Protocol):
    """The worker, as its partition tasks see it."""

    async def open_state(self, partition: int, histories: dict[str, History]) -> None:
        """Passes a restored state to the pipeline."""
        ...

    async def close_state(self, partition: int) -> None:
        """Makes the pipeline drop a state."""
        ...

    def restored(self, partition: int, restored: Restored) -> None:
        """The partition was restored, and its task is ready."""
        ...

    def committed(self, task: PartitionTask, num_plays: int, duration_s: float) -> None:
        """A checkpoint is durable."""
        ...

    def commit_failed(self, task: PartitionTask, error: BaseException) -> None:
        """A periodic checkpoint of a task failed."""
        ...


@dataclass(slots=True)
class _PendingCheckpoint:
    next_offset: int = -1
    num_plays: int = 0
    changes: dict[bytes, bytes | None] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    outputs: list[OutputRecord] = field(default_factory=list)
    counts: DeferredCounts = field(default_factory=DeferredCounts)


class PartitionTask:
    """Owned by the event loop.

    ``next_fetch``: the offset at which the next fetch has to start. Plays below ``processed_offset`` were processed, those below
    ``committed_offset`` are in a durable checkpoint.
    """

    def __init__(self, partition: int, dependencies: TaskDependencies, owner: TaskOwner) -> None:
        self.partition = partition
        self.phase = TaskPhase.OPENING
        self.next_fetch = -1
        self.committed_offset = -1
        self.processed_offset = -1
        self.output_stream = OutputStream()
        self._dependencies, self._owner = dependencies, owner
        self._writer: ChangelogWriter | None = None
        self._num_partitions = 0
        self._uncommitted = _PendingCheckpoint()
        self._committing = asyncio.Lock()
        self._has_uncommitted = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._num_in_inference = 0
        self._commits: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether plays may be fetched for this task."""
        return self.phase is TaskPhase.READY

    async def open(self) -> None:
        """Takes over the partition; returns when it is ready.

        Raises: StateError when state and log disagree; Fenced when another worker takes over meanwhile; RecoveryTimeout past the
        deadline; KafkaError when the broker fails.
        """
        needs = self._dependencies
        deadline = asyncio.timeout(needs.recovery_deadline_s)
        try:
            async with deadline:
                await self._open()
        except TimeoutError:
            if not deadline.expired():  # a timeout within the client
                raise
            raise RecoveryTimeout(
                f"partition {self.partition} was not restored within {needs.recovery_deadline_s:.0f} s. "
                "Check that the broker is up, or raise recovery_deadline_s if its changelog is that large"
            ) from None

    async def _open(self) -> None:
        needs, partition = self._dependencies, self.partition
        self._writer = needs.writer(partition, self._marker)
        await self._writer.open()
        # After the fence, the end of the changelog and the committed offset are final: no other worker can move them.
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
            # Another worker may have fenced this one between the two reads and moved both. Then the state is sound, but it
            # belongs to the newer owner.
            restored.histories.clear()  # two copies of a state need twice the memory
            if (await needs.restore(partition)).marker != restored.marker:
                raise Fenced(
                    f"partition {partition} has a newer owner, which took it over while it was being opened"
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
        """A micro-batch with plays of this partition was passed to the inference thread."""
        self._num_in_inference += 1
        self._idle.clear()

    def end_inference(self) -> None:
        """A micro-batch with plays of this partition came back from inference."""
        self._num_in_inference -= 1
        if not self._num_in_inference:
            self._idle.set()

    def add(self, result: PartitionResult, receipts: Sequence[Receipt], *, in_transaction: bool) -> None:
        """Adds a micro-batch's result to the next checkpoint, which waits for the receipts, or writes the outputs itself.

        A task that has ended ignores the result.
        """
        if self.phase not in (TaskPhase.READY, TaskPhase.FINISHING):
            return
        pending = self._uncommitted
        # The result of a queued prefill chunk holds no records, and may be older than the newest result.
        pending.next_offset = max(pending.next_offset, result.next_offset)
        pending.num_plays += result.num_records
        self.processed_offset = max(self.processed_offset, result.next_offset)
        pending.changes.update(result.changelog)
        pending.counts.add_all(result.counts)
        pending.receipts.extend(receipts)
        if in_transaction:
            pending.outputs.extend(result.outputs)
        self._has_uncommitted.set()

    def fail(self, error: BaseException) -> None:
        """Stops all commits and outputs of this task.

        A later checkpoint would move the offset past the failed plays. A later output would make subscribers take the outputs
        of the failed plays for repeats, and drop them.
        """
        self.output_stream.ended = True  # now, because the thread may already have finished the next micro-batch
        self._failure = self._failure or (error if isinstance(error, Exception) else BrokerError(repr(error)))

    async def finish(self) -> None:
        """Ends the task with a last checkpoint, so that no processed play is replayed.

        Raises: whatever the last checkpoint raised; the task has ended in any case.
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
        """Drops work, state and writer. The partition's next task replays all uncommitted plays."""
        await self._end()

    async def _end(self) -> None:
        if self.phase is TaskPhase.ENDED:
            return
        self.phase = TaskPhase.ENDED
        if self._commits is not None:
            self._commits.cancel()
        self.output_stream.ended = True
        self._uncommitted = _PendingCheckpoint()
        try:
            if self._writer is not None:
                await self._writer.close()
        finally:  # also where a revoke past its deadline cancels this, because nothing ends the task a second time
            await self._owner.close_state(self.partition)

    async def _commit_regularly(self) -> None:
        try:
            while True:
                await self._has_uncommitted.wait()
                await asyncio.sleep(self._dependencies.commit_interval_s)
                await self._commit()
        except asyncio.CancelledError:
            if self.phase is TaskPhase.ENDED:
                raise
            # Not cancelled by this code: a client library did it (stream.kafka.clients).
            self._owner.commit_failed(self, BrokerError("a commit was cancelled from within"))
        except Exception as error:  # whatever a client raises: the partition is opened again
            if self.phase is not TaskPhase.ENDED:
                self._owner.commit_failed(self, error)

    async def _commit(self) -> None:
        async with self._committing:
            # No checkpoint follows a failed one: it would move the offset past plays that are in neither checkpoint.
            if self._failure is not None:
                raise self._failure
            try:
                await self._commit_checkpoint()
            except BaseException as error:
                self.fail(error)
                raise

    async def _commit_checkpoint(self) -> None:
        checkpoint, self._uncommitted = self._uncommitted, _PendingCheckpoint()
        self._has_uncommitted.clear()
        if not checkpoint.num_plays or self._writer is None:
            return
        started_s = time.monotonic()
        # Outputs first, then state and offset: a play whose outputs are missing must be replayed.
        try:
            await asyncio.gather(*(receipt.future for receipt in checkpoint.receipts))
        except Exception as error:  # whatever the producer raises: the plays are replayed
            raise PublishFailed(f"outputs of partition {self.partition} were not acknowledged: {error!r}") from error
        await self._writer.commit(Checkpoint(checkpoint.next_offset, checkpoint.changes, checkpoint.outputs))
        self.committed_offset = checkpoint.next_offset
        checkpoint.counts.count()
        self._owner.committed(self, checkpoint.num_plays, time.monotonic() - started_s)
