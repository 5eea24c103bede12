"""Rows that are trained: baselines and IntentRec, with one budget, chosen on validation.

A row is trained on what lies before the validation, and the epoch with the best NDCG@10 there is chosen; training stops early. A
row that learns in few epochs tries a shorter schedule too.
For the test it is trained again, by the same schedule up to that epoch, on everything before the test (leave-one-out: not again,
as published). In a stream, validation and test alike, it is refreshed as the trainer does it: from the weights before, with the
trainer's epochs and rate, on every play so far.

Items that were not played in training have no row while it trains; they come in as new items do in production, before ranking.
Rows are numbered by what is learned, so those of a model are not those of the data set: :func:`grown` numbers them anew.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from intentrec_core.baselines.sequence_models import GRU4Rec, MultiTaskTransformer, SASRec
from intentrec_core.domain.spec import Domain
from intentrec_core.domain.toml import load_domain
from intentrec_core.evaluation.heads import HeadOutcomes
from intentrec_core.evaluation.metrics import Quality, quality
from intentrec_core.evaluation.model_ranks import ModelRanker, ScoredByModel
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import LIST_LENGTH, Ranked, rank, ranks_alone
from intentrec_core.evaluation.task import Task, make_task
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.labels import ItemLabels
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.attention import Attend
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import pack_members
from intentrec_core.successors import Successors, SuccessorTable
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.reports import Trained
from intentrec_core.training.train import Validation, train
from intentrec_core.training.weighing import WEIGHTS, best_weight
from stream.trainer.retrain import WARM_EPOCHS, WARM_LEARNING_RATE
from tests.bench.quality.data_sets import Loaded, Measured
from tests.bench.quality.rows import COUNTING_CODE, Answers, Row

NEURAL_CODE = (
    *COUNTING_CODE,
    "intentrec_core/baselines/sequence_models.py",
    "intentrec_core/evaluation/model_ranks.py",
    "intentrec_core/features",
    "intentrec_core/model",
    "intentrec_core/plays",
    "intentrec_core/training",
    "stream/trainer/retrain.py",
    "tests/bench/quality/neural.py",
)

#: Epochs of a schedule for what is learnt in few of them: where a long one is stopped early, the rate is near its peak.
SHORTER_SCHEDULE = 6

Build = Callable[[ModelConfig, Domain, ItemLabels], IntentRec]


class _NoShortTerm(nn.Module):
    """In place of the short-term encoder: zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def forward(self, fields: Tensor, attend: Attend) -> Tensor:
        """Shapes: f32[B, T, any] -> f32[B, T, W]."""
        return fields.new_zeros(*fields.shape[:2], self._width)


def without_short_term(config: ModelConfig, domain: Domain, items: ItemLabels) -> IntentRec:
    """IntentRec whose short-term interest is always 0."""
    model = IntentRec(config, domain, items)
    model.add_module("short_term", _NoShortTerm(config.width))
    return model


@dataclass(frozen=True, slots=True)
class Budget:
    """Sizes and epochs of every trained row on one data set. Training stops ``train.patience`` epochs after the best."""

    model: ModelConfig = dataclasses.field(default_factory=lambda: ModelConfig(num_layers=2))
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=20, patience=3))

    def text(self) -> str:
        """Everything that it decides."""
        return json.dumps([self.model.to_dict(), dataclasses.asdict(self.train)], sort_keys=True)


#: Sizes, rate and the long schedule are the same for every row of a data set; a row with a ``shorter_schedule`` also tries that
#: one on the validation. The sizes that are larger than the default are the data's.
BUDGETS: Mapping[str, Budget] = {
    "beauty": Budget(
        train=TrainConfig(epochs=30, patience=3, batch_windows=128, learning_rate=2e-3, shuffle_ties=False)
    ),
    "quick-world": Budget(ModelConfig(width=16, intent_width=8), TrainConfig(epochs=8, patience=8)),
}


