"""What follows the last plays of members, of packed contexts: :mod:`intentrec_core.successors` as it is served.

Shapes: N contexts, L last plays of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from intentrec_core.features.features import FeatureBuilder
from intentrec_core.item_offsets import ItemOffsets
from intentrec_core.successors import LAGS, Successors


class SuccessorScorer:
    """The table and the weight of one model. Safe from any thread."""

    def __init__(self, successors: Successors, features: FeatureBuilder) -> None:
        # What is only counted is not held.
        self._successors, self._features = Successors(successors.most_frequent, successors.weight), features
        self._successors.offsets(np.zeros((1, LAGS), dtype=np.int64))  # compiles, where numba's cache is empty

    def scores(self, contexts: Sequence[bytes], popular: NDArray[np.float32] | None = None) -> ItemOffsets:
        """What is added to the scores of the items that usually follow the last L plays of each context.

        ``popular`` f32[V]: what is played now; its own part of the scores is not in the result (:meth:`Successors.offsets`).

        To the bit the same whatever other contexts there are; rows ascend for each query.
        """
        return self._successors.offsets(self._last_rows(contexts), popular)

    def of_popular(self, popular: NDArray[np.float32]) -> NDArray[np.float32]:
        """What popularity alone adds to the scores of items. Shape: f32[V] -> f32[V]."""
        return self._successors.of_popular(popular)

    def _last_rows(self, contexts: Sequence[bytes]) -> NDArray[np.int64]:
        """The items of the last plays, newest first; 0 for unknown items, and where a context has fewer. Shape: i64[N, L]."""
        size = self._features.layout.size
        last = [context[-LAGS * size :] for context in contexts]
        lengths = np.array([len(plays) // size for plays in last], dtype=np.int64)
        rows = self._features.rows(self._features.layout.view(b"".join(last))["item_hash"])
        back = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(rows))
        found = np.zeros((len(contexts), LAGS), dtype=np.int64)
        found[np.repeat(np.arange(len(contexts)), lengths), back] = rows
        return found
