"""The newest messages of each member: lower offsets are dropped, memory is bounded, partitions that went are forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream.gateway.member_states import Kind, MemberStates
from stream.ops.metrics import ReadOutcome


def message(user_id: str, offset: int, *, bundle: str = "b1", partition: int = 0, **fields: Any) -> bytes:
    source = {"topic": "plays", "partition": partition, "offset": offset}
    return json.dumps({"user_id": user_id, "bundle": bundle, "source": source} | fields).encode()


def states(**options: Any) -> MemberStates:
    return MemberStates(**({"max_members": 100, "max_bytes": 1 << 20} | options))


def take(held: MemberStates, user_id: str, offset: int, kind: Kind = Kind.INTENTS, **fields: Any) -> ReadOutcome:
    return held.take(kind, fields.pop("at", 0), user_id.encode(), message(user_id, offset, **fields))


def test_a_message_at_or_below_the_newest_one_is_dropped_for_each_kind_by_itself() -> None:
    held = states()
    assert take(held, "u", 5) is ReadOutcome.TAKEN
    for offset in (5, 4):
        assert take(held, "u", offset, later=True) is ReadOutcome.STALE
    assert take(held, "u", 4, Kind.RECOMMENDATIONS) is ReadOutcome.TAKEN
    assert take(held, "v", 1) is ReadOutcome.TAKEN
    member = held.get("u")
    assert member is not None
    assert {kind: newest.offset for kind, newest in member.newest.items()} == {Kind.INTENTS: 5, Kind.RECOMMENDATIONS: 4}
    assert b"later" not in member.newest[Kind.INTENTS].value


def test_offsets_of_another_partition_of_the_plays_are_not_compared() -> None:
    held = states()
    take(held, "u", 5, partition=0)
    assert take(held, "u", 1, partition=7) is ReadOutcome.TAKEN


@pytest.mark.parametrize("key", [None, b"", b"v", b"\xff"])
def test_a_record_whose_key_is_not_its_member_is_nobodys(key: bytes | None) -> None:
    held = states()
    assert held.take(Kind.INTENTS, 0, key, message("u", 1)) is ReadOutcome.UNREADABLE
    assert not len(held)


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"user_id":"u"}', b'{"user_id":"\xff"}'])
def test_a_record_that_is_no_message_is_left_out(value: bytes | None) -> None:
    assert states().take(Kind.INTENTS, 0, b"u", value) is ReadOutcome.UNREADABLE


def test_a_message_is_one_line_and_says_the_same() -> None:
    held, value = states(), json.dumps(json.loads(message("u", 1, title="a\nb\r")), indent=1).encode()
    assert b"\n" in value
    held.take(Kind.INTENTS, 0, b"u", value)
    kept = held.get("u").newest[Kind.INTENTS].value  # type: ignore[union-attr]
    assert b"\n" not in kept
    assert json.loads(kept) == json.loads(value)


def test_the_newest_message_of_the_bundle_before_is_kept() -> None:
    held = states()
    for offset, bundle in enumerate(["b1", "b1", "b2", "b2"]):
        take(held, "u", offset, bundle=bundle)
    member = held.get("u")
    assert member is not None
    found = {bundle: member.of_bundle(Kind.INTENTS, bundle) for bundle in (None, "b1", "b2", "b3")}
    assert {bundle: newest and newest.offset for bundle, newest in found.items()} == {
        None: 3,
        "b2": 3,
        "b1": 1,
        "b3": None,
    }


def test_the_members_that_changed_longest_ago_go_first_and_are_counted() -> None:
    evicted: list[None] = []
    held = states(max_members=2, on_evicted=lambda: evicted.append(None))
    for user, offset in (("a", 0), ("b", 1), ("a", 2), ("c", 3)):
        take(held, user, offset)
    assert [member.user_id for member in held.newest_first(9)] == ["c", "a"]
    assert (len(evicted), held.num_evicted) == (1, 1)


def test_bytes_are_bounded_and_add_up() -> None:
    held = states(max_bytes=10_000)
    for offset in range(200):
        take(held, f"u{offset % 50}", offset, text="x" * (offset % 7) * 100)
        assert held.num_bytes == sum(member.num_bytes for member in held)
        assert held.num_bytes <= 10_000
    assert 1 < len(held) < 50
    held.keep_partitions([])
    assert (held.num_bytes, len(held)) == (0, 0)


def test_members_of_other_partitions_are_forgotten() -> None:
    held = states()
    for partition in range(4):
        take(held, f"u{partition}", 0, at=partition)
    held.keep_partitions({1, 3})
    assert [member.user_id for member in held] == ["u1", "u3"]


def test_a_message_out_of_the_store_is_known_and_nobody_is_told() -> None:
    """It is no change: streams, the store and the pipeline's figures have had it."""
    told: list[Kind] = []
    held = states(on_taken=lambda kind, member, newest: told.append(kind))
    assert held.take_stored(Kind.INTENTS, 0, b"u", message("u", 5)) is ReadOutcome.TAKEN
    assert held.get("u") is not None
    assert not told
    assert take(held, "u", 6) is ReadOutcome.TAKEN
    assert told == [Kind.INTENTS]


def test_a_message_that_is_read_back_is_no_news_and_the_store_gets_it() -> None:
    told: list[str] = []
    held = states(
        on_taken=lambda kind, member, newest: told.append("news"),
        on_taken_back=lambda kind, member, newest: told.append("store"),
    )
    assert held.take_back(Kind.INTENTS, 0, b"u", message("u", 5)) is ReadOutcome.TAKEN
    assert told == ["store"]
