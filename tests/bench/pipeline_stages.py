"""Cost of a play in the pipeline by stage, from bytes to bytes, in a process without a broker.

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

from intentrec_core.history.history import EventLayout, History
from stream.bundles.serving import load_serving
from stream.ops.metrics import PipelineStep
from stream.pipeline.pipeline import Pipeline
from stream.wire.codec import NO_LATENCY
from stream.wire.records import OutputKind, PartitionResult
from stream.wire.routing import home_partition
from tests.bench.worker_plays import history, plays, user_id
from tests.bench.worker_world import POOL_BYTES
from tests.worlds.bundle_world import Record, make_pipeline

STAGES = (PipelineStep.FOLD, PipelineStep.ENCODE, PipelineStep.SEARCH, PipelineStep.JUDGE, PipelineStep.MESSAGES)
#: A worker's default of plays in a micro-batch.
BATCH = 256
#: Of the worker's rows, and the most plays that one poll of its consumer takes.
NUM_PARTITIONS, POLL = 4, 2048
#: As a worker's producers stamp them: after every event time here.
_NOW_MS = 1_800_000_000_000


def warm_pipeline(bundle: Path, num_active: int, pool_bytes: int) -> tuple[Pipeline, Iterator[list[Record]]]:
    """A pipeline whose members have full contexts, each of them cached, and the micro-batches that come next."""
    pipeline = make_pipeline(load_serving(bundle, device="cpu", pool_bytes=pool_bytes), num_partitions=NUM_PARTITIONS)
    layout = EventLayout(pipeline.serving.domain)
    histories: list[dict[str, History]] = [{} for _ in range(NUM_PARTITIONS)]
    for number in range(num_active):
        user = user_id(number)
        histories[home_partition(user.encode(), NUM_PARTITIONS)][user] = history(layout, number)
    for partition, held in enumerate(histories):
        pipeline.open_partition(partition, held)
    batches = _batches(num_active)
    while pipeline.serving.engine.num_cached < num_active:
        _process(pipeline, batches)
    return pipeline, batches


def measure_stages(pipeline: Pipeline, batches: Iterator[list[Record]], waves: int) -> dict[str, float]:
    """Seconds a play in each stage, over ``waves`` micro-batches."""
    before = {stage: _seconds(pipeline, stage) for stage in STAGES}
    for _ in range(waves):
        _process(pipeline, batches)
    num = waves * BATCH
    return {stage.value: (_seconds(pipeline, stage) - before[stage]) / num for stage in STAGES}


def answers(pipeline: Pipeline, batches: Iterator[list[Record]]) -> dict[OutputKind, bytes]:
    """A recommendation and an intent as they are published, up to before their latency: what real answers look like."""
    outputs = _process(pipeline, batches).outputs
    return {output.kind: output.value.removesuffix(NO_LATENCY) for output in outputs}


def _process(pipeline: Pipeline, batches: Iterator[list[Record]]) -> PartitionResult:
    batch = next(batches)
    (result,) = pipeline.process({batch[0].partition: batch})
    return result


def _batches(num_active: int) -> Iterator[list[Record]]:
    """Micro-batches as a worker with a backlog gets them: of one partition for as long as a poll lasts, then of the next."""
    waiting: list[list[Record]] = [[] for _ in range(NUM_PARTITIONS)]
    first = 0
    while True:
        for number, (key, value) in enumerate(
            plays(NUM_PARTITIONS * POLL, num_active=num_active, first=first), 1 + first
        ):
            home = home_partition(key, NUM_PARTITIONS)
            # Offset 0 is in the histories already; a partition's offsets may have gaps.
            waiting[home].append(Record(number, value, key, home, timestamp=_NOW_MS))
        first += NUM_PARTITIONS * POLL
        for records in waiting:
            while len(records) >= BATCH:
                yield records[:BATCH]
                del records[:BATCH]


def _seconds(pipeline: Pipeline, stage: PipelineStep) -> float:
    return pipeline.metrics.registry.get_sample_value("intentrec_stage_seconds_sum", {"stage": stage}) or 0.0


def main() -> None:
    """See the module."""
    bundle, num_active, waves = sys.argv[1:]
    pipeline, batches = warm_pipeline(Path(bundle), int(num_active), POOL_BYTES)
    print(json.dumps(measure_stages(pipeline, batches, int(waves))))


if __name__ == "__main__":
    main()
