"""Verifies state: folds a partition's plays again from the start of the log, and compares the result with the changelog.

    changelog, at one moment ──▶ histories, and a marker: "these are the fold of every play before this offset"
    plays, from the start of the log to that offset ──▶ a new fold ──▶ identical byte for byte, or what differs

If retention has deleted the start of the log, members who played before its first offset cannot be folded again. Their state is
then not proven correct, only tested for certain errors: it must contain every play of theirs that the log still holds. Members
whose plays are all in the log are compared in full.

A history of changelog schema 1 does not know its newest evicted play. It is compared with what that schema keeps of a new fold.
Since it was read, plays at the time of its oldest play may have been set aside, which a new fold applies; a difference says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np

from intentrec_core.errors import StateError
from intentrec_core.history.history import EventLayout, History
from stream.kafka.topic_reader import TopicReader
from stream.pipeline.folding import Folder
from stream.repair.state_view import snapshot


@dataclass(kw_only=True)
class VerifyResult:
    """The result for one partition.

    ``num_same``: members identical to the new fold. ``num_unknown``: members whose first plays were deleted and whose remaining
    plays contradict nothing. ``differences``: by member, a sentence. ``first_offset`` is the first offset that the log still
    holds, ``next_offset`` the marker's.
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
) -> VerifyResult:
    """Verifies one partition; workers may keep running. ``report`` is called with a title, offsets done and offsets in all.

    Raises: StateError if the changelog cannot be restored, or its marker lies past the end of the plays; BrokerError.
    Cost: one pass over the partition's plays, some 20 µs a play; memory for its histories, twice.
    """
    settings = reader.settings
    held = await snapshot(reader, layout, partition)
    first, end = await reader.bounds(settings.plays_topic, partition)
    if held.marker is None:
        if held.histories:
            raise StateError(f"partition {partition}: the changelog holds {len(held.histories)} members but no marker")
        return VerifyResult(partition=partition, first_offset=first, next_offset=first)
    next_offset, placed = held.marker.next_offset, held.marker.num_partitions
    if reader.exact_ends and next_offset > end:
        raise StateError(
            f"partition {partition}: the state reaches offset {next_offset} but {settings.plays_topic} ends at {end}: "
            "the topic was created anew"
        )
    done = VerifyResult(partition=partition, first_offset=first, next_offset=next_offset)
    folded: dict[str, History] = {}
    what = f"folding partition {partition}"
    report(what, 0, max(0, next_offset - first))
    async for records in reader.read(settings.plays_topic, partition, end=next_offset):
        Folder(layout, placed if settings.plays_partitioner == "murmur2" else None).fold(partition, folded, records)
        done.num_plays += len(records)
        report(what, records[-1].offset + 1 - first, max(0, next_offset - first))
    compare(done, layout, held.histories, folded)
    return done


def compare(done: VerifyResult, layout: EventLayout, held: dict[str, History], folded: dict[str, History]) -> None:
    """Adds every member to ``done``: identical, unknown, or different with a description."""
    for user_id in sorted(held.keys() | folded.keys()):
        stored, refolded = held.get(user_id), folded.get(user_id)
        if stored is not None and refolded is not None and stored.newest_evicted == layout.unknown_events:
            refolded = _as_schema_1_keeps_it(layout, refolded)
        if stored == refolded:
            done.num_same += 1
        elif stored is not None and done.first_offset and _began_before(layout, stored, refolded, done.first_offset):
            done.num_unknown += 1
        else:
            done.differences[user_id] = difference(layout, stored, refolded)


def _as_schema_1_keeps_it(layout: EventLayout, history: History) -> History:
    return msgspec.structs.replace(
        history,
        evicted_session_ms=history.oldest_session_ms(layout),
        newest_evicted_ms=layout.ts_ms(history.events, 0),
        newest_evicted=layout.unknown_events,
    )


def _began_before(layout: EventLayout, stored: History, refolded: History | None, first_offset: int) -> bool:
    """Whether deleted plays can explain the difference.

    Deleted plays only add to a history: a member with fewer plays than the log has lost some, and every play that the log still
    holds must be in the history.
    """
    if refolded is None:
        return stored.last_offset < first_offset
    if stored.count < refolded.count or _num_missing(layout, stored, refolded):
        return False
    return stored.count > refolded.count or stored.last_offset < first_offset


def _num_missing(layout: EventLayout, stored: History, refolded: History) -> int:
    """How many plays of the new fold are missing from a history, although neither lateness nor eviction can explain it."""
    held, expected = stored.view(layout), refolded.view(layout)
    # Plays that are not newer than the newest evicted one were evicted too, or arrived too late.
    expected = expected[expected["ts_ms"] > stored.newest_evicted_ms]
    return int(np.count_nonzero(~np.isin(expected["event_hash"], held["event_hash"])))


def _num_tied(layout: EventLayout, stored: History, refolded: History) -> int:
    """How many plays of the new fold are at the time of the oldest play of a history, which does not hold them."""
    held, again = stored.view(layout), refolded.view(layout)
    tied = again[again["ts_ms"] == held["ts_ms"][0]]
    return int(np.count_nonzero(~np.isin(tied["event_hash"], held["event_hash"])))


def difference(layout: EventLayout, stored: History | None, refolded: History | None) -> str:
    """Describes the most telling difference between a history in the changelog and the same history folded again."""
    if stored is None:
        assert refolded is not None
        return f"has no history in the changelog but {refolded.count} plays in the log"
    if refolded is None:
        return f"has a history of {stored.count} plays in the changelog but no play in the log"
    if stored.count != refolded.count:
        missing = f"; {num} of these are missing" if (num := _num_missing(layout, stored, refolded)) else ""
        if stored.newest_evicted == layout.unknown_events and (num := _num_tied(layout, stored, refolded)):
            missing += (
                f"; {num} are at the time of its oldest play, and a worker sets such plays aside where the history is of "
                "changelog schema 1: the state can be sound"
            )
        return f"{stored.count} plays were applied, folded again it is {refolded.count}{missing}"
    held, expected = stored.view(layout), refolded.view(layout)
    if len(held) != len(expected):
        return f"holds {len(held)} plays, folded again it is {len(expected)}"
    for name in layout.dtype.names or ():
        # Bytes, because a missing number is NaN, which differs from itself.
        same = [a.tobytes() == b.tobytes() for a, b in zip(held[name], expected[name], strict=True)]
        if not all(same):
            place = int(np.argmin(same))
            return (
                f"{name} of play {stored.anchor(layout) + place} of {stored.count} is {held[name][place]}, folded again it is "
                f"{expected[name][place]}; {same.count(False)} of {len(same)} plays held differ in it"
            )
    if stored.last_offset != refolded.last_offset:
        return f"the last offset is {stored.last_offset}, folded again it is {refolded.last_offset}"
    for name, value in (
        ("newest evicted play is of", "newest_evicted_ms"),
        ("newest evicted play's session began at", "evicted_session_ms"),
    ):
        kept, again = getattr(stored, value), getattr(refolded, value)
        if kept != again:
            return f"its {name} {kept} ms, folded again {again} ms"
    if stored.newest_evicted != refolded.newest_evicted:
        return "the event ids of the newest evicted plays differ"
    return "the watched items from before the held plays differ"
