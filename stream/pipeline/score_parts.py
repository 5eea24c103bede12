"""The score of every item for one member in parts, as :mod:`stream.pipeline.retrieval` sums it up, with what hides each item.

    score = taste ⟨E, w⟩ + bias + what the intents add, by head + counts of plays + own items + successors
    of a list of popular items: log(1 + plays) + the probability of the item's labels, by head

Every item is scored exactly, whatever the index: to explain a list, and not to serve one.

Shapes: V item rows with those of items that are new to the bundle, row 0 no item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index import conditioning
from intentrec_core.model.intent_score import weighted_scores
from stream.pipeline.popular import PopularNow

if TYPE_CHECKING:
    from index.base import Mask
    from intentrec_core.engine.engine import Encoded
    from stream.bundles.serving import Serving
    from stream.pipeline.batch_rows import BatchRows
    from stream.pipeline.bundle_counts import BundleCounts
    from stream.pipeline.retrieval import RankedItems, Retrieval
    from stream.pipeline.shown_items import ShownItems

#: Rows whose vectors are copied at once: some 30 MB.
_ROWS_AT_ONCE = 65_536
WATCHED, WITHDRAWN = "watched", "withdrawn"


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """``parts`` f32[V] each, by name: taste, static, intent NAME, counts, own items, successors; or popular and intent NAME.
    ``total`` f32[V]: their sum, -inf in row 0. ``hiding`` bool[V] each: what hides an item, by the filter's name, ``watched`` or
    ``withdrawn``.
    """

    parts: Mapping[str, NDArray[np.float32]]
    total: NDArray[np.float32]
    hiding: Mapping[str, Mask]

    def of(self, row: int) -> dict[str, float]:
        """The parts of one item."""
        return {name: float(part[row]) for name, part in self.parts.items()}

    def rules_hiding(self, row: int) -> list[str]:
        """What hides one item; nothing where it may be shown."""
        return [name for name, hidden in self.hiding.items() if hidden[row]]


def score_parts(
    serving: Serving,
    retrieval: Retrieval,
    batch: BatchRows,
    encoded: Encoded,
    items: ShownItems,
    watched: NDArray[np.int64],
    ranked: RankedItems,
    counts: BundleCounts | None,
    beta: float,
) -> ScoreParts:
    """The parts for a batch of one row, of what :meth:`Retrieval.search` ranked for it with the same arguments.

    Cost: O(V · D).
    """
    if ranked.popular[0]:
        parts = _of_popular(serving, retrieval, encoded, items, counts)
    else:
        parts = _of_query(serving, retrieval, batch, encoded, items, counts, beta)
    total = np.stack(list(parts.values())).sum(axis=0)
    total[0] = -np.inf
    hiding = dict(items.filters.hiding_rows(retrieval.values_by_key(batch, 0)))
    if retrieval.hides(encoded)[0]:
        mask = np.zeros(len(total), dtype=np.bool_)
        mask[watched[watched > 0]] = True
        hiding[WATCHED] = mask
    shown = np.zeros(len(total), dtype=np.bool_)
    shown[: len(items.shown)] = items.shown
    hiding[WITHDRAWN] = ~shown
    hiding[WITHDRAWN][0] = False
    return ScoreParts(parts, total, hiding)


def _of_query(
    serving: Serving,
    retrieval: Retrieval,
    batch: BatchRows,
    encoded: Encoded,
    items: ShownItems,
    counts: BundleCounts | None,
    beta: float,
) -> dict[str, NDArray[np.float32]]:
    row = np.array([0])
    probabilities = retrieval.label_probs(encoded, row)
    added = weighted_scores(probabilities, np.float32(beta) * serving.label_betas)
    query = conditioning.query(encoded.item_NW[row], added)[0]
    index, width = items.index, encoded.item_NW.shape[1]
    names = _head_names(serving)
    ends = np.cumsum([width + 1, *(scores.shape[1] for scores in added)]).tolist()
    parts = {name: np.zeros(index.num_items + 1, dtype=np.float32) for name in ("taste", "static", *names)}
    for first in range(1, index.num_items + 1, _ROWS_AT_ONCE):
        rows = np.arange(first, min(first + _ROWS_AT_ONCE, index.num_items + 1))
        vectors = index.vectors_of(rows)
        parts["taste"][rows] = vectors[:, :width] @ query[:width]
        parts["static"][rows] = vectors[:, width]
        for name, begin, end in zip(names, ends, ends[1:], strict=False):
            parts[name][rows] = vectors[:, begin:end] @ query[begin:end]
    if serving.counts is not None and counts is not None:
        weights = serving.counts.weights(encoded.item_NW[row])[0]
        rows = np.arange(1, index.num_items + 1)
        columns = counts.index(items).vectors_of(rows)[:, index.dimension :]
        parts["counts"] = np.concatenate([[np.float32(0)], columns[:, : len(weights)] @ weights])
        if counts.shares is not None:
            parts["successors"] = np.concatenate([[np.float32(0)], columns[:, -1]])
    beside = {
        "own items": retrieval.own_scores(batch, encoded, row, retrieval.hides(encoded)),
        "successors": retrieval.successor_scores(batch, row, counts),
    }
    for name, offsets in beside.items():
        if offsets is not None:
            part = parts.setdefault(name, np.zeros(index.num_items + 1, dtype=np.float32))
            part[offsets.row] += offsets.offset
    return parts


def _of_popular(
    serving: Serving, retrieval: Retrieval, encoded: Encoded, items: ShownItems, counts: BundleCounts | None
) -> dict[str, NDArray[np.float32]]:
    num_rows = len(items.titles)
    known = (
        counts.appeal(items) if counts is not None else PopularNow(serving.popularity, serving.counted_at_s).appeal()
    )
    parts = {"popular": np.zeros(num_rows, dtype=np.float32)}
    parts["popular"][: len(known)] = known
    for name, probs, labels in zip(
        _head_names(serving), retrieval.label_probs(encoded, np.array([0])), items.labels, strict=True
    ):
        parts[name] = (labels > 0).astype(np.float32) @ probs[0]
    return parts


def _head_names(serving: Serving) -> Sequence[str]:
    return [f"intent {serving.domain.heads[m].name}" for m in serving.label_heads]
