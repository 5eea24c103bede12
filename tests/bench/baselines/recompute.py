"""Baseline (a): the window recomputed for every play, batched, and nothing computed that the last play's output does not need.

What the last play needs: all plays' keys and values, so all plays' inputs of every layer; in the last layer of the item encoder
only keys and values of all plays, and the query, the output and the feed-forward of the last one. Z enters the item encoder at
every play, so the intent encoder is needed in full. The arithmetic is the model's own, arranged for speed: queries see the keys
before them only, in blocks; what is a function of an item alone is looked up; contexts of like length share a pass that fits
the cache of a core. Torch uses all threads it is given.

Shapes: B contexts, T plays, S keys, H heads, D width of a head, W width, V item rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from intentrec_core.engine.engine import Encoded
from intentrec_core.engine.slots import NO_LABEL
from intentrec_core.features.context_batch import ContextBatch, collate
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.attention import SelfAttention, TransformerLayer
from intentrec_core.model.config import TIME_UNIT_S
from intentrec_core.model.model import EncoderStage, IntentRec

#: Plays, padding included, in one pass, and queries that share one product with the keys before them. Measured on 2 cores
#: at width 128 and 256 plays: twice or half of either is no faster.
MAX_POSITIONS = 2048
QUERY_BLOCK = 64


class WindowRecompute:
    """Encodes contexts from nothing with one model; agrees with :func:`intentrec_core.engine.reference.recompute` within 1e-4."""

    @torch.inference_mode()
    def __init__(self, model: IntentRec, features: FeatureBuilder) -> None:
        if model.heads is None or model.intent_encoder is None:
            raise ValueError("a model without its intent stage is not what is served")
        self._model, self._features = model.eval(), features
        self._heads, self._intent_encoder = model.heads, model.intent_encoder
        multi = torch.split(model.multi_labels, [f.num_labels for f in model.domain.multi_fields], dim=-1)
        content = model.fields.content(model.static_codes, list(multi))
        self._item_VC = torch.cat([model.item.weight, content], dim=-1)

    @torch.inference_mode()
    def __call__(self, contexts: Sequence[bytes]) -> Encoded:
        """One output a context, for its last play. Shapes: as :class:`~intentrec_core.engine.engine.Encoded`."""
        config, heads = self._model.config, self._model.domain.heads
        num = len(contexts)
        out = Encoded(
            item_NW=np.empty((num, config.width), np.float32),
            heads=tuple(np.empty((num, head.num_labels), np.float32) for head in heads),
            alpha_NM=np.empty((num, len(heads)), np.float32),
            intent_NP=np.empty((num, config.intent_width), np.float32),
            primary_N=np.empty(num, np.int64),
            previous_primary_N=np.empty(num, np.int64),
        )
        for rows in _passes([len(context) // self._features.layout.size for context in contexts]):
            columns = self._features.columns([contexts[row] for row in rows], [0] * len(rows))
            self._encode(collate(columns).to(self._model.device), np.array(rows), out)
        return out

    def _encode(self, batch: ContextBatch, rows: np.ndarray, out: Encoded) -> None:
        model, place = self._model, torch.arange(len(rows), device=batch.ts_s.device)
        last = batch.lengths - 1
        bias = _Biases(batch.ts_s, model.domain.short_term_window_s)
        dynamic = [embed(batch.codes[..., i]) for i, embed in enumerate(model.fields.dynamic)]
        fields = torch.cat([functional.embedding(batch.item_row, self._item_VC), *dynamic], dim=-1)
        x = torch.cat([fields, _attention(model.short_term, fields, bias, short_term=True)], dim=-1)
        intent = _enter(self._intent_encoder, x, batch)
        for layer in self._intent_encoder.layers:
            _layer(layer, intent, bias)
        logits, z, alpha = self._heads(self._intent_encoder.leave_norm(intent))
        item = _enter(model.item_encoder, torch.cat([x, z], dim=-1), batch)
        for layer in model.item_encoder.layers[:-1]:
            _layer(layer, item, bias)
        item_BW = model.item_encoder.leave_norm(_last_layer(model.item_encoder.layers[-1], item, bias, last))
        out.item_NW[rows] = item_BW.cpu().numpy()
        for kept, logit in zip(out.heads, logits, strict=True):
            kept[rows] = torch.softmax(logit[place, last], dim=-1).cpu().numpy()
        out.alpha_NM[rows], out.intent_NP[rows] = alpha[place, last].cpu().numpy(), z[place, last].cpu().numpy()
        out.primary_N[rows] = self._primary(logits, alpha, place, last).cpu().numpy()
        before = self._primary(logits, alpha, place, (last - 1).clamp(min=0))
        out.previous_primary_N[rows] = before.masked_fill(last == 0, NO_LABEL).cpu().numpy()

    def _primary(self, logits: Sequence[Tensor], alpha: Tensor, which: Tensor, at: Tensor) -> Tensor:
        offsets = self._model.domain.label_offsets
        likeliest = [x[which, at].argmax(dim=-1) + offset for x, offset in zip(logits, offsets, strict=True)]
        return torch.stack(likeliest, dim=-1)[torch.arange(len(which)), alpha[which, at].argmax(dim=-1)]


class _Biases:
    """Attention biases of a batch, by block of queries: log lags, infinite (so no weight) for what a query does not see."""

    def __init__(self, ts_s: Tensor, short_term_window_s: float) -> None:
        num_plays = ts_s.shape[1]
        place = torch.arange(num_plays, device=ts_s.device)
        self.blocks = [(low, min(low + QUERY_BLOCK, num_plays)) for low in range(0, num_plays, QUERY_BLOCK)]
        self._ts_s = ts_s
        self._log_place = [_log_place(place[low:high, None] - place[:high]) for low, high in self.blocks]
        self._log_lag, self._log_recent = [], []
        for low, high in self.blocks:
            lag_s = (ts_s[:, None, low:high, None] - ts_s[:, None, None, :high]).float().clamp_(min=0.0)
            unseen = lag_s > short_term_window_s
            self._log_lag.append(lag_s.div_(TIME_UNIT_S).log1p_())
            self._log_recent.append(self._log_lag[-1].masked_fill(unseen, torch.inf))

    def of(self, block: int, slopes_2H: Tensor, *, short_term: bool) -> Tensor:
        """Shapes: f32[B, H, T of the block, S up to its end]."""
        time_H11, place_H11 = functional.softplus(slopes_2H)[:, :, None, None]
        lag = (self._log_recent if short_term else self._log_lag)[block]
        return torch.addcmul(self._log_place[block] * -place_H11, lag, time_H11, value=-1.0)

    def of_last(self, last_B: Tensor, slopes_2H: Tensor) -> Tensor:
        """For each context's last play alone. Shapes: f32[B, H, 1, S]."""
        time_H11, place_H11 = functional.softplus(slopes_2H)[:, :, None, None]
        place = torch.arange(self._ts_s.shape[1], device=last_B.device)
        lag_s = (self._ts_s.gather(1, last_B[:, None]) - self._ts_s).float().clamp_(min=0.0)
        log_lag = torch.log1p(lag_s / TIME_UNIT_S)[:, None, None]
        return -time_H11 * log_lag - place_H11 * _log_place(last_B[:, None] - place)[:, None, None]


