"""The observed labels of a play, for each intent head: predictions are scored by them.

Shapes: N plays, L labels of a head, Fd dynamic fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intentrec_core.domain.spec import FieldKind
from intentrec_core.features.features import needs_plays_before

if TYPE_CHECKING:
    from stream.bundles.serving import Serving
    from stream.pipeline.batch_rows import BatchRows


class ObservedLabels:
    """Looks the observed labels of plays up, for one bundle. What it needs of the domain's heads is found out once."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        heads, domain = serving.domain.heads, serving.domain
        self._needs_plays_before = any(needs_plays_before(head) for head in heads)
        ends = np.cumsum([head.num_labels for head in heads]).tolist()
        self._num_labels = sum(head.num_labels for head in heads)
        own = [
            (head, slice(end - head.num_labels, end), np.arange(1, 1 + head.num_labels))
            for head, end in zip(heads, ends, strict=True)
        ]
        multi = FieldKind.MULTI_LABEL
        #: Of heads with several labels an item: which labels are theirs, and which of them each item has.
        self._of_items = [(place, serving.items.multi[head.name]) for head, place, _ in own if head.kind is multi]
        #: Of the others: their labels, the codes that stand for these, and the column of an item's code, or the play's field.
        one = [known for known in own if known[0].kind is not multi]
        self._static = [
            (place, codes, domain.static_fields.index(head)) for head, place, codes in one if not head.is_dynamic
        ]
        self._dynamic = [(place, codes, head) for head, place, codes in one if head.is_dynamic]

    def of(self, batch: BatchRows, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The observed labels of the plays at ``rows``, of all heads side by side; those of a head are all false where they are
        not known. Shapes: i64[N] -> bool[N, S].

        Cost: a look-up per play. If a head depends on earlier plays, the features of all contexts are computed once more.
        """
        serving, item_row = self._serving, batch.item_row[rows]
        observed = np.zeros((len(rows), self._num_labels), dtype=np.bool_)
        for place, indicators in self._of_items:
            observed[:, place] = indicators[item_row] > 0
        for place, codes, column in self._static:
            observed[:, place] = serving.items.codes[item_row, column][:, None] == codes
        if self._needs_plays_before:
            known = _dynamic_codes(batch, rows, serving)
        elif self._dynamic:
            plays = batch.plays[rows]
            known = {head.name: serving.features.own_codes(head, plays, item_row) for _, _, head in self._dynamic}
        for place, codes, head in self._dynamic:
            observed[:, place] = known[head.name][:, None] == codes
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
