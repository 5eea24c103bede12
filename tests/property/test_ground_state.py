"""Ground state depends on the plays, not on their order of arrival; the changelog holds exactly that state."""

from __future__ import annotations

import struct
from copy import copy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from intentrec_core.errors import StateError
from intentrec_core.history.changelog_codec import MARKER_KEY, Marker, Restorer, encode_changes, tombstone_keys
from intentrec_core.history.history import History, Outcome, hash64
from tests.worlds.tiny_world import START_MS, TinyWorld

WORLD = TinyWorld()
LAYOUT = WORLD.layout
GAP_S = LAYOUT.gap_ms // 1000
#: Half of the times are shared by many plays.
TIMES_S = st.one_of(st.integers(0, 60_000), st.integers(0, 6).map(lambda place: 10_000 * place))
ARRIVALS = st.lists(st.tuples(st.sampled_from(["ann", "ben\x00W", "çé"]), st.integers(0, 20), TIMES_S), max_size=60)


@given(ARRIVALS)
def test_late_plays_give_the_state_of_the_plays_in_order(arrivals: list[tuple[str, int, int]]) -> None:
    history, applied = History(), []
    for offset, (_, item, at_s) in enumerate(arrivals):
        play = WORLD.play(item, offset, float(at_s))
        if history.apply(LAYOUT, play, offset).outcome.changed:
            applied.append((play.ts_ms, offset, play))
    in_order = History()
    for _, offset, play in sorted(applied, key=lambda entry: entry[:2]):
        in_order.apply(LAYOUT, play, max(offset, in_order.last_offset + 1))
    in_order.last_offset = history.last_offset
    assert in_order == history


#: Times in seconds of a member's plays. With n = 4, 16 evicted plays of one time are known.
MANY_AT_ONE_TIME = st.lists(st.one_of(st.just(5), st.integers(4, 6), st.integers(0, 20)), max_size=60)


@given(MANY_AT_ONE_TIME, st.data())
def test_an_exact_repeat_changes_nothing_however_late_it_comes(times_s: list[int], data: st.DataObject) -> None:
    history, num = History(), 0
    for number, at_s in enumerate(times_s):
        history.apply(LAYOUT, WORLD.play(number % 9, number, at_s), num)
        num += 1
        for earlier in data.draw(st.lists(st.integers(0, number), max_size=3)):
            before = copy(history)
            outcome = history.apply(LAYOUT, WORLD.play(earlier % 9, earlier, times_s[earlier]), num).outcome
            num += 1
            assert outcome in (Outcome.DUPLICATE, Outcome.TOO_LATE)
            assert history == before


