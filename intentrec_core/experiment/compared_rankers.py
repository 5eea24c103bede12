"""What is compared: IntentRec, other models with the same budget, popularity and Markov chains. Each answers a protocol."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intentrec_core.baselines.popularity import DAY_S, WEEK_S
from intentrec_core.baselines.sequence_models import GRU4Rec, MultiTaskTransformer, SASRec
from intentrec_core.errors import ConfigError
from intentrec_core.evaluation import comparison as names
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import MarkovRanker, PopularityRanker, rank
from intentrec_core.evaluation.task import Task
from intentrec_core.evaluation.tuning import Tuned, first_order, last_plays
from intentrec_core.experiment.data import ExperimentData
from intentrec_core.experiment.learner import Answers, Build, Learned, Learner, Refresh, answered
from intentrec_core.experiment.watch import Watch
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.reports import EpochReport

#: Training stops so many epochs after the best one.
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Answered:
    """What a ranker gave on the test. ``choice``: what was chosen on the validation, in words. Of one that is trained also the
    curve that its epoch was chosen on, how many epochs the answer is of, and the model itself.
    """

    answers: Answers
    choice: str = ""
    curve: tuple[EpochReport, ...] = ()
    epochs: int | None = None
    learned: Learned | None = None


@dataclass(frozen=True, slots=True)
class ComparedRanker:
    """One row. ``kind``: "ours", "trained" or "counts"; see :class:`~intentrec_core.evaluation.results.RowResult`."""

    name: str
    kind: str
    answer: Callable[[Protocol, int], Answered]
    has_seeds: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """What every trained ranker gets. Without ``chooses_epoch`` it is trained for all epochs."""

    model: ModelConfig
    train: TrainConfig
    refresh: Refresh
    chooses_epoch: bool = True
    device: str = "auto"


_NO_INTENT: Mapping[str, Any] = {"intent_stage": False, "intent_score": False, "own_items": False}
#: Other models that IntentRec can be compared with: what each is, and what it changes in the sizes and parts.
OTHER_MODELS: Mapping[str, tuple[str, Build, Mapping[str, Any]]] = {
    "no-intent": (names.NO_INTENT, IntentRec, {"intent_stage": False, "intent_score": False}),
    "multi-task": ("multi-task Transformer", MultiTaskTransformer, {"intent_score": False, "own_items": False}),
    "sasrec": ("SASRec", SASRec, _NO_INTENT),
    "gru": ("GRU", GRU4Rec, _NO_INTENT),
}


def models(data: ExperimentData, budget: Budget, others: Sequence[str], watch: Watch) -> list[ComparedRanker]:
    """IntentRec, and the models of these names.

    Raises: ConfigError for a name that is not in :data:`OTHER_MODELS`.
    """
    unknown = [name for name in others if name not in OTHER_MODELS]
    if unknown:
        raise ConfigError(f"model {unknown[0]!r} is none to compare with; allowed: {', '.join(OTHER_MODELS)}")
    found = [_trained(data, budget, names.INTENTREC, IntentRec, {}, watch, kind="ours")]
    for name in dict.fromkeys(others):
        title, build, changes = OTHER_MODELS[name]
        found.append(_trained(data, budget, title, build, changes, watch, kind="trained"))
    return found


def given_model(data: ExperimentData, learned: Learned) -> ComparedRanker:
    """A model that was trained elsewhere, as it is."""

    def answer(protocol: Protocol, _seed: int) -> Answered:
        return Answered(answered(learned, data, protocol.test), learned=learned)

    return ComparedRanker(names.INTENTREC, "ours", answer)


def counting(*, tunes: bool, is_online: bool = True) -> list[ComparedRanker]:
    """Popularity and Markov chains. With ``tunes`` every setting of a chain is chosen on the validation; the plain settings are
    used otherwise. ``is_online``: whether chains that learn every play at once are among them (not in leave-one-out, where what
    is learned is fixed).
    """
    windows = (
        (names.POPULAR_DAY, DAY_S),
        (names.POPULAR, WEEK_S),
        (names.POPULAR_MONTH, 30 * DAY_S),
        (names.POPULAR_EVER, math.inf),
    )
    found = [_popular(name, window_s) for name, window_s in windows]
    chains = ((names.MARKOV_FIRST, first_order, 1, False), (names.MARKOV, last_plays, 5, False))
    online = ((names.MARKOV_FIRST_ONLINE, first_order, 1, True), (names.MARKOV_ONLINE, last_plays, 5, True))
    for name, choose, lags, learns_at_once in chains + (online if is_online else ()):
        found.append(_chain(name, choose, lags, tunes=tunes, online=learns_at_once))
    return found


def _popular(name: str, window_s: float) -> ComparedRanker:
    return ComparedRanker(
        name, "counts", lambda protocol, _: Answered(Answers(rank(PopularityRanker(window_s), protocol.test), {}))
    )


def _chain(
    name: str, choose: Callable[..., Tuned[MarkovRanker]], lags: int, *, tunes: bool, online: bool
) -> ComparedRanker:
    def answer(protocol: Protocol, _seed: int) -> Answered:
        if not tunes:
            plain = MarkovRanker(dataclasses.replace(MarkovRanker().settings, lags=lags), online)
            return Answered(_ranked(plain, protocol.test), f"not chosen: {plain}")
        tuned = choose(protocol.validation, online=online)
        return Answered(_ranked(tuned.best, protocol.test), tuned.line())

    return ComparedRanker(name, "counts", answer)


def _ranked(ranker: MarkovRanker, task: Task) -> Answers:
    return Answers(rank(ranker, task), {})


def _trained(
    data: ExperimentData,
    budget: Budget,
    title: str,
    build: Build,
    changes: Mapping[str, Any],
    watch: Watch,
    *,
    kind: str,
) -> ComparedRanker:
    model = dataclasses.replace(budget.model, **changes)

    def answer(protocol: Protocol, seed: int) -> Answered:
        config = dataclasses.replace(budget.train, seed=seed, patience=PATIENCE)
        learner = Learner(
            data,
            build,
            model,
            config,
            budget.refresh,
            weighs=build is IntentRec,
            title=title,
            device=budget.device,
            watch=watch,
        )
        run = learner.run(protocol, chooses_epoch=budget.chooses_epoch)
        return Answered(run.answers, run.note, run.curve, run.best_epoch, run.learned)

    return ComparedRanker(title, kind, answer, has_seeds=True)
