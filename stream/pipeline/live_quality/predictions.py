"""Measures live quality: each play is compared with the member's previous prediction, before it becomes part of the context.

    prediction after play k ──▶ kept by member ──▶ play k + 1: was it among the 10 items? were the intents right?

Results are counted for the bundle that made the prediction, next to references on the same plays: the items and labels that are
popular in the last 7 days, and the items that follow the member's last plays in a Markov chain over the newest transitions. A
play of an item unknown to the bundle is a miss for all. Late and replayed plays are not counted, because they are not the next
play that was predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from intentrec_core.domain.spec import Domain
from intentrec_core.engine.member_key import MemberKey
from stream.ops.metrics import Metrics
from stream.pipeline.batch_rows import BatchRows
from stream.pipeline.live_quality.common_labels import CommonLabels
from stream.wire.deferred_counts import DeferredCounts

CUTOFF = 10
#: Predictions kept, about 300 bytes each. The oldest are dropped, and the next plays of their members are not counted.
MAX_MEMBERS = 262_144
_FIRST_MEMBERS = 1_024


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions: items i32[N, 10] (-1 padded), likeliest label of each head i16[N, M], bundle i32[N] (-1: no prediction)."""

    items: NDArray[np.int32]
    labels: NDArray[np.int16]
    bundle: NDArray[np.int32]

    @classmethod
    def empty(cls, num: int, num_heads: int) -> Predictions:
        """``num`` rows without a prediction."""
        return cls(
            np.full((num, CUTOFF), -1, dtype=np.int32),
            np.full((num, num_heads), -1, dtype=np.int16),
            np.full(num, -1, dtype=np.int32),
        )

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """The predictions at ``rows``."""
        return Predictions(self.items[rows], self.labels[rows], self.bundle[rows])

    def put(self, rows: NDArray[np.int64], other: Predictions) -> None:
        """Writes ``other`` to ``rows``."""
        self.items[rows], self.labels[rows], self.bundle[rows] = other.items, other.labels, other.bundle


@dataclass(frozen=True, slots=True)
class ReferenceHits:
    """Whether each play's item was among the 10 of a reference. Shapes: bool[N] each."""

    popular: NDArray[np.bool_]
    markov: NDArray[np.bool_]


class LastPredictions:
    """The last prediction of each member, in flat arrays. With too many members, the oldest entries are dropped."""

    def __init__(self, num_heads: int, max_members: int = MAX_MEMBERS) -> None:
        self._num_heads, self._max_members = num_heads, max_members
        self._kept = Predictions.empty(min(_FIRST_MEMBERS, max_members), num_heads)
        self._slot: dict[MemberKey, int] = {}
        self._owner: list[MemberKey | None] = []
        self._next = 0

    def __len__(self) -> int:
        """The number of members with a prediction."""
        return len(self._slot)

    def bundles(self) -> NDArray[np.int32]:
        """The numbers of the bundles that made the kept predictions, each once."""
        return np.unique(self._kept.bundle)

    def find(self, members: Sequence[MemberKey]) -> Predictions:
        """The last prediction of each member."""
        slots = np.array([self._slot.get(member, -1) for member in members], dtype=np.int64)
        found = self._kept.take(np.maximum(slots, 0))
        found.bundle[slots < 0] = -1
        return found

    def keep(self, members: Sequence[MemberKey], predictions: Predictions) -> None:
        """Replaces the members' predictions."""
        slots = [self._slot_of(member) for member in members]
        self._kept.put(np.array(slots, dtype=np.int64), predictions)

    def forget(self, member: MemberKey) -> None:
        """Drops a member's prediction."""
        slot = self._slot.pop(member, None)
        if slot is not None:
            self._owner[slot] = None

    def _slot_of(self, member: MemberKey) -> int:
        slot = self._slot.get(member)
        if slot is not None:
            return slot
        slot = self._next
        if slot == len(self._owner):
            self._owner.append(None)
            self._grow(slot)
        else:
            evicted = self._owner[slot]
            if evicted is not None:
                del self._slot[evicted]
        self._next = (slot + 1) % self._max_members
        self._slot[member], self._owner[slot] = slot, member
        return slot

    def _grow(self, slot: int) -> None:
        held = len(self._kept.bundle)
        if slot >= held:
            grown = Predictions.empty(min(2 * held, self._max_members), self._num_heads)
            grown.put(np.arange(held), self._kept)
            self._kept = grown


