"""Closes the first connection of an aiokafka client whose start is cancelled or fails.

While a client starts, it asks one broker for the nodes of the cluster. aiokafka has that connection in a local variable alone.
So where a client is cancelled meanwhile, neither its ``stop()`` nor its ``close()`` finds it. It stays open until Python happens
to collect it, perhaps long after the event loop has ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection

_bootstrap, _connect = AIOKafkaClient.bootstrap, AIOKafkaConnection.connect
#: Connections of each task that starts a client just now.
_starting: dict[asyncio.Task[Any], list[AIOKafkaConnection]] = {}


async def _connect_and_note(connection: AIOKafkaConnection) -> Any:
    streams = await _connect(connection)
    task = asyncio.current_task()
    if task in _starting:
        _starting[task].append(connection)
    return streams


async def _bootstrap_or_close(client: AIOKafkaClient) -> None:
    task = asyncio.current_task()
    assert task is not None  # this is a coroutine
    made = _starting[task] = []
    try:
        await _bootstrap(client)
    except BaseException:  # a cancellation too
        for connection in made:
            connection.close()
        raise
    finally:
        del _starting[task]


def close_cancelled_starts() -> None:
    """Lets every client of this process close what it opened. Idempotent."""
    AIOKafkaClient.bootstrap, AIOKafkaConnection.connect = _bootstrap_or_close, _connect_and_note
