"""What the columns of plays and items hold, and how predictable each is: what a draft of a domain is chosen by.

The next label is predicted at each play whose member has a play before it, where both have one. For attributes of items only
plays of another item than before count.

Shapes: N plays in event-time order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intentrec_core.features.attributes import MAX_NUMBER, number, release_s, texts, truth
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.plays.members import attribute_column

#: The largest number that a play may carry: a worker keeps 32 bits of it.
_MAX_PLAY_NUMBER = 3.4e38
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?\s*", re.ASCII)
#: A label with a larger share leaves nothing to predict.
CONSTANT = 0.98
_DAY_S = 86_400.0
#: Of releases, this share has to be times: a file with more bad ones is refused.
_TIMES = 0.96


class ColumnSource(StrEnum):
    """Where a column's values come from."""

    PLAY = "event"
    ITEM = "catalogue"
    RULE = "rule"


@dataclass(frozen=True, kw_only=True)
class ColumnStudy:
    """What one column holds. Shares are of plays.

    ``values``: each label and how many plays have it, the most frequent first. ``codes`` i64[N]: each play's label, the place in
    ``values``, −1 for none; of a list its first. ``numbers`` f64[N], NaN for none; None where a value is no number.
    ``days`` f64[N]: from the item's release to the play; None where the values are no dates. ``has_lists``: a cell holds several
    labels. ``is_truth``: every value is a truth value.
    """

    key: str
    source: ColumnSource
    num_plays: int
    values: tuple[tuple[str, int], ...]
    codes: NDArray[np.int64]
    hits: float
    frequent: float
    numbers: NDArray[np.float64] | None = None
    days: NDArray[np.float64] | None = None
    has_lists: bool = False
    is_truth: bool = False

    @property
    def coverage(self) -> float:
        """The share of plays with a value."""
        return float((self.codes >= 0).sum()) / max(1, self.num_plays)

    @property
    def largest(self) -> float:
        """The share that the most frequent label has of the plays with a value."""
        known = int((self.codes >= 0).sum())
        return self.values[0][1] / known if self.values and known else 0.0

    @property
    def is_constant(self) -> bool:
        """Whether hardly any play with a value differs from the others: its labels are at nearly all plays, or at hardly any."""
        known = int((self.codes >= 0).sum())
        return sum(count for _, count in self.values if count < CONSTANT * known) < (1 - CONSTANT) * known

    @cached_property
    def entropy_bits(self) -> float:
        """How much a label says: 0 bits where it is always the same one."""
        counts = np.array([count for _, count in self.values], dtype=np.float64)
        shares = counts / max(1.0, counts.sum())
        return float(-(shares * np.log2(shares, where=shares > 0, out=np.zeros_like(shares))).sum()) + 0.0

    @property
    def skill(self) -> float:
        """How much better "the same as last time" predicts the next label than the most frequent label does: 1 always right, 0 no
        better, below 0 worse.
        """
        return (self.hits - self.frequent) / (1 - self.frequent) if self.frequent < 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class DataStudy:
    """What plays and items hold. ``repeats``: the share of plays of an item that the member has played before.
    ``plays_per_member``: how many plays the median member has, how many the 90th of 100, how many the most active.
    ``openings``: the share of plays that come more than half an hour after the member's play before, or are the first.
    ``has_durations``: the share of plays with a duration. ``bucketed`` is a column by other labels: i64[N], −1 for none.
    ``pairs`` says at which share of the plays an item admits the member's value (:func:`_agreement`).
    """

    num_plays: int
    num_members: int
    num_items: int
    columns: tuple[ColumnStudy, ...]
    repeats: float
    plays_per_member: tuple[int, int, int]
    openings: float
    has_durations: float
    bucketed: Callable[[ColumnStudy, NDArray[np.int64]], ColumnStudy]
    pairs: Callable[[ColumnStudy, ColumnStudy], float | None]


@dataclass(frozen=True, slots=True)
class _Plays:
    """The order of plays by member, for looking at what came before. ``order`` i64[N], ``is_next`` bool[N − 1]: the play at this
    place of the order and the one after it are of one member.
    """

    table: pa.Table
    order: NDArray[np.int64]
    is_next: NDArray[np.bool_]
    item: NDArray[np.int64]
    item_ids: Sequence[str]
    times_s: NDArray[np.float64]

    @property
    def num(self) -> int:
        return len(self.order)


