"""Members who were forgotten, in the event log: first a small file that says so, then their plays are gone from every segment.

    <root>/<topic>-<partition>-<offset>.forget     the user id; plays from before this offset, and backfilled ones, must go

The file is durable before the segment that covers the order's offset, so that the order itself is not forgotten; it goes
when no segment holds such a play any more. A segment is rewritten under its own name, by one rename: whoever was killed in
between begins again, and finds fewer plays to drop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stream.trainer.event_log import BACKFILL, Segment

_NAME = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)-(?P<partition>\d+)-(?P<offset>\d{20})\.forget")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A member who has to be gone from the log up to ``offset`` of ``partition``."""

    partition: int
    offset: int
    user_id: str

    def name(self, topic: str) -> str:
        """File name of the order."""
        return f"{topic}-{self.partition}-{self.offset:020d}.forget"


def list_forgotten(root: Path, topic: str) -> dict[Path, Forgotten]:
    """The orders that are not carried out yet, by file.

    Raises: OSError when one cannot be read.
    """
    matches = ((_NAME.fullmatch(path.name), path) for path in root.iterdir())
    return {
        path: Forgotten(int(m["partition"]), int(m["offset"]), path.read_text("utf-8"))
        for m, path in matches
        if m is not None and m["topic"] == topic
    }


def limits_in(segment: Segment, orders: Iterable[Forgotten]) -> dict[str, int]:
    """By member, the offset before which plays of this segment must go; nobody where the segment lies behind all orders."""
    limits: dict[str, int] = {}
    for order in orders:
        if segment.partition == BACKFILL:
            limits[order.user_id] = segment.next_offset
        elif order.partition == segment.partition and segment.first < order.offset:
            limits[order.user_id] = max(order.offset, limits.get(order.user_id, 0))
    return limits


def must_go(plays: pa.Table, limits: dict[str, int]) -> NDArray[np.bool_]:
    """Which plays must go. ``plays`` has the columns user_id and offset.

    Shapes: bool[N].
    """
    place = pc.fill_null(pc.index_in(plays.column("user_id"), value_set=pa.array(list(limits), pa.string())), -1)
    member = place.to_numpy().astype(np.int64)
    before = np.array(list(limits.values()), dtype=np.int64)
    return np.asarray((member >= 0) & (plays.column("offset").to_numpy() < before[member]))
