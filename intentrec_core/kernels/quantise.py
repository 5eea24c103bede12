"""Vectors as int8 codes with one float32 scale for each head: scale = max |x| / 127, code = x / scale, rounded half to even.

:func:`intentrec_core.engine.quantised.quantised` computes the same in torch.

Shapes: W width, H heads, C plays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled

#: The largest code. -128 is not used, so that x and -x have codes of the same size.
LARGEST_CODE = 127

f32 = np.float32


@compiled
def _scale(x: Any) -> Any:
    """The scale of one head; NaN where a number is NaN or infinite, so that a broken model is noticed."""
    most, broken = f32(0), f32(0)
    for d in range(x.shape[0]):
        size = abs(x[d])
        most = size if size > most else most
        broken += x[d] * f32(0)
    return most / f32(LARGEST_CODE) + broken


@compiled
def quantise(x: Any, scales_HC: Any, place: int) -> None:
    """Replaces a vector by its codes, as whole numbers in float32, and stores the scale of each head at ``place``.

    The code of a number that is not finite is any; the scale says so. Shapes: x f32[W], scales f32[H, ≥ C].
    """
    depth = x.shape[0] // scales_HC.shape[0]
    for head in range(scales_HC.shape[0]):
        part = x[head * depth : (head + 1) * depth]
        scale = _scale(part)
        scales_HC[head, place] = scale
        by = scale if scale > f32(0) else f32(1)
        for d in range(depth):
            code = np.rint(part[d] / by)
            code = code if code < f32(LARGEST_CODE) else f32(LARGEST_CODE)
            part[d] = code if code > f32(-LARGEST_CODE) else f32(-LARGEST_CODE)


@compiled
def multiply(x: Any, by: Any) -> None:
    """Multiplies element by element, in place. Shapes: f32[N] twice."""
    for n in range(x.shape[0]):
        x[n] *= by[n]
