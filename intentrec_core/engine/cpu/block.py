"""The input of the compiled step: blocks of new plays, their field embeddings, times and lags, and the memory a block
works in.

Shapes: as :mod:`intentrec_core.engine.cpu.step`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intentrec_core.engine.cpu.decode_attention import GROUP
from intentrec_core.engine.cpu.weights import StepWeights
from intentrec_core.kernels.dense import compiled, log1p_all
from intentrec_core.kernels.simd import aligned_zeros
from intentrec_core.model.config import PERIODS_S, TIME_UNIT_S

#: Rows in a block: their activations take 200 KB at width 128, next to the 200 KB of one layer's weights in a 1 MB
#: cache.
BLOCK = 32

f32 = np.float32
_DAY_S, _WEEK_S = PERIODS_S
#: Milliseconds that one of a cache's ``time_high`` stands for.
_HIGH_MS = 2.0**32


class BlockRows(NamedTuple):
    """New plays. ``unit`` is the first group of a play's part of the pool, and ``place`` its position in the part's context.
    ``wanted`` marks the plays whose item vector is used.

    Shapes: item_row, unit, place i64[R]; codes i64[R, Fd]; ts_s f64[R]; gap_s f32[R]; wanted bool[R].
    """

    item_row: NDArray[np.int64]
    codes: NDArray[np.int64]
    ts_s: NDArray[np.float64]
    gap_s: NDArray[np.float32]
    unit: NDArray[np.int64]
    place: NDArray[np.int64]
    wanted: NDArray[np.bool_]


class KvCache(NamedTuple):
    """Keys, values and times of cached plays. A time is in whole milliseconds: ``time_high`` · 2³² + ``time_low``.
    ``log_place`` is log1p of C − 1, …, 1, 0.

    A context has groups of GROUP plays that lie next to each other, from its first unit on: a unit is a group.

    Shapes, of N groups with P = N · GROUP plays: k f32 or i8[L + 1, N, U, GROUP] (see
    :mod:`intentrec_core.engine.cpu.decode_attention`), v f32 or i8[L + 1, P, U]; scales of keys and of values
    f32[L + 1, K, P], or f32[L + 1, 0, 0] where they are float32; time_high i16[P], time_low u32[P]; log_place f32[C].
    """

    k: NDArray[np.float32] | NDArray[np.int8]
    v: NDArray[np.float32] | NDArray[np.int8]
    k_scales: NDArray[np.float32]
    v_scales: NDArray[np.float32]
    time_high: NDArray[np.int16]
    time_low: NDArray[np.uint32]
    log_place: NDArray[np.float32]


class Scratch(NamedTuple):
    """Work memory of a block. All arrays are C-contiguous, so that every kernel is compiled for one layout only.

    Shapes: E rows per block; fields f32[E, Fw]; x, y, short_term f32[E, W]; mixed f32[E, P]; qkv f32[E, W + 2U]; wide
    f32[E, 2W]; times f32[E, 6]; lags f32[E, C]; scores f32[H, G · GROUP]; powers i32[C]; projected f32[M, P]; decay
    f32[2W]; wide_powers i32[2W]; first, wanted_rows, all_rows, kept i64[E].
    """

    fields: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    short_term: NDArray[np.float32]
    mixed: NDArray[np.float32]
    qkv: NDArray[np.float32]
    wide: NDArray[np.float32]
    times: NDArray[np.float32]
    lags: NDArray[np.float32]
    scores: NDArray[np.float32]
    powers: NDArray[np.int32]
    projected: NDArray[np.float32]
    decay: NDArray[np.float32]
    wide_powers: NDArray[np.int32]
    first: NDArray[np.int64]
    wanted_rows: NDArray[np.int64]
    all_rows: NDArray[np.int64]
    kept: NDArray[np.int64]


def make_scratch(weights: StepWeights, cache: KvCache) -> Scratch:
    """Work memory for one thread."""
    num_heads, width = weights.short_slopes.shape[1], weights.short_out.shape[0]
    context_size = len(cache.log_place)
    num_groups = -(-context_size // GROUP)
    intents, mixed = weights.heads.project_bias.shape

    return Scratch(
        fields=aligned_zeros(BLOCK, weights.short_qkv.shape[0]),
        x=aligned_zeros(BLOCK, width),
        y=aligned_zeros(BLOCK, width),
        short_term=aligned_zeros(BLOCK, width),
        mixed=aligned_zeros(BLOCK, mixed),
        qkv=aligned_zeros(BLOCK, weights.short_qkv.shape[1]),
        wide=aligned_zeros(BLOCK, 2 * width),
        times=aligned_zeros(BLOCK, weights.item.time.shape[0]),
        lags=aligned_zeros(BLOCK, context_size),
        scores=aligned_zeros(num_heads, num_groups * GROUP),
        powers=np.zeros(max(context_size, intents, len(weights.heads.logits_bias)), dtype=np.int32),
        projected=aligned_zeros(intents, mixed),
        decay=aligned_zeros(2 * width),
        wide_powers=np.zeros(2 * width, dtype=np.int32),
        first=np.zeros(BLOCK, dtype=np.int64),
        wanted_rows=np.zeros(BLOCK, dtype=np.int64),
        all_rows=np.zeros(BLOCK, dtype=np.int64),
        kept=np.zeros(BLOCK, dtype=np.int64),
    )


@compiled
def _static_fields(item: int, item_table: Any, static_codes: Any, static: Any, static_first: Any, to: Any) -> int:
    """Writes the item's embedding and its static fields; returns the column of the next field."""
    at = item_table.shape[1]
    for d in range(at):
        to[d] = item_table[item, d]
    for f in range(static_first.shape[0]):
        row = static_first[f] + static_codes[item, f]
        for d in range(static.shape[1]):
            to[at + d] = static[row, d]
        at += static.shape[1]
    return at


