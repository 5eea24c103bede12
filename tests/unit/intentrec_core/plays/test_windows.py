"""Training contexts are the worker's contexts, byte for byte, and cover every play once."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from intentrec_core.errors import DataError
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.table import PlayRow, play_rows, plays_table
from intentrec_core.plays.windows import Windows, cut_windows
from tests.worlds.tiny_plays import random_plays, row, served_histories
from tests.worlds.tiny_world import START_MS, TinyWorld


def by_member(members: MemberPlays, plays: list[PlayRow]) -> dict[int, list[PlayRow]]:
    grouped = defaultdict(list)
    for play in plays:
        grouped[members.user_ids.index(play.user_id)].append(play)
    return grouped


def covered(windows: Windows) -> list[int]:
    return sorted(windows.targets().tolist())


@pytest.mark.parametrize("num_plays", [1, 2, 8, 9, 10, 13, 17, 40])
def test_the_context_of_every_target_is_what_a_worker_would_hold(world: TinyWorld, num_plays: int) -> None:
    table = random_plays(members=3, plays=3 * num_plays)
    members = pack_members(world.layout, table)
    windows = cut_windows(members)
    served = {m: served_histories(world.layout, p) for m, p in by_member(members, list(play_rows(table))).items()}
    for start, stop, first in zip(windows.start, windows.stop, windows.first_target, strict=True):
        for target in range(start + first, stop):
            member = int(members.member[target])
            context, _ = served[member][target - int(members.bounds[member])]
            assert members.packed(start, target) == context


@pytest.mark.parametrize("seed", range(5))
def test_every_play_but_a_members_first_is_a_target_once(world: TinyWorld, seed: int) -> None:
    members = pack_members(world.layout, random_plays(members=6, plays=120, seed=seed))
    firsts = set(members.bounds[:-1].tolist())
    assert covered(cut_windows(members)) == [i for i in range(len(members.events)) if i not in firsts]


def test_a_span_takes_its_targets_and_no_later_play(world: TinyWorld) -> None:
    members = pack_members(world.layout, random_plays(members=6, plays=200))
    times = members.events["ts_ms"]
    low, high = np.quantile(times, [0.3, 0.6]).astype(int)
    windows = cut_windows(members, from_ms=low, until_ms=high)
    firsts = set(members.bounds[:-1].tolist())
    assert covered(windows) == [i for i, t in enumerate(times) if low <= t < high and i not in firsts]
    assert all(times[stop - 1] < high for stop in windows.stop)


def test_two_spans_that_meet_cover_what_one_covers(world: TinyWorld) -> None:
    members = pack_members(world.layout, random_plays(members=4, plays=150))
    middle = int(np.median(members.events["ts_ms"]))
    halves = covered(cut_windows(members, until_ms=middle)) + covered(cut_windows(members, from_ms=middle))
    assert sorted(halves) == covered(cut_windows(members))


def test_nothing_to_predict_gives_no_window(world: TinyWorld) -> None:
    members = pack_members(world.layout, plays_table([row(0, 1, 0.0), row(1, 1, 5.0)]))
    assert len(cut_windows(members)) == 0
    assert cut_windows(members).num_targets == 0


def test_plays_are_packed_as_a_worker_packs_them(world: TinyWorld) -> None:
    table = random_plays(members=5, plays=80)
    members = pack_members(world.layout, table)
    for member, plays in by_member(members, list(play_rows(table))).items():
        begin, end = members.bounds[member : member + 2]
        one_by_one = [
            world.layout.pack(
                item_id=p.item_id,
                event_id=p.event_id,
                ts_ms=p.ts_ms,
                duration_s=p.duration_s,
                attributes=p.context or {},
            ).data
            for p in plays
        ]
        assert members.packed(begin, end) == b"".join(one_by_one)


def test_a_play_without_attributes_is_packed_as_missing(world: TinyWorld) -> None:
    play = PlayRow("e", "u", "item-1", START_MS)
    members = pack_members(world.layout, plays_table([play]))
    packed = world.layout.pack(item_id="item-1", event_id="e", ts_ms=START_MS, duration_s=None, attributes={})
    assert members.packed(0, 1) == packed.data


def test_an_event_id_seen_before_is_dropped_within_its_member_only(world: TinyWorld) -> None:
    plays = [row(0, 1, 0.0, event="a"), row(1, 2, 1.0, event="a"), row(0, 3, 2.0, event="b"), row(0, 1, 3.0, event="a")]
    members = pack_members(world.layout, plays_table(plays))
    assert np.diff(members.bounds).tolist() == [2, 1]
    assert members.order.tolist() == [0, 2, 1]
    assert members.num_repeats == 1


def test_a_number_that_is_none_is_refused(world: TinyWorld) -> None:
    plays = [PlayRow(f"e{i}", "u", "item-1", START_MS, context={"max_maturity": ("3", "inf")[i]}) for i in range(2)]
    with pytest.raises(
        DataError, match=r"event_id 'e1' of user 'u' at \S+Z, context max_maturity: 'inf' is not a finite number"
    ):
        pack_members(world.layout, plays_table(plays))
