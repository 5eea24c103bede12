"""TransAct (Xia et al., KDD 2023), adapted to the next item: a Transformer over the latest actions, beside a long-term mean.

    the latest plays ─ Transformer ─┬─ its last columns, side by side ─┐
                                    └─ their largest values ───────────┼─ cross layer ─ feed-forward ─ E ─┬─ items
    all plays so far ─ mean of the item embeddings ────────────────────┘                                 └─ intents, side by side

What differs from the original, and why: it scores one candidate at a time, which is an input of its Transformer; here every item
is ranked, so E is multiplied with the items' vectors. Its Transformer sees the latest actions in both directions; here each
play sees those before it, so that one pass predicts every play. Its long-term vector comes from another model; here it is a
mean. It hides actions of a random time span while it learns, against lists that change too fast; this is left out.

An :class:`~intentrec_core.model.model.IntentRec` in its interface only, as other baselines are
(:mod:`intentrec_core.baselines.sequence_models`). It is not served.

Shapes: B contexts, T plays, W width.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from intentrec_core.domain.spec import Domain
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.features.labels import ItemLabels
from intentrec_core.model.attention import Attend, FullAttend
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import EncoderStage, IntentRec, ModelOutput

#: How many of the last columns stand side by side, and over how many plays the largest values are taken: the original's.
LAST_COLUMNS, NUM_ACTIONS = 10, 100


class TransAct(IntentRec):
    """See the module."""

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemLabels) -> None:
        super().__init__(dataclasses.replace(config, intent_stage=True), domain, items)
        assert self.heads is not None
        del self.short_term, self.heads.projections, self.heads.attention
        self.intent_encoder = None
        self.item_encoder = EncoderStage(1, self.fields.width, config)
        self.merge = _CrossNetwork((LAST_COLUMNS + 2) * config.width, config.width, config.dropout)

    def forward(self, batch: ContextBatch, attend: Attend | None = None) -> ModelOutput:
        """Encodes plays."""
        if attend is None:
            attend = FullAttend(batch.ts_s, self.domain.short_term_window_s)
        assert self.heads is not None
        row = batch.item_row
        item = self.item(row)
        content = self.fields.content(self.static_codes[row], self._multi(row))
        x = self.item_encoder(self.fields(item, content, batch.codes), batch.ts_s, batch.gap_s, attend)
        merged = self.merge(torch.cat([_last_columns(x), _largest(x), _mean_so_far(item)], dim=-1))
        none = merged.new_zeros(*row.shape, 0)
        return ModelOutput(merged, tuple(head(merged) for head in self.heads.heads), none, none)


class _CrossNetwork(nn.Module):
    """A cross layer of low rank (DCN-V2), then a feed-forward network to the width."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.enter_norm = nn.LayerNorm(width_in)
        self.down = nn.Linear(width_in, width, bias=False)
        self.up = nn.Linear(width, width_in)
        self.feed = nn.Sequential(
            nn.Linear(width_in, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.leave_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: f32[B, T, width_in] -> f32[B, T, W]."""
        x = self.enter_norm(x)
        x = x + x * self.up(self.down(x))
        return self.leave_norm(self.feed(x))


def _last_columns(x_BTW: Tensor) -> Tensor:
    """Of each play, what the last plays up to it have, the newest first; zeros before the first play."""
    earlier = [functional.pad(x_BTW, (0, 0, back, 0))[:, : x_BTW.shape[1]] for back in range(LAST_COLUMNS)]
    return torch.cat(earlier, dim=-1)


def _largest(x_BTW: Tensor) -> Tensor:
    """The largest value of each channel over the last actions."""
    padded = functional.pad(x_BTW.transpose(1, 2), (NUM_ACTIONS - 1, 0), value=float("-inf"))
    return functional.max_pool1d(padded, NUM_ACTIONS, stride=1).transpose(1, 2)


def _mean_so_far(item_BTW: Tensor) -> Tensor:
    """The mean of the items up to each play."""
    num_plays = torch.arange(1, item_BTW.shape[1] + 1, device=item_BTW.device)
    return item_BTW.cumsum(dim=1) / num_plays[:, None]
