"""What learns by a protocol: the epoch, the refreshes, and that the quality table's learner is the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from intentrec_core.baselines.sequence_models import SASRec
from intentrec_core.domain.toml import load_domain
from intentrec_core.evaluation.metrics import gains
from intentrec_core.evaluation.protocols import leave_one_out, streaming, temporal
from intentrec_core.experiment import learner as learner_module
from intentrec_core.experiment.data import ExperimentData, never_repeats
from intentrec_core.experiment.learner import Learned, Learner, Refresh, answered
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.successors import SuccessorTable
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.weighing import WEIGHTS
from stream.trainer.retrain import WARM_EPOCHS, WARM_LEARNING_RATE
from tests.bench.quality import neural
from tests.bench.quality.data_sets import QUICK, Loaded, world_plays
from tests.worlds.tiny_world import random_successors

CONFIG = ModelConfig(width=8, num_heads=1, intent_width=4, dropout=0.0, intent_score=False)
REFRESH = Refresh(WARM_EPOCHS, WARM_LEARNING_RATE)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return dataclasses.replace(QUICK[0], load=lambda _: world_plays(700, 25, 80)).loaded(None)


@pytest.fixture(scope="module")
def data(loaded: Loaded) -> ExperimentData:
    """The same plays, as the command has them."""
    return ExperimentData.of(
        "world", load_domain(loaded.domain), loaded.plays, loaded.catalogue, hides_played=loaded.data.hides_history
    )


def learner(data: ExperimentData, config: TrainConfig) -> Learner:
    return Learner(data, SASRec, CONFIG, config, REFRESH, device="cpu")


@pytest.mark.parametrize("weighs", [False, True], ids=["", "successors"])
def test_the_quality_table_and_the_command_learn_the_same(loaded: Loaded, data: ExperimentData, weighs: bool) -> None:
    """Two learners, one for the rows whose runs are kept, one for everyone. Networks to the bit; successors are summed in
    another order of rows.
    """
    config = TrainConfig(epochs=2, patience=2)
    for protocol in (temporal(data.asked, test_ratio=0.3), streaming(data.asked, refresh_plays=90, first_ratio=0.7)):
        theirs = neural.Learner(loaded, SASRec, CONFIG, config, weighs=weighs).answer(protocol)
        ours = Learner(data, SASRec, CONFIG, config, REFRESH, weighs=weighs, device="cpu").run(protocol)
        assert (ours.learned.successors is not None) == weighs
        if weighs:
            assert f"the weight {ours.learned.successors.weight:g} " in theirs.note
        np.testing.assert_array_equal(ours.answers.ranked.ranks, theirs.ranked.ranks)
        np.testing.assert_array_equal(ours.answers.ranked.listed, theirs.ranked.listed)


def test_the_weight_of_successors_is_chosen_on_the_validation(
    data: ExperimentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test is asked once, with what was chosen."""
    asked = list[NDArray[np.float64]]()

    def noted(ranks_KN: NDArray[np.float64]) -> float:
        asked.append(ranks_KN)
        return WEIGHTS[3]

    monkeypatch.setattr(learner_module, "best_weight", noted)
    protocol = leave_one_out(data.asked)
    run = Learner(data, SASRec, CONFIG, TrainConfig(epochs=1), REFRESH, weighs=True, device="cpu").run(protocol)
    (ranks_KN,) = asked
    plain = dataclasses.replace(run.learned, successors=None)
    for learned, ranks in ((plain, ranks_KN[0]), (run.learned, ranks_KN[3])):
        np.testing.assert_array_equal(ranks, answered(learned, data, protocol.validation).ranked.ranks)
    np.testing.assert_array_equal(run.answers.ranked.ranks, answered(run.learned, data, protocol.test).ranked.ranks)


