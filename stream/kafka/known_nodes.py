"""Lets aiokafka clients wait for a broker that has just started and lists no node yet.

aiokafka asserts that a client knows a node when it looks for a coordinator. For a moment after a restart of the broker it knows
none. The AssertionError would end a consumer's membership of its group for good, or fail a partition with "Did we not perform
bootstrap?". With this module the look-up fails like one that the broker cannot answer yet, which aiokafka retries.
"""

from __future__ import annotations

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

_look_up = AIOKafkaClient.coordinator_lookup


async def _look_up_once_known(client: AIOKafkaClient, kind: Any, key: str) -> Any:
    if client.get_random_node() is None:
        raise GroupCoordinatorNotAvailableError
    return await _look_up(client, kind, key)


def wait_for_nodes() -> None:
    """Lets every client of this process wait. Idempotent."""
    AIOKafkaClient.coordinator_lookup = _look_up_once_known
