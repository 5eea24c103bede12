"""Which gateway has which members: partitions shared by group membership, and the whole map known to every gateway.

    join      each member's metadata carries its address
    assign    the group's leader shares the partitions, and sends the map partition -> address to all with the assignment
    look up   owner(user) = map[murmur2(user) % partitions]

Both output topics are keyed by user id and have as many partitions, so a partition of one goes with the same one of the other.
Partitions stay where they are as far as the shares allow: moving one costs reading it back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from msgspec import Struct

from stream.wire.routing import home_partition

if TYPE_CHECKING:
    from aiokafka.cluster import ClusterMetadata

logger = logging.getLogger(__name__)

#: Part of the group's protocol: gateways with another one cannot be members of the same group.
_NAME = "intentrec-gateway-1"
_VERSION = 0


class _Member(Struct, frozen=True):
    """What a gateway says of itself when it joins."""

    address: str


class _Shares(Struct, frozen=True):
    """The owner of each partition, as the leader sends it to all."""

    owners: list[str]


class Ownership:
    """Which gateway has each partition, as of the last rebalance. Owned by the event loop; read from everywhere.

    ``address``: the URL at which other gateways reach this one.
    """

    def __init__(self, address: str, num_partitions: int) -> None:
        self.address = address
        self.num_partitions = num_partitions
        self.owners: Sequence[str] = ()

    def partition_of(self, user_id: str) -> int:
        """The partition of a member's messages."""
        return home_partition(user_id.encode(), self.num_partitions)

    def owner_of(self, partition: int) -> str | None:
        """The address of the gateway that has a partition; None before the first assignment."""
        return self.owners[partition] if partition < len(self.owners) else None

    @property
    def own(self) -> frozenset[int]:
        """The partitions of this gateway."""
        return frozenset(number for number, owner in enumerate(self.owners) if owner == self.address)

    @property
    def num_gateways(self) -> int:
        """Gateways that have partitions."""
        return len(set(self.owners))


def share(addresses: Sequence[str], num_partitions: int, before: Sequence[str]) -> list[str]:
    """The owner of each partition: equal shares, each partition with its owner ``before`` where that one's share allows.

    The same arguments give the same result; ``addresses`` are those of the members, each once.
    """
    order = sorted(addresses)
    quota = {
        address: num_partitions // len(order) + (i < num_partitions % len(order)) for i, address in enumerate(order)
    }
    # Whoever had more before gets the larger share, so that nothing moves where nothing has to.
    had = sorted(order, key=lambda address: -sum(owner == address for owner in before))
    quota = dict(zip(had, sorted(quota.values(), reverse=True), strict=True))
    owners: list[str | None] = [None] * num_partitions
    for number, owner in enumerate(before[:num_partitions]):
        if quota.get(owner, 0) > 0:
            owners[number], quota[owner] = owner, quota[owner] - 1
    free = (address for address in order for _ in range(quota[address]))
    return [owner if owner is not None else next(free) for owner in owners]


def sharing_assignor(ownership: Ownership, topics: Sequence[str]) -> type[AbstractPartitionAssignor]:
    """The assignor of one gateway, which keeps ``ownership`` up to date. aiokafka calls classes, so each gateway has its own."""

    class SharingAssignor(AbstractPartitionAssignor):
        name = _NAME

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            own = msgspec.json.encode(_Member(ownership.address))
            return ConsumerProtocolMemberMetadata(_VERSION, list(topics), own)

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            addresses = {
                member: msgspec.json.decode(metadata.user_data, type=_Member).address
                for member, metadata in sorted(members.items())
            }
            # Two members with one address: a gateway that came back before its old membership ran out, or a wrong setting. The
            # one that is alive takes requests for both; the partitions are dealt to one of the two.
            member_of = {address: member for member, address in addresses.items()}
            if len(member_of) < len(addresses):
                logger.warning("several gateways have one address: set gateway_address to an URL of its own for each")
            owners = share(list(member_of), ownership.num_partitions, ownership.owners)
            told = msgspec.json.encode(_Shares(owners))
            return {
                member: ConsumerProtocolMemberAssignment(
                    _VERSION,
                    [(topic, [n for n, owner in enumerate(owners) if member_of[owner] == member]) for topic in topics],
                    told,
                )
                for member in members
            }

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            ownership.owners = msgspec.json.decode(assignment.user_data, type=_Shares).owners

    return SharingAssignor