#: And times between which a session ends.
MANY_SESSIONS = st.lists(
    st.one_of(st.just(5), st.integers(0, 20), st.integers(0, 40).map(lambda place: GAP_S * place // 2)), max_size=60
)


@given(st.one_of(MANY_AT_ONE_TIME, MANY_SESSIONS))
@example([*range(0, 18 * GAP_S, 2 * GAP_S), 7 * GAP_S])
def test_a_history_of_schema_1_is_carried_on_and_folds_in_no_play_twice(times_s: list[int]) -> None:
    """In the example the last play belongs between the newest evicted one and the oldest one held."""
    known, log = History(), dict[bytes, bytes]()
    for number, at_s in enumerate(times_s):
        fold = known.apply(LAYOUT, WORLD.play(number % 9, number, at_s), number)
        if fold.outcome.changed:
            moved = fold.evicted > 0
            log |= encode_changes(LAYOUT, "ann", known, first_changed=fold.position, anchor_moved=moved, schema=1)
    if not log:
        return
    (carried,) = restore(log).values()
    for history, num in ((known, 100), (carried, 100)):
        for number, at_s in enumerate(times_s):
            assert not history.apply(LAYOUT, WORLD.play(number % 9, number, at_s), num + number).outcome.changed
    assert (carried.count, carried.events, carried.evicted_items) == (known.count, known.events, known.evicted_items)
    for position in range(carried.num_events(LAYOUT)):
        assert carried.session_start_ms(LAYOUT, position) == known.session_start_ms(LAYOUT, position)
    # With each play held evicted in turn, the newest evicted one is known again.
    for number in range(200, 212):
        for history in (carried, known):
            history.apply(LAYOUT, WORLD.play(1, number, max(times_s) + number), number)
    assert carried == known


def test_schema_1_is_written_as_it_was_and_read_without_the_newest_evicted_play() -> None:
    """The bytes are spelled out here: 20 plays at 10 s intervals, of which 12 are evicted, in two blocks of 8."""
    history, log = History(), dict[bytes, bytes]()
    for i in range(20):
        fold = history.apply(LAYOUT, WORLD.play(i % 9, i, 10.0 * i), i)
        moved = fold.evicted > 0
        log |= encode_changes(LAYOUT, "ann", history, first_changed=fold.position, anchor_moved=moved, schema=1)
    items = b"".join(hash64(f"item-{i % 9}").to_bytes(8, "little") for i in range(12))
    assert log[b"ann\x00W\x00\x00"] == struct.pack("<BIq", 1, 17, START_MS) + items
    assert log[b"ann\x00E\x02\x00"] == struct.pack("<BIqI", 1, 20, 19, 16) + history.events[4 * LAYOUT.size :]
    (carried,) = restore(log).values()
    assert carried.newest_evicted_ms == START_MS + 120_000, "the oldest play held"
    for event, at_s, outcome in [
        (11, 110.0, Outcome.TOO_LATE),
        (12, 120.0, Outcome.DUPLICATE),
        (97, 120.0, Outcome.TOO_LATE),
        (98, 120.001, Outcome.INSERTED),
    ]:
        assert carried.apply(LAYOUT, WORLD.play(1, event, at_s), 100).outcome is outcome


@given(ARRIVALS, st.integers(1, 9))
def test_the_changelog_restores_every_state_byte_for_byte(arrivals: list[tuple[str, int, int]], every: int) -> None:
    """Records are written every few plays, merged by key as within one transaction, and compacted."""
    histories: dict[str, History] = {}
    log: dict[bytes, bytes] = {}
    pending: dict[str, tuple[int, bool]] = {}
    for offset, (user, item, at_s) in enumerate(arrivals):
        history = histories.setdefault(user, History())
        fold = history.apply(LAYOUT, WORLD.play(item, offset, float(at_s)), offset)
        if fold.outcome.changed:
            first, moved = pending.get(user, (1 << 30, False))
            pending[user] = (min(max(0, first - fold.evicted), fold.position), moved or fold.evicted > 0)
        if offset % every == 0:
            for name, (first, moved) in pending.items():
                log.update(encode_changes(LAYOUT, name, histories[name], first_changed=first, anchor_moved=moved))
            pending.clear()
            written = {name: (h.count, bytes(h.events)) for name, h in histories.items() if h.count}
            restored = restore(log)
            assert {name: (h.count, bytes(h.events)) for name, h in restored.items()} == written
            assert restored == {name: h for name, h in histories.items() if h.count}


def restore(log: dict[bytes, bytes]) -> dict[str, History]:
    restorer = Restorer(LAYOUT)
    for key, value in log.items():
        restorer.feed(key, value)
    return restorer.finish()[0]


def filled(num_plays: int) -> tuple[History, dict[bytes, bytes]]:
    history, log = History(), {}
    for i in range(num_plays):
        fold = history.apply(LAYOUT, WORLD.play(i % 9, i, 10.0 * i), i)
        changes = encode_changes(LAYOUT, "ann", history, first_changed=fold.position, anchor_moved=fold.evicted > 0)
        log.update(changes)
    return history, log


def test_a_late_play_is_written_with_all_that_moved_behind_it() -> None:
    """Its own block and every later one, also where one checkpoint holds it and later plays."""
    world = TinyWorld(window=16)
    history, log = History(), {}
    arrivals = [*(10.0 * i for i in range(20)), 35.0, 300.0]  # 35 s belongs in the first of three blocks of 8
    for offset, at_s in enumerate(arrivals):
        fold = history.apply(world.layout, world.play(offset % 9, offset, at_s), offset)
        log.update(
            encode_changes(world.layout, "ann", history, first_changed=fold.position, anchor_moved=fold.evicted > 0)
        )
        restorer = Restorer(world.layout)
        for key, value in log.items():
            restorer.feed(key, value)
        assert restorer.finish()[0] == {"ann": history}


def test_a_lost_block_is_refused_and_never_restored_short() -> None:
    """After 20 plays the context is plays 12 to 19, in two blocks of the ring."""
    history, log = filled(20)
    assert restore(log) == {"ann": history}
    with pytest.raises(StateError, match="lacks what was evicted before play 12"):
        restore({key: value for key, value in log.items() if b"W" not in key})
    live = [key for key, value in log.items() if b"E" in key[-4:] and key != b"ann\x00W\x00\x00"]
    older = next(key for key in live if int.from_bytes(log[key][13:17], "little") == 8)
    with pytest.raises(StateError, match="records are missing"):
        restore({key: value for key, value in log.items() if key != older})


def test_tombstones_cover_every_key_of_a_member() -> None:
    _, log = filled(200)
    assert set(log) <= set(tombstone_keys(LAYOUT, "ann"))
    restorer = Restorer(LAYOUT)
    for key, value in log.items():
        restorer.feed(key, value)
    for key in tombstone_keys(LAYOUT, "ann"):
        restorer.feed(key, None)
    assert restorer.finish() == ({}, None)


def test_the_marker_survives_the_round_trip_and_refuses_another_schema() -> None:
    marker = Marker(num_partitions=8, next_offset=12345, fingerprint=WORLD.domain.fingerprint)
    restorer = Restorer(LAYOUT)
    restorer.feed(MARKER_KEY, marker.encode())
    assert restorer.finish() == ({}, marker)
    for damaged in (b"", b"\x00" + marker.encode()[1:], b"\x03" + marker.encode()[1:], marker.encode()[:-1]):
        with pytest.raises(StateError):
            Marker.decode(damaged)


def test_a_play_costs_less_than_its_budget_in_the_changelog() -> None:
    """256 bytes a play with a record written for every single play, keys included, at 200 plays held."""
    world = TinyWorld(window=100)
    history, written = History(), 0
    for i in range(600):
        fold = history.apply(world.layout, world.play(i % 9, i, 10.0 * i), i)
        changes = encode_changes(
            world.layout, "member-1234567", history, first_changed=fold.position, anchor_moved=fold.evicted > 0
        )
        written += sum(len(key) + len(value) for key, value in changes.items())
    assert written / 600 < 256
