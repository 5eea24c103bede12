"""Where reading a partition ends, and when it gives up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import TopicPartition

from intentrec_core.errors import BrokerError
from stream.kafka.topic_reader import read_until

SOURCE = TopicPartition("plays", 3)


@dataclass
class Record:
    offset: int


class Consumer:
    """Gives one prepared fetch after another: the offsets of its records, and the position after it."""

    def __init__(self, *fetches: tuple[list[int], int]) -> None:
        self._fetches = list(fetches)
        self._position = 0

    async def getmany(self, source: TopicPartition, **_: Any) -> dict[TopicPartition, list[Record]]:
        offsets, self._position = self._fetches.pop(0) if self._fetches else ([], self._position)
        return {source: [Record(offset) for offset in offsets]} if offsets else {}

    async def position(self, _: TopicPartition) -> int:
        return self._position


def offsets(consumer: Consumer, end: int, **options: Any) -> list[list[int]]:
    async def read() -> list[list[int]]:
        return [
            [record.offset for record in chunk]
            async for chunk in read_until(consumer, SOURCE, end, **options)  # type: ignore[arg-type]  # stands for a consumer
        ]

    return asyncio.run(read())


def test_it_ends_at_the_position_although_the_last_offset_is_a_control_record() -> None:
    assert offsets(Consumer(([0, 1], 2), ([], 4)), 4, exact=True) == [[0, 1]]


def test_records_from_the_end_on_are_left_out() -> None:
    assert offsets(Consumer(([0, 1, 2, 3], 4)), 2, exact=True) == [[0, 1]]


def test_an_end_that_is_a_lower_bound_is_passed_until_nothing_comes() -> None:
    assert offsets(Consumer(([0], 1), ([1, 2], 3), ([], 3)), 1, exact=False) == [[0], [1, 2]]


def test_a_position_that_does_not_move_is_given_up() -> None:
    with pytest.raises(BrokerError, match=r"plays, partition 3: no record from offset 1 .* ends at 5"):
        offsets(Consumer(([0], 1)), 5, exact=True, stalled_s=0.0)
