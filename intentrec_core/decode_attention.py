"""Attention of new plays over cached ones on the CPU: each cached key and value is read once, where it lies.

Keys lie in groups of ``GROUP`` plays, columns first, so that one query meets a whole group without a horizontal sum; values
lie play by play. Scores are those of :mod:`intentrec_core.attention`; both biases are computed when query and key meet.

Shapes: C plays a slot, G groups of them, W width, H heads, D = W / H.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels import compiled, exponentials

#: Plays in a group of keys. 16 lanes are one AVX-512 register; with 32 a core reads cached keys at 35 GB/s instead of 24.
GROUP = 32

f32 = np.float32


@compiled
def store_key(k_GWP: Any, place: int, key: Any) -> None:
    """Puts the key of the play at ``place`` of a slot where it belongs. Shapes: k f32[G, W, GROUP], key f32[W]."""
    group, lane = place // GROUP, place % GROUP
    for d in range(key.shape[0]):
        k_GWP[group, d, lane] = key[d]


@compiled
def _scores(q: Any, k_GWP: Any, first: int, end: int, scores_HC: Any) -> None:
    """Inner products of a query with the keys of every group that holds a play from ``first`` to before ``end``."""
    num_heads = scores_HC.shape[0]
    depth = k_GWP.shape[1] // num_heads
    for group in range(first // GROUP, (end + GROUP - 1) // GROUP):
        keys = k_GWP[group]
        for head in range(num_heads):
            row = scores_HC[head, group * GROUP : (group + 1) * GROUP]
            low, high = head * depth, (head + 1) * depth
            whole = low + depth // 8 * 8
            for lane in range(GROUP):
                row[lane] = f32(0)
            for d in range(low, whole, 8):
                k0, k1, k2, k3 = keys[d], keys[d + 1], keys[d + 2], keys[d + 3]
                k4, k5, k6, k7 = keys[d + 4], keys[d + 5], keys[d + 6], keys[d + 7]
                q0, q1, q2, q3 = q[d], q[d + 1], q[d + 2], q[d + 3]
                q4, q5, q6, q7 = q[d + 4], q[d + 5], q[d + 6], q[d + 7]
                for lane in range(GROUP):
                    row[lane] += (
                        q0 * k0[lane] + q1 * k1[lane] + q2 * k2[lane] + q3 * k3[lane]
                        + q4 * k4[lane] + q5 * k5[lane] + q6 * k6[lane] + q7 * k7[lane]
                    )  # fmt: skip
            for d in range(whole, high):
                k0, q0 = keys[d], q[d]
                for lane in range(GROUP):
                    row[lane] += q0 * k0[lane]


@compiled
def _mix(weights_HC: Any, v_CW: Any, first: int, end: int, depth: int, out: Any) -> None:
    """Sums values by weight. Where ``depth`` is a constant the compiler writes a head out: 2.5 times as fast."""
    num_heads = weights_HC.shape[0]
    for d in range(out.shape[0]):
        out[d] = f32(0)
    whole = first + (end - first) // 4 * 4
    for j in range(first, whole, 4):
        v0, v1, v2, v3 = v_CW[j], v_CW[j + 1], v_CW[j + 2], v_CW[j + 3]
        for head in range(num_heads):
            a0, a1 = weights_HC[head, j], weights_HC[head, j + 1]
            a2, a3 = weights_HC[head, j + 2], weights_HC[head, j + 3]
            for d in range(head * depth, (head + 1) * depth):
                out[d] += a0 * v0[d] + a1 * v1[d] + a2 * v2[d] + a3 * v3[d]
    for j in range(whole, end):
        v0 = v_CW[j]
        for head in range(num_heads):
            a0 = weights_HC[head, j]
            for d in range(head * depth, (head + 1) * depth):
                out[d] += a0 * v0[d]


@compiled
def attend(
    q: Any, k_GWP: Any, v_CW: Any, first: int, end: int, log_lag: Any, log_place: Any, slopes_2H: Any, room: Any,
    powers: Any, out: Any,
) -> None:  # fmt: skip
    """One query over the plays ``first`` to before ``end`` of its slot, the newest of which is the query's own.

    Shapes: q f32[≥ W], out f32[W]; k f32[G, W, GROUP]; v f32[C, W]; log_lag f32[C] by play; log_place f32[≥ C], descending:
    its last entry is the query's own place; slopes f32[2, H] of times and places, positive; room f32[H, G · GROUP] and
    powers i32[C] to work in.

    Cost: reads 2 · (end − first) · W floats, once.
    """
    num_heads = slopes_2H.shape[1]
    depth = out.shape[0] // num_heads
    scale = f32(1) / np.sqrt(f32(depth))
    _scores(q, k_GWP, first, end, room)
    lag = log_lag[first:end]
    place = log_place[log_place.shape[0] - (end - first) :]
    power = powers[: end - first]
    for head in range(num_heads):
        row = room[head, first:end]
        by_lag, by_place = slopes_2H[0, head], slopes_2H[1, head]
        for j in range(row.shape[0]):
            row[j] = row[j] * scale - by_lag * lag[j] - by_place * place[j]
        share = f32(1) / exponentials(row, power)
        for j in range(row.shape[0]):
            row[j] *= share
    if depth == 32:
        _mix(room, v_CW, first, end, 32, out)
    elif depth == 64:
        _mix(room, v_CW, first, end, 64, out)
    else:
        _mix(room, v_CW, first, end, depth, out)
