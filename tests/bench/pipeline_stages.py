"""What a play costs in the pipeline by stage, from bytes to bytes, in a process of its own and with no broker.

    python -m tests.bench.pipeline_stages BUNDLE MEMBERS ROUNDS

Stage times are the pipeline's own, in wall time of the inference thread; threads of torch and of everything else as the
environment says, as for a worker. Encode is the engine with its heads, and search the retrieval: of these and of the
pass-through the worker's bound is made. The last line of stdout is JSON: seconds a play by stage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from intentrec_core.history import EventLayout
from stream.metrics import Stage
from stream.pipeline import Pipeline
from stream.records import OutputKind
from stream.serving import load_serving
from tests.bench.worker_plays import history, plays, user_id
from tests.bench.worker_world import POOL_BYTES
from tests.bundle_world import Record, make_pipeline

STAGES = (Stage.FOLD, Stage.ENCODE, Stage.SEARCH, Stage.JUDGE, Stage.MESSAGES)
#: A worker's default of plays in a micro-batch.
BATCH = 256
#: As a worker's producers stamp them: after every event time here.
_NOW_MS = 1_800_000_000_000


def warm_pipeline(bundle: Path, num_active: int, pool_bytes: int) -> tuple[Pipeline, Iterator[list[Record]]]:
    """A pipeline whose members have full contexts, each of them cached, and the micro-batches that come next."""
    pipeline = make_pipeline(load_serving(bundle, device="cpu", pool_bytes=pool_bytes))
    layout = EventLayout(pipeline.serving.domain)
    pipeline.open_partition(0, {user_id(number): history(layout, number) for number in range(num_active)})
    batches = _batches(num_active)
    while pipeline.serving.engine.num_cached < num_active:
        pipeline.process({0: next(batches)})
    return pipeline, batches


def measure_stages(pipeline: Pipeline, batches: Iterator[list[Record]], rounds: int) -> dict[str, float]:
    """Seconds a play in each stage, over ``rounds`` micro-batches."""
    before = {stage: _seconds(pipeline, stage) for stage in STAGES}
    for _ in range(rounds):
        pipeline.process({0: next(batches)})
    num = rounds * BATCH
    return {stage.value: (_seconds(pipeline, stage) - before[stage]) / num for stage in STAGES}


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


def main() -> None:
    """See the module."""
    bundle, num_active, rounds = sys.argv[1:]
    pipeline, batches = warm_pipeline(Path(bundle), int(num_active), POOL_BYTES)
    print(json.dumps(measure_stages(pipeline, batches, int(rounds))))


if __name__ == "__main__":
    main()
