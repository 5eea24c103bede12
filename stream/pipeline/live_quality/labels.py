"""The observed labels of a play, for each intent head: predictions are scored by them.

Shapes: N plays, L labels of a head, Fd dynamic fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intentrec_core.domain.spec import FieldKind
from intentrec_core.features.features import needs_plays_before
from intentrec_core.kernels.judged import mark_labels

if TYPE_CHECKING:
    from stream.bundles.serving import Serving
    from stream.pipeline.batch_rows import BatchRows


class ObservedLabels:
    """Looks the observed labels of plays up, for one bundle. What it needs of the domain's heads is found out once."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        heads, domain = serving.domain.heads, serving.domain
        ends = np.cumsum([head.num_labels for head in heads]).tolist()
        self._num_labels = sum(head.num_labels for head in heads)
        self._needs_plays_before = any(needs_plays_before(head) for head in heads)
        own = [(head, (end - head.num_labels, end)) for head, end in zip(heads, ends, strict=True)]
        multi = FieldKind.MULTI_LABEL
        #: Of heads with several labels an item: which labels are theirs, and which of them each item has.
        self._of_items = [(slice(*place), serving.items.multi[head.name]) for head, place in own if head.kind is multi]
        #: Of the others: codes of the items, the heads that need the play, and where the labels of both begin and end.
        static = [(head, place) for head, place in own if head.kind is not multi and not head.is_dynamic]
        dynamic = [(head, place) for head, place in own if head.is_dynamic]
        self._item_codes = serving.items.codes[:, [domain.static_fields.index(head) for head, _ in static]]
        self._dynamic = [head for head, _ in dynamic]
        self._places = np.array([place for _, place in static + dynamic], dtype=np.int64).reshape(-1, 2)

    def of(self, batch: BatchRows, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The observed labels of the plays at ``rows``, of all heads side by side; those of a head are all false where they are
        not known. Shapes: i64[N] -> bool[N, S].

        Cost: a look-up per play. If a head depends on earlier plays, the features of all contexts are computed once more.
        """
        serving, item_row = self._serving, batch.item_row[rows]
        observed = np.zeros((len(rows), self._num_labels), dtype=np.bool_)
        for place, indicators in self._of_items:
            observed[:, place] = indicators[item_row] > 0
        codes = np.empty((len(rows), len(self._places)), dtype=np.int64)
        num_static = self._item_codes.shape[1]
        codes[:, :num_static] = self._item_codes[item_row]
        if self._needs_plays_before:
            known = _dynamic_codes(batch, rows, serving)
        elif self._dynamic:
            plays = batch.plays[rows]
            known = {head.name: serving.features.own_codes(head, plays, item_row) for head in self._dynamic}
        for column, head in enumerate(self._dynamic, start=num_static):
            codes[:, column] = known[head.name]
        mark_labels(codes, self._places, observed)
        return observed


def _dynamic_codes(batch: BatchRows, rows: NDArray[np.int64], serving: Serving) -> dict[str, NDArray[np.int64]]:
    """Codes of all dynamic fields, by name."""
    size = serving.features.layout.size
    contexts, starts = [], []
    for run_of, nth in zip(batch.run[rows].tolist(), batch.nth[rows].tolist(), strict=True):
        run = batch.runs[run_of]
        num_plays = len(run.context) // size - run.num_outputs + nth + 1
        contexts.append(run.context[: num_plays * size])
        starts.append(num_plays - 1)
    codes = serving.features.columns(contexts, starts).codes
    return {field.name: codes[:, column] for column, field in enumerate(serving.domain.dynamic_fields)}
