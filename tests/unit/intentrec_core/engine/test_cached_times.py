"""Times in the CPU's cache take six bytes, and come back as they were."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from intentrec_core.engine.cpu.block import store_time, time_s

#: Some 4,000 years on either side of 1970.
LIMIT_MS = 2**47


@given(ts_ms=st.integers(-LIMIT_MS, LIMIT_MS - 1), place=st.integers(0, 2))
@example(ts_ms=1_700_000_000_001, place=0)
@example(ts_ms=-1, place=1)
@example(ts_ms=1001, place=2)  # in seconds, times 1,000, it is a little less
def test_a_time_in_whole_milliseconds_comes_back_to_the_bit_and_leaves_its_neighbours(ts_ms: int, place: int) -> None:
    high, low = np.full(3, 7, dtype=np.int16), np.full(3, 9, dtype=np.uint32)
    store_time(ts_ms / 1000.0, high, low, place)
    assert time_s(high, low, place) == ts_ms / 1000.0
    others = np.arange(3) != place
    assert (high[others] == 7).all()
    assert (low[others] == 9).all()
