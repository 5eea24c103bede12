"""Cross-entropy over all items, computed without holding the scores of all plays at once.

Plays times items is by far the largest array in training: the scores of 128 contexts of 100 plays over 12,000 items
take 600 MB, and their gradient takes as much again. Here, a chunk of plays is scored, reduced to its loss and its
gradient, and dropped while it is still in the processor's cache.

Shapes: N plays, V item rows, W width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_SCORES = 1 << 19
"""Scores held at once: 2 MiB as float32, about a core's cache."""
MIN_CHUNK_PLAYS = 64
"""With fewer rows the matrix product is slow, so this many are taken even if their scores do not fit the cache."""


def item_cross_entropy(user_NW: Tensor, weight_VW: Tensor, bias_V: Tensor, row_N: Tensor, share_N: Tensor) -> Tensor:
    """Sum of ``share`` times the negative log probability of item ``row`` under softmax(user · weight + bias).

    Shapes: row i64[N], share f32[N]; returns a scalar. There is no gradient for the shares.
    Cost: O(N · V · W) time, O(V · W + chunk) memory.
    """
    return _ItemCrossEntropy.apply(user_NW, weight_VW, bias_V, row_N, share_N)


class _ItemCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, user_NW: Tensor, weight_VW: Tensor, bias_V: Tensor, row_N: Tensor, share_N: Tensor) -> Tensor:
        loss = user_NW.new_zeros(())
        d_user, d_weight, d_bias = torch.empty_like(user_NW), torch.zeros_like(weight_VW), torch.zeros_like(bias_V)
        wants_gradient = any(ctx.needs_input_grad)
        chunk = max(MIN_CHUNK_PLAYS, CHUNK_SCORES // len(bias_V))
        for low in range(0, len(user_NW), chunk):
            chunk_rows = slice(low, low + chunk)
            user, row, share = user_NW[chunk_rows], row_N[chunk_rows, None], share_N[chunk_rows, None]
            log_NV = torch.log_softmax(torch.addmm(bias_V, user, weight_VW.T), dim=-1)
            loss -= (log_NV.gather(1, row) * share).sum()
            if wants_gradient:
                d_logit = log_NV.exp_().mul_(share).scatter_add_(1, row, -share)
                torch.mm(d_logit, weight_VW, out=d_user[chunk_rows])
                d_weight.addmm_(d_logit.T, user)
                d_bias += d_logit.sum(dim=0)
        ctx.save_for_backward(d_user, d_weight, d_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_user, d_weight, d_bias = ctx.saved_tensors
        return d_user * d_loss, d_weight * d_loss, d_bias * d_loss, None, None
