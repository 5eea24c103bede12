"""Compares what is fetched with what the log holds: nothing else notices a consumer that is stuck."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream.kafka.closing import close_consumer
from stream.kafka.reader import reader

if TYPE_CHECKING:
    from stream.delivery.partition import SourceConsumer
    from stream.delivery.worker import PlaysWorker
    from stream.settings import Settings

logger = logging.getLogger(__name__)

#: An overload is known, and one that has passed forgotten, within this time. It costs the broker one request.
_INTERVAL_S = 1.0
_LOOK_DEADLINE_S = 5.0
#: A look that fails, and the question whether the broker is there, have to be through well before the deadline.
_LOOKS_A_DEADLINE = 5


def look_deadline_s(settings: Settings) -> float:
    """How long a look may take."""
    return min(_LOOK_DEADLINE_S, settings.progress_deadline_s / _LOOKS_A_DEADLINE)


async def watch_lag(
    worker: PlaysWorker,
    source: SourceConsumer,
    deadline_s: float,
    tells_others: Callable[[set[int]], Awaitable[bool]],
) -> None:
    """Looks again and again, each time for ``deadline_s`` at most: a partition that stands still behind the log's end is no
    progress; lag is a metric.

    Of a partition that nobody serves the lag is the last one known, and nothing gets better while it is not even being opened.
    What gets nowhere while the broker ``tells_others`` nothing either is no hanging worker, and no restart would help.
    """
    before: dict[int, int] = {}
    lags: dict[int, int] = {}
    while True:
        await asyncio.sleep(min(_INTERVAL_S, deadline_s))
        fetched, unopened = set(worker.fetchable()), worker.unopened()
        found: dict[int, tuple[int, int]] | None = {}
        try:
            async with asyncio.timeout(deadline_s):
                found = await source.source_positions(fetched) if fetched else {}
        except (TimeoutError, KafkaError) as error:
            logger.warning("the end of the plays topic cannot be read: %r", error)
            found = None
        if (found is None or unopened) and not await tells_others(fetched | unopened):
            worker.progress.broker_away()
            continue
        if found is None:
            worker.progress.saw_lag(fetched | unopened)
            continue
        standing = {p for p, (position, end) in found.items() if position < end and before.get(p) == position}
        if not worker.had_capacity():
            # Nothing is fetched on purpose, and a partition may wait for its turn; what takes the room up has a clock of its own.
            standing = set()
        worker.progress.saw_lag(standing | unopened)
        before = {partition: position for partition, (position, _) in found.items()}
        served = {p: task.committed_offset for p, task in worker.fetchable().items() if p in found}
        lags |= {p: max(0, found[p][1] - offset) for p, offset in served.items()}
        lags = {p: lag for p, lag in lags.items() if p in worker.assigned}
        worker.overload.saw_lag(sum(lags.values()))
        worker.metrics.lag(sum(lags.values()))


async def tells_where_plays_end(settings: Settings, timeout_s: float, partitions: set[int]) -> bool:
    """Whether a client that comes anew is told where partitions of the plays end."""
    consumer = reader(settings, "probe")
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            await consumer.end_offsets([TopicPartition(settings.plays_topic, number) for number in partitions])
    except (TimeoutError, KafkaError):
        return False
    finally:
        await close_consumer(consumer)
    return True