def test_a_bundle_is_asked_with_its_successors_in_the_rows_of_the_data(data: ExperimentData) -> None:
    """The bundle's rows are in another order, and it does not know all items of the data."""
    known = Vocabulary.build(data.vocabulary.item_ids[40:0:-1])
    own = IntentRec(CONFIG, data.domain, ItemTable(data.domain, known, data.catalogue))
    successors = random_successors(len(known), num_plays=400)
    scorer = Learned(own, known, successors).scorer(data)
    assert scorer.successors is not None
    assert scorer.successors.weight == successors.weight

    def by_item(table: SuccessorTable, vocabulary: Vocabulary) -> dict[tuple[str, str], float]:
        item = np.repeat(np.arange(table.num_rows), np.diff(table.starts))
        names = vocabulary.item_ids
        pairs = zip(item.tolist(), table.rows.tolist(), table.counts.tolist(), strict=True)
        return {(names[before], names[after]): count for before, after, count in pairs}

    assert by_item(scorer.successors.table, data.vocabulary) == by_item(successors.table, known)


def test_the_epoch_with_the_best_validation_answers(data: ExperimentData) -> None:
    """At a rate at which it gets worse again: neither the last epoch nor the one with the least loss is taken."""
    protocol = leave_one_out(data.asked)
    run = learner(data, TrainConfig(epochs=8, patience=3, learning_rate=0.03)).run(protocol)
    values = [point.validation.ndcg_at_10 for point in run.curve if point.validation is not None]
    assert len(values) == len(run.curve)
    assert run.best_epoch == 1 + int(np.argmax(values))
    assert run.best_epoch < len(values), "an epoch after the best one was tried"
    on_validation = answered(run.learned, data, protocol.validation).ranked.ranks
    assert gains(on_validation).mean() == pytest.approx(max(values))


def test_training_stops_some_epochs_after_the_best(data: ExperimentData) -> None:
    run = learner(data, TrainConfig(epochs=30, patience=2, learning_rate=0.03)).run(leave_one_out(data.asked))
    assert len(run.curve) == run.best_epoch + 2


def test_a_temporal_answer_is_learned_anew_up_to_the_chosen_epoch(data: ExperimentData) -> None:
    protocol = temporal(data.asked, test_ratio=0.3)
    config = TrainConfig(epochs=4, patience=4, learning_rate=0.03)
    run = learner(data, config).run(protocol)
    whole = learner(data, dataclasses.replace(config, last_epoch=run.best_epoch)).run(protocol, chooses_epoch=False)
    np.testing.assert_array_equal(run.answers.ranked.ranks, whole.answers.ranked.ranks)


def test_without_a_validation_all_epochs_are_trained(data: ExperimentData) -> None:
    run = learner(data, TrainConfig(epochs=2)).run(temporal(data.asked, test_ratio=0.3), chooses_epoch=False)
    assert (run.best_epoch, [point.validation for point in run.curve]) == (2, [None, None])


def test_items_that_only_a_model_knows_are_not_ranked(data: ExperimentData) -> None:
    """A bundle knows items that nobody plays in the data: they have rows, and stand on no list."""
    unplayed = [item.item_id for item in data.catalogue if not data.vocabulary.row(item.item_id)][:3]
    wider = ExperimentData.of("world", data.domain, data.plays, data.catalogue, known_items=unplayed)
    assert len(unplayed) == 3
    assert wider.asked.universe.sum() == data.asked.universe.sum()
    known = Vocabulary.build([*unplayed, *data.vocabulary.item_ids[1:40]])
    own = IntentRec(CONFIG, data.domain, ItemTable(data.domain, known, data.catalogue))
    listed = answered(Learned(own, known), wider, temporal(wider.asked, test_ratio=0.3).test).ranked.listed
    assert listed.max() < len(data.vocabulary)


def test_what_is_hidden_by_default_is_what_no_member_plays_again() -> None:
    assert never_repeats(load_domain("movielens"))
    assert not never_repeats(load_domain("video"))
