"""Compiled: whether a row is among the most played ones that are not hidden.

Shapes: N rows, V item rows, row 0 the unknown item.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled
from intentrec_core.kernels.hidden_rows import contains, flag


@compiled
def among_most_played(
    rows: Any, k: Any, hidden: Any, hidden_starts: Any, counts: Any, order: Any, is_hidden: Any
) -> Any:
    """For each of ``rows`` i64[N], whether it was played, is not hidden, and has fewer than ``k`` before it in ``order`` that are
    not hidden either.

    Shapes: hidden i64[any], the rows hidden from each one after another, and hidden_starts i64[N + 1] where each begins;
    counts i64[V]; order i64[V] the rows by their counts, most first; is_hidden bool[V] scratch space, all 0 before and after.
    """
    found = np.zeros(len(rows), dtype=np.bool_)
    for i in range(len(rows)):
        row, own_hidden = rows[i], hidden[hidden_starts[i] : hidden_starts[i + 1]]
        if row <= 0 or row >= len(counts) or counts[row] == 0 or contains(own_hidden, row):
            continue
        flag(is_hidden, own_hidden, True)
        num_before, at = 0, 0
        while num_before < k and order[at] != row:
            num_before += not is_hidden[order[at]]
            at += 1
        found[i] = num_before < k
        flag(is_hidden, own_hidden, False)
    return found
