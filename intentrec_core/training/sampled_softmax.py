"""The softmax over a very large catalogue, estimated from a sample of its items.

From about 100,000 items on, scoring every item for every target costs more than the whole model. Instead, a few
thousand items are drawn for the whole batch, and each is weighted by the inverse of its probability of being drawn, so
that the estimated sum is right on average (importance sampling). Items are drawn in proportion to their plays, which is
close to their share of the sum.

Shapes: V item rows (row 0 no item), N targets, C drawn items, Q width of a query, S own items of a target.

Source: "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model", IEEE
Transactions on Neural Networks 2008; the correction by log q also in "Sampling-Bias-Corrected Neural Modeling for Large
Corpus Item Recommendations", RecSys 2019.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.model.model import IntentRec
from intentrec_core.model.own_items import OwnOffsets
from intentrec_core.plays.counts_at import CountsAt


class ItemSampler:
    """Draws ``num`` items with replacement, never row 0, each with a probability in proportion to its ``counts`` plus
    one.

    Shapes: counts i64[V].
    Raises: ValueError when there is no item to draw.
    """

    def __init__(self, counts: NDArray[np.int64], num: int, device: torch.device) -> None:
        if len(counts) < 2:
            raise ValueError("a sampled softmax needs at least one item")
        smoothed = counts[1:] + 1.0
        share = smoothed / smoothed.sum()
        bounds = np.cumsum(share)
        self._num = num
        self._bounds = torch.from_numpy(bounds / bounds[-1]).to(device)
        self._log_share = torch.from_numpy(np.log(share).astype(np.float32)).to(device)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Rows i64[C], and for each the logarithm of the expected number of draws of this row, f32[C]."""
        points = torch.rand(self._num, dtype=self._bounds.dtype, device=self._bounds.device)
        place = torch.searchsorted(self._bounds, points).clamp(max=len(self._bounds) - 1)
        return place + 1, self._log_share[place] + math.log(self._num)


def sampled_cross_entropy(
    model: IntentRec,
    query_NQ: Tensor,
    row_N: Tensor,
    sampler: ItemSampler,
    gate_NC: Tensor | None = None,
    counts: CountsAt | None = None,
    own: OwnOffsets | None = None,
) -> Tensor:
    """Cross-entropy of each target's row against a sample of all items. Own items, ``own`` [N, S], are all in the sum, exactly.

    Shapes: f32[N, Q], i64[N] (1 and more) -> f32[N].
    Cost: O((N + C) · Q) memory and O(N · C · Q) time; nothing grows with V. With counts, also one float for each target, drawn
    item and column of counts: 131 MB for 3,200 targets and 2,048 drawn items. With own items, also one float for each target and
    item that is anybody's own.
    """
    target_NQ, target_bias_N = _vectors_of(model, row_N)
    target_N = (query_NQ * target_NQ).sum(dim=-1) + target_bias_N
    row_C, log_expected_C = sampler.draw()
    if gate_NC is not None and counts is not None:
        target_N = target_N + (gate_NC * counts.of_pairs(row_N)).sum(dim=-1)
    drawn_CQ, drawn_bias_C = _vectors_of(model, row_C)
    drawn_NC = torch.addmm(drawn_bias_C - log_expected_C, query_NQ, drawn_CQ.T)
    if gate_NC is not None and counts is not None:
        drawn_NC = drawn_NC + torch.bmm(gate_NC[:, None, :], counts.columns(row_C))[:, 0]
    # The target is part of the sum already: if it is also drawn, it would count twice.
    drawn_NC = drawn_NC.masked_fill(row_N[:, None] == row_C, float("-inf"))
    if own is None:
        return torch.logaddexp(target_N, drawn_NC.logsumexp(dim=-1)) - target_N
    target_N = target_N + (own.offset * (own.row == row_N[:, None])).sum(dim=-1)
    others_NS = _own_logits(model, query_NQ, own, gate_NC, counts).masked_fill(own.row == row_N[:, None], float("-inf"))
    drawn_NC = drawn_NC.masked_fill(_are_own(row_C, own), float("-inf"))
    others_N = torch.cat([drawn_NC, others_NS], dim=1).logsumexp(dim=-1)
    return torch.logaddexp(target_N, others_N) - target_N


def _own_logits(
    model: IntentRec, query_NQ: Tensor, own: OwnOffsets, gate_NC: Tensor | None, counts: CountsAt | None
) -> Tensor:
    """The whole scores of own items; -inf for row 0. Shape: f32[N, S]."""
    row_R, nth_NS = torch.unique(own.row, return_inverse=True)
    vector_RQ, bias_R = _vectors_of(model, row_R)
    logit_NR = torch.addmm(bias_R, query_NQ, vector_RQ.T)
    if gate_NC is not None and counts is not None:
        logit_NR = logit_NR + torch.bmm(gate_NC[:, None, :], counts.columns(row_R))[:, 0]
    return (logit_NR.gather(1, nth_NS) + own.offset).masked_fill(own.row == 0, float("-inf"))


def _are_own(row_C: Tensor, own: OwnOffsets) -> Tensor:
    """Which of the drawn rows are own items of each target. Shape: bool[N, C]."""
    drawn_D, nth_C = torch.unique(row_C, return_inverse=True)
    place_NS = torch.searchsorted(drawn_D, own.row).clamp_(max=len(drawn_D) - 1)
    found_NS = (drawn_D[place_NS] == own.row).float()
    return own.offset.new_zeros(len(own.row), len(drawn_D)).scatter_add_(1, place_NS, found_NS)[:, nth_C] > 0


def _vectors_of(model: IntentRec, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors and biases of selected items, as :meth:`IntentRec.item_vectors` gives them for all."""
    weight, bias = model.weights_of(rows)
    return torch.cat([weight, model.item_labels(rows)], dim=-1), bias
