"""Sessions: those computed with arrays equal those that the history gives play by play."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.history.history import History
from stream.pipeline.sessions import NOTHING_CARRIED, session_id, session_starts
from tests.worlds.tiny_world import TinyWorld

GAP_MS = 1_800_000


def test_an_id_names_member_and_beginning() -> None:
    ids = {
        session_id(user, start_ms) for user in ("ann", "ben", "1", "11") for start_ms in (0, 1, 11, 1_700_000_000_000)
    }
    assert len(ids) == 16
    assert all(len(name) == 16 for name in ids)
    assert session_id("ann", 5) == session_id("ann", 5)


def test_a_session_ends_only_above_the_gap() -> None:
    ts_ms = np.array([0, GAP_MS, 2 * GAP_MS + 1])
    starts = session_starts(ts_ms, np.array([0]), np.array([NOTHING_CARRIED]), GAP_MS, np.arange(3))
    assert starts.start_ms.tolist() == [0, 0, 2 * GAP_MS + 1]
    assert starts.opened.tolist() == [True, False, True]


def test_concatenated_contexts_do_not_share_sessions() -> None:
    ts_ms = np.array([100, 200, 150, 250])
    starts = session_starts(ts_ms, np.array([0, 2]), np.array([NOTHING_CARRIED, 7]), GAP_MS, np.arange(4))
    assert starts.start_ms.tolist() == [100, 100, 7, 7]
    assert starts.opened.tolist() == [True, False, False, False]


def test_no_session_of_another_context_is_the_one_before() -> None:
    ts_ms = np.array([0, 2 * GAP_MS, 0, 2 * GAP_MS + 5])
    before = session_starts(ts_ms, np.array([0, 2]), np.full(2, NOTHING_CARRIED), GAP_MS, np.arange(4)).before
    assert before.held.tolist() == [False, True, False, True]


def test_a_session_that_an_evicted_play_opened_has_no_opener_and_no_number_of_plays() -> None:
    ts_ms = np.array([50, 60, 2 * GAP_MS, 2 * GAP_MS + 5])
    starts = session_starts(ts_ms, np.array([0]), np.array([10]), GAP_MS, np.arange(4))
    assert starts.start_ms.tolist() == [10, 10, 2 * GAP_MS, 2 * GAP_MS]
    assert starts.opener.tolist() == [-1, -1, 2, 2]
    assert starts.before.held.tolist() == [False, False, True, True]
    assert starts.before.start_ms[2:].tolist() == [10, 10]
    assert starts.before.end_ms[2:].tolist() == [60, 60]
    assert starts.before.num_plays[2:].tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_starts_equal_those_of_the_history(world: TinyWorld, seed: int) -> None:
    rng, history, clock_s = random.Random(seed), History(), 0.0
    for offset in range(60):
        clock_s += rng.choice([10, 1000, 2500])
        history.apply(world.layout, world.play(offset % 30, offset, clock_s - rng.choice([0, 0, 1500])), offset)
        ts_ms = history.view(world.layout)["ts_ms"].copy()
        carried = history.oldest_session_ms(world.layout) if history.anchor(world.layout) else NOTHING_CARRIED
        places = np.arange(len(ts_ms))
        starts = session_starts(ts_ms, np.array([0]), np.array([carried]), world.layout.gap_ms, places)
        expected = [history.session_start_ms(world.layout, position) for position in places.tolist()]
        assert starts.start_ms.tolist() == expected


def naive_sessions(ts_ms: list[int]) -> list[list[int]]:
    """The event times of each session."""
    sessions: list[list[int]] = []
    for at, before_ms in zip(ts_ms, [None, *ts_ms], strict=False):
        if before_ms is None or at - before_ms > GAP_MS:
            sessions.append([])
        sessions[-1].append(at)
    return sessions


@given(
    gaps=st.lists(st.sampled_from([1, GAP_MS, GAP_MS + 1, 3 * GAP_MS]), min_size=1, max_size=20),
    first=st.integers(0, 19),
)
def test_the_session_before_is_what_the_plays_held_say(gaps: list[int], first: int) -> None:
    """``first``: the first play that is held; those before it are evicted."""
    ts_ms = np.cumsum(gaps)
    first = min(first, len(gaps) - 1)
    sessions = naive_sessions(ts_ms.tolist())
    (own,) = (session for session in sessions if int(ts_ms[first]) in session)
    carried = NOTHING_CARRIED if own[0] == ts_ms[first] else own[0]
    held = ts_ms[first:]
    before = session_starts(held, np.array([0]), np.array([carried]), GAP_MS, np.arange(len(held))).before
    for place, at in enumerate(held.tolist()):
        (number,) = (n for n, session in enumerate(sessions) if at in session)
        closed = sessions[number - 1] if number else []
        assert before.held[place] == any(ms >= held[0] for ms in closed)
        if before.held[place]:
            assert (before.start_ms[place], before.end_ms[place]) == (closed[0], closed[-1])
            assert before.num_plays[place] == (len(closed) if closed[0] >= held[0] else 0)
