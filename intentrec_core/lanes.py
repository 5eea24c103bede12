"""Thirty-two float32 that stay in registers: what a loop over arrays cannot say to the compiler.

A loop that adds to an array stores the sum and loads it again each time round, and asks before each inner loop whether its
arrays overlap: of a dense layer that took half of the time, of a query's scores two thirds. A sum of this type lives in
registers from the first product to the last. These are LLVM's vectors, which become two registers of AVX-512, four of AVX2 or
eight of NEON.

Nothing is checked: who loads or stores sees to it that 32 elements are there. Arrays are C-contiguous float32, others do not
compile; ``index`` counts elements from the array's beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

NUM_LANES = 32

_VECTOR = ir.VectorType(ir.FloatType(), NUM_LANES)
_INT = ir.IntType(32)
_ALIGNMENT = 4  # of an element: rows begin anywhere
#: As kernels.MATH: sums may be reordered and fused.
_FAST = ("reassoc", "contract", "arcp", "nsz")


class _Lanes(types.Type):
    """numba's type of 32 float32."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


register_model(_Lanes)(partial(models.PrimitiveModel, be_type=_VECTOR))
_lanes = _Lanes()


def _instruction(generator: Callable[..., Any]) -> Callable[..., Any]:
    """What compiled code calls, without numba's typing context."""
    called: Callable[..., Any] = intrinsic(generator)
    return called


def _checked(array: Any) -> Any:
    if isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C":
        return array
    raise TypingError(f"lanes are loaded from and stored to C-contiguous float32, not {array}")


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _halves(builder: Any, low: Any, high: Any) -> Any:
    """A vector whose first half is ``low`` and whose second is ``high``."""
    vector = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), low, _INT(0))
    vector = builder.insert_element(vector, high, _INT(1))
    pattern = [0] * (NUM_LANES // 2) + [1] * (NUM_LANES // 2)
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_INT, NUM_LANES), pattern))


@_instruction
def no_lanes(typing: Any) -> tuple[Any, Callable[..., Any]]:
    """Thirty-two zeros: ``no_lanes()``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [0.0] * NUM_LANES)

    return _lanes(), generate


@_instruction
def load(typing: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
    """The elements from ``index`` on: ``load(array, index)``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = builder.load(_place(context, builder, signature.args[0], *args))
        loaded.align = _ALIGNMENT
        return loaded

    return _lanes(_checked(array), types.intp), generate


@_instruction
def store(typing: Any, lanes: Any, array: Any, index: Any) -> tuple[Any, Callable[..., Any]]:
    """Puts them from ``index`` on: ``store(lanes, array, index)``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[0], _place(context, builder, signature.args[1], *args[1:]), align=_ALIGNMENT)
        return context.get_dummy_value()

    return types.void(_lanes, _checked(array), types.intp), generate


@_instruction
def add(typing: Any, one: Any, other: Any) -> tuple[Any, Callable[..., Any]]:
    """``add(one, other)``: lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=_FAST)

    return _lanes(_lanes, _lanes), generate


@_instruction
def add_scaled(typing: Any, total: Any, lanes: Any, scale: Any) -> tuple[Any, Callable[..., Any]]:
    """``add_scaled(total, lanes, scale)``: total + scale · lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, lanes, scale = args
        return builder.fadd(total, builder.fmul(lanes, _halves(builder, scale, scale), flags=_FAST), flags=_FAST)

    return _lanes(_lanes, _lanes, types.float32), generate


@_instruction
def add_scaled_halves(typing: Any, total: Any, lanes: Any, low: Any, high: Any) -> tuple[Any, Callable[..., Any]]:
    """``add_scaled_halves(total, lanes, low, high)``: the first 16 lanes scaled by ``low``, the others by ``high``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        total, lanes, low, high = args
        return builder.fadd(total, builder.fmul(lanes, _halves(builder, low, high), flags=_FAST), flags=_FAST)

    return _lanes(_lanes, _lanes, types.float32, types.float32), generate
