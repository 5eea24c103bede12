"""Histories: the anchored window, late plays, repeats, sessions, what was watched."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import pytest

from intentrec_core.domain.spec import value_text
from intentrec_core.domain.toml import load_domain
from intentrec_core.history.changelog_codec import encode_changes, largest_record
from intentrec_core.history.history import EventLayout, History, Outcome, anchor, hash64
from tests.worlds.tiny_plays import watched_hashes
from tests.worlds.tiny_world import START_MS, TinyWorld


def fold(world: TinyWorld, history: History, *plays: tuple[int, float]) -> list[Outcome]:
    """Folds (item, seconds) pairs with rising offsets and fresh event ids."""
    first = history.last_offset + 1
    return [
        history.apply(world.layout, world.play(item, first + i, at_s), first + i).outcome
        for i, (item, at_s) in enumerate(plays)
    ]


def items(world: TinyWorld, history: History) -> list[int]:
    names = {hash64(f"item-{i}"): i for i in range(40)}
    return [names[int(h)] for h in history.view(world.layout)["item_hash"]]


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 0), (4, 0), (8, 0), (9, 4), (12, 4), (13, 8), (16, 8), (17, 12), (100, 92)]
)
def test_the_anchor_moves_once_every_window_plays(count: int, expected: int) -> None:
    assert anchor(count, 4) == expected
    assert count <= 8 or 4 < count - expected <= 8


def test_a_history_holds_exactly_its_context(world: TinyWorld) -> None:
    history = History()
    for i in range(30):
        fold(world, history, (i, 10.0 * i))
        assert items(world, history) == list(range(anchor(i + 1, 4), i + 1))


def test_late_plays_sort_by_event_time_and_equal_times_keep_arrival_order(world: TinyWorld) -> None:
    history = History()
    outcomes = fold(world, history, (1, 10.0), (2, 30.0), (3, 20.0), (4, 20.0), (5, 0.0))
    assert outcomes == [Outcome.APPENDED, Outcome.APPENDED, Outcome.INSERTED, Outcome.INSERTED, Outcome.INSERTED]
    assert items(world, history) == [5, 1, 3, 4, 2]


def test_a_play_older_than_the_newest_evicted_one_is_too_late(world: TinyWorld) -> None:
    """Plays at 0 to 30 s are evicted; 40 s is the oldest one held."""
    history = History()
    fold(world, history, *((i, 10.0 * i) for i in range(9)))
    assert history.anchor(world.layout) == 4
    before = bytes(history.events)
    assert fold(world, history, (20, 29.999)) == [Outcome.TOO_LATE]
    assert bytes(history.events) == before
    assert fold(world, history, (21, 39.0), (22, 30.0), (23, 40.0)) == [Outcome.INSERTED] * 3
    assert items(world, history) == [22, 21, 4, 23, 5, 6, 7, 8]


def again(world: TinyWorld, history: History, numbers: Sequence[int], at_s: Sequence[float]) -> list[Outcome]:
    """Sends exact repeats of plays by their number, with new offsets; none may change the history."""
    before, first = copy(history), history.last_offset + 1
    outcomes = [
        history.apply(world.layout, world.play(number % 9, number, at_s[number]), first + i).outcome
        for i, number in enumerate(numbers)
    ]
    assert history == before
    return outcomes


def sent(world: TinyWorld, at_s: Sequence[float]) -> History:
    """A history of plays at these times, each of them new."""
    history = History()
    for number, at in enumerate(at_s):
        assert history.apply(world.layout, world.play(number % 9, number, at), number).outcome.changed
    return history


def test_a_repeat_of_an_evicted_play_at_the_time_of_the_oldest_held_changes_nothing() -> None:
    """201 plays, of which 100 are evicted; the newest evicted one and the oldest one held are of one millisecond."""
    world = TinyWorld(window=100)
    at_s = [float(i) for i in range(100)] + [99.0] + [float(i) for i in range(101, 201)]
    history = sent(world, at_s)
    assert history.anchor(world.layout) == 100
    assert again(world, history, [99], at_s) == [Outcome.DUPLICATE]
    assert again(world, history, [98, 100], at_s) == [Outcome.TOO_LATE, Outcome.DUPLICATE]
    assert history.count == 201


def test_plays_of_one_millisecond_sent_twice_change_nothing() -> None:
    world, at_s = TinyWorld(window=100), [5.0] * 250
    history = sent(world, at_s)
    assert again(world, history, range(250), at_s) == [Outcome.DUPLICATE] * 250
    assert history.count == 250


def test_a_new_play_at_the_time_of_the_newest_evicted_one_is_folded_in_while_4n_are_known(world: TinyWorld) -> None:
    """n is 4: the 5n + 1st play of one millisecond evicts the 16th, and from then on no new one of this time is known."""
    at_s = [5.0] * 21
    history = sent(world, at_s)
    assert history.anchor(world.layout) == 16
    assert fold(world, history, (1, 5.0)) == [Outcome.TOO_LATE]
    assert again(world, history, range(21), at_s) == [Outcome.DUPLICATE] * 21
    assert fold(world, history, (1, 5.001), *((1, 5.0 + i) for i in range(1, 4))) == [Outcome.APPENDED] * 4
    assert again(world, history, range(21), at_s) == [Outcome.DUPLICATE] * 16 + [Outcome.TOO_LATE] * 4 + [
        Outcome.DUPLICATE
    ]


def test_the_known_evicted_plays_are_those_of_the_newest_time(world: TinyWorld) -> None:
    at_s = [0.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    history = sent(world, at_s)
    assert (history.newest_evicted_ms, len(history.newest_evicted)) == (START_MS + 2000, 2 * 8)
    assert again(world, history, range(5), at_s) == [Outcome.TOO_LATE] * 2 + [Outcome.DUPLICATE] * 3
    fold(world, history, *((1, 4.0 + i) for i in range(4)))
    assert (history.newest_evicted_ms, len(history.newest_evicted)) == (START_MS + 3000, 3 * 8)


def test_a_play_inserted_and_evicted_in_one_step_is_known_too(world: TinyWorld) -> None:
    history = History()
    fold(world, history, *((i, 10.0 * i) for i in range(8)), (20, 25.0))
    assert items(world, history) == [3, 4, 5, 6, 7]
    assert history.newest_evicted_ms == START_MS + 25_000
    assert again(world, history, [8], [0.0] * 8 + [25.0]) == [Outcome.DUPLICATE]


def test_a_play_between_evicted_and_held_ones_continues_or_opens_a_session(world: TinyWorld) -> None:
    """Plays at 0 to 3 s are evicted; the gap is 1800 s, and the oldest play held opened a session."""
    at_s = [0.0, 1.0, 2.0, 3.0, *(5000.0 + i for i in range(5))]
    history = sent(world, at_s)
    assert history.session_start_ms(world.layout, 0) == START_MS + 5_000_000
    fold(world, history, (1, 1803.0))
    assert history.session_start_ms(world.layout, 0) == START_MS
    history = sent(world, at_s)
    fold(world, history, (1, 1803.001))
    assert history.session_start_ms(world.layout, 0) == START_MS + 1_803_001
    assert history.session_start_ms(world.layout, 1) == START_MS + 5_000_000


def test_a_repeated_event_changes_nothing(world: TinyWorld) -> None:
    history = History()
    fold(world, history, (1, 10.0), (2, 20.0))
    before = (history.count, bytes(history.events), history.last_offset)
    assert history.apply(world.layout, world.play(9, 0, 50.0), 7).outcome is Outcome.DUPLICATE
    assert (history.count, bytes(history.events), history.last_offset) == before


def test_a_play_at_or_below_the_last_offset_is_a_replay(world: TinyWorld) -> None:
    history = History()
    fold(world, history, (1, 10.0), (2, 20.0))
    assert history.apply(world.layout, world.play(1, 0, 10.0), 0).outcome is Outcome.REPLAYED
    assert history.count == 2


def test_an_event_hash_inside_another_column_is_no_repeat(world: TinyWorld) -> None:
    """An item whose id is a later event's id puts that event's hash into the packed bytes, in another column."""
    history = History()
    first = world.layout.pack(item_id="event-1", event_id="event-0", ts_ms=START_MS, duration_s=1.0, attributes={})
    history.apply(world.layout, first, 0)
    assert history.apply(world.layout, world.play(2, 1, 5.0), 1).outcome is Outcome.APPENDED


def test_a_repeat_is_found_among_plays_whose_hashes_begin_alike() -> None:
    """Of 300 hashes some share their first byte: each is new once, and a repeat wherever it stands in the context."""
    world, history = TinyWorld(window=200), History()
    plays = [world.play(i % 9, i, 10.0 * i) for i in range(300)]
    outcomes = [history.apply(world.layout, play, i).outcome for i, play in enumerate(plays)]
    assert outcomes == [Outcome.APPENDED] * 300
    again = [history.apply(world.layout, play, 300 + i).outcome for i, play in enumerate(plays)]
    assert again == [Outcome.DUPLICATE] * 300


def test_an_item_is_found_only_before_its_play() -> None:
    world, history = TinyWorld(window=200), History()
    numbers = [(i * i) % 257 for i in range(300)]
    for i, number in enumerate(numbers):
        history.apply(world.layout, world.play(number, i, 10.0 * i), i)
    found = [world.layout.has_item_before(history.events, i) for i in range(300)]
    assert found == [number in numbers[:i] for i, number in enumerate(numbers)]


def test_who_took_a_context_keeps_it_as_it_was(world: TinyWorld) -> None:
    """A run of a micro-batch holds it while later plays are folded in: behind it, into it, and so that the anchor moves."""
    history, taken = History(), []
    for at_s in (10.0, 30.0, 20.0, *(40.0 + i for i in range(12))):
        fold(world, history, (1, at_s))
        taken.append((history.events, bytes(memoryview(history.events))))
    assert all(context == copy for context, copy in taken)


def test_a_session_ends_by_the_gap_in_event_time(world: TinyWorld) -> None:
    history = History()
    fold(world, history, (1, 0.0), (2, 1800.0), (3, 3601.0), (4, 3700.0))
    starts = [history.session_start_ms(world.layout, i) - START_MS for i in range(4)]
    assert starts == [0, 0, 3_601_000, 3_601_000]


def test_a_session_outlives_the_plays_that_left_the_context(world: TinyWorld) -> None:
    history = History()
    fold(world, history, (0, 0.0), *((i % 20, 10_000.0 + i) for i in range(40)))
    assert history.session_start_ms(world.layout, 0) == START_MS + 10_000_000
    fold(world, history, (3, 99_000.0))
    newest = history.num_events(world.layout) - 1
    assert history.session_start_ms(world.layout, newest) == START_MS + 99_000_000


def test_watched_items_reach_back_past_the_context(world: TinyWorld) -> None:
    history = History()
    fold(world, history, *((i, 10.0 * i) for i in range(38)))
    assert watched_hashes(history, world.layout) == [hash64(f"item-{i}") for i in range(38 - 24, 38)]


@pytest.mark.parametrize("value", ["many", float("nan"), float("inf"), [1]])
def test_a_number_that_is_none_is_refused(world: TinyWorld, value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"max_maturity|float"):
        world.layout.pack(item_id="a", event_id="b", ts_ms=0, duration_s=None, attributes={"max_maturity": value})


def test_a_value_is_packed_by_its_text_and_one_that_is_not_declared_as_missing() -> None:
    layout = EventLayout(load_domain("movielens"))
    packed = [layout.pack("i", "e", 0, None, {"rating": value}).data for value in ("4", 4, 4.0)]
    assert len(set(packed)) == 1
    missing = layout.pack("i", "e", 0, None, {}).data
    assert packed[0] != missing
    assert all(layout.pack("i", "e", 0, None, {"rating": v}).data == missing for v in (None, "6", 6, 4.5, True, False))


def test_whole_numbers_are_told_apart_as_values() -> None:
    """A rounded text would let a filter on a long number show what it must hide."""
    assert [value_text(v) for v in (1234567, 1234568, 7.0, 0.5, True, "as is")] == [
        "1234567",
        "1234568",
        "7",
        "0.5",
        "true",
        "as is",
    ]


def test_no_record_of_a_history_is_larger_than_the_largest_whatever_ties(world: TinyWorld) -> None:
    """Many items are watched, and many plays of one millisecond follow: what was evicted is as large as it ever can be."""
    history, sizes = History(), list[int]()
    for number in range(20 * world.window):
        at_s = min(number, 10 * world.window)
        moved = history.apply(world.layout, world.play(number, number, at_s), number).evicted > 0
        records = encode_changes(world.layout, "u" * 256, history, first_changed=0, anchor_moved=moved)
        sizes += [len(key) + len(value) for key, value in records.items()]
    assert max(sizes) == largest_record(world.layout)
