"""Attention of one new play over cached ones on the CPU, read in place.

Gathering cached keys and values into a batch copies every one of them before it is read once; here each is read where it
lies. Compiled by numba when this module is imported; releases the GIL.

Shapes: B members, N slots, C plays a slot, S plays seen, H heads, D width of a head, W = H · D.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_F32 = numba.float32
_SIGNATURE = numba.void(
    _F32[:, :, ::1], _F32[:, :, ::1], _F32[:, :, ::1], numba.int64[::1], numba.int64[::1], numba.int64[::1],
    _F32[:, ::1], _F32[:, ::1], _F32[:, ::1], _F32[:, :, ::1],
)  # fmt: skip


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compiles now, in a second or two, or loads what an earlier process compiled, where there is a folder to keep it in."""
    try:
        return numba.njit(_SIGNATURE, fastmath=True, nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # a read-only installation and no home
        return numba.njit(_SIGNATURE, fastmath=True, nogil=True, error_model="numpy")(function)


@_compiled
def _decode(
    q_BHD: Any,
    k_NCW: Any,
    v_NCW: Any,
    slots: Any,
    first: Any,
    end: Any,
    lag_BS: Any,
    place_BS: Any,
    slope_2H: Any,
    out: Any,
) -> None:
    num, num_heads, depth = q_BHD.shape
    weight = np.empty(lag_BS.shape[1], np.float32)
    scale = np.float32(1.0 / np.sqrt(depth))
    for b in range(num):
        k_CW, v_CW = k_NCW[slots[b]], v_NCW[slots[b]]
        for h in range(num_heads):
            low = h * depth
            largest = np.float32(-np.finfo(np.float32).max)
            for j in range(first[b], end[b]):
                dot = np.float32(0)
                for d in range(depth):
                    dot += q_BHD[b, h, d] * k_CW[j, low + d]
                score = dot * scale - slope_2H[0, h] * lag_BS[b, j] - slope_2H[1, h] * place_BS[b, j]
                weight[j] = score
                largest = max(largest, score)
            total = np.float32(0)
            for j in range(first[b], end[b]):
                weight[j] = np.exp(weight[j] - largest)
                total += weight[j]
            for d in range(depth):
                out[b, h, d] = 0
            for j in range(first[b], end[b]):
                share = weight[j] / total
                for d in range(depth):
                    out[b, h, d] += share * v_CW[j, low + d]


def decode(
    q_BHD: NDArray[np.float32],
    k_NCW: NDArray[np.float32],
    v_NCW: NDArray[np.float32],
    slots: NDArray[np.int64],
    first_key: NDArray[np.int64],
    num_keys: NDArray[np.int64],
    log_lag_BS: NDArray[np.float32],
    log_place_BS: NDArray[np.float32],
    slope_2H: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Attends with one query a member to plays ``first_key`` up to ``num_keys`` of its slot.

    Scores are q·k / sqrt(D) − slope_0 · log_lag − slope_1 · log_place, as in :mod:`intentrec_core.attention`. All arrays are
    C-contiguous. Rows with no play to see are not allowed: a play always sees itself.

    Shapes: slots, first_key, num_keys i64[B]; returns f32[B, H, D].

    Cost: reads 2 · B · S · W floats, once.
    """
    out = np.empty_like(q_BHD)
    _decode(q_BHD, k_NCW, v_NCW, slots, first_key, num_keys, log_lag_BS, log_place_BS, slope_2H, out)
    return out
