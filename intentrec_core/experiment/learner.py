"""Learns what a protocol lets a model learn, and answers what it asks.

The epoch is chosen on the validation: a model is trained on what lies before it, measured there after each epoch by the metric
that is reported (NDCG@10, every item ranked, the whole history hidden), and training stops once it has not improved for some
epochs. Then the weight of successors is chosen there. For the test a model is trained again, by the same schedule up to that
epoch, on everything before the test; leave-one-out asks the one that was chosen, as the published tables do. In a stream,
validation and test alike, it is refreshed as the trainer refreshes it.

Items that were not played in training have no row while it trains; they come in as new items do in production, before ranking.
Rows are numbered by what is learned, so those of a model are not those of the data set: :func:`grown` numbers them anew.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain
from intentrec_core.evaluation.heads import HeadOutcomes
from intentrec_core.evaluation.metrics import Quality, quality
from intentrec_core.evaluation.model_ranks import ModelRanker, ScoredByModel
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import LIST_LENGTH, Ranked, rank, ranks_alone
from intentrec_core.evaluation.task import Task, make_task
from intentrec_core.experiment.data import ExperimentData
from intentrec_core.experiment.watch import Silent, Watch
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.labels import ItemLabels
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import pack_members
from intentrec_core.successors import Successors, SuccessorTable
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.reports import EpochReport, Trained
from intentrec_core.training.train import Validation, train
from intentrec_core.training.weighing import WEIGHTS, best_weight

Build = Callable[[ModelConfig, Domain, ItemLabels], IntentRec]


@dataclass(frozen=True, slots=True)
class Refresh:
    """How weights are refreshed in a stream: from those before, for so many epochs at this rate, on every play so far."""

    epochs: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What one ranker gave on a task: ranks and lists, and what the heads said."""

    ranked: Ranked
    heads: dict[str, HeadOutcomes]


@dataclass(frozen=True, slots=True)
class Known:
    """What is learned: plays, and the rows of the items that occur in them, in the order of their first play in it."""

    vocabulary: Vocabulary
    features: FeatureBuilder
    table: ItemTable
    plays: pa.Table


