"""A model's ranks on test plays, window by window: one causal pass predicts every target of a window as it would be
served.

Shapes: N targets, B windows, T plays, V item rows, Q width of a query, L last plays that successors look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.domain.spec import Domain, FilterKind
from intentrec_core.evaluation.heads import HeadOutcomes, observe
from intentrec_core.evaluation.rankers import ScoredTargets
from intentrec_core.evaluation.targets import Targets
from intentrec_core.evaluation.task import Task
from intentrec_core.features.count_columns import DAY_COLUMN
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.model import IntentRec, ModelOutput
from intentrec_core.plays.batches import WindowBatch, WindowBatches
from intentrec_core.plays.counts_at import CountsAt, counts_for
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.windows import Windows
from intentrec_core.successors import LAGS, Successors, SuccessorTable, popular_shares

BATCH_WINDOWS = 32
MAX_MODEL_SCORES = 1 << 24
"""Scores held at once: 64 MiB as float32, whatever the catalogue's size."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A model, the features, with their vocabulary, that it was trained on, and its successors."""

    model: IntentRec
    features: FeatureBuilder
    successors: Successors | None = None


@dataclass(frozen=True, slots=True)
class ModelRanks:
    """A model's results on each target.

    Shapes: ranks f64[N]; heads: one set of outcomes per head, in the order of the domain; none without the intent stage;
    lifted bool[N]: for which targets the watched filter was lifted.
    """

    ranks: NDArray[np.float64]
    heads: dict[str, HeadOutcomes]
    lifted: NDArray[np.bool_]

    @property
    def correct(self) -> dict[str, NDArray[np.float64]]:
        """For each head f64[N]: 1 if its most likely label was observed, else 0, NaN if no label was observed."""
        return {name: outcomes.correct for name, outcomes in self.heads.items()}


