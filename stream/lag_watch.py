"""Compares what is fetched with what the log holds: nothing else notices a consumer that is stuck."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from stream.partition import SourceConsumer
    from stream.worker import PlaysWorker

logger = logging.getLogger(__name__)


async def watch_lag(worker: PlaysWorker, source: SourceConsumer, interval_s: float) -> None:
    """Looks every ``interval_s``, forever: a fetcher that stands still behind the log's end is no progress; lag is a metric.

    Of a partition that nobody serves the lag is the last one known, and nothing gets better while it is not even being opened.
    """
    before: dict[int, int] = {}
    lags: dict[int, int] = {}
    while True:
        await asyncio.sleep(interval_s)
        fetched = set(worker.fetchable())
        try:
            async with asyncio.timeout(interval_s):
                found = await source.source_positions(fetched) if fetched else {}
        except (TimeoutError, KafkaError) as error:
            logger.warning("the end of the plays topic cannot be read: %r", error)
            worker.progress.saw_lag(behind=True)
            continue
        worker.progress.saw_lag(
            behind=bool(worker.unopened())
            or any(position < end and before.get(p) == position for p, (position, end) in found.items())
        )
        before = {partition: position for partition, (position, _) in found.items()}
        served = {p: life.committed_offset for p, life in worker.fetchable().items() if p in found}
        lags |= {p: max(0, found[p][1] - offset) for p, offset in served.items()}
        lags = {p: lag for p, lag in lags.items() if p in worker.assigned}
        worker.overload.saw_lag(sum(lags.values()))
        worker.figures.lag(sum(lags.values()))
