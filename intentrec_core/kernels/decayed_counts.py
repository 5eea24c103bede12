"""Exponentially decayed counts of events by row, and their logarithms at any moment.

Shapes: P events sorted by row and then by time, ``begin`` i64[V + 1] where each row's events begin, D decays, N moments, R rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled


@compiled
def _decayed(count: Any, since_s: Any, at_s: Any, decay_s: Any) -> Any:
    """What is left at a time of a count as of an earlier one."""
    return count * math.exp((since_s - at_s) / decay_s)


@compiled
def sums_after_events(at_s: Any, begin: Any, decays_s: Any, sums: Any) -> None:
    """The decayed count of each event's row right after the event, itself included. Shapes: f64[P], f64[D] -> f64[P, D]."""
    for row in range(begin.shape[0] - 1):
        for event in range(begin[row], begin[row + 1]):
            for d in range(decays_s.shape[0]):
                before = 0.0
                if event > begin[row]:
                    before = _decayed(sums[event - 1, d], at_s[event - 1], at_s[event], decays_s[d])
                sums[event, d] = before + 1.0


@compiled
def fold_events(row: Any, at_ms: Any, decays_s: Any, first_ms: Any, newest_ms: Any, sums: Any) -> None:
    """Adds events to the decayed counts of their rows, each as of the row's newest event, in whatever order events come.

    A row without events yet has the time of its first one as ``newest_ms`` and ``first_ms``, and sums of 0.
    Shapes: row i64[P], at i64[P] in milliseconds; of R rows first and newest i64[R], sums f64[R, D], which change.
    """
    for event in range(row.shape[0]):
        r, at = row[event], at_ms[event]
        newest = max(at, newest_ms[r])
        for d in range(decays_s.shape[0]):
            before = _decayed(sums[r, d], newest_ms[r] / 1000.0, newest / 1000.0, decays_s[d])
            sums[r, d] = before + _decayed(1.0, at / 1000.0, newest / 1000.0, decays_s[d])
        newest_ms[r] = newest
        first_ms[r] = min(at, first_ms[r])


@compiled
def sums_at(newest_ms: Any, sums: Any, at_ms: Any, decays_s: Any, found: Any) -> None:
    """The counts of :func:`fold_events` as of one time, not before any newest event. Shapes: i64[R], f64[R, D] -> f64[R, D]."""
    for r in range(sums.shape[0]):
        for d in range(decays_s.shape[0]):
            found[r, d] = _decayed(sums[r, d], newest_ms[r] / 1000.0, at_ms / 1000.0, decays_s[d])


@compiled
def logs_at_moments(
    at_s: Any,
    begin: Any,
    decays_s: Any,
    logs: Any,
    age_unit_s: float,
    rows: Any,
    moments_s: Any,
    in_time: Any,
    found: Any,
) -> None:
    """At each moment, by the events before it: the logarithm of each count of each row, -inf before the first event, and the age.

    Between two events a sum only decays, so its logarithm falls on a straight line. ``logs`` f64[P, D] are those of
    :func:`sums_after_events`; ``in_time`` i64[N] sorts the moments. The age is in ``age_unit_s`` since the row's first event, 0
    before it. Shapes: rows i64[R], moments f64[N] -> found f32[N, D + 1, R].
    """
    num = decays_s.shape[0]
    for r in range(rows.shape[0]):
        first, end = begin[rows[r]], begin[rows[r] + 1]
        event = first
        for n in in_time:
            while event < end and at_s[event] < moments_s[n]:
                event += 1
            if event == first:
                for d in range(num):
                    found[n, d, r] = -np.inf
                found[n, num, r] = 0.0
                continue
            ago_s = moments_s[n] - at_s[event - 1]
            for d in range(num):
                found[n, d, r] = logs[event - 1, d] - ago_s / decays_s[d]
            found[n, num, r] = (moments_s[n] - at_s[first]) / age_unit_s


@compiled
def logs_of_pairs(
    at_s: Any,
    begin: Any,
    decays_s: Any,
    logs: Any,
    age_unit_s: float,
    rows: Any,
    moments_s: Any,
    found: Any,
) -> None:
    """As :func:`logs_at_moments`, of one row at each moment. Shapes: rows i64[N], moments f64[N] -> found f32[N, D + 1]."""
    num = decays_s.shape[0]
    for n in range(rows.shape[0]):
        first, low, high = begin[rows[n]], begin[rows[n]], begin[rows[n] + 1]
        while low < high:
            middle = (low + high) // 2
            if at_s[middle] < moments_s[n]:
                low = middle + 1
            else:
                high = middle
        for d in range(num):
            found[n, d] = -np.inf
        found[n, num] = 0.0
        if low > first:
            ago_s = moments_s[n] - at_s[low - 1]
            for d in range(num):
                found[n, d] = logs[low - 1, d] - ago_s / decays_s[d]
            found[n, num] = (moments_s[n] - at_s[first]) / age_unit_s