class ModelRanker:
    """Ranks the same targets with any number of models that share a vocabulary."""

    def __init__(self, features: FeatureBuilder, members: MemberPlays, windows: Windows) -> None:
        self._domain = features.domain
        self._features, self._members = features, members
        self._batches = WindowBatches(features, members, windows)
        counts = windows.stop - windows.start - windows.first_target
        self._offset = np.cumsum(counts) - counts
        self._counts = counts
        self._first_play = np.repeat(windows.start, counts)

    @torch.no_grad()
    def rank(self, model: IntentRec, targets: Targets, successors: Successors | None = None) -> ModelRanks:
        """Ranks ``targets`` (those of the windows, in their order) with ``model``, which is left in evaluation mode, and with
        ``successors`` beside its score, if given.

        If the model has heads, its predictions decide for which targets the watched filter is lifted, otherwise
        ``targets.lifted``.
        """
        ranks = np.full(len(targets), np.inf)
        heads: dict[str, HeadOutcomes] = {}
        decided = replace(targets, lifted=targets.lifted.copy())
        for which, scores in self.scores(model, targets, heads, decided.lifted, successors):
            ranks[which] = decided.ranks(which, scores)
        return ModelRanks(ranks, heads, decided.lifted)

    @torch.no_grad()
    def ranks_by_weight(
        self,
        model: IntentRec,
        targets: Targets,
        table: SuccessorTable,
        weights: Sequence[float],
        *,
        lifts: bool = True,
    ) -> NDArray[np.float64]:
        """The ranks for each of K weights of successors, in one pass of the model: 0 is the model alone. ``lifts``: whether the
        heads decide for which targets the watched filter is lifted, as in :meth:`rank`. Shape: f64[K, N].
        """
        ranks_KN = np.full((len(weights), len(targets)), np.inf)
        decided = replace(targets, lifted=targets.lifted.copy())
        lifted, unit = decided.lifted if lifts else None, Successors(table, 1.0)
        for which, scores, popular in self._alone(model, targets, {}, lifted, has_popular=True):
            added = self._added(scores, unit, targets, which, popular)
            for ranks_N, weight in zip(ranks_KN, weights, strict=True):
                ranks_N[which] = decided.ranks(which, scores + weight * added)
        return ranks_KN

    @torch.no_grad()
    def scores(
        self,
        model: IntentRec,
        targets: Targets,
        heads: dict[str, HeadOutcomes],
        lifted: NDArray[np.bool_] | None = None,
        successors: Successors | None = None,
    ) -> Iterator[ScoredTargets]:
        """Scores of all items at ``targets``, some targets at a time: i64[n], f32[n, V].

        What the heads said is written into ``heads`` meanwhile, and into ``lifted`` (bool[N]), if given, where they lift the
        watched filter; both are written for some targets before the scores of these are given.
        """
        has_popular = successors is not None
        for which, scores, popular in self._alone(model, targets, heads, lifted, has_popular=has_popular):
            if successors is not None:
                scores += self._added(scores, successors, targets, which, popular)
            yield which, scores

    def _alone(
        self,
        model: IntentRec,
        targets: Targets,
        heads: dict[str, HeadOutcomes],
        lifted: NDArray[np.bool_] | None,
        *,
        has_popular: bool,
    ) -> Iterator[tuple[NDArray[np.int64], Tensor, NDArray[np.float32] | None]]:
        """As :meth:`scores`, of the model alone, and with ``has_popular`` what is popular at each target, f32[n, V], for a model
        with counts.
        """
        model.eval()
        fields = model.domain.heads if model.config.intent_stage else ()
        heads |= {head.name: HeadOutcomes.empty(len(targets), head.num_labels) for head in fields}
        vector_VQ, bias_V = model.item_vectors()
        counts = counts_for(model, self._features, self._members)
        # Counts of a target take several times the memory of its scores.
        chunk = max(1, (MAX_MODEL_SCORES if counts is None else MAX_MODEL_SCORES // 8) // len(bias_V))
        for batch in self._batches.ordered(BATCH_WINDOWS):
            on_device = batch.to(model.device)
            output = model(on_device.context)
            which, window, place = self._targets_of(batch)
            observe(heads, model, output, on_device, which, window, place)
            if lifted is not None and heads:
                lifted[which] = lifted_by(model.domain, output, window, place - 1)
            item_NW, query_NQ = (x[window, place - 1] for x in (output.item_BTW, model.queries(output)))
            own = model.own_offsets(output, on_device.context)
            own = None if own is None else own.at((window, place - 1))
            ts_s = batch.context.ts_s[window, place].numpy()
            for low in range(0, len(which), chunk):
                chunk_rows = slice(low, low + chunk)
                scores, popular = torch.addmm(bias_V, query_NQ[chunk_rows], vector_VQ.T), None
                if counts is not None and model.count_gate is not None:
                    gate_NC = model.count_gate(item_NW[chunk_rows])
                    column_NCV = CountsAt(counts, ts_s[chunk_rows], model.device).columns()
                    scores += torch.bmm(gate_NC[:, None, :], column_NCV)[:, 0]
                    popular = popular_shares(column_NCV[:, DAY_COLUMN].cpu().numpy()) if has_popular else None
                if own is not None:
                    own.at(chunk_rows).add_to(scores)
                yield which[chunk_rows], scores, popular

    def _added(
        self,
        scores: Tensor,
        successors: Successors,
        targets: Targets,
        which: NDArray[np.int64],
        popular: NDArray[np.float32] | None,
    ) -> Tensor:
        """What successors add to scores of all items. Shapes: f32[n, V], i64[n], f32[n, V] -> f32[n, V]."""
        added = torch.zeros_like(scores)
        if popular is not None:
            added += torch.from_numpy(successors.of_popular(popular)).to(scores.device)
        found = successors.offsets(self._last_rows(targets, which), popular)
        query, row, offset = (torch.from_numpy(x).to(scores.device) for x in (found.query, found.row, found.offset))
        added[query, row] += offset
        return added

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

    def _last_rows(self, targets: Targets, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """The items of the last plays of some targets' contexts, newest first; 0 where there are fewer. Shapes: i64[n] ->
        i64[n, L].
        """
        play = targets.play[which][:, None] - np.arange(1, LAGS + 1)
        return np.where(play >= self._first_play[which][:, None], targets.all_rows[np.maximum(play, 0)], 0)

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


@dataclass(slots=True)
class ScoredByModel:
    """A model as a :class:`~intentrec_core.evaluation.rankers.Ranker`, with ``successors`` beside its score if given. ``heads``:
    what its heads said at the last task.

    They lift no filter here: all rankers of a task hide the same items, whichever is asked first.
    """

    model: IntentRec
    features: FeatureBuilder
    heads: dict[str, HeadOutcomes] = field(default_factory=dict)
    successors: Successors | None = None

    def scores(self, task: Task) -> Iterator[ScoredTargets]:
        """See :class:`~intentrec_core.evaluation.rankers.Ranker`."""
        self.heads = {}
        ranker = ModelRanker(self.features, task.data.members, task.windows)
        return ranker.scores(self.model, task.targets, self.heads, successors=self.successors)


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
