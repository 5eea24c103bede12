"""Rows that are trained: baselines and IntentRec, with one budget, chosen on validation.

A row is trained on what lies before the validation, and the epoch with the best NDCG@10 there is chosen; training stops early.
For the test it is trained again, for that many epochs, on everything before the test (leave-one-out: not again, as published). In
a stream it is refreshed: from the weights before, one pass over the plays since the last refresh, as the trainer does.

Items that were not played in training have no row while it trains; they come in as new items do in production, before ranking.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from intentrec_core.baselines.sequence_models import GRU4Rec, MultiTaskTransformer, SASRec
from intentrec_core.domain.spec import Domain
from intentrec_core.domain.toml import load_domain
from intentrec_core.evaluation.heads import HeadOutcomes
from intentrec_core.evaluation.metrics import Quality, quality
from intentrec_core.evaluation.model_ranks import ScoredByModel
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import LIST_LENGTH, Ranked, rank, ranks_alone
from intentrec_core.evaluation.task import Task, make_task
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.attention import Attend
from intentrec_core.model.model import IntentRec, ItemFeatures, ModelConfig
from intentrec_core.plays.members import pack_members
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.reports import Trained
from intentrec_core.training.train import train
from tests.bench.quality.data_sets import Loaded, Measured
from tests.bench.quality.rows import COUNTING_CODE, Answers, Row

NEURAL_CODE = (
    *COUNTING_CODE,
    "intentrec_core/baselines/sequence_models.py",
    "intentrec_core/evaluation/model_ranks.py",
    "intentrec_core/features",
    "intentrec_core/model",
    "intentrec_core/plays/batches.py",
    "intentrec_core/training",
    "tests/bench/quality/neural.py",
)

Build = Callable[[ModelConfig, Domain, ItemFeatures], IntentRec]


class _NoShortTerm(nn.Module):
    """In place of the short-term encoder: zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def forward(self, fields: Tensor, attend: Attend) -> Tensor:
        """Shapes: f32[B, T, any] -> f32[B, T, W]."""
        return fields.new_zeros(*fields.shape[:2], self._width)


def without_short_term(config: ModelConfig, domain: Domain, items: ItemFeatures) -> IntentRec:
    """IntentRec whose short-term interest is always 0."""
    model = IntentRec(config, domain, items)
    model.short_term = _NoShortTerm(config.width)  # type: ignore[assignment]
    return model


@dataclass(frozen=True, slots=True)
class Budget:
    """Sizes and epochs of every trained row on one data set. Training stops ``train.patience`` epochs after the best."""

    model: ModelConfig = dataclasses.field(default_factory=lambda: ModelConfig(num_layers=2))
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=20, patience=3))

    def text(self) -> str:
        """Everything that it decides."""
        return json.dumps([self.model.to_dict(), dataclasses.asdict(self.train)], sort_keys=True)


#: What is tried on the validation is the same for every row; the sizes that are larger than the default are the data's.
BUDGETS: Mapping[str, Budget] = {
    "beauty": Budget(
        train=TrainConfig(epochs=30, patience=3, batch_windows=128, learning_rate=2e-3, shuffle_ties=False)
    ),
    "quick-world": Budget(ModelConfig(width=16, intent_width=8), TrainConfig(epochs=2, patience=2)),
}


def neural_rows() -> list[Row]:
    """Every trained row: the baselines, then the paper's V0 to V3."""
    three, world = (0, 1, 2), ("world", "world-without-intents")
    no_intent: Mapping[str, object] = {"intent_stage": False}
    return [
        _row("GRU", GRU4Rec, {}),
        _row("SASRec, full softmax", SASRec, {}, seeds=three),
        _row("IntentRec V0: no intent, no short-term", without_short_term, no_intent, seeds=three),
        _row("IntentRec V1: plain multi-task", MultiTaskTransformer, {}, seeds=three),
        _row("IntentRec V2: hierarchical", without_short_term, {}, seeds=three, is_ours=True),
        _row("IntentRec V3: with short-term", IntentRec, {}, seeds=three, is_ours=True),
        *(_row(f"V3 with one head: {head}", _one_head(head), {}, data_sets=world[:1]) for head in _heads("video")),
    ]


