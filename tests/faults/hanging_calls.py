"""A counting worker that hangs where TEST_HANGS says: in a restore, or in the fetching of plays.

`python -m tests.faults.hanging_calls`. TEST_HANGS is ``restore`` (no record ever comes), ``restore thread`` (rebuilding the
histories never ends, on a thread that cannot be cancelled) or, once the file TEST_SWITCH is there, ``fetch`` (nothing is fetched
any more, as was seen of consumers after a broker's restart; heartbeats go on), ``fetch of partition 0`` (the others go on),
``commit`` (as long as the file is there, no transaction is committed) or ``checkpoint`` (as long as the file is there, no
checkpoint is begun).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from intentrec_core.history.changelog_codec import Restorer
from stream.delivery.partition import PartitionTask
from stream.delivery.transport import BatchConsumerThread
from tests.worlds import counting

_FOREVER_S = 3600.0


async def _never(*_: Any, **__: Any) -> None:
    await asyncio.sleep(_FOREVER_S)


def install(where: str) -> None:
    """Makes the process hang there."""
    if where == "restore":
        patch.object(AIOKafkaConsumer, "getmany", _never).start()
    elif where == "restore thread":
        patch.object(Restorer, "finish", lambda _: time.sleep(_FOREVER_S)).start()
    elif where == "commit":
        commit, blocked = AIOKafkaProducer.commit_transaction, Path(os.environ.pop("TEST_SWITCH"))

        async def commit_later(self: AIOKafkaProducer) -> None:
            while await asyncio.to_thread(blocked.exists):  # noqa: ASYNC110  # another process takes the file away
                await asyncio.sleep(0.1)
            await commit(self)

        patch.object(AIOKafkaProducer, "commit_transaction", commit_later).start()
    elif where == "checkpoint":
        begin, waiting_for = PartitionTask._commit_checkpoint, Path(os.environ.pop("TEST_SWITCH"))

        async def begin_later(self: PartitionTask) -> None:
            while await asyncio.to_thread(waiting_for.exists):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.1)
            await begin(self)

        patch.object(PartitionTask, "_commit_checkpoint", begin_later).start()
    else:
        fetch, switch = BatchConsumerThread._fetch_records, Path(os.environ.pop("TEST_SWITCH"))

        async def stuck(self: Any, consumer: AIOKafkaConsumer, *args: Any, timeout: float = 0, **options: Any) -> Any:
            if await asyncio.to_thread(switch.exists):
                if where == "fetch":
                    await asyncio.sleep(timeout)
                    return {}
                consumer.pause(*(source for source in consumer.assignment() if source.partition == 0))
            return await fetch(self, consumer, *args, timeout=timeout, **options)

        patch.object(BatchConsumerThread, "_fetch_records", stuck).start()


if __name__ == "__main__":
    install(os.environ.pop("TEST_HANGS"))
    sys.exit(counting.main())
