"""What moves the weights: AdamW, and for a sampled softmax an optimiser that touches only the item rows of the step.

With a sampled softmax a step concerns a few thousand rows of the item table. Moving all of a million rows by zero would cost
more than the model: the table then has sparse gradients and a lazy Adam, whose cost is that of the rows seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from intentrec_core.model.model import IntentRec


class Optimiser:
    """One step after another; ``sparse_items`` for a loss that concerns few item rows.

    The rows of a sparse table do not decay, and are not clipped: no Adam step is longer than its rate, whatever the gradient.
    """

    def __init__(
        self, model: IntentRec, *, learning_rate: float, weight_decay: float, clip_norm: float, sparse_items: bool
    ) -> None:
        model.item.sparse = sparse_items
        table = model.item.weight
        self._dense = [p for p in model.parameters() if not (sparse_items and p is table)]
        groups = _parameter_groups(model, weight_decay, skipped=table if sparse_items else None)
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate, fused=True)]
        if sparse_items:
            self._parts.append(torch.optim.SparseAdam([table], lr=learning_rate))
        self._learning_rate, self._clip_norm = learning_rate, clip_norm

    def set_rate(self, factor: float) -> float:
        """Sets the learning rate to this share of its peak, and returns it."""
        rate = self._learning_rate * factor
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
        return rate

    def step(self, loss: Tensor) -> None:
        """Moves the weights against the gradient of ``loss``."""
        for part in self._parts:
            part.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._dense, self._clip_norm)
        for part in self._parts:
            part.step()


def _parameter_groups(model: nn.Module, weight_decay: float, skipped: Tensor | None) -> list[dict[str, object]]:
    """Matrices decay; vectors (biases, norms) and slopes do not."""
    named = [(name, p) for name, p in model.named_parameters() if p is not skipped]
    decayed = [p for name, p in named if p.dim() > 1 and not name.endswith("slopes")]
    kept = [p for name, p in named if p.dim() <= 1 or name.endswith("slopes")]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