def _heads(domain: str) -> list[str]:
    return [head.name for head in load_domain(domain).heads]


def _one_head(name: str) -> Build:
    def build(config: ModelConfig, domain: Domain, items: ItemFeatures) -> IntentRec:
        fields = tuple(f if f.name == name else dataclasses.replace(f, intent=False) for f in domain.fields)
        return IntentRec(config, dataclasses.replace(domain, fields=fields), items)

    return build


def _row(
    name: str,
    build: Build,
    changes: Mapping[str, object],
    *,
    seeds: tuple[int, ...] = (0,),
    is_ours: bool = False,
    data_sets: tuple[str, ...] | None = None,
) -> Row:
    budgets = {data: budget.text() for data, budget in BUDGETS.items()} | {"else": Budget().text()}
    configuration = json.dumps([name, dict(changes), budgets], sort_keys=True)

    def answer(measured: Measured, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        budget = BUDGETS.get(measured.name, Budget())
        model_config = dataclasses.replace(budget.model, **changes)  # type: ignore[arg-type]
        return _Learner(loaded, build, model_config, dataclasses.replace(budget.train, seed=seed)).answer(protocol)

    return Row(name, configuration, answer, NEURAL_CODE, seeds, is_ours, _sees_no_time, data_sets)


def _sees_no_time(protocol: str) -> bool:
    """A model does not see the time of its target, so there is one row for both."""
    return "unknown" not in protocol


@dataclass(frozen=True, slots=True)
class Known:
    """What is learned: plays, and the rows of the items that occur in them."""

    features: FeatureBuilder
    table: ItemTable
    plays: object
    until_ms: int


class _Learner:
    """Trains one row on one data set."""

    def __init__(self, loaded: Loaded, build: Build, model: ModelConfig, config: TrainConfig) -> None:
        self._loaded, self._build, self._model, self._config = loaded, build, model, config
        self._domain = loaded.data.features.domain

    def answer(self, protocol: Protocol) -> Answers:
        """Chooses the epochs on the validation and answers the test."""
        chosen = self._train(self._known(protocol.validation), validation=_OnTask(self._loaded, protocol.validation))
        best = chosen.curve[chosen.best_epoch - 1].validation
        assert best is not None
        num_weights = sum(weights.numel() for weights in chosen.model.parameters())
        epochs = f"epoch {chosen.best_epoch} of {len(chosen.curve)}"
        note = f"{num_weights:,} weights, NDCG@10 on validation {best.ndcg_at_10:.4f} at {epochs}"
        if protocol.test.learned.min() == len(self._loaded.data.place):  # leave-one-out
            return self._asked(chosen.model, protocol.test, note + self._zeroed(chosen.model, protocol.test))
        config = dataclasses.replace(self._config, epochs=chosen.best_epoch)
        trained = self._train(self._known(protocol.test), config=config)
        return self._streamed(trained.model, protocol.test, note)

    def _known(self, task: Task, learned: int | None = None) -> Known:
        """What may be learned before a task, or of its plays up to a refresh."""
        data, until = self._loaded.data, int(task.learned.min()) if learned is None else learned
        kept = np.zeros(self._loaded.plays.num_rows, dtype=np.bool_)
        kept[data.members.order[task.learnable & (data.place < until)]] = True
        plays = self._loaded.plays.filter(kept)
        vocabulary = Vocabulary.build(dict.fromkeys(plays.column("item_id").to_pylist()))
        table = ItemTable(self._domain, vocabulary, self._loaded.catalogue)
        return Known(
            FeatureBuilder(self._domain, vocabulary, table), table, plays, int(plays.column("ts_ms")[-1].as_py()) + 1
        )

    def _train(self, known: Known, *, config: TrainConfig | None = None, validation: _OnTask | None = None) -> Trained:
        config = config or self._config
        members = pack_members(known.features.layout, known.plays)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            start = self._build(self._model, self._domain, known.table)
        rows = known.features.rows(members.events["item_hash"])
        counts = np.bincount(rows, minlength=len(known.table))[1:]
        log_share = np.log((counts + 1.0) / (counts.sum() + len(counts)))
        start.item_bias.data[1:] = torch.from_numpy((log_share - log_share.mean()).astype(np.float32))
        return train(members, known.features, known.table, config, start=start, device="cpu", validation=validation)

    def _streamed(self, model: IntentRec, task: Task, note: str) -> Answers:
        """Answers the test span by span, and learns the plays of a span before the next one."""
        boundaries = np.unique(task.learned)
        if len(boundaries) == 1:
            return self._asked(model, task, note)
        ranks, listed = np.full(len(task), np.nan), np.zeros((len(task), LIST_LENGTH), dtype=np.int64)
        heads: dict[str, HeadOutcomes] = {}
        since_ms = self._known(task).until_ms
        for number, learned in enumerate(boundaries.tolist()):
            if number:
                known = self._known(task, learned)
                config = dataclasses.replace(self._config, epochs=1, warmup_ratio=0.0, seed=self._config.seed + number)
                members = pack_members(known.features.layout, known.plays)
                model = train(
                    members, known.features, known.table, config, start=model, from_ms=since_ms, device="cpu"
                ).model
                since_ms = known.until_ms
            which = np.flatnonzero(task.learned == learned)
            found = self._asked(model, part_of(task, which), note)
            ranks[which], listed[which] = found.ranked.ranks, found.ranked.listed
            for name, outcomes in found.heads.items():
                whole = heads.setdefault(name, HeadOutcomes.empty(len(task), outcomes.observed.shape[1]))
                for part in HeadOutcomes.__slots__:
                    getattr(whole, part)[which] = getattr(outcomes, part)
        return Answers(Ranked(ranks, listed), f"{note}; {len(boundaries) - 1} refreshes of one pass each", heads)

    def _zeroed(self, model: IntentRec, task: Task) -> str:
        """NDCG@10 as code has it that gives hidden items the score 0, to compare with tables that were made so."""
        if not task.targets.filter_watched:
            return ""
        zeroed = dataclasses.replace(task, targets=dataclasses.replace(task.targets, hidden_score=0.0))
        ranker = ScoredByModel(grown(model, self._loaded), self._loaded.data.features)
        return f"; with hidden items scored 0: NDCG@10 {quality(ranks_alone(ranker, zeroed)).ndcg_at_10:.4f}"

    def _asked(self, model: IntentRec, task: Task, note: str) -> Answers:
        ranker = ScoredByModel(grown(model, self._loaded), self._loaded.data.features)
        ranked = rank(ranker, task)
        return Answers(ranked, note, ranker.heads)


@dataclass(frozen=True, slots=True)
class _OnTask:
    """A validation task, ranked as the test is: every item of the universe, the whole history hidden."""

    loaded: Loaded
    task: Task

    def measure(self, model: IntentRec) -> tuple[Quality, dict[str, float]]:
        """NDCG@10 and the others; the heads are not looked at."""
        ranker = ScoredByModel(grown(model, self.loaded), self.loaded.data.features)
        return quality(ranks_alone(ranker, self.task)), {}


def grown(model: IntentRec, loaded: Loaded) -> IntentRec:
    """The model with rows for the whole universe, as a bundle has them for items that were not played yet."""
    whole = copy.deepcopy(model)
    whole.grow(loaded.table)
    return whole


def part_of(task: Task, which: NDArray[np.int64]) -> Task:
    """The task of some of its targets. Shape: i64[n], ascending."""
    return make_task(
        task.data,
        task.targets.play[which],
        learnable=task.learnable,
        learned=task.learned[which],
        live=task.live[which],
        now_s=task.now_s[which],
    )
