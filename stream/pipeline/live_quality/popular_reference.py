"""What is popular beside the model: whether an item is among the most played ones that are not hidden."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.online_markov import RankedCounts
from intentrec_core.baselines.popularity import PopularWindow
from intentrec_core.kernels.most_played import among_most_played
from stream.pipeline.row_lists import RowLists


class PopularReference:
    """Owned by the responder thread, but for its creation: it holds scratch space."""

    def __init__(self) -> None:
        self._is_hidden = np.zeros(0, dtype=np.bool_)

    def compile(self) -> None:
        """Compiles what :meth:`hits` calls: seconds where numba's cache is empty."""
        self.hits(np.zeros(0, dtype=np.int64), 1, PopularWindow(), RowLists.none(0))

    def hits(self, item_row: NDArray[np.int64], k: int, popular: RankedCounts, hidden: RowLists) -> NDArray[np.bool_]:
        """Whether each item was played and is among the ``k`` most played, without the rows ``hidden`` from it.

        Among rows with equal counts, the order that ``popular`` has them in decides.

        Shapes: i64[N], hidden of N -> bool[N].
        Cost: O(k + number of its hidden rows) for each item: below a microsecond.
        """
        counts, order = popular.counts_and_order()
        if len(counts) > len(self._is_hidden):
            self._is_hidden = np.zeros(len(counts), dtype=np.bool_)
        found: NDArray[np.bool_] = among_most_played(
            item_row, k, hidden.flat, hidden.starts, counts, order, self._is_hidden
        )
        return found
