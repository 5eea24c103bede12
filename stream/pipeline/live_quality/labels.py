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
    from intentrec_core.domain.spec import Field
    from stream.bundles.serving import Serving
    from stream.pipeline.batch_rows import BatchRows


def observed_labels_of(batch: BatchRows, rows: NDArray[np.int64], serving: Serving) -> list[NDArray[np.bool_]]:
    """The observed labels of the plays at ``rows``; all false where they are not known. Shapes: i64[N] -> bool[N, L] per head.

    Cost: a look-up per play. If a head depends on earlier plays, the features of all contexts are computed once more.
    """
    heads, features = serving.domain.heads, serving.features
    item_row = batch.item_row[rows]
    if any(needs_plays_before(head) for head in heads):
        codes = _dynamic_codes(batch, rows, serving)
    else:
        plays = batch.plays[rows]
        codes = {head.name: features.own_codes(head, plays, item_row) for head in heads if head.is_dynamic}
    return [_observed(head, serving, item_row, codes.get(head.name)) for head in heads]


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


def _observed(
    head: Field, serving: Serving, item_row: NDArray[np.int64], codes: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """Shapes: item_row i64[N]; codes i64[N] where the head is a dynamic field -> bool[N, L]."""
    if head.kind is FieldKind.MULTI_LABEL:
        return np.asarray(serving.items.multi[head.name][item_row] > 0)
    if codes is None:
        codes = serving.items.codes[item_row, serving.domain.static_fields.index(head)]
    return np.asarray(np.arange(1, 1 + head.num_labels) == codes[:, None])
