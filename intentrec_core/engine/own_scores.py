"""What the plays of members add to the scores of their items: :mod:`intentrec_core.model.own_items` of packed contexts, in NumPy.

    contexts ─ features ─ newest play of each item ─┬─ pair columns ─┐
                                                    └─ key ──────────┴─ · gate of E, p ─▶ rows, offsets

A key's layer is linear in the fields, so the share of each item and of each code is computed once for a model.

Shapes: N contexts, P plays of all of them, D own items of all of them, V item rows, K width of a key, G width of what the
gate sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentrec_core.engine.engine import Encoded
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.item_offsets import ItemOffsets
from intentrec_core.model.own_item_inputs import MINUTE_S, seen_by_gate
from intentrec_core.model.weights import ModelWeights


def seen(encoded: Encoded, rows: Any) -> NDArray[np.float32]:
    """What the gate sees of some rows of an output. Shape: f32[N, G]."""
    probabilities = [head[rows] for head in encoded.heads]
    return np.concatenate(seen_by_gate(encoded.item_NW[rows], probabilities, np.log), axis=-1)


class OwnScorer:
    """The gate and the key shares of one model, on the host. It holds V · K numbers. Safe from any thread."""

    def __init__(self, model: ModelWeights, features: FeatureBuilder) -> None:
        """Raises: ValueError for a model without own items."""
        self._features = features
        self._of_items_VK, self._of_codes = model.own_key_shares()
        self._gate_GC = model.arrays["own_items.gate.weight"].T.copy()
        self._gate_bias_C = model.arrays["own_items.gate.bias"]

    def scores(self, contexts: Sequence[bytes], seen_NG: NDArray[np.float32]) -> ItemOffsets:
        """Of contexts, each up to the play whose output is a row of ``seen_NG``, as :func:`seen` gives it.

        To the bit the same whatever other contexts there are.
        Cost: O(P log P + D · K), in some 30 array operations.
        """
        columns = self._features.columns(contexts, [0] * len(contexts))
        query_P = np.repeat(np.arange(len(contexts)), columns.lengths)
        newest, times = _newest_of_each_item(query_P, columns.item_row)
        query, row = query_P[newest], columns.item_row[newest]
        last = np.cumsum(columns.lengths)[query] - 1
        later = np.searchsorted(query, query, side="right") - np.arange(len(query)) - 1
        lag_s = np.maximum(0.0, columns.ts_s[last] - columns.ts_s[newest])
        pair = [np.ones(len(query)), np.log1p(times), np.log1p(lag_s / MINUTE_S), np.log1p(later), newest == last]
        entered = self._of_items_VK[row]
        for shares, codes in zip(self._of_codes, columns.codes[newest].T, strict=True):
            entered += shares[codes]
        columns_DC = np.concatenate([np.stack(pair, axis=1).astype(np.float32), np.maximum(entered, 0)], axis=1)
        # Not "@": BLAS sums in another order for another number of contexts.
        gate_NC = np.einsum("ng,gc->nc", seen_NG, self._gate_GC) + self._gate_bias_C
        return ItemOffsets(query, row, np.einsum("dc,dc->d", gate_NC[query], columns_DC))


def _newest_of_each_item(
    query: NDArray[np.int64], row: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The newest play of each known item of each query, in the order of plays, and how often the item was played.

    Shapes: i64[P], i64[P] -> i64[D], i64[D].
    """
    known = np.flatnonzero(row > 0)
    order = known[np.lexsort((row[known], query[known]))]  # stable: plays of one item stay in their order
    ends = np.ones(len(order), dtype=np.bool_)
    ends[:-1] = (row[order[1:]] != row[order[:-1]]) | (query[order[1:]] != query[order[:-1]])
    places = np.flatnonzero(ends)
    newest, times = order[places], np.diff(places, prepend=-1)
    in_order = np.argsort(newest)
    return newest[in_order], times[in_order]
