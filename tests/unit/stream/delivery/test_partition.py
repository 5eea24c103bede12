"""A partition task: its last checkpoint after one that failed, and its opening while another worker commits."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from intentrec_core.errors import BrokerError, Fenced, StateError
from intentrec_core.history.changelog_codec import Marker
from stream.delivery.changelog import Checkpoint
from stream.delivery.partition import PartitionTask, TaskDependencies
from stream.delivery.restore import Restored
from stream.delivery.start_offset import SourceFacts
from stream.wire.records import PartitionResult


@dataclass
class Log:
    """A changelog whose first checkpoint hangs until ``fail`` is set."""

    fail: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    checkpoints: list[int] = field(default_factory=list)

    def writer(self, partition: int, marker: object) -> Any:
        return self

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def commit(self, checkpoint: Checkpoint) -> None:
        if not self.begun.is_set():
            self.begun.set()
            await self.fail.wait()
            raise Fenced("partition 0 has a newer owner")
        self.checkpoints.append(checkpoint.next_offset)

    async def source_facts(self, partition: int) -> SourceFacts:
        return SourceFacts(committed=None, beginning=0, end=100, num_partitions=1)

    async def seek_source(self, partition: int, offset: int) -> None:
        pass


async def _nothing(*args: object) -> None:
    pass


async def _restored(partition: int) -> Restored:
    return Restored(histories={}, marker=None, num_records=0, num_bytes=0, duration_s=0.0)


def _task(log: Log, failures: list[BaseException], close_state: Any = None) -> PartitionTask:
    dependencies = TaskDependencies(
        source=log,
        writer=log.writer,
        marker=lambda num_partitions, next_offset: None,
        restore=_restored,
        transactional=True,
        fingerprint="",
        commit_interval_s=0.001,
        recovery_deadline_s=10.0,
    )
    owner = SimpleNamespace(
        open_state=_nothing,
        close_state=close_state or _nothing,
        restored=lambda *_: None,
        committed=lambda *_: None,
        commit_failed=lambda task, error: failures.append(error),
    )
    return PartitionTask(0, dependencies, owner)


def test_no_checkpoint_follows_a_failed_one_and_the_end_raises_its_error() -> None:
    async def scenario() -> None:
        log, failures = Log(), list[BaseException]()
        task = _task(log, failures)
        await task.open()
        task.add(PartitionResult(0, 10, 10), [], in_transaction=True)
        await log.begun.wait()
        # A play that changes nothing has no outputs: the last checkpoint would contain nothing but its offset.
        task.add(PartitionResult(0, 11, 1), [], in_transaction=True)
        finishing = asyncio.create_task(task.finish())
        await asyncio.sleep(0)
        log.fail.set()
        with pytest.raises(Fenced):
            await finishing
        assert log.checkpoints == [], "offset 11 would claim that the plays below 10 are in the state"

    asyncio.run(scenario())


@pytest.mark.parametrize("committed_meanwhile", [True, False])
def test_a_commit_of_a_newer_owner_during_the_opening_is_no_damaged_state(committed_meanwhile: bool) -> None:
    marker = Marker(num_partitions=1, next_offset=2, fingerprint="f" * 16)
    found = iter([None, marker if committed_meanwhile else None])

    async def restore(partition: int) -> Restored:
        return Restored(histories={}, marker=next(found), num_records=0, num_bytes=0, duration_s=0.0)

    class Committed(Log):
        async def source_facts(self, partition: int) -> SourceFacts:
            return SourceFacts(committed=2, beginning=0, end=100, num_partitions=1)

    task = _task(Committed(), [])
    task._dependencies = replace(task._dependencies, restore=restore)
    with pytest.raises(Fenced if committed_meanwhile else StateError):
        asyncio.run(task.open())


def test_a_checkpoint_of_the_previous_owner_just_before_the_fence_is_read() -> None:
    marker = Marker(num_partitions=1, next_offset=2, fingerprint="f" * 16)

    class CommittedLast(Log):
        newest: Marker | None = None

        async def open(self) -> None:
            self.newest = marker

        async def source_facts(self, partition: int) -> SourceFacts:
            committed = None if self.newest is None else self.newest.next_offset
            return SourceFacts(committed=committed, beginning=0, end=100, num_partitions=1)

    async def scenario() -> None:
        log = CommittedLast()

        async def restore(partition: int) -> Restored:
            return Restored(histories={}, marker=log.newest, num_records=0, num_bytes=0, duration_s=0.0)

        task = _task(log, [])
        task._dependencies = replace(task._dependencies, restore=restore, fingerprint=marker.fingerprint)
        await task.open()
        assert task.next_fetch == 2
        await task.abandon()

    asyncio.run(scenario())


def test_a_connection_timeout_is_not_a_recovery_past_its_deadline() -> None:
    async def scenario() -> None:
        log = Log()
        task = _task(log, [])
        log.open = _time_out
        with pytest.raises(TimeoutError) as raised:  # and not RecoveryTimeout, which ends the process
            await task.open()
        assert raised.value.errno == errno.ETIMEDOUT
        await task.abandon()

    asyncio.run(scenario())


def test_no_queued_output_leaves_once_a_task_has_ended() -> None:
    async def scenario() -> None:
        task = _task(Log(), [])
        await task.open()
        assert not task.output_stream.ended
        await task.abandon()
        assert task.output_stream.ended

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [asyncio.CancelledError(), BrokerError("no broker")])
def test_a_task_closes_its_state_although_its_writer_does_not_close(error: BaseException) -> None:
    """A revoke cancels a task that does not finish in time, and a sick broker keeps its producer from closing."""

    class Sick(Log):
        closing = asyncio.Event()

        async def close(self) -> None:
            self.closing.set()
            if isinstance(error, asyncio.CancelledError):
                await asyncio.Event().wait()
            raise error

    async def scenario() -> list[int]:
        log, closed = Sick(), list[int]()

        async def close_state(partition: int) -> None:
            closed.append(partition)

        task = _task(log, [], close_state)
        await task.open()
        finishing = asyncio.create_task(task.finish())
        await log.closing.wait()
        finishing.cancel()
        with pytest.raises(type(error)):
            await finishing
        await task.abandon()
        return closed

    assert asyncio.run(scenario()) == [0]


async def _time_out() -> None:
    raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
