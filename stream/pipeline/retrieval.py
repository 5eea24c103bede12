"""Turns encoded rows into ranked items: conditioned on the intents, and filtered as of each play.

    E, p ─ query ─ index, counts of plays as further columns ─ own items and successors, exact beside it ▶ rows, scores
             └ the bundle knows no item of the context: what is popular now, conditioned on the intents

Shapes: N rows of the batch, k items a list, V item rows, M heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index import conditioning
from index.base import PAD_ROW, Mask
from index.candidates import compile_with_offsets, with_offsets
from index.filters import HidingFilter
from intentrec_core.domain.spec import Filter, FilterKind
from intentrec_core.engine.own_scores import seen
from intentrec_core.history.history import EventLayout, default_value
from intentrec_core.item_offsets import ItemOffsets, summed
from intentrec_core.model.intent_score import weighted_scores
from intentrec_core.successors import LAGS
from stream.pipeline.batch_rows import BatchRows
from stream.pipeline.live_quality.predictions import CUTOFF
from stream.pipeline.page_rows import POOL
from stream.pipeline.popular import ranked as by_appeal
from stream.pipeline.watched import WatchedRows

if TYPE_CHECKING:
    from index.base import ItemIndex
    from index.counted import CountedIndex
    from index.filters import FilterSet
    from intentrec_core.engine.engine import Encoded
    from stream.bundles.serving import Serving
    from stream.pipeline.bundle_counts import BundleCounts
    from stream.pipeline.index_probe import IndexProbe
    from stream.pipeline.popular import PopularNow
    from stream.pipeline.shown_items import ShownItems

_NO_ROWS = np.zeros(0, dtype=np.int64)
#: Profiles have few different values; beyond so many the masks are asked for anew.
_KEPT_MASKS = 256
_Values = tuple[float | int | None, ...]
"""What a member's plays say for each filter of :attr:`index.filters.FilterSet.member_keys`; None if they say nothing."""


