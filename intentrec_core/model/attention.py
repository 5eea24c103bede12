"""Causal attention over plays with biases for relative time, and the Transformer layer built on it.

The layers hold only weights. The ``Attend`` that is passed into ``forward`` decides which keys a query sees, and where
keys and values are stored: a whole context at once (:class:`FullAttend`, and for training
:class:`intentrec_core.training.attend.TrainingAttend`), or a cache (:mod:`intentrec_core.engine.cuda.pooled_attend`,
:mod:`intentrec_core.engine.cuda.paged_attention`). All of them compute the same numbers.

Biases are functions of the times and places of query and key. They are computed for each pair, so a cached key never
becomes stale:

    score = q·k / sqrt(D) − softplus(time_slope_h) · log1p(Δt / 60 s) − softplus(place_slope_h) · log1p(Δplace)

On the CPU, serving uses a second implementation of this module: :mod:`intentrec_core.engine.cpu.decode_attention` and
:mod:`intentrec_core.engine.cpu.step`. docs/cpu-engine.md says what to change there when this module changes.

Heads may share keys and values (``num_kv_heads`` of the model's config), so that a cache holds fewer of them: query head h
reads head h // (H / K) of the K that there are. Multi-query attention (Shazeer 2019, "Fast Transformer Decoding") has one, and
grouped-query attention (Ainslie et al. 2023) some.

Shapes: B contexts, T queries, S keys, H heads, K heads of keys and values, D width of a head, W width of the model.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from intentrec_core.model.config import PERIODS_S, SHORT_TERM_LAYER, TIME_COLUMNS, TIME_UNIT_S
from intentrec_core.model.dropout import Dropout

MASKED = float("-inf")


class Attend(Protocol):
    """Attention of one pass over a batch. It has the keys and values of every layer."""

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """Adds the new keys and values of ``layer`` to the known ones, then attends to all of them.

        Layer 0 is the short-term encoder: it sees only keys within the short-term window.
        Keys and values come head by head, as queries do: where heads share them, the heads of one group have the same, and
        stand next to each other. A cache keeps one of each group.

        Shapes: returns BTHD.
        """
        ...


class Geometry:
    """Times and places of queries and keys, from which biases and masks are computed.

    Shapes: query_s f64[B, T], key_s f64[B, S], query_place and key_place i64 in the same shapes; key_valid bool[B, S].
    Stored are log1p of the lags f32[B, T, S], and the keys that each query sees, in all and within the short-term
    window, bool[B, T, S].
    """

    def __init__(
        self,
        query_s: Tensor,
        query_place: Tensor,
        key_s: Tensor,
        key_place: Tensor,
        key_valid: Tensor,
        short_term_window_s: float,
    ) -> None:
        lag_s = (query_s[:, :, None] - key_s[:, None, :]).clamp_(min=0.0)
        lag_place = query_place[:, :, None] - key_place[:, None, :]
        seen = (lag_place >= 0) & key_valid[:, None, :]
        self.log_lag_BTS = torch.log1p(lag_s / TIME_UNIT_S).float()
        self.log_place_BTS = torch.log1p(lag_place.clamp(min=0).float())
        self.seen_BTS = seen
        self.recent_BTS = seen & (lag_s <= short_term_window_s)

    def bias(self, layer: int, slopes_2H: Tensor) -> Tensor:
        """Biases and mask of a layer. Shapes: f32[B, H, T, S]."""
        time_H11, place_H11 = functional.softplus(slopes_2H)[:, :, None, None]
        unseen = ~(self.recent_BTS if layer == SHORT_TERM_LAYER else self.seen_BTS)
        bias = -time_H11 * self.log_lag_BTS[:, None] - place_H11 * self.log_place_BTS[:, None]
        return bias.masked_fill(unseen[:, None], MASKED)


class FullAttend:
    """Attention of every play of a context to itself and to earlier plays: for evaluation, and as the reference."""

    def __init__(self, ts_s: Tensor, short_term_window_s: float) -> None:
        place = torch.arange(ts_s.shape[1], device=ts_s.device).expand_as(ts_s)
        # A padded query sees itself, so that no row of the softmax is empty. No other query sees a padded key.
        self._geometry = Geometry(
            ts_s, place, ts_s, place, torch.ones_like(place, dtype=torch.bool), short_term_window_s
        )

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """See :class:`Attend`."""
        bias_BHTS = self._geometry.bias(layer, slopes_2H)
        q, k, v = (x.transpose(1, 2) for x in (q_BTHD, k_BTHD, v_BTHD))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias_BHTS)
        return out.transpose(1, 2)


def for_each_head(x: Tensor, group: int, dim: int) -> Tensor:
    """Shared keys or values once for each of the ``group`` heads that share them; ``dim`` is that of the heads."""
    if group == 1:
        return x
    # No repeat_interleave: in some releases of torch it waits for the device, which a CUDA graph may not contain.
    sizes = (*x.shape[: dim + 1], group, *x.shape[dim + 1 :])
    return x.unsqueeze(dim + 1).expand(sizes).flatten(dim, dim + 1)


class SelfAttention(nn.Module):
    """Multi-head attention with learned slopes for the time and place biases.

    ``num_kv_heads`` divides ``num_heads``; None: every head has keys and values of its own.
    """

    def __init__(self, layer: int, width_in: int, width: int, num_heads: int, num_kv_heads: int | None = None) -> None:
        super().__init__()
        self._layer, self._num_heads, self._num_kv_heads = layer, num_heads, num_kv_heads or num_heads
        num_in_all = num_heads + 2 * self._num_kv_heads
        self.qkv = nn.Linear(width_in, num_in_all * (width // num_heads), bias=False)
        self.out = nn.Linear(width, width, bias=False)
        # Heads start with different reach: softplus of these values is between 1.3 (the last plays) and 0.1 (the whole
        # context).
        reach = torch.linspace(1.0, -2.0, num_heads) if num_heads > 1 else torch.tensor([-1.0])
        self.slopes = nn.Parameter(torch.stack([reach, reach]))

    def forward(self, x_BTW: Tensor, attend: Attend) -> Tensor:
        """Shapes: BT(width_in) -> BTW."""
        num, length, _ = x_BTW.shape
        heads = (self._num_heads, self._num_kv_heads, self._num_kv_heads)
        q, k, v = self.qkv(x_BTW).view(num, length, sum(heads), -1).split(heads, dim=2)
        group = self._num_heads // self._num_kv_heads
        k, v = for_each_head(k, group, dim=2), for_each_head(v, group, dim=2)
        return self.out(attend(self._layer, q, k, v, self.slopes).reshape(num, length, -1))


class TransformerLayer(nn.Module):
    """A causal layer, normalised before each part: attention, then a feed-forward network with GELU."""

    def __init__(self, layer: int, width: int, num_heads: int, dropout: float, num_kv_heads: int | None = None) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(layer, width, width, num_heads, num_kv_heads)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = Dropout(dropout)

    def forward(self, x_BTW: Tensor, attend: Attend) -> Tensor:
        """Shapes: BTW -> BTW."""
        x_BTW = x_BTW + self.dropout(self.attention(self.attention_norm(x_BTW), attend))
        return x_BTW + self.dropout(self.feed(self.feed_norm(x_BTW)))


class TimeEncoding(nn.Module):
    """A play's absolute time and the gap since the previous play, as a vector: the positional encoding (paper 3.3).

    Its periods are a day and a week. Longer ones are left out on purpose: a training span hardly repeats them, so the
    phase of a month or a year identifies the training date. The model learns that date by heart and never sees it when
    serving, which cost a fifteenth of NDCG@10 on MovieLens-100K. The vector depends on this play and the previous one,
    never on later plays.
    """

    periods_s: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # Kept on the device: making a tensor from Python numbers is a copy that waits, which a CUDA graph may not
        # contain.
        self.register_buffer("periods_s", torch.tensor(PERIODS_S, dtype=torch.float64), persistent=False)
        self.project = nn.Linear(TIME_COLUMNS, width)

    def forward(self, ts_BT: Tensor, gap_BT: Tensor) -> Tensor:
        """Shapes: ts f64[B, T] and gap f32[B, T] in seconds -> f32[B, T, W]."""
        angle = (2 * math.pi * torch.frac(ts_BT[..., None] / self.periods_s)).float()
        first = (gap_BT < 0).float()
        log_gap = torch.log1p(gap_BT.clamp(min=0)) / 10.0
        parts = [torch.sin(angle), torch.cos(angle), log_gap[..., None], first[..., None]]
        return self.project(torch.cat(parts, dim=-1))