@compiled
def _multi_fields(item: int, labels: Any, multi: Any, multi_first: Any, to: Any, at: int) -> int:
    """Writes the item's multi-label fields, each the mean of its labels; returns the column of the next field."""
    for f in range(multi_first.shape[0] - 1):
        total = f32(0)
        for d in range(multi.shape[1]):
            to[at + d] = f32(0)
        for label in range(multi_first[f], multi_first[f + 1]):
            share = labels[item, label]
            total += share
            if share != f32(0):
                for d in range(multi.shape[1]):
                    to[at + d] += share * multi[label, d]
        if total > f32(1):
            for d in range(multi.shape[1]):
                to[at + d] /= total
        at += multi.shape[1]
    return at


@compiled
def store_time(at_s: float, high: Any, low: Any, place: int) -> None:
    """Stores the time of the play at ``place`` of a part, to a millisecond. Shapes: i16[≥ C], u32[≥ C]."""
    whole_ms = np.rint(at_s * 1000.0)
    times = np.floor(whole_ms / _HIGH_MS)
    high[place], low[place] = np.int16(times), np.uint32(whole_ms - times * _HIGH_MS)


@partial(compiled, fastmath=set())  # a product with 0.001 in place of the division is not the same number
def time_s(high: Any, low: Any, place: int) -> float:
    """The time of the play at ``place`` of a part, in seconds: the same float64 that was stored."""
    return (high[place] * _HIGH_MS + low[place]) / 1000.0


@compiled
def _lags(at_s: float, high: Any, low: Any, end: int, window_s: float, lag: Any, powers: Any) -> int:
    """Writes log1p of a play's lags, in minutes, to the plays of its part up to itself; returns the first play within the
    short-term window.
    """
    for j in range(end):
        lag[j] = f32(max(0.0, at_s - time_s(high, low, j)) / TIME_UNIT_S)
    log1p_all(lag[:end], powers[:end])
    first = 0
    while (
        at_s - time_s(high, low, first) > window_s
    ):  # times rise, so plays outside the window are a prefix, which never includes the play itself
        first += 1
    return first


@compiled
def _times(at_s: float, gap_s: float, to: Any) -> None:
    """Writes the inputs of the time encoding, as :class:`intentrec_core.model.attention.TimeEncoding` computes them."""
    day, week = at_s / _DAY_S, at_s / _WEEK_S
    day, week = 2 * np.pi * (day - np.floor(day)), 2 * np.pi * (week - np.floor(week))
    to[0], to[1], to[2], to[3] = f32(np.sin(day)), f32(np.sin(week)), f32(np.cos(day)), f32(np.cos(week))
    to[4] = f32(np.log1p(max(gap_s, 0.0)) / 10.0)
    to[5] = f32(1) if gap_s < 0 else f32(0)


@compiled
def begin_block(weights: Any, cache: Any, rows: Any, low: int, num: int, scratch: Any) -> None:
    """Computes F, times and lags of a block, and stores its plays' times in the cache."""
    fields = weights.fields
    for i in range(num):
        row, item, to = low + i, rows.item_row[low + i], scratch.fields[i]
        first, place, at_s = rows.unit[row] * GROUP, rows.place[row], rows.ts_s[row]
        at = _static_fields(item, fields.item, fields.static_codes, fields.static, fields.static_first, to)
        at = _multi_fields(item, fields.labels, fields.multi, fields.multi_first, to, at)
        for f in range(fields.dynamic_first.shape[0]):
            code = fields.dynamic_first[f] + rows.codes[row, f]
            for d in range(fields.dynamic.shape[1]):
                to[at + d] = fields.dynamic[code, d]
            at += fields.dynamic.shape[1]
        _times(at_s, rows.gap_s[row], scratch.times[i])
        time_high, time_low = cache.time_high[first:], cache.time_low[first:]
        store_time(at_s, time_high, time_low, place)
        scratch.first[i] = _lags(
            at_s, time_high, time_low, place + 1, weights.short_term_window_s, scratch.lags[i], scratch.powers
        )  # fmt: skip
