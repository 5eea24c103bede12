"""What follows an item: transitions counted by where they lead, and their shares summed over the last items of a member.

Shapes: V item rows; S counts of a table, ``starts`` i64[V + 1] where each item's begin; E further transitions, those of one item
after another, ``begin`` i64[V + 1] where each item's begin; N queries, L last plays of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled


@compiled
def _nth_highest(sums: Any, seen: Any, num: Any, nth: Any) -> Any:
    """The n-th highest sum of the rows seen; 0 where there are no more than n rows."""
    if num <= nth:
        return 0.0
    found = np.empty(num)
    for i in range(num):
        found[i] = sums[seen[i]]
    return np.sort(found)[num - nth]


@compiled
def counted(
    starts: Any,
    rows: Any,
    counts: Any,
    totals: Any,
    begin: Any,
    after: Any,
    weight: Any,
    most: Any,
    largest: Any,
    new_starts: Any,
    new_rows: Any,
    new_counts: Any,
    new_totals: Any,
) -> None:
    """Adds further transitions to a table: of each item, the weights by the row they lead to, in ascending rows, and their total.

    Of an item, the ``most`` rows with the highest counts are kept, of equal counts those with the lower rows; the total still has
    all of them. A total above ``largest`` is scaled down to it, and its counts with it, so that old transitions fade.

    Shapes: rows i32[S] and counts f32[S] of the table, totals f32[V]; after i64[E] and weight f32[E]; the new ones are written:
    i64[V + 1], i32 and f32 with room for S + E from the left, and f32[V].
    """
    num_rows = begin.shape[0] - 1
    sums, seen = np.zeros(num_rows), np.empty(num_rows, dtype=np.int64)
    at = 0
    for row in range(num_rows):
        new_starts[row] = at
        num, total = 0, np.float64(totals[row])
        for place in range(starts[row], starts[row + 1]):
            seen[num] = rows[place]
            sums[rows[place]] = counts[place]
            num += 1
        for place in range(begin[row], begin[row + 1]):
            to = after[place]
            if sums[to] == 0.0:
                seen[num] = to
                num += 1
            sums[to] += weight[place]
            total += weight[place]
        scale = min(1.0, largest / max(total, 1.0))
        least, num_kept = _nth_highest(sums, seen, num, most), 0
        for i in range(num):
            num_kept += sums[seen[i]] > least
        for to in np.sort(seen[:num]):
            is_higher = sums[to] > least
            if is_higher or num_kept < most:
                new_rows[at], new_counts[at] = to, scale * sums[to]
                at += 1
                num_kept += not is_higher
            sums[to] = 0.0
        new_totals[row] = scale * total
    new_starts[num_rows] = at


@compiled
def following(
    starts: Any,
    rows: Any,
    counts: Any,
    totals: Any,
    last: Any,
    decay: Any,
    shrinkage: Any,
    query_of: Any,
    row_of: Any,
    sum_of: Any,
) -> Any:
    """The sums of the shares of each query's last plays, newest first, those of a play further back times ``decay``. Returns how
    many were written: one query after another, the rows of each ascending.

    Shapes: last i64[N, L] with 0 for no item; query_of i64, row_of i64 and sum_of f32 [any], with room for all of them.
    """
    sums, seen = np.zeros(starts.shape[0] - 1), np.empty(starts.shape[0] - 1, dtype=np.int64)
    at = 0
    for query in range(last.shape[0]):
        scale, num = 1.0, 0
        for lag in range(last.shape[1]):
            row = last[query, lag]
            if row > 0:
                share = scale / (totals[row] + shrinkage)
                for place in range(starts[row], starts[row + 1]):
                    to = rows[place]
                    if sums[to] == 0.0:
                        seen[num] = to
                        num += 1
                    sums[to] += share * counts[place]
            scale *= decay
        for to in np.sort(seen[:num]):
            query_of[at], row_of[at], sum_of[at] = query, to, sums[to]
            sums[to] = 0.0
            at += 1
    return at
