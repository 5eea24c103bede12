"""Attention of new plays over cached plays on the CPU. Each cached key and value is read once, in place.

Keys are stored in groups of ``GROUP`` plays, column by column, so that a query is multiplied with a whole group without
a horizontal sum. Values are stored play by play. Scores are those of :mod:`intentrec_core.model.attention`; both biases
are computed for each pair of query and key.

Keys and values are float32, or int8 codes with a float32 scale for each play and head (:mod:`intentrec_core.kernels.quantise`).
The same functions are compiled for both. Codes become float32 in registers, and a scale is applied once to a score and once to
a weight, not to every code.

Heads may share keys and values: the K heads of a cache have K · D = U columns, and query head h reads head h // (H / K). What is
loaded is then used for four or two queries at once: with int8, turning codes into float32 costs more than multiplying them.

Shapes: C plays of a context, G groups of them, followed by those of other contexts; P plays in the pool; W width, H heads,
D = W / H, K heads of keys and values, U their width.
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
def store_key(k_GUP: Any, place: int, key: Any) -> None:
    """Stores the key of the play at ``place``. Shapes: k f32 or i8[G, U, GROUP], key f32[U]: whole numbers for i8."""
    group, lane = place // GROUP, place % GROUP
    for d in range(key.shape[0]):
        k_GUP[group, d, lane] = key[d]


@compiled
def _scores(q: Any, k_GUP: Any, first: int, end: int, scores_HC: Any) -> None:
    """Inner products of a query with the keys of every group that contains a play from ``first`` to ``end`` - 1, where each head
    has its own.

    The loop of :func:`_one_head` stands here once more: called from here, it takes 1.1 times as long in float32 and 1.2 in int8.
    """
    num_heads, num_places = scores_HC.shape
    width = k_GUP.shape[1]
    depth = width // num_heads
    for group in range(first // GROUP, (end + GROUP - 1) // GROUP):
        for head in range(num_heads):
            column = head * depth
            keys = (group * width + column) * GROUP
            even, odd = no_lanes(), no_lanes()
            for d in range(0, depth - 1, 2):
                even = add_scaled(even, load(k_GUP, keys + d * GROUP), q[column + d])
                odd = add_scaled(odd, load(k_GUP, keys + (d + 1) * GROUP), q[column + d + 1])
            if depth % 2:
                even = add_scaled(even, load(k_GUP, keys + (depth - 1) * GROUP), q[column + depth - 1])
            store(add(even, odd), scores_HC, head * num_places + group * GROUP)


@compiled
def _one_head(q: Any, k_GUP: Any, keys: int, depth: int, head: int, group: int, scores_HC: Any) -> None:
    """Inner products of a head's query with the keys of a group of plays, which begin at element ``keys``."""
    column = head * depth
    even, odd = no_lanes(), no_lanes()
    for d in range(0, depth - 1, 2):
        even = add_scaled(even, load(k_GUP, keys + d * GROUP), q[column + d])
        odd = add_scaled(odd, load(k_GUP, keys + (d + 1) * GROUP), q[column + d + 1])
    if depth % 2:
        even = add_scaled(even, load(k_GUP, keys + (depth - 1) * GROUP), q[column + depth - 1])
    store(add(even, odd), scores_HC, head * scores_HC.shape[1] + group * GROUP)


@compiled
def _two_heads(q: Any, k_GUP: Any, keys: int, depth: int, head: int, group: int, scores_HC: Any) -> None:
    """The same for two heads that share the keys."""
    column, at, num_places = head * depth, head * scores_HC.shape[1] + group * GROUP, scores_HC.shape[1]
    sum0, sum1 = no_lanes(), no_lanes()
    for d in range(depth):
        lanes = load(k_GUP, keys + d * GROUP)
        sum0, sum1 = add_scaled(sum0, lanes, q[column + d]), add_scaled(sum1, lanes, q[column + depth + d])
    store(sum0, scores_HC, at)
    store(sum1, scores_HC, at + num_places)


