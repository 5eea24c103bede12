"""Cross-entropy over all items, computed without holding the scores of all plays at once.

Plays times items is by far the largest array in training: the scores of 128 contexts of 100 plays over 12,000 items
take 600 MB, and their gradient takes as much again. Here, a chunk of plays is scored, reduced to its loss and its
gradient, and dropped while it is still in the processor's cache. Counts do not fit it: they are several numbers for each score.

Shapes: N plays, V item rows, W width, L labels in the score of an item, Q = W + L, C columns of counts,
S own items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from intentrec_core.model.own_items import OwnOffsets

CHUNK_SCORES = 1 << 19
"""Scores held at once: 2 MiB as float32, about a core's cache."""
MIN_CHUNK_PLAYS = 64
"""With fewer rows the matrix product is slow, so this many are taken even if their scores do not fit the cache."""


Columns = Callable[[slice], Tensor]
"""Columns of all items at some of the plays: f32[n, C, V]."""


def item_cross_entropy(
    query_NQ: Tensor,
    weight_VW: Tensor,
    labels_VL: Tensor,
    bias_V: Tensor,
    row_N: Tensor,
    share_N: Tensor,
    gate_NC: Tensor | None = None,
    columns: Columns | None = None,
    own: OwnOffsets | None = None,
) -> Tensor:
    """Sum of ``share`` times the negative log probability of item ``row`` under softmax(query · [weight, labels] + bias).

    With ``columns``, each play's own columns of the items are added, weighed by its ``gate``. With ``own`` [N, S], the offsets of
    each play's own items.

    Shapes: row i64[N], share f32[N]; returns a scalar. There is no gradient for labels, shares and columns.
    Cost: O(N · V · (Q + C)) time, O(V · Q + chunk) memory.
    """
    own_row, own_offset = (None, None) if own is None else (own.row, own.offset)
    return _ItemCrossEntropy.apply(
        query_NQ, weight_VW, labels_VL, bias_V, row_N, share_N, gate_NC, columns, own_row, own_offset
    )


class _ItemCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_NQ: Tensor,
        weight_VW: Tensor,
        labels_VL: Tensor,
        bias_V: Tensor,
        row_N: Tensor,
        share_N: Tensor,
        gate_NC: Tensor | None,
        columns: Columns | None,
        own_row_NS: Tensor | None,
        own_offset_NS: Tensor | None,
    ) -> Tensor:
        loss = query_NQ.new_zeros(())
        vector_VQ = torch.cat([weight_VW, labels_VL], dim=1) if labels_VL.shape[1] else weight_VW
        d_query, d_weight, d_bias = torch.empty_like(query_NQ), torch.zeros_like(weight_VW), torch.zeros_like(bias_V)
        d_gate = None if gate_NC is None else torch.empty_like(gate_NC)
        d_own = None if own_offset_NS is None else torch.empty_like(own_offset_NS)
        wants_gradient = any(ctx.needs_input_grad)
        chunk = max(MIN_CHUNK_PLAYS, CHUNK_SCORES // len(bias_V))
        for low in range(0, len(query_NQ), chunk):
            chunk_rows = slice(low, low + chunk)
            query, row, share = query_NQ[chunk_rows], row_N[chunk_rows, None], share_N[chunk_rows, None]
            logit_NV = torch.addmm(bias_V, query, vector_VQ.T)
            if gate_NC is not None and columns is not None:
                column_NCV = columns(chunk_rows)
                logit_NV += torch.bmm(gate_NC[chunk_rows, None, :], column_NCV)[:, 0]
            if own_row_NS is not None and own_offset_NS is not None:
                logit_NV.scatter_add_(1, own_row_NS[chunk_rows], own_offset_NS[chunk_rows])
            log_NV = torch.log_softmax(logit_NV, dim=-1)
            loss -= (log_NV.gather(1, row) * share).sum()
            if wants_gradient:
                d_logit = log_NV.exp_().mul_(share).scatter_add_(1, row, -share)
                torch.mm(d_logit, vector_VQ, out=d_query[chunk_rows])
                d_weight.addmm_(d_logit.T, query[:, : weight_VW.shape[1]])
                d_bias += d_logit.sum(dim=0)
                if d_gate is not None:
                    d_gate[chunk_rows] = torch.bmm(column_NCV, d_logit[:, :, None])[:, :, 0]
                if d_own is not None and own_row_NS is not None:
                    d_own[chunk_rows] = d_logit.gather(1, own_row_NS[chunk_rows])
        ctx.save_for_backward(d_query, d_weight, d_bias, d_gate, d_own)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_query, d_weight, d_bias, d_gate, d_own = ctx.saved_tensors
        d_gate = None if d_gate is None else d_gate * d_loss
        d_own = None if d_own is None else d_own * d_loss
        return d_query * d_loss, d_weight * d_loss, None, d_bias * d_loss, None, None, d_gate, None, None, d_own
