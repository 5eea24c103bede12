"""The leader lock: at most one trainer of an app trains and announces.

On Kafka the lock is membership of the consumer group <app>-trainer-lock. The group subscribes to the announcements topic, and
its assignor gives that topic to one member: the current leader, or the first member if there is none. A second trainer is
assigned nothing and exits. When the leader dies, its membership expires after the session timeout. The group reads nothing
from the topic.

On the embedded broker the lock is a file, held as long as the process lives. That broker runs on one machine, and it drops
members in a way that can lock every trainer out.

The group can declare a stalled leader dead. :meth:`GroupLock.confirm` therefore checks the lead with the broker, by a commit
that only a current member can make. If the lead is lost between that check and the announcement, sequence numbers decide: of
two announcements with the same number, every subscriber takes the first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from filelock import FileLock, Timeout

from intentrec_core.errors import BrokerError, ConfigError, Fenced
from intentrec_core.history.history import hash64
from stream.kafka.clients import close_consumer, consumer_options
from stream.settings import Settings

#: A killed leader stays a member for one session timeout (10 s), then a rebalance runs (up to 30 s).
ACQUIRE_DEADLINE_S = 90.0
#: A broker restart has been seen to delay commits by some 5 s.
CONFIRM_DEADLINE_S = 15.0


class _LeaderAssignor(AbstractPartitionAssignor):
    """Assigns everything to one member: to the newest claim of leadership, else to the first member by name."""

    name = "leader"

    def __init__(self) -> None:
        self.claim = b""

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        return ConsumerProtocolMemberMetadata(0, sorted(topics), self.claim)

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, ConsumerProtocolMemberAssignment]:
        leader = min(members, key=lambda member: (-_claimed_at(members[member].user_data), member))
        return {
            member: ConsumerProtocolMemberAssignment(
                0, [(topic, [0]) for topic in metadata.subscription] if member == leader else [], b""
            )
            for member, metadata in members.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Does nothing: the rebalance listener handles the assignment."""


def _claimed_at(user_data: bytes | None) -> int:
    return int.from_bytes(user_data, "big") if user_data and len(user_data) == 8 else 0


class LeaderLock(Protocol):
    """The right to train and announce, held from :meth:`acquire` until ``lost`` is set or :meth:`release` is called."""

    lost: asyncio.Event

    async def acquire(self) -> None:
        """Returns once this process leads.

        Raises: Fenced if another trainer leads; BrokerError if the broker gives no answer.
        """
        ...

    async def confirm(self, token: str) -> None:
        """Returns if this process still leads. ``token`` is stored with the check, for people who debug.

        Raises: Fenced if it does not lead; BrokerError if the broker gives no answer.
        """
        ...

    async def release(self) -> None:
        """Gives the lead up, so that another trainer can take it."""
        ...


def leader_lock(settings: Settings, *, transactional: bool) -> LeaderLock:
    """The lock for the kind of broker: a group on Kafka, a file beside the embedded broker."""
    return GroupLock(settings) if transactional else MachineLock(settings)


class MachineLock:
    """A lock for the trainers of one machine, broker and app: an advisory file lock, released by the kernel on exit."""

    def __init__(self, settings: Settings) -> None:
        self.lost = asyncio.Event()
        name = f"intentrec-trainer-{hash64(f'{settings.broker} {settings.app_id}'):016x}.lock"
        self._lock = FileLock(settings.cache_dir / name, timeout=0, thread_local=False)
        self._folder = settings.cache_dir

    async def acquire(self) -> None:
        """See :meth:`LeaderLock.acquire`. Also raises ConfigError if the cache folder is not writable."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:  # an OSError too
            raise Fenced("another trainer of this app_id leads; this one exits") from None
        except OSError as error:
            raise ConfigError(
                f"cache_dir {self._folder} is not writable: {error}; make it writable or set another"
            ) from error

    async def confirm(self, token: str) -> None:
        """See :meth:`LeaderLock.confirm`. The kernel never revokes a file lock, so holding it is leading."""
        if not self._lock.is_locked:
            raise Fenced("this trainer does not lead; it exits")

    async def release(self) -> None:
        """See :meth:`LeaderLock.release`."""
        self._lock.release()


class GroupLock(ConsumerRebalanceListener):
    """A lock for all trainers of an app, held by membership of a consumer group."""

    def __init__(self, settings: Settings) -> None:
        self.lost = asyncio.Event()
        self._decided = asyncio.Event()
        self._leads = False
        self._partition = TopicPartition(settings.model_updates_topic, 0)
        self._assignor = _LeaderAssignor()
        self._consumer = AIOKafkaConsumer(
            **consumer_options(settings, "trainer-lock"),
            group_id=f"{settings.app_id}-trainer-lock",
            partition_assignment_strategy=(self._assignor,),
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 4),
            rebalance_timeout_ms=int(settings.session_timeout_s * 1000),
            # This consumer never polls, so a poll interval must not end its membership.
            max_poll_interval_ms=2**31 - 1,
        )

    @property
    def is_held(self) -> bool:
        """Whether this process leads, as far as it knows."""
        return self._leads and not self.lost.is_set()

    async def acquire(self) -> None:
        """Joins the group and waits for its assignment. See :meth:`LeaderLock.acquire`."""
        try:
            async with asyncio.timeout(ACQUIRE_DEADLINE_S):
                await self._consumer.start()
                self._consumer.subscribe([self._partition.topic], listener=self)
                await self._decided.wait()
        except TimeoutError:
            raise BrokerError(
                f"the trainers' group was not assigned a leader within {ACQUIRE_DEADLINE_S:.0f} s; is the broker healthy?"
            ) from None
        except KafkaError as error:
            raise BrokerError(f"cannot join the trainers' group: {error!r}; is the broker up?") from error
        if not self._leads:
            raise Fenced("another trainer of this app_id leads; this one exits")

    async def confirm(self, token: str) -> None:
        """Confirms the lead by a commit, which the broker accepts only from a current member. See :meth:`LeaderLock.confirm`."""
        if not self.is_held:
            raise Fenced("another trainer of this app_id has taken the lead; this one exits")
        try:
            async with asyncio.timeout(CONFIRM_DEADLINE_S):
                await self._consumer.commit({self._partition: OffsetAndMetadata(0, token)})
        except TimeoutError:
            raise BrokerError(f"the broker did not confirm the lead within {CONFIRM_DEADLINE_S:.0f} s") from None
        except KafkaError as error:
            if not self.is_held or not error.retriable:
                raise Fenced(
                    f"this trainer is no longer a member of its group ({type(error).__name__}); it exits"
                ) from error
            raise BrokerError(f"the broker could not confirm the lead: {error!r}") from error

    async def release(self) -> None:
        """Leaves the group, so that the next trainer need not wait for the session timeout."""
        self._leads = False
        await close_consumer(self._consumer)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A rebalance begins: a leader keeps its claim, and the group assigns again."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """The group has assigned the topic: notes whether this process leads."""
        leads = self._partition in set(assigned)
        if leads and not self._leads:
            self._assignor.claim = time.time_ns().to_bytes(8, "big")
        if self._leads and not leads:
            self.lost.set()
        self._leads = leads
        for partition in assigned:
            self._consumer.pause(partition)  # or it would fetch announcements that are never polled
        self._decided.set()
