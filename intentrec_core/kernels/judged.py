"""Compiled: what predictions were right, added up over the plays of a batch.

Shapes: N plays, H items of a prediction, M heads, S labels of all heads side by side, P sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled

#: Of each sum the plays, the hits, their reciprocal ranks, and the hits of the two references; then of each head the plays whose
#: label is known, the right labels, and those that the commonest label would have had right.
NUM_SUMS, NUM_HEAD_SUMS = 5, 3


@compiled
def commonest_labels(counts: Any, first: Any) -> Any:
    """The label of each head with the highest of ``counts`` i64[S], the first of equal ones; -1 where all are 0.

    ``first`` i64[M + 1]: where each head's labels begin, and their end. Shape: i64[M].
    """
    found = np.full(len(first) - 1, -1, dtype=np.int64)
    for head in range(len(found)):
        most = 0
        for label in range(first[head], first[head + 1]):
            if counts[label] > most:
                most, found[head] = counts[label], label - first[head]
    return found


@compiled
def mark_labels(codes: Any, places: Any, observed: Any) -> None:
    """Marks the labels that ``codes`` i64[N, H] stand for in ``observed`` bool[N, S]: code c > 0 is label c - 1 of its head. Of
    each head ``places`` i64[H, 2] says where its labels begin, and their end.
    """
    for i in range(codes.shape[0]):
        for head in range(codes.shape[1]):
            place = places[head, 0] + codes[i, head] - 1
            if codes[i, head] > 0 and place < places[head, 1]:
                observed[i, place] = True


@compiled
def add_labels(observed: Any, totals: Any, span: Any) -> None:
    """Adds how often each label was observed to ``totals`` and to ``span``, both i64[S]. Shape: observed bool[N, S]."""
    for i in range(observed.shape[0]):
        for label in range(observed.shape[1]):
            totals[label] += observed[i, label]
            span[label] += observed[i, label]


@compiled
def add_judged(
    predicted: Any,
    bundle: Any,
    item_row: Any,
    observed: Any,
    first: Any,
    commonest: Any,
    popular: Any,
    markov: Any,
    sum_of: Any,
    sums: Any,
) -> None:
    """Adds what was predicted right, of the predictions that ``bundle`` made, to ``sums`` f64[P, NUM_SUMS + M · NUM_HEAD_SUMS].

    Shapes: predicted i32[N, H + M + 1], the items, the label of each head, and the bundle that made it; item_row i64[N], 0 for
    an unknown item, which is a miss; observed bool[N, S]; first i64[M + 1] as above; commonest i64[M]; popular and markov
    bool[N], the references' hits; sum_of i64[N] which of the sums a play is added to.
    """
    num_heads = len(first) - 1
    num_items = predicted.shape[1] - num_heads - 1
    for i in range(len(item_row)):
        if predicted[i, num_items + num_heads] != bundle:
            continue
        to, row = sums[sum_of[i]], item_row[i]
        to[0] += 1
        for place in range(num_items):
            if row > 0 and predicted[i, place] == row:
                to[1] += 1
                to[2] += 1.0 / (1.0 + place)
                break
        to[3] += popular[i]
        to[4] += markov[i]
        for head in range(num_heads):
            own, label, at = observed[i, first[head] : first[head + 1]], predicted[i, num_items + head], NUM_SUMS
            at += head * NUM_HEAD_SUMS
            if label >= 0 and own.any():
                to[at] += 1
                to[at + 1] += own[label]
                if commonest[head] >= 0:
                    to[at + 2] += own[commonest[head]]