@dataclass(frozen=True, slots=True)
class Learned:
    """A model, the items that its rows are, and its successors."""

    model: IntentRec
    vocabulary: Vocabulary
    successors: Successors | None = None

    def scorer(self, data: ExperimentData) -> ScoredByModel:
        """What ranks the universe: the model with rows for all of it, numbered as the data set is."""
        found = ScoredByModel(grown(self.model, self.vocabulary, data), data.asked.features)
        if self.successors is not None:
            extended = self.vocabulary.extended(data.vocabulary.item_ids[1:])
            table = self.successors.table.extended(len(extended)).renumbered(extended.rows(data.vocabulary.hashes))
            found.successors = Successors(table, self.successors.weight)
        return found


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a protocol. ``learned``: the model that answered last. ``curve``: of the training that the epoch was chosen on;
    of the only training where nothing is chosen. ``best_epoch``: of how many epochs the answer is.
    """

    answers: Answers
    learned: Learned
    curve: tuple[EpochReport, ...]
    best_epoch: int
    note: str


class Learner:
    """Trains one kind of model on one data set, with one budget: the epochs of ``config`` at most, and its patience. With
    ``weighs``, it has successors beside its score.
    """

    def __init__(
        self,
        data: ExperimentData,
        build: Build,
        model: ModelConfig,
        config: TrainConfig,
        refresh: Refresh,
        *,
        weighs: bool = False,
        title: str = "",
        device: str = "auto",
        watch: Watch | None = None,
    ) -> None:
        self._data, self._build, self._model, self._config = data, build, model, config
        self._refresh, self._weighs, self._device = refresh, weighs, device
        self._title, self._watch = title or "the model", watch or Silent()

    def run(self, protocol: Protocol, *, chooses_epoch: bool = True) -> Run:
        """Answers the test task. Without ``chooses_epoch`` it trains for all epochs, and the validation is not looked at, so
        the weight of successors is 0.
        """
        if not chooses_epoch:
            known = self.known(protocol.test)
            trained = self._first(
                known, self._config, None, f"training {self._title} on {known.plays.num_rows:,} plays"
            )
            answers, learned = self._streamed(Learned(trained.model, known.vocabulary), protocol.test)
            note = f"all {len(trained.curve)} epochs, chosen on nothing"
            return Run(answers, learned, trained.curve, trained.best_epoch, note + self._refreshes(protocol.test))
        known = self.known(protocol.validation)
        validation = _Validation(self, known.vocabulary, protocol.validation)
        title = f"choosing the epoch of {self._title} on {known.plays.num_rows:,} plays"
        chosen = self._first(known, self._config, validation, title)
        best = chosen.curve[chosen.best_epoch - 1].validation
        assert best is not None
        note = f"NDCG@10 on validation {best.ndcg_at_10:.4f} at epoch {chosen.best_epoch} of {len(chosen.curve)}"
        learned = Learned(chosen.model, known.vocabulary)
        weight = self._weight(learned, known, protocol.validation) if self._weighs else 0.0
        note += f"; weight of successors {weight:g}" if self._weighs else ""
        if protocol.test.learnable.all():  # else leave-one-out: the test is asked of what the validation chose
            known = self.known(protocol.test)
            config = dataclasses.replace(self._config, last_epoch=chosen.best_epoch)
            title = f"training {self._title} on {known.plays.num_rows:,} plays, for {chosen.best_epoch} epochs"
            learned = Learned(self._first(known, config, None, title).model, known.vocabulary)
        if weight:
            learned = dataclasses.replace(learned, successors=Successors(successors_of(known), weight))
        answers, learned = self._streamed(learned, protocol.test)
        note += self._refreshes(protocol.test) + self._zeroed(learned, protocol.test)
        return Run(answers, learned, chosen.curve, chosen.best_epoch, note)

    def streamed(self, learned: Learned, task: Task) -> Answers:
        """Answers a task span by span. After a span, the model is refreshed as the trainer does it: from the weights before, on
        everything known by then. A task of one span is asked as it is.
        """
        return self._streamed(learned, task)[0]

    def known(self, task: Task, learned: int | None = None) -> Known:
        """What may be learned before a task, or of its plays up to a refresh."""
        asked, until = self._data.asked, int(task.learned.min()) if learned is None else learned
        kept = np.zeros(self._data.plays.num_rows, dtype=np.bool_)
        kept[asked.members.order[task.learnable & (asked.place < until)]] = True
        plays = self._data.plays.filter(kept)
        vocabulary = Vocabulary.build(dict.fromkeys(plays.column("item_id").to_pylist()))
        table = ItemTable(self._data.domain, vocabulary, self._data.catalogue)
        return Known(vocabulary, FeatureBuilder(self._data.domain, vocabulary, table), table, plays)

    def _first(self, known: Known, config: TrainConfig, validation: Validation | None, title: str) -> Trained:
        members = pack_members(known.features.layout, known.plays)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            start = self._build(self._model, self._data.domain, known.table)
        rows = known.features.rows(members.events["item_hash"])
        counts = np.bincount(rows, minlength=len(known.table))[1:]
        log_share = np.log((counts + 1.0) / (counts.sum() + len(counts)))
        start.item_bias.data[1:] = torch.from_numpy((log_share - log_share.mean()).astype(np.float32))
        with self._watch.training(title) as (progress, epoch_done):
            return train(
                members,
                known.features,
                known.table,
                config,
                start=start,
                device=self._device,
                validation=validation,
                progress=progress,
                epoch_done=epoch_done,
            )

    def _streamed(self, learned: Learned, task: Task) -> tuple[Answers, Learned]:
        if len(np.unique(task.learned)) == 1:
            return self._answers(learned, task), learned
        ranks, listed = np.full(len(task), np.nan), np.zeros((len(task), LIST_LENGTH), dtype=np.int64)
        heads: dict[str, HeadOutcomes] = {}
        for span, which in self._spans(learned, task):
            learned, found = span, self._answers(span, part_of(task, which))
            ranks[which], listed[which] = found.ranked.ranks, found.ranked.listed
            for name, outcomes in found.heads.items():
                whole = heads.setdefault(name, HeadOutcomes.empty(len(task), outcomes.observed.shape[1]))
                for part in HeadOutcomes.__slots__:
                    getattr(whole, part)[which] = getattr(outcomes, part)
        return Answers(Ranked(ranks, listed), heads), learned

    def _spans(self, learned: Learned, task: Task) -> Iterator[tuple[Learned, NDArray[np.int64]]]:
        """What is learned at each span of a task, and which of its targets are in the span."""
        for number, until in enumerate(np.unique(task.learned).tolist()):
            if number:
                learned = self._refreshed(learned, self.known(task, until), number)
            yield learned, np.flatnonzero(task.learned == until)

    def _weight(self, learned: Learned, known: Known, task: Task) -> float:
        """The weight of successors that is the best on a task, with the refreshes in it."""
        ranks_KN = np.full((len(WEIGHTS), len(task)), np.nan)
        learned = dataclasses.replace(learned, successors=Successors(successors_of(known), 0.0))
        for span, which in self._spans(learned, task):
            scorer, part = span.scorer(self._data), part_of(task, which)
            assert scorer.successors is not None
            ranker = ModelRanker(scorer.features, part.data.members, part.windows)
            ranks_KN[:, which] = ranker.ranks_by_weight(
                scorer.model, part.targets, scorer.successors.table, WEIGHTS, lifts=False
            )
        return best_weight(ranks_KN)

    def _refreshed(self, before: Learned, known: Known, number: int) -> Learned:
        if not known.vocabulary.extends(before.vocabulary):
            raise ValueError("the rows of a refreshed model do not extend those of the model before it")
        config = dataclasses.replace(
            self._config,
            epochs=self._refresh.epochs,
            learning_rate=self._refresh.learning_rate,
            seed=self._config.seed + number,
        )
        members = pack_members(known.features.layout, known.plays)
        found = train(members, known.features, known.table, config, start=before.model, device=self._device)
        successors = before.successors and Successors(successors_of(known), before.successors.weight)
        return Learned(found.model, known.vocabulary, successors)

    def _refreshes(self, task: Task) -> str:
        num = len(np.unique(task.learned)) - 1
        return f"; {num} refreshes of {self._refresh.epochs} epochs each" if num else ""

    def _zeroed(self, learned: Learned, task: Task) -> str:
        """NDCG@10 as code has it that gives hidden items the score 0, to compare with tables that were made so."""
        if not task.targets.filter_watched or len(np.unique(task.learned)) > 1:
            return ""
        zeroed = dataclasses.replace(task, targets=dataclasses.replace(task.targets, hidden_score=0.0))
        gain = quality(ranks_alone(learned.scorer(self._data), zeroed)).ndcg_at_10
        return f"; with hidden items scored 0: NDCG@10 {gain:.4f}"

    def _answers(self, learned: Learned, task: Task) -> Answers:
        return answered(learned, self._data, task)


@dataclass(frozen=True, slots=True)
class _Validation:
    """A validation task, asked as the test is: every item of the universe, the whole history hidden, and in a stream with the
    refreshes in it.
    """

    learner: Learner
    vocabulary: Vocabulary
    task: Task

    def measure(self, model: IntentRec) -> tuple[Quality, dict[str, float]]:
        """NDCG@10 and the others; the heads are not looked at."""
        return quality(self.learner.streamed(Learned(model, self.vocabulary), self.task).ranked.ranks), {}


def successors_of(known: Known) -> SuccessorTable:
    """Successors in the plays that are known, in their rows."""
    members = pack_members(known.features.layout, known.plays)
    rows = known.features.rows(members.events["item_hash"])
    return SuccessorTable.empty(len(known.vocabulary)).counted(rows, members.member)


def answered(learned: Learned, data: ExperimentData, task: Task) -> Answers:
    """What a model answers to a task, as it is: nothing is learned meanwhile."""
    ranker = learned.scorer(data)
    ranked = rank(ranker, task)
    return Answers(ranked, ranker.heads)


def grown(model: IntentRec, vocabulary: Vocabulary, data: ExperimentData) -> IntentRec:
    """The model with rows for the whole universe, as a bundle has them for items that were not played yet.

    ``vocabulary`` numbers the model's rows. Those of the result are numbered as the data set is, whatever their order was.

    Raises: ValueError when the vocabulary is not that of the model.
    """
    if len(vocabulary) != model.num_rows:
        raise ValueError(f"a vocabulary of {len(vocabulary)} rows for a model of {model.num_rows}")
    whole = copy.deepcopy(model)
    extended = vocabulary.extended(data.vocabulary.item_ids[1:])
    whole.grow(ItemTable(model.domain, extended, data.catalogue))
    own = torch.from_numpy(extended.rows(data.vocabulary.hashes)).to(model.device)
    whole.item.weight.data = whole.item.weight.data[own]
    whole.item_bias.data = whole.item_bias.data[own]
    whole.grow(data.table)
    return whole


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
