"""Compares the fetched offsets with the log ends: measures the lag, and detects a stuck consumer, which reports no error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from stream.delivery.partition import SourceConsumer
    from stream.delivery.worker import PlaysWorker

logger = logging.getLogger(__name__)

#: An overload is noticed, and its end too, within this time. A look costs the broker one request.
_INTERVAL_S = 1.0


async def watch_lag(
    worker: PlaysWorker,
    source: SourceConsumer,
    deadline_s: float,
    broker_answers: Callable[[set[int]], Awaitable[bool]],
) -> None:
    """Compares offsets about once a second, each time within ``deadline_s``: reports the lag, and partitions without progress.

    A partition makes no progress if it has unfetched plays and its position does not move, or if it is assigned and not being
    opened. The lag of a partition that is not served is the last one known. A worker without partitions looks too, so that it
    notices when the broker is away.

    ``broker_answers``: whether a fresh client can read the end offsets of partitions. If it cannot either, the broker is down:
    that is not reported as a stuck worker, because a restart would not help.
    """
    before: dict[int, int] = {}
    lags: dict[int, int] = {}
    while True:
        await asyncio.sleep(min(_INTERVAL_S, deadline_s))
        fetched, unopened = set(worker.fetchable()), worker.unopened()
        found: dict[int, tuple[int, int]] | None = {}
        try:
            async with asyncio.timeout(deadline_s):
                found = await source.source_positions(fetched) if worker.joined else {}
        except (TimeoutError, KafkaError) as error:
            logger.warning("the end offsets of the plays topic cannot be read: %r", error)
            found = None
        if (found is None or unopened) and not await broker_answers(fetched | unopened):
            worker.progress.broker_away()
            worker.saw_broker(answers=False)
            continue
        worker.saw_broker(answers=found is not None)
        if found is None:
            worker.progress.saw_lag(fetched | unopened)
            continue
        standing = {p for p, (position, end) in found.items() if position < end and before.get(p) == position}
        if not worker.had_capacity():
            # Fetching was paused, so a partition may just be waiting its turn. The plays that use up the capacity have a
            # deadline of their own.
            standing = set()
        worker.progress.saw_lag(standing | unopened)
        before = {partition: position for partition, (position, _) in found.items()}
        lags |= {p: worker.lag_plays(task, found[p][1]) for p, task in worker.fetchable().items() if p in found}
        lags = {p: lag for p, lag in lags.items() if p in worker.assigned}
        worker.overload.saw_lag(sum(lags.values()))
        worker.metrics.lag(sum(lags.values()))
