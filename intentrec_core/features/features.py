"""Turns packed plays into model inputs: item rows, label codes, times. A play's features depend only on the play and on
earlier plays of its context.

Item hashes become rows here, with the vocabulary of the bundle in use. Rows are never written back to the ground state.

Shapes: N plays of all contexts, one context after another; B contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain, DurationWeight, Field, FieldKind, FieldSource, Rule
from intentrec_core.features.columns import Columns
from intentrec_core.history.history import EventLayout
from intentrec_core.kernels import play_features as kinds
from intentrec_core.kernels.play_features import FieldRules, play_features

_RULES = {
    Rule.TIME_SINCE_RELEASE: kinds.AGE,
    Rule.GAP: kinds.GAP,
    Rule.FIRST_CONTACT: kinds.CONTACT,
    Rule.HOUR_OF_DAY: kinds.HOUR,
    Rule.DAY_OF_WEEK: kinds.WEEKDAY,
}
_NONE, _ZERO = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)


class ItemRows(Protocol):
    """What feature building needs of a vocabulary: rows for item hashes, 0 where unknown."""

    def rows(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of item hashes."""
        ...


class ItemTimes(Protocol):
    """What feature building needs of an item table: a time of the catalogue by row, NaN where missing."""

    def moment(self, key: str) -> NDArray[np.float64]:
        """A catalogue attribute that is a time, in seconds since 1970, by row."""
        ...


class FeatureBuilder:
    """Builds features for one domain with one bundle's vocabulary."""

    def __init__(self, domain: Domain, vocabulary: ItemRows, item_times: ItemTimes) -> None:
        self.domain = domain
        self.layout = EventLayout(domain)
        self._vocabulary = vocabulary
        self._rules = self._rules_of(domain.dynamic_fields, item_times)
        self._time_at = self._byte_of("ts_ms")
        self._finds_contacts = any(f.rule is Rule.FIRST_CONTACT for f in domain.fields)

    def rows(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of item hashes, 0 where unknown."""
        return self._vocabulary.rows(hashes)

    def columns(self, contexts: Sequence[bytes], starts: Sequence[int]) -> Columns:
        """Features of the plays ``contexts[b][starts[b]:]``. A context holds the packed plays of one member, oldest first.

        Cost: O(new plays). The rule first_contact also reads one byte of each play of the context, for each new play.
        """
        layout, size = self.layout, self.layout.size
        first = np.array(starts, dtype=np.int64)
        lengths = np.array([len(c) // size for c in contexts], dtype=np.int64) - first
        packed = b"".join([c[s * size :] for c, s in zip(contexts, starts, strict=True)])
        before_ms = [layout.ts_ms(c, s - 1) if s else -1 for c, s in zip(contexts, starts, strict=True)]
        new = layout.view(packed)
        rows = self._vocabulary.rows(new["item_hash"])
        contacts = self._later_contacts(contexts, starts) if self._finds_contacts else _NONE
        codes, ts_s, gap_s = self._features(packed, lengths, first, before_ms, rows, contacts, self._rules)
        return Columns(
            item_row=rows,
            codes=codes,
            ts_s=ts_s,
            gap_s=gap_s,
            weight=self.weights(new["duration_s"]),
            lengths=lengths,
            starts=first,
        )

    def weights(self, duration_s: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weight d_k of plays with these durations in the item loss; 1 where the duration is missing."""
        domain = self.domain
        if domain.duration_weight is DurationWeight.NONE:
            return np.ones(len(duration_s), dtype=np.float32)
        raw = np.log1p(np.maximum(duration_s, 0.0) / domain.duration_scale_s)
        weight = np.clip(raw, domain.duration_weight_min, domain.duration_weight_max)
        return np.where(duration_s < 0, 1.0, weight).astype(np.float32)

    def own_codes(self, field: Field, plays: NDArray[np.void], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Codes of a field that depends only on a play and its item.

        Shapes: plays structured [N], rows i64[N] of their items -> i64[N].
        Raises: ValueError for a field whose code depends on earlier plays (:func:`needs_plays_before`).
        """
        if needs_plays_before(field):
            raise ValueError(f"field {field.name}: its code depends on earlier plays")
        lengths, rules = np.array([len(plays)], dtype=np.int64), self._rules.of(self.domain.dynamic_fields.index(field))
        codes, _, _ = self._features(plays.tobytes(), lengths, _ZERO, [-1], rows, _NONE, rules)
        return codes[:, 0]

    def _features(
        self,
        packed: bytes,
        lengths: NDArray[np.int64],
        starts: NDArray[np.int64],
        before_ms: Sequence[int],
        rows: NDArray[np.int64],
        contacts: NDArray[np.int64],
        rules: FieldRules,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
        """See :func:`intentrec_core.kernels.play_features.play_features`."""
        made: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]] = play_features(
            np.frombuffer(packed, dtype=np.uint8),
            self.layout.size,
            self._time_at,
            lengths,
            starts,
            np.array(before_ms, dtype=np.int64),
            rows,
            contacts,
            rules,
        )
        return made

    def _rules_of(self, fields: Sequence[Field], item_times: ItemTimes) -> FieldRules:
        """The rules of some dynamic fields, in their order."""
        at, release_s = list[int](), list[NDArray[np.float64]]()
        for field in fields:
            if field.rule is Rule.TIME_SINCE_RELEASE:
                at.append(len(release_s))
                release_s.append(item_times.moment(field.key))
            elif field.source is FieldSource.EVENT:
                at.append(self._byte_of("duration_s" if field.key == "duration_s" else field.name))
            else:
                at.append(0)  # not read
        return FieldRules(
            kind=np.array([_kind(field) for field in fields], dtype=np.int64),
            at=np.array(at, dtype=np.int64),
            edges=np.array([edge for field in fields for edge in field.edges], dtype=np.float64),
            first_edge=np.cumsum([0, *(len(field.edges) for field in fields)], dtype=np.int64),
            release_s=np.array(release_s, dtype=np.float64).reshape(len(release_s), -1 if release_s else 0),
        )

    def _byte_of(self, column: str) -> int:
        """At which byte of a packed play a column begins."""
        fields = self.layout.dtype.fields
        assert fields is not None
        return fields[column][1]

    def _later_contacts(self, contexts: Sequence[bytes], starts: Sequence[int]) -> NDArray[np.int64]:
        """1 for a play whose item occurs earlier in its context, else 0. Shape: i64[N]."""
        later: list[int] = []
        for context, start in zip(contexts, starts, strict=True):
            num_plays = len(context) // self.layout.size
            if start == num_plays - 1:
                later.append(self.layout.has_item_before(context, start))
            else:
                items = self.layout.view(context)["item_hash"]
                _, first_at, which = np.unique(items, return_index=True, return_inverse=True)
                later.extend((first_at[which] < np.arange(num_plays))[start:].tolist())
        return np.array(later, dtype=np.int64)


def needs_plays_before(field: Field) -> bool:
    """Whether a field's code depends on earlier plays, and not only on the play and its item."""
    return field.rule in (Rule.GAP, Rule.FIRST_CONTACT)


def _kind(field: Field) -> int:
    """What its code is made of: one of the kinds of :mod:`intentrec_core.kernels.play_features`."""
    if field.rule is not None:
        return _RULES[field.rule]
    if field.key == "duration_s":
        return kinds.DURATION
    return kinds.NUMBER if field.kind is FieldKind.BUCKETED else kinds.CODE
