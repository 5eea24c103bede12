"""What the plays of a micro-batch say of the predictions before them, and of what is popular now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.history.history import Outcome
from stream.pipeline.folding import PartitionWork, PendingAnswer
from stream.pipeline.live_quality.labels import observed_labels_of
from stream.pipeline.live_quality.predictions import CUTOFF, Predictions, PredictionTracker
from stream.pipeline.popular import PopularNow

if TYPE_CHECKING:
    from intentrec_core.engine.engine import Encoded
    from stream.bundles.serving import Serving
    from stream.ops.metrics import Metrics
    from stream.pipeline.batch_rows import BatchRows
    from stream.pipeline.retrieval import RankedItems
    from stream.pipeline.watched import WatchedRows


class PredictionScorer:
    """How predictions of one bundle are judged, and what is popular now. Owned by the thread that answers.

    ``before``: of the bundle whose members this one takes over. Where rows mean the same items, what it keeps of them is shared.
    """

    def __init__(self, serving: Serving, metrics: Metrics, before: PredictionScorer | None = None) -> None:
        self._serving = serving
        self._popular: PopularNow | None = None
        self._judge: PredictionTracker = PredictionTracker(serving.domain, metrics)
        if before is None:
            self._popular = _popular_of(serving)  # a worker does what is slow before it is ready
        elif serving.extends(before._serving) or before._serving.extends(serving):
            self._popular = before.popular.beside(serving.popularity)
            if serving.domain.heads == before._serving.domain.heads:
                self._judge = before._judge

    @property
    def popular(self) -> PopularNow:
        """What is popular now; asked for the first time it may take a second, counting out a large bundle's plays."""
        if self._popular is None:
            self._popular = _popular_of(self._serving)
        return self._popular

    def forget(self, member: MemberKey) -> None:
        """Drops a member's prediction."""
        self._judge.forget(member)

    def score(
        self,
        works: Sequence[PartitionWork],
        batch: BatchRows,
        encoded: Encoded,
        lists: RankedItems,
        watched: Sequence[WatchedRows],
        coalesced_away: NDArray[np.bool_],
    ) -> None:
        """Judges the predictions before the plays that came in order, then counts all new plays as popular.

        Shapes: watched i64[any] a row; coalesced_away bool[N].
        """
        serving = self._serving
        made = Predictions.empty(len(batch), len(serving.domain.heads))
        made.items[:] = lists.rows[:, :CUTOFF]
        for m, head in enumerate(encoded.heads):
            made.labels[:, m] = head.argmax(axis=1)
        made.bundle[~coalesced_away] = self._judge.bundle_number(serving.version)
        previous = self._judge.previous(batch, made)
        answers = [
            (p, work_of)
            for work_of, work in enumerate(works)
            for p in work.pending
            if isinstance(p, PendingAnswer) and p.outcome is not Outcome.REPLAYED
        ]
        in_order = [(a.row, work_of) for a, work_of in answers if a.outcome is Outcome.APPENDED]
        added, works_of = np.array(in_order, dtype=np.int64).reshape(-1, 2).T
        predicted = previous.bundle[added] >= 0
        rows, works_of = added[predicted], works_of[predicted]
        if len(rows):
            item_row = batch.item_row[rows]
            seen_before = [watched[row][:-1] for row in rows.tolist()]
            hit = self.popular.hits(item_row, seen_before, CUTOFF, serving.hides_watched)
            ts_s = batch.plays["ts_ms"][rows] / 1000.0
            counts_list = [work.result.counts for work in works]
            observed_labels = observed_labels_of(batch, rows, serving)
            self._judge.count(counts_list, works_of, previous.take(rows), item_row, observed_labels, hit, ts_s)
        late = [a for a, _ in answers if a.outcome is Outcome.INSERTED]
        late_rows = np.array([serving.vocabulary.row(a.play.item_id) for a in late], dtype=np.int64)
        ts_ms = np.concatenate([batch.plays["ts_ms"][added], np.array([a.play.ts_ms for a in late], dtype=np.int64)])
        self.popular.add(np.concatenate([batch.item_row[added], late_rows]), ts_ms / 1000.0)


def _popular_of(serving: Serving) -> PopularNow:
    return PopularNow(serving.popularity, serving.counted_at_s)
