"""The whole encoder as one compiled step on the CPU: new plays of many members, their keys and values in a pool.

    rows ─ F ─ short-term attention ─ S ─ intent encoder ─ heads, Z ─ item encoder ─ E

A row is one new play; rows of one member stand together, oldest first, so that appending one play, several, or a whole
context is the same loop with nothing padded. Rows go through all layers in blocks small enough for the caches: an earlier
block has written the keys that a later one needs. It computes what :class:`intentrec_core.model.model.IntentRec` computes with
:class:`intentrec_core.model.attention.FullAttend`, and a parity test holds it to that; training and GPUs use the model itself.

Shapes: R rows, N slots, C plays a slot, G groups of keys, W width, H heads, L layers, S labels of all heads, M heads, P width
of Z.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.engine.cpu.block import BLOCK, begin_block
from intentrec_core.engine.cpu.decode_attention import attend, store_key
from intentrec_core.kernels.dense import clear_rows, compiled, fill_rows, gelu, layer_norm, linear, softmax
from intentrec_core.model.attention import SHORT_TERM_LAYER

f32 = np.float32


@compiled
def _attend(
    k_NGWP: Any, v_NCW: Any, log_place: Any, slot: Any, place: Any, low: int, num: int, qkv: Any, first: Any, slopes: Any,
    lags: Any, scores: Any, powers: Any, out: Any,
) -> None:  # fmt: skip
    """Stores the block's keys and values of a layer, then lets the queries attend; where ``first`` is negative, nobody asks."""
    width = out.shape[1]
    for i in range(num):
        at, mine, row = place[low + i], slot[low + i], qkv[i]
        store_key(k_NGWP[mine], at, row[width : 2 * width])
        value = v_NCW[mine, at]
        for d in range(width):
            value[d] = row[2 * width + d]
    for i in range(num):
        if first[i] >= 0:
            mine = slot[low + i]
            end = place[low + i] + 1
            attend(qkv[i], k_NGWP[mine], v_NCW[mine], first[i], end, lags[i], log_place, slopes, scores, powers, out[i])


@compiled
def _enter(stage: Any, room: Any, num: int) -> None:
    """A stage's input: F, S and Z projected, normalised, and the time encoding added. Leaves it in ``room.x``."""
    x, y = room.x, room.y
    fill_rows(x, stage.norms[0], num)
    linear(room.fields, stage.fields, x, num)
    linear(room.short_term, stage.short_term, x, num)
    linear(room.mixed, stage.mixed, x, num)
    layer_norm(x, stage.norms[1], stage.norms[2], x, num)
    fill_rows(y, stage.time_bias, num)
    linear(room.times, stage.time, y, num)
    for i in range(num):
        for d in range(x.shape[1]):
            x[i, d] += y[i, d]


@compiled
def _layers(
    layers: Any, low_layer: int, high_layer: int, cache: Any, rows: Any, low: int, num: int, asking: Any, room: Any
) -> int:
    """A stage's layers over ``room.x``. In the last one only rows that are ``asking`` (not negative) go on, at the front.

    Returns how many these are; ``room.kept`` says which.
    """
    x, y, qkv, wide, kept = room.x, room.y, room.qkv, room.wide, room.kept
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
            cache.k[1 + layer], cache.v[1 + layer], cache.log_place, rows.slot, rows.place, low, num, qkv,
            asking if last else room.everyone, layers.slopes[layer], room.lags, room.scores, room.powers, y,
        )  # fmt: skip
        if last:
            num_kept = 0
            for i in range(num):
                if asking[i] >= 0:
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
        gelu(wide, room.decay, room.wide_powers, num)
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
            if score[m] > score[leading]:
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
def encode_rows(weights: Any, cache: Any, rows: Any, begin: int, end: int, room: Any, out: Any) -> None:
    """Encodes the rows from ``begin`` to before ``end``: reads their members' cached plays, adds their own, and writes ``out``.

    ``weights``: :class:`~intentrec_core.engine.cpu.weights.StepWeights`; ``cache``, ``rows`` and ``room``:
    :mod:`intentrec_core.engine.cpu.block`; ``out``: :class:`~intentrec_core.engine.encoder.StepOutput`.
    Invariant: of calls that run at the same time, no two have rows of one slot, nor the same room.

    Cost: O(W²) a row and layer, and 2 · W floats read a cached play, row and layer.
    """
    # One loop over both stages, so that a stage is there once: twice is more than the compiler goes through with care.
    stages = (weights.intent, weights.item)
    num_intent, num_layers = weights.num_intent_layers, weights.layers.qkv.shape[0]
    for low in range(begin, end, BLOCK):
        num = min(BLOCK, end - low)
        begin_block(weights, cache, rows, low, num, room)
        clear_rows(room.qkv, num)
        linear(room.fields, weights.short_qkv, room.qkv, num)
        _attend(
            cache.k[SHORT_TERM_LAYER], cache.v[SHORT_TERM_LAYER], cache.log_place, rows.slot, rows.place, low, num, room.qkv,
            room.first, weights.short_slopes, room.lags, room.scores, room.powers, room.y,
        )  # fmt: skip
        clear_rows(room.short_term, num)
        linear(room.y, weights.short_out, room.short_term, num)
        for i in range(num):
            room.asking[i] = 0 if rows.wanted[low + i] else -1
        for nth in range(0 if num_intent else 1, 2):
            stage, is_item = stages[nth], nth == 1
            _enter(stage, room, num)
            low_layer, high_layer = (num_intent, num_layers) if is_item else (0, num_intent)
            asking = room.asking if is_item else room.everyone
            num = _layers(weights.layers, low_layer, high_layer, cache, rows, low, num, asking, room)
            layer_norm(room.x, stage.norms[3], stage.norms[4], room.x, num)
            if not is_item:
                _heads(weights.heads, room.x, num, low, room.powers, room.projected, room.mixed, out)
        for i in range(num):
            item, x = out.item[low + room.kept[i]], room.x[i]
            for d in range(x.shape[0]):
                item[d] = x[d]