@compiled
def _four_heads(q: Any, k_GUP: Any, keys: int, depth: int, head: int, group: int, scores_HC: Any) -> None:
    """The same for four heads that share the keys."""
    column, at, num_places = head * depth, head * scores_HC.shape[1] + group * GROUP, scores_HC.shape[1]
    sum0, sum1, sum2, sum3 = no_lanes(), no_lanes(), no_lanes(), no_lanes()
    for d in range(depth):
        lanes = load(k_GUP, keys + d * GROUP)
        sum0, sum1 = add_scaled(sum0, lanes, q[column + d]), add_scaled(sum1, lanes, q[column + depth + d])
        sum2 = add_scaled(sum2, lanes, q[column + 2 * depth + d])
        sum3 = add_scaled(sum3, lanes, q[column + 3 * depth + d])
    store(sum0, scores_HC, at)
    store(sum1, scores_HC, at + num_places)
    store(sum2, scores_HC, at + 2 * num_places)
    store(sum3, scores_HC, at + 3 * num_places)


@compiled
def _shared_scores(q: Any, k_GUP: Any, first: int, end: int, depth: int, num_sharing: int, scores_HC: Any) -> None:
    """As :func:`_scores`, where ``num_sharing`` neighbouring heads have the same keys."""
    width = k_GUP.shape[1]
    for group in range(first // GROUP, (end + GROUP - 1) // GROUP):
        for shared in range(width // depth):
            keys = (group * width + shared * depth) * GROUP
            head, behind = shared * num_sharing, (shared + 1) * num_sharing
            while head + 4 <= behind:
                _four_heads(q, k_GUP, keys, depth, head, group, scores_HC)
                head += 4
            if head + 2 <= behind:
                _two_heads(q, k_GUP, keys, depth, head, group, scores_HC)
                head += 2
            if head < behind:
                _one_head(q, k_GUP, keys, depth, head, group, scores_HC)


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
    """Weighted sum of the values, where each head has its own."""
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
def _mix_of_one(weights_HC: Any, v_CU: Any, first: int, end: int, column: int, head: int, at: int, out: Any) -> None:
    """One head's weighted sum of 32 columns of the values, from ``column`` on, stored from ``at`` on."""
    width, a = v_CU.shape[1], weights_HC[head]
    total = no_lanes()
    for j in range(first, end):
        total = add_scaled(total, load(v_CU, j * width + column), a[j])
    store(total, out, at)


@compiled
def _mix_of_two(weights_HC: Any, v_CU: Any, first: int, end: int, column: int, head: int, at: int, out: Any) -> None:
    """The same for two heads that share the values."""
    width, depth = v_CU.shape[1], out.shape[0] // weights_HC.shape[0]
    a, b = weights_HC[head], weights_HC[head + 1]
    sum0, sum1 = no_lanes(), no_lanes()
    for j in range(first, end):
        lanes = load(v_CU, j * width + column)
        sum0, sum1 = add_scaled(sum0, lanes, a[j]), add_scaled(sum1, lanes, b[j])
    store(sum0, out, at)
    store(sum1, out, at + depth)


@compiled
def _mix_of_four(weights_HC: Any, v_CU: Any, first: int, end: int, column: int, head: int, at: int, out: Any) -> None:
    """The same for four heads that share the values."""
    width, depth = v_CU.shape[1], out.shape[0] // weights_HC.shape[0]
    a, b, c, d = weights_HC[head], weights_HC[head + 1], weights_HC[head + 2], weights_HC[head + 3]
    sum0, sum1, sum2, sum3 = no_lanes(), no_lanes(), no_lanes(), no_lanes()
    for j in range(first, end):
        lanes = load(v_CU, j * width + column)
        sum0, sum1 = add_scaled(sum0, lanes, a[j]), add_scaled(sum1, lanes, b[j])
        sum2, sum3 = add_scaled(sum2, lanes, c[j]), add_scaled(sum3, lanes, d[j])
    store(sum0, out, at)
    store(sum1, out, at + depth)
    store(sum2, out, at + 2 * depth)
    store(sum3, out, at + 3 * depth)


@compiled
def _mix_shared_others(weights_HC: Any, v_CU: Any, first: int, end: int, num_sharing: int, out: Any) -> None:
    """Weighted sums of shared values for heads of any width."""
    num_heads = weights_HC.shape[0]
    depth = out.shape[0] // num_heads
    for d in range(out.shape[0]):
        out[d] = f32(0)
    for j in range(first, end):
        value = v_CU[j]
        for head in range(num_heads):
            weight, column, at = weights_HC[head, j], head // num_sharing * depth, head * depth
            for d in range(depth):
                out[at + d] += weight * f32(value[column + d])


@compiled
def _mix_shared(weights_HC: Any, v_CU: Any, first: int, end: int, num_sharing: int, out: Any) -> None:
    """As :func:`_mix`, where ``num_sharing`` neighbouring heads have the same values."""
    num_heads = weights_HC.shape[0]
    depth = out.shape[0] // num_heads
    if depth % NUM_LANES:
        _mix_shared_others(weights_HC, v_CU, first, end, num_sharing, out)
        return
    for part in range(0, depth, NUM_LANES):
        for shared in range(num_heads // num_sharing):
            column, head, behind = shared * depth + part, shared * num_sharing, (shared + 1) * num_sharing
            while head + 4 <= behind:
                _mix_of_four(weights_HC, v_CU, first, end, column, head, head * depth + part, out)
                head += 4
            if head + 2 <= behind:
                _mix_of_two(weights_HC, v_CU, first, end, column, head, head * depth + part, out)
                head += 2
            if head < behind:
                _mix_of_one(weights_HC, v_CU, first, end, column, head, head * depth + part, out)


@compiled
def attend(
    q: Any, k_GUP: Any, v_CU: Any, k_scales_KP: Any, v_scales_KP: Any, at: int, first: int, end: int, log_lag: Any,
    log_place: Any, slopes_2H: Any, scratch: Any, powers: Any, out: Any,
) -> None:  # fmt: skip
    """One query over the plays from ``first`` to ``end`` - 1 of its context; the last of them is the query's own play.

    Shapes: q f32[≥ W], out f32[W]; k f32 or i8[≥ G, U, GROUP]; v f32 or i8[≥ C, U]; scales of keys and of values f32[K, P] of all
    plays in the pool, those of the context from ``at`` on, not read for float32; log_lag f32[C] by play; log_place f32[≥ C],
    descending: its last entry belongs to the query's own place; slopes f32[2, H] of times and places, positive; work
    memory scratch f32[H, G · GROUP] and powers i32[C].

    Cost: reads 2 · (end − first) · U numbers, once.
    """
    num_heads = slopes_2H.shape[1]
    depth, num_sharing = out.shape[0] // num_heads, out.shape[0] // v_CU.shape[1]
    scale = f32(1) / np.sqrt(f32(depth))
    if num_sharing == 1:
        _scores(q, k_GUP, first, end, scratch)
    else:
        _shared_scores(q, k_GUP, first, end, depth, num_sharing, scratch)
    lag = log_lag[first:end]
    place = log_place[log_place.shape[0] - (end - first) :]
    power = powers[: end - first]
    for head in range(num_heads):
        row = scratch[head, first:end]
        by_lag, by_place = slopes_2H[0, head], slopes_2H[1, head]
        if holds_codes(k_GUP):
            multiply(row, k_scales_KP[head // num_sharing, at + first : at + end])
        for j in range(row.shape[0]):
            row[j] = row[j] * scale - by_lag * lag[j] - by_place * place[j]
        share = f32(1) / exponentials(row, power)
        for j in range(row.shape[0]):
            row[j] *= share
        if holds_codes(v_CU):
            multiply(row, v_scales_KP[head // num_sharing, at + first : at + end])
    if num_sharing == 1:
        _mix(scratch, v_CU, first, end, out)
    else:
        _mix_shared(scratch, v_CU, first, end, num_sharing, out)
