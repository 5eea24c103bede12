"""Turns encoded contexts into results: the second half of the pipeline, on the responder thread.

    encoded rows ─ search ─▶ ranked items ─ score predictions ─▶ counts ─ write ─▶ outputs

A member that the inference thread forgets is forgotten here between the same two micro-batches, so the results are those that a
single thread would have made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from intentrec_core.errors import RejectReason
from stream.ops.metrics import Metrics, PipelineStep, PlayOutcome
from stream.pipeline.answered_rows import AnsweredRows
from stream.pipeline.coalescing import Coalescing, coalesce
from stream.pipeline.index_probe import IndexProbe
from stream.pipeline.live_quality.scorer import PredictionScorer
from stream.pipeline.message_writer import MessageWriter
from stream.pipeline.retrieval import Retrieval, num_searched
from stream.pipeline.step_timer import timed
from stream.pipeline.watched import WatchedCache
from stream.wire.deferred_counts import DeferredCounts
from stream.wire.records import OutputRecord, PartitionResult

_source_offset = attrgetter("source_offset")

if TYPE_CHECKING:
    from intentrec_core.engine.member_key import MemberKey
    from intentrec_core.history.history import EventLayout
    from stream.bundles.serving import Serving
    from stream.pipeline.batch_rows import BatchRows
    from stream.pipeline.bundle_counts import BundleCounts
    from stream.pipeline.config import PipelineConfig
    from stream.pipeline.folding import FoldedBatch, FoldedPartition
    from stream.pipeline.isolation import EncodeResult
    from stream.pipeline.shown_items import ShownItems


@dataclass(frozen=True, slots=True)
class EncodedSlice:
    """The part of a micro-batch that one bundle has encoded, that bundle's responder, the items that it shows, and the table of
    counts that they are ranked by; None where there is none.
    """

    folded: FoldedBatch
    rows: BatchRows
    result: EncodeResult
    responder: Responder
    items: ShownItems
    counts: BundleCounts | None = None


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A micro-batch after encoding.

    ``partitions``: its records, with all that needs no encoding. ``slices``: its answers, by bundle; two while members migrate,
    none where nothing is to be answered. ``forgotten``: members of whom ``responders`` drop everything before they answer.
    """

    partitions: Sequence[FoldedPartition]
    slices: tuple[EncodedSlice, ...]
    forgotten: tuple[MemberKey, ...]
    responders: tuple[Responder, ...]


@dataclass(frozen=True, slots=True)
class PartitionAnswers:
    """One bundle's answers to plays of one partition."""

    partition: int
    outputs: Sequence[OutputRecord]
    counts: DeferredCounts


