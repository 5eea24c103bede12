"""Sessions, derived from the history: a session ends when the next play comes after the gap, and no timer runs.

An id is a hash of the member and of the event time at which the session began, so that a restarted worker, another
worker and a replay name it alike. A late play that comes to stand before a session's first one gives that session a
new id: the earlier beginning is the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

#: No time of a play: they begin in 1970.
NOTHING_CARRIED = -1


def session_id(user_id: str, start_ms: int) -> str:
    """The id of the session that a member began at ``start_ms``: 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(f"{start_ms}\0{user_id}".encode())


@dataclass(frozen=True, slots=True)
class SessionStarts:
    """Of chosen plays: when the session of each began, and whether the play itself began it.

    Shapes: start_ms i64[N], opened bool[N].
    """

    start_ms: NDArray[np.int64]
    opened: NDArray[np.bool_]


def session_starts(
    ts_ms: NDArray[np.int64],
    heads: NDArray[np.int64],
    carried_ms: NDArray[np.int64],
    gap_ms: int,
    places: NDArray[np.int64],
) -> SessionStarts:
    """Sessions of the plays at ``places`` of several contexts laid one after another.

    ``heads`` are the places where a context begins; ``carried_ms`` is, for each context, when the session of its first play
    began if plays before it have left the context, else :data:`NOTHING_CARRIED`.

    Shapes: ts_ms i64[T], heads and carried_ms i64[C], places i64[N].
    Cost: O(T), a few array passes for all contexts together.
    """
    opened = np.empty(len(ts_ms), dtype=bool)
    np.greater(np.diff(ts_ms), gap_ms, out=opened[1:])
    opened[heads] = True  # a context never continues the one laid before it
    start = np.maximum.accumulate(np.where(opened, np.arange(len(ts_ms)), 0))
    began_ms = ts_ms.copy()
    carried = carried_ms != NOTHING_CARRIED
    began_ms[heads[carried]] = carried_ms[carried]
    opened[heads[carried]] = False
    return SessionStarts(began_ms[start[places]], opened[places])
