"""A domain, declared: its fields, which of them are intents, its windows and its filters.

What an intent is, where a field comes from and what may be shown are data (TOML), not code. This module knows
the declaration and its rules; it never sees a play, a tensor or a broker.

Codes everywhere: 0 is "missing", ``1 + i`` is label ``i``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise


class FieldKind(StrEnum):
    """What values a field takes."""

    CATEGORICAL = "categorical"
    MULTI_LABEL = "multi_label"
    BUCKETED = "bucketed"


class FieldSource(StrEnum):
    """Where a field's value comes from."""

    EVENT = "event"
    CATALOGUE = "catalogue"
    RULE = "rule"


class Rule(StrEnum):
    """A value computed from the context, by event time alone."""

    FIRST_CONTACT = "first_contact"
    TIME_SINCE_RELEASE = "time_since_release"
    GAP = "gap"
    HOUR_OF_DAY = "hour_of_day"
    DAY_OF_WEEK = "day_of_week"


class FilterKind(StrEnum):
    """A rule of what may be shown; each one fails closed."""

    WATCHED = "watched"
    AVAILABLE = "available"
    AT_MOST = "at_most"
    CONTAINS = "contains"


class DurationWeight(StrEnum):
    """How a play's duration weighs its item loss (paper Eq. 3)."""

    NONE = "none"
    LOG = "log"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One input field of a play, and an intent head where ``intent``.

    ``key`` is the play's attribute (``action``, ``duration_s``) or context key for source ``event``, the catalogue's
    attribute for ``catalogue`` and for the rule ``time_since_release``.
    """

    name: str
    kind: FieldKind
    source: FieldSource
    key: str = ""
    rule: Rule | None = None
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    intent: bool = False

    @property
    def num_labels(self) -> int:
        """How many labels, "missing" not counted."""
        return len(self.edges) + 1 if self.kind is FieldKind.BUCKETED else len(self.values)

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The labels' names, in code order."""
        if self.kind is not FieldKind.BUCKETED:
            return self.values
        return self.labels or _bucket_names(self.edges)

    @cached_property
    def value_codes(self) -> dict[str, int]:
        """Code of each declared value."""
        return {value: 1 + i for i, value in enumerate(self.values)}

    @property
    def is_dynamic(self) -> bool:
        """Whether the value belongs to the play (or its context) rather than to the item."""
        return self.source is not FieldSource.CATALOGUE

    @property
    def is_item_label(self) -> bool:
        """Whether the label is a function of the item alone (for release age: as of the bundle's build)."""
        return self.source is FieldSource.CATALOGUE or self.rule is Rule.TIME_SINCE_RELEASE


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A declared rule of what may be shown (see :class:`FilterKind`)."""

    kind: FilterKind
    key: str = ""
    event_key: str = ""
    unless_head: str = ""
    unless_values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A validated domain declaration.

    Units: every ``_s`` is seconds. ``window`` (n) and ``watched`` (w) count plays.
    """

    name: str
    window: int
    watched: int
    session_gap_s: float
    short_term_window_s: float
    max_future_s: float
    fields: tuple[Field, ...]
    filters: tuple[Filter, ...]
    duration_weight: DurationWeight = DurationWeight.NONE
    duration_scale_s: float = 600.0
    duration_weight_min: float = 0.2
    duration_weight_max: float = 3.0

    @property
    def context_size(self) -> int:
        """The most plays a context can hold: 2n."""
        return 2 * self.window

    @cached_property
    def heads(self) -> tuple[Field, ...]:
        """The intent heads, in declaration order."""
        return tuple(field for field in self.fields if field.intent)

    @cached_property
    def event_fields(self) -> tuple[Field, ...]:
        """Fields carried by the play: part of the ground state. ``duration_s`` is always kept and not among them."""
        return tuple(f for f in self.fields if f.source is FieldSource.EVENT and f.key != "duration_s")

    @cached_property
    def dynamic_fields(self) -> tuple[Field, ...]:
        """Event and rule fields: one code a play each."""
        return tuple(field for field in self.fields if field.is_dynamic)

    @cached_property
    def static_fields(self) -> tuple[Field, ...]:
        """Catalogue fields with one code an item."""
        return tuple(f for f in self.fields if not f.is_dynamic and f.kind is not FieldKind.MULTI_LABEL)

    @cached_property
    def multi_fields(self) -> tuple[Field, ...]:
        """Catalogue fields with several labels an item."""
        return tuple(f for f in self.fields if f.kind is FieldKind.MULTI_LABEL)

    @cached_property
    def event_filters(self) -> tuple[Filter, ...]:
        """Filters that need a value of the member's own plays; kept in the ground state too."""
        return tuple(f for f in self.filters if f.event_key)

    @cached_property
    def label_offsets(self) -> tuple[int, ...]:
        """Where each head's labels begin in the flat numbering over all heads."""
        offsets, total = [], 0
        for head in self.heads:
            offsets.append(total)
            total += head.num_labels
        return tuple(offsets)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change when a stored history would change its meaning.

        Values are appended at the end of a categorical event field at the price of new histories: codes are what is stored.
        """
        ground = [[f.name, f.kind, f.key, f.values] for f in self.event_fields]
        members = [[f.kind, f.event_key] for f in self.event_filters]
        text = json.dumps([self.window, self.watched, self.session_gap_s, ground, members], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def value_text(value: object) -> str:
    """An attribute's value as the text that declared values are compared with: true, 7 (also for 7.0), 0.5, a text itself."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _bucket_names(edges: Sequence[float]) -> tuple[str, ...]:
    def text(edge: float) -> str:
        short = f"{edge:g}"
        return short if float(short) == edge else repr(edge)  # edges that look alike would give two labels one name

    middle = [f"{text(low)} to {text(high)}" for low, high in pairwise(edges)]
    return (f"under {text(edges[0])}", *middle, f"{text(edges[-1])} and over")
