"""The compiled blocks beside numpy, in the shapes in which a part of a row or of a tile is left over.

Tolerance: float32 sums of a few hundred products of numbers around 1, in another order.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError
from numpy.typing import NDArray

from intentrec_core.engine.cpu.block import make_scratch
from intentrec_core.engine.cpu.decode_attention import GROUP, attend, store_key
from intentrec_core.engine.cpu.encoder import CpuEncoder
from intentrec_core.engine.cpu.weights import step_weights
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.quantised import quantised
from intentrec_core.kernels.dense import compiled, linear
from intentrec_core.kernels.quantise import quantise
from intentrec_core.kernels.simd import NUM_LANES, add, aligned_zeros, load, load_tile_lanes, store
from tests.worlds.tiny_world import TinyWorld

TOLERANCE = 1e-4
UNTOUCHED = np.float32(7)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("depth", [1, 6, 128])
@pytest.mark.parametrize("width", [5, 15, 16, 17, 31, 32, 33, 63, 64, 96, 127, 128, 161])
@pytest.mark.parametrize("num_rows", [1, 3, 4, 6])
def test_a_dense_layer_adds_the_product_to_its_rows_and_touches_no_other(num_rows: int, width: int, depth: int) -> None:
    x, w, out = normal(num_rows + 1, depth), normal(depth, width, seed=1), normal(num_rows + 1, width, seed=2)
    out[num_rows] = UNTOUCHED
    expected = out[:num_rows] + x[:num_rows] @ w
    linear(x, w, out, num_rows)
    np.testing.assert_allclose(out[:num_rows], expected, atol=TOLERANCE)
    assert (out[num_rows] == UNTOUCHED).all()


@pytest.mark.parametrize(
    ("num_heads", "depth", "num_kv_heads"),
    [
        *[
            (4, 32, 4),
            (4, 16, 4),
            (8, 16, 8),
            (6, 32, 6),
            (2, 64, 2),
            (3, 16, 3),
            (5, 32, 5),
            (2, 7, 2),
            (4, 24, 4),
            (1, 1, 1),
        ],
        # Groups of two, three, four, seven and eight heads that share; a width of a head that is no multiple of 32.
        *[(4, 32, 1), (4, 32, 2), (8, 64, 1), (6, 32, 2), (7, 32, 1), (2, 64, 1), (4, 16, 2), (4, 24, 1), (2, 7, 1)],
    ],
)
@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 32), (5, 33), (31, 100)])
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_a_query_mixes_the_values_of_the_plays_it_sees_by_its_scores(
    num_heads: int, depth: int, num_kv_heads: int, first: int, end: int, dtype: type
) -> None:
    width, kv_width, context_size = num_heads * depth, num_kv_heads * depth, 100
    num_groups = -(-context_size // GROUP)
    keys, values, q = normal(context_size, kv_width), normal(context_size, kv_width, seed=1), normal(width, seed=2)
    lag, place = np.abs(normal(context_size, seed=3)), np.log1p(np.arange(context_size)[::-1]).astype(np.float32)
    slopes = np.abs(normal(2, num_heads, seed=4))
    k_GUP = np.zeros((num_groups, kv_width, GROUP), dtype=dtype)
    at = 64  # plays of other contexts come first
    k_scales, v_scales = (np.full((num_kv_heads, at + context_size), np.nan, np.float32) for _ in range(2))
    stored, dequantised = values.copy(), []
    for scales, rows in ((k_scales, keys), (v_scales, stored)) if dtype is np.int8 else ():
        for j in range(context_size):
            quantise(rows[j], scales, at + j)
        dequantised.append(rows.reshape(-1, num_kv_heads, depth) * scales.T[at:, :, None])
    for j in range(context_size):
        store_key(k_GUP, j, keys[j])
    if dtype is np.int8:
        keys, values = (rows.reshape(context_size, kv_width) for rows in dequantised)
    stored = stored.astype(dtype)
    unseen = np.r_[0:first, end:context_size]  # what is not seen is not read
    if dtype is np.int8:
        k_scales[:, at + unseen] = v_scales[:, at + unseen] = np.nan
    else:
        stored[unseen] = np.nan
    out = np.full(width + 1, UNTOUCHED)
    room, powers = np.zeros((num_heads, num_groups * GROUP), np.float32), np.zeros(context_size, np.int32)

    attend(q, k_GUP, stored, k_scales, v_scales, at, first, end, lag, place, slopes, room, powers, out[:width])

    seen = slice(first, end)
    keys, values = (
        np.repeat(rows.reshape(-1, num_kv_heads, depth), num_heads // num_kv_heads, axis=1)[seen]
        for rows in (keys, values)
    )
    scores = np.einsum("jhd,hd->hj", keys, q.reshape(num_heads, depth)) / depth**0.5
    scores -= slopes[0][:, None] * lag[seen] + slopes[1][:, None] * place[context_size - (end - first) :]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = np.einsum("hj,jhd->hd", shares, values).reshape(width)
    np.testing.assert_allclose(out[:width], expected, atol=TOLERANCE)
    assert out[width] == UNTOUCHED


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_a_vector_is_quantised_by_the_largest_number_of_each_head(num_heads: int) -> None:
    x = normal(50, 32)
    x[0], x[1, 3] = 0.0, 40.0
    scales, codes = np.full((num_heads, 51), UNTOUCHED), x.copy()
    for j in range(len(x)):
        quantise(codes[j], scales, j)
    wanted, wanted_scales = quantised(torch.from_numpy(x).view(50, 1, num_heads, -1))
    np.testing.assert_array_equal(codes, wanted.numpy().reshape(x.shape))
    np.testing.assert_allclose(scales[:, :50].T, wanted_scales[:, 0, :, 0], rtol=1e-6)
    assert (scales[:, 50] == UNTOUCHED).all()
    assert not scales[:, 0].any(), "of an all-zero vector"
    largest = np.abs(codes.reshape(50, num_heads, -1)).max(axis=2)
    assert (largest[1:] == 127).all()
    error = np.abs(codes.reshape(50, num_heads, -1) * scales.T[:50, :, None] - x.reshape(50, num_heads, -1))
    assert (error <= 0.5001 * scales.T[:50, :, None]).all()


def test_a_number_halfway_between_two_codes_goes_to_the_even_one() -> None:
    x, scales = (
        np.array([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5], dtype=np.float32),
        np.zeros((1, 1), np.float32),
    )
    quantise(x, scales, 0)
    assert x.tolist() == [127, 0, 2, 2, 0, -2, -2, 126]
    assert scales[0, 0] == 1


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_makes_a_scale_that_is_none(number: float) -> None:
    x, scales = np.array([1, number, 0, 2], dtype=np.float32), np.zeros((1, 1), np.float32)
    quantise(x, scales, 0)
    assert np.isnan(scales).all()
    assert (np.abs(x) <= 127).all()


@pytest.mark.parametrize("array", [np.zeros(64), np.zeros((64, 2), np.float32).T[0]], ids=["float64", "strided"])
def test_lanes_of_anything_but_contiguous_float32_do_not_compile(array: NDArray[np.float32]) -> None:
    @compiled
    def copy(numbers: NDArray[np.float32]) -> None:
        store(load(numbers, 0), numbers, 32)

    with pytest.raises(TypingError, match="C-contiguous float32"):
        copy(array)


def test_a_group_of_keys_is_loaded_at_once() -> None:
    assert GROUP == NUM_LANES


def test_lanes_of_a_tile_are_not_added_to_others_even_where_they_are_as_many() -> None:
    @compiled
    def mixed(x: NDArray[np.float32]) -> None:
        store(add(load(x, 0), load_tile_lanes(x, 0)), x, 0)

    with pytest.raises(TypingError, match="lanes of one type"):
        mixed(normal(64))


def test_only_lanes_are_stored() -> None:
    @compiled
    def stored(x: NDArray[np.float32]) -> None:
        store(x[0], x, 0)

    with pytest.raises(TypingError, match="lanes are stored"):
        stored(normal(64))


OTHER_TILE = """
import sys
import llvmlite.binding
import numpy as np
asked = llvmlite.binding.get_host_cpu_features
llvmlite.binding.get_host_cpu_features = lambda: {"avx512f": sys.argv[1] == "32"}
from intentrec_core.kernels.simd import TILE_LANES
llvmlite.binding.get_host_cpu_features = asked
from index.grouped_vectors import GroupedVectors
from intentrec_core.kernels.dense import linear
rng = np.random.default_rng(0)
assert TILE_LANES == int(sys.argv[1])
for num_rows, depth, width in ((1, 6, 128), (3, 128, 127), (4, 5, 33), (7, 64, 161)):
    x, w = rng.standard_normal((num_rows, depth)).astype("f4"), rng.standard_normal((depth, width)).astype("f4")
    out = np.ones((num_rows, width), "f4")
    linear(x, w, out, num_rows)
    np.testing.assert_allclose(out, 1 + x @ w, atol=1e-4)
