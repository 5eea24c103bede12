"""SIMD vectors of float32 that stay in registers, for use in compiled loops. They are loaded from float32 or from int8.

A loop that adds to an array stores and reloads the sum in each iteration, and checks before each inner loop whether its
arrays overlap. This took half of the time of a dense layer, and two thirds of the time of a query's scores. A sum of
this type stays in registers from the first product to the last. The types are LLVM vectors: 32 lanes become two
registers of AVX-512, four of AVX2 or eight of NEON. A tile, four sums at once over operands in the caches, uses 16
lanes on processors without 32 wide registers.

Nothing is checked at run time: the caller ensures that an array has enough elements for each load and store. Arrays are
C-contiguous float32, or for loads int8, which become float32 on their way; others do not compile. ``index`` counts elements
from the beginning of the array.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

NUM_LANES = 32
#: Lanes of a tile. On AVX2, four sums of 32 lanes would take all of its 16 registers (decision 71).
TILE_LANES = 32 if binding.get_host_cpu_features().get("avx512f") else 16

_INT = ir.IntType(32)
#: Bytes of a cache line.
CACHE_LINE = 64
_ALIGNMENT = 4  # that of one element: rows begin anywhere
#: As MATH in kernels/dense.py: sums may be reordered and fused.
_FAST = ("reassoc", "contract", "arcp", "nsz")


class _Lanes(types.Type):
    """numba's type for ``num`` float32. The type of a tile is always a separate one, even if it has the same number of
    lanes.
    """

    def __init__(self, name: str, num: int) -> None:
        super().__init__(name=name)
        self.vector = ir.VectorType(ir.FloatType(), num)


register_model(_Lanes)(lambda manager, lanes: models.PrimitiveModel(manager, lanes, lanes.vector))


def aligned_zeros(*shape: int, dtype: type[Any] = np.float32) -> NDArray[Any]:
    """Zeros that begin at a cache line, which numpy's own arrays rarely do. Loads that do not straddle two cache lines
    are faster.

    Memory is taken when it is first written to.
    """
    num, line = math.prod(shape), CACHE_LINE // np.dtype(dtype).itemsize
    roomy = np.zeros(num + line, dtype=dtype)
    first = -(roomy.ctypes.data // roomy.itemsize) % line
    return roomy[first : first + num].reshape(shape)


def _instruction(generator: Callable[..., Any]) -> Callable[..., Any]:
    """A function that compiled code calls, without numba's typing context."""
    called: Callable[..., Any] = intrinsic(generator)
    return called


def _checked(array: Any) -> Any:
    if isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C":
        return array
    raise TypingError(f"lanes are loaded from and stored to arrays of C-contiguous float32, not {array}")


def _loadable(array: Any) -> Any:
    return array if _is_int8(array) and array.layout == "C" else _checked(array)


def _is_int8(array: Any) -> bool:
    return isinstance(array, types.Array) and array.dtype == types.int8


def _known(lanes: Any) -> Any:
    if isinstance(lanes, _Lanes):
        return lanes
    raise TypingError(f"only lanes are stored and added, not {lanes}")


def _same(total: Any, lanes: Any) -> Any:
    if _known(total) is _known(lanes):
        return total
    raise TypingError(f"only lanes of one type are added, not {total} and {lanes}")


def _place(context: Any, builder: Any, vector: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _halves(builder: Any, vector: Any, low: Any, high: Any) -> Any:
    """A vector with ``low`` in its first half and ``high`` in its second half."""
    both = builder.insert_element(ir.Constant(vector, ir.Undefined), low, _INT(0))
    both = builder.insert_element(both, high, _INT(1))
    pattern = [0] * (vector.count // 2) + [1] * (vector.count // 2)
    return builder.shuffle_vector(both, both, ir.Constant(ir.VectorType(_INT, vector.count), pattern))


def _beginning(lanes: _Lanes) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two instructions of a type: ``no_lanes()``, which gives zeros, and ``load(array, index)``, which loads elements
    from ``index`` on.
    """
    int8s = ir.VectorType(ir.IntType(8), lanes.vector.count)

    @_instruction
    def no_lanes(typing: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return ir.Constant(lanes.vector, [0.0] * lanes.vector.count)

        return lanes(), generate

    @_instruction
    def load(typing: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if _is_int8(signature.args[0]):
                loaded = builder.load(_place(context, builder, int8s, signature.args[0], *args))
                loaded.align = 1
                return builder.sitofp(loaded, lanes.vector)
            loaded = builder.load(_place(context, builder, lanes.vector, signature.args[0], *args))
            loaded.align = _ALIGNMENT
            return loaded

        return lanes(_loadable(array), types.intp), generate

    return no_lanes, load


no_lanes, load = _beginning(_Lanes("Lanes", NUM_LANES))
no_tile_lanes, load_tile_lanes = _beginning(_Lanes("TileLanes", TILE_LANES))


@_instruction
def holds_codes(typing: Any, array: Any) -> tuple[Any, Callable[..., Any]]:
    """``holds_codes(array)``: whether an array is of int8. A constant of the compiled function: the branch that is not taken
    leaves no code.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, _is_int8(signature.args[0]))

    return types.boolean(array), generate


@_instruction
def store(typing: Any, lanes: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
    """``store(lanes, array, index)``: writes the lanes to the elements from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[0], _place(context, builder, lanes.vector, signature.args[1], *args[1:]), align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(_known(lanes), _checked(array), types.intp), generate


@_instruction
def add(typing: Any, one: Any, other: Any) -> tuple[Any, Callable[..., Any]]:
    """``add(one, other)``: adds lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=_FAST)

    return _same(one, other)(one, other), generate


@_instruction
def add_scaled(typing: Any, total: Any, lanes: Any, scale: Any) -> tuple[Any, Callable[..., Any]]:
    """``add_scaled(total, lanes, scale)``: total + scale · lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total_value, value, by = args
        scales = _halves(builder, lanes.vector, by, by)
        return builder.fadd(total_value, builder.fmul(value, scales, flags=_FAST), flags=_FAST)

    return _same(total, lanes)(total, lanes, types.float32), generate


@_instruction
def add_scaled_halves(typing: Any, total: Any, lanes: Any, low: Any, high: Any) -> tuple[Any, Callable[..., Any]]:
    """``add_scaled_halves(total, lanes, low, high)``: adds the lanes, with the first half scaled by ``low`` and the
    second by ``high``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total_value, value, by_low, by_high = args
        scales = _halves(builder, lanes.vector, by_low, by_high)
        return builder.fadd(total_value, builder.fmul(value, scales, flags=_FAST), flags=_FAST)

    return _same(total, lanes)(total, lanes, types.float32, types.float32), generate
