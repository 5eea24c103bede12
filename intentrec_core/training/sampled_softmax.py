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
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class OwnLogits:
    """The own items of each target, and their scores without offsets and counts. Shapes: offsets [N, S], logit f32[N, S]."""

    offsets: OwnOffsets
    logit: Tensor


def logits_of_plays(model: IntentRec, query_BTQ: Tensor, row_BS: Tensor) -> Tensor:
    """Scores, without offsets and counts, of the items of each context's plays, for each of its queries: other contexts' items
    are not scored. Those of row 0 mean nothing.

    Shapes: f32[B, T, Q], i64[B, S] -> f32[B, T, S].
    """
    vector_BSQ, bias_BS = _vectors_of(model, row_BS)
    return torch.baddbmm(bias_BS[:, None], query_BTQ, vector_BSQ.transpose(1, 2))


def sampled_cross_entropy(
    model: IntentRec,
    query_NQ: Tensor,
    row_N: Tensor,
    sampler: ItemSampler,
    gate_NC: Tensor | None = None,
    counts: CountsAt | None = None,
    own: OwnLogits | None = None,
) -> Tensor:
    """Cross-entropy of each target's row against a sample of all items. Own items are all in the sum, exactly.

    Shapes: f32[N, Q], i64[N] (1 and more) -> f32[N].
    Cost: O((N + C) · Q) memory and O(N · C · Q) time; nothing grows with V. With counts, also one float for each target, drawn
    item and column of counts: 131 MB for 3,200 targets and 2,048 drawn items. With own items, also O(N · S), times the columns
    of counts.
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
    is_target_NS = own.offsets.row == row_N[:, None]
    target_N = target_N + (own.offsets.offset * is_target_NS).sum(dim=-1)
    others_NS = _whole_scores(own, gate_NC, counts).masked_fill(is_target_NS, float("-inf"))
    drawn_NC = drawn_NC.masked_fill(_are_own(row_C, own.offsets), float("-inf"))
    others_N = torch.cat([drawn_NC, others_NS], dim=1).logsumexp(dim=-1)
    return torch.logaddexp(target_N, others_N) - target_N


def _whole_scores(own: OwnLogits, gate_NC: Tensor | None, counts: CountsAt | None) -> Tensor:
    """The scores of own items with offsets and counts; -inf for row 0. Shape: f32[N, S]."""
    row_NS = own.offsets.row
    score_NS = own.logit + own.offsets.offset
    if gate_NC is not None and counts is not None:
        of_target, nth = row_NS.nonzero(as_tuple=True)
        at_pairs = CountsAt(counts.counts, counts.ts_s[of_target.cpu().numpy()], counts.device)
        column_PC = at_pairs.of_pairs(row_NS[of_target, nth])
        score_NS = score_NS.index_put((of_target, nth), (gate_NC[of_target] * column_PC).sum(dim=-1), accumulate=True)
    return score_NS.masked_fill(row_NS == 0, float("-inf"))


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
