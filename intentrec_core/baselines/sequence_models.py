"""Reference models that are trained: they predict the next item from the items before it, on the same batches as IntentRec.

    SASRec                 causal Transformer over items and positions (Kang and McAuley, ICDM 2018)
    GRU4Rec                a gated recurrent network over items (Hidasi et al., ICLR 2016)
    MultiTaskTransformer   one causal Transformer over all of IntentRec's inputs, intents and items side by side: the paper's V1

They are trained with the full softmax. Each is an :class:`~intentrec_core.model.model.IntentRec` in its interface only, so that
training, ranking and growing to new items are one code for all of them, and a difference between two rows is one between two
models. None of them is served.

Shapes: B contexts, T plays, W width, V item rows.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from intentrec_core.domain.spec import Domain
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.features.labels import ItemLabels
from intentrec_core.model.attention import Attend, FullAttend
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import EncoderStage, IntentRec, ModelOutput


class _ItemModel(IntentRec):
    """A model that knows an item by its embedding alone: no catalogue fields, no times, no intents."""

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemLabels) -> None:
        super().__init__(dataclasses.replace(config, intent_stage=False), domain, items)
        del self.fields, self.item_content, self.short_term, self.item_encoder
        self.dropout = nn.Dropout(config.dropout)

    def item_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`IntentRec.item_weights`."""
        return self.item.weight, torch.cat([self.item_bias.new_full((1,), float("-inf")), self.item_bias[1:]])

    def weights_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`IntentRec.weights_of`."""
        return self.item(rows), self.item_bias[rows]

    def _output(self, encoded_BTW: Tensor) -> ModelOutput:
        none = encoded_BTW.new_zeros(*encoded_BTW.shape[:2], 0)
        return ModelOutput(encoded_BTW, (), none, none)


class SASRec(_ItemModel):
    """Causal self-attention over the items of a context and their positions."""

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemLabels) -> None:
        super().__init__(config, domain, items)
        self.position = nn.Embedding(domain.context_size + 1, config.width)
        nn.init.normal_(self.position.weight, std=config.width**-0.5)
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.num_heads,
            dim_feedforward=4 * config.width,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(config.width)
        self.layers = nn.TransformerEncoder(layer, config.num_layers, norm=norm, enable_nested_tensor=False)

    def forward(self, batch: ContextBatch, attend: Attend | None = None) -> ModelOutput:
        """Encodes plays; ``attend`` has no effect."""
        row = batch.item_row
        place = torch.arange(row.shape[1], device=row.device)
        hidden = place[:, None] < place[None, :]
        x = self.dropout(self.item(row) + self.position(place))
        return self._output(self.layers(x, mask=hidden))


class GRU4Rec(_ItemModel):
    """A recurrent network over the items of a context."""

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemLabels) -> None:
        super().__init__(config, domain, items)
        self.recurrent = nn.GRU(config.width, config.width, config.num_layers, batch_first=True)
        self.leave_norm = nn.LayerNorm(config.width)

    def forward(self, batch: ContextBatch, attend: Attend | None = None) -> ModelOutput:
        """Encodes plays; ``attend`` has no effect."""
        states, _ = self.recurrent(self.dropout(self.item(batch.item_row)))
        return self._output(self.leave_norm(self.dropout(states)))


class MultiTaskTransformer(IntentRec):
    """One encoder, with as many layers as both of IntentRec's together, predicts intents and item side by side: no intent is an
    input of the item prediction, and there is no short-term encoder.
    """

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemLabels) -> None:
        super().__init__(dataclasses.replace(config, intent_stage=True), domain, items)
        assert self.heads is not None
        del self.short_term, self.heads.projections, self.heads.attention
        self.intent_encoder = None
        deep = dataclasses.replace(config, num_layers=2 * config.num_layers)
        self.item_encoder = EncoderStage(1, self.fields.width, deep)

    def forward(self, batch: ContextBatch, attend: Attend | None = None) -> ModelOutput:
        """Encodes plays."""
        if attend is None:
            attend = FullAttend(batch.ts_s, self.domain.short_term_window_s)
        assert self.heads is not None
        row = batch.item_row
        content = self.fields.content(self.static_codes[row], self._multi(row))
        x = self.item_encoder(self.fields(self.item(row), content, batch.codes), batch.ts_s, batch.gap_s, attend)
        none = x.new_zeros(*row.shape, 0)
        return ModelOutput(x, tuple(head(x) for head in self.heads.heads), none, none)
