"""One trainer leads: a lock held through a consumer group's membership, on whatever broker there is.

The group <app>-trainer-lock is subscribed to the topic of announcements, and its one assignor gives that topic to one member: to
the one that leads, else to the first. A second trainer is given nothing and ends; when the leader dies, its membership
does after the session timeout. Nothing is read from the topic through this group.

On the embedded broker, which is of one machine and forgets its members in a way that can lock everybody out, the lock is a
file, held as long as the process lives.

The group may take a stalled leader for dead. :meth:`GroupLock.confirm` has the broker say who leads, by a commit that only a
current member can make; what slips through between that and an announcement meets the sequence numbers: of two
announcements with one number everybody takes the first.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from intentrec_core.errors import BrokerError, ConfigError, Fenced
from intentrec_core.history.history import hash64
from stream.settings import Settings

#: A leader that was killed is a member for one more session timeout (10 s), then a rebalance runs (up to 30 s).
ACQUIRE_DEADLINE_S = 90.0
#: A broker restart was seen to hold commits up for some 5 s.
CONFIRM_DEADLINE_S = 15.0


class _LeaderAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Gives everything to one member: to the newest claim to lead, else to the first member by name."""

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
        """Nothing to note: the listener is told."""


def _claimed_at(user_data: bytes | None) -> int:
    return int.from_bytes(user_data, "big") if user_data and len(user_data) == 8 else 0


class LeaderLock(Protocol):
    """The right to train and announce; held from :meth:`acquire` until ``lost`` is set or :meth:`release`."""

    lost: asyncio.Event

    async def acquire(self) -> None:
        """Returns once this process leads.

        Raises: Fenced when another trainer leads; BrokerError when that cannot be found out.
        """
        ...

    async def confirm(self, token: str) -> None:
        """Makes sure that this process still leads; ``token`` is noted, for people.

        Raises: Fenced when it does not lead; BrokerError when that cannot be found out.
        """
        ...

    async def release(self) -> None:
        """Lets the next trainer lead."""
        ...


def leader_lock(settings: Settings, *, transactional: bool) -> LeaderLock:
    """The lock for this kind of broker."""
    return GroupLock(settings) if transactional else MachineLock(settings)


class MachineLock:
    """A lock for the trainers of one machine, broker and app: an advisory lock on a file, which the kernel drops."""

    def __init__(self, settings: Settings) -> None:
        self.lost = asyncio.Event()
        name = f"intentrec-trainer-{hash64(f'{settings.broker} {settings.app_id}'):016x}.lock"
        self._path = settings.cache_dir / name
        self._handle: int | None = None

    async def acquire(self) -> None:
        """As :meth:`LeaderLock.acquire`."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"cache_dir {self._path.parent} cannot be written: {error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise Fenced("another trainer of this app_id leads; this one ends") from None
        self._handle = handle

    async def confirm(self, token: str) -> None:
        """As :meth:`LeaderLock.confirm`: the kernel takes a lock from nobody."""
        if self._handle is None:
            raise Fenced("this trainer does not lead; it ends")

    async def release(self) -> None:
        """As :meth:`LeaderLock.release`."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class GroupLock(ConsumerRebalanceListener):  # type: ignore[misc]
    """A lock for all trainers of an app, by membership of a consumer group."""

    def __init__(self, settings: Settings) -> None:
        self.lost = asyncio.Event()
        self._decided = asyncio.Event()
        self._leads = False
        self._partition = TopicPartition(settings.model_updates_topic, 0)
        self._assignor = _LeaderAssignor()
        self._consumer = AIOKafkaConsumer(
            **settings.connection(),
            client_id=f"{settings.app_id}-trainer-lock",
            group_id=f"{settings.app_id}-trainer-lock",
            partition_assignment_strategy=(self._assignor,),
            enable_auto_commit=False,
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 4),
            rebalance_timeout_ms=int(settings.session_timeout_s * 1000),
            # Nothing is ever polled through this consumer, so no poll interval may end its membership.
            max_poll_interval_ms=2**31 - 1,
        )

    @property
    def is_held(self) -> bool:
        """Whether this process leads, as far as it knows."""
        return self._leads and not self.lost.is_set()

    async def acquire(self) -> None:
        """Joins the group; as :meth:`LeaderLock.acquire`."""
        try:
            async with asyncio.timeout(ACQUIRE_DEADLINE_S):
                await self._consumer.start()
                self._consumer.subscribe([self._partition.topic], listener=self)
                await self._decided.wait()
        except TimeoutError:
            raise BrokerError(f"the broker did not say within {ACQUIRE_DEADLINE_S:.0f} s which trainer leads") from None
        except KafkaError as error:
            raise BrokerError(f"the broker refuses the trainers' group: {error!r}; is it up?") from error
        if not self._leads:
            raise Fenced("another trainer of this app_id leads; this one ends")

    async def confirm(self, token: str) -> None:
        """Has the broker say who leads; as :meth:`LeaderLock.confirm`."""
        if not self.is_held:
            raise Fenced("another trainer of this app_id has taken the lead; this one ends")
        try:
            async with asyncio.timeout(CONFIRM_DEADLINE_S):
                await self._consumer.commit({self._partition: OffsetAndMetadata(0, token)})
        except TimeoutError:
            raise BrokerError(f"the broker did not confirm the lead within {CONFIRM_DEADLINE_S:.0f} s") from None
        except KafkaError as error:
            if not self.is_held or not error.retriable:
                raise Fenced(f"the group no longer knows this trainer ({type(error).__name__}); it ends") from error
            raise BrokerError(f"the lead cannot be confirmed: {error!r}") from error

    async def release(self) -> None:
        """Leaves the group, so that a next trainer need not wait for the session timeout."""
        self._leads = False
        await self._consumer.stop()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A rebalance begins; a leader keeps its claim, and the group decides anew."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """The group has decided."""
        leads = self._partition in set(assigned)
        if leads and not self._leads:
            self._assignor.claim = time.time_ns().to_bytes(8, "big")
        if self._leads and not leads:
            self.lost.set()
        self._leads = leads
        for partition in assigned:
            self._consumer.pause(partition)  # or it would fetch announcements that nobody takes
        self._decided.set()
