"""How much each column of counts adds to the scores of a member's list: the gate of a model with counts, in NumPy.

score(i) gains ⟨g(E), x(i)⟩, with the columns x of :mod:`intentrec_core.engine.item_counts`.

Shapes: N queries, W width of the model, C columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intentrec_core.model.weights import ModelWeights


class CountGate:
    """The gate of one model, on the host. Safe from any thread."""

    def __init__(self, model: ModelWeights) -> None:
        """Raises: ValueError for a model without counts."""
        if not model.config.item_counts:
            raise ValueError("the model has no counts")
        self._weight_WC, self._bias_C = model.arrays["count_gate.weight"].T.copy(), model.arrays["count_gate.bias"]

    @property
    def num_columns(self) -> int:
        """C."""
        return len(self._bias_C)

    def weights(self, item_NW: NDArray[np.float32]) -> NDArray[np.float32]:
        """g(E) of some outputs; to the bit the same whatever other rows there are. Shapes: f32[N, W] -> f32[N, C]."""
        # Not "@": BLAS sums in another order for another number of rows.
        weights: NDArray[np.float32] = np.einsum("nw,wc->nc", item_NW, self._weight_WC) + self._bias_C
        return weights
