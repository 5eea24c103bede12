"""The declaration of a domain: its fields, which of them are intents, its windows and its filters.

What an intent is, where a field's value comes from, and which items may be shown are data (TOML), not code. This module
holds the declaration and its rules. It never handles a play, a tensor or a broker.

Label codes throughout the project: 0 means missing, ``1 + i`` means label ``i``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

from intentrec_core.times import EARLIEST_MS

_TRUTH_NAMES = {"true", "false"}
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)\s*", re.ASCII)
#: Passes over the plays that train a first model, where neither its domain nor its caller says otherwise.
DEFAULT_EPOCHS = 15
MAX_EPOCHS = 10_000
#: Longer texts spell no number that a domain declares: they are not parsed for each play that has one.
_LONGEST_NUMBER = 24


class FieldKind(StrEnum):
    """The kind of values that a field takes."""

    CATEGORICAL = "categorical"
    MULTI_LABEL = "multi_label"
    BUCKETED = "bucketed"


class FieldSource(StrEnum):
    """Where a field's value comes from: the play itself, the item catalogue, or a rule over the context."""

    EVENT = "event"
    CATALOGUE = "catalogue"
    RULE = "rule"


class Rule(StrEnum):
    """How a field's value is computed from the context. Rules use event time only."""

    FIRST_CONTACT = "first_contact"
    TIME_SINCE_RELEASE = "time_since_release"
    GAP = "gap"
    HOUR_OF_DAY = "hour_of_day"
    DAY_OF_WEEK = "day_of_week"


class FilterKind(StrEnum):
    """The kinds of rules for which items may be shown. Every kind fails closed: missing data hides the item."""

    WATCHED = "watched"
    AVAILABLE = "available"
    AT_MOST = "at_most"
    CONTAINS = "contains"


class DurationWeight(StrEnum):
    """How a play's duration weights its item loss (paper Eq. 3)."""

    NONE = "none"
    LOG = "log"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One input field of a play, and an intent head if ``intent`` is set.

    ``key`` is the name under which the value is found. For source ``event``: the play's attribute (``action``,
    ``duration_s``) or a key of its context. For source ``catalogue`` and the rule ``time_since_release``: an attribute
    of the catalogue.
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
        """Number of labels, not counting "missing"."""
        return len(self.edges) + 1 if self.kind is FieldKind.BUCKETED else len(self.values)

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, in the order of their codes."""
        if self.kind is not FieldKind.BUCKETED:
            return self.values
        return self.labels or _bucket_names(self.edges)

    @cached_property
    def value_codes(self) -> dict[str, int]:
        """The code of each declared value."""
        return {value: 1 + i for i, value in enumerate(self.values)}

    @property
    def message_bytes(self) -> int:
        """An upper bound of the bytes that this intent takes in a message: its name twice, each label with a number."""
        return 2 * json_bytes(self.name) + 32 + sum(json_bytes(label) + 10 for label in self.label_names)

    @property
    def is_dynamic(self) -> bool:
        """Whether the value belongs to the play or its context, rather than to the item."""
        return self.source is not FieldSource.CATALOGUE

    @property
    def is_item_label(self) -> bool:
        """Whether the label depends on the item alone. A release age counts: its labels are those at the time the bundle
        was built.
        """
        return self.source is FieldSource.CATALOGUE or self.rule is Rule.TIME_SINCE_RELEASE


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A declared rule for which items may be shown (see :class:`FilterKind`).

    ``default`` holds for a member whose plays have not named ``event_key`` yet, as if the member had sent it; None: no item
    passes until then.
    """

    kind: FilterKind
    key: str = ""
    event_key: str = ""
    default: float | str | None = None
    unless_head: str = ""
    unless_values: tuple[str, ...] = ()

    @property
    def message_bytes(self) -> int:
        """An upper bound of the bytes that this filter takes in a message about an empty list."""
        return json_bytes(self.key) + json_bytes(self.event_key) + 100


