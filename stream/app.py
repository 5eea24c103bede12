"""The worker: loads a bundle, builds the pipeline on it, follows model updates and the catalogue, and ends on a signal.

SIGTERM, SIGINT     drain and return 0
drain hangs         if a micro-batch hangs, the process exits at the drain deadline; uncommitted plays are replayed, none are lost
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from intentrec_core.device import resolve_device
from stream.bundles.hot_swap import HotSwap
from stream.kafka.item_counts_reader import ItemCountsReader
from stream.kafka.items_reader import ItemsReader
from stream.kafka.topic_limits import check_changelog_limit, read_topic_limits
from stream.kafka.unread_attributes import UnreadAttributes
from stream.ops.metrics import Metrics
from stream.ops.process_end import first_to_end
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.pipeline import Pipeline, PipelineConfig
from stream.pipeline.row_rules import check_row_rules, load_row_rules
from stream.wire.item_counts_record import read_table
from stream.worker_process import WorkerParts, WorkerProcess, run_until_signal

if TYPE_CHECKING:
    from intentrec_core.engine.item_counts import ItemCounts
    from stream.delivery.worker import PlaysWorker
    from stream.settings import Settings
    from stream.wire.sizes import TopicLimits

#: Between two changes of the catalogue, so that those of a moment are applied together.
_GATHER_S = 0.05


def run_worker(settings: Settings) -> int:
    """Runs a worker process until a signal ends it. Blocking; installs signal handlers. Returns 0.

    Raises: IntentRecError; the process should end with its exit code. ConfigError at once for a device that is not there.
    """
    resolve_device(settings.device)

    async def work() -> None:
        metrics = Metrics()

        @contextlib.asynccontextmanager
        async def make_parts(num_partitions: int) -> AsyncIterator[WorkerParts]:
            limits = await read_topic_limits(settings)
            async with contextlib.AsyncExitStack() as stack:
                hot_swap = await stack.enter_async_context(HotSwap(settings, metrics, limits))
                follows = settings.catalogue_source == "topic"
                items = await stack.enter_async_context(ItemsReader(settings)) if follows else None
                counts = await stack.enter_async_context(ItemCountsReader(settings))
                yield await _serving_parts(settings, metrics, hot_swap, items, counts, num_partitions, limits)

        await run_until_signal(WorkerProcess(settings, metrics, make_parts))

    asyncio.run(work())
    return 0


async def _serving_parts(
    settings: Settings,
    metrics: Metrics,
    hot_swap: HotSwap,
    items: ItemsReader | None,
    counts: ItemCountsReader,
    num_partitions: int,
    limits: TopicLimits,
) -> WorkerParts:
    rows = load_row_rules(settings.rows) if settings.rows else ()
    serving = await hot_swap.first()
    check_row_rules(rows, serving.domain, settings.rows)
    unread = UnreadAttributes(settings.items_topic, serving.domain, metrics)
    catalogue = None if items is None else await _whole_catalogue(items, metrics, unread)
    config = PipelineConfig(
        num_partitions=num_partitions,
        plays_partitioner=settings.plays_partitioner,
        num_recommendations=settings.num_recommendations,
        beta=settings.beta,
        max_prefill_positions=settings.max_prefill_positions,
        limits=limits,
        changelog_schema=settings.changelog_schema,
        source=f"/intentrec/{settings.app_id}",
        publish_embedding=settings.publish_embedding,
        publish_reasons=settings.publish_reasons,
        rows=rows,
    )
    # The pipeline is built here; from the first partition on, only the inference thread uses it.
    pipeline = Pipeline(serving, config, metrics, catalogue, await _newest_table(counts, metrics))
    check_changelog_limit(settings, pipeline.layout, limits)
    # Modules, compiled functions and the bundle stay alive: a full collection would stop all threads for 140 ms for nothing.
    gc.collect()
    gc.freeze()

    async def follow_updates(worker: PlaysWorker) -> None:
        following = [
            hot_swap.run(pipeline, worker.on_inference_thread),
            _follow_counts(counts, pipeline, metrics, worker),
        ]
        if items is not None:
            following.append(_follow_items(items, pipeline, metrics, unread, worker))
        await first_to_end(*following)

    return WorkerParts(
        pipeline=pipeline,
        layout=pipeline.layout,
        fingerprint=serving.domain.fingerprint,
        limits=limits,
        background=follow_updates,
    )


async def _whole_catalogue(items: ItemsReader, metrics: Metrics, unread: UnreadAttributes) -> LiveCatalogue:
    """The catalogue as of the end of the topic now."""
    catalogue, changes = LiveCatalogue(), await items.changes()
    metrics.catalogue_unreadable.inc(changes.num_unreadable)
    unread.look(changes)
    catalogue.apply(changes)
    return catalogue


async def _follow_items(
    items: ItemsReader, pipeline: Pipeline, metrics: Metrics, unread: UnreadAttributes, worker: PlaysWorker
) -> None:
    async for changes in items.follow(metrics.read_items):
        metrics.catalogue_unreadable.inc(changes.num_unreadable)
        unread.look(changes)
        await worker.on_inference_thread(pipeline.change_items, changes)
        # What a file writes comes in thousands: gathered for a moment, it costs the inference thread a few copies less.
        await asyncio.sleep(_GATHER_S)


async def _newest_table(counts: ItemCountsReader, metrics: Metrics) -> ItemCounts | None:
    """The newest table of counts as of the end of the topic now; None where there is none."""
    packed = await counts.to_the_end()
    table = None if packed is None else await asyncio.to_thread(read_table, packed)
    _note_table(table, metrics)
    return table


async def _follow_counts(counts: ItemCountsReader, pipeline: Pipeline, metrics: Metrics, worker: PlaysWorker) -> None:
    async for packed in counts.follow():
        table = await asyncio.to_thread(read_table, packed)
        if table is not None:
            looked_up = await asyncio.to_thread(pipeline.look_up_counts, table)
            await worker.on_inference_thread(pipeline.change_counts, table, looked_up)
            _note_table(table, metrics)


def _note_table(table: ItemCounts | None, metrics: Metrics) -> None:
    if table is not None:
        metrics.item_counts_sequence.set(table.sequence)
        metrics.item_counts_written.set(table.written_s)
