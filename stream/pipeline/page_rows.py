"""Fills the rows that a rows file declares, for each list, from the items that the search has scored anyway.

    the best of the search, by score ─┬─ intent: those with a label that is likely now, a row a label
                                      ├─ because_of: those nearest to an item that was just played
                                      ├─ popular: those that most members play now
                                      └─ new: those first played within 7 days
    what the member holds ─────────────── continue: newest first, as far as filters show it

Rows are filled from the first one on the page downwards, and no item is there twice. A row with fewer than 3 items,
or than its size if that is less, is left out.

Shapes: V item rows, W width, P items of a pool.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from index.base import PAD_ROW
from stream.pipeline.reasons import first_played_lately
from stream.pipeline.row_rules import RowKind, RowRule
from stream.wire.messages import PageRow, RowItem
from stream.wire.row_order import by_weight

if TYPE_CHECKING:
    from stream.bundles.serving import Serving
    from stream.pipeline.answered_rows import AnsweredRows

logger = logging.getLogger(__name__)

#: Items that the search finds for a page.
POOL = 100
#: A row with fewer items is none, unless its size is less.
MIN_ITEMS = 3
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class _Planned:
    """A row before it is filled. ``label``: its place in the head; ``anchor``: the item row of because_of."""

    rule: RowRule
    weight: float
    label: int = -1
    anchor: int = 0


class PageRows:
    """Fills the rows of one bundle's pages. A rule that does not fit the bundle's domain has no rows, which is logged."""

    def __init__(self, serving: Serving, rules: Sequence[RowRule]) -> None:
        problems = [rule.problem(serving.domain) for rule in rules]
        for number, problem in enumerate(problems):
            if problem is not None:
                logger.warning("bundle %s has no rows of rows[%d]: %s", serving.version, number, problem)
        self._serving = serving
        self._rules = [rule for rule, problem in zip(rules, problems, strict=True) if problem is None]
        self._heads = {head.name: m for m, head in enumerate(serving.domain.heads)} if serving.has_intents else {}
        self._label_columns = {serving.domain.heads[m].name: place for place, m in enumerate(serving.label_heads)}
        self._width = serving.engine.weights.config.width

    def of(self, answered: AnsweredRows) -> list[list[PageRow]]:
        """The rows of each list, first row first; none for a row that is not answered.

        Cost: about 0.1 ms a list, for a page of five rules.
        """
        ranked = answered.ranked
        heads = [np.round(head.astype(np.float64), _DIGITS) for head in answered.encoded.heads]
        alpha = np.round(answered.encoded.alpha_NM.astype(np.float64), _DIGITS)
        plays = self._plays(answered)
        pools = [row[row != PAD_ROW] for row in ranked.rows]
        flat = np.concatenate(pools) if pools else np.zeros(0, dtype=np.int64)
        is_new = np.split(first_played_lately(answered, flat), np.cumsum([len(pool) for pool in pools])[:-1])
        return [
            self._page(answered, row, pool, new, [head[row] for head in heads], alpha[row], plays) if len(pool) else []
            for row, (pool, new) in enumerate(zip(pools, is_new, strict=True))
        ]

    def _page(
        self,
        answered: AnsweredRows,
        row: int,
        pool: NDArray[np.int64],
        is_new: NDArray[np.bool_],
        probs: Sequence[NDArray[np.float64]],
        alpha: NDArray[np.float64],
        plays: NDArray[np.float64],
    ) -> list[PageRow]:
        items = answered.items
        held = _newest_first(answered.watched[row])
        held = held[items.shown[held]]
        planned = [one for rule in self._rules for one in self._planned(rule, probs, alpha, held)]
        used, page = set[int](), list[PageRow]()
        for one in by_weight(planned, lambda each: each.weight):
            match one.rule.kind:
                case RowKind.CONTINUE:
                    mask = answered.ranked.allowed[row]
                    found = held if mask is None else held[mask[held]]
                case RowKind.INTENT:
                    found = pool[items.labels[self._label_columns[one.rule.head]][pool, one.label] > 0]
                case RowKind.BECAUSE_OF:
                    found = self._nearest(answered, pool, one.anchor)
                case RowKind.POPULAR:
                    found = pool[np.argsort(-plays[pool], kind="stable")]
                case RowKind.NEW:
                    found = pool[is_new]
            chosen = [item for item in found.tolist() if item not in used][: one.rule.size]
            if len(chosen) >= min(MIN_ITEMS, one.rule.size):
                used.update(chosen)
                page.append(self._row(answered, one, chosen))
        return page

    def _planned(
        self, rule: RowRule, probs: Sequence[NDArray[np.float64]], alpha: NDArray[np.float64], held: NDArray[np.int64]
    ) -> Iterator[_Planned]:
        """The rows that a rule asks for now."""
        if rule.kind is RowKind.BECAUSE_OF:
            for anchor in held[: rule.at_most].tolist():
                yield _Planned(rule, rule.weight, anchor=anchor)
            return
        m = self._heads.get(rule.head, -1)
        if m < 0:
            if rule.kind is not RowKind.INTENT:  # without intents there are no rows of them
                yield _Planned(rule, rule.weight)
            return
        names = self._serving.domain.heads[m].label_names
        weights = (alpha[m] * probs[m]).tolist()
        if rule.label:
            label = names.index(rule.label)
            yield _Planned(rule, weights[label], label)
            return
        likely = sorted(range(len(names)), key=lambda label: -weights[label])[: rule.at_most]
        for label in sorted(likely):  # in the order of the domain; the page's order has a margin
            yield _Planned(rule, weights[label], label)

    def _nearest(self, answered: AnsweredRows, pool: NDArray[np.int64], anchor: int) -> NDArray[np.int64]:
        """The items of the pool by the cosine of their vectors to that of ``anchor``, nearest first."""
        pool = pool[pool != anchor]
        index = answered.items.index
        own = index.vectors_of(np.array([anchor]))[0, : self._width]
        vectors = index.vectors_of(pool)[:, : self._width]
        lengths = np.sqrt(np.einsum("pw,pw->p", vectors, vectors))
        cosines = np.einsum("pw,w->p", vectors, own) / np.maximum(lengths, np.float32(1e-12))
        nearest: NDArray[np.int64] = pool[np.argsort(-cosines, kind="stable")]
        return nearest

    def _plays(self, answered: AnsweredRows) -> NDArray[np.float64]:
        """How often every item that is shown was played: by the table of counts, without one by the bundle. Shape: f64[V + S]."""
        if answered.item_counts is not None:
            return answered.item_counts.week(answered.items)
        plays = np.zeros(len(answered.items.titles))
        plays[: len(self._serving.popularity)] = self._serving.popularity
        return plays

    def _row(self, answered: AnsweredRows, one: _Planned, chosen: Sequence[int]) -> PageRow:
        item_ids, titles, rule = answered.items.item_ids, answered.items.titles, one.rule
        label = self._serving.domain.heads[self._heads[rule.head]].label_names[one.label] if one.label >= 0 else UNSET
        title = rule.title.replace("{label}", label or "").replace("{title}", titles[one.anchor])
        return PageRow(
            kind=rule.kind.value,
            title=title,
            weight=round(one.weight, _DIGITS),
            items=[RowItem(item_ids[item], titles[item]) for item in chosen],
            head=UNSET if label is UNSET else rule.head,
            label=label,
            item_id=item_ids[one.anchor] if one.anchor else UNSET,
        )


def _newest_first(watched: NDArray[np.int64]) -> NDArray[np.int64]:
    """The distinct items that the bundle knows, newest play first."""
    newest = watched[::-1][watched[::-1] > 0]
    _, first = np.unique(newest, return_index=True)
    return newest[np.sort(first)]
