"""What own items are scored from, in the network (:mod:`intentrec_core.model.own_items`) and in NumPy. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from intentrec_core.model.intent_score import MIN_PROBABILITY, Array

#: Columns of a pair of a query and an own item, and of the key of a play.
PAIR_COLUMNS, KEY_WIDTH = 5, 32
MINUTE_S = 60.0


def seen_by_gate(item: Array, probabilities: Iterable[Array], log: Callable[[Array], Array]) -> list[Array]:
    """What the gate sees, to be joined along the last axis: E, and the log probabilities of each head.

    ``log`` is the natural logarithm: ``torch.log`` or ``np.log``. Shapes: f32[..., W], f32[..., L] each.
    """
    return [item, *(log(cast(Any, p).clip(MIN_PROBABILITY)) for p in probabilities)]
