"""A model's ranks on test plays, window by window: one causal pass predicts every target of a window as it would be
served.

Shapes: N targets, B windows, T plays, V item rows, Q width of a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.domain.spec import Domain, FilterKind
from intentrec_core.evaluation.targets import Targets
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.model import IntentRec, ModelOutput
from intentrec_core.plays.batches import WindowBatch, WindowBatches
from intentrec_core.plays.counts_at import CountsAt, counts_for
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.windows import Windows

BATCH_WINDOWS = 32
MAX_SCORES = 1 << 24
"""Scores held at once: 64 MiB as float32, whatever the catalogue's size."""


@dataclass(frozen=True, slots=True)
class ModelRanks:
    """A model's results on each target.

    Shapes: ranks f64[N]; correct one f64[N] per head: 1 if its most likely label was observed, else 0, NaN if no label
    was observed.
    """

    ranks: NDArray[np.float64]
    correct: dict[str, NDArray[np.float64]]


class ModelRanker:
    """Ranks the same targets with any number of models that share a vocabulary."""

    def __init__(self, features: FeatureBuilder, members: MemberPlays, windows: Windows) -> None:
        self._domain = features.domain
        self._features, self._members = features, members
        self._batches = WindowBatches(features, members, windows)
        counts = windows.stop - windows.start - windows.first_target
        self._offset = np.cumsum(counts) - counts
        self._counts = counts

    @torch.no_grad()
    def rank(self, model: IntentRec, targets: Targets, *, decides_filter: bool = True) -> ModelRanks:
        """Ranks ``targets`` (those of the windows, in their order) with ``model``, which is left in evaluation mode.

        If ``decides_filter`` is set and the model has heads, its predictions decide for which targets the watched
        filter is lifted. This is stored in ``targets``, so that references ranked afterwards use the same filter.
        """
        model.eval()
        ranks = np.full(len(targets), np.inf)
        heads = self._domain.heads if model.config.intent_stage else ()
        correct = {head.name: np.full(len(targets), np.nan) for head in heads}
        vector_VQ, bias_V = model.item_vectors()
        counts = counts_for(model, self._features, self._members)
        # Counts of a target take several times the memory of its scores.
        chunk = max(1, (MAX_SCORES if counts is None else MAX_SCORES // 8) // len(bias_V))
        for batch in self._batches.ordered(BATCH_WINDOWS):
            on_device = batch.to(model.device)
            output = model(on_device.context)
            which, window, place = self._targets_of(batch)
            self._score_heads(model, output, on_device, which, window, place, correct)
            if decides_filter and heads:
                targets.lifted[which] = lifted_by(self._domain, output, window, place - 1)
            query_NQ = model.queries(output)[window, place - 1]
            ts_s = batch.context.ts_s[window, place].numpy()
            for low in range(0, len(which), chunk):
                chunk_rows = slice(low, low + chunk)
                scores = torch.addmm(bias_V, query_NQ[chunk_rows], vector_VQ.T)
                if counts is not None and model.count_gate is not None:
                    gate_NC = model.count_gate(output.item_BTW[window, place - 1][chunk_rows])
                    column_NCV = CountsAt(counts, ts_s[chunk_rows], model.device).columns()
                    scores += torch.bmm(gate_NC[:, None, :], column_NCV)[:, 0]
                ranks[which[chunk_rows]] = targets.ranks(which[chunk_rows], scores)
        return ModelRanks(ranks, correct)

    @torch.no_grad()
    def label_shares(self, model: IntentRec) -> dict[str, NDArray[np.float64]]:
        """For each head, how often each label occurs among the targets: the accuracy of always predicting it. Shapes:
        f64[L].
        """
        sums = {head.name: np.zeros(head.num_labels + 1) for head in self._domain.heads}
        for batch in self._batches.ordered(BATCH_WINDOWS):
            on_device = batch.to(model.device)
            _, window, place = self._targets_of(batch)
            for name, labels in zip(sums, model.head_targets(on_device.context), strict=True):
                true_NL = labels[window, place] > 0
                present = true_NL.any(dim=-1).sum()
                sums[name] += torch.cat([true_NL.sum(dim=0), present[None]]).cpu().numpy()
        return {name: total[:-1] / max(1.0, total[-1]) for name, total in sums.items()}

    def _targets_of(self, batch: WindowBatch) -> tuple[NDArray[np.int64], Tensor, Tensor]:
        """Of the batch's targets: their indices among all targets, their windows in the batch, and their places in the
        window.
        """
        counts = self._counts[batch.windows]
        ahead = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        which = np.repeat(self._offset[batch.windows], counts) + ahead
        window = np.repeat(np.arange(len(counts)), counts)
        place = np.repeat(batch.first_target.numpy(), counts) + ahead
        return which, torch.from_numpy(window), torch.from_numpy(place)

    def _score_heads(
        self,
        model: IntentRec,
        output: ModelOutput,
        batch: WindowBatch,
        which: NDArray[np.int64],
        window: Tensor,
        place: Tensor,
        correct: dict[str, NDArray[np.float64]],
    ) -> None:
        if not correct:
            return
        observed = model.head_targets(batch.context)
        for hits, logits, labels in zip(correct.values(), output.head_logits, observed, strict=True):
            label = logits[window, place - 1].argmax(dim=-1, keepdim=True)
            true_NL = labels[window, place]
            hit = (true_NL.gather(1, label)[:, 0] > 0).double()
            hits[which] = hit.masked_fill(true_NL.sum(dim=-1) == 0, torch.nan).cpu().numpy()


def lifted_by(domain: Domain, output: ModelOutput, window: Tensor, place: Tensor) -> NDArray[np.bool_]:
    """At which plays the predicted label lifts the watched filter (its ``unless_head`` and ``unless_values``).

    Shapes: i64[n], i64[n] -> bool[n].
    """
    lifted = torch.zeros(len(window), dtype=torch.bool, device=output.item_BTW.device)
    for rule in domain.filters:
        for head, logits in zip(domain.heads, output.head_logits, strict=True):
            if rule.kind is FilterKind.WATCHED and head.name == rule.unless_head:
                label = logits[window, place].argmax(dim=-1)
                for value in rule.unless_values:
                    lifted |= label == head.label_names.index(value)
    return lifted.cpu().numpy()
