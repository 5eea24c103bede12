"""Compiled: codes and times of packed plays.

A column is read at its byte of a play, so one compiled function serves every domain. Numbers are rounded as NumPy rounds them.

Shapes: N plays of all contexts, one context after another; B contexts; F fields; A fields of them that tell an item's age; V item
rows.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intentrec_core.kernels.dense import compiled

#: What a field's code is made of: a code or a number of the play, its duration, the age of its item in days, the time since the
#: play before, whether the item was played before, or the hour or the day of the week (UTC).
CODE, NUMBER, DURATION, AGE, GAP, CONTACT, HOUR, WEEKDAY = range(8)
_DAY_S, _HOUR_S = 86_400.0, 3_600.0

#: As NumPy rounds: a product with 0.001 in place of a division is not the same number, and NaN is a missing number here.
_exact = partial(compiled, fastmath=set())


class FieldRules(NamedTuple):
    """How the codes of F fields are made.

    Shapes: kind i64[F], one of the above; at i64[F] the byte of a play at which the field's column begins or, for AGE, the row of
    ``release_s``; edges f64[any] those of all fields, rising in each, and first_edge i64[F + 1] where a field's begin; release_s
    f64[A, V] seconds since 1970, NaN where missing.
    """

    kind: NDArray[np.int64]
    at: NDArray[np.int64]
    edges: NDArray[np.float64]
    first_edge: NDArray[np.int64]
    release_s: NDArray[np.float64]

    def of(self, field: int) -> FieldRules:
        """Those of one field alone."""
        own = slice(field, field + 1)
        return self._replace(kind=self.kind[own], at=self.at[own], first_edge=self.first_edge[field : field + 2])


@_exact
def bucket_code(number: Any, edges: Any) -> Any:
    """As :func:`intentrec_core.features.buckets.bucket_codes`, of one number."""
    if np.isnan(number):
        return 0
    code = 1
    for edge in edges:
        code += edge <= number
    return code


@_exact
def _write_times(
    plays: Any, size: Any, time_at: Any, lengths: Any, starts: Any, before_ms: Any, ts_s: Any, gap_s: Any
) -> None:
    i = 0
    for context in range(len(lengths)):
        earlier_ms = before_ms[context]
        for nth in range(lengths[context]):
            at = i * size + time_at
            ts_ms = plays[at : at + 8].view(np.int64)[0]
            is_first = nth == 0 and starts[context] == 0
            ts_s[i] = ts_ms / 1000.0
            gap_s[i] = np.float32(-1) if is_first else np.float32((ts_ms - earlier_ms) / 1000.0)
            earlier_ms = ts_ms
            i += 1


@_exact
def _write_codes(plays: Any, size: Any, at: Any, codes: Any) -> None:
    """Of a CODE."""
    for i in range(len(codes)):
        first = i * size + at
        codes[i] = plays[first : first + 2].view(np.uint16)[0]


@_exact
def _write_buckets(plays: Any, size: Any, at: Any, none_below: Any, edges: Any, codes: Any) -> None:
    """Of a NUMBER or a DURATION; one below ``none_below`` is missing."""
    for i in range(len(codes)):
        first = i * size + at
        number = plays[first : first + 4].view(np.float32)[0]
        codes[i] = 0 if number < none_below else bucket_code(np.float64(number), edges)


@_exact
def play_features(
    plays: Any, size: Any, time_at: Any, lengths: Any, starts: Any, before_ms: Any, rows: Any, contacts: Any, rules: Any
) -> Any:
    """Codes i64[N, F], times f64[N] in seconds since 1970, and seconds since the play before f32[N], -1 for a first play.

    ``plays`` u8[N · size]: packed plays whose time, in milliseconds, begins at byte ``time_at``. Of each context ``lengths``
    i64[B] plays are here, from its play ``starts`` i64[B] on; ``before_ms`` i64[B] is the time of the play before, if there is
    one. ``rows`` i64[N]: of their items. ``contacts`` i64[N]: 1 for an item that its context had before; read for a CONTACT only.
    ``rules``: :class:`FieldRules`.
    """
    num, num_fields = len(rows), len(rules.kind)
    codes = np.empty((num, num_fields), dtype=np.int64)
    ts_s, gap_s = np.empty(num, dtype=np.float64), np.empty(num, dtype=np.float32)
    _write_times(plays, size, time_at, lengths, starts, before_ms, ts_s, gap_s)
    for field in range(num_fields):
        kind, at, own = rules.kind[field], rules.at[field], codes[:, field]
        edges = rules.edges[rules.first_edge[field] : rules.first_edge[field + 1]]
        if kind == CODE:
            _write_codes(plays, size, at, own)
        elif kind == NUMBER:
            _write_buckets(plays, size, at, -np.inf, edges, own)
        elif kind == DURATION:
            _write_buckets(plays, size, at, 0.0, edges, own)
        elif kind == AGE:
            for i in range(num):
                own[i] = bucket_code((ts_s[i] - rules.release_s[at, rows[i]]) / _DAY_S, edges)
        elif kind == GAP:
            for i in range(num):
                own[i] = 0 if gap_s[i] < 0 else bucket_code(np.float64(gap_s[i]), edges)
        elif kind == CONTACT:
            for i in range(num):
                own[i] = 1 + contacts[i]
        elif kind == HOUR:
            for i in range(num):
                own[i] = 1 + np.int64(np.floor(ts_s[i] / _HOUR_S)) % 24
        else:
            for i in range(num):
                own[i] = 1 + (np.int64(np.floor(ts_s[i] / _DAY_S)) + 3) % 7  # 1970-01-01 was a Thursday; 0 is Monday
    return codes, ts_s, gap_s
