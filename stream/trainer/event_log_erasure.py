"""Erasure in the event log: a marker file per erasure request, kept until the user's plays are gone from every segment.

    <root>/<topic>-<partition>-<offset>.forget     content: the user id; plays before this offset and backfilled plays must go

The marker is durable before the segment that covers the request's offset, so a restart cannot lose the request. It is deleted
once no segment holds a play to erase. A segment is rewritten under its own name by one rename: if the process is killed in
between, the next purge starts again and finds fewer plays to drop.
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
class PendingErasure:
    """An erasure request not yet carried out: the user's plays before ``offset`` of ``partition`` must leave the log."""

    partition: int
    offset: int
    user_id: str

    def file_name(self, topic: str) -> str:
        """Name of the marker file."""
        return f"{topic}-{self.partition}-{self.offset:020d}.forget"


def list_pending_erasures(root: Path, topic: str) -> dict[Path, PendingErasure]:
    """The erasure requests not yet carried out, by marker file.

    Raises: OSError if a marker cannot be read.
    """
    matches = ((_NAME.fullmatch(path.name), path) for path in root.iterdir())
    return {
        path: PendingErasure(int(m["partition"]), int(m["offset"]), path.read_text("utf-8"))
        for m, path in matches
        if m is not None and m["topic"] == topic
    }


def erase_before(segment: Segment, erasures: Iterable[PendingErasure]) -> dict[str, int]:
    """By user id, the offset before which this segment's plays must go; empty if the segment is newer than all requests."""
    limits: dict[str, int] = {}
    for erasure in erasures:
        if segment.partition == BACKFILL:
            limits[erasure.user_id] = segment.next_offset
        elif erasure.partition == segment.partition and segment.first < erasure.offset:
            limits[erasure.user_id] = max(erasure.offset, limits.get(erasure.user_id, 0))
    return limits


def is_erased(plays: pa.Table, limits: dict[str, int]) -> NDArray[np.bool_]:
    """Which plays must go, given ``limits`` from :func:`erase_before`. ``plays`` has the columns user_id and offset.

    Shapes: bool[N].
    """
    indices = pc.fill_null(pc.index_in(plays.column("user_id"), value_set=pa.array(list(limits), pa.string())), -1)
    member = indices.to_numpy().astype(np.int64)
    before = np.array(list(limits.values()), dtype=np.int64)
    return np.asarray((member >= 0) & (plays.column("offset").to_numpy() < before[member]))
