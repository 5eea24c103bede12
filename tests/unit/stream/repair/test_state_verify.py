"""State verification names what differs and claims nothing that it cannot know; a history is shown completely."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest

from intentrec_core.history.changelog_codec import Restorer, encode_changes
from intentrec_core.history.history import History, hash64
from stream.repair.state_verify import VerifyResult, compare
from stream.repair.state_view import held_plays
from tests.worlds.tiny_world import TinyWorld

WORLD = TinyWorld(window=4)
LAYOUT = WORLD.layout


def history(num_plays: int, first: int = 0) -> History:
    made = History()
    for i in range(first, first + num_plays):
        made.apply(LAYOUT, WORLD.play(i % 9, i, 100.0 * i), i)
    return made


def verified(held: dict[str, History], folded: dict[str, History], first_offset: int = 0) -> VerifyResult:
    done = VerifyResult(partition=0, first_offset=first_offset, next_offset=100)
    compare(done, LAYOUT, held, folded)
    return done


def test_equal_histories_are_the_same_byte_for_byte() -> None:
    assert verified({"ann": history(20)}, {"ann": history(20)}).num_same == 1


def item(h: History) -> None:
    place = 3 * LAYOUT.size
    h.events = h.events[:place] + bytes([h.events[place] ^ 1]) + h.events[place + 1 :]


def offset(h: History) -> None:
    h.last_offset += 1


def count(h: History) -> None:
    h.count += LAYOUT.window  # the anchor moves with it


def session(h: History) -> None:
    h.evicted_session_ms += 5


def newest_evicted(h: History) -> None:
    h.newest_evicted_ms -= 1


def known(h: History) -> None:
    h.newest_evicted = h.newest_evicted[:-8]


def watched(h: History) -> None:
    h.evicted_items = b"\0" * 8 + h.evicted_items[8:]


def shorter(h: History) -> None:
    h.events = h.events[LAYOUT.size :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (item, r"item_hash of play 15 of 20 is .* 1 of 8 plays held"),
        (offset, "the last offset is 20, folded again it is 19"),
        (count, "24 plays were applied, folded again it is 20"),
        (session, "newest evicted play's session began at"),
        (newest_evicted, "newest evicted play is of"),
        (known, "event ids of the newest evicted plays differ"),
        (watched, "watched items"),
        (shorter, "holds 7 plays, folded again it is 8"),
    ],
)
def test_a_difference_is_described(damage: Callable[[History], None], said: str) -> None:
    held = {"ann": history(20), "ben": history(5)}
    folded = deepcopy(held)
    damage(held["ann"])
    done = verified(held, folded)
    assert done.num_same == 1
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(done.differences["ann"])


def test_a_play_that_schema_1_set_aside_is_named_as_such() -> None:
    folded, log = History(), dict[bytes, bytes]()
    for i in range(9):
        fold = folded.apply(LAYOUT, WORLD.play(i, i, 100.0 * i), i)
        moved = fold.evicted > 0
        log |= encode_changes(LAYOUT, "ann", folded, first_changed=fold.position, anchor_moved=moved, schema=1)
    restorer = Restorer(LAYOUT)
    for key, value in log.items():
        restorer.feed(key, value)
    stored = restorer.finish()[0]["ann"]
    assert verified({"ann": stored}, {"ann": deepcopy(folded)}).num_same == 1
    for history in (stored, folded):
        history.apply(LAYOUT, WORLD.play(1, 90, 400.0), 90)  # at the time of the oldest play held
    assert stored.count == folded.count - 1
    said = verified({"ann": stored}, {"ann": folded}).differences["ann"]
    assert "1 are at the time of its oldest play" in said
    without_tie = deepcopy(stored)
    without_tie.apply(LAYOUT, WORLD.play(1, 92, 6000.0), 92)
    assert "oldest play" not in verified({"ann": stored}, {"ann": without_tie}).differences["ann"]


def test_members_in_only_one_of_the_two_are_reported() -> None:
    done = verified({"ann": history(3)}, {"ben": history(4)})
    assert done.differences == {
        "ann": "has a history of 3 plays in the changelog but no play in the log",
        "ben": "has no history in the changelog but 4 plays in the log",
    }


def test_nothing_is_claimed_of_members_who_played_before_the_log_begins() -> None:
    held = {"before": history(8), "across": history(20), "behind": history(5, first=12)}
    folded = {"across": history(8, first=12), "behind": history(5, first=12), "missing": history(2, first=12)}
    done = verified(held, folded, first_offset=12)
    assert (done.num_same, done.num_unknown) == (1, 2)
    assert set(done.differences) == {"missing"}


def without(lost: int, num_plays: int, first: int = 0) -> History:
    made = History()
    for i in range(first, first + num_plays):
        if i != lost:
            made.apply(LAYOUT, WORLD.play(i % 9, i, 100.0 * i), i)
    return made


@pytest.mark.parametrize(
    ("held", "folded", "said"),
    [
        (without(11, 3, first=10), history(3, first=10), "2 plays were applied, folded again it is 3; 1 of these"),
        (without(12, 3, first=10), history(3, first=10), "2 plays were applied, folded again it is 3; 1 of these"),
        (without(11, 50, first=10), history(50, first=10), "49 plays were applied, folded again it is 50$"),
        (without(17, 20), history(12, first=8), "19 plays were applied, folded again it is 12; 1 of these"),
        (history(4), history(2, first=7), "4 plays were applied, folded again it is 2; 2 of these"),
        (history(9), None, "9 plays in the changelog but no play in the log"),
    ],
    ids=["one of three", "the last one", "long ago", "began before", "none since", "never sent"],
)
def test_a_play_that_the_log_still_has_and_the_state_lost_is_found(
    held: History, folded: History | None, said: str
) -> None:
    """Although the beginning of the log is deleted."""
    done = verified({"ann": held}, {"ann": folded} if folded else {}, first_offset=5)
    assert (done.num_same, done.num_unknown) == (0, 0)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(done.differences["ann"])


def test_a_history_is_shown_as_it_was_played() -> None:
    held = history(20)
    shown = held_plays(LAYOUT, held)
    assert [play["index"] for play in shown] == list(range(12, 20))
    last = shown[-1]
    assert last["item_hash"] == f"{hash64('item-1'):016x}"
    assert last["event_hash"] == f"{hash64('event-19'):016x}"
    assert (last["duration_s"], last["device"], last["max_maturity"]) == (90.0, "phone", 3.0)
    assert last["event_time"].endswith("Z")
