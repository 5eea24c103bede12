"""Measures the machine's memory read bandwidth: the bound of all code that reads cached keys and values."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from intentrec_core.kernels.dense import compiled

#: Well above any cache; each thread reads its own.
_BYTES_A_THREAD = 256 << 20
_KEPT: dict[int, NDArray[np.float32]] = {}


@compiled
def _read(numbers: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for i in range(numbers.shape[0]):
        total += numbers[i]
    return total


def read_bytes_per_s(num_threads: int, *, quick: bool = False) -> float:
    """Bytes a second that ``num_threads`` threads together read once, in order, from memory."""
    share = (_BYTES_A_THREAD >> 3 if quick else _BYTES_A_THREAD) // 4
    for thread in range(num_threads):
        if len(_KEPT.get(thread, ())) != share:
            _KEPT[thread] = np.ones(share, dtype=np.float32)
            _read(_KEPT[thread])
    with ThreadPoolExecutor(num_threads) as pool:
        began_s = time.perf_counter()
        list(pool.map(_read, [_KEPT[thread] for thread in range(num_threads)]))
        return num_threads * share * 4 / (time.perf_counter() - began_s)
