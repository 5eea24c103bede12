"""What follows an item: transitions counted by where they lead, and their shares summed over the last items of a member.

Shapes: V item rows; S counts of a table, ``starts`` i64[V + 1] where each item's begin; E further transitions, those of one item
after another, ``begin`` i64[V + 1] where each item's begin; N queries, L last plays of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled


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
    least_count: Any,
    new_starts: Any,
    new_rows: Any,
    new_counts: Any,
    new_totals: Any,
) -> None:
    """Adds further transitions to a table: of each item the weight of each row they lead to, in ascending rows, and their sum.

    Of an item, the ``most`` rows with the highest counts are kept, of equal counts those with the higher rows, the newer
    items; the total still has all of them. A total above ``largest`` is scaled down to it, and its counts with it, so that old
    transitions fade. A count below ``least_count`` is left out.

    Shapes: rows i32[S] and counts f32[S] of the table, totals f32[V]; after i32[E] and weight f32[E]; the new ones are written:
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
        reached = np.sort(seen[:num])
        count = np.empty(num)
        for i in range(num):
            count[i] = scale * sums[reached[i]]
            sums[reached[i]] = 0.0
        highest = np.argsort(count, kind="mergesort")[max(0, num - most) :]  # stable: of equal ones the last
        for i in np.sort(highest):
            if count[i] >= least_count:
                new_rows[at], new_counts[at] = reached[i], count[i]
                at += 1
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
    at = 0
    for query in range(last.shape[0]):
        num = 0
        for lag in range(last.shape[1]):
            num += starts[last[query, lag] + 1] - starts[last[query, lag]] if last[query, lag] > 0 else 0
        to, share, scale, num = np.empty(num, dtype=np.int64), np.empty(num), 1.0, 0
        for lag in range(last.shape[1]):
            row = last[query, lag]
            if row > 0:
                of_one = scale / (totals[row] + shrinkage)
                for place in range(starts[row], starts[row + 1]):
                    to[num], share[num] = rows[place], of_one * counts[place]
                    num += 1
            scale *= decay
        order = np.argsort(to, kind="mergesort")  # stable: a row's shares are summed from the newest play on
        first = 0
        while first < num:
            row, total, end = to[order[first]], 0.0, first
            while end < num and to[order[end]] == row:
                total += share[order[end]]
                end += 1
            query_of[at], row_of[at], sum_of[at] = query, row, total
            at += 1
            first = end
    return at
