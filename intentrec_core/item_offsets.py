"""What is added to the scores of some items beside those of the index: a member's own items, and what follows the last plays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ItemOffsets:
    """What is added to the scores of some items of N queries, one query after another.

    Shapes: query i64[D] which query; row i64[D] item rows, each at most once for a query; offset f32[D].
    """

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    offset: NDArray[np.float32]


def summed(*parts: ItemOffsets | None) -> ItemOffsets | None:
    """What all parts add together: a row of several has the sum; one query after another, and rows ascend for each. A single part
    is returned as it is; None where there is none.

    Cost: little more than a pass where rows ascend in most parts.
    """
    given = [part for part in parts if part is not None]
    if len(given) < 2:
        return given[0] if given else None
    num_rows = 1 + max(int(part.row.max(initial=0)) for part in given)
    keys, offsets = list[NDArray[np.int64]](), list[NDArray[np.float32]]()
    for part in given:
        key = part.query * num_rows + part.row
        order = np.argsort(key, kind="stable")
        keys.append(key[order])
        offsets.append(part.offset[order])
    key = np.concatenate(keys)
    order = np.argsort(key, kind="stable")  # merges runs that ascend
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    query, row = np.divmod(key[first], num_rows)
    return ItemOffsets(query, row, np.add.reduceat(np.concatenate(offsets)[order], first))
