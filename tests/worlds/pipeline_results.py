"""The pipeline's outputs, decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from intentrec_core.engine.reference import recompute
from intentrec_core.history.history import History
from stream.bundles.serving import Serving
from stream.pipeline.pipeline import Pipeline
from stream.wire.codec import decode_intent, decode_recommendation
from stream.wire.messages import IntentUpdate, Recommendation
from stream.wire.records import OutputKind, OutputRecord, PartitionResult
from tests.worlds.bundle_world import Record
from tests.worlds.networks import network_of


def run(pipeline: Pipeline, records: Sequence[Record]) -> PartitionResult:
    (result,) = pipeline.process({0: records})
    result.counts.count()
    return result


def answer_prefill(pipeline: Pipeline) -> list[PartitionResult]:
    """The results of the oldest queued chunk."""
    return pipeline.respond(pipeline.encode_prefill())


def of_kind(result: PartitionResult, kind: OutputKind) -> list[OutputRecord]:
    return [output for output in result.outputs if output.kind is kind]


def lists(result: PartitionResult) -> list[Recommendation]:
    return [decode_recommendation(o.value) for o in of_kind(result, OutputKind.RECOMMENDATION)]


def intents(result: PartitionResult) -> list[IntentUpdate]:
    return [decode_intent(o.value) for o in of_kind(result, OutputKind.INTENT)]


def state(pipeline: Pipeline, user: str) -> History:
    history = pipeline.history(0, user)
    assert history is not None
    return history


def expect_full_recomputation(pipeline: Pipeline, published: IntentUpdate) -> None:
    """What was published of a member's newest play equals the full recomputation by the bundle that serves."""
    events = bytes(state(pipeline, published.user_id).events)
    compare_with_recomputation(pipeline.serving, events, published)


def compare_with_recomputation(serving: Serving, context: bytes, published: IntentUpdate) -> None:
    """Its probabilities are a bundle's full recomputation of a context, to 2e-4: 5 digits are published."""
    full = recompute(network_of(serving.engine), serving.features, [context])
    for m, head in enumerate(serving.domain.heads):
        np.testing.assert_allclose(list(published.intents[head.name].values()), full.heads[m][0], atol=2e-4)
