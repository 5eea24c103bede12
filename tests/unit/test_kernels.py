"""The compiled blocks beside numpy, in the shapes in which a part of a row or of a tile is left over.

Tolerance: float32 sums of a few hundred products of numbers around 1, in another order.
"""

from __future__ import annotations

import numpy as np
import pytest
from numba.core.errors import TypingError
from numpy.typing import NDArray

from intentrec_core.decode_attention import GROUP, attend, store_key
from intentrec_core.kernels import compiled, linear
from intentrec_core.lanes import NUM_LANES, TILE_LANES, aligned_zeros, load, store

TOLERANCE = 1e-4
UNTOUCHED = np.float32(7)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("depth", [1, 6, 128])
@pytest.mark.parametrize("width", [5, 15, 16, 17, 32, 33, 64, 96, 128, 161])
@pytest.mark.parametrize("num_rows", [1, 3, 4, 6])
def test_a_dense_layer_adds_the_product_to_its_rows_and_touches_no_other(num_rows: int, width: int, depth: int) -> None:
    x, w, out = normal(num_rows + 1, depth), normal(depth, width, seed=1), normal(num_rows + 1, width, seed=2)
    out[num_rows] = UNTOUCHED
    expected = out[:num_rows] + x[:num_rows] @ w
    linear(x, w, out, num_rows)
    np.testing.assert_allclose(out[:num_rows], expected, atol=TOLERANCE)
    assert (out[num_rows] == UNTOUCHED).all()


@pytest.mark.parametrize(
    ("num_heads", "depth"), [(4, 32), (4, 16), (8, 16), (6, 32), (2, 64), (3, 16), (5, 32), (2, 7), (4, 24), (1, 1)]
)
@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 32), (5, 33), (31, 100)])
def test_a_query_mixes_the_values_of_the_plays_it_sees_by_its_scores(
    num_heads: int, depth: int, first: int, end: int
) -> None:
    width, context_size = num_heads * depth, 100
    num_groups = -(-context_size // GROUP)
    keys, values, q = normal(context_size, width), normal(context_size, width, seed=1), normal(width, seed=2)
    lag, place = np.abs(normal(context_size, seed=3)), np.log1p(np.arange(context_size)[::-1]).astype(np.float32)
    slopes = np.abs(normal(2, num_heads, seed=4))
    k_GWP = np.zeros((num_groups, width, GROUP), dtype=np.float32)
    for j in range(context_size):
        store_key(k_GWP, j, keys[j])
    values[:first] = values[end:] = np.nan  # what is not seen is not read
    out = np.full(width + 1, UNTOUCHED)
    room, powers = np.zeros((num_heads, num_groups * GROUP), np.float32), np.zeros(context_size, np.int32)

    attend(q, k_GWP, values, first, end, lag, place, slopes, room, powers, out[:width])

    seen = slice(first, end)
    scores = np.einsum("jhd,hd->hj", keys.reshape(-1, num_heads, depth)[seen], q.reshape(num_heads, depth)) / depth**0.5
    scores -= slopes[0][:, None] * lag[seen] + slopes[1][:, None] * place[context_size - (end - first) :]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = np.einsum("hj,jhd->hd", shares, values.reshape(-1, num_heads, depth)[seen]).reshape(width)
    np.testing.assert_allclose(out[:width], expected, atol=TOLERANCE)
    assert out[width] == UNTOUCHED


@pytest.mark.parametrize("array", [np.zeros(64), np.zeros((64, 2), np.float32).T[0]], ids=["float64", "strided"])
def test_lanes_of_anything_but_contiguous_float32_do_not_compile(array: NDArray[np.float32]) -> None:
    @compiled
    def copy(numbers: NDArray[np.float32]) -> None:
        store(load(numbers, 0), numbers, 32)

    with pytest.raises(TypingError, match="C-contiguous float32"):
        copy(array)


def test_a_tile_is_whole_or_half_the_lanes_and_divides_a_group_of_keys() -> None:
    assert TILE_LANES in (NUM_LANES // 2, NUM_LANES)
    assert GROUP == NUM_LANES


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 1, 7, 33), (100_000, 3)])
def test_aligned_zeros_begin_with_a_cache_line_and_belong_to_nobody_else(shape: tuple[int, ...]) -> None:
    first, second = aligned_zeros(*shape), aligned_zeros(*shape)
    assert first.shape == shape
    assert first.flags.c_contiguous
    assert first.ctypes.data % 64 == 0
    first[...] = UNTOUCHED
    assert not second.any()