@dataclass(frozen=True, slots=True)
class RankedItems:
    """Shapes: rows i64[N, k] (-1 padded), scores f32[N, k], popular bool[N]: whether the list is the popular fallback.

    ``hidden_by``: the filters that hide every item, by row, for rows whose list is empty for that reason. ``queries``: what the
    rows were searched with, f32[N, Q], 0 for a row that was not, and ``member_values``: what the member's plays say for each
    filter; None where they are not kept. ``allowed``: what the filters show to each row's member, watched items included.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    popular: NDArray[np.bool_]
    hidden_by: Mapping[int, Sequence[HidingFilter]] = field(default_factory=dict)
    queries: NDArray[np.float32] | None = None
    member_values: Sequence[_Values] | None = None
    allowed: Sequence[Mask | None] = ()


def num_searched(num_recommendations: int, *, has_rows: bool) -> int:
    """How many items a worker looks for, for each list: also what the live quality judges and what fills the rows of a page."""
    return max(CUTOFF, num_recommendations, POOL if has_rows else 0)


class Retrieval:
    """Ranks ``k`` items for each row, with one bundle. ``beta`` scales how much intents add to the score of an item.
    ``keeps_queries``: whether the result has the queries too.
    """

    def __init__(
        self, serving: Serving, *, k: int, beta: float, probe: IndexProbe, keeps_queries: bool = False
    ) -> None:
        self._serving, self._k, self._probe, self._keeps_queries = serving, k, probe, keeps_queries
        compile_with_offsets()
        self._counted: tuple[tuple[object, ...], CountedIndex] | None = None
        self._filters = serving.filters
        #: Masks of these filters by the member's values, as many as the filters keep themselves. One that they drop lives on
        #: here: twice the memory at most.
        self._masks = dict[_Values, Mask | None]()
        self._betas = np.float32(beta) * serving.label_betas
        domain = serving.domain
        self._layout = EventLayout(domain)
        rules = {f.event_key: f for f in domain.event_filters}
        self._member_rules = [rules[key] for key in serving.filters.member_keys]
        watched = [f for f in domain.filters if f.kind is FilterKind.WATCHED]
        self._hides_whole_context = self._layout.watched >= domain.context_size
        names = [head.name for head in domain.heads] if serving.has_intents else []
        self._hides_always = any(rule.unless_head not in names for rule in watched)
        #: For each watched filter with an exception: its head, and the labels of the head for which watched items stay hidden.
        self._hiding_labels = [
            (at := names.index(rule.unless_head), _hidden(domain.heads[at].label_names, rule.unless_values))
            for rule in watched
            if rule.unless_head in names
        ]

    def search(
        self,
        batch: BatchRows,
        encoded: Encoded,
        items: ShownItems,
        watched: Sequence[WatchedRows],
        unanswered: NDArray[np.bool_],
        popular: PopularNow,
        counts: BundleCounts | None = None,
    ) -> RankedItems:
        """Ranks ``items`` for every row that is not ``unanswered``, by a table of counts where there is one. Shape: bool[N]."""
        num = len(batch)
        hides = self.hides(encoded)
        values = self.member_values(batch)
        allowed = self._allowed(values, items.filters)
        ranked = RankedItems(
            np.full((num, self._k), PAD_ROW, dtype=np.int64),
            np.full((num, self._k), -np.inf, dtype=np.float32),
            ~unanswered & ~self._known(batch),
            allowed=allowed,
        )
        excluded = [rows if hide else _NO_ROWS for rows, hide in zip(watched, hides.tolist(), strict=True)]
        rows = np.flatnonzero(~unanswered & ~ranked.popular)
        if len(rows):
            items_NW = encoded.item_NW[rows]
            # Of copies, not of views: np.log rounds otherwise where numbers are not next to each other.
            scores = weighted_scores(self.label_probs(encoded, rows), self._betas)
            queries = conditioning.query(items_NW, scores)
            index = items.index
            if self._serving.counts is not None and counts is not None:
                index = self._index(items, counts)
                queries = np.concatenate([queries, self._serving.counts.weights(items_NW)], axis=1)
            searched = queries
            if counts is not None and counts.shares is not None:  # the last column is added as it is: its weight is 1
                searched = np.concatenate([queries, np.ones((len(queries), 1), dtype=np.float32)], axis=1)
            picked = rows.tolist()
            # Members who are about to continue an item must find it, even if an approximate index misses it.
            included = None if hides.all() else [_NO_ROWS if hides[i] else watched[i] for i in picked]
            hidden, masks = [excluded[i] for i in picked], [allowed[i] for i in picked]
            beside = summed(
                self.own_scores(batch, encoded, rows, hides[rows]), self.successor_scores(batch, rows, counts)
            )
            if beside is not None:
                beside = _shown_only(beside, hidden, masks, index.num_items + 1)
            others = hidden if beside is None else _with_lowered(hidden, beside)
            found = index.search(searched, self._k, excluded=others, allowed=masks, included=included)
            self._probe.offer(index, searched, found, others, masks)
            if beside is not None:
                found = _merged(found, beside, index, searched)
            ranked.rows[rows], ranked.scores[rows] = found
            if self._keeps_queries:
                kept = np.zeros((num, queries.shape[1]), dtype=np.float32)
                kept[rows] = queries
                ranked = replace(ranked, queries=kept, member_values=values)
        rows = np.flatnonzero(ranked.popular)
        if len(rows):
            picked = rows.tolist()
            ranked.rows[rows], ranked.scores[rows] = by_appeal(
                popular.appeal() if counts is None else counts.appeal(items),
                self.label_probs(encoded, rows),
                items.labels,
                self._k,
                num_rows=len(items.titles),
                excluded=[excluded[i] for i in picked],
                allowed=[allowed[i] for i in picked],
            )
        empty = np.flatnonzero(~unanswered & (ranked.rows[:, 0] == PAD_ROW))
        return replace(ranked, hidden_by=self._hidden_by(empty, values, items.filters)) if len(empty) else ranked

    def _index(self, items: ShownItems, counts: BundleCounts) -> CountedIndex:
        """The index of the items with their counts, made once for a table and a state of the catalogue."""
        of = (counts, items.index, items.added)
        if self._counted is None or any(one is not other for one, other in zip(of, self._counted[0], strict=True)):
            self._counted = of, counts.index(items)
        return self._counted[1]

    def own_scores(
        self, batch: BatchRows, encoded: Encoded, rows: NDArray[np.int64], hides: NDArray[np.bool_]
    ) -> ItemOffsets | None:
        """What the plays of each of ``rows`` add to the scores of their items, where not every play held is hidden; None where
        that is nowhere, and for a model without own items. Shape: hides bool[len(rows)].
        """
        own = self._serving.own
        if own is None or (self._hides_whole_context and hides.all()):
            return None
        contexts = [self._context(batch, row) for row in rows.tolist()]
        num_held = np.array([len(plays) for plays in contexts])
        places = np.flatnonzero(~hides | (num_held > self._layout.watched))
        if not len(places):
            return None
        found = own.scores([contexts[place].tobytes() for place in places.tolist()], seen(encoded, rows[places]))
        return replace(found, query=places[found.query])

    def successor_scores(
        self, batch: BatchRows, rows: NDArray[np.int64], counts: BundleCounts | None
    ) -> ItemOffsets | None:
        """What the last plays of each of ``rows`` add to the scores of what follows them, beyond what popularity adds to all;
        None for a model without successors.
        """
        if self._serving.successors is None:
            return None
        last = [self._context(batch, row)[-LAGS:].tobytes() for row in rows.tolist()]
        return self._serving.successors.scores(last, None if counts is None else counts.shares)

    def label_probs(self, encoded: Encoded, rows: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """Probabilities of the labels that depend on the item alone; all 0 if the model predicts no intents."""
        serving = self._serving
        if not encoded.heads:
            return [np.zeros((len(rows), labels.shape[1]), dtype=np.float32) for labels in serving.labels]
        return [encoded.heads[m][rows] for m in serving.label_heads]

    def hides(self, encoded: Encoded) -> NDArray[np.bool_]:
        """Whether watched items are hidden, by the likeliest label of the heads that the filters use. Shape: bool[N]."""
        hides = np.full(len(encoded.item_NW), self._hides_always)
        for head, hidden_labels in self._hiding_labels:
            hides |= hidden_labels[encoded.heads[head].argmax(axis=1)]
        return hides

    def _known(self, batch: BatchRows) -> NDArray[np.bool_]:
        """Whether the bundle knows any item of the context. Shape: bool[N]."""
        known = batch.item_row > 0
        if known.all():
            return known
        for row in np.flatnonzero(~known).tolist():
            items = self._context(batch, row)["item_hash"]
            known[row] = self._serving.vocabulary.rows(items).any()
        return known

    def _allowed(self, values_N: Sequence[_Values], filters: FilterSet) -> list[Mask | None]:
        """The items allowed after each play; None if all items are."""
        if filters is not self._filters or len(self._masks) > _KEPT_MASKS:
            self._filters, self._masks = filters, {}
        masks = self._masks
        for values in values_N:
            if values not in masks:
                masks[values] = _mask(filters.allowed(self._by_key(values)))
        return [masks[values] for values in values_N]

    def _hidden_by(
        self, empty: NDArray[np.int64], values_N: Sequence[_Values], filters: FilterSet
    ) -> dict[int, tuple[HidingFilter, ...]]:
        """The filters that hide every item from the members at the ``empty`` rows, where filters do."""
        hiding, found = dict[_Values, tuple[HidingFilter, ...]](), dict[int, tuple[HidingFilter, ...]]()
        for row in empty.tolist():
            values = values_N[row]
            if values not in hiding:
                hiding[values] = filters.hiding(self._by_key(values))
            if hiding[values]:
                found[row] = hiding[values]
        return found

    def _by_key(self, values: _Values) -> dict[str, float | int | None]:
        return dict(zip(self._serving.filters.member_keys, values, strict=True))

    def values_by_key(self, batch: BatchRows, row: int) -> dict[str, float | int | None]:
        """The member's values as of a row's play, by the filter's ``event_key``."""
        return self._by_key(self.member_values(batch)[row])

    def member_values(self, batch: BatchRows) -> list[_Values]:
        """The member's values as of each row's play, in the order of the filters that read one."""
        if not self._member_rules:
            return [()] * len(batch)
        return list(zip(*(self._values(batch, rule) for rule in self._member_rules), strict=True))

    def _values(self, batch: BatchRows, rule: Filter) -> list[float | int | None]:
        """The member's value as of each row's play: the latest one that is not missing, else the domain's default."""
        column, is_number, default = f"filter_{rule.event_key}", rule.kind is FilterKind.AT_MOST, default_value(rule)
        newest = batch.plays[column]
        missing = np.isnan(newest) if is_number else newest == 0
        values: list[float | int | None] = newest.tolist()
        for row in np.flatnonzero(missing).tolist():
            known = self._context(batch, row)[column]
            known = known[~np.isnan(known)] if is_number else known[known != 0]
            values[row] = known[-1].item() if len(known) else default
        return values

    def _context(self, batch: BatchRows, row: int) -> NDArray[np.void]:
        """The plays of the context up to the row's play."""
        run = batch.runs[batch.run[row]]
        plays = self._layout.view(run.context)
        return plays[: len(plays) - run.num_outputs + int(batch.nth[row]) + 1]


