"""The worker: loads a bundle, builds the pipeline on it, follows model updates, and ends on a signal.

SIGTERM, SIGINT     drain and return 0
drain hangs         if a micro-batch hangs, the process exits at the drain deadline; uncommitted plays are replayed, none are lost
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from stream.bundles.hot_swap import HotSwap
from stream.kafka.broker_checks import uses_transactions
from stream.ops.metrics import Metrics
from stream.pipeline.pipeline import Pipeline, PipelineConfig
from stream.worker_process import EXIT_NOT_DRAINED, WorkerParts, WorkerProcess, run_until_signal

if TYPE_CHECKING:
    from stream.delivery.worker import PlaysWorker
    from stream.settings import Settings

#: run_until_signal and uses_transactions are defined elsewhere; every caller that runs a worker needs them too.
__all__ = ["EXIT_NOT_DRAINED", "run_until_signal", "run_worker", "uses_transactions"]


def run_worker(settings: Settings) -> int:
    """Runs a worker process until a signal ends it. Blocking; installs signal handlers. Returns 0.

    Raises: IntentRecError; the process should end with its exit code.
    """

    async def work() -> None:
        metrics = Metrics()

        @contextlib.asynccontextmanager
        async def make_parts(num_partitions: int) -> AsyncIterator[WorkerParts]:
            async with HotSwap(settings, metrics) as hot_swap:
                yield await _serving_parts(settings, metrics, hot_swap, num_partitions)

        await run_until_signal(WorkerProcess(settings, metrics, make_parts))

    asyncio.run(work())
    return 0


async def _serving_parts(settings: Settings, metrics: Metrics, hot_swap: HotSwap, num_partitions: int) -> WorkerParts:
    serving = await hot_swap.first()
    config = PipelineConfig(
        num_partitions=num_partitions,
        plays_partitioner=settings.plays_partitioner,
        num_recommendations=settings.num_recommendations,
        beta=settings.beta,
        max_prefill_positions=settings.max_prefill_positions,
        changelog_schema=settings.changelog_schema,
    )
    # The pipeline is built here; from the first partition on, only the inference thread uses it.
    pipeline = Pipeline(serving, config, metrics)
    # Modules, compiled functions and the bundle stay alive: a full collection would stop all threads for 140 ms for nothing.
    gc.collect()
    gc.freeze()

    async def follow_updates(worker: PlaysWorker) -> None:
        await hot_swap.run(pipeline, worker.on_inference_thread)

    return WorkerParts(
        pipeline=pipeline,
        layout=pipeline.layout,
        fingerprint=serving.domain.fingerprint,
        background=follow_updates,
    )
