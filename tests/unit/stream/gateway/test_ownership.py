"""Partitions are shared evenly, each to one gateway, and stay where they are as far as that goes."""

from __future__ import annotations

from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from stream.gateway.ownership import Ownership, share, sharing_assignor

ADDRESSES = st.lists(st.sampled_from([f"http://g{n}" for n in range(6)]), min_size=1, unique=True)


@given(addresses=ADDRESSES, before=st.lists(st.sampled_from([f"http://g{n}" for n in range(6)]), max_size=12))
def test_shares_are_even_and_no_partition_moves_without_need(addresses: list[str], before: list[str]) -> None:
    num = 12
    owners = share(addresses, num, before)
    assert set(owners) <= set(addresses)
    assert len(owners) == num
    counts = [owners.count(address) for address in addresses]
    assert max(counts) - min(counts) <= 1
    assert share(list(reversed(addresses)), num, before) == owners
    # Each gateway keeps all that it had, up to its share.
    for address, count in zip(addresses, counts, strict=True):
        kept = sum(was == address == now for was, now in zip(before, owners, strict=False))
        assert kept == min(count, before.count(address))


def test_every_member_learns_the_whole_map_from_the_leaders_assignment() -> None:
    topics = ["intents", "recommendations"]
    gateways = {name: Ownership(f"http://{name}", 5) for name in ("g1", "g2")}
    assignors: dict[str, Any] = {name: sharing_assignor(found, topics) for name, found in gateways.items()}
    joined = {name: _wire(ConsumerProtocolMemberMetadata, assignors[name].metadata(topics)) for name in gateways}
    assignments = assignors["g1"].assign(None, joined)
    for name, assignment in assignments.items():
        assignors[name].on_assignment(_wire(ConsumerProtocolMemberAssignment, assignment))
    assert list(gateways["g1"].owners) == list(gateways["g2"].owners)
    assert gateways["g1"].own | gateways["g2"].own == set(range(5))
    assert not gateways["g1"].own & gateways["g2"].own
    for name, ownership in gateways.items():
        given = dict(assignments[name].assignment)
        assert {topic: set(parts) for topic, parts in given.items()} == dict.fromkeys(topics, ownership.own)
    assert gateways["g1"].num_gateways == 2


def test_two_members_of_one_address_share_nothing_twice() -> None:
    """As after a restart, while the old membership has not run out yet."""
    topics = ["intents", "recommendations"]
    ownership = Ownership("http://g1", 4)
    assignor: Any = sharing_assignor(ownership, topics)
    metadata = _wire(ConsumerProtocolMemberMetadata, assignor.metadata(topics))
    assignments = assignor.assign(None, {"new": metadata, "old": metadata})
    given = [
        parts for assignment in assignments.values() for topic, parts in assignment.assignment if topic == "intents"
    ]
    assert sorted(number for parts in given for number in parts) == [0, 1, 2, 3]


def _wire(kind: Any, sent: Any) -> Any:
    return kind.decode(sent.encode())


def test_a_members_partition_is_that_of_kafkas_java_client() -> None:
    assert [Ownership("", 8).partition_of(user) for user in ("u1", "u2", "ü", "667")] == [
        Ownership("", 8).partition_of(user) for user in ("u1", "u2", "ü", "667")
    ]
