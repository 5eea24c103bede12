"""Reads state from the changelog while workers run: a partition's histories at one moment, and one history in readable form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from intentrec_core.domain.spec import FieldKind, FilterKind
from intentrec_core.errors import DataError
from intentrec_core.history.changelog_codec import MARKER_KEY, Marker, Restorer, user_of
from intentrec_core.history.history import EventLayout, History
from intentrec_core.times import iso_time
from stream.delivery.restore import unpack
from stream.kafka.topic_reader import TopicReader
from stream.wire.routing import home_partition

if TYPE_CHECKING:
    from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """The contents of a changelog partition. ``marker`` is None if nothing was ever committed."""

    histories: dict[str, History]
    marker: Marker | None


async def snapshot(
    reader: TopicReader, layout: EventLayout, partition: int, user_id: str | None = None
) -> StateSnapshot:
    """Restores a partition, or one member of it.

    Raises: StateError if its records contradict each other or belong to another schema or domain; BrokerError.
    """
    restorer = Restorer(layout)
    wanted = None if user_id is None else user_id.encode()
    async for records in reader.read(reader.settings.changelog_topic, partition):
        for record in records:
            if record.key is None:
                continue  # not written by a worker: its records always have a key
            if wanted is None or record.key == MARKER_KEY or user_of(record.key) == wanted:
                restorer.feed(record.key, record.value)
    return StateSnapshot(*unpack(restorer, layout, partition))


async def find_member(settings: Settings, layout: EventLayout, user_id: str) -> tuple[int, History]:
    """The partition where a member's plays are, and what is committed of the history.

    Raises: DataError when the member has none; as :func:`snapshot`.
    """
    async with TopicReader(settings) as reader:
        num_partitions = await reader.num_partitions(settings.changelog_topic)
        murmur2 = settings.plays_partitioner == "murmur2"
        places = [home_partition(user_id.encode(), num_partitions)] if murmur2 else range(num_partitions)
        for partition in places:
            found = (await snapshot(reader, layout, partition, user_id)).histories.get(user_id)
            if found is not None and found.count:
                return partition, found
    where = f"partition {places[0]}" if murmur2 else "any partition"
    raise DataError(
        f"{user_id!r} has no history in {where} of {settings.changelog_topic}: never played, or was forgotten"
    )


def held_plays(layout: EventLayout, history: History) -> list[dict[str, Any]]:
    """The plays that a history holds, oldest first, as values ready for a table or JSON.

    ``index`` counts all plays ever applied, from 0. Ids are stored as 64-bit hashes (xxh3 of the UTF-8 bytes): 16 hex digits.
    """
    first, domain = history.anchor(layout), layout.domain
    shown = []
    for index, play in enumerate(history.view(layout), start=first):
        row: dict[str, Any] = {
            "index": index,
            "event_time": iso_time(int(play["ts_ms"])),
            "item_hash": f"{int(play['item_hash']):016x}",
            "event_hash": f"{int(play['event_hash']):016x}",
            "duration_s": None if play["duration_s"] < 0 else round(float(play["duration_s"]), 3),
        }
        for field in domain.event_fields:
            if field.kind is FieldKind.BUCKETED:
                row[field.name] = _number(play[field.name])
            else:
                names = {code: value for value, code in field.value_codes.items()}
                row[field.name] = names.get(int(play[field.name]))
        for filter_ in domain.event_filters:
            value = play[f"filter_{filter_.event_key}"]
            is_number = filter_.kind is FilterKind.AT_MOST
            row[filter_.event_key] = _number(value) if is_number else f"{int(value):016x}" if value else None
        shown.append(row)
    return shown


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
