"""A model's weights in the layout of the compiled step: transposed, layers stacked, heads side by side.

A parameter that is added to :mod:`intentrec_core.model.model` is added here too; see docs/cpu-engine.md. This module does not
need torch.

Shapes: W width, U width of a key and of a value, Fw width of F, X = Fw + W, P width of Z, L layers of both encoders together, S
all labels of all heads, M heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from intentrec_core.kernels.simd import CACHE_LINE, aligned_zeros
from intentrec_core.model.config import FIELD_WIDTH
from intentrec_core.model.weights import Array, ModelWeights

Numbers = NDArray[np.int64]


class FieldWeights(NamedTuple):
    """Weights of F. The tables of all fields of one kind are joined into one; ``*_first`` is the row at which each field
    begins.

    Shapes: item f32[V, W]; static_codes i64[V, Fs]; labels f32[V, all multi-labels]; static, dynamic f32[rows, 16];
    multi f32[all multi-labels, 16]; *_first i64[fields] (multi_first has one more: the end).
    """

    item: Array
    static_codes: Numbers
    labels: Array
    static: Array
    static_first: Numbers
    multi: Array
    multi_first: Numbers
    dynamic: Array
    dynamic_first: Numbers


class LayerWeights(NamedTuple):
    """Stacked layers: first those of the intent encoder, then those of the item encoder.

    Shapes: norms f32[L, 4, W]: gain and bias of the norm for attention, then gain and bias of the norm for the
    feed-forward network; qkv f32[L, W, W + 2U]; out f32[L, W, W]; wide f32[L, W, 2W]; wide_bias f32[L, 2W]; narrow f32[L,
    2W, W]; narrow_bias f32[L, W]; slopes f32[L, 2, H], positive.
    """

    norms: Array
    qkv: Array
    out: Array
    wide: Array
    wide_bias: Array
    narrow: Array
    narrow_bias: Array
    slopes: Array


class StageWeights(NamedTuple):
    """Weights of a stage outside its layers. The stage's input is never concatenated: F, S and Z are multiplied one by
    one.

    Shapes: fields f32[Fw, W], short_term f32[W, W], mixed f32[P or 0, W]; norms f32[5, W]: bias of these products, gain
    and bias of the norm on entry, gain and bias of the norm at the end; time f32[6, W]; time_bias f32[W].
    """

    fields: Array
    short_term: Array
    mixed: Array
    norms: Array
    time: Array
    time_bias: Array


class HeadWeights(NamedTuple):
    """Weights of the heads, side by side.

    Shapes: logits f32[W, S], logits_bias f32[S], first i64[M + 1], project f32[S, P], project_bias f32[M, P], attention
    f32[P], primary_bias f32[M].
    """

    logits: Array
    logits_bias: Array
    first: Numbers
    project: Array
    project_bias: Array
    attention: Array
    primary_bias: Array


class StepWeights(NamedTuple):
    """All weights of the step. ``num_intent_layers`` is 0 if the model has no intent stage; ``intent`` is not read then."""

    fields: FieldWeights
    short_qkv: Array
    short_out: Array
    short_slopes: Array
    intent: StageWeights
    heads: HeadWeights
    item: StageWeights
    layers: LayerWeights
    num_intent_layers: int
    short_term_window_s: float


def step_weights(model: ModelWeights) -> StepWeights:
    """A model's weights in the layout of the compiled step. What it has of each item is shared with the model."""
    config, arrays = model.config, model.arrays
    has_intents = config.intent_stage
    stages = ["intent_encoder", "item_encoder"] if has_intents else ["item_encoder"]
    return StepWeights(
        fields=_fields(model),
        short_qkv=_transposed(arrays["short_term.qkv.weight"]),
        short_out=_transposed(arrays["short_term.out.weight"]),
        short_slopes=_array(_softplus(arrays["short_term.slopes"])),
        intent=_stage(model, stages[0]),
        heads=_heads(model) if has_intents else _no_heads(model),
        item=_stage(model, "item_encoder"),
        layers=_layers(model, [f"{stage}.layers.{i}" for stage in stages for i in range(config.num_layers)]),
        num_intent_layers=config.num_layers if has_intents else 0,
        short_term_window_s=float(model.domain.short_term_window_s),
    )


