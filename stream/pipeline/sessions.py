"""Derives sessions from the history: a play opens a session if it comes more than the gap after the play before it. No timers.

A session id is a hash of the member and the event time of the session's first play, so a restarted worker, another worker and a
replay produce the same id. An out-of-order play that becomes the first of a session changes its id: the earlier start is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

#: Not the time of any play, because no play is before 1970.
NOTHING_CARRIED = -1


def session_id(user_id: str, start_ms: int) -> str:
    """The id of a member's session that began at ``start_ms``: 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(f"{start_ms}\0{user_id}".encode())


@dataclass(frozen=True, slots=True)
class ClosedSessions:
    """For some plays: the session before the one that the play belongs to.

    Shapes: held bool[N], whether a play of it is held; start_ms and end_ms i64[N], event times of its first and its last play;
    num_plays i64[N], 0 where some of them are evicted: nothing says how many they were. The rest has no meaning where it is not
    held.
    """

    held: NDArray[np.bool_]
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    num_plays: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SessionStarts:
    """For some plays: when the session of each began, where the play that opened it is, whether the play itself did, and the
    session before it.

    Shapes: start_ms i64[N], opener i64[N] places among all T plays, -1 where an evicted play opened it; opened bool[N].
    """

    start_ms: NDArray[np.int64]
    opener: NDArray[np.int64]
    opened: NDArray[np.bool_]
    before: ClosedSessions


def session_starts(
    ts_ms: NDArray[np.int64],
    context_starts: NDArray[np.int64],
    carried_ms: NDArray[np.int64],
    gap_ms: int,
    places: NDArray[np.int64],
) -> SessionStarts:
    """Sessions of the plays at ``places``, in several contexts that are concatenated.

    ``context_starts``: where each context begins. ``carried_ms``: for each context, when the session of its first play began if
    an evicted play opened it, else :data:`NOTHING_CARRIED`.

    Shapes: ts_ms i64[T], context_starts and carried_ms i64[C], places i64[N].
    Cost: O(T), in a few array passes for all contexts together.
    """
    opened = np.empty(len(ts_ms), dtype=bool)
    np.greater(np.diff(ts_ms), gap_ms, out=opened[1:])
    opened[context_starts] = True  # a context does not continue the one before it
    start = np.maximum.accumulate(np.where(opened, np.arange(len(ts_ms)), 0))
    began_ms = ts_ms.copy()
    carried = carried_ms != NOTHING_CARRIED
    began_ms[context_starts[carried]] = carried_ms[carried]
    opened[context_starts[carried]] = False
    first = start[places]
    is_context_start = np.zeros(len(ts_ms), dtype=bool)
    is_context_start[context_starts] = True
    last_before = np.maximum(first - 1, 0)
    first_before = start[last_before]
    before = ClosedSessions(
        held=~is_context_start[first],
        start_ms=began_ms[first_before],
        end_ms=ts_ms[last_before],
        num_plays=np.where(opened[first_before], first - first_before, 0),
    )
    return SessionStarts(began_ms[first], np.where(opened[first], first, -1), opened[places], before)