vectors, queries = rng.standard_normal((77, 19)).astype("f4"), rng.standard_normal((5, 19)).astype("f4")
np.testing.assert_allclose(GroupedVectors(vectors).scores(queries)[:, :77], queries @ vectors.T, atol=1e-4)
"""


@pytest.mark.parametrize("num_lanes", [16, 32])
def test_tiles_of_either_size_compute_the_same(tmp_path: Path, num_lanes: int) -> None:
    """Any processor can do both: the wider tile only spills where registers are few."""
    subprocess.run(
        [sys.executable, "-c", OTHER_TILE, str(num_lanes)],
        check=True,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[4],
    )


@pytest.mark.parametrize("kv_dtype", KvDtype)
def test_what_lanes_read_begins_with_a_cache_line(world: TinyWorld, kv_dtype: KvDtype) -> None:
    weights = step_weights(world.model().weights())
    layers, stages = weights.layers, (weights.intent, weights.item)
    dense = [
        layers.qkv,
        layers.out,
        layers.wide,
        layers.narrow,
        weights.short_qkv,
        weights.short_out,
        weights.heads.logits,
    ]
    dense += [array for stage in stages for array in (stage.fields, stage.short_term, stage.mixed, stage.time)]
    encoder = CpuEncoder(world.model().weights(), 1 << 20, kv_dtype)
    scratch = make_scratch(weights, encoder._cache)
    read = [*dense, encoder._cache.k, encoder._cache.v, scratch.x, scratch.y, scratch.qkv, scratch.wide, scratch.scores]
    read = [array for array in read if array.size]  # the intent stage takes no Z in
    assert [array.ctypes.data % 64 for array in read] == [0] * len(read)


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 1, 7, 33), (100_000, 3)])
def test_aligned_zeros_begin_at_a_cache_line_and_share_no_memory(shape: tuple[int, ...], dtype: type) -> None:
    first, second = aligned_zeros(*shape, dtype=dtype), aligned_zeros(*shape, dtype=dtype)
    assert first.shape == shape
    assert first.flags.c_contiguous
    assert first.ctypes.data % 64 == 0
    first[...] = UNTOUCHED
    assert not second.any()
