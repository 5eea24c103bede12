"""One bundle's side of the pipeline: what it encodes with, on the inference thread, and answers with, on the other one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from intentrec_core.engine.member_key import MemberKey
from stream.ops.metrics import Metrics, PipelineStep
from stream.pipeline.batch_rows import lay_out
from stream.pipeline.engine_counts import EngineCounts
from stream.pipeline.isolation import IsolatingEncoder
from stream.pipeline.responder import Responder, timed

if TYPE_CHECKING:
    from intentrec_core.history.history import EventLayout
    from stream.bundles.serving import Serving
    from stream.pipeline.folding import ContextRun, PartitionWork
    from stream.pipeline.pipeline import PipelineConfig


class BundleRunner:
    """Owned by the inference thread, but for ``answering``.

    ``before``: of the bundle whose members this one takes over.

    Raises: whatever is wrong with the bundle, before anything has changed.
    """

    def __init__(
        self,
        serving: Serving,
        config: PipelineConfig,
        layout: EventLayout,
        metrics: Metrics,
        before: BundleRunner | None = None,
    ) -> None:
        self.serving, self.engine = serving, serving.engine
        self.answering: Responder = Responder(
            serving, config, layout, metrics, None if before is None else before.answering
        )
        self._layout, self._metrics = layout, metrics
        self._encoder = IsolatingEncoder(serving.engine, layout, config.max_tries)
        self._counted = EngineCounts.of(serving)

    def forget(self, member: MemberKey) -> None:
        """Drops what is cached and suspected of a member; what answers is told by itself."""
        self._encoder.forget(member)

    def begin(
        self, works: Sequence[PartitionWork], waves: Sequence[Sequence[ContextRun]], coalesced: bool
    ) -> Callable[[], None]:
        """Encodes runs; returns what completes the works' results but for their counts.

        Raises: as :meth:`stream.pipeline.isolation.IsolatingEncoder.encode`.
        """
        with timed(self._metrics, PipelineStep.ENCODE):
            batch = lay_out([run for runs in waves for run in runs], self._layout, self.serving.vocabulary)
            attempt = self._encoder.encode(waves)
        now = EngineCounts.of(self.serving)
        now.count(self._metrics, since=self._counted)
        self._counted = now
        return partial(self.answering.answer, works, batch, attempt, coalesced=coalesced)

    def leave_uncounted(self) -> None:
        """What the engine has done up to now was for no play."""
        self._counted = EngineCounts.of(self.serving)
