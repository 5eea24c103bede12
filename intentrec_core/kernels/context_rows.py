"""Compiled: the plays of some contexts that are asked for, as rows, and the session of each.

Shapes: T plays of all contexts, one context after another; C contexts; N rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled

#: Of the result of :func:`find_sessions`, in this order.
START_MS, OPENER, OPENED, HELD, BEFORE_START_MS, BEFORE_END_MS, BEFORE_PLAYS = range(7)
_NUM_FOUND = 7


@compiled
def number_rows(num_plays: Any, num_rows: Any) -> Any:
    """Numbers the last plays of each context: as many as ``num_rows`` i64[C] says, of ``num_plays`` i64[C].

    Returns where each context begins among all plays and its first row, i64[2, C]; and of each row its context, which of the
    context's rows it is, and its place among all plays, i64[3, N].
    """
    starts, num, place = np.empty((2, len(num_plays)), dtype=np.int64), 0, 0
    for context in range(len(num_plays)):
        starts[0, context], starts[1, context] = place, num
        place += num_plays[context]
        num += num_rows[context]
    rows, num = np.empty((3, num), dtype=np.int64), 0
    for context in range(len(num_plays)):
        end = starts[0, context] + num_plays[context]
        for nth in range(num_rows[context]):
            rows[0, num], rows[1, num], rows[2, num] = context, nth, end - num_rows[context] + nth
            num += 1
    return starts, rows


@compiled
def spread(units: Any, starts: Any, lengths: Any) -> Any:
    """The first unit of each new play's context and the play's place there: ``lengths`` i64[C] plays of each context, from its
    play ``starts`` i64[C] on, in the parts that begin at ``units`` i64[C]. Shape: i64[2, N].
    """
    num = 0
    for context in range(len(lengths)):
        num += lengths[context]
    spread_out, row = np.empty((2, num), dtype=np.int64), 0
    for context in range(len(lengths)):
        for nth in range(lengths[context]):
            spread_out[0, row], spread_out[1, row] = units[context], starts[context] + nth
            row += 1
    return spread_out


@compiled
def _first_of_session(ts_ms: Any, place: Any, start: Any, gap_ms: Any) -> Any:
    """The first play of the session of the play at ``place``, of those from ``start`` on."""
    while place > start and ts_ms[place] - ts_ms[place - 1] <= gap_ms:
        place -= 1
    return place


@compiled
def find_sessions(ts_ms: Any, starts: Any, carried_ms: Any, gap_ms: Any, places: Any, nothing_carried: Any) -> Any:
    """What :func:`stream.pipeline.sessions.session_starts` says of the plays at ``places``, which ascend: i64[7, N].

    Shapes: ts_ms i64[T]; starts and carried_ms i64[C]; places i64[N].
    Cost: the plays of two sessions for each place.
    """
    found, context = np.empty((_NUM_FOUND, len(places)), dtype=np.int64), 0
    for i in range(len(places)):
        place = places[i]
        while context + 1 < len(starts) and starts[context + 1] <= place:
            context += 1
        start, carried = starts[context], carried_ms[context]
        is_carried = carried != nothing_carried
        first = _first_of_session(ts_ms, place, start, gap_ms)
        is_evicted = is_carried and first == start  # an evicted play opened it
        found[START_MS, i] = carried if is_evicted else ts_ms[first]
        found[OPENER, i] = -1 if is_evicted else first
        found[OPENED, i] = place == first and not is_evicted
        found[HELD, i] = first > start
        end = max(first - 1, start)
        first_before = _first_of_session(ts_ms, end, start, gap_ms)
        is_evicted = is_carried and first_before == start
        found[BEFORE_START_MS, i] = carried if is_evicted else ts_ms[first_before]
        found[BEFORE_END_MS, i] = ts_ms[end]
        found[BEFORE_PLAYS, i] = 0 if is_evicted else first - first_before
    return found