class PredictionTracker:
    """Counts which predictions were right. Bundles share one if their item rows and heads are the same."""

    def __init__(self, domain: Domain, metrics: Metrics, max_members: int = MAX_MEMBERS) -> None:
        self._heads = domain.heads
        self._names = tuple(head.name for head in domain.heads)
        self._metrics = metrics
        self._last = LastPredictions(len(self._heads), max_members)
        self._common = [CommonLabels(head.num_labels) for head in domain.heads]
        self._bundles: dict[int, str] = {}
        self._number, self._next_number = -1, 0

    def bundle_number(self, bundle: str) -> int:
        """The number that represents a bundle in predictions."""
        self._metrics.judges(bundle, self._names)
        if self._bundles.get(self._number) != bundle:
            self._number = next((n for n, known in self._bundles.items() if known == bundle), self._next_number)
            if self._number == self._next_number:
                self._next_number += 1
                predicting = set(self._last.bundles().tolist())
                self._bundles = {n: known for n, known in self._bundles.items() if n in predicting}
                self._bundles[self._number] = bundle
        return self._number

    def forget(self, member: MemberKey) -> None:
        """Drops a member's prediction."""
        self._last.forget(member)

    def previous(self, batch: BatchRows, predicted: Predictions) -> Predictions:
        """For every row the prediction before its play: that of the member's previous row in the batch, else the one kept."""
        first = np.array(batch.first_row, dtype=np.int64)
        found = predicted.take(np.arange(len(batch)) - 1)  # wrong in the first row of each run, which is replaced below
        before = self._last.find([run.member for run in batch.runs])
        newest: dict[MemberKey, int] = {}
        for i, (run, first_row) in enumerate(zip(batch.runs, batch.first_row, strict=True)):
            row = newest.get(run.member)
            if row is not None:
                before.put(np.array([i]), predicted.take(np.array([row])))
            newest[run.member] = first_row + run.num_outputs - 1
        found.put(first, before)
        self._last.keep(list(newest), predicted.take(np.array(list(newest.values()), dtype=np.int64)))
        return found

    def count(
        self,
        counts_list: Sequence[DeferredCounts],
        counts_of: NDArray[np.int64],
        predicted: Predictions,
        item_row: NDArray[np.int64],
        observed_labels: Sequence[NDArray[np.bool_]],
        reference_hits: ReferenceHits,
        ts_s: NDArray[np.float64],
    ) -> None:
        """Compares plays with what was ``predicted`` for them, and counts the results. Plays without a prediction do not count.

        Shapes: counts_of i64[N] which of ``counts_list`` a play counts in; item_row i64[N]; observed_labels bool[N, L_i] per
        head, all false where unknown; ts_s f64[N] event times.
        """
        for number in np.unique(predicted.bundle[predicted.bundle >= 0]).tolist():
            rows = np.flatnonzero(predicted.bundle == number)
            sums = _Sums(counts_list, counts_of[rows])
            self._count(
                sums, self._bundles[number], predicted.take(rows), item_row[rows], [t[rows] for t in observed_labels]
            )
            sums.add(self._metrics.judged_popular_hits, self._bundles[number], values=reference_hits.popular[rows])
            sums.add(self._metrics.judged_markov_hits, self._bundles[number], values=reference_hits.markov[rows])
        for common, observed in zip(self._common, observed_labels, strict=True):
            common.add(observed, ts_s)

    def _count(
        self,
        sums: _Sums,
        bundle: str,
        predicted: Predictions,
        item_row: NDArray[np.int64],
        observed_labels: Sequence[NDArray[np.bool_]],
    ) -> None:
        metrics = self._metrics
        metrics.judges(bundle, self._names)
        found = (predicted.items == item_row[:, None]) & (item_row > 0)[:, None]
        hit = found.any(axis=1)
        sums.add(metrics.judged_plays, bundle, values=np.ones(len(item_row)))
        sums.add(metrics.judged_hits, bundle, values=hit)
        sums.add(metrics.judged_reciprocal_ranks, bundle, values=hit / (1.0 + found.argmax(axis=1)))
        for column, (name, observed) in enumerate(zip(self._names, observed_labels, strict=True)):
            label = predicted.labels[:, column].astype(np.int64)
            known = observed.any(axis=1) & (label >= 0)
            right = known & observed[np.arange(len(label)), label]
            sums.add(metrics.judged_intents, bundle, name, values=known)
            sums.add(metrics.judged_intents_right, bundle, name, values=right)
            commonest = self._common[column].commonest
            if commonest is not None:
                sums.add(metrics.judged_popular_intents_right, bundle, name, values=known & observed[:, commonest])


class _Sums:
    """Adds sums over plays to the counts that each play belongs to."""

    def __init__(self, counts_list: Sequence[DeferredCounts], counts_of: NDArray[np.int64]) -> None:
        self._counts_list, self._counts_of = counts_list, counts_of

    def add(self, counter: Counter, *labels: str, values: NDArray[np.float64] | NDArray[np.bool_]) -> None:
        """Shape: values [N]."""
        amounts = np.bincount(self._counts_of, weights=values, minlength=len(self._counts_list))
        for counts, amount in zip(self._counts_list, amounts.tolist(), strict=True):
            counts.add(counter, *labels, amount=amount)
