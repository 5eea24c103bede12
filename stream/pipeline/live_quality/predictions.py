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
from intentrec_core.kernels.judged import add_judged, add_labels, mark_labels
from stream.ops.metrics import Metrics
from stream.pipeline.batch_rows import BatchRows
from stream.pipeline.live_quality.common_labels import CommonLabels
from stream.wire.deferred_counts import DeferredCounts

#: A counter and its labels.
_Series = tuple[Counter, tuple[str, ...]]
CUTOFF = 10
#: Predictions kept, about 300 bytes each. The oldest are dropped, and the next plays of their members are not counted.
MAX_MEMBERS = 262_144
_FIRST_MEMBERS = 1_024


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions, one a row. In one array, because they are looked up, compared and kept in every micro-batch.

    Shape: values i32[N, 10 + M + 1]. ``items`` [N, 10] (-1 padded), ``labels`` [N, M] the likeliest one of each head, and
    ``bundle`` [N] (-1: no prediction) are views of it.
    """

    values: NDArray[np.int32]

    @classmethod
    def empty(cls, num: int, num_heads: int) -> Predictions:
        """``num`` rows without a prediction."""
        return cls(np.full((num, CUTOFF + num_heads + 1), -1, dtype=np.int32))

    @property
    def items(self) -> NDArray[np.int32]:
        """The rows of the items, best first."""
        return self.values[:, :CUTOFF]

    @property
    def labels(self) -> NDArray[np.int32]:
        """The likeliest label of each head."""
        return self.values[:, CUTOFF:-1]

    @property
    def bundle(self) -> NDArray[np.int32]:
        """The numbers of the bundles that made them."""
        return self.values[:, -1]

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """The predictions at ``rows``."""
        return Predictions(self.values[rows])

    def put(self, rows: NDArray[np.int64], other: Predictions) -> None:
        """Writes ``other`` to ``rows``."""
        self.values[rows] = other.values


@dataclass(frozen=True, slots=True)
class ReferenceHits:
    """Whether each play's item was among the 10 of a reference. Shapes: bool[N] each."""

    popular: NDArray[np.bool_]
    markov: NDArray[np.bool_]


class LastPredictions:
    """The last prediction of each member, in flat arrays. With too many members, the oldest entries are dropped."""

    def __init__(self, num_heads: int, max_members: int = MAX_MEMBERS) -> None:
        self._num_heads, self._max_members = num_heads, max_members
        #: The last row stays empty. Members without a prediction are given this row.
        self._kept = Predictions.empty(min(_FIRST_MEMBERS, max_members) + 1, num_heads)
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
        return self._kept.take(np.array([self._slot.get(member, -1) for member in members], dtype=np.int64))

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
        held = len(self._kept.values) - 1
        if slot >= held:
            grown = Predictions.empty(min(2 * held, self._max_members) + 1, self._num_heads)
            grown.values[:held] = self._kept.values[:held]
            self._kept = grown


class PredictionTracker:
    """Counts which predictions were right. Bundles share one if their item rows and heads are the same."""

    def __init__(self, domain: Domain, metrics: Metrics, max_members: int = MAX_MEMBERS) -> None:
        self._heads = domain.heads
        self._names = tuple(head.name for head in domain.heads)
        self._metrics = metrics
        self._last = LastPredictions(len(self._heads), max_members)
        self._common = CommonLabels([head.num_labels for head in domain.heads])
        self._bundles: dict[int, str] = {}
        self._number, self._next_number = -1, 0
        self._last_series: tuple[str, list[_Series]] = "", []

    def compile(self) -> None:
        """Compiles what :meth:`count` calls: seconds where numba's cache is empty."""
        common, values = self._common, Predictions.empty(0, len(self._heads)).values
        row, hit = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        observed, sums = np.zeros((0, common.first[-1]), dtype=np.bool_), np.zeros((0, 0))
        add_judged(values, 0, row, observed, common.first, common.commonest, hit, hit, row, sums)
        mark_labels(*np.zeros((2, 0, 2), dtype=np.int64), observed)
        add_labels(observed, row, row)

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
        found = Predictions(np.empty_like(predicted.values))
        found.values[1:] = predicted.values[:-1]  # wrong in the first row of each run, which is replaced below
        before = self._last.find([run.member for run in batch.runs])
        newest: dict[MemberKey, int] = {}
        for i, (run, first_row) in enumerate(zip(batch.runs, batch.first_row, strict=True)):
            row = newest.get(run.member)
            if row is not None:
                before.put(np.array([i]), predicted.take(np.array([row])))
            newest[run.member] = first_row + run.num_outputs - 1
        found.put(np.array(batch.first_row, dtype=np.int64), before)
        self._last.keep(list(newest), predicted.take(np.array(list(newest.values()), dtype=np.int64)))
        return found

    def count(
        self,
        counts_list: Sequence[DeferredCounts],
        counts_of: NDArray[np.int64],
        predicted: Predictions,
        item_row: NDArray[np.int64],
        observed_labels: NDArray[np.bool_],
        reference_hits: ReferenceHits,
        ts_s: NDArray[np.float64],
    ) -> None:
        """Compares plays with what was ``predicted`` for them, and counts the results. Plays without a prediction do not count.

        Shapes: counts_of i64[N] which of ``counts_list`` a play counts in; item_row i64[N]; observed_labels bool[N, S] of all
        heads side by side, those of a head all false where unknown; ts_s f64[N] event times.
        """
        commonest = self._common.commonest
        for number in set(predicted.bundle.tolist()) - {-1}:
            series = self._series(self._bundles[number])
            sums = np.zeros((len(counts_list), len(series)))
            add_judged(
                predicted.values,
                number,
                item_row,
                observed_labels,
                self._common.first,
                commonest,
                reference_hits.popular,
                reference_hits.markov,
                counts_of,
                sums,
            )
            for counts, amounts in zip(counts_list, sums.tolist(), strict=True):
                for (counter, labels), amount in zip(series, amounts, strict=True):
                    if amount:
                        counts.add(counter, *labels, amount=amount)
        self._common.add(observed_labels, ts_s)

    def _series(self, bundle: str) -> list[_Series]:
        """The series of a bundle and its heads, in the order of the sums of :mod:`intentrec_core.kernels.judged`."""
        metrics = self._metrics
        metrics.judges(bundle, self._names)
        if self._last_series[0] == bundle:
            return self._last_series[1]
        series = [
            *((counter, (bundle,)) for counter in metrics.judged_of_bundle),
            *((counter, (bundle, name)) for name in self._names for counter in metrics.judged_of_head),
        ]
        self._last_series = bundle, series
        return series
