"""The whole encoder as one compiled step on the CPU: new plays of many members, with keys and values in a pool.

    rows ─ F ─ short-term attention ─ S ─ intent encoder ─ heads, Z ─ item encoder ─ E

A row is one new play. Rows of one member are next to each other, oldest first, so appending one play, several plays or
a whole context is the same loop without padding. Rows pass through all layers in blocks that fit the caches: an earlier
block has stored the keys that a later one needs.

The step computes what :class:`intentrec_core.model.model.IntentRec` computes with
:class:`intentrec_core.model.attention.FullAttend`, and parity tests compare the two. Training and GPUs use the model
itself. docs/cpu-engine.md says what to change here when the model changes.

Shapes: R rows, N groups of GROUP plays in the pool, P = N · GROUP, C plays of a whole context, W width, H heads, U width of a key
and of a value, K heads of them, L layers, S labels of all heads, M heads, P width of Z.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.engine.cpu.block import BLOCK, begin_block
from intentrec_core.engine.cpu.decode_attention import GROUP, attend, store_key
from intentrec_core.kernels.dense import clear_rows, compiled, fill_rows, gelu, layer_norm, linear, softmax
from intentrec_core.kernels.quantise import quantise
from intentrec_core.kernels.simd import holds_codes
from intentrec_core.model.config import SHORT_TERM_LAYER

f32 = np.float32


@compiled
def _attend(
    k_NUP: Any, v_PU: Any, k_scales_KP: Any, v_scales_KP: Any, log_place: Any, unit: Any, place: Any, low: int, num: int,
    qkv: Any, first: Any, slopes: Any, lags: Any, scores: Any, powers: Any, out: Any,
) -> None:  # fmt: skip
    """Stores the block's keys and values of a layer, then attends for each row. Rows with a negative ``first`` are
    skipped. Where the cache holds codes, the block's keys and values in ``qkv`` become codes too: a play sees its own key as
    later plays will.
    """
    width, behind_key = out.shape[1], out.shape[1] + v_PU.shape[1]
    for i in range(num):
        at, row = unit[low + i] * GROUP + place[low + i], qkv[i]
        if holds_codes(k_NUP):
            quantise(row[width:behind_key], k_scales_KP, at)
            quantise(row[behind_key:], v_scales_KP, at)
        store_key(k_NUP, at, row[width:behind_key])
        value = v_PU[at]
        for d in range(value.shape[0]):
            value[d] = row[behind_key + d]
    for i in range(num):
        if first[i] >= 0:
            mine = unit[low + i]
            attend(
                qkv[i], k_NUP[mine:], v_PU[mine * GROUP :], k_scales_KP, v_scales_KP, mine * GROUP, first[i], place[low + i] + 1,
                lags[i], log_place, slopes, scores, powers, out[i],
            )  # fmt: skip


@compiled
def _enter(stage: Any, scratch: Any, num: int) -> None:
    """A stage's input: F, S and Z projected and normalised, plus the time encoding. The result is in ``scratch.x``."""
    x, y = scratch.x, scratch.y
    fill_rows(x, stage.norms[0], num)
    linear(scratch.fields, stage.fields, x, num)
    linear(scratch.short_term, stage.short_term, x, num)
    linear(scratch.mixed, stage.mixed, x, num)
    layer_norm(x, stage.norms[1], stage.norms[2], x, num)
    fill_rows(y, stage.time_bias, num)
    linear(scratch.times, stage.time, y, num)
    for i in range(num):
        for d in range(x.shape[1]):
            x[i, d] += y[i, d]


@compiled
def _layers(
    layers: Any,
    low_layer: int,
    high_layer: int,
    cache: Any,
    rows: Any,
    low: int,
    num: int,
    wanted_rows: Any,
    scratch: Any,
) -> int:
    """Applies a stage's layers to ``scratch.x``. In the last layer only ``wanted_rows`` (not negative) are computed, moved
    to the front.

    Returns their number; ``scratch.kept`` holds their indices.
    """
    x, y, qkv, wide, kept = scratch.x, scratch.y, scratch.qkv, scratch.wide, scratch.kept
    width = x.shape[1]
    for i in range(num):
        kept[i] = i
    for layer in range(low_layer, high_layer):
        norms = layers.norms[layer]
        layer_norm(x, norms[0], norms[1], y, num)
        clear_rows(qkv, num)
        linear(y, layers.qkv[layer], qkv, num)
        last = layer == high_layer - 1
        _attend(
            cache.k[1 + layer], cache.v[1 + layer], cache.k_scales[1 + layer], cache.v_scales[1 + layer], cache.log_place,
            rows.unit, rows.place, low, num, qkv, wanted_rows if last else scratch.all_rows, layers.slopes[layer],
            scratch.lags, scratch.scores, scratch.powers, y,
        )  # fmt: skip
        if last:
            num_kept = 0
            for i in range(num):
                if wanted_rows[i] >= 0:
                    kept[num_kept] = i
                    for d in range(width):
                        x[num_kept, d] = x[i, d]
                        y[num_kept, d] = y[i, d]
                    num_kept += 1
            num = num_kept
        linear(y, layers.out[layer], x, num)
        layer_norm(x, norms[2], norms[3], y, num)
        fill_rows(wide, layers.wide_bias[layer], num)
        linear(y, layers.wide[layer], wide, num)
        gelu(wide, scratch.decay, scratch.wide_powers, num)
        for i in range(num):
            for d in range(width):
                x[i, d] += layers.narrow_bias[layer, d]
        linear(wide, layers.narrow[layer], x, num)
    return num