def _fields(model: ModelWeights) -> FieldWeights:
    domain, arrays = model.domain, model.arrays
    static, static_first = _joined([arrays[f"fields.static.{i}.weight"] for i in range(len(domain.static_fields))])
    dynamic, dynamic_first = _joined([arrays[f"fields.dynamic.{i}.weight"] for i in range(len(domain.dynamic_fields))])
    multi, multi_first = _joined([arrays[f"fields.multi.{i}.weight"].T for i in range(len(domain.multi_fields))])
    return FieldWeights(
        # Read by the row. A copy that begins at a cache line would be a second one of what is largest.
        item=arrays["item.weight"],
        static_codes=model.static_codes,
        labels=model.multi_labels,
        static=static,
        static_first=static_first,
        multi=multi,
        multi_first=np.append(multi_first, model.multi_labels.shape[1]),
        dynamic=dynamic,
        dynamic_first=dynamic_first,
    )


def _heads(model: ModelWeights) -> HeadWeights:
    arrays, heads = model.arrays, range(len(model.domain.heads))
    return HeadWeights(
        logits=_transposed(np.concatenate([arrays[f"heads.heads.{m}.weight"] for m in heads])),
        logits_bias=_array(np.concatenate([arrays[f"heads.heads.{m}.bias"] for m in heads])),
        first=np.cumsum([0, *(head.num_labels for head in model.domain.heads)]),
        project=_array(np.concatenate([arrays[f"heads.projections.{m}.weight"].T for m in heads])),
        project_bias=_stacked(arrays[f"heads.projections.{m}.bias"] for m in heads),
        attention=_array(arrays["heads.attention.weight"][0]),
        primary_bias=_array(model.primary_bias),
    )


def _no_heads(model: ModelWeights) -> HeadWeights:
    width, depth = model.config.width, model.config.intent_width
    none, empty = np.zeros((0, depth), dtype=np.float32), np.zeros(0, dtype=np.float32)
    return HeadWeights(
        logits=np.zeros((width, 0), np.float32),
        logits_bias=empty,
        first=np.zeros(1, np.int64),
        project=none,
        project_bias=none,
        attention=np.zeros(depth, np.float32),
        primary_bias=empty,
    )


def _stage(model: ModelWeights, name: str) -> StageWeights:
    arrays, entered = model.arrays, model.arrays[f"{name}.enter.weight"]
    fields = model.arrays["short_term.qkv.weight"].shape[1]
    norms = ("enter.bias", "enter_norm.weight", "enter_norm.bias", "leave_norm.weight", "leave_norm.bias")
    return StageWeights(
        fields=_transposed(entered[:, :fields]),
        short_term=_transposed(entered[:, fields : fields + model.config.width]),
        mixed=_transposed(entered[:, fields + model.config.width :]),
        norms=_stacked(arrays[f"{name}.{norm}"] for norm in norms),
        time=_transposed(arrays[f"{name}.time.project.weight"]),
        time_bias=_array(arrays[f"{name}.time.project.bias"]),
    )


def _layers(model: ModelWeights, names: Sequence[str]) -> LayerWeights:
    def of_each(name: str) -> list[Array]:
        return [model.arrays[f"{layer}.{name}"] for layer in names]

    norms = ("attention_norm.weight", "attention_norm.bias", "feed_norm.weight", "feed_norm.bias")
    return LayerWeights(
        norms=_stacked(np.stack(of_layer) for of_layer in zip(*map(of_each, norms), strict=True)),
        qkv=_stacked(weight.T for weight in of_each("attention.qkv.weight")),
        out=_stacked(weight.T for weight in of_each("attention.out.weight")),
        wide=_stacked(weight.T for weight in of_each("feed.0.weight")),
        wide_bias=_stacked(of_each("feed.0.bias")),
        narrow=_stacked(weight.T for weight in of_each("feed.2.weight")),
        narrow_bias=_stacked(of_each("feed.2.bias")),
        slopes=_stacked(map(_softplus, of_each("attention.slopes"))),
    )


def _stacked(arrays: Iterable[Array]) -> Array:
    return _array(np.stack(list(arrays)))


def _softplus(x: Array) -> Array:
    softened: Array = np.logaddexp(x, np.float32(0.0))
    return softened


def _joined(tables: Sequence[Array]) -> tuple[Array, Numbers]:
    """Tables joined by rows, and the row at which each begins."""
    first = np.cumsum([0, *map(len, tables)])[:-1].astype(np.int64)
    return _array(np.concatenate(tables)) if tables else np.zeros((1, FIELD_WIDTH), dtype=np.float32), first


def _array(array: Array) -> Array:
    """The array if it is C-contiguous and begins at a cache line, else such a copy: SIMD loads of its rows are faster then
    (:mod:`intentrec_core.kernels.simd`).
    """
    if array.flags.c_contiguous and array.ctypes.data % CACHE_LINE == 0:
        return array
    copied = aligned_zeros(*array.shape)
    copied[...] = array
    return copied


def _transposed(array: Array) -> Array:
    return _array(array.T)
