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


def session_id(user_id: str, start_ms: int) -> str:
    """The id of the session that a member began at ``start_ms``: 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(f"{start_ms}\0{user_id}".encode())


@dataclass(frozen=True, slots=True)
class SessionStarts:
    """For the last plays of one context: when the session of each began, and whether the play itself began it.

    Shapes: start_ms i64[n], opened bool[n].
    """

    start_ms: NDArray[np.int64]
    opened: NDArray[np.bool_]


def session_starts(ts_ms: NDArray[np.int64], gap_ms: int, carried_ms: int | None, num_last: int) -> SessionStarts:
    """Sessions of the last ``num_last`` plays of a context with event times ``ts_ms``.

    ``carried_ms`` is when the session of the context's first play began if plays before the context exist, else None.
    """
    opened = np.empty(len(ts_ms), dtype=bool)
    opened[0] = carried_ms is None
    np.greater(np.diff(ts_ms), gap_ms, out=opened[1:])
    first = np.maximum.accumulate(np.where(opened, np.arange(len(ts_ms)), -1))
    start_ms = np.where(first < 0, 0 if carried_ms is None else carried_ms, ts_ms[first])
    return SessionStarts(start_ms[-num_last:], opened[-num_last:])
