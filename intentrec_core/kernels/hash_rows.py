"""Compiled: the rows of hashes.

Hashes are spread evenly, so those with the same first bits are one or two: a table says where they begin.

Shapes: N hashes, K known ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentrec_core.kernels.dense import compiled

_HASH_BITS = 64


def first_places(known: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where hashes with the same first bits begin in ``known`` u64[K], which rises, and the end of the last. Shape: i64[2^b + 1],
    between a half of K and K + 1 of them.
    """
    bits = max(1, len(known).bit_length() - 1)
    smallest = np.arange(1 << bits, dtype=np.uint64) << np.uint64(_HASH_BITS - bits)
    return np.append(np.searchsorted(known, smallest), len(known))


@compiled
def find_rows(hashes: Any, known: Any, row_of: Any, first: Any) -> Any:
    """The entry of ``row_of`` i64[K] where ``known`` u64[K] has each of ``hashes`` u64[N]; 0 where it does not. Shape: i64[N].

    ``first``: what :func:`first_places` says of ``known``.
    """
    found, shift = np.zeros(len(hashes), dtype=np.int64), _HASH_BITS
    while 1 << (_HASH_BITS - shift) < len(first) - 1:
        shift -= 1
    for i in range(len(hashes)):
        begins = hashes[i] >> np.uint64(shift)
        for at in range(first[begins], first[begins + np.uint64(1)]):
            if known[at] == hashes[i]:
                found[i] = row_of[at]
    return found