@compiled
def _heads(heads: Any, x: Any, num: int, low: int, powers: Any, projected: Any, mixed: Any, out: Any) -> None:
    """Probabilities, alpha, Z and the primary intent of a block."""
    probs, alpha = out.probs[low : low + num], out.alpha
    fill_rows(probs, heads.logits_bias, num)
    linear(x, heads.logits, probs, num)
    num_heads, depth = heads.project_bias.shape
    for i in range(num):
        score = alpha[low + i]
        for m in range(num_heads):
            first, end = heads.first[m], heads.first[m + 1]
            softmax(probs[i, first:end], powers[: end - first])
            score[m] = f32(0)
            for d in range(depth):
                projected[m, d] = heads.project_bias[m, d]
            for label in range(first, end):
                share = probs[i, label]
                for d in range(depth):
                    projected[m, d] += share * heads.project[label, d]
            for d in range(depth):
                score[m] += projected[m, d] * heads.attention[d]
        softmax(score, powers[:num_heads])
        leading = 0
        for d in range(depth):
            mixed[i, d] = f32(0)
        for m in range(num_heads):
            if score[m] + heads.primary_bias[m] > score[leading] + heads.primary_bias[leading]:
                leading = m
            for d in range(depth):
                mixed[i, d] += score[m] * projected[m, d]
        likeliest = heads.first[leading]
        for label in range(heads.first[leading], heads.first[leading + 1]):
            if probs[i, label] > probs[i, likeliest]:
                likeliest = label
        out.primary[low + i] = likeliest
        for d in range(depth):
            out.intent[low + i, d] = mixed[i, d]


@compiled
def encode_rows(weights: Any, cache: Any, rows: Any, begin: int, end: int, scratch: Any, out: Any) -> None:
    """Encodes the rows from ``begin`` to ``end`` - 1: reads their members' cached plays, adds the new ones, and writes
    ``out``.

    ``weights``: :class:`~intentrec_core.engine.cpu.weights.StepWeights`; ``cache``, ``rows`` and ``scratch``:
    :mod:`intentrec_core.engine.cpu.block`; ``out``: :class:`~intentrec_core.engine.encoder.StepOutput`.
    Invariant: calls that run at the same time share neither a part nor a scratch.

    Cost: O(W²) per row and layer, and 2 · U numbers of the cache's dtype read per cached play, row and layer.
    """
    # One loop over both stages, so that the code of a stage is compiled once: twice as much code is compiled less well.
    stages = (weights.intent, weights.item)
    num_intent, num_layers = weights.num_intent_layers, weights.layers.qkv.shape[0]
    for low in range(begin, end, BLOCK):
        num = min(BLOCK, end - low)
        begin_block(weights, cache, rows, low, num, scratch)
        clear_rows(scratch.qkv, num)
        linear(scratch.fields, weights.short_qkv, scratch.qkv, num)
        _attend(
            cache.k[SHORT_TERM_LAYER], cache.v[SHORT_TERM_LAYER], cache.k_scales[SHORT_TERM_LAYER],
            cache.v_scales[SHORT_TERM_LAYER], cache.log_place, rows.unit, rows.place, low, num, scratch.qkv, scratch.first,
            weights.short_slopes, scratch.lags, scratch.scores, scratch.powers, scratch.y,
        )  # fmt: skip
        clear_rows(scratch.short_term, num)
        linear(scratch.y, weights.short_out, scratch.short_term, num)
        for i in range(num):
            scratch.wanted_rows[i] = 0 if rows.wanted[low + i] else -1
        for nth in range(0 if num_intent else 1, 2):
            stage, is_item = stages[nth], nth == 1
            _enter(stage, scratch, num)
            low_layer, high_layer = (num_intent, num_layers) if is_item else (0, num_intent)
            wanted_rows = scratch.wanted_rows if is_item else scratch.all_rows
            num = _layers(weights.layers, low_layer, high_layer, cache, rows, low, num, wanted_rows, scratch)
            layer_norm(scratch.x, stage.norms[3], stage.norms[4], scratch.x, num)
            if not is_item:
                _heads(weights.heads, scratch.x, num, low, scratch.powers, scratch.projected, scratch.mixed, out)
        for i in range(num):
            item, x = out.item[low + scratch.kept[i]], scratch.x[i]
            for d in range(x.shape[0]):
                item[d] = x[d]


@compiled
def encode_held(held: Any, rows: Any, begin: int, end: int, out: Any) -> None:
    """:func:`encode_rows` with weights, cache and scratch in one :class:`~intentrec_core.kernels.held.Held`."""
    weights, cache, scratch = held.value
    encode_rows(weights, cache, rows, begin, end, scratch, out)
