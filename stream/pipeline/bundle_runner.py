"""Runs one bundle: encodes with it on the inference thread, and answers with it on the responder thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream.ops.metrics import Metrics, PipelineStep
from stream.pipeline.batch_rows import compile_layout, lay_out
from stream.pipeline.engine_counts import EngineCounts
from stream.pipeline.isolation import IsolatingEncoder
from stream.pipeline.responder import EncodedSlice, Responder
from stream.pipeline.step_timer import timed

if TYPE_CHECKING:
    from intentrec_core.engine.member_key import MemberKey
    from intentrec_core.history.history import EventLayout
    from stream.bundles.serving import Serving
    from stream.pipeline.bundle_counts import BundleCounts
    from stream.pipeline.config import PipelineConfig
    from stream.pipeline.folding import FoldedBatch
    from stream.pipeline.shown_items import ShownItems


class BundleRunner:
    """Owned by the inference thread, except for ``responder``.

    ``items``: what it shows; another object after each change of the catalogue. ``counts``: the newest table of counts, None
    before the first. ``before``: the runner whose members migrate to this one.

    Raises: whatever is wrong with the bundle, before anything has changed.
    """

    def __init__(
        self,
        serving: Serving,
        config: PipelineConfig,
        layout: EventLayout,
        metrics: Metrics,
        items: ShownItems,
        before: BundleRunner | None = None,
        counts: BundleCounts | None = None,
    ) -> None:
        self.items, self.counts = items, counts
        self.serving, self.engine = serving, serving.engine
        self.responder: Responder = Responder(
            serving, config, layout, metrics, None if before is None else before.responder
        )
        self._layout, self._metrics = layout, metrics
        self._encoder = IsolatingEncoder(serving.engine, layout, config.max_tries)
        self._counted = EngineCounts.of(serving)
        compile_layout(serving.features)

    def forget(self, member: MemberKey) -> None:
        """Drops what encoding keeps of a member. The responder's part travels with the next :class:`EncodedBatch`."""
        self._encoder.forget(member)

    def encode(self, batch: FoldedBatch) -> EncodedSlice:
        """Encodes the context runs of a micro-batch.

        Raises: as :meth:`stream.pipeline.isolation.IsolatingEncoder.encode`.
        """
        with timed(self._metrics, PipelineStep.ENCODE):
            rows = lay_out(batch.waves, self._layout, self.serving.vocabulary)
            result = self._encoder.encode(batch.waves, rows.first_row)
        now = EngineCounts.of(self.serving)
        now.count(self._metrics, since=self._counted)
        self._counted = now
        return EncodedSlice(batch, rows, result, self.responder, self.items, self.counts)

    def leave_uncounted(self) -> None:
        """Leaves out of the metrics what the engine has done since the last micro-batch, because it was not for a play."""
        self._counted = EngineCounts.of(self.serving)
