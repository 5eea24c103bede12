"""Filters: which items may be shown to a member. Every declared filter fails closed.

An item that lacks the attribute of a filter is not shown to any member. A member whose value for a filter is not known
is shown no item by it: what is not known to be allowed is not allowed. A caller who knows a default passes it as the value.
The domain declares the rules, the item table supplies the columns; this module reads both through protocols and knows
neither type.

    available   the item's flag is true
    at_most     the item's number is at most the member's
    contains    the item's list contains the member's value
    watched     the member's watched items are hidden; left to the caller, which knows what was watched
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.base import Mask, Rows
from intentrec_core.errors import HidingReason

#: Combinations of members' values that are kept: 25 MB at 100,000 items. Profiles have few different values.
_CACHED_MASKS = 256

ItemColumn = Any
"""bool[V] (available), f64[V] with NaN where missing (at_most), or dict of value hash -> bool[V] (contains)."""


class FilterRule(Protocol):
    """A declared filter; ``intentrec_core.domain.spec.Filter`` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def event_key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class HidingFilter:
    """A filter that hides every item from a member, alone or together with other filters of the domain."""

    kind: str
    key: str
    event_key: str
    reason: HidingReason

    @property
    def name(self) -> str:
        """The filter in two words, the metric label: ``at_most maturity``."""
        return f"{self.kind} {self.key}"


class FilterSet:
    """A domain's filters over one item table, except for the watched filter.

    Shapes: ``columns[key]`` by kind of rule, see :data:`ItemColumn`; V = ``num_rows``, row 0 included.
    Raises: ValueError for an unknown kind, or a column that is missing or has another shape: a filter that cannot be
    applied must not be skipped.
    """

    def __init__(self, num_rows: int, rules: Sequence[FilterRule], columns: Mapping[str, ItemColumn]) -> None:
        self.num_rows = num_rows
        self._rules = [rule for rule in rules if rule.kind != "watched"]
        for rule in self._rules:
            if rule.key not in columns:
                raise ValueError(f"filter {rule.kind} {rule.key}: there is no item column with this name")
            _check(rule, columns[rule.key], num_rows)
        shown = np.ones(num_rows, dtype=np.bool_)
        shown[0] = False
        self._hold(shown, [columns[rule.key] for rule in self._rules])

    def _hold(self, shown: Mask, columns: Sequence[ItemColumn]) -> None:
        """Takes the items that may be shown at all, and the column of each rule."""
        self._shown, self._columns = shown, columns
        static = shown.copy()
        for rule, column in zip(self._rules, columns, strict=True):
            if rule.kind == "available":
                static &= column
        static.setflags(write=False)
        self._static = static
        self._masks: OrderedDict[tuple[float | int | None, ...], Mask] = OrderedDict()
        self._lock = Lock()

    @property
    def member_keys(self) -> tuple[str, ...]:
        """Names of the member's values that :meth:`allowed` reads, in the order of the rules."""
        return tuple(rule.event_key for rule in self._rules if rule.kind != "available")

    def replaced(self, rows: Rows, new: FilterSet, shown: Mask, num_rows: int) -> FilterSet:
        """These filters with other data for some items, and perhaps with more rows; this set stays as it is.

        ``new`` is a set of the same rules over the new data alone: its row 1 + i is the item in row ``rows[i]`` here. An item
        that is not ``shown`` is shown to no member. Every row that is added must be among ``rows``.

        Shapes: rows i64[R], each once; shown bool[R]; ``new`` has R + 1 rows.
        Raises: ValueError when there would be fewer rows than before.
        Cost: a copy of each column that changes. Masks are computed again when they are asked for.
        """
        if num_rows < self.num_rows:
            raise ValueError(f"{num_rows} rows, the filters have {self.num_rows}: rows are append-only")
        other = copy(self)
        other.num_rows = num_rows
        other._hold(
            _put(self._shown, num_rows, rows, shown),
            [_put_column(held, num_rows, rows, own) for held, own in zip(self._columns, new._columns, strict=True)],
        )
        return other

    def allowed(self, values: Mapping[str, float | int | None]) -> Mask:
        """The items that may be shown to a member with these values, as a read-only bool[V]; never row 0.

        ``values`` by ``event_key``: the last number (at_most; None or NaN missing), or the 64-bit hash of the last text
        (contains; None or 0 missing). Equal values give the same object, so that an index can search these members
        together.

        Cost: O(V) for values that were not used recently, else a look-up. Safe from several threads.
        """
        key = tuple(_known(values.get(event_key)) for event_key in self.member_keys)
        with self._lock:
            found = self._masks.get(key)
            if found is not None:
                self._masks.move_to_end(key)
                return found
        mask = self._static.copy()
        member_values = iter(key)
        for rule, column in zip(self._rules, self._columns, strict=True):
            if rule.kind != "available":
                mask &= _passing(rule.kind, column, next(member_values))
        mask.setflags(write=False)
        with self._lock:
            self._masks[key] = mask
            if len(self._masks) > _CACHED_MASKS:
                self._masks.popitem(last=False)
        return mask

    def shown_to_some(self) -> Mask:
        """The items that some member may be shown: they pass every rule that reads no value of the member, and no data of theirs
        is missing. Shape: bool[V].

        Cost: O(V) for each filter.
        """
        mask = self._static.copy()
        for rule, column in zip(self._rules, self._columns, strict=True):
            if rule.kind == "at_most":
                mask &= ~np.isnan(column)
            elif rule.kind == "contains":
                mask &= np.any([*column.values()], axis=0) if column else np.False_
        return mask

    @property
    def names(self) -> tuple[str, ...]:
        """The filters as :attr:`HidingFilter.name` gives them, in the order of the rules."""
        return tuple(f"{rule.kind} {rule.key}" for rule in self._rules)

    def hiding(self, values: Mapping[str, float | int | None]) -> tuple[HidingFilter, ...]:
        """The filters that hide every item from a member with these values, with the reason; empty if some item may be shown.

        These are the filters that hide every item alone: ``member_unknown`` if the member's value is not known, else
        ``no_item``. Where no filter does so alone, they are all filters, ``together``. No filter hides anything where no item is
        shown at all.

        Cost: O(V) for each filter whose value is known.
        """
        if self.allowed(values).any() or not self._shown.any():
            return ()
        alone = []
        for rule, column in zip(self._rules, self._columns, strict=True):
            value = _known(values.get(rule.event_key))
            if rule.kind != "available" and value is None:
                alone.append(_hiding(rule, HidingReason.MEMBER_UNKNOWN))
            elif not np.any(self._shown & _passing(rule.kind, column, value)):
                alone.append(_hiding(rule, HidingReason.NO_ITEM))
        return tuple(alone) or tuple(_hiding(rule, HidingReason.TOGETHER) for rule in self._rules)


