"""Derives sessions from the history: a play opens a session if it comes more than the gap after the play before it. No timers.

A session id is a hash of the member and the event time of the session's first play, so a restarted worker, another worker and a
replay produce the same id. An out-of-order play that becomes the first of a session changes its id: the earlier start is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from intentrec_core.kernels.context_rows import (
    BEFORE_END_MS,
    BEFORE_PLAYS,
    BEFORE_START_MS,
    HELD,
    OPENED,
    OPENER,
    START_MS,
    find_sessions,
)

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

    Shapes: ts_ms i64[T], context_starts and carried_ms i64[C], places i64[N], ascending.
    Cost: a pass over the plays of two sessions for each place, compiled.
    """
    # A copy: a column of a single play is contiguous, one of more is not, and each kind of array is compiled for.
    found = find_sessions(ts_ms.copy(), context_starts, carried_ms, gap_ms, places, NOTHING_CARRIED)
    opened, held = found[OPENED : HELD + 1].astype(np.bool_)
    before = ClosedSessions(held, found[BEFORE_START_MS], found[BEFORE_END_MS], found[BEFORE_PLAYS])
    return SessionStarts(found[START_MS], found[OPENER], opened, before)
