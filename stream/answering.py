"""From encoded contexts to outputs: the pipeline's second half, which has a thread of its own.

    what plays were encoded to ─ search ─▶ lists ─ judge ─▶ counts ─ write ─▶ outputs

What the inference thread orders meanwhile, a member forgotten or another bundle, acts between the same two micro-batches as it
does there: what comes out is what one thread would have made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stream.answers import AnswerWriter
from stream.coalescing import coalesce
from stream.folding import Answer, PartitionWork
from stream.judging import Judging
from stream.metrics import Metrics, Stage
from stream.prequential import CUTOFF
from stream.retrieval import Lists, Retrieval
from stream.watched import WatchedCache

if TYPE_CHECKING:
    from intentrec_core.history import EventLayout
    from stream.batch_rows import BatchRows
    from stream.isolation import Attempt
    from stream.pipeline import PipelineConfig
    from stream.serving import Serving

Order = Callable[[], None]


@dataclass(frozen=True, slots=True)
class AnsweringParts:
    """What one bundle answers with."""

    serving: Serving
    watched: WatchedCache
    retrieval: Retrieval
    writer: AnswerWriter


class Answering:
    """One thread, whichever it is, calls :meth:`answer` and :meth:`carry_out`; the inference thread everything else."""

    def __init__(self, serving: Serving, config: PipelineConfig, layout: EventLayout, metrics: Metrics) -> None:
        self._config, self._layout, self._metrics = config, layout, metrics
        self._orders: list[Order] = []
        self._parts = self.prepare(serving)
        self._judging = Judging(serving, metrics)

    def prepare(self, serving: Serving) -> AnsweringParts:
        """Makes what another bundle answers with; whatever is wrong with it is raised here."""
        config = self._config
        return AnsweringParts(
            serving,
            WatchedCache(self._layout, serving.vocabulary, max(serving.engine.num_slots, 1024)),
            Retrieval(serving, k=max(CUTOFF, config.num_recommendations), beta=config.beta),
            AnswerWriter(serving, k=config.num_recommendations, max_tries=config.max_tries),
        )

    def swap(self, parts: AnsweringParts) -> None:
        """Orders that what is encoded from here on is answered with other parts."""
        self._orders.append(partial(self._swap, parts))

    def forget(self, member: str) -> None:
        """Orders that what is derived from a member's plays is dropped, behind what was encoded before."""
        self._orders.append(partial(self._forget, member))

    def orders(self) -> list[Order]:
        """What has been ordered since this was last asked: to be carried out before anything that is encoded from here on."""
        orders, self._orders = self._orders, []
        return orders

    def carry_out(self, orders: Sequence[Order]) -> None:
        """Orders come in the order in which they were given, as micro-batches do."""
        for order in orders:
            order()

    def answer(
        self,
        works: Sequence[PartitionWork],
        batch: BatchRows,
        attempt: Attempt,
        *,
        coalesced: bool,
    ) -> None:
        """Completes the works' results but for their counts. Micro-batches come in the order in which they were encoded."""
        parts, encoded = self._parts, attempt.encoded
        silent = self._coalesce(works, attempt.failed) if coalesced else attempt.failed
        with timed(self._metrics, Stage.SEARCH):
            watched = parts.watched.of(batch)
            lists = parts.retrieval.search(batch, encoded, watched, silent, self._judging.popular)
        with timed(self._metrics, Stage.JUDGE):
            self._judging.look_at(works, batch, encoded, lists, watched, silent)
        with timed(self._metrics, Stage.MESSAGES):
            parts.writer.write(works, batch, encoded, lists, attempt.failed)
        self._count(lists, silent)

    def _swap(self, parts: AnsweringParts) -> None:
        self._parts = parts
        self._judging.swap(parts.serving)

    def _forget(self, member: str) -> None:
        self._parts.watched.forget(member)
        self._judging.forget(member)

    def _coalesce(self, works: Sequence[PartitionWork], failed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Leaves each member's last play to be answered that could be encoded; returns the rows without a list, bool[N]."""
        silent, given_up = np.ones_like(failed), failed.tolist()
        for work in works:
            answers = [a for a in work.pending if isinstance(a, Answer) and not given_up[a.row]]
            work.result.tally.add(self._metrics.coalesced_plays, amount=coalesce(answers))
            silent[[a.row for a in answers if not a.is_silent]] = False
        return silent

    def _count(self, lists: Lists, silent: NDArray[np.bool_]) -> None:
        self._metrics.fallbacks.inc(int(lists.popular.sum()))
        last = self._config.num_recommendations - 1
        self._metrics.short_lists.inc(int(((lists.rows[:, last] < 0) & ~silent).sum()))


@contextmanager
def timed(metrics: Metrics, stage: Stage) -> Iterator[None]:
    """Observes how long a stage of a micro-batch takes, in seconds."""
    started_s = time.perf_counter()
    yield
    metrics.stage_seconds.labels(stage).observe(time.perf_counter() - started_s)
