"""A counting worker whose calls to the broker fail: each awaited call, before its effect and after.

`python -m tests.faults.failing_calls`. TEST_FAILURES is how often each call fails in each way; each failure is a line of the log.
It is aiokafka's own methods that fail, so what a failure leaves behind, in this process and on the broker, is real. No partition
fails so often in a row that its worker gives it up, as it should: a failure that is due then waits for the partition's next
checkpoint.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError

from stream.delivery.retries import MAX_FAILURES
from tests.worlds import counting

logger = logging.getLogger("injected")

BEFORE, AFTER = "before", "after"
#: Half of what makes a worker give a partition up: between two of ours something else may fail.
_MAX_IN_A_ROW = MAX_FAILURES // 2


@dataclass(frozen=True)
class Point:
    """One await of the worker: a method of a client whose id holds ``client``. It fails about once in ``every`` calls.

    Calls of the openings are few and each failure makes one more, so they fail at every second; those of the commits are
    many, and fail once in so many that a checkpoint in between succeeds.
    """

    client: str
    owner: type
    method: str
    every: int

    @property
    def name(self) -> str:
        return f"{self.client.strip('-')}.{self.method}"


POINTS = (
    Point("-changelog-", AIOKafkaProducer, "start", 2),
    Point("-recovery-", AIOKafkaConsumer, "start", 2),
    Point("-recovery-", AIOKafkaConsumer, "seek_to_beginning", 2),
    Point("-recovery-", AIOKafkaConsumer, "end_offsets", 2),
    Point("-recovery-", AIOKafkaConsumer, "getmany", 3),
    Point("-worker", AIOKafkaConsumer, "committed", 2),
    Point("-worker", AIOKafkaConsumer, "beginning_offsets", 2),
    Point("-changelog-", AIOKafkaProducer, "begin_transaction", 29),
    Point("-changelog-", AIOKafkaProducer, "send_batch", 31),
    Point("-changelog-", AIOKafkaProducer, "send_offsets_to_transaction", 37),
    Point("-changelog-", AIOKafkaProducer, "commit_transaction", 41),
    Point("-outputs", AIOKafkaProducer, "send_batch", 43),
)


def names(delivery: str) -> Iterator[str]:
    """Every failure there has to be, as the log names it."""
    for point in POINTS:
        if point.client != "-outputs" or delivery == "at_least_once":
            yield from (f"{point.name} failed {when}" for when in (BEFORE, AFTER))


def install(num_failures: int) -> None:
    """Makes aiokafka's methods fail."""
    wrapped: dict[tuple[type, str], list[Point]] = {}
    for point in POINTS:
        wrapped.setdefault((point.owner, point.method), []).append(point)
    in_a_row: Counter[int | None] = Counter()
    for (owner, method), points in wrapped.items():
        setattr(owner, method, _failing(getattr(owner, method), points, num_failures, in_a_row))


def _failing(
    call: Callable[..., Any], points: list[Point], num_failures: int, in_a_row: Counter[int | None]
) -> Callable[..., Any]:
    """``in_a_row``: by source partition, failures since its last cut; under None those that are of many."""
    calls: Counter[Point] = Counter()
    failures: Counter[Point] = Counter()

    @functools.wraps(call)
    async def fails(client: Any, *args: Any, **options: Any) -> Any:
        point = next((point for point in points if point.client in _client_id(client)), None)
        if point is None:
            return await call(client, *args, **options)
        calls[point] += 1
        partition = _source_partition(client, args)
        is_due = failures[point] < 2 * num_failures and calls[point] >= point.every * (failures[point] + 1)
        if not is_due or (partition is not None and in_a_row[partition] >= _MAX_IN_A_ROW):
            result = await call(client, *args, **options)
            if point.method == "commit_transaction":
                del in_a_row[partition]
            return result
        when = AFTER if failures[point] % 2 else BEFORE
        failures[point] += 1
        in_a_row[partition] += 1
        if when == AFTER:
            result = await call(client, *args, **options)
            if point.method == "send_batch":  # the record batch is on the broker, and its answer is lost
                await result
        logger.warning("%s failed %s", point.name, when)
        raise KafkaConnectionError(f"injected: {point.name} failed {when}")

    return fails


def _source_partition(client: Any, args: tuple[Any, ...]) -> int | None:
    """The partition that a call belongs to; None where it belongs to many."""
    owner = re.search(r"-(?:changelog|recovery)-(\d+)$", _client_id(client))
    if owner is not None:
        return int(owner[1])
    match args:
        case (TopicPartition() as source,) | ([TopicPartition() as source],):
            return int(source.partition)
    return None


def _client_id(client: Any) -> str:
    return str((client._client if isinstance(client, AIOKafkaConsumer) else client.client)._client_id)


if __name__ == "__main__":
    install(int(os.environ.pop("TEST_FAILURES")))
    sys.exit(counting.main())
