"""The training loop. The same code trains a first model on all plays and continues a model for a minute.

It computes in float32 on any device. On the CPU, a run with the same seed, number of threads and no time limit is
repeatable to the bit. The caller's random state is not changed.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.device import resolve_device
from intentrec_core.errors import DataError
from intentrec_core.evaluation.metrics import Quality, mean_accuracy, quality
from intentrec_core.evaluation.model_ranks import ModelRanker
from intentrec_core.evaluation.targets import make_targets
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.labels import ItemLabels
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.batches import WindowBatch, WindowBatches
from intentrec_core.plays.counts_at import counts_for
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.windows import NEVER_MS, Windows, cut_windows
from intentrec_core.training.attend import TrainingAttend
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.losses import LossParts, intentrec_loss
from intentrec_core.training.optimiser import Optimiser
from intentrec_core.training.reports import EpochCallback, EpochReport, ProgressCallback, Trained, TrainingProgress
from intentrec_core.training.sampled_softmax import ItemSampler
from intentrec_core.training.schedule import rate_factor, run_done

#: A head with known labels at this share of the predicted plays, or at this many of them, is trained.
ENOUGH_RATIO, ENOUGH_LABELS = 0.05, 100


class Validation(Protocol):
    """Plays that are not learned, on which each epoch is measured. The best epoch by NDCG@10 is kept."""

    def measure(self, model: IntentRec) -> tuple[Quality, dict[str, float]]:
        """Quality of the ranking, and accuracy of each head."""
        ...


def train(
    plays: pa.Table | MemberPlays,
    features: FeatureBuilder,
    items: ItemLabels,
    config: TrainConfig | None = None,
    *,
    model_config: ModelConfig | None = None,
    start: IntentRec | None = None,
    from_ms: int = 0,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    epoch_done: EpochCallback | None = None,
    validation: Validation | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trained:
    """Trains a model to predict every play from ``from_ms`` on that has an earlier play of the same member.

    With ``start``, a copy of that model is trained further, extended by the rows that ``items`` has in addition
    (``model_config`` must then be omitted). Otherwise a new model is made. Plays before ``from_ms`` are only context.
    ``validation`` measures the epochs in place of the last ``config.validation_ratio`` of the plays.

    Raises: DataError when there is no play to learn from, or the loss is no longer a number; ConfigError for a device
    that this machine does not have.
    """
    config = config or TrainConfig()
    members = plays if isinstance(plays, MemberPlays) else pack_members(features.layout, plays)
    target_device = torch.device(resolve_device(device))
    cuda = [target_device] if target_device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(config.seed)
        held_out_ms = NEVER_MS if validation else _held_out_from(members, config.validation_ratio, from_ms)
        windows = cut_windows(members, from_ms=from_ms, until_ms=held_out_ms)
        if not len(windows):
            raise DataError(_nothing_to_learn(members))
        model = _first_model(features, items, members, model_config, start, held_out_ms)
        run = _TrainingRun(model.to(target_device), features, members, windows, config, held_out_ms, validation, clock)
        _note_untrained_heads(model, run.batches, items, start)
        return run.all_epochs(progress, epoch_done)


def _nothing_to_learn(members: MemberPlays) -> str:
    """Why there is no window: in one sentence, with the remedy."""
    if members.num_repeats:
        return (
            f"no member has two plays with different event ids: {members.num_repeats:,} of "
            f"{members.num_repeats + len(members.events):,} plays repeat the event_id of an earlier play of their member and "
            "count as the same play; give each play its own event_id"
        )
    return "no member has two plays in the training span: use more plays"


def heads_without_labels(num_known: Mapping[str, int], num_targets: int) -> set[str]:
    """The heads that have too few known labels among ``num_targets`` predicted plays to be trained by them.

    Enough are 5 % of the plays, or 100. Where no head has enough, those with any are trained.
    """
    enough = min(ENOUGH_LABELS, ENOUGH_RATIO * num_targets)
    few = {name for name, known in num_known.items() if not known or known < enough}
    return few if len(few) < len(num_known) else {name for name, known in num_known.items() if not known}


def _note_untrained_heads(model: IntentRec, batches: WindowBatches, items: ItemLabels, start: IntentRec | None) -> None:
    """A head with too few known labels in these plays is untrained, unless the model to start from has trained it."""
    if model.heads is None:
        return
    num_known = batches.num_known_labels(model.domain, items)
    untrained = heads_without_labels(num_known, batches.windows.num_targets)
    if start is not None:
        untrained &= set(start.untrained_heads)
    if len(untrained) == len(num_known):
        raise DataError(
            f"no play has a known label for any of the intents {', '.join(num_known)}: check their keys and values in the "
            "domain against the plays and the catalogue"
        )
    model.set_untrained_heads(untrained)


def _first_model(
    features: FeatureBuilder,
    items: ItemLabels,
    members: MemberPlays,
    model_config: ModelConfig | None,
    start: IntentRec | None,
    until_ms: int,
) -> IntentRec:
    if start is not None:
        if model_config is not None:
            raise ValueError("model_config has no effect with a model to start from: omit one of them")
        model = copy.deepcopy(start)
        model.grow(items)  # even without new rows: catalogue attributes of known items may have changed
        return model
    model = IntentRec(model_config or ModelConfig(), features.domain, items)
    if model.count_gate is not None:
        return model  # counts say how often an item is played: its bias is what they do not explain
    counts = _times_played(features, members, model.num_rows, until_ms)[1:]
    # The frequency of each item is known before training, so no steps need to be spent on learning it.
    log_share = np.log((counts + 1.0) / (counts.sum() + len(counts)))
    model.item_bias.data[1:] = torch.from_numpy((log_share - log_share.mean()).astype(np.float32))
    return model


def _times_played(features: FeatureBuilder, members: MemberPlays, num_rows: int, until_ms: int) -> NDArray[np.int64]:
    """Number of plays of each row before ``until_ms``. Shape: i64[V]."""
    rows = features.rows(members.events["item_hash"][members.events["ts_ms"] < until_ms])
    return np.bincount(rows, minlength=num_rows)


def _held_out_from(members: MemberPlays, ratio: float, from_ms: int) -> int:
    """Event time from which plays are held out; never, for a ratio of 0."""
    times = members.events["ts_ms"]
    times = np.sort(times[times >= from_ms])
    if not ratio or not len(times):
        return NEVER_MS
    return int(times[min(len(times) - 1, int(len(times) * (1.0 - ratio)))])


class _HeldOut:
    """The held-out plays, on which each epoch is measured."""

    def __init__(self, features: FeatureBuilder, members: MemberPlays, num_rows: int, from_ms: int) -> None:
        windows = cut_windows(members, from_ms=from_ms)
        rows = features.rows(members.events["item_hash"])
        candidate = np.zeros(num_rows, dtype=np.bool_)
        candidate[rows[members.events["ts_ms"] < from_ms]] = True
        self._targets = make_targets(members, windows, rows, candidate)
        self._ranker = ModelRanker(features, members, windows)

    def measure(self, model: IntentRec) -> tuple[Quality, dict[str, float]]:
        """Quality of the ranking, and accuracy of each head."""
        found = self._ranker.rank(model, self._targets)
        return quality(found.ranks), mean_accuracy(found.correct)


class _TrainingRun:
    """One training run: the optimiser, the progress, and the best weights so far."""

    def __init__(
        self,
        model: IntentRec,
        features: FeatureBuilder,
        members: MemberPlays,
        windows: Windows,
        config: TrainConfig,
        held_out_ms: int,
        validation: Validation | None,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._config, self._clock = model, config, clock
        self._began_s = clock()
        self._budget_from_s: float | None = None  # time at which the first step is over
        self._features, self._members, self._windows = features, members, windows
        self.batches = WindowBatches(features, members, windows)
        self._counts = counts_for(model, features, members)
        self._num_targets = windows.num_targets
        self._has_ties = bool((members.events["ts_ms"][1:] == members.events["ts_ms"][:-1]).any())
        self._steps = self.batches.num_batches(config.batch_windows)
        self._random = np.random.default_rng(config.seed)
        self._validation = validation
        if held_out_ms != NEVER_MS:
            self._validation = _HeldOut(features, members, model.num_rows, held_out_ms)
        num_negatives = config.negatives(model.num_rows)
        self._sampler = None
        if num_negatives:
            counts = _times_played(features, members, model.num_rows, held_out_ms)
            self._sampler = ItemSampler(counts, num_negatives, model.device)
        self._optimiser = Optimiser(
            model,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            sparse_items=self._sampler is not None,
        )

    def all_epochs(self, progress: ProgressCallback | None, epoch_done: EpochCallback | None) -> Trained:
        """Trains until the epochs, the patience or the time is used up."""
        curve: list[EpochReport] = []
        best, best_weights, stopped = 0, None, "epochs"
        for epoch in range(1, min(self._config.epochs, self._config.last_epoch or self._config.epochs) + 1):
            loss = self._epoch(epoch, progress)
            validation, accuracy = self._validation.measure(self._model) if self._validation else (None, {})
            curve.append(EpochReport(epoch, self._elapsed_s(), loss, validation, accuracy))
            if epoch_done:
                epoch_done(curve[-1])
            if (
                validation is None
                or validation.ndcg_at_10 > (curve[best - 1].validation or validation).ndcg_at_10
                or not best
            ):
                best = epoch
                if validation is not None:
                    best_weights = copy.deepcopy(self._model.state_dict())
            if self._out_of_time():
                stopped = "time"
                break
            if epoch - best >= self._config.patience:
                stopped = "patience"
                break
        if best_weights is not None:
            self._model.load_state_dict(best_weights)
        self._model.eval()
        return Trained(self._model, tuple(curve), best, stopped, self._num_targets, self._elapsed_s())

    def _epoch(self, epoch: int, progress: ProgressCallback | None) -> dict[str, float]:
        config, sums = self._config, dict[str, float]()
        loss: dict[str, float] = {}
        if config.shuffle_ties and self._has_ties:
            members = self._members.with_shuffled_ties(self._random)
            self.batches = WindowBatches(self._features, members, self._windows)
        self._model.train()
        for step, batch in enumerate(self.batches.shuffled(config.batch_windows, self._random), start=1):
            rate = self._set_rate(epoch, step)
            parts = self._step(batch.to(self._model.device))
            if self._budget_from_s is None:
                self._budget_from_s = self._clock()
            for name, value in {"total": parts.total, "item": parts.item, **parts.heads}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            loss = {name: value / step for name, value in sums.items()}
            if progress:
                progress(TrainingProgress(epoch, config.epochs, step, self._steps, self._elapsed_s(), rate, loss))
            if self._out_of_time():
                break
        return loss

    def _step(self, batch: WindowBatch) -> LossParts:
        window_s, dropout = self._model.domain.short_term_window_s, self._model.config.dropout
        attend = TrainingAttend(batch.context.ts_s, window_s, dropout)
        entered = self._with_unknowns(batch.context)
        output = self._model(entered, attend)
        parts = intentrec_loss(
            self._model,
            output,
            batch.context,
            intent_weight=self._config.intent_weight,
            entered=entered,
            first_target=batch.first_target,
            sampler=self._sampler,
            counts=self._counts,
        )
        if not bool(parts.total.isfinite()):
            raise DataError(
                "the loss is no longer a number: lower the learning rate, or look for impossible values in the plays"
            )
        self._optimiser.step(parts.total)
        return parts

    def _with_unknowns(self, context: ContextBatch) -> ContextBatch:
        """Replaces a small share of the input items by row 0, so that row 0 has a useful value when an unknown item
        occurs.
        """
        if not self._config.unknown_ratio:
            return context
        unknown: Tensor = (
            torch.rand(context.item_row.shape, device=context.item_row.device) < self._config.unknown_ratio
        )
        return dataclasses.replace(context, item_row=context.item_row.masked_fill(unknown, 0))

    def _set_rate(self, epoch: int, step: int) -> float:
        steps = (epoch - 1 + step / self._steps) / self._config.epochs
        done = run_done(steps, self._spent_s(), self._config.max_seconds)
        factor = rate_factor(done, warmup_ratio=self._config.warmup_ratio, final_ratio=self._config.final_ratio)
        return self._optimiser.set_rate(factor)

    def _elapsed_s(self) -> float:
        return self._clock() - self._began_s

    def _spent_s(self) -> float:
        """Seconds of the time limit that are spent. The first step is free: it loads and compiles, for seconds on a slow machine,
        and a schedule that counted them would be over before the model learned anything.
        """
        return 0.0 if self._budget_from_s is None else self._clock() - self._budget_from_s

    def _out_of_time(self) -> bool:
        return self._config.max_seconds is not None and self._spent_s() >= self._config.max_seconds