def study(plays: pa.Table, catalogue: Catalogue) -> DataStudy:
    """Looks at every column of plays (schema PLAYS, event-time order) and every attribute of their items.

    Cost: a pass over the plays for each column; O(N log N).
    """
    users = plays.column("user_id").combine_chunks().dictionary_encode()
    items = plays.column("item_id").combine_chunks().dictionary_encode()
    user, item = users.indices.to_numpy().astype(np.int64), items.indices.to_numpy().astype(np.int64)
    order = np.argsort(user, kind="stable")
    is_next = user[order][1:] == user[order][:-1]
    times_s = plays.column("ts_ms").to_numpy() / 1000
    seen = _Plays(plays, order, is_next, item, items.dictionary.to_pylist(), times_s)
    per_member = np.bincount(user) if len(user) else np.zeros(1, dtype=np.int64)
    contact = _contact(seen)
    gaps = np.diff(times_s[order])
    return DataStudy(
        num_plays=len(user),
        num_members=len(users.dictionary),
        num_items=len(items.dictionary),
        columns=(*_of_plays(seen), *_of_items(seen, catalogue), contact),
        repeats=contact_share(contact),
        plays_per_member=tuple(int(np.percentile(per_member, at)) for at in (50, 90, 100)),  # type: ignore[arg-type]
        openings=1 - float((is_next & (gaps <= 1800)).sum()) / max(1, len(user)),
        has_durations=1 - plays.column("duration_s").null_count / max(1, len(user)),
        bucketed=lambda column, codes: _relabelled(seen, column, codes),
        pairs=lambda play, of_item: _agreement(seen, catalogue, play, of_item),
    )


def contact_share(contact: ColumnStudy) -> float:
    """The share of plays of an item that the member has played before."""
    return dict(contact.values).get("later", 0) / max(1, contact.num_plays)


def _of_plays(seen: _Plays) -> Iterator[ColumnStudy]:
    """Action, duration, and each name of the context."""
    yield from _column("action", ColumnSource.PLAY, seen, _encoded(seen.table.column("action")))
    durations = seen.table.column("duration_s")
    if durations.null_count < seen.num:
        seconds = pc.fill_null(durations.cast(pa.float64()), np.nan).to_numpy()
        yield from _column(
            "duration_s", ColumnSource.PLAY, seen, _encoded(durations.cast(pa.string())), numbers=seconds
        )
    context = seen.table.column("context")
    names = (
        pc.unique(pa.chunked_array([chunk.keys for chunk in context.chunks], pa.string())).to_pylist()
        if context.chunks
        else []
    )
    for name in sorted(names):
        yield from _column(name, ColumnSource.PLAY, seen, _encoded(attribute_column(seen.table, name)))


def _of_items(seen: _Plays, catalogue: Catalogue) -> Iterator[ColumnStudy]:
    """Each attribute of the items that were played."""
    found = [catalogue.get(item_id) for item_id in seen.item_ids]
    attributes = [item.attributes if item is not None else {} for item in found]
    for name in dict.fromkeys(name for of_item in attributes for name in of_item):
        values = [of_item.get(name) for of_item in attributes]
        yield from _column(name, ColumnSource.ITEM, seen, _of_attribute(values, seen.item), raw=values)


def _contact(seen: _Plays) -> ColumnStudy:
    """Whether a play is the first one of its item by its member."""
    member = np.empty(seen.num, dtype=np.int64)
    member[seen.order] = np.concatenate([[0], np.cumsum(~seen.is_next)])[: seen.num]
    _, first = np.unique(member * (len(seen.item_ids) + 1) + seen.item, return_index=True)
    codes = np.ones(seen.num, dtype=np.int64)
    codes[first] = 0
    counts = np.bincount(codes, minlength=2).tolist()
    by_count = sorted(range(2), key=lambda code: -counts[code])
    place = np.argsort(by_count)
    return _studied(
        "contact",
        ColumnSource.RULE,
        seen,
        [(("first", "later")[code], counts[code]) for code in by_count],
        place[codes],
    )


#: Labels with their number of plays, the first label of each play (−1: none), and for lists the labels of each item.
_Labels = tuple[list[tuple[str, int]], NDArray[np.int64], "_Lists | None"]


@dataclass(frozen=True, slots=True)
class _Lists:
    """The labels of each item, as sets of places in the values."""

    by_item: Sequence[frozenset[int]]


def _encoded(column: pa.ChunkedArray) -> _Labels:
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    counts = np.bincount(codes[codes >= 0], minlength=len(encoded.dictionary))
    most = np.argsort(-counts, kind="stable")
    place = np.append(np.argsort(most), -1)
    names = encoded.dictionary.to_pylist()
    return [(names[code], int(counts[code])) for code in most.tolist()], place[codes], None


def _of_attribute(of_items: Sequence[Any], item: NDArray[np.int64]) -> _Labels:
    """The labels that each item has, as each play has them."""
    labels = [list(dict.fromkeys(texts(value))) for value in of_items]
    plays_of = np.bincount(item, minlength=len(labels))
    counts: Counter[str] = Counter()
    for of_item, num in zip(labels, plays_of.tolist(), strict=True):
        for label in of_item:
            counts[label] += num
    values = counts.most_common()
    place = {label: at for at, (label, _) in enumerate(values)}
    by_item = [frozenset(place[label] for label in of_item) for of_item in labels]
    first = np.array([place[of_item[0]] if of_item else -1 for of_item in labels], dtype=np.int64)
    has_lists = any(isinstance(value, list) for value in of_items)
    return values, first[item] if len(first) else np.zeros(0, np.int64), _Lists(by_item) if has_lists else None


