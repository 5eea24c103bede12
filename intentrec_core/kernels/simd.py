"""Many float32 that stay in registers: what a loop over arrays cannot say to the compiler.

A loop that adds to an array stores the sum and loads it again each time round, and asks before each inner loop whether its
arrays overlap: of a dense layer that took half of the time, of a query's scores two thirds. A sum of this type lives in
registers from the first product to the last. These are LLVM's vectors: 32 lanes become two registers of AVX-512, four of AVX2 or
eight of NEON. A tile, four sums at once over operands in the caches, has 16 where there are no 32 wide registers to hold it.

Nothing is checked: who loads or stores sees to it that as many elements are there. Arrays are C-contiguous float32, others do not
compile; ``index`` counts elements from the array's beginning.
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
#: Of a tile: on AVX2 four sums of 32 lanes would be all of its 16 registers (decision 71).
TILE_LANES = 32 if binding.get_host_cpu_features().get("avx512f") else 16

_INT = ir.IntType(32)
#: Elements of a cache line.
_LINE = 16
_ALIGNMENT = 4  # of an element: rows begin anywhere
#: As kernels.MATH: sums may be reordered and fused.
_FAST = ("reassoc", "contract", "arcp", "nsz")


class _Lanes(types.Type):
    """numba's type of ``num`` float32. Where a tile has as many lanes, its type is another one all the same."""

    def __init__(self, name: str, num: int) -> None:
        super().__init__(name=name)
        self.vector = ir.VectorType(ir.FloatType(), num)


register_model(_Lanes)(lambda manager, lanes: models.PrimitiveModel(manager, lanes, lanes.vector))


def aligned_zeros(*shape: int) -> NDArray[np.float32]:
    """Zeros that begin with a cache line, which numpy's own seldom do: rows that loads do not straddle are read faster.

    Memory is taken as it is first written to.
    """
    num = math.prod(shape)
    roomy = np.zeros(num + _LINE, dtype=np.float32)
    first = -(roomy.ctypes.data // roomy.itemsize) % _LINE
    return roomy[first : first + num].reshape(shape)


def _instruction(generator: Callable[..., Any]) -> Callable[..., Any]:
    """What compiled code calls, without numba's typing context."""
    called: Callable[..., Any] = intrinsic(generator)
    return called


def _checked(array: Any) -> Any:
    if isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C":
        return array
    raise TypingError(f"lanes are loaded from and stored to C-contiguous float32, not {array}")


def _known(lanes: Any) -> Any:
    if isinstance(lanes, _Lanes):
        return lanes
    raise TypingError(f"lanes are stored and added, not {lanes}")


def _same(total: Any, lanes: Any) -> Any:
    if _known(total) is _known(lanes):
        return total
    raise TypingError(f"lanes of one type are added, not {total} and {lanes}")


def _place(context: Any, builder: Any, vector: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _halves(builder: Any, vector: Any, low: Any, high: Any) -> Any:
    """A vector whose first half is ``low`` and whose second is ``high``."""
    both = builder.insert_element(ir.Constant(vector, ir.Undefined), low, _INT(0))
    both = builder.insert_element(both, high, _INT(1))
    pattern = [0] * (vector.count // 2) + [1] * (vector.count // 2)
    return builder.shuffle_vector(both, both, ir.Constant(ir.VectorType(_INT, vector.count), pattern))


def _beginning(lanes: _Lanes) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two instructions of a type: zeros, ``no_lanes()``, and an array's elements from ``index`` on, ``load(array, index)``."""

    @_instruction
    def no_lanes(typing: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return ir.Constant(lanes.vector, [0.0] * lanes.vector.count)

        return lanes(), generate

    @_instruction
    def load(typing: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            loaded = builder.load(_place(context, builder, lanes.vector, signature.args[0], *args))
            loaded.align = _ALIGNMENT
            return loaded

        return lanes(_checked(array), types.intp), generate

    return no_lanes, load


no_lanes, load = _beginning(_Lanes("Lanes", NUM_LANES))
no_tile_lanes, load_tile_lanes = _beginning(_Lanes("TileLanes", TILE_LANES))


@_instruction
def store(typing: Any, lanes: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
    """Puts them from ``index`` on: ``store(lanes, array, index)``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[0], _place(context, builder, lanes.vector, signature.args[1], *args[1:]), align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(_known(lanes), _checked(array), types.intp), generate


@_instruction
def add(typing: Any, one: Any, other: Any) -> tuple[Any, Callable[..., Any]]:
    """``add(one, other)``: lane by lane."""

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
    """``add_scaled_halves(total, lanes, low, high)``: the first half of the lanes scaled by ``low``, the other by ``high``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total_value, value, by_low, by_high = args
        scales = _halves(builder, lanes.vector, by_low, by_high)
        return builder.fadd(total_value, builder.fmul(value, scales, flags=_FAST), flags=_FAST)

    return _same(total, lanes)(total, lanes, types.float32, types.float32), generate