def neural_rows() -> list[Row]:
    """Every trained row: the baselines, the paper's V0 to V3, and ours with the learnt terms of intents and own items."""
    three, world = (0, 1, 2), ("world", "world-without-intents")
    paper: Mapping[str, object] = {"intent_score": False}
    no_intent: Mapping[str, object] = {"intent_stage": False, "intent_score": False}
    return [
        _row("GRU", GRU4Rec, no_intent),
        _row("SASRec, full softmax", SASRec, no_intent, seeds=three),
        _row("IntentRec V0: no intent, no short-term", without_short_term, no_intent, seeds=three),
        _row("IntentRec V1: plain multi-task", MultiTaskTransformer, paper, seeds=three),
        _row("IntentRec V2: hierarchical", without_short_term, paper, seeds=three, is_ours=True),
        _row("IntentRec V3: with short-term", IntentRec, paper, seeds=three, is_ours=True),
        _row("V3 and intents in the score", IntentRec, {}, seeds=three, is_ours=True),
        _row(
            "V3 with intents and own items in the score",
            IntentRec,
            {"own_items": True},
            seeds=three,
            is_ours=True,
            shorter_schedule=SHORTER_SCHEDULE,
        ),
        *(_row(f"V3 with one head: {head}", _one_head(head), paper, data_sets=world[:1]) for head in _heads("video")),
    ]


def _heads(domain: str) -> list[str]:
    return [head.name for head in load_domain(domain).heads]


def _one_head(name: str) -> Build:
    def build(config: ModelConfig, domain: Domain, items: ItemLabels) -> IntentRec:
        fields = tuple(f if f.name == name else dataclasses.replace(f, intent=False) for f in domain.fields)
        return IntentRec(config, dataclasses.replace(domain, fields=fields), items)

    return build


