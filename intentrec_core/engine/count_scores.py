"""How much each column of counts adds to the scores of a member's list: the gate of a model with counts, in NumPy.

score(i) gains ⟨g(E), x(i)⟩, with the columns x of :mod:`intentrec_core.engine.item_counts`.

Shapes: N queries, W width of the model, C columns.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.model.model import IntentRec


class CountGate:
    """The gate of one model, on the host. Safe from any thread."""

    @torch.inference_mode()
    def __init__(self, model: IntentRec) -> None:
        """Raises: ValueError for a model without counts."""
        if model.count_gate is None:
            raise ValueError("the model has no counts")
        weight, bias = (tensor.float().cpu().numpy() for tensor in model.count_gate.parameters())
        self._weight_WC, self._bias_C = weight.T.copy(), bias.copy()

    @property
    def num_columns(self) -> int:
        """C."""
        return len(self._bias_C)

    def weights(self, item_NW: NDArray[np.float32]) -> NDArray[np.float32]:
        """g(E) of some outputs; to the bit the same whatever other rows there are. Shapes: f32[N, W] -> f32[N, C]."""
        # Not "@": BLAS sums in another order for another number of rows.
        weights: NDArray[np.float32] = np.einsum("nw,wc->nc", item_NW, self._weight_WC) + self._bias_C
        return weights
