"""What a play costs in the pipeline by stage, from bytes to bytes, in this process and with no broker.

Stage times are the pipeline's own, in wall time of the inference thread with torch's threads as a worker has them. Encode is
the engine with its heads, and search the retrieval: of these and of the pass-through the worker's bound is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from intentrec_core.history import EventLayout
from stream.metrics import Stage
from stream.pipeline import Pipeline
from stream.records import OutputKind
from stream.serving import load_serving
from tests.bench.harness import Timing, in_turns
from tests.bench.worker_plays import history, plays, user_id
from tests.bundle_world import Record, make_pipeline

STAGES = (Stage.FOLD, Stage.ENCODE, Stage.SEARCH, Stage.JUDGE, Stage.MESSAGES)
#: A worker's default of plays in a micro-batch.
BATCH = 256
#: As a worker's producers stamp them: after every event time here.
_NOW_MS = 1_800_000_000_000


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Seconds a play in each stage, and of whole micro-batches."""

    stage_s: dict[Stage, float]
    batch: Timing


def warm_pipeline(bundle: Path, num_active: int, pool_bytes: int) -> tuple[Pipeline, Iterator[list[Record]]]:
    """A pipeline whose members have full contexts, each of them cached, and the micro-batches that come next."""
    pipeline = make_pipeline(load_serving(bundle, device="cpu", pool_bytes=pool_bytes))
    layout = EventLayout(pipeline.serving.domain)
    pipeline.open_partition(0, {user_id(number): history(layout, number) for number in range(num_active)})
    batches = _batches(num_active)
    while pipeline.serving.engine.num_cached < num_active:
        pipeline.process({0: next(batches)})
    return pipeline, batches


def measure_stages(pipeline: Pipeline, batches: Iterator[list[Record]], rounds: int) -> StageCosts:
    """Each stage's cost over ``rounds`` micro-batches."""
    before = {stage: _seconds(pipeline, stage) for stage in STAGES}
    timing = in_turns({"batch": lambda: pipeline.process({0: next(batches)})}, rounds=rounds, warm_up=0)["batch"]
    num = rounds * BATCH
    return StageCosts({stage: (_seconds(pipeline, stage) - before[stage]) / num for stage in STAGES}, timing)


def answers(pipeline: Pipeline, batches: Iterator[list[Record]]) -> dict[OutputKind, bytes]:
    """A recommendation and an intent as they are published but for the closing brace: what real answers look like."""
    (result,) = pipeline.process({0: next(batches)})
    return {output.kind: output.value for output in result.outputs}


def _batches(num_active: int) -> Iterator[list[Record]]:
    first = 0
    while True:
        made = plays(BATCH, num_active=num_active, first=first)
        # Offset 0 is in the histories already.
        yield [Record(1 + first + i, value, key, timestamp=_NOW_MS) for i, (key, value) in enumerate(made)]
        first += BATCH


def _seconds(pipeline: Pipeline, stage: Stage) -> float:
    return pipeline.metrics.registry.get_sample_value("intentrec_stage_seconds_sum", {"stage": stage}) or 0.0
