"""Attention for training: computes what :class:`intentrec_core.model.attention.FullAttend` computes, with dropout and
its own gradient.

Autograd would store, and read again, a dozen tensors with an element for every pair of query and key: biases, masks,
scores, random numbers. Here, a layer stores the probabilities and which of them were dropped, and processes a few
contexts at a time while they are in the processor's cache. For contexts of 100 plays on a CPU this takes a sixth of the
time.

Shapes: B contexts, T plays (queries and keys are the same), H heads, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from intentrec_core.model.attention import MASKED
from intentrec_core.model.config import SHORT_TERM_LAYER, TIME_UNIT_S
from intentrec_core.model.dropout import keep_mask

CHUNK_SCORES = 1 << 18
"""Scores processed at once on a CPU: 1 MiB as float32, about a core's cache."""


class TrainingAttend:
    """Attention of every play of a context to itself and to earlier plays, with dropout of the probabilities."""

    def __init__(self, ts_s: Tensor, short_term_window_s: float, dropout: float) -> None:
        lag_s = (ts_s[:, :, None] - ts_s[:, None, :]).clamp_(min=0.0)
        place = torch.arange(ts_s.shape[1], device=ts_s.device)
        lag_place = place[:, None] - place[None, :]
        self._log_lag_BTT = torch.log1p(lag_s.float() / TIME_UNIT_S)
        self._log_place_TT = torch.log1p(lag_place.clamp(min=0).float())
        self._future_TT = lag_place < 0
        self._old_BTT = lag_s > short_term_window_s
        self._dropout = dropout

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """See :class:`intentrec_core.model.attention.Attend`."""
        time_H, place_H = functional.softplus(slopes_2H)
        place_bias_HTT = (-place_H[:, None, None] * self._log_place_TT).masked_fill(self._future_TT, MASKED)
        hidden_BTT = self._old_BTT if layer == SHORT_TERM_LAYER else None
        log_lag_BTT = self._log_lag_BTT.to(q_BTHD.dtype)
        return _Attention.apply(q_BTHD, k_BTHD, v_BTHD, -time_H, place_bias_HTT, log_lag_BTT, hidden_BTT, self._dropout)


class _Attention(torch.autograd.Function):
    """softmax(q·k / sqrt(D) + slope · log_lag + place_bias) without hidden keys, with dropout, times v."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BTHD: Tensor,
        k_BTHD: Tensor,
        v_BTHD: Tensor,
        slope_H: Tensor,
        place_bias_HTT: Tensor,
        log_lag_BTT: Tensor,
        hidden_BTT: Tensor | None,
        dropout: float,
    ) -> Tensor:
        num, length, heads, depth = q_BTHD.shape
        out_BTHD = torch.empty_like(q_BTHD, memory_format=torch.contiguous_format)
        probability = q_BTHD.new_empty(num, heads, length, length)
        keep = keep_mask(probability.shape, dropout, q_BTHD.device) if dropout else None
        for chunk in _chunks(probability):
            q, k, v = (x[chunk].transpose(1, 2) for x in (q_BTHD, k_BTHD, v_BTHD))
            score = torch.matmul(q * depth**-0.5, k.transpose(2, 3))
            score.add_(place_bias_HTT).addcmul_(log_lag_BTT[chunk, None], slope_H[:, None, None])
            if hidden_BTT is not None:
                score.masked_fill_(hidden_BTT[chunk, None], MASKED)
            torch.softmax(score, dim=-1, out=probability[chunk])
            kept = probability[chunk] if keep is None else torch.mul(probability[chunk], keep[chunk], out=score)
            out_BTHD[chunk] = torch.matmul(kept, v).transpose(1, 2)
        ctx.save_for_backward(q_BTHD, k_BTHD, v_BTHD, probability, log_lag_BTT, keep)
        ctx.scale = 1.0 / (1.0 - dropout)
        return out_BTHD.mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BTHD: Tensor) -> tuple[Tensor | None, ...]:
        q_BTHD, k_BTHD, v_BTHD, probability, log_lag_BTT, keep = ctx.saved_tensors
        _, length, heads, depth = q_BTHD.shape
        d_q, d_k, d_v = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q_BTHD, k_BTHD, v_BTHD))
        d_slope, d_place = q_BTHD.new_zeros(heads), q_BTHD.new_zeros(heads, length, length)
        for chunk in _chunks(probability):
            q, k, v = (x[chunk].transpose(1, 2) for x in (q_BTHD, k_BTHD, v_BTHD))
            d_out = d_out_BTHD[chunk].transpose(1, 2) * ctx.scale
            p = probability[chunk]
            d_score = torch.matmul(d_out, v.transpose(2, 3))
            if keep is not None:
                d_score.mul_(keep[chunk])
            kept = p if keep is None else p * keep[chunk]
            d_v[chunk] = torch.matmul(kept.transpose(2, 3), d_out).transpose(1, 2)
            d_score.sub_((d_score * p).sum(dim=-1, keepdim=True)).mul_(p)
            d_q[chunk] = torch.matmul(d_score, k).transpose(1, 2)
            d_k[chunk] = torch.matmul(d_score.transpose(2, 3), q).transpose(1, 2)
            d_slope += torch.einsum("bhts,bts->h", d_score, log_lag_BTT[chunk])
            d_place += d_score.sum(dim=0)
        root = depth**-0.5
        return d_q.mul_(root), d_k.mul_(root), d_v, d_slope, d_place, None, None, None


def _chunks(score_BHTT: Tensor) -> list[slice]:
    """Chunks of contexts to process together: a few contexts on a CPU, all of them on other devices."""
    num = len(score_BHTT)
    size = max(1, CHUNK_SCORES // score_BHTT[0].numel()) if score_BHTT.is_cpu else num
    return [slice(low, low + size) for low in range(0, num, size)]
