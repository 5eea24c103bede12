"""Attention of new plays over cached plays on the CPU. Each cached key and value is read once, in place.

Keys are stored in groups of ``GROUP`` plays, column by column, so that a query is multiplied with a whole group without
a horizontal sum. Values are stored play by play. Scores are those of :mod:`intentrec_core.model.attention`; both biases
are computed for each pair of query and key.

Keys and values are float32, or int8 codes with a float32 scale for each play and head (:mod:`intentrec_core.kernels.quantise`).
The same functions are compiled for both. Codes become float32 in registers, and a scale is applied once to a score and once to
a weight, not to every code.

Shapes: C plays per slot, G groups of them, W width, H heads, D = W / H.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled, exponentials
from intentrec_core.kernels.quantise import multiply
from intentrec_core.kernels.simd import (
    NUM_LANES,
    add,
    add_scaled,
    add_scaled_halves,
    holds_codes,
    load,
    no_lanes,
    store,
)

#: Plays in a group of keys. 16 lanes are one AVX-512 register; with 32, a core reads cached keys at 35 GB/s instead of
#: 24.
GROUP = 32

f32 = np.float32


@compiled
def store_key(k_GWP: Any, place: int, key: Any) -> None:
    """Stores the key of the play at ``place`` of a slot. Shapes: k f32 or i8[G, W, GROUP], key f32[W]: whole numbers for i8."""
    group, lane = place // GROUP, place % GROUP
    for d in range(key.shape[0]):
        k_GWP[group, d, lane] = key[d]


@compiled
def _scores(q: Any, k_GWP: Any, first: int, end: int, scores_HC: Any) -> None:
    """Inner products of a query with the keys of every group that contains a play from ``first`` to ``end`` - 1."""
    num_heads, num_places = scores_HC.shape
    width = k_GWP.shape[1]
    depth = width // num_heads
    for group in range(first // GROUP, (end + GROUP - 1) // GROUP):
        for head in range(num_heads):
            column = head * depth
            keys = (group * width + column) * GROUP
            even, odd = no_lanes(), no_lanes()
            for d in range(0, depth - 1, 2):
                even = add_scaled(even, load(k_GWP, keys + d * GROUP), q[column + d])
                odd = add_scaled(odd, load(k_GWP, keys + (d + 1) * GROUP), q[column + d + 1])
            if depth % 2:
                even = add_scaled(even, load(k_GWP, keys + (depth - 1) * GROUP), q[column + depth - 1])
            store(add(even, odd), scores_HC, head * num_places + group * GROUP)


@compiled
def _mix_four(weights_HC: Any, v_CW: Any, first: int, end: int, column: int, out: Any) -> None:
    """Weighted sum of 128 columns of the values. A boundary between heads may lie in the middle of 32 columns, not
    elsewhere.
    """
    width = v_CW.shape[1]
    depth = width // weights_HC.shape[0]
    a0, b0 = weights_HC[column // depth], weights_HC[(column + 16) // depth]
    a1, b1 = weights_HC[(column + 32) // depth], weights_HC[(column + 48) // depth]
    a2, b2 = weights_HC[(column + 64) // depth], weights_HC[(column + 80) // depth]
    a3, b3 = weights_HC[(column + 96) // depth], weights_HC[(column + 112) // depth]
    sum0, sum1, sum2, sum3 = no_lanes(), no_lanes(), no_lanes(), no_lanes()
    for j in range(first, end):
        at = j * width + column
        sum0 = add_scaled_halves(sum0, load(v_CW, at), a0[j], b0[j])
        sum1 = add_scaled_halves(sum1, load(v_CW, at + 32), a1[j], b1[j])
        sum2 = add_scaled_halves(sum2, load(v_CW, at + 64), a2[j], b2[j])
        sum3 = add_scaled_halves(sum3, load(v_CW, at + 96), a3[j], b3[j])
    store(sum0, out, column)
    store(sum1, out, column + 32)
    store(sum2, out, column + 64)
    store(sum3, out, column + 96)


@compiled
def _mix_one(weights_HC: Any, v_CW: Any, first: int, end: int, column: int, out: Any) -> None:
    """Weighted sum of 32 columns of the values, with the same condition."""
    width = v_CW.shape[1]
    depth = width // weights_HC.shape[0]
    a, b = weights_HC[column // depth], weights_HC[(column + 16) // depth]
    total = no_lanes()
    for j in range(first, end):
        total = add_scaled_halves(total, load(v_CW, j * width + column), a[j], b[j])
    store(total, out, column)


@compiled
def _mix_others(weights_HC: Any, v_CW: Any, first: int, end: int, column: int, out: Any) -> None:
    """Weighted sum of all columns from ``column`` on, with head boundaries anywhere."""
    width = v_CW.shape[1]
    depth = width // weights_HC.shape[0]
    for d in range(column, width):
        out[d] = f32(0)
    for j in range(first, end):
        value = v_CW[j]
        for d in range(column, width):
            out[d] += weights_HC[d // depth, j] * f32(value[d])


@compiled
def _mix(weights_HC: Any, v_CW: Any, first: int, end: int, out: Any) -> None:
    """Weighted sum of the values."""
    width = v_CW.shape[1]
    whole = 0
    if (width // weights_HC.shape[0]) % 16 == 0:
        whole = width // NUM_LANES * NUM_LANES
    fours = whole // (4 * NUM_LANES) * (4 * NUM_LANES)
    for column in range(0, fours, 4 * NUM_LANES):
        _mix_four(weights_HC, v_CW, first, end, column, out)
    for column in range(fours, whole, NUM_LANES):
        _mix_one(weights_HC, v_CW, first, end, column, out)
    if whole < width:
        _mix_others(weights_HC, v_CW, first, end, whole, out)


@compiled
def attend(
    q: Any, k_GWP: Any, v_CW: Any, k_scales_HC: Any, v_scales_HC: Any, first: int, end: int, log_lag: Any, log_place: Any,
    slopes_2H: Any, scratch: Any, powers: Any, out: Any,
) -> None:  # fmt: skip
    """One query over the plays from ``first`` to ``end`` - 1 of its slot; the last of them is the query's own play.

    Shapes: q f32[≥ W], out f32[W]; k f32 or i8[G, W, GROUP]; v f32 or i8[C, W]; scales of keys and of values f32[H, C], not
    read for float32; log_lag f32[C] by play; log_place f32[≥ C],
    descending: its last entry belongs to the query's own place; slopes f32[2, H] of times and places, positive; work
    memory scratch f32[H, G · GROUP] and powers i32[C].

    Cost: reads 2 · (end − first) · W numbers, once.
    """
    num_heads = slopes_2H.shape[1]
    depth = out.shape[0] // num_heads
    scale = f32(1) / np.sqrt(f32(depth))
    _scores(q, k_GWP, first, end, scratch)
    lag = log_lag[first:end]
    place = log_place[log_place.shape[0] - (end - first) :]
    power = powers[: end - first]
    for head in range(num_heads):
        row = scratch[head, first:end]
        by_lag, by_place = slopes_2H[0, head], slopes_2H[1, head]
        if holds_codes(k_GWP):
            multiply(row, k_scales_HC[head, first:end])
        for j in range(row.shape[0]):
            row[j] = row[j] * scale - by_lag * lag[j] - by_place * place[j]
        share = f32(1) / exponentials(row, power)
        for j in range(row.shape[0]):
            row[j] *= share
        if holds_codes(v_CW):
            multiply(row, v_scales_HC[head, first:end])
    _mix(scratch, v_CW, first, end, out)
