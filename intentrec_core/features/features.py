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
from intentrec_core.features.buckets import DAY_S, bucket_codes
from intentrec_core.features.columns import Columns
from intentrec_core.history.history import EventLayout


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
        self._release_s = {f.name: item_times.moment(f.key) for f in domain.fields if f.rule is Rule.TIME_SINCE_RELEASE}
        self._finds_contacts = any(f.rule is Rule.FIRST_CONTACT for f in domain.fields)

    def rows(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of item hashes, 0 where unknown."""
        return self._vocabulary.rows(hashes)

    def columns(self, contexts: Sequence[bytes], starts: Sequence[int]) -> Columns:
        """Features of the plays ``contexts[b][starts[b]:]``. A context holds the packed plays of one member, oldest first.

        Cost: O(new plays). The rule first_contact also reads one byte of each play of the context, for each new play.
        """
        size = self.layout.size
        first = np.asarray(starts, dtype=np.int64)
        lengths = np.array([len(c) // size for c in contexts], dtype=np.int64) - first
        new = self.layout.view(b"".join(c[s * size :] for c, s in zip(contexts, starts, strict=True)))
        ts_ms = new["ts_ms"]
        heads = np.cumsum(lengths) - lengths  # index of each context's first play
        previous = np.empty_like(ts_ms)
        previous[1:] = ts_ms[:-1]
        nonempty = lengths > 0
        previous[heads[nonempty]] = [
            self.layout.ts_ms(c, s - 1) if s else -1
            for c, s, some in zip(contexts, first.tolist(), nonempty.tolist(), strict=True)
            if some
        ]
        at_start = np.zeros(len(new), dtype=bool)
        at_start[heads[nonempty & (first == 0)]] = True
        gap_s = np.where(at_start, -1.0, (ts_ms - previous) / 1000.0).astype(np.float32)
        rows = self._vocabulary.rows(new["item_hash"])
        contacts = self._later_contacts(contexts, starts) if self._finds_contacts else None
        codes = np.zeros((len(new), len(self.domain.dynamic_fields)), dtype=np.int64)
        for column, field in enumerate(self.domain.dynamic_fields):
            codes[:, column] = self._codes(field, new, rows, gap_s, contacts)
        return Columns(
            item_row=rows,
            codes=codes,
            ts_s=ts_ms / 1000.0,
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
        """Codes of a field that depends only on a play and its item (not :func:`needs_plays_before`).

        Shapes: plays structured [N], rows i64[N] of their items -> i64[N].
        """
        if field.source is FieldSource.EVENT:
            if field.key == "duration_s":
                return bucket_codes(plays["duration_s"], field.edges, missing=plays["duration_s"] < 0)
            column = plays[field.name]
            return bucket_codes(column, field.edges) if field.kind is FieldKind.BUCKETED else column.astype(np.int64)
        ts_s = plays["ts_ms"] / 1000.0
        if field.rule is Rule.TIME_SINCE_RELEASE:
            return bucket_codes((ts_s - self._release_s[field.name][rows]) / DAY_S, field.edges)
        if field.rule is Rule.HOUR_OF_DAY:
            return 1 + ((ts_s // 3600) % 24).astype(np.int64)
        return 1 + ((ts_s // DAY_S + 3) % 7).astype(np.int64)  # 1970-01-01 was a Thursday; 0 is Monday

    def _codes(
        self,
        field: Field,
        new: NDArray[np.void],
        rows: NDArray[np.int64],
        gap_s: NDArray[np.float32],
        contacts: NDArray[np.int64] | None,
    ) -> NDArray[np.int64]:
        if not needs_plays_before(field):
            return self.own_codes(field, new, rows)
        if field.rule is Rule.GAP:
            return bucket_codes(gap_s, field.edges, missing=gap_s < 0)
        assert contacts is not None
        return 1 + contacts

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
