"""A model's weights as arrays: what a worker on a CPU and a gateway hold of a bundle. This module does not need torch.

Importing torch takes seconds and hundreds of megabytes. The compiled encoder (:mod:`intentrec_core.engine.cpu`), and what scores
items beside it, need the numbers alone. Names and shapes are those of the network's ``state_dict()``. A parameter that is added
to :mod:`intentrec_core.model.model` is added to :func:`weight_shapes` too.

Shapes: as :mod:`intentrec_core.model.model`; R rows of items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain
from intentrec_core.features.count_columns import NUM_COLUMNS
from intentrec_core.features.labels import ItemLabels
from intentrec_core.model.config import FIELD_WIDTH, TIME_COLUMNS, ModelConfig
from intentrec_core.model.intent_score import label_shares, scored_heads
from intentrec_core.model.own_item_inputs import KEY_WIDTH, PAIR_COLUMNS

Array = NDArray[np.float32]


class ModelWeights:
    """The arrays of one model, by name, and what it knows of its items.

    ``primary_bias``: see :func:`untrained_bias`. The arrays are not copied.

    Shapes: static_codes i64[V, fields], multi_labels f32[V, labels of all multi-label fields], primary_bias f32[M].
    Raises: ValueError for ``untrained_heads`` as :func:`untrained_bias` does.
    """

    def __init__(
        self,
        config: ModelConfig,
        domain: Domain,
        items: ItemLabels,
        arrays: Mapping[str, Array],
        untrained_heads: Collection[str] = (),
    ) -> None:
        self.config, self.domain, self.items, self.arrays = config, domain, items, arrays
        self.static_codes, self.multi_labels = item_columns(domain, items)
        self.primary_bias = untrained_bias(domain, untrained_heads)

    @property
    def num_rows(self) -> int:
        """Number of item rows, row 0 included."""
        return len(self.static_codes)

    @property
    def untrained_heads(self) -> tuple[str, ...]:
        """Names of the heads that never saw a known label in training."""
        return heads_without_training(self.domain, self.primary_bias)

    def betas(self) -> Array:
        """How much each head of the domain adds to the score of an item; 0 for one that does not take part. Shape: f32[M]."""
        betas = np.zeros(len(self.domain.heads), dtype=np.float32)
        if "intent_beta" in self.arrays:
            betas[[self.domain.heads.index(head) for head in scored_heads(self.domain)]] = self.arrays["intent_beta"]
        return betas

    def item_weights(self) -> tuple[Array, Array]:
        """Weight and bias of every item; row 0 is no item. Shapes: f32[V, W], f32[V]."""
        content = self._content(self.static_codes, self.multi_labels)
        return self.arrays["item.weight"] + content @ self.arrays["item_content.weight"].T, self.arrays["item_bias"]

    def new_item_weights(self, items: ItemLabels) -> tuple[Array, Array]:
        """Weights and biases that :meth:`item_weights` gives to ``items`` once the network has grown by them.

        Shapes: R rows of items -> f32[R, W], f32[R]; where row 0 is no item, that of the result is of no use.
        """
        content = self._content(*item_columns(self.domain, items))
        known, biases = self.arrays["item.weight"][1:], self.arrays["item_bias"][1:]
        item = known.mean(axis=0, keepdims=True) if len(known) else self.arrays["item.weight"]
        # Beside counts, a bias is what these do not explain: nothing of an item without plays.
        bias = 0.0 if not len(known) or self.config.item_counts else biases.min()
        return item + content @ self.arrays["item_content.weight"].T, np.full(len(content), bias, dtype=np.float32)

    def own_key_shares(self) -> tuple[Array, list[Array]]:
        """What each item, and each code of each of the play's own fields, adds to a key of :mod:`intentrec_core.model.own_items`
        before its activation; the bias is in the items' share.

        Shapes: f32[V, K]; one f32[L + 1, K] for each dynamic field.
        Raises: ValueError for a model without own items.
        """
        if not self.config.own_items:
            raise ValueError("the model has no own items")
        tables = [self.arrays[f"fields.dynamic.{i}.weight"] for i in range(len(self.domain.dynamic_fields))]
        key_FK = self.arrays["own_items.key.weight"].T
        content = self._content(self.static_codes, self.multi_labels)
        fields = np.concatenate([self.arrays["item.weight"], content], axis=1)
        of_item, *of_codes = np.split(key_FK, fields.shape[1] + FIELD_WIDTH * np.arange(len(tables)))
        items = fields @ of_item + self.arrays["own_items.key.bias"]
        return items, [table @ share for table, share in zip(tables, of_codes, strict=True)]

    def _content(self, codes: NDArray[np.int64], multi_labels: Array) -> Array:
        """Embeddings of the fields that belong to items alone. Shapes: i64[R, fields], f32[R, labels] -> f32[R, content]."""
        parts = [np.zeros((len(codes), 0), dtype=np.float32)]
        parts += [self.arrays[f"fields.static.{i}.weight"][code] for i, code in enumerate(codes.T)]
        ends = np.cumsum([field.num_labels for field in self.domain.multi_fields])
        of_fields = np.split(multi_labels, ends[:-1], axis=1) if len(ends) else []
        parts += [
            label_shares(labels) @ self.arrays[f"fields.multi.{i}.weight"].T for i, labels in enumerate(of_fields)
        ]
        return np.concatenate(parts, axis=1)


def item_columns(domain: Domain, items: ItemLabels) -> tuple[NDArray[np.int64], Array]:
    """What a model reads of its items. Shapes: -> i64[R, fields], f32[R, labels of all multi-label fields]."""
    multi = [items.multi[field.name] for field in domain.multi_fields]
    empty = np.zeros((len(items.codes), 0), dtype=np.float32)
    return np.ascontiguousarray(items.codes, dtype=np.int64), np.concatenate([empty, *multi], axis=1)


def untrained_bias(domain: Domain, untrained: Collection[str]) -> Array:
    """What is added to the weights of the heads where the primary intent is chosen, and nowhere else: 0 for a head that was
    trained, -inf for one of ``untrained``. Shape: f32[M].

    Raises: ValueError for a name that is no head's, or when no head would be left.
    """
    is_untrained = np.array([head.name in untrained for head in domain.heads], dtype=np.bool_)
    if untrained and (is_untrained.sum() != len(set(untrained)) or is_untrained.all()):
        heads = ", ".join(head.name for head in domain.heads)
        raise ValueError(f"untrained heads {sorted(untrained)}: allowed: some of {heads}, not all of them")
    return np.where(is_untrained, -np.inf, 0.0).astype(np.float32)


def heads_without_training(domain: Domain, primary_bias: Array) -> tuple[str, ...]:
    """Names of the heads that :func:`untrained_bias` made ``primary_bias`` of."""
    return tuple(head.name for head, bias in zip(domain.heads, primary_bias.tolist(), strict=True) if bias < 0)


def weight_shapes(config: ModelConfig, domain: Domain, num_rows: int) -> dict[str, tuple[int, ...]]:
    """The shape of every array of a model with so many rows of items, by name."""
    width = config.width
    on_items = len(domain.static_fields) + len(domain.multi_fields)
    fields = width + FIELD_WIDTH * (on_items + len(domain.dynamic_fields))
    shapes: dict[str, tuple[int, ...]] = {"item.weight": (num_rows, width), "item_bias": (num_rows,)}
    for kind, coded in (("dynamic", domain.dynamic_fields), ("static", domain.static_fields)):
        shapes |= {f"fields.{kind}.{i}.weight": (f.num_labels + 1, FIELD_WIDTH) for i, f in enumerate(coded)}
    shapes |= {f"fields.multi.{i}.weight": (FIELD_WIDTH, f.num_labels) for i, f in enumerate(domain.multi_fields)}
    shapes["item_content.weight"] = (width, FIELD_WIDTH * on_items)
    shapes |= _attention("short_term", fields, config)
    entered = fields + width
    if config.intent_stage:
        shapes |= _stage("intent_encoder", entered, config)
        shapes |= _linear("heads.attention", config.intent_width, 1)
        for i, head in enumerate(domain.heads):
            shapes |= _linear(f"heads.heads.{i}", width, head.num_labels)
            shapes |= _linear(f"heads.projections.{i}", head.num_labels, config.intent_width)
        if config.intent_score and scored_heads(domain):
            shapes["intent_beta"] = (len(scored_heads(domain)),)
        entered += config.intent_width
    shapes |= _stage("item_encoder", entered, config)
    if config.item_counts:
        shapes |= _linear("count_gate", width, NUM_COLUMNS)
    if config.own_items:
        labels = sum(head.num_labels for head in domain.heads) if config.intent_stage else 0
        shapes |= _linear("own_items.gate", width + labels, PAIR_COLUMNS + KEY_WIDTH)
        shapes |= _linear("own_items.key", fields, KEY_WIDTH)
    return shapes


def _stage(name: str, width_in: int, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    width = config.width
    shapes = _linear(f"{name}.enter", width_in, width) | _linear(f"{name}.time.project", TIME_COLUMNS, width)
    shapes |= dict(_norms(name, ("enter_norm", "leave_norm"), width))
    for i in range(config.num_layers):
        layer = f"{name}.layers.{i}"
        shapes |= _attention(f"{layer}.attention", width, config)
        shapes |= _linear(f"{layer}.feed.0", width, 2 * width) | _linear(f"{layer}.feed.2", 2 * width, width)
        shapes |= dict(_norms(layer, ("attention_norm", "feed_norm"), width))
    return shapes


def _attention(name: str, width_in: int, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.slopes": (2, config.num_heads),
        f"{name}.qkv.weight": (config.width + 2 * config.cached_width, width_in),
        f"{name}.out.weight": (config.width, config.width),
    }


def _linear(name: str, width_in: int, width_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _norms(name: str, norms: Collection[str], width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for norm in norms:
        yield f"{name}.{norm}.weight", (width,)
        yield f"{name}.{norm}.bias", (width,)
