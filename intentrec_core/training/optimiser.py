"""The optimiser: AdamW, and for a sampled softmax also one that updates only the item rows of the step.

With a sampled softmax, a step involves a few thousand rows of the item table. Updating a million rows by zero would
cost more than the model. The table then has sparse gradients and a lazy Adam, which costs only as much as the rows
involved.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from intentrec_core.model.model import IntentRec


class Optimiser:
    """Updates a model's weights step by step. ``sparse_items`` is for a loss that involves few item rows.

    Rows of a sparse table have no weight decay and no gradient clipping: an Adam step is never longer than its learning
    rate, whatever the gradient.
    """

    def __init__(
        self, model: IntentRec, *, learning_rate: float, weight_decay: float, clip_norm: float, sparse_items: bool
    ) -> None:
        model.item.sparse = sparse_items
        table = model.item.weight
        self._dense = [p for p in model.parameters() if not (sparse_items and p is table)]
        groups = _parameter_groups(model, weight_decay, skipped=table if sparse_items else None)
        self._optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate, fused=True)]
        if sparse_items:
            self._optimisers.append(torch.optim.SparseAdam([table], lr=learning_rate))
        self._learning_rate, self._clip_norm = learning_rate, clip_norm

    def set_rate(self, factor: float) -> float:
        """Sets the learning rate to this share of its peak, and returns it."""
        rate = self._learning_rate * factor
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        return rate

    def step(self, loss: Tensor) -> None:
        """Updates the weights along the gradient of ``loss``."""
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._dense, self._clip_norm)
        for optimiser in self._optimisers:
            optimiser.step()


def _parameter_groups(model: nn.Module, weight_decay: float, skipped: Tensor | None) -> list[dict[str, object]]:
    """Matrices have weight decay; vectors (biases, norms) and slopes do not."""
    named = [(name, p) for name, p in model.named_parameters() if p is not skipped]
    decayed = [p for name, p in named if p.dim() > 1 and not name.endswith("slopes")]
    kept = [p for name, p in named if p.dim() <= 1 or name.endswith("slopes")]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