def _shown_only(
    beside: ItemOffsets, hidden: Sequence[NDArray[np.int64]], masks: Sequence[Mask | None], num_rows: int
) -> ItemOffsets:
    """The own items and successors that may be shown."""
    shown, is_hidden = np.ones(len(beside.row), dtype=np.bool_), np.zeros(num_rows, dtype=np.bool_)
    ends = np.searchsorted(beside.query, np.arange(len(hidden) + 1))
    for i, (left_out, mask) in enumerate(zip(hidden, masks, strict=True)):
        part = slice(ends[i], ends[i + 1])
        if len(left_out):
            is_hidden[left_out] = True
            shown[part] &= ~is_hidden[beside.row[part]]
            is_hidden[left_out] = False
        if mask is not None:
            shown[part] &= mask[beside.row[part]]
    return ItemOffsets(beside.query[shown], beside.row[shown], beside.offset[shown])


def _with_lowered(hidden: Sequence[NDArray[np.int64]], beside: ItemOffsets) -> list[NDArray[np.int64]]:
    """The rows that the index leaves out for each query: hidden ones, and those with a score beside it that is below the index's.
    Of the others it may find some; where it does, nothing better is missing.
    """
    lowered = beside.offset < 0
    ends = np.searchsorted(beside.query[lowered], np.arange(len(hidden)), side="right")
    return [np.concatenate(both) for both in zip(hidden, np.split(beside.row[lowered], ends[:-1]), strict=True)]


def _merged(
    found: tuple[NDArray[np.int64], NDArray[np.float32]],
    beside: ItemOffsets,
    index: ItemIndex,
    queries: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The index's best together with the own items and the successors, which are scored exactly."""
    return with_offsets(*found, queries, beside.query, beside.row, beside.offset, index.vectors_of, index.num_items + 1)


def _hidden(labels: Sequence[str], unless: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([label not in unless for label in labels], dtype=bool)


def _mask(mask: Mask) -> Mask | None:
    """None if all items are allowed, because most indexes are faster without a mask."""
    return None if mask[1:].all() else mask
