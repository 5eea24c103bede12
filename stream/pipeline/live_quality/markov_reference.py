"""The Markov chain beside the model: which items would follow a member's last plays, by what this worker has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.online_markov import OnlineMarkov, RankedCounts

if TYPE_CHECKING:
    from stream.bundles.serving import Serving
    from stream.pipeline.batch_rows import BatchRows
    from stream.pipeline.folding import ContextRun
    from stream.pipeline.row_lists import RowLists


class MarkovReference:
    """An online chain over the transitions between appended plays. Owned by the responder thread, but for its creation.

    Until the chain is full for the first time, it also learns the whole context of each member that it meets, once, so that a
    worker that has just started is no weak reference. Whom it has met is kept as a set of hashes for as long.
    """

    def __init__(self, num_rows: int) -> None:
        self._chain = OnlineMarkov(num_rows)
        self._met: set[int] = set()

    @property
    def num_transitions(self) -> int:
        """How many were learned so far."""
        return self._chain.num_added

    def compile(self) -> None:
        """Compiles what the other methods call: seconds where numba's cache is empty."""
        self._chain.compile()

    def last_rows(self, batch: BatchRows, rows: NDArray[np.int64], serving: Serving) -> RowLists:
        """Of the plays in ``rows`` of a batch, the item rows of the plays before each that the chain looks at, oldest first."""
        self._chain.reserve(len(serving.vocabulary))
        return batch.item_rows_before(rows, self._chain.settings.lags, serving.features.layout, serving.vocabulary)

    def hits(
        self,
        item_row: NDArray[np.int64],
        last_rows: Sequence[NDArray[np.int64]],
        k: int,
        popular: RankedCounts,
        hidden: Sequence[NDArray[np.int64]] | None,
    ) -> NDArray[np.bool_]:
        """Whether each item is among the ``k`` that follow. Shapes: i64[N], N times i64[any] -> bool[N]."""
        return self._chain.among_top(item_row, last_rows, k, popular, hidden)

    def learn(self, batch: BatchRows, appended: NDArray[np.int64], last_rows: RowLists, serving: Serving) -> None:
        """Adds the transition to each appended play, or the whole context of a member who is met for the first time.

        ``last_rows``: those of the appended plays, from :meth:`last_rows`.
        """
        #: The first run in the batch of each member who is met now, by the run's number.
        first_runs: dict[int, ContextRun] = {}
        for number, run in enumerate(() if self._chain.is_full else batch.runs):
            if hash(run.member) not in self._met:
                self._met.add(hash(run.member))
                first_runs[number] = run
        layout, vocabulary = serving.features.layout, serving.vocabulary
        for run in first_runs.values():
            rows = vocabulary.rows(layout.view(run.context)["item_hash"])
            self._chain.add(rows[:-1].copy(), rows[1:].copy())
        starts, ends = last_rows.starts[:-1], last_rows.starts[1:]
        counts = ends > starts
        if first_runs:
            counts &= ~np.isin(batch.run[appended], list(first_runs))
        self._chain.add(last_rows.flat[ends[counts] - 1], batch.item_row[appended][counts])
        if self._chain.is_full:
            self._met.clear()
