"""The catalogue of a training run when the items topic holds it: the file is copied to the topic, and the run reads the topic.

    catalogue file ─ sync ─▶ items topic ─ everything ─▶ a file for the run, items put by hand and withdrawals included

A file that is not believed stops neither: the run trains with what the topic has.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from intentrec_core.durable_files import replacing
from intentrec_core.errors import DataError, IntentRecError
from intentrec_core.features.catalogue import Item
from stream.kafka.items_reader import ItemsReader
from stream.kafka.items_writer import sync_items
from stream.ops.metrics import SyncOutcome
from stream.wire.catalogue_record import as_shown

if TYPE_CHECKING:
    from stream.ops.metrics import Metrics
    from stream.settings import Settings

logger = logging.getLogger(__name__)

#: In the folder of caches; replaced before each run.
FILE_NAME = "catalogue-of-topic.jsonl"


async def export_catalogue(settings: Settings, metrics: Metrics) -> Path:
    """Copies the catalogue file, if one is set, to the topic; then the topic to a file, whose path is returned.

    Raises: BrokerError when the broker fails; OSError when the disk refuses.
    """
    if settings.catalogue is not None:
        await _sync(settings, settings.catalogue, metrics)
    async with ItemsReader(settings) as topic:
        records = await topic.everything()
    items = [item for record in records.values() if (item := as_shown(record)) is not None]
    path = settings.cache_dir / FILE_NAME
    await asyncio.to_thread(_write, path, items)
    return path


async def _sync(settings: Settings, file: Path, metrics: Metrics) -> None:
    try:
        plan = await sync_items(settings, file)
    except DataError as error:
        metrics.catalogue_syncs.labels(SyncOutcome.REFUSED).inc()
        logger.error("the items topic was left as it is: %s", error)
    except IntentRecError:
        metrics.catalogue_syncs.labels(SyncOutcome.FAILED).inc()
        raise
    else:
        metrics.catalogue_syncs.labels(SyncOutcome.SYNCED).inc()
        for found in plan.left_out:
            logger.warning("%s: %s", file, found.line())
        logger.info("%s: %s", file, plan.line())


def _write(path: Path, items: Iterable[Item]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        for item in items:
            row = {**item.attributes, "item_id": item.item_id, "title": item.title}
            file.write(json.dumps(row).encode() + b"\n")
