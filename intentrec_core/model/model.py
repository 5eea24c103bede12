"""The IntentRec model: it predicts a member's intent first, and feeds that prediction into the item prediction.

    plays ─ F ─┬─ short-term encoder ─ S ─┬─ FC ─ causal Transformer ─ heads p_i ─ attention over heads ─ Z ─┐
               └──────────────────────────┴──────────────── F ⊕ S ⊕ Z ─ FC ─ causal Transformer ─ E ─ items ─┘

Source: "IntentRec: Predicting User Session Intent with Hierarchical Multi-Task Learning", arXiv 2408.05353, sections
3.2 to 3.4.
One ``forward`` serves training, prefill and single appended plays: the ``Attend`` that is passed in stores keys and
values.

On the CPU, serving uses a second implementation of this model, :mod:`intentrec_core.engine.cpu.step`.
docs/cpu-engine.md says what to change there when this module changes.

Shapes: B contexts, T plays, W width, M heads, L_i labels of head i, P width of Z, V item rows (row 0: unknown item and
padding), Q width of a query: W, and the labels of the heads in the score of an item (:mod:`intentrec_core.model.intent_score`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from intentrec_core.domain.spec import Domain, Field, FieldKind
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.features.count_columns import NUM_COLUMNS
from intentrec_core.features.labels import ItemLabels
from intentrec_core.model.attention import Attend, FullAttend, SelfAttention, TimeEncoding, TransformerLayer
from intentrec_core.model.config import FIELD_WIDTH, ModelConfig
from intentrec_core.model.dropout import Dropout
from intentrec_core.model.intent_score import label_scores, label_shares, scored_heads
from intentrec_core.model.own_item_inputs import seen_by_gate
from intentrec_core.model.own_items import OwnItems, OwnOffsets
from intentrec_core.model.weights import ModelWeights, heads_without_training, item_columns, untrained_bias


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """The model's output at every play.

    Shapes: item_BTW (E, to be multiplied with item weights), head_logits one f32[B, T, L_i] per head, intent_BTP (Z),
    alpha_BTM (after softmax). Without the intent stage the last three are empty.
    """

    item_BTW: Tensor
    head_logits: tuple[Tensor, ...]
    intent_BTP: Tensor
    alpha_BTM: Tensor


@dataclass(frozen=True, slots=True)
class _Items:
    """What a network knows of its items."""

    codes: NDArray[np.int64]
    multi: dict[str, NDArray[np.float32]]


class FieldEmbedding(nn.Module):
    """F: the item's own embedding next to one embedding per field (paper 3.2)."""

    def __init__(self, domain: Domain, width: int) -> None:
        super().__init__()
        self.dynamic = nn.ModuleList(nn.Embedding(f.num_labels + 1, FIELD_WIDTH) for f in domain.dynamic_fields)
        self.static = nn.ModuleList(nn.Embedding(f.num_labels + 1, FIELD_WIDTH) for f in domain.static_fields)
        self.multi = nn.ModuleList(nn.Linear(f.num_labels, FIELD_WIDTH, bias=False) for f in domain.multi_fields)
        num_fields = len(self.dynamic) + len(self.static) + len(self.multi)
        self.width = width + FIELD_WIDTH * num_fields
        self.content_width = FIELD_WIDTH * (len(self.static) + len(self.multi))

    def content(self, static_codes: Tensor, multi: Sequence[Tensor]) -> Tensor:
        """Embeddings of fields that belong to items alone. Shapes: i64[..., Fs] and f32[..., L] per multi-label field ->
        f32[..., content_width].
        """
        parts = [embed(static_codes[..., i]) for i, embed in enumerate(self.static)]
        for project, labels in zip(self.multi, multi, strict=True):
            parts.append(project(labels / labels.sum(dim=-1, keepdim=True).clamp(min=1.0)))
        return torch.cat(parts, dim=-1) if parts else static_codes.new_zeros(*static_codes.shape[:-1], 0).float()

    def forward(self, item_BTW: Tensor, content_BTC: Tensor, codes: Tensor) -> Tensor:
        """Shapes: -> f32[B, T, self.width]."""
        dynamic = [embed(codes[..., i]) for i, embed in enumerate(self.dynamic)]
        return torch.cat([item_BTW, content_BTC, *dynamic], dim=-1)


