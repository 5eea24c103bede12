"""The naive oracle against examples worked by hand; each rule once, with what lies on either side of its edge."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.worlds.naive_fold import (
    NaiveFold,
    NaiveRecord,
    NaiveResult,
    anchor,
    fold,
    murmur2,
    parse_play,
    parse_time,
    partition_of,
)

NOON = 1_772_366_400_000  # 2026-03-01T12:00:00Z
FORGET = [("intentrec-control", b"forget")]
RULES: dict[str, Any] = {
    "window": 2,
    "watched": 3,
    "session_gap_ms": 1000,
    "max_future_ms": 300_000,
    "earliest_ms": NOON - 86_400_000,
    "num_partitions": 1,
}


def play(event_id: str, ts: Any, *, user: str = "u", item: str | None = None, **more: Any) -> bytes:
    return json.dumps(
        {"event_id": event_id, "user_id": user, "item_id": item or f"item-{event_id}", "ts": ts} | more
    ).encode()


def run(values: list[bytes | NaiveRecord], **options: Any) -> NaiveResult:
    """Fold values as records of member u in partition 0, an hour after noon."""
    records = [
        value if isinstance(value, NaiveRecord) else NaiveRecord(0, offset, NOON + 3_600_000, b"u", value)
        for offset, value in enumerate(values)
    ]
    return fold(records, **(RULES | options))


def held(result: NaiveResult) -> list[str]:
    return [one.event_id for one in NaiveFold(**RULES).plays(result.members[0, "u"])]


def watched(result: NaiveResult) -> list[str]:
    return NaiveFold(**RULES).watched_items(result.members[0, "u"])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_vectors_of_kafkas_own_tests(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected


def test_a_partition_is_the_positive_part_of_the_hash() -> None:
    assert partition_of(b"abc", 8) == 479470107 % 8
    assert partition_of(b"21", 8) == (-973932308 + 2**31) % 8


def test_the_anchor_moves_once_in_n_plays() -> None:
    assert [anchor(k, 3) for k in range(14)] == [0] * 7 + [3, 3, 3, 6, 6, 6, 9]


def test_plays_lie_in_order_of_event_time_and_ties_in_order_of_the_log() -> None:
    result = run([play("a", NOON + 5), play("b", NOON + 9), play("c", NOON + 5), play("d", NOON)])
    assert result.outcomes == ["applied"] * 4
    assert held(result) == ["d", "a", "c", "b"]
    assert (result.members[0, "u"].num_applied, result.members[0, "u"].last_offset) == (4, 3)


def test_the_fifth_play_evicts_the_first_two() -> None:
    values = [play(name, NOON + at) for at, name in enumerate("abcde")]
    assert held(run(values[:4])) == ["a", "b", "c", "d"]
    result = run(values)
    assert held(result) == ["c", "d", "e"]
    assert result.members[0, "u"].num_applied == 5


def test_a_play_is_late_only_when_its_place_is_gone() -> None:
    first = [play(name, NOON + 10 * at) for at, name in enumerate("abcd")]
    assert run([*first, play("old", NOON - 9)]).outcomes[-1] == "applied"  # nothing was evicted
    five = [*first, play("e", NOON + 40)]  # now b, at +10, is the newest that was evicted
    result = run([*five, play("below", NOON + 9)])
    assert result.outcomes[5:] == ["late"]
    result = run([*five, play("same", NOON + 10)])
    assert (result.outcomes[5:], held(result)) == (["applied"], ["same", "c", "d", "e"])
    result = run([*five, play("between", NOON + 19)])
    assert (result.outcomes[5:], held(result)) == (["applied"], ["between", "c", "d", "e"])
    assert result.members[0, "u"].last_offset == 5


def test_a_play_may_be_applied_and_evicted_at_once() -> None:
    result = run([*(play(name, NOON + at) for at, name in enumerate("abcd")), play("old", NOON - 9)])
    assert result.outcomes[-1] == "applied"
    assert held(result) == ["b", "c", "d"]
    assert watched(result) == ["item-b", "item-c", "item-d"]


def test_a_repeat_changes_nothing_whatever_it_says() -> None:
    result = run([play("a", NOON), play("b", NOON + 1), play("a", NOON + 99, item="other")])
    assert result.outcomes == ["applied", "applied", "duplicate"]
    member = result.members[0, "u"]
    assert (member.num_applied, member.last_offset, watched(result)) == (2, 1, ["item-a", "item-b"])
    assert [one.ts for one in member.applied] == [NOON, NOON + 1]


def test_a_late_play_that_comes_again_is_late_again() -> None:
    five = [play(name, NOON + at) for at, name in enumerate("abcde")]
    assert run([*five, play("z", NOON), play("z", NOON)]).outcomes[5:] == ["late", "late"]


def test_a_repeat_of_an_evicted_play_is_late_or_a_duplicate() -> None:
    five = [play(name, NOON + at) for at, name in enumerate("abcde")]
    assert run([*five, play("a", NOON), play("b", NOON + 1)]).outcomes[5:] == ["late", "duplicate"]


def test_the_event_id_of_an_evicted_play_at_a_later_time_is_a_new_play() -> None:
    five = [play(name, NOON + at) for at, name in enumerate("abcde")]
    assert run([*five, play("a", NOON + 9)]).outcomes[5:] == ["applied"]
    assert run([*five, play("a", NOON + 1)]).outcomes[5:] == ["applied"], "a was evicted, but not at this time"


def test_of_evicted_plays_at_one_time_the_first_4n_are_remembered() -> None:
    many = [play(str(at), NOON) for at in range(11)]  # n is 2: 8 are evicted by the eleventh
    assert run(many).outcomes == ["applied"] * 11
    repeated = run([*many, *many, play("new", NOON)])
    assert repeated.outcomes[11:] == ["duplicate"] * 11 + ["late"]
    later = run([*many, play("x", NOON + 1), play("y", NOON + 1), play("8", NOON), play("9", NOON), play("10", NOON)])
    assert later.outcomes[11:] == ["applied", "applied", "late", "late", "duplicate"]


def test_two_members_may_use_one_event_id() -> None:
    other = NaiveRecord(0, 1, NOON, b"v", play("a", NOON, user="v"))
    assert run([play("a", NOON), other]).outcomes == ["applied", "applied"]


def test_watched_holds_the_items_of_the_last_plays_in_event_time() -> None:
    values = [play(str(at), NOON + at, item=item) for at, item in enumerate(["p", "q", "p", "r", "s"])]
    assert watched(run(values)) == ["p", "r", "s"]
    assert watched(run([*values[:3], play("late", NOON, item="t")])) == ["t", "q", "p"]


def test_a_gap_in_event_time_opens_a_session() -> None:
    times = [NOON, NOON + 1000, NOON + 2001, NOON + 1500]
    result = run([play(str(at), ts) for at, ts in enumerate(times)], window=9)
    assert result.opened == [True, False, True, False]


def test_a_late_play_opens_the_session_of_the_newest_play_or_none() -> None:
    newest_begins_earlier = run([play("a", NOON), play("b", NOON - 1000), play("c", NOON - 1000)], window=9)
    assert newest_begins_earlier.opened == [True, True, False]
    older_session = run([play("a", NOON), play("b", NOON - 1001)], window=9)
    assert older_session.opened == [True, False]


def test_a_forgotten_member_begins_anew() -> None:
    order = NaiveRecord(0, 1, NOON, b"u", None, FORGET)
    result = run([play("a", NOON), order])
    assert (result.outcomes, result.members) == (["applied", "erased"], {})
    result = run([play("a", NOON + 5), order, play("a", NOON)])
    assert result.outcomes == ["applied", "erased", "applied"]
    member = result.members[0, "u"]
    assert (member.num_applied, member.last_offset, member.applied[0].ts) == (1, 2, NOON)


def test_an_order_acts_on_its_own_member_only() -> None:
    result = run([play("a", NOON), NaiveRecord(0, 1, NOON, b"v", None, FORGET)])
    assert (result.outcomes[1], held(result)) == ("erased", ["a"])


@pytest.mark.parametrize(
    "record",
    [
        NaiveRecord(0, 1, NOON, b"u", None),
        NaiveRecord(0, 1, NOON, None, None, FORGET),
        NaiveRecord(0, 1, NOON, b"\xff", None, FORGET),
        NaiveRecord(1, 1, NOON, b"u", None, FORGET),
        NaiveRecord(0, 1, NOON, b"u", play("b", NOON), [("intentrec-control", b"other")]),
        NaiveRecord(0, 1, NOON, b"u", None, [("intentrec-control", b"other")]),
        NaiveRecord(0, 1, NOON, b"u", None, FORGET * 2),
    ],
)
def test_what_is_no_order_forgets_nothing(record: NaiveRecord) -> None:
    result = run([play("a", NOON), record])
    assert (result.outcomes[1], held(result)) == ("rejected", ["a"])


def test_a_requests_value_is_ignored() -> None:
    result = run([play("a", NOON), NaiveRecord(0, 1, NOON, b"u", play("b", NOON), FORGET)])
    assert (result.outcomes[1], result.members) == ("erased", {})


def test_a_play_belongs_to_its_key_and_the_keys_partition() -> None:
    value = play("a", NOON, user="abc")  # 479470107 is 3 more than a multiple of 4
    records = [
        NaiveRecord(3, 0, NOON, b"abc", value),
        NaiveRecord(2, 0, NOON, b"abc", value),
        NaiveRecord(3, 1, NOON, b"abd", value),
        NaiveRecord(3, 2, NOON, None, value),
    ]
    result = run([*records], num_partitions=4)
    assert result.outcomes == ["applied", "rejected", "rejected", "duplicate"]
    result = run([*records], num_partitions=None)
    assert result.outcomes == ["applied", "applied", "rejected", "duplicate"]
    assert sorted(result.members) == [(2, "abc"), (3, "abc")]


def test_a_play_from_the_future_is_judged_by_its_record() -> None:
    at_the_edge = NaiveRecord(0, 0, NOON, b"u", play("a", NOON + 300_000))
    beyond = NaiveRecord(0, 1, NOON, b"u", play("b", NOON + 300_001))
    without_a_time = NaiveRecord(0, 2, -1, b"u", play("c", NOON + 300_001))
    assert run([at_the_edge, beyond, without_a_time]).outcomes == ["applied", "rejected", "applied"]


def test_a_play_before_the_earliest_time_is_refused() -> None:
    assert run([play("a", NOON - 86_400_000), play("b", NOON - 86_400_001)]).outcomes == ["applied", "rejected"]


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (7, "applied"),
        (" 7.5 ", "applied"),
        (True, "applied"),
        ("true", "applied"),
        (None, "applied"),
        ("many", "rejected"),
        ("nan", "rejected"),
        ("1e39", "rejected"),
    ],
)
def test_what_the_domain_reads_as_a_number_has_to_be_one(number: Any, outcome: str) -> None:
    value = play("a", NOON, context={"limit": number})
    assert run([value], numbers=["limit"]).outcomes == [outcome]
    assert run([value]).outcomes == ["applied"]


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        (0, 0),
        (4_102_444_799_999, 4_102_444_799_999),
        ("2026-03-01T12:00:00.000Z", NOON),
        ("2026-03-01T12:00:00", NOON),
        ("2026-03-01T14:30:00+02:30", NOON),
        ("2026-03-01T12:00:00.0019Z", NOON + 1),
        ("2026-03-01", NOON - 43_200_000),
        ("1772366400000", NOON),
        (1_772_366_400_000.0, NOON),
        ("1772366400000.0", NOON),
        ("2026-03-01t12:00:00z", NOON),
        ("2026-02-28T24:00", NOON - 43_200_000),
        ("20260301T240000,000+12:00", NOON),
        ("2016-12-31T23:59:60.250Z", 1_483_228_800_250),
        ("2017-01-01T09:59:60+10:00", 1_483_228_800_000),
    ],
)
def test_times_are_read(ts: Any, expected: int) -> None:
    assert parse_time(ts) == expected


@pytest.mark.parametrize(
    "ts",
    [
        -1,
        4_102_444_800_000,
        1.5,
        True,
        None,
        "1969-12-31T23:59:59.999Z",
        "2100-01-01T00:00:00Z",
        "177236640000.5",
        "1.",
        4_102_444_800_000.0,
        "-1772366400000",
        "2026-03-01T24:00:01",
        "2026-03-01T24:00:00.0000001",
        "2026-03-01T11:59:60Z",
        "noon",
        "2026-03-01T12:00:00" + "Z" * 50,
    ],
)
def test_times_are_refused(ts: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the oracle promises no message
        parse_time(ts)


def test_fields_reach_the_play() -> None:
    one = parse_play(play("a", NOON, action="click", duration_s=1.5, context={"device": "tv", "n": 2}, unknown=[{}]))
    assert one == ("a", "u", "item-a", NOON, "click", 1.5, {"device": "tv", "n": 2})
    bare = parse_play(play("a", NOON, action=None, duration_s=None, context=None, session_id=None, schema_version=None))
    assert bare[4:] == (None, None, {})
    assert parse_play(play("a", NOON, context={"x": None})).context == {"x": None}


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"[]",
        b"{",
        b"\xff",
        "\ufeff{}".encode(),
        play("a", NOON).decode().encode("utf-16"),
        play("a", NOON) + b" " * 1_000_000,
        play("", NOON),
        play("a" * 257, NOON),
        play("a", NOON, item="é" * 129),
        play("\ud800", NOON),
        play("a", NOON, schema_version=2),
        play("a", NOON, action=""),
        play("a", NOON, session_id=7),
        play("a", NOON, duration_s=-0.1),
        play("a", NOON, duration_s=31_622_401),
        play("a", NOON, duration_s=True),
        play("a", NOON, duration_s=float("nan")),
        play("a", NOON, context=[]),
        play("a", NOON, context={"": 1}),
        play("a", NOON, context={"x": []}),
        play("a", NOON, context={"x": 3.5e38}),
        play("a", NOON, context={"x": 2**53 + 1}),
        play("a", NOON, context={"x": "y" * 1025}),
        play("a", NOON, context={str(at): at for at in range(65)}),
        b'{"event_id": "a", "user_id": "u", "item_id": "i"}',
    ],
)
def test_what_the_schema_refuses_is_rejected_and_changes_nothing(value: bytes | None) -> None:
    result = run([play("first", NOON), NaiveRecord(0, 1, NOON, b"u", value)])
    assert (result.outcomes[1], held(result)) == ("rejected", ["first"])


def test_what_lies_on_the_schemas_edges_is_applied() -> None:
    edges: dict[str, Any] = {
        "context": {str(at): "y" * 1024 for at in range(61)} | {"f": -3.4e38, "t": True, "e": ""},
        "duration_s": 31_622_400,
        "schema_version": 1,
        "action": "é" * 256,
    }
    value = play("é" * 128, NOON, item="é" * 128, **edges)
    exactly = value + b" " * (1_000_000 - len(value))
    assert run([exactly]).outcomes == ["applied"]
