"""Folds a partition's plays again from the beginning of the log, and compares with what the changelog holds, byte for byte.

    changelog, as of one moment ──▶ histories, marker: "the fold of everything before this offset"
    plays, from the beginning of the log up to that offset ──▶ a fold of our own ──▶ the same, or what differs

Where retention has deleted the beginning, members who began before it cannot be folded again. Of those it is not claimed that
they are right, only whether they are wrong for certain: the plays that the log still has must be in them. Members whose plays
are all still there are compared as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from intentrec_core.errors import StateError
from intentrec_core.history.history import EventLayout, History
from stream.kafka.topic_reader import TopicReader
from stream.pipeline.folding import Folder
from stream.repair.state_view import snapshot


@dataclass(kw_only=True)
class Verified:
    """What came of one partition.

    ``num_same`` members are exactly as folded again; of ``num_unknown`` the beginning is deleted, and what is left does
    not contradict them; ``differences`` are by member, in words. ``first_offset`` is the first the log still holds,
    ``next_offset`` the marker's.
    """

    partition: int
    first_offset: int
    next_offset: int
    num_plays: int = 0
    num_same: int = 0
    num_unknown: int = 0
    differences: dict[str, str] = field(default_factory=dict)


async def verify(
    reader: TopicReader, layout: EventLayout, partition: int, report: Callable[[str, int, int], None]
) -> Verified:
    """Verifies one partition, workers running or not. ``report`` is told what is done, how many offsets of how many.

    Raises: StateError when the changelog cannot be restored at all, or reaches behind the end of the plays; BrokerError.
    Cost: a pass over the partition's plays, some 20 µs a play; its histories in memory, twice.
    """
    settings = reader.settings
    held = await snapshot(reader, layout, partition)
    first, end = await reader.bounds(settings.plays_topic, partition)
    if held.marker is None:
        if held.histories:
            raise StateError(f"partition {partition}: the changelog holds {len(held.histories)} members but no marker")
        return Verified(partition=partition, first_offset=first, next_offset=first)
    next_offset, placed = held.marker.next_offset, held.marker.num_partitions
    if reader.exact_ends and next_offset > end:
        raise StateError(
            f"partition {partition}: the state reaches offset {next_offset} but {settings.plays_topic} ends at {end}: "
            "the topic was created anew"
        )
    done = Verified(partition=partition, first_offset=first, next_offset=next_offset)
    folded: dict[str, History] = {}
    what = f"folding partition {partition}"
    report(what, 0, max(0, next_offset - first))
    async for records in reader.read(settings.plays_topic, partition, end=next_offset):
        Folder(layout, placed if settings.plays_partitioner == "murmur2" else None).fold(partition, folded, records)
        done.num_plays += len(records)
        report(what, records[-1].offset + 1 - first, max(0, next_offset - first))
    compare(done, layout, held.histories, folded)
    return done


def compare(done: Verified, layout: EventLayout, held: dict[str, History], folded: dict[str, History]) -> None:
    """Counts members into ``done``: the same, not to be told, or different and how."""
    for user_id in sorted(held.keys() | folded.keys()):
        mine, again = held.get(user_id), folded.get(user_id)
        if mine == again:
            done.num_same += 1
        elif mine is not None and done.first_offset and _began_before(layout, mine, again, done.first_offset):
            done.num_unknown += 1
        else:
            done.differences[user_id] = difference(layout, mine, again)


def _began_before(layout: EventLayout, mine: History, again: History | None, first_offset: int) -> bool:
    """Whether plays that are deleted explain what differs: nothing that is left says what was there.

    They add plays, so a member with fewer than the log has lost some; and they hide none of those that the log still has.
    """
    if again is None:
        return mine.last_offset < first_offset
    if mine.count < again.count or _num_missing(layout, mine, again):
        return False
    return mine.count > again.count or mine.last_offset < first_offset


def _num_missing(layout: EventLayout, mine: History, again: History) -> int:
    """Of the plays folded again, how many are not in a history although neither lateness nor eviction can have cost them."""
    held, expected = mine.view(layout), again.view(layout)
    if mine.anchor(layout):  # what is older than the oldest play held has left, or came too late
        expected = expected[expected["ts_ms"] > held["ts_ms"][0]]
    return int(np.count_nonzero(~np.isin(expected["event_hash"], held["event_hash"])))


def difference(layout: EventLayout, mine: History | None, again: History | None) -> str:
    """What differs between a history in the changelog and the same one folded again, most telling first."""
    if mine is None:
        assert again is not None
        return f"is not in the changelog, has {again.count} plays in the log"
    if again is None:
        return f"is in the changelog with {mine.count} plays, has none in the log"
    if mine.count != again.count:
        missing = f"; {num} of these are missing" if (num := _num_missing(layout, mine, again)) else ""
        return f"{mine.count} plays were applied, folded again it is {again.count}{missing}"
    held, expected = mine.view(layout), again.view(layout)
    if len(held) != len(expected):
        return f"holds {len(held)} plays, folded again it is {len(expected)}"
    for name in layout.dtype.names or ():
        # Bytes, because a missing number is NaN, which differs from itself.
        same = [a.tobytes() == b.tobytes() for a, b in zip(held[name], expected[name], strict=True)]
        if not all(same):
            place = int(np.argmin(same))
            return (
                f"{name} of play {mine.anchor(layout) + place} of {mine.count} is {held[name][place]}, folded again it is "
                f"{expected[name][place]}; {same.count(False)} of {len(same)} plays held differ in it"
            )
    if mine.last_offset != again.last_offset:
        return f"the last offset is {mine.last_offset}, folded again it is {again.last_offset}"
    if mine.carried_session_ms != again.carried_session_ms:
        return (
            f"its oldest session began at {mine.carried_session_ms} ms, folded again at {again.carried_session_ms} ms"
        )
    return "the watched items from before the plays held differ"