class EncoderStage(nn.Module):
    """A linear layer and normalisation, the time encoding, and a causal Transformer: the structure of both encoders (paper
    3.3, 3.4).
    """

    def __init__(self, first_layer: int, width_in: int, config: ModelConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(width_in, config.width)
        self.enter_norm = nn.LayerNorm(config.width)
        self.time = TimeEncoding(config.width)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(first_layer + i, config.width, config.num_heads, config.dropout, config.num_kv_heads)
            for i in range(config.num_layers)
        )
        self.leave_norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, ts_s: Tensor, gap_s: Tensor, attend: Attend) -> Tensor:
        """Shapes: f32[B, T, width_in] -> f32[B, T, W]."""
        x = self.dropout(self.enter_norm(self.enter(x)) + self.time(ts_s, gap_s))
        for layer in self.layers:
            x = layer(x, attend)
        return self.leave_norm(x)


class IntentHeads(nn.Module):
    """The heads p_i, and the intent embedding Z as their mixture, weighted by attention (paper 3.3, Eq. 2)."""

    def __init__(self, domain: Domain, config: ModelConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(config.width, f.num_labels) for f in domain.heads)
        self.projections = nn.ModuleList(nn.Linear(f.num_labels, config.intent_width) for f in domain.heads)
        self.attention = nn.Linear(config.intent_width, 1)

    def forward(self, x_BTW: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Shapes: -> logits f32[B, T, L_i] per head, Z f32[B, T, P], alpha f32[B, T, M]."""
        logits = tuple(head(x_BTW) for head in self.heads)
        projected = torch.stack(
            [project(torch.softmax(logit, dim=-1)) for project, logit in zip(self.projections, logits, strict=True)],
            dim=-2,
        )
        alpha_BTM = torch.softmax(self.attention(projected).squeeze(-1), dim=-1)
        return logits, (alpha_BTM[..., None] * projected).sum(dim=-2), alpha_BTM


class IntentRec(nn.Module):
    """The whole model for one domain and one set of item rows.

    ``primary_bias`` f32[M] is added to the weights of the heads where the primary intent is chosen, and nowhere else: 0
    for a head that was trained, -inf for one that was not (:meth:`set_untrained_heads`).
    ``scored``: the numbers of the heads that add to the score of an item, and ``intent_beta`` f32[heads in the score]: how much
    each of them adds; None where none does. ``count_gate`` says from E how much each column of counts adds; None without counts.
    ``own_items`` says what the member's plays add to the scores of their items; None where they add nothing.
    """

    static_codes: Tensor
    multi_labels: Tensor
    primary_bias: Tensor

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemLabels) -> None:
        super().__init__()
        self.config, self.domain = config, domain
        self._multi_sizes = [f.num_labels for f in domain.multi_fields]
        self.register_buffer("static_codes", torch.empty(0), persistent=False)
        self.register_buffer("multi_labels", torch.empty(0), persistent=False)
        self._set_items(items)
        num_rows = len(self.static_codes)
        self.item = nn.Embedding(num_rows, config.width)
        nn.init.normal_(self.item.weight, std=config.width**-0.5)
        self.fields = FieldEmbedding(domain, config.width)
        self.item_content = nn.Linear(self.fields.content_width, config.width, bias=False)
        self.item_bias = nn.Parameter(torch.zeros(num_rows))
        self.short_term = SelfAttention(0, self.fields.width, config.width, config.num_heads, config.num_kv_heads)
        entered = self.fields.width + config.width
        if config.intent_stage:
            self.intent_encoder: EncoderStage | None = EncoderStage(1, entered, config)
            self.heads: IntentHeads | None = IntentHeads(domain, config)
            self.item_encoder = EncoderStage(1 + config.num_layers, entered + config.intent_width, config)
        else:
            self.intent_encoder = self.heads = None
            self.item_encoder = EncoderStage(1, entered, config)
        scored = scored_heads(domain) if config.intent_stage and config.intent_score else ()
        self.scored = [domain.heads.index(head) for head in scored]
        self.intent_beta = nn.Parameter(torch.zeros(len(scored))) if scored else None
        self.count_gate = nn.Linear(config.width, NUM_COLUMNS) if config.item_counts else None
        if self.count_gate is not None:
            nn.init.zeros_(self.count_gate.weight)
            nn.init.zeros_(self.count_gate.bias)
        labels = sum(head.num_labels for head in domain.heads) if config.intent_stage else 0
        self.own_items = OwnItems(config.width + labels, self.fields.width) if config.own_items else None
        self.register_buffer("primary_bias", torch.zeros(len(domain.heads)), persistent=False)

    @classmethod
    def of(cls, weights: ModelWeights) -> Self:
        """The network with these weights, which are copied, on the CPU and in evaluation mode."""
        with torch.random.fork_rng(devices=[]):  # the weights it begins with are drawn, and then replaced
            network = cls(weights.config, weights.domain, weights.items)
        network.set_untrained_heads(weights.untrained_heads)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.arrays.items()})
        return network.eval()

    def weights(self) -> ModelWeights:
        """The weights as arrays, which share memory with a network on the CPU."""
        arrays = {
            name: tensor.detach().float().cpu().contiguous().numpy() for name, tensor in self.state_dict().items()
        }
        multi = dict(zip((f.name for f in self.domain.multi_fields), self._split(self.multi_labels), strict=True))
        items = _Items(self.static_codes.cpu().numpy(), {name: labels.cpu().numpy() for name, labels in multi.items()})
        return ModelWeights(self.config, self.domain, items, arrays, self.untrained_heads)

    @property
    def untrained_heads(self) -> tuple[str, ...]:
        """Names of the heads that never saw a known label in training: none of their labels is ever the primary intent."""
        return heads_without_training(self.domain, self.primary_bias.cpu().numpy())

    def set_untrained_heads(self, names: Collection[str]) -> None:
        """Says which heads were not trained. Of a new model, no head is taken for untrained.

        Raises: ValueError for a name that is no head's, or when no head would be left.
        """
        self.primary_bias.copy_(torch.from_numpy(untrained_bias(self.domain, names)))

    @property
    def num_rows(self) -> int:
        """Number of item rows, row 0 included."""
        return len(self.static_codes)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.item_bias.device

    def forward(self, batch: ContextBatch, attend: Attend | None = None) -> ModelOutput:
        """Encodes plays. Without ``attend``, each context is encoded whole, from its first play.

        Cost: O(T · W² + T · S · W) per context and layer, S the number of plays that a query sees.
        """
        if attend is None:
            attend = FullAttend(batch.ts_s, self.domain.short_term_window_s)
        fields = self._fields(batch)
        x = torch.cat([fields, self.short_term(fields, attend)], dim=-1)
        if self.intent_encoder is None or self.heads is None:
            none = x.new_zeros(*batch.item_row.shape, 0)
            return ModelOutput(self.item_encoder(x, batch.ts_s, batch.gap_s, attend), (), none, none)
        intent = self.intent_encoder(x, batch.ts_s, batch.gap_s, attend)
        logits, mixed, alpha = self.heads(intent)
        item = self.item_encoder(torch.cat([x, mixed], dim=-1), batch.ts_s, batch.gap_s, attend)
        return ModelOutput(item, logits, mixed, alpha)

    def _fields(self, batch: ContextBatch) -> Tensor:
        """F of every play. Shape: f32[B, T, F]."""
        row = batch.item_row
        content = self.fields.content(self.static_codes[row], self._multi(row))
        return self.fields(self.item(row), content, batch.codes)

    def own_offsets(
        self, output: ModelOutput, batch: ContextBatch, query_place_BQ: Tensor | None = None
    ) -> OwnOffsets | None:
        """What the plays of each context add to the scores of their items: for the outputs of all plays, or of those at
        ``query_place_BQ`` i64[B, Q] alone. None for a model without own items.
        """
        if self.own_items is None:
            return None
        if query_place_BQ is None:
            place = torch.arange(batch.item_row.shape[1], device=batch.item_row.device)
            query_place_BQ = place.expand(batch.item_row.shape)
        probabilities = [torch.softmax(logit.detach(), dim=-1) for logit in output.head_logits]
        seen = torch.cat(seen_by_gate(output.item_BTW, probabilities, torch.log), dim=-1)
        return self.own_items(seen, query_place_BQ, self._fields(batch), batch.item_row, batch.ts_s)

    def item_weights(self) -> tuple[Tensor, Tensor]:
        """Weight w and bias b of every item. Row 0 is no item: its bias is -inf.

        An item's weight is its own embedding plus a projection of its catalogue fields, so that a new item starts from
        a useful value.

        Shapes: f32[V, W], f32[V].
        """
        content = self.fields.content(self.static_codes, self._split(self.multi_labels))
        bias = torch.cat([self.item_bias.new_full((1,), float("-inf")), self.item_bias[1:]])
        return self.item.weight + self.item_content(content), bias

    def weights_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and biases of selected items, as in :meth:`item_weights`. Shapes: i64[C] -> f32[C, W], f32[C]."""
        content = self.fields.content(self.static_codes[rows], self._multi(rows))
        return self.item(rows) + self.item_content(content), self.item_bias[rows]

    def item_labels(self, rows: Tensor | None = None) -> Tensor:
        """Labels of the items (of all, or of selected ones) by the heads in the score, as shares of each head.

        Shapes: i64[C] -> f32[C, Q - W].
        """
        codes, multi = self.static_codes, self.multi_labels
        if rows is not None:
            codes, multi = codes[rows], multi[rows]
        shares = [label_shares(self._labels(self.domain.heads[m], codes, multi)) for m in self.scored]
        return torch.cat(shares, dim=-1) if shares else self.item_bias.new_zeros(len(codes), 0)

    def queries(self, output: ModelOutput) -> Tensor:
        """What the items are scored with: ⟨query, [w, labels]⟩ + b is the score of an item. Shapes: -> f32[..., Q].

        No gradient reaches the heads from here: the item loss would turn probabilities of labels into weights of items
        (decision 95).
        """
        if self.intent_beta is None:
            return output.item_BTW
        parts = [output.item_BTW]
        for m, beta in zip(self.scored, self.intent_beta, strict=True):
            probabilities = torch.softmax(output.head_logits[m].detach(), dim=-1)
            parts.append(beta * label_scores(probabilities, torch.log))
        return torch.cat(parts, dim=-1)

    def item_vectors(self) -> tuple[Tensor, Tensor]:
        """Vector [w, labels] and bias b of every item, for :meth:`queries`. Shapes: f32[V, Q], f32[V]."""
        weight, bias = self.item_weights()
        return torch.cat([weight, self.item_labels()], dim=-1), bias

    def item_logits(self, query: Tensor) -> Tensor:
        """Scores of all items. Shapes: f32[..., Q] -> f32[..., V]."""
        return functional.linear(query, *self.item_vectors())

    def grow(self, items: ItemLabels) -> None:
        """Extends the model to a longer item table. New rows start as the mean of the known items; their catalogue fields
        tell them apart.

        Raises: ValueError when the table has fewer rows than the model, because rows are append-only.
        """
        old, new = self.num_rows, len(items.codes)
        if new < old:
            raise ValueError(f"{new} item rows, the model has {old}: rows are append-only")
        device, (item, bias) = self.device, self._new_item()
        self._set_items(items)
        self.static_codes, self.multi_labels = self.static_codes.to(device), self.multi_labels.to(device)
        grown = nn.Embedding(new, self.config.width, device=device)
        grown.weight.data[:old] = self.item.weight.data
        grown.weight.data[old:] = item
        self.item = grown
        self.item_bias = nn.Parameter(torch.cat([self.item_bias.data, bias.expand(new - old)]))

    def _new_item(self) -> tuple[Tensor, Tensor]:
        """Embedding and bias of an item without plays: the mean of the known items, and the lowest bias; 0 beside counts.

        Shapes: f32[1, W], f32[].
        """
        items, biases = self.item.weight.data, self.item_bias.data
        if len(items) == 1:
            return items, biases.new_zeros(())
        if self.count_gate is not None:  # counts say how often it is played: the bias is what they do not explain
            return items[1:].mean(dim=0, keepdim=True), biases.new_zeros(())
        return items[1:].mean(dim=0, keepdim=True), biases[1:].min()

    def _set_items(self, items: ItemLabels) -> None:
        codes, multi = item_columns(self.domain, items)
        self.static_codes, self.multi_labels = torch.from_numpy(codes), torch.from_numpy(multi)

    def _multi(self, row: Tensor) -> list[Tensor]:
        return self._split(self.multi_labels[row])

    def _split(self, labels: Tensor) -> list[Tensor]:
        return list(torch.split(labels, self._multi_sizes, dim=-1)) if self._multi_sizes else []

    def head_targets(self, batch: ContextBatch) -> list[Tensor]:
        """The observed labels of every head at every play, as label weights: several ones for multi-label fields, all 0
        where missing.

        Shapes: one f32[B, T, L_i] per head.
        """
        dynamic = {f.name: i for i, f in enumerate(self.domain.dynamic_fields)}
        targets, codes, multi = [], self.static_codes[batch.item_row], self.multi_labels[batch.item_row]
        for head in self.domain.heads:
            if head.name in dynamic:
                targets.append(_one_hot(batch.codes[..., dynamic[head.name]], head))
            else:
                targets.append(self._labels(head, codes, multi))
        return targets

    def _labels(self, field: Field, codes: Tensor, multi: Tensor) -> Tensor:
        """Labels that items have of a catalogue field: ones, and all 0 where missing.

        Shapes: i64[..., fields], f32[..., labels of all multi-label fields] -> f32[..., L].
        """
        if field.kind is FieldKind.MULTI_LABEL:
            return self._split(multi)[self.domain.multi_fields.index(field)]
        return _one_hot(codes[..., self.domain.static_fields.index(field)], field)


def _one_hot(code: Tensor, field: Field) -> Tensor:
    """Label codes as indicators, all 0 for code 0. Shapes: i64[...] -> f32[..., L]."""
    return functional.one_hot(code, field.num_labels + 1)[..., 1:].float()