@dataclass(frozen=True, kw_only=True)
class FirstModelDefaults:
    """How a first model of the domain is trained where its caller does not say: ``epochs`` passes over the plays, and whether the
    member's own items are a part of the score. A model that is refreshed stays what it is.
    """

    epochs: int = DEFAULT_EPOCHS
    own_items: bool = False


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A validated domain declaration.

    Units: names ending in ``_s`` are seconds, ``earliest_ms`` is milliseconds since 1970 (UTC). ``window`` (n) and
    ``watched`` (w) are numbers of plays. The time of a play lies between ``earliest_ms`` and ``max_future_s`` after its record.
    ``first_model`` is no part of what the domain is: two domains that differ in it alone are equal, with the same bundles and
    histories.
    """

    name: str
    window: int
    watched: int
    session_gap_s: float
    short_term_window_s: float
    max_future_s: float
    earliest_ms: int = EARLIEST_MS
    fields: tuple[Field, ...]
    filters: tuple[Filter, ...]
    duration_weight: DurationWeight = DurationWeight.NONE
    duration_scale_s: float = 600.0
    duration_weight_min: float = 0.2
    duration_weight_max: float = 3.0
    first_model: FirstModelDefaults = field(default_factory=FirstModelDefaults, compare=False)

    @property
    def max_future_ms(self) -> int:
        """``max_future_s`` in whole milliseconds."""
        return int(self.max_future_s * 1000)

    @property
    def context_size(self) -> int:
        """The largest number of plays that a context can hold: 2n."""
        return 2 * self.window

    @cached_property
    def heads(self) -> tuple[Field, ...]:
        """The intent heads, in declaration order."""
        return tuple(field for field in self.fields if field.intent)

    @cached_property
    def event_fields(self) -> tuple[Field, ...]:
        """Fields whose value comes with the play and is part of the ground state. ``duration_s`` is always stored, so it
        is not listed.
        """
        return tuple(f for f in self.fields if f.source is FieldSource.EVENT and f.key != "duration_s")

    @cached_property
    def dynamic_fields(self) -> tuple[Field, ...]:
        """Event and rule fields: one code per play each."""
        return tuple(field for field in self.fields if field.is_dynamic)

    @cached_property
    def static_fields(self) -> tuple[Field, ...]:
        """Catalogue fields with one code per item."""
        return tuple(f for f in self.fields if not f.is_dynamic and f.kind is not FieldKind.MULTI_LABEL)

    @cached_property
    def multi_fields(self) -> tuple[Field, ...]:
        """Catalogue fields with several labels per item."""
        return tuple(f for f in self.fields if f.kind is FieldKind.MULTI_LABEL)

    @cached_property
    def event_filters(self) -> tuple[Filter, ...]:
        """Filters that compare an item with a value from the member's own plays. That value is part of the ground state."""
        return tuple(f for f in self.filters if f.event_key)

    @cached_property
    def label_offsets(self) -> tuple[int, ...]:
        """The flat label id of each head's first label. Flat ids number the labels of all heads, one head after another."""
        offsets, total = [], 0
        for head in self.heads:
            offsets.append(total)
            total += head.num_labels
        return tuple(offsets)

    def flat_label(self, flat: int) -> tuple[str, str]:
        """Names of the head and the label that a flat label id stands for.

        Raises: IndexError for an id that is none.
        """
        for head, offset in zip(self.heads, self.label_offsets, strict=True):
            if offset <= flat < offset + head.num_labels:
                return head.name, head.label_names[flat - offset]
        raise IndexError(f"flat label {flat}")

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever a stored history would change its meaning.

        Histories store codes, not values. Adding a value to a categorical event field changes the fingerprint, so it
        requires new histories, even if it is added at the end.
        """
        ground = [[f.name, f.kind, f.key, f.values] for f in self.event_fields]
        members = [[f.kind, f.event_key] for f in self.event_filters]
        text = json.dumps([self.window, self.watched, self.session_gap_s, ground, members], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def value_text(value: object) -> str:
    """An attribute's value as text, in the form that declared values are compared with: true, 7 (also for 7.0), 0.5, or
    the text itself.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def spelled_code(codes: Mapping[str, int], text: str) -> int:
    """The code of a declared value, 0 where it is not declared. ``codes`` are those of the declared values.

    A text that is not declared itself counts as the declared value that it spells: a number however it is written (5.0
    and 5.00 for 5), and 0 or 1 where the declared values are truth values.
    """
    found = codes.get(text, 0)
    if found or len(text) > _LONGEST_NUMBER:
        return found
    spelled = value_text(float(text)) if _NUMBER.fullmatch(text) else text
    if codes.keys() <= _TRUTH_NAMES:
        return codes.get({"1": "true", "0": "false"}.get(spelled, spelled.lower()), 0)
    return codes.get(spelled, 0)


def json_bytes(text: str) -> int:
    """Bytes of a text as a JSON string, quotes included."""
    return len(json.dumps(text, ensure_ascii=False).encode())


def _bucket_names(edges: Sequence[float]) -> tuple[str, ...]:
    def text(edge: float) -> str:
        short = f"{edge:g}"
        return (
            short if float(short) == edge else repr(edge)
        )  # two edges that print alike would give two labels the same name

    middle = [f"{text(low)} to {text(high)}" for low, high in pairwise(edges)]
    return (f"under {text(edges[0])}", *middle, f"{text(edges[-1])} and over")
