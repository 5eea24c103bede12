"""From encoded contexts to outputs: the pipeline's second half, which has a thread of its own.

    what plays were encoded to ─ search ─▶ lists ─ judge ─▶ counts ─ write ─▶ outputs

A member whom the inference thread forgets is forgotten here between the same two micro-batches: what comes out is what one thread
would have made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intentrec_core.engine.member_key import MemberKey
from stream.ops.metrics import Metrics, PipelineStep
from stream.pipeline.coalescing import coalesce
from stream.pipeline.folding import PartitionWork, PendingAnswer
from stream.pipeline.live_quality.predictions import CUTOFF
from stream.pipeline.live_quality.scorer import PredictionScorer
from stream.pipeline.message_writer import MessageWriter
from stream.pipeline.retrieval import RankedItems, Retrieval
from stream.pipeline.watched import WatchedCache

if TYPE_CHECKING:
    from intentrec_core.history.history import EventLayout
    from stream.bundles.serving import Serving
    from stream.pipeline.batch_rows import BatchRows
    from stream.pipeline.isolation import EncodeResult
    from stream.pipeline.pipeline import PipelineConfig


class Responder:
    """What one bundle answers with. Made by the inference thread; one thread, whichever it is, calls everything else.

    ``before``: of the bundle whose members this one takes over.

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
        self._watched = WatchedCache(layout, serving.vocabulary, max(serving.engine.num_slots, 1024))
        self._retrieval = Retrieval(serving, k=max(CUTOFF, config.num_recommendations), beta=config.beta)
        self._writer = MessageWriter(serving, k=config.num_recommendations, max_tries=config.max_tries)
        self._judging: PredictionScorer = PredictionScorer(
            serving, metrics, None if before is None else before._judging
        )

    def forget(self, member: MemberKey) -> None:
        """Drops what is derived from a member's plays."""
        self._watched.forget(member)
        self._judging.forget(member)

    def answer(
        self,
        works: Sequence[PartitionWork],
        batch: BatchRows,
        attempt: EncodeResult,
        *,
        coalesced: bool,
    ) -> None:
        """Completes the works' results but for their counts. Micro-batches come in the order in which they were encoded."""
        encoded = attempt.encoded
        coalesced_away = self._coalesce(works, attempt.failed) if coalesced else attempt.failed
        with timed(self._metrics, PipelineStep.SEARCH):
            watched = self._watched.of(batch)
            lists = self._retrieval.search(batch, encoded, watched, coalesced_away, self._judging.popular)
        with timed(self._metrics, PipelineStep.JUDGE):
            self._judging.score(works, batch, encoded, lists, watched, coalesced_away)
        with timed(self._metrics, PipelineStep.MESSAGES):
            self._writer.write(works, batch, encoded, lists, attempt.failed)
        self._count(lists, coalesced_away)

    def _coalesce(self, works: Sequence[PartitionWork], failed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Leaves each member's last play to be answered that could be encoded; returns the rows without a list, bool[N]."""
        coalesced_away, given_up = np.ones_like(failed), failed.tolist()
        for work in works:
            answers = [a for a in work.pending if isinstance(a, PendingAnswer) and not given_up[a.row]]
            work.result.counts.add(self._metrics.coalesced_plays, amount=coalesce(answers))
            coalesced_away[[a.row for a in answers if not a.is_coalesced]] = False
        return coalesced_away

    def _count(self, lists: RankedItems, coalesced_away: NDArray[np.bool_]) -> None:
        self._metrics.fallbacks.inc(int(lists.popular.sum()))
        last = self._config.num_recommendations - 1
        self._metrics.short_lists.inc(int(((lists.rows[:, last] < 0) & ~coalesced_away).sum()))


@contextmanager
def timed(metrics: Metrics, stage: PipelineStep) -> Iterator[None]:
    """Observes how long a stage of a micro-batch takes, in seconds."""
    started_s = time.perf_counter()
    yield
    metrics.stage_seconds.labels(stage).observe(time.perf_counter() - started_s)