def _row(
    name: str,
    build: Build,
    changes: Mapping[str, Any],
    *,
    seeds: tuple[int, ...] = (0,),
    is_ours: bool = False,
    data_sets: tuple[str, ...] | None = None,
    shorter_schedule: int | None = None,
) -> Row:
    budgets = {data: budget.text() for data, budget in BUDGETS.items()} | {"else": Budget().text()}
    configuration = json.dumps(
        [name, dict(changes), budgets, *([shorter_schedule] if shorter_schedule else [])], sort_keys=True
    )

    def answer(measured: Measured, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        budget = BUDGETS.get(measured.name, Budget())
        model_config = dataclasses.replace(budget.model, **changes)
        config = dataclasses.replace(budget.train, seed=seed)
        return Learner(loaded, build, model_config, config, shorter_schedule).answer(protocol)

    return Row(name, configuration, answer, NEURAL_CODE, seeds, is_ours, is_trained=True, data_sets=data_sets)


@dataclass(frozen=True, slots=True)
class Known:
    """What is learned: plays, and the rows of the items that occur in them, in the order of their first play in it."""

    vocabulary: Vocabulary
    features: FeatureBuilder
    table: ItemTable
    plays: pa.Table


@dataclass(frozen=True, slots=True)
class Learned:
    """A model, and what it has learned: its rows are those of ``known``."""

    model: IntentRec
    known: Known

    def scorer(self, loaded: Loaded) -> ScoredByModel:
        """What ranks the universe: the model with rows for all of it, numbered as the data set is."""
        return ScoredByModel(grown(self.model, self.known.vocabulary, loaded), loaded.data.features)


class Learner:
    """Trains one row on one data set. With ``shorter_schedule``, a schedule of so many epochs is tried too. With ``weighs``, it
    has successors beside its score, with a weight that is chosen on the validation.
    """

    def __init__(
        self,
        loaded: Loaded,
        build: Build,
        model: ModelConfig,
        config: TrainConfig,
        shorter_schedule: int | None = None,
        *,
        weighs: bool = False,
    ) -> None:
        self._loaded, self._build, self._model, self._config = loaded, build, model, config
        self._schedules = (config.epochs,) if shorter_schedule is None else (config.epochs, shorter_schedule)
        self._domain = loaded.data.features.domain
        self._weighs, self._weight = weighs, 0.0

    def answer(self, protocol: Protocol) -> Answers:
        """Chooses the epoch, and the schedule where two are tried, on the validation and answers the test."""
        known = self.known(protocol.validation)
        validation, tried = _Validation(self, known, protocol.validation), list[tuple[float, int, Trained, str]]()
        for epochs in self._schedules:
            found = self.first(known, dataclasses.replace(self._config, epochs=epochs), validation)
            best = found.curve[found.best_epoch - 1].validation
            assert best is not None
            said = f"NDCG@10 on validation {best.ndcg_at_10:.4f} at epoch {found.best_epoch} of {len(found.curve)}"
            tried.append((best.ndcg_at_10, epochs, found, said))
        _, schedule, chosen, said = max(tried, key=lambda one: one[0])
        note = f"{num_weights(chosen.model)}, {said}"
        if len(tried) > 1:
            others = ", ".join(f"{said} with one of {epochs}" for _, epochs, _, said in tried if epochs != schedule)
            note += f" of a schedule of {schedule} ({others})"
        if self._weighs:
            self._weight, said = self._weighed(Learned(chosen.model, known), protocol.validation)
            note += said
        if not protocol.test.learnable.all():  # leave-one-out: the test is asked of what the validation chose
            learned = Learned(chosen.model, known)
            return self._answers(learned, protocol.test, note + self._zeroed(learned, protocol.test))
        known = self.known(protocol.test)
        config = dataclasses.replace(self._config, epochs=schedule, last_epoch=chosen.best_epoch)
        answers = self.streamed(Learned(self.first(known, config).model, known), protocol.test)
        num_refreshes = len(np.unique(protocol.test.learned)) - 1
        refreshed = f"; {num_refreshes} refreshes of {WARM_EPOCHS} epochs each" if num_refreshes else ""
        return dataclasses.replace(answers, note=note + refreshed)

    def streamed(self, learned: Learned, task: Task) -> Answers:
        """Answers a task span by span. After a span, the model is refreshed as the trainer does it: from the weights before, on
        everything known by then, at the trainer's rate. A task of one span is asked as it is.
        """
        if len(np.unique(task.learned)) == 1:
            return self._answers(learned, task, "")
        ranks, listed = np.full(len(task), np.nan), np.zeros((len(task), LIST_LENGTH), dtype=np.int64)
        heads: dict[str, HeadOutcomes] = {}
        for refreshed, which, part in self._spans(learned, task):
            found = self._answers(refreshed, part, "")
            ranks[which], listed[which] = found.ranked.ranks, found.ranked.listed
            for name, outcomes in found.heads.items():
                whole = heads.setdefault(name, HeadOutcomes.empty(len(task), outcomes.observed.shape[1]))
                for part in HeadOutcomes.__slots__:
                    getattr(whole, part)[which] = getattr(outcomes, part)
        return Answers(Ranked(ranks, listed), "", heads)

    def _spans(self, learned: Learned, task: Task) -> Iterator[tuple[Learned, NDArray[np.int64], Task]]:
        """What is learned at each span of a task, which of its targets are in the span, and the task of these."""
        for number, until in enumerate(np.unique(task.learned).tolist()):
            if number:
                learned = self._refreshed(learned, self.known(task, until), number)
            which = np.flatnonzero(task.learned == until)
            yield learned, which, task if len(which) == len(task) else part_of(task, which)

    def _weighed(self, learned: Learned, task: Task) -> tuple[float, str]:
        """The weight of successors that is the best on a task, and what is to be said of it."""
        ranks_KN = np.full((len(WEIGHTS), len(task)), np.nan)
        for refreshed, which, part in self._spans(learned, task):
            scorer = refreshed.scorer(self._loaded)
            ranker = ModelRanker(scorer.features, part.data.members, part.windows)
            ranks_KN[:, which] = ranker.ranks_by_weight(
                scorer.model, part.targets, successors_of(part), WEIGHTS, lifts=False
            )
        weight = best_weight(ranks_KN)
        tried = ", ".join(
            f"{quality(ranks).ndcg_at_10:.4f} with {weight:g}" for weight, ranks in zip(WEIGHTS, ranks_KN, strict=True)
        )
        return weight, f"; what follows what has the weight {weight:g} (on validation {tried})"

    def known(self, task: Task, learned: int | None = None) -> Known:
        """What may be learned before a task, or of its plays up to a refresh."""
        data, until = self._loaded.data, int(task.learned.min()) if learned is None else learned
        kept = np.zeros(self._loaded.plays.num_rows, dtype=np.bool_)
        kept[data.members.order[task.learnable & (data.place < until)]] = True
        plays = self._loaded.plays.filter(kept)
        vocabulary = Vocabulary.build(dict.fromkeys(plays.column("item_id").to_pylist()))
        table = ItemTable(self._domain, vocabulary, self._loaded.catalogue)
        return Known(vocabulary, FeatureBuilder(self._domain, vocabulary, table), table, plays)

    def first(self, known: Known, config: TrainConfig, validation: Validation | None = None) -> Trained:
        members = pack_members(known.features.layout, known.plays)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            start = self._build(self._model, self._domain, known.table)
        rows = known.features.rows(members.events["item_hash"])
        counts = np.bincount(rows, minlength=len(known.table))[1:]
        log_share = np.log((counts + 1.0) / (counts.sum() + len(counts)))
        start.item_bias.data[1:] = torch.from_numpy((log_share - log_share.mean()).astype(np.float32))
        return train(members, known.features, known.table, config, start=start, device="cpu", validation=validation)

    def _refreshed(self, before: Learned, known: Known, number: int) -> Learned:
        if not known.vocabulary.extends(before.known.vocabulary):
            raise ValueError("the rows of a refreshed model do not extend those of the model before it")
        config = dataclasses.replace(
            self._config,
            epochs=WARM_EPOCHS,
            learning_rate=WARM_LEARNING_RATE,
            seed=self._config.seed + number,
        )
        members = pack_members(known.features.layout, known.plays)
        found = train(members, known.features, known.table, config, start=before.model, device="cpu")
        return Learned(found.model, known)

    def _zeroed(self, learned: Learned, task: Task) -> str:
        """NDCG@10 as code has it that gives hidden items the score 0, to compare with tables that were made so."""
        if not task.targets.filter_watched:
            return ""
        zeroed = dataclasses.replace(task, targets=dataclasses.replace(task.targets, hidden_score=0.0))
        gain = quality(ranks_alone(self._scorer(learned, zeroed), zeroed)).ndcg_at_10
        return f"; with hidden items scored 0: NDCG@10 {gain:.4f}"

    def _answers(self, learned: Learned, task: Task, note: str) -> Answers:
        ranker = self._scorer(learned, task)
        ranked = rank(ranker, task)
        return Answers(ranked, note, ranker.heads)

    def _scorer(self, learned: Learned, task: Task) -> ScoredByModel:
        scorer = learned.scorer(self._loaded)
        if self._weight:
            scorer.successors = Successors(successors_of(task), self._weight)
        return scorer


@dataclass(frozen=True, slots=True)
class _Validation:
    """A validation task, asked as the test is: every item of the universe, the whole history hidden, and in a stream with the
    refreshes in it.
    """

    learner: Learner
    known: Known
    task: Task

    def measure(self, model: IntentRec) -> tuple[Quality, dict[str, float]]:
        """NDCG@10 and the others; the heads are not looked at."""
        return quality(self.learner.streamed(Learned(model, self.known), self.task).ranked.ranks), {}


def grown(model: IntentRec, vocabulary: Vocabulary, loaded: Loaded) -> IntentRec:
    """The model with rows for the whole universe, as a bundle has them for items that were not played yet.

    ``vocabulary`` numbers the model's rows. Those of the result are numbered as the data set is, whatever their order was.

    Raises: ValueError when the vocabulary is not that of the model.
    """
    if len(vocabulary) != model.num_rows:
        raise ValueError(f"a vocabulary of {len(vocabulary)} rows for a model of {model.num_rows}")
    whole = copy.deepcopy(model)
    extended = vocabulary.extended(loaded.vocabulary.item_ids[1:])
    whole.grow(ItemTable(model.domain, extended, loaded.catalogue))
    own = torch.from_numpy(extended.rows(loaded.vocabulary.hashes))
    whole.item.weight.data = whole.item.weight.data[own]
    whole.item_bias.data = whole.item_bias.data[own]
    whole.grow(loaded.table)
    return whole


def num_weights(model: IntentRec) -> str:
    """How many weights a model has, with those of its items apart."""
    of_items = model.item.weight.numel() + model.item_bias.numel()
    others = sum(weights.numel() for weights in model.parameters()) - of_items
    return f"{others:,} weights and {of_items:,} of items"


def successors_of(task: Task) -> SuccessorTable:
    """Successors in the plays that are learned at a task's first span, in the rows of the data set."""
    data = task.data
    known = task.learnable & (data.place < int(task.learned.min()))
    return SuccessorTable.empty(len(data.universe)).counted(data.row[known], data.members.member[known])


def part_of(task: Task, which: NDArray[np.int64]) -> Task:
    """The task of some of its targets. Shape: i64[n], ascending."""
    return make_task(
        task.data,
        task.targets.play[which],
        learnable=task.learnable,
        learned=task.learned[which],
        live=task.live[which],
        countable=task.countable[which],
        now_s=task.now_s[which],
    )