class Responder:
    """Answers with one bundle. The inference thread creates it; one thread calls everything else.

    ``before``: the responder of the bundle whose members migrate to this one.

    Raises: whatever is wrong with the bundle.
    """

    def __init__(
        self,
        serving: Serving,
        config: PipelineConfig,
        layout: EventLayout,
        metrics: Metrics,
        before: Responder | None = None,
    ) -> None:
        self._config, self._metrics = config, metrics
        self._watched = WatchedCache(layout, serving.vocabulary, max(serving.engine.num_units, 1024))
        self._probe: IndexProbe = IndexProbe(metrics.index_recall) if before is None else before._probe
        self._retrieval = Retrieval(
            serving,
            k=num_searched(config.num_recommendations, has_rows=bool(config.rows)),
            beta=config.beta,
            probe=self._probe,
            keeps_queries=config.publish_embedding or config.publish_reasons,
        )
        self._writer = MessageWriter(serving, config, metrics)
        metrics.filters(serving.filters.names)
        self._scorer: PredictionScorer = PredictionScorer(serving, metrics, None if before is None else before._scorer)

    def forget(self, member: MemberKey) -> None:
        """Drops what is derived from a member's plays."""
        self._watched.forget(member)
        self._scorer.forget(member)

    def answer(self, encoded_slice: EncodedSlice) -> list[PartitionAnswers]:
        """Answers a slice, partition by partition. Slices come in the order in which they were encoded."""
        answered = self._ranked(encoded_slice)
        with timed(self._metrics, PipelineStep.JUDGE):
            self._scorer.score(answered)
        with timed(self._metrics, PipelineStep.MESSAGES):
            outputs = self._writer.write(answered)
        self._count(answered)
        return [
            PartitionAnswers(partition.partition, own, counts)
            for partition, own, counts in zip(answered.partitions, outputs, answered.counts, strict=True)
        ]

    def _ranked(self, encoded_slice: EncodedSlice) -> AnsweredRows:
        """Decides which plays get outputs, and ranks the items for each row."""
        partitions, rows = encoded_slice.folded.partitions, encoded_slice.rows
        encoded, failed, items = encoded_slice.result.encoded, encoded_slice.result.failed, encoded_slice.items
        rows_of = rows.of(partition.answers for partition in partitions)
        if encoded_slice.folded.coalesced:
            coalescing = coalesce(partitions, rows_of, failed)
        else:
            coalescing = Coalescing.none(partitions, failed)
        with timed(self._metrics, PipelineStep.SEARCH):
            watched = self._watched.of(rows, items)
            ranked = self._retrieval.search(
                rows, encoded, items, watched, coalescing.unanswered, self._scorer.popular, encoded_slice.counts
            )
        counts = [DeferredCounts() for _ in partitions]
        return AnsweredRows(
            partitions,
            rows_of,
            counts,
            rows,
            encoded,
            failed,
            coalescing,
            items,
            watched,
            ranked,
            encoded_slice.counts,
        )

    def _count(self, answered: AnsweredRows) -> None:
        metrics, ranked, failed, coalescing = self._metrics, answered.ranked, answered.failed, answered.coalescing
        any_failed = failed.any()
        for counts, rows, num_coalesced in zip(
            answered.counts, answered.rows_of, coalescing.num_coalesced, strict=True
        ):
            if any_failed:
                counts.add(metrics.plays_rejected, RejectReason.INFERENCE_FAILED, amount=int(failed[rows].sum()))
            counts.add(metrics.coalesced_plays, amount=num_coalesced)
        if num_popular := int(np.count_nonzero(ranked.popular)):
            metrics.fallbacks.inc(num_popular)
        for hiding in ranked.hidden_by.values():
            for rule in hiding:
                metrics.hidden_lists.labels(rule.name, rule.reason).inc()
        last = self._config.num_recommendations - 1
        if num_short := int(np.count_nonzero((ranked.rows[:, last] < 0) & ~coalescing.unanswered)):
            metrics.short_lists.inc(num_short)


def respond(batch: EncodedBatch, metrics: Metrics) -> list[PartitionResult]:
    """Answers an encoded micro-batch: one result for each of its partitions, in their order.

    Batches come in the order in which they were encoded.
    """
    forget(batch)
    outputs = {folded.partition: list(folded.outputs) for folded in batch.partitions}
    counts = {folded.partition: _outcome_counts(folded, metrics) for folded in batch.partitions}
    for encoded_slice in batch.slices:
        for answers in encoded_slice.responder.answer(encoded_slice):
            outputs[answers.partition] += answers.outputs
            counts[answers.partition].add_all(answers.counts)
    for folded in batch.partitions:
        if folded.outputs or len(batch.slices) > 1:  # several lists, each of them in source order
            outputs[folded.partition].sort(key=_source_offset)
    return [
        PartitionResult(
            folded.partition,
            folded.next_offset,
            folded.num_records,
            outputs[folded.partition],
            folded.changelog,
            folded.outcomes,
            counts[folded.partition],
        )
        for folded in batch.partitions
    ]


def forget(batch: EncodedBatch) -> None:
    """Makes the responders drop the forgotten members, even if the batch itself cannot be answered."""
    for responder in batch.responders:
        for member in batch.forgotten:
            responder.forget(member)


def _outcome_counts(folded: FoldedPartition, metrics: Metrics) -> DeferredCounts:
    """The outcomes of the records, to be counted once they are committed."""
    counts, outcomes = DeferredCounts(), folded.outcomes
    num_bytes = sum(len(key) + len(value or b"") for key, value in folded.changelog.items())
    counts.add(metrics.changelog_bytes, amount=num_bytes)
    counts.add(metrics.plays, PlayOutcome.APPLIED, amount=outcomes.num_applied)
    counts.add(metrics.plays, PlayOutcome.DUPLICATE, amount=outcomes.num_duplicates)
    counts.add(metrics.plays, PlayOutcome.LATE, amount=outcomes.num_late)
    counts.add(metrics.plays, PlayOutcome.REPLAYED, amount=outcomes.num_replayed)
    counts.add(metrics.forgotten_members, amount=outcomes.num_erasures)
    for reason in folded.reasons:
        counts.add(metrics.plays_rejected, reason, amount=1)
    return counts
