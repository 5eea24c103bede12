"""The data profile: what plays and catalogue say to each field, head, filter and rule of a domain.

It is measured before training, and again when a bundle is built, which keeps it. :mod:`intentrec_core.plays.findings` says
what is wrong with it, and :mod:`intentrec_core.plays.drift` compares two of them.

Shapes: N plays, V item rows (row 0 no item), L labels of a field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain, Field, FieldKind, FieldSource, Filter, FilterKind
from intentrec_core.features.columns import Columns
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.labels import label_counts
from intentrec_core.features.vocabulary import ItemTable
from intentrec_core.history.history import EventLayout, default_value
from intentrec_core.plays.members import MemberPlays, attribute_column, pack_members

PROFILE_FORMAT = 1
_NUM_EXAMPLES = 3
_EXAMPLE_LENGTH = 40
#: Combinations of members' values whose items are counted: the most frequent ones. Profiles have few different values.
_MAX_COMBINATIONS = 512


class FieldProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What one field finds. Counts are of plays, and of items where the label belongs to the item.

    ``declared``: the values, or the edges, that make the L labels. ``plays`` and ``items`` i64[1 + L]: how many have no label,
    then how many have each (one of several labels counts for each). ``num_unread``: how many plays, or items of a catalogue
    field, have a value that is no label, as ``examples``.
    """

    name: str
    is_intent: bool
    plays: tuple[int, ...]
    items: tuple[int, ...] = ()
    declared: tuple[str, ...] = ()
    num_unread: int = 0
    examples: tuple[str, ...] = ()

    @property
    def num_labels_found(self) -> int:
        """How many of the labels occur at plays."""
        return sum(count > 0 for count in self.plays[1:])


class FilterProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What one filter finds.

    ``num_items``: items with data for it; ``num_unread`` more have a value that is none, as ``examples``. ``num_plays``: plays
    up to which the member has sent a value; all of them where none is needed, or a default is declared. ``num_empty``: plays at
    which it lets no item through. ``shown``: the share of the items that it lets through, as a mean over the plays.
    ``num_unreached``: items with data that it lets through at no play, with the data of some as ``unreached``.
    """

    name: str
    num_items: int
    num_plays: int
    shown: float
    num_empty: int = 0
    num_unread: int = 0
    examples: tuple[str, ...] = ()
    num_unreached: int = 0
    unreached: tuple[str, ...] = ()


class DataProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Plays and items as a domain sees them. Units: ``from_ms`` and ``until_ms`` milliseconds since 1970.

    ``num_repeats``: plays left out because they repeat an event id of their member. ``num_described``: items that are in the
    catalogue, and ``attributes`` are the names of what it says of them. ``num_durations``: plays with a duration, whose median is
    ``median_duration_s`` (seconds; 0 without one), and ``num_usual_durations`` of them are the most frequent
    one, ``usual_duration_s``. ``shown``: the share of the items that all filters together let through (without ``watched``), as a
    mean over the plays.
    """

    format: int
    num_plays: int
    num_members: int
    num_items: int
    num_described: int
    num_repeats: int
    num_durations: int
    from_ms: int
    until_ms: int
    attributes: tuple[str, ...]
    fields: tuple[FieldProfile, ...]
    filters: tuple[FilterProfile, ...]
    shown: float
    median_duration_s: float = 0.0
    usual_duration_s: float = 0.0
    num_usual_durations: int = 0

    def field(self, name: str) -> FieldProfile:
        """The profile of one field. Raises: StopIteration when there is none of this name."""
        return next(field for field in self.fields if field.name == name)

    def lines(self) -> Iterator[str]:
        """The profile for people: one line for each field and filter."""
        repeats = f", {self.num_repeats:,} more repeat an event_id" if self.num_repeats else ""
        yield f"{self.num_plays:,} plays of {self.num_members:,} members{repeats}; {self.num_items:,} items"
        for field in self.fields:
            total = max(1, self.num_plays)
            known = 1 - field.plays[0] / total
            largest = max(field.plays[1:]) / max(1, sum(field.plays[1:]))
            yield (
                f"{'intent' if field.is_intent else 'field':<7} {field.name:<16} known at {known:6.1%} of plays, "
                f"{field.num_labels_found} of {len(field.plays) - 1} labels, the most frequent {largest:.1%}"
            )
        for filter_ in self.filters:
            yield f"filter  {filter_.name:<16} shows {filter_.shown:6.1%} of items"

    def to_bytes(self) -> bytes:
        """The profile as JSON."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=1) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> DataProfile | None:
        """The inverse of :meth:`to_bytes`; None for a profile of another format."""
        try:
            found = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return found if found.format == PROFILE_FORMAT else None


def measure(features: FeatureBuilder, items: ItemTable, plays: pa.Table) -> DataProfile:
    """The profile of plays (schema PLAYS, event-time order) of the items in ``items``.

    Raises: DataError when a value that the domain reads as a number is not one, as :func:`pack_members` does.
    Cost: a pass over the plays that makes the model's inputs of them, some microseconds a play.
    """
    domain = features.domain
    members = pack_members(features.layout, plays)
    columns = features.columns([members.packed(start, stop) for start, stop in members.spans()], [0] * len(members))
    times_ms = members.events["ts_ms"]
    until_ms = int(times_ms.max(initial=0))
    durations = members.events["duration_s"][members.events["duration_s"] >= 0]
    lasted, times = np.unique(durations, return_counts=True)
    usual = int(times.argmax()) if len(durations) else 0
    filters = _Filters(domain, items, members)
    return DataProfile(
        format=PROFILE_FORMAT,
        num_plays=len(times_ms),
        num_members=len(members),
        num_items=len(items) - 1,
        num_described=int(items.is_described.sum()),
        num_repeats=members.num_repeats,
        num_durations=len(durations),
        median_duration_s=float(np.median(durations)) if len(durations) else 0.0,
        usual_duration_s=float(lasted[usual]) if len(durations) else 0.0,
        num_usual_durations=int(times[usual]) if len(durations) else 0,
        from_ms=int(times_ms.min(initial=until_ms)),
        until_ms=until_ms,
        attributes=items.attribute_names(),
        fields=tuple(_field(field, features.layout, items, plays, columns, until_ms / 1000) for field in domain.fields),
        filters=tuple(filters.profiles()),
        shown=filters.shown(),
    )


def _field(
    field: Field, layout: EventLayout, items: ItemTable, plays: pa.Table, columns: Columns, at_s: float
) -> FieldProfile:
    unread: Mapping[str, int] = {}
    of_items: tuple[int, ...] = ()
    if field.is_item_label:
        of_items, known = _of_items(field, items, at_s)
        unread = _counted(
            value for value, is_known in zip(items.values(field.key)[1:], known, strict=True) if not is_known
        )
    elif field.source is FieldSource.EVENT and field.kind is FieldKind.CATEGORICAL:
        unread = _unread_plays(field, layout, plays)
    return FieldProfile(
        name=field.name,
        is_intent=field.intent,
        plays=tuple(label_counts(layout.domain, field, items, columns).tolist()),
        items=of_items,
        declared=tuple(map(repr, field.edges)) if field.kind is FieldKind.BUCKETED else field.values,
        num_unread=sum(unread.values()),
        examples=_examples(unread),
    )


def _of_items(field: Field, items: ItemTable, at_s: float) -> tuple[tuple[int, ...], NDArray[np.bool_]]:
    """How many items have no label, and each label; and whether each item has one. Shape: bool[V - 1]."""
    if field in items.domain.static_fields:  # may have thousands of labels: no array of all items and labels
        codes = items.codes[1:, items.domain.static_fields.index(field)]
        return tuple(np.bincount(codes, minlength=1 + field.num_labels).tolist()), codes > 0
    labels = items.labels(field, at_s)[1:]
    known = np.asarray(labels.any(axis=1))
    return (int((~known).sum()), *labels.sum(axis=0).astype(int).tolist()), known


def _unread_plays(field: Field, layout: EventLayout, plays: pa.Table) -> dict[str, int]:
    """Values of a categorical field that are none of the declared ones, with their number of plays."""
    convert = next(attribute.convert for attribute in layout.attributes if attribute.name == field.name)
    counted = pc.value_counts(attribute_column(plays, field.key).drop_null()).to_pylist()
    return {row["values"]: row["counts"] for row in counted if not convert(row["values"])}


def _counted(values: Iterable[Any]) -> Counter[str]:
    return Counter(repr(value) for value in values if value not in (None, [], ""))


def _examples(counts: Mapping[str, int]) -> tuple[str, ...]:
    most = sorted(counts, key=lambda text: -counts[text])[:_NUM_EXAMPLES]
    return tuple(text if len(text) <= _EXAMPLE_LENGTH else text[:_EXAMPLE_LENGTH] + "…" for text in most)


class _Filters:
    """The domain's filters, applied to what the members had sent by each play."""

    def __init__(self, domain: Domain, items: ItemTable, members: MemberPlays) -> None:
        self._items = items
        self._num_plays = len(members.events)
        self._filters = [rule for rule in domain.filters if rule.kind is not FilterKind.WATCHED]
        self._columns: list[Any] = [items.filter_column(rule.key) for rule in self._filters]
        self._sent = {place: _latest(rule, members) for place, rule in enumerate(self._filters) if rule.event_key}

    def profiles(self) -> Iterator[FilterProfile]:
        """The profile of each filter."""
        for place, rule in enumerate(self._filters):
            has_data = self._has_data(place)
            raw = self._items.values(rule.key)[1:]
            unread = _counted(value for value, has in zip(raw, has_data, strict=True) if not has)
            data = self._columns[place][1:].tolist() if self._is_number(place) else raw
            unreached = _counted(value for value, missed in zip(data, self._unreached(place), strict=True) if missed)
            sent = self._sent.get(place)
            yield FilterProfile(
                name=rule.key,
                num_items=int(has_data.sum()),
                num_plays=self._num_plays if sent is None else int(_is_sent(sent).sum()),
                num_empty=self._num_empty(place),
                shown=self._shown([place]),
                num_unread=sum(unread.values()),
                examples=_examples(unread),
                num_unreached=sum(unreached.values()),
                unreached=_examples(unreached),
            )

    def shown(self) -> float:
        """The share of the items that all filters together let through."""
        return self._shown(range(len(self._filters)))

    def _has_data(self, place: int) -> NDArray[np.bool_]:
        rule, column = self._filters[place], self._columns[place]
        if rule.kind is FilterKind.AVAILABLE:
            return np.array([known is not None for known in self._items.truths(rule.key)[1:]], dtype=np.bool_)
        if rule.kind is FilterKind.AT_MOST:
            return ~np.isnan(column[1:])
        has_data = np.zeros(len(self._items), dtype=np.bool_)
        for members in column.values():
            has_data |= members
        return has_data[1:]

    def _shown(self, places: Sequence[int]) -> float:
        if len(self._items) == 1:
            return 0.0
        static = np.ones(len(self._items) - 1, dtype=np.bool_)
        by_member = []
        for place in places:
            if place in self._sent:
                by_member.append(place)
            else:
                static &= self._columns[place][1:]
        if not by_member or not self._num_plays:
            return float(static.mean())
        # Numbers and hashes side by side as 64-bit patterns: only their equality matters here.
        sent = np.stack([_bits(self._sent[place]) for place in by_member], axis=1)
        _, first, times = np.unique(sent, axis=0, return_index=True, return_counts=True)
        most = np.argsort(-times, kind="stable")
        shares: list[float] = []
        for at in first[most].tolist():
            # While none shows an item, a rare combination may be the one that does.
            if len(shares) >= _MAX_COMBINATIONS and any(shares):
                break
            mask = static.copy()
            for place in by_member:
                mask &= self._lets_through(place, self._sent[place][at])
            shares.append(float(mask.mean()))
        return float(np.average(shares, weights=times[most[: len(shares)]]))

    def _num_empty(self, place: int) -> int:
        """At how many plays the filter alone lets no item through."""
        column, sent = self._columns[place], self._sent.get(place)
        if sent is None:
            return 0 if column[1:].any() else self._num_plays
        if self._is_number(place):
            return int((~(sent >= np.nanmin(column[1:], initial=np.inf))).sum())
        found = [key for key, members in column.items() if members[1:].any()]
        return int((~np.isin(sent, np.array(found, dtype=sent.dtype))).sum())

    def _unreached(self, place: int) -> NDArray[np.bool_]:
        """The items with data that the filter lets through at no play. Shape: bool[V - 1]."""
        column, sent = self._columns[place], self._sent.get(place)
        if sent is None or not _is_sent(sent).any():
            return np.zeros(len(self._items) - 1, dtype=np.bool_)
        if self._is_number(place):
            return np.asarray(column[1:] > np.nanmax(sent))
        missed = self._has_data(place)
        for value in np.unique(sent).tolist():
            if value in column:
                missed &= ~column[value][1:]
        return missed

    def _is_number(self, place: int) -> bool:
        return self._filters[place].kind is FilterKind.AT_MOST

    def _lets_through(self, place: int, value: Any) -> Any:
        column = self._columns[place]
        if self._is_number(place):
            return column[1:] <= value  # of NaN on either side, nothing
        members = column.get(int(value)) if value else None
        return False if members is None else members[1:]


def _bits(values: NDArray[Any]) -> NDArray[np.uint64]:
    return values.astype("<f8").view("<u8") if values.dtype.kind == "f" else values.astype("<u8")


def _is_sent(values: NDArray[Any]) -> NDArray[np.bool_]:
    return ~np.isnan(values) if values.dtype.kind == "f" else values != 0


def _latest(rule: Filter, members: MemberPlays) -> NDArray[Any]:
    """What the member had sent by each play, else the filter's default; NaN or 0 without either. Shape: [N]."""
    values = members.events[f"filter_{rule.event_key}"]
    sent = _is_sent(values)
    place = np.arange(len(values))
    latest = np.maximum.accumulate(np.where(sent, place, -1))
    begins = members.bounds[:-1][members.member]
    default, missing = default_value(rule), np.nan if values.dtype.kind == "f" else 0
    otherwise = np.asarray(missing if default is None else default, dtype=values.dtype)
    return np.where(latest >= begins, values[np.maximum(latest, 0)], otherwise)