def _hiding(rule: FilterRule, reason: HidingReason) -> HidingFilter:
    return HidingFilter(str(rule.kind), rule.key, rule.event_key, reason)


def _passing(kind: str, column: ItemColumn, value: float | int | None) -> Mask | np.bool_:
    """The items that pass one filter, for a member with this value; False for none. Shape: bool[V] or a scalar."""
    if kind == "available":
        return column
    if value is None:
        return np.False_
    return column <= float(value) if kind == "at_most" else column.get(value, np.False_)


def _known(value: float | int | None) -> float | int | None:
    # NaN is not equal to itself: as a key, it would fill the cache with masks that are never found again.
    return None if value is None or value != value else value


def _put(column: NDArray[Any], num_rows: int, rows: Rows, new: NDArray[Any]) -> NDArray[Any]:
    """A copy of a column with ``num_rows`` rows and ``new`` values at ``rows``."""
    other = np.zeros(num_rows, dtype=column.dtype)
    other[: len(column)] = column
    other[rows] = new
    return other


def _put_column(column: ItemColumn, num_rows: int, rows: Rows, new: ItemColumn) -> ItemColumn:
    if isinstance(column, np.ndarray):
        return _put(column, num_rows, rows, new[1:])
    none = np.zeros(1 + len(rows), dtype=np.bool_)
    put = {}
    for value in {*column, *new}:
        held, own = column.get(value, none[:0]), new.get(value, none)[1:]
        # A catalogue has many values and a change few of them: a column that stays as it is is not copied.
        is_same = len(held) == num_rows and np.array_equal(held[rows], own)
        put[value] = held if is_same else _put(held, num_rows, rows, own)
    return put


def _check(rule: FilterRule, column: ItemColumn, num_rows: int) -> None:
    what = f"filter {rule.kind} {rule.key}"
    if rule.kind == "available":
        fits = isinstance(column, np.ndarray) and column.dtype == np.bool_ and column.shape == (num_rows,)
    elif rule.kind == "at_most":
        fits = isinstance(column, np.ndarray) and column.dtype.kind == "f" and column.shape == (num_rows,)
    elif rule.kind == "contains":
        fits = isinstance(column, Mapping) and all(
            member.shape == (num_rows,) and member.dtype == np.bool_ for member in column.values()
        )
    else:
        raise ValueError(f"{what}: the kind is unknown; allowed: watched, available, at_most, contains")
    if not fits:
        raise ValueError(f"{what}: its column does not have one value for each of {num_rows} rows")
    if rule.kind != "available" and not rule.event_key:
        raise ValueError(f"{what}: event_key is missing, the name of the member's value")
