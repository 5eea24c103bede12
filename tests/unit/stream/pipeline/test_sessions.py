"""Sessions: those computed with arrays equal those that the history gives play by play."""

from __future__ import annotations

import random

import numpy as np
import pytest

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
