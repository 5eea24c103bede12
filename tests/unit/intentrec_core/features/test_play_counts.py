"""Decayed counts equal their definition: a sum over all plays before the moment."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.features.play_counts import PlayCounts
from tests.worlds.naive_score import naive_columns

NUM_ROWS = 5
#: Ties, moments of the grid, and gaps after which nothing is left of an hour's count.
times = st.sampled_from([0.0, 1.0, 59.0, 60.0, 61.0, 3600.0, 86_400.0, 86_461.0, 5_000_000.0])
plays = st.lists(st.tuples(st.integers(0, NUM_ROWS - 1), times), max_size=12)


@given(given_plays=plays, moments=st.lists(times, min_size=1, max_size=6), refresh_s=st.sampled_from([1, 60, 3600]))
@settings(max_examples=200, deadline=None)
def test_counts_are_the_sums_over_the_plays_before_the_last_refresh(
    given_plays: list[tuple[int, float]], moments: list[float], refresh_s: int
) -> None:
    rows, ts_s = np.array([row for row, _ in given_plays], dtype=np.int64), np.array([at for _, at in given_plays])
    counts = PlayCounts(rows, ts_s, NUM_ROWS, refresh_s=refresh_s)
    asked = np.array(moments)
    found = counts.columns(asked)
    wanted = [[naive_columns(given_plays, row, moment, refresh_s) for row in range(NUM_ROWS)] for moment in moments]
    # float32, of values up to 6
    np.testing.assert_allclose(found, np.array(wanted).transpose(0, 2, 1), atol=1e-5)
    some = np.array([3, 0, 3])
    np.testing.assert_array_equal(counts.columns(asked, some), found[:, :, some])
    each = np.arange(len(moments)) % NUM_ROWS
    np.testing.assert_array_equal(counts.of_pairs(asked, each), found[np.arange(len(moments)), :, each])