def _column(
    key: str,
    source: ColumnSource,
    seen: _Plays,
    labels: _Labels,
    *,
    raw: Sequence[Any] | None = None,
    numbers: NDArray[np.float64] | None = None,
) -> Iterator[ColumnStudy]:
    """The study of a column, if it has a value at all."""
    values, codes, lists = labels
    if not values:
        return
    names = [name for name, _ in values]
    days = None
    if numbers is None and lists is None:
        if raw is None:
            is_number = all(_NUMBER.fullmatch(name) and abs(float(name)) <= _MAX_PLAY_NUMBER for name in names)
            numbers = np.append([float(name) for name in names], np.nan)[codes] if is_number else None
        elif all(_is_number(value) for value in raw):
            numbers = np.array([number(value) for value in raw])[seen.item]
        else:
            days = _days(raw, seen)
    yield _studied(
        key,
        source,
        seen,
        values,
        codes,
        lists=lists,
        numbers=numbers,
        days=days,
        is_truth=lists is None and all(truth(name) is not None for name in names),
    )


def _studied(
    key: str,
    source: ColumnSource,
    seen: _Plays,
    values: Sequence[tuple[str, int]],
    codes: NDArray[np.int64],
    *,
    lists: _Lists | None = None,
    **found: Any,
) -> ColumnStudy:
    before, after = seen.order[:-1][seen.is_next], seen.order[1:][seen.is_next]
    known = (codes[before] >= 0) & (codes[after] >= 0)
    if source is ColumnSource.ITEM:  # that the same item has the same attribute again is no taste
        known &= seen.item[before] != seen.item[after]
    before, after = before[known], after[known]
    if lists is None:
        hits, frequent = codes[before] == codes[after], codes[after] == 0
    else:
        of_item = [lists.by_item[item] for item in seen.item[after].tolist()]
        hits = np.array([code in of for code, of in zip(codes[before].tolist(), of_item, strict=True)], dtype=np.bool_)
        frequent = np.array([0 in of for of in of_item], dtype=np.bool_)
    return ColumnStudy(
        key=key,
        source=source,
        num_plays=seen.num,
        values=tuple(values),
        codes=codes,
        hits=float(hits.mean()) if len(hits) else 0.0,
        frequent=float(frequent.mean()) if len(frequent) else 0.0,
        has_lists=lists is not None,
        **found,
    )


def _relabelled(seen: _Plays, column: ColumnStudy, codes: NDArray[np.int64]) -> ColumnStudy:
    counts = np.bincount(codes[codes >= 0])
    most = np.argsort(-counts, kind="stable")
    values = [(str(label), int(counts[label])) for label in most.tolist()]
    return _studied(column.key, column.source, seen, values, np.append(np.argsort(most), -1)[codes])


def _is_number(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        return bool(_NUMBER.fullmatch(value)) and abs(float(value)) <= MAX_NUMBER
    return isinstance(value, int | float)


def _days(values: Sequence[Any], seen: _Plays) -> NDArray[np.float64] | None:
    """Days from the items' dates to their plays; None where too many values are none."""
    given = [value for value in values if value is not None]
    released = [
        np.nan if not isinstance(value, str) or (found := release_s(value)) is None else found for value in values
    ]
    num = int(np.isfinite(released).sum())
    if not given or num < _TIMES * len(given):
        return None
    return (seen.times_s - np.array(released)[seen.item]) / _DAY_S


def _agreement(seen: _Plays, catalogue: Catalogue, play: ColumnStudy, of_item: ColumnStudy) -> float | None:
    """At which share of the plays the member's value is one that the item admits: listed by it, or no smaller than its number.
    None where that says nothing, because an item drawn by chance admits it nearly as often.
    """
    both = np.flatnonzero((play.codes >= 0) & (of_item.codes >= 0))
    if len(both) < 100:
        return None
    chosen = both[np.linspace(0, len(both) - 1, min(len(both), 20_000)).astype(np.int64)]
    by_chance = np.random.default_rng(0).permutation(chosen)
    if play.numbers is not None and of_item.numbers is not None:
        holds, at_random = (of_item.numbers[of] <= play.numbers[chosen] for of in (chosen, by_chance))
    else:
        names = [name for name, _ in play.values]
        listed: Mapping[int, frozenset[str]] = {
            at: frozenset(texts(item.attributes.get(of_item.key)) if (item := catalogue.get(seen.item_ids[at])) else ())
            for at in np.unique(seen.item[chosen]).tolist()
        }
        sent = [names[code] for code in play.codes[chosen].tolist()]
        holds, at_random = (
            np.array([name in listed[at] for name, at in zip(sent, seen.item[of].tolist(), strict=True)])
            for of in (chosen, by_chance)
        )
    return float(holds.mean()) if holds.mean() - at_random.mean() >= 0.1 else None
