"""Scores the previous prediction for every play of a micro-batch, then adds the plays to the references: what is popular now, and
which items follow which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from index.base import PAD_ROW
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.history.history import Outcome
from stream.pipeline.live_quality.labels import ObservedLabels
from stream.pipeline.live_quality.markov_reference import MarkovReference
from stream.pipeline.live_quality.popular_reference import PopularReference
from stream.pipeline.live_quality.predictions import CUTOFF, Predictions, PredictionTracker, ReferenceHits
from stream.pipeline.popular import PopularNow
from stream.pipeline.row_lists import RowLists

if TYPE_CHECKING:
    from stream.bundles.serving import Serving
    from stream.ops.metrics import Metrics
    from stream.pipeline.answered_rows import AnsweredRows


#: Looked up once: an attribute of an enum costs as much as the comparison itself.
_APPENDED, _INSERTED = Outcome.APPENDED, Outcome.INSERTED


class PredictionScorer:
    """Scores the predictions of one bundle, and holds the references. Owned by the responder thread.

    ``before``: the scorer of the bundle whose members migrate to this one. If the item rows of the two bundles are compatible,
    both share their plays, transitions and predictions.
    """

    def __init__(self, serving: Serving, metrics: Metrics, before: PredictionScorer | None = None) -> None:
        self._serving = serving
        self._popular: PopularNow | None = None
        self._popular_reference = PopularReference()
        self._markov = MarkovReference(len(serving.vocabulary))
        self._labels = ObservedLabels(serving)
        self._tracker: PredictionTracker = PredictionTracker(serving.domain, metrics)
        if before is None:
            self._popular = _popular_of(serving)  # slow, so it is done before the worker is ready
            self._popular_reference.compile()  # so are these
            self._markov.compile()
            self._tracker.compile()
        elif serving.extends(before._serving) or before._serving.extends(serving):
            self._popular = before.popular.sharing_plays(serving.popularity)
            self._markov = before._markov
            if serving.domain.heads == before._serving.domain.heads:
                self._tracker = before._tracker

    @property
    def popular(self) -> PopularNow:
        """What is popular now. The first call may take a second, while the plays of a large bundle are counted."""
        if self._popular is None:
            self._popular = _popular_of(self._serving)
        return self._popular

    def forget(self, member: MemberKey) -> None:
        """Drops a member's prediction."""
        self._tracker.forget(member)

    def score(self, answered: AnsweredRows) -> None:
        """Scores the prediction before each appended play into its partition's counts; then adds the plays to the references."""
        serving, batch, ranked = self._serving, answered.rows, answered.ranked
        predicted = Predictions.empty(len(batch), len(serving.domain.heads))
        predicted.items[:] = ranked.rows[:, :CUTOFF]
        if len(answered.items.titles) > len(serving.vocabulary):
            # Rows of items that are new to the bundle mean nothing to the next one: such an item is a miss, as if unknown.
            predicted.items[predicted.items >= len(serving.vocabulary)] = PAD_ROW
        labels = predicted.labels
        for m, head in enumerate(answered.encoded.heads):
            labels[:, m] = head.argmax(axis=1)
        predicted.bundle[~answered.coalescing.unanswered] = self._tracker.bundle_number(serving.version)
        previous = self._tracker.previous(batch, predicted)
        item_rows, appended = batch.item_row.tolist(), list[tuple[int, int]]()
        appended_plays, inserted_plays = list[tuple[int, float]](), list[tuple[int, float]]()
        for number, (partition, rows) in enumerate(zip(answered.partitions, answered.rows_of, strict=True)):
            for answer, row in zip(partition.answers, rows, strict=True):
                if answer.outcome is _APPENDED:
                    appended.append((row, number))
                    appended_plays.append((item_rows[row], answer.play.ts_ms / 1000.0))
                elif answer.outcome is _INSERTED:
                    # Its row is the newest play's.
                    inserted_plays.append((serving.vocabulary.row(answer.play.item_id), answer.play.ts_ms / 1000.0))
        added, partition_of = np.array(appended, dtype=np.int64).reshape(-1, 2).T
        has_prediction = previous.bundle[added] >= 0
        scored, partition_of = added[has_prediction], partition_of[has_prediction]
        last_rows = self._markov.last_rows(batch, added, serving)
        if len(scored):
            item_row = batch.item_row[scored]
            if serving.hides_watched:
                seen_before = [answered.watched[row][:-1] for row in scored.tolist()]
                hidden = RowLists.below(seen_before, len(serving.vocabulary))
            else:
                hidden = RowLists.none(len(scored))
            last = [own for own, is_scored in zip(last_rows.lists, has_prediction.tolist(), strict=True) if is_scored]
            window = self.popular.window if answered.item_counts is None else answered.item_counts.popular
            hits = ReferenceHits(
                popular=self._popular_reference.hits(item_row, CUTOFF, window, hidden),
                markov=self._markov.hits(item_row, last, CUTOFF, window, hidden.lists),
            )
            ts_s = batch.plays["ts_ms"][scored] / 1000.0
            observed_labels = self._labels.of(batch, scored)
            self._tracker.count(
                answered.counts, partition_of, previous.take(scored), item_row, observed_labels, hits, ts_s
            )
        self._markov.learn(batch, added, last_rows, serving)
        self.popular.add(appended_plays + inserted_plays)


def _popular_of(serving: Serving) -> PopularNow:
    return PopularNow(serving.popularity, serving.counted_at_s)
