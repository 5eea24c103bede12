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
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np

from index.base import Mask
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
        self._columns = columns
        self._by_member: list[tuple[str, str, ItemColumn]] = []
        static = np.ones(num_rows, dtype=np.bool_)
        static[0] = False
        for rule in self._rules:
            if rule.key not in columns:
                raise ValueError(f"filter {rule.kind} {rule.key}: there is no item column with this name")
            column = columns[rule.key]
            _check(rule, column, num_rows)
            if rule.kind == "available":
                static &= column
            else:
                self._by_member.append((str(rule.kind), rule.event_key, column))
        static.setflags(write=False)
        self._static = static
        self._masks: OrderedDict[tuple[float | int | None, ...], Mask] = OrderedDict()
        self._lock = Lock()

    @property
    def member_keys(self) -> tuple[str, ...]:
        """Names of the member's values that :meth:`allowed` reads, in the order of the rules."""
        return tuple(event_key for _, event_key, _ in self._by_member)

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
        for (kind, _, column), value in zip(self._by_member, key, strict=True):
            mask &= _passing(kind, column, value)
        mask.setflags(write=False)
        with self._lock:
            self._masks[key] = mask
            if len(self._masks) > _CACHED_MASKS:
                self._masks.popitem(last=False)
        return mask

    @property
    def names(self) -> tuple[str, ...]:
        """The filters as :attr:`HidingFilter.name` gives them, in the order of the rules."""
        return tuple(f"{rule.kind} {rule.key}" for rule in self._rules)

    def hiding(self, values: Mapping[str, float | int | None]) -> tuple[HidingFilter, ...]:
        """The filters that hide every item from a member with these values, with the reason; empty if some item may be shown.

        These are the filters that hide every item alone: ``member_unknown`` if the member's value is not known, else
        ``no_item``. Where no filter does so alone, they are all filters, ``together``.

        Cost: O(V) for each filter whose value is known.
        """
        if self.allowed(values).any():
            return ()
        alone = []
        for rule in self._rules:
            value = _known(values.get(rule.event_key))
            if rule.kind != "available" and value is None:
                alone.append(_hiding(rule, HidingReason.MEMBER_UNKNOWN))
            elif not np.any(_passing(rule.kind, self._columns[rule.key], value)):
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
