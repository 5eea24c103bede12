"""A model's weights in the layout of the compiled step: transposed, layers stacked, heads side by side.

A parameter that is added to :mod:`intentrec_core.model.model` is added here too; see docs/cpu-engine.md.

Shapes: W width, U width of a key and of a value, Fw width of F, X = Fw + W, P width of Z, L layers of both encoders together, S
all labels of all heads, M heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from intentrec_core.model.attention import SelfAttention, TransformerLayer
from intentrec_core.model.model import EncoderStage, IntentRec

Array = NDArray[np.float32]
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


@torch.inference_mode()
def step_weights(model: IntentRec) -> StepWeights:
    """A model's weights in the layout of the compiled step. Arrays that have this layout already are shared with the
    model.
    """
    intent, item = model.intent_encoder, model.item_encoder
    intent_layers = [] if intent is None else _layers(intent)
    return StepWeights(
        fields=_fields(model),
        short_qkv=_transposed(model.short_term.qkv.weight),
        short_out=_transposed(model.short_term.out.weight),
        short_slopes=_array(_slopes(model.short_term)),
        intent=_stage(model, item if intent is None else intent),
        heads=_heads(model),
        item=_stage(model, item),
        layers=_layer_weights([*intent_layers, *_layers(item)]),
        num_intent_layers=len(intent_layers),
        short_term_window_s=float(model.domain.short_term_window_s),
    )


def _fields(model: IntentRec) -> FieldWeights:
    fields = model.fields
    static, static_first = _joined([_weight(embed) for embed in fields.static])
    dynamic, dynamic_first = _joined([_weight(embed) for embed in fields.dynamic])
    multi, multi_first = _joined([_weight(project).T for project in fields.multi])
    num_labels = sum(field.num_labels for field in model.domain.multi_fields)
    return FieldWeights(
        item=_array(model.item.weight),
        static_codes=model.static_codes.numpy(),
        labels=_array(model.multi_labels),
        static=static,
        static_first=static_first,
        multi=multi,
        multi_first=np.append(multi_first, num_labels),
        dynamic=dynamic,
        dynamic_first=dynamic_first,
    )


def _heads(model: IntentRec) -> HeadWeights:
    heads, width, depth = model.heads, model.config.width, model.config.intent_width
    if heads is None:
        none = np.zeros((0, depth), dtype=np.float32)
        empty = np.zeros(0, dtype=np.float32)
        return HeadWeights(
            np.zeros((width, 0), np.float32),
            empty,
            np.zeros(1, np.int64),
            none,
            none,
            np.zeros(depth, np.float32),
            empty,
        )
    return HeadWeights(
        logits=_transposed(torch.cat([_weight(head) for head in heads.heads])),
        logits_bias=_array(torch.cat([_bias(head) for head in heads.heads])),
        first=np.cumsum([0, *(head.num_labels for head in model.domain.heads)]),
        project=_array(torch.cat([_weight(project).T for project in heads.projections])),
        project_bias=_array(torch.stack([_bias(project) for project in heads.projections])),
        attention=_array(heads.attention.weight[0]),
        primary_bias=_array(model.primary_bias),
    )


def _stage(model: IntentRec, stage: EncoderStage) -> StageWeights:
    fields, entered = model.fields.width, model.fields.width + model.config.width
    enter, leave = stage.enter_norm, stage.leave_norm
    return StageWeights(
        fields=_transposed(stage.enter.weight[:, :fields]),
        short_term=_transposed(stage.enter.weight[:, fields:entered]),
        mixed=_transposed(stage.enter.weight[:, entered:]),
        norms=_array(torch.stack([stage.enter.bias, enter.weight, enter.bias, leave.weight, leave.bias])),
        time=_transposed(stage.time.project.weight),
        time_bias=_array(stage.time.project.bias),
    )


def _layers(stage: EncoderStage) -> list[TransformerLayer]:
    return [layer for layer in stage.layers if isinstance(layer, TransformerLayer)]


def _layer_weights(layers: Sequence[TransformerLayer]) -> LayerWeights:
    norms = [(layer.attention_norm, layer.feed_norm) for layer in layers]
    attentions, feeds = [layer.attention for layer in layers], [layer.feed for layer in layers]
    return LayerWeights(
        norms=_stacked(torch.stack([a.weight, a.bias, f.weight, f.bias]) for a, f in norms),
        qkv=_stacked(attention.qkv.weight.T for attention in attentions),
        out=_stacked(attention.out.weight.T for attention in attentions),
        wide=_stacked(_weight(feed[0]).T for feed in feeds),
        wide_bias=_stacked(_bias(feed[0]) for feed in feeds),
        narrow=_stacked(_weight(feed[2]).T for feed in feeds),
        narrow_bias=_stacked(_bias(feed[2]) for feed in feeds),
        slopes=_stacked(map(_slopes, attentions)),
    )


def _stacked(tensors: Iterable[Tensor]) -> Array:
    return _array(torch.stack(list(tensors)))


def _slopes(attention: SelfAttention) -> Tensor:
    return functional.softplus(attention.slopes)


def _joined(tables: Sequence[Tensor]) -> tuple[Array, Numbers]:
    """Tables joined by rows, and the row at which each begins."""
    sizes = [len(table) for table in tables]
    first = np.cumsum([0, *sizes])[:-1].astype(np.int64)
    return (_array(torch.cat(list(tables))) if tables else np.zeros((1, 16), dtype=np.float32)), first


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module, nn.Linear | nn.Embedding)
    return module.weight


def _bias(module: nn.Module) -> Tensor:
    assert isinstance(module, nn.Linear)
    return module.bias


def _array(tensor: Tensor) -> Array:
    """A C-contiguous array. Memory from torch begins at a cache line, so SIMD loads of its rows are faster
    (:mod:`intentrec_core.kernels.simd`).
    """
    return np.asarray(tensor.detach().cpu().float().contiguous().numpy())


def _transposed(tensor: Tensor) -> Array:
    return _array(tensor.T)
