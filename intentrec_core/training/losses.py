"""The training loss: the next item weighted by duration, plus lambda times the next label of every head (paper Eq. 3
and 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.features.play_counts import PlayCounts
from intentrec_core.model.model import IntentRec, ModelOutput
from intentrec_core.plays.counts_at import CountsAt
from intentrec_core.training.item_softmax import item_cross_entropy
from intentrec_core.training.sampled_softmax import ItemSampler, OwnLogits, logits_of_plays, sampled_cross_entropy


@dataclass(frozen=True, slots=True)
class LossParts:
    """The total loss and its terms, as scalars. Each term is a mean over the target plays."""

    total: Tensor
    item: Tensor
    heads: dict[str, Tensor]


def intentrec_loss(
    model: IntentRec,
    output: ModelOutput,
    batch: ContextBatch,
    *,
    intent_weight: float,
    entered: ContextBatch | None = None,
    first_target: Tensor | None = None,
    sampler: ItemSampler | None = None,
    counts: PlayCounts | None = None,
) -> LossParts:
    """The loss of predicting play k + 1 at play k, for the plays of each context from ``first_target`` on.

    ``intent_weight`` is lambda. ``first_target`` (i64[B], default 1) excludes plays that are already targets of another
    context. A target with an unknown item (row 0) has no item loss, but its labels count. ``entered``, by default ``batch``, is
    what ``output`` was computed of: where an item was made unknown there, it is no own item either. With ``sampler``, the item
    loss is estimated from a sample of the items. ``counts`` are those that the model needs.

    Raises: ValueError when the model needs counts and there are none.
    """
    if model.count_gate is not None and counts is None:
        raise ValueError("a model with item_counts cannot be trained without counts")
    place = torch.arange(1, batch.item_row.shape[1], device=batch.item_row.device)
    first = torch.ones_like(batch.lengths) if first_target is None else first_target.clamp(min=1)
    taken = (place[None] < batch.lengths[:, None]) & (place[None] >= first[:, None])
    row = batch.item_row[:, 1:][taken]
    query_BTQ = model.queries(output)[:, :-1]
    query, target = query_BTQ[taken], row.clamp(min=1)
    weight = batch.weight[:, 1:][taken] * (row > 0)
    share = weight / weight.sum().clamp(min=1e-6)
    gate, at = None, None
    if model.count_gate is not None and counts is not None:
        gate = model.count_gate(output.item_BTW[:, :-1][taken])
        at = CountsAt(counts, batch.ts_s[:, 1:][taken].cpu().numpy(), query.device)
    entered = batch if entered is None else entered
    own = model.own_offsets(output, entered)
    own = None if own is None else own.at((slice(None), slice(-1))).at(taken)
    if sampler is None:
        weight, bias = model.item_weights()
        columns = None if at is None else lambda which: at.columns(which=which)
        item = item_cross_entropy(query, weight, model.item_labels(), bias, target, share, gate, columns, own)
    else:
        logits = None
        if own is not None:
            logits = OwnLogits(own, logits_of_plays(model, query_BTQ, entered.item_row)[taken])
        item = (sampled_cross_entropy(model, query, target, sampler, gate, at, logits) * share).sum()
    predicted = model.domain.heads if model.config.intent_stage else ()
    heads = {}
    for head, logit, labels in zip(
        predicted, output.head_logits, model.head_targets(batch)[: len(predicted)], strict=True
    ):
        truth = labels[:, 1:][taken]
        present = (truth.sum(dim=-1) > 0).sum().clamp(min=1)
        # With several positive labels, their cross-entropies are added; labels that are not set add nothing (paper
        # 3.3).
        heads[head.name] = -(truth * functional.log_softmax(logit[:, :-1][taken], dim=-1)).sum() / present
    total = item + intent_weight * sum(heads.values(), start=item.new_zeros(()))
    return LossParts(total=total, item=item, heads=heads)
