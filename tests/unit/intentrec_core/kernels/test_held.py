"""Arrays that compiled code is given once, and reads at every call."""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled
from intentrec_core.kernels.held import Held


@compiled
def _scaled_sum(held: Any) -> Any:
    (numbers, _), scale = held.value
    return scale * numbers.sum()


def test_what_is_held_is_read_as_it_is_now() -> None:
    numbers = np.array([1.0, 2.0])
    held, other = Held(((numbers, numbers), 10.0)), Held(((np.ones(5), numbers), 1.0))
    assert _scaled_sum(held) == 30.0
    numbers[0] = 5.0
    assert _scaled_sum(held) == 70.0
    assert _scaled_sum(other) == 5.0


def test_arrays_live_for_as_long_as_they_are_held() -> None:
    held = [Held(((np.full(1000, float(number)), np.zeros(1)), 1.0)) for number in range(50)]
    np.full(50_000, -1.0)  # would take memory that was given back
    assert [_scaled_sum(one) for one in held] == [1000.0 * number for number in range(50)]
