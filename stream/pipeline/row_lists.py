"""Lists of item rows, one for each play of a batch, also as one array: what compiled code reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RowLists:
    """Shapes: lists, N times i64[any]; flat i64[any], the same one after another; starts i64[N + 1], where each begins in it,
    and its end.
    """

    lists: Sequence[NDArray[np.int64]]
    flat: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def none(cls, num: int) -> RowLists:
        """``num`` empty lists."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls([nothing] * num, nothing, np.zeros(num + 1, dtype=np.int64))

    @classmethod
    def below(cls, lists: Sequence[NDArray[np.int64]], num_rows: int) -> RowLists:
        """The rows below ``num_rows`` of each list."""
        if not lists:
            return cls.none(0)
        flat = np.concatenate(lists)
        if len(flat) and flat.max() >= num_rows:
            lists = [own[own < num_rows] for own in lists]
            flat = np.concatenate(lists)
        return cls(lists, flat, _starts([len(own) for own in lists]))

    @classmethod
    def split(cls, flat: NDArray[np.int64], lengths: Sequence[int]) -> RowLists:
        """Lists of these lengths; together they are as long as ``flat``."""
        starts = _starts(lengths)
        ends = starts.tolist()
        return cls([flat[start:end] for start, end in pairwise(ends)], flat, starts)


def _starts(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.array([*accumulate(lengths, initial=0)], dtype=np.int64)