def _log_place(behind: Tensor) -> Tensor:
    return behind.clamp(min=0).float().log1p_().masked_fill_(behind < 0, torch.inf)


def _attention(attention: SelfAttention, x: Tensor, bias: _Biases, *, short_term: bool = False) -> Tensor:
    num, num_plays, _ = x.shape
    num_heads = attention.slopes.shape[1]
    q, k, v = attention.qkv(x).view(num, num_plays, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    out = x.new_empty(num, num_plays, num_heads, q.shape[-1])
    for block, (low, high) in enumerate(bias.blocks):
        mask = bias.of(block, attention.slopes, short_term=short_term)
        seen = functional.scaled_dot_product_attention(
            q[:, :, low:high], k[:, :, :high], v[:, :, :high], attn_mask=mask
        )
        out[:, low:high] = seen.transpose(1, 2)
    return attention.out(out.flatten(2))


def _enter(stage: EncoderStage, x: Tensor, batch: ContextBatch) -> Tensor:
    return stage.enter_norm(stage.enter(x)).add_(stage.time(batch.ts_s, batch.gap_s))


def _layer(layer: TransformerLayer, x: Tensor, bias: _Biases) -> None:
    """In place."""
    x += _attention(layer.attention, layer.attention_norm(x), bias)
    x += layer.feed(layer.feed_norm(x))


def _last_layer(layer: TransformerLayer, x: Tensor, bias: _Biases, last_B: Tensor) -> Tensor:
    """Keys and values of all plays, everything else of the last one. Shapes: BTW -> BW."""
    attention, (num, num_plays, width) = layer.attention, x.shape
    num_heads = attention.slopes.shape[1]
    x_BW = x[torch.arange(num), last_B]
    normed = layer.attention_norm(x)
    q = functional.linear(normed[torch.arange(num), last_B], attention.qkv.weight[:width]).view(num, num_heads, 1, -1)
    kv = functional.linear(normed, attention.qkv.weight[width:])
    k, v = kv.view(num, num_plays, 2, num_heads, -1).permute(2, 0, 3, 1, 4)
    mask = bias.of_last(last_B, attention.slopes)
    seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    x_BW = x_BW + attention.out(seen.flatten(1))
    return x_BW + layer.feed(layer.feed_norm(x_BW))


def _passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Contexts of like length together: a pass holds what fits, and padding at most an eighth."""
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = (len(group) + 1) * lengths[row] > MAX_POSITIONS
        if group and (full or lengths[row] > lengths[group[0]] * 9 // 8 + 1):
            yield group
            group = []
        group.append(row)
    if group:
        yield group
