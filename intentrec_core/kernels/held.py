"""What stays the same from call to call, as one argument of compiled code.

numba looks at every array of its arguments at every call, those of named tuples too, some 0.2 µs each. What is held is looked at
once.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.experimental import structref

from intentrec_core.kernels.dense import compiled


@structref.register
class HeldType(types.StructRef):
    """Of numba: the type of :class:`Held`."""

    def preprocess_fields(self, fields: Any) -> Any:
        """A type is made of types, and not of the values that numba knows."""
        return tuple((name, types.unliteral(kind)) for name, kind in fields)


class Held(structref.StructRefProxy):
    """Holds ``value``, a tuple of arrays, named tuples and numbers: compiled code reads ``held.value``.

    The arrays may change, and which arrays they are may not.
    """

    def __new__(cls, value: tuple[Any, ...]) -> Any:
        return _hold(value)


structref.define_proxy(Held, HeldType, ["value"])


@compiled
def _hold(value: Any) -> Any:
    """A :class:`Held`. numba's own constructor is compiled anew in every process, which takes seconds."""
    return Held(value)
