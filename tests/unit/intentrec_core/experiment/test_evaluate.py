"""The results of an evaluation: plain numbers, the best of each choice, members that stay together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import ConfigError, DataError
from intentrec_core.evaluation import comparison as names
from intentrec_core.evaluation.calibration import calibration_bins
from intentrec_core.evaluation.heads import HeadOutcomes, head_quality
from intentrec_core.evaluation.metrics import gains, lift_interval, mean_of_seeds
from intentrec_core.evaluation.protocols import Protocol, leave_one_out, temporal
from intentrec_core.evaluation.rankers import Ranked
from intentrec_core.evaluation.results import MAIN, Evaluation
from intentrec_core.evaluation.results_text import lines
from intentrec_core.experiment.compared_rankers import PATIENCE, Answered, Budget, ComparedRanker, counting, models
from intentrec_core.experiment.data import ExperimentData
from intentrec_core.experiment.evaluate import evaluate
from intentrec_core.experiment.learner import Answers, Refresh
from intentrec_core.experiment.named_protocols import after_training, make_protocol
from intentrec_core.experiment.protocol_names import ProtocolName
from intentrec_core.experiment.watch import Silent
from intentrec_core.model.config import ModelConfig
from intentrec_core.training.config import TrainConfig
from tests.bench.quality.data_sets import world_plays


@pytest.fixture(scope="module")
def data() -> ExperimentData:
    plays, catalogue = world_plays(700, 25, 80)
    return ExperimentData.of("world", load_domain("video"), plays, catalogue)


@pytest.fixture(scope="module")
def protocol(data: ExperimentData) -> Protocol:
    return temporal(data.asked, test_ratio=0.3)


def drawn(protocol: Protocol, kind: str, good: float, seeds: bool) -> ComparedRanker:
    """A ranker whose ranks are drawn at random, small ones with chance ``good``."""

    def answer(asked: Protocol, seed: int) -> Answered:
        random, num = np.random.default_rng([seed, int(good * 100)]), len(asked.test)
        ranks = np.where(random.random(num) < good, 1.0 + random.integers(5, size=num), np.inf)
        return Answered(Answers(Ranked(ranks, np.ones((num, 20), dtype=np.int64)), {}), choice=f"seed {seed}")

    return ComparedRanker(f"{kind} {good}", kind, answer, has_seeds=seeds)


def test_seeds_are_averaged_play_by_play_before_members_are_drawn(data: ExperimentData, protocol: Protocol) -> None:
    rankers = [drawn(protocol, "ours", 0.6, seeds=True), drawn(protocol, "counts", 0.4, seeds=False)]
    found = evaluate(data, protocol, rankers, seeds=(4, 5)).evaluation
    ours, theirs = found.rows
    of_seeds = [gains(rankers[0].answer(protocol, seed).answers.ranked.ranks) for seed in (4, 5)]
    mean = mean_of_seeds(of_seeds)
    assert ours.metrics[MAIN].value == pytest.approx(mean.mean())
    assert [run.seed for run in ours.seeds] == [4, 5]
    assert [run.metrics[MAIN] for run in ours.seeds] == pytest.approx([g.mean() for g in of_seeds])
    assert [run.seed for run in theirs.seeds] == [4], "what is not trained has no seeds"
    other = gains(rankers[1].answer(protocol, 4).answers.ranked.ranks)
    lift = lift_interval(mean, other, protocol.test.targets.member)
    by = theirs.above[MAIN].by
    assert (by.value, by.low, by.high) == (lift.estimate, lift.low, lift.high)
    assert not ours.above
    assert ours.choice == "seed 4; seed 5"


def test_the_json_has_no_number_that_json_has_not(data: ExperimentData, protocol: Protocol) -> None:
    """A row that never hits makes the lift over it infinite."""
    rankers = [drawn(protocol, "ours", 0.6, seeds=False), drawn(protocol, "counts", 0.0, seeds=False)]
    found = evaluate(data, protocol, rankers).evaluation
    assert found.rows[1].above[MAIN].by.value is None
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["rows"][1]["above"][MAIN]["by"]["value"] is None
    assert "–" in "\n".join(lines(found))


def test_chains_are_chosen_on_the_validation_and_say_so(data: ExperimentData, protocol: Protocol) -> None:
    first = counting(tunes=True)[4].answer(protocol, 0)
    assert first.choice.startswith("NDCG@10 on validation 0.")
    assert "mean" in first.choice
    plain = counting(tunes=False)[4].answer(protocol, 0)
    assert plain.choice.startswith("not chosen: lags 1")
    online = [ranker.name for ranker in counting(tunes=False) if "online" in ranker.name]
    assert len(online) == 2
    assert not [c for c in counting(tunes=False, is_online=False) if "online" in c.name]


def test_every_model_stops_three_epochs_after_its_best(data: ExperimentData) -> None:
    sizes = ModelConfig(width=8, num_heads=1, intent_width=4, dropout=0.0)
    budget = Budget(sizes, TrainConfig(epochs=40, patience=40, learning_rate=0.03), Refresh(1, 1e-3), device="cpu")
    ours, *others = models(data, budget, ["gru", "no-intent"], Silent())
    assert (ours.kind, [one.kind for one in others]) == ("ours", ["trained", "trained"])
    for one in (ours, others[0]):
        found = one.answer(leave_one_out(data.asked), 0)
        assert found.epochs is not None
        assert len(found.curve) == found.epochs + PATIENCE == found.epochs + 3 < 40


def test_ours_has_successors_with_and_without_intents_and_the_others_have_none(data: ExperimentData) -> None:
    sizes = ModelConfig(width=8, num_heads=1, intent_width=4, dropout=0.0)
    budget = Budget(sizes, TrainConfig(epochs=1), Refresh(1, 1e-3), device="cpu")
    for one in models(data, budget, ["no-intent", "multi-task", "sasrec", "gru"], Silent()):
        found, is_ours = one.answer(leave_one_out(data.asked), 0), one.name in (names.INTENTREC, names.NO_INTENT)
        assert ("weight of successors" in found.choice) == is_ours
        assert found.learned is not None
        assert (found.learned.successors is not None) == is_ours, "one epoch knows less than successors"


def test_a_model_to_compare_with_is_a_known_one(data: ExperimentData) -> None:
    budget = Budget(ModelConfig(width=8), TrainConfig(epochs=1), Refresh(1, 1e-3))
    with pytest.raises(ConfigError, match="allowed: no-intent, multi-task, sasrec, gru"):
        models(data, budget, ["bert"], Silent())


def bins_of(outcomes: HeadOutcomes) -> tuple[float, int]:
    bins = calibration_bins(outcomes)
    total = sum(one.plays for one in bins)
    return sum(one.plays * abs(one.confidence - one.accuracy) for one in bins) / total, total


def test_the_bins_of_the_picture_are_those_of_the_calibration_error() -> None:
    random = np.random.default_rng(0)
    outcomes = HeadOutcomes.empty(400, 3)
    outcomes.predicted[:] = random.integers(3, size=400)
    outcomes.confidence[:] = random.random(400)
    outcomes.observed[np.arange(400), random.integers(3, size=400)] = True
    outcomes.observed[:50] = False
    error, num = bins_of(outcomes)
    assert num == 350
    assert error == pytest.approx(head_quality(outcomes).ece)


@pytest.mark.parametrize("name", list(ProtocolName))
def test_every_protocol_has_its_name(data: ExperimentData, name: ProtocolName) -> None:
    found = make_protocol(name, data.asked, share=0.7, refresh_plays=60, knows_time=True)
    assert found.name.startswith("streaming" if name is ProtocolName.STREAM else name.value)
    assert (len(np.unique(found.test.learned)) > 1) == (name is ProtocolName.STREAM)


def test_a_split_without_a_side_is_refused(data: ExperimentData) -> None:
    with pytest.raises(DataError, match="allowed: above 0, below 1"):
        make_protocol(ProtocolName.TEMPORAL, data.asked, share=1.0, refresh_plays=1, knows_time=True)


def test_a_bundle_is_asked_for_every_play_after_its_training_and_for_no_other(data: ExperimentData) -> None:
    ts_ms = data.asked.members.events["ts_ms"]
    for cut_ms in np.sort(ts_ms)[[200, 301, 417]].tolist():
        found = after_training(data.asked, cut_ms, knows_time=True)
        asked = ts_ms[found.test.targets.play]
        first = np.zeros(len(ts_ms), dtype=np.bool_)
        first[data.asked.members.bounds[:-1]] = True
        assert asked.min() >= cut_ms
        assert len(asked) == ((ts_ms >= cut_ms) & ~first).sum()
        assert (ts_ms[found.validation.targets.play] < cut_ms).all()
    with pytest.raises(DataError, match="plays of both sides"):
        after_training(data.asked, int(ts_ms.max()) + 1, knows_time=True)


def test_an_evaluation_names_its_rows(data: ExperimentData, protocol: Protocol) -> None:
    found: Evaluation = evaluate(data, protocol, [drawn(protocol, "ours", 0.5, seeds=False)]).evaluation
    assert found.row("ours 0.5") is found.rows[0]
    with pytest.raises(KeyError):
        found.row("theirs")
    with pytest.raises(ValueError, match="at least one"):
        evaluate(data, protocol, [])
