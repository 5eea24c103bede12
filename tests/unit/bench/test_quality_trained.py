"""Trained rows of the quality table: their items are those of the data set, and they know nothing of what they are asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from intentrec_core.baselines.sequence_models import SASRec
from intentrec_core.baselines.transact import TransAct
from intentrec_core.evaluation.metrics import Quality, quality
from intentrec_core.evaluation.protocols import leave_one_out, streaming, temporal
from intentrec_core.evaluation.task import EvaluationData
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import pack_members
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.reports import Trained
from intentrec_core.training.train import Validation
from tests.bench.quality.counted import CountedLearner
from tests.bench.quality.data_sets import QUICK, Loaded, world_plays
from tests.bench.quality.neural import Build, Known, Learner, grown

CONFIG = ModelConfig(width=8, num_heads=1, intent_width=4, dropout=0.0, intent_score=False)
TRAIN = TrainConfig(epochs=2, patience=2)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """A small world. The earliest play that leave-one-out holds back is the only one of its item."""

    def load(_: object) -> tuple[pa.Table, Catalogue]:
        plays, catalogue = world_plays(700, 30, 250)
        last_of = {user: number for number, user in enumerate(plays.column("user_id").to_pylist())}
        items = plays.column("item_id").to_pylist()
        unplayed = sorted({item.item_id for item in catalogue} - set(items))
        items[min(last_of.values())] = unplayed[0]
        return with_items(plays, items), catalogue

    return dataclasses.replace(QUICK[0], load=load).loaded(None)


def with_items(plays: pa.Table, items: list[str]) -> pa.Table:
    column = plays.schema.get_field_index("item_id")
    return plays.set_column(column, plays.schema.field(column), pa.array(items, plays.schema.field(column).type))


def learner(loaded: Loaded, build: Build = SASRec) -> Learner:
    return Learner(loaded, build, CONFIG, TRAIN)


@pytest.mark.parametrize("build", [SASRec, IntentRec, TransAct])
def test_a_row_of_a_grown_model_is_the_item_of_the_data_set(loaded: Loaded, build: Build) -> None:
    known = learner(loaded).known(leave_one_out(loaded.data).validation)
    assert not loaded.vocabulary.extends(known.vocabulary)
    assert len(known.vocabulary) < len(loaded.vocabulary)
    torch.manual_seed(0)
    model = build(CONFIG, loaded.data.features.domain, known.table)
    model.item_bias.data.normal_()
    weight, bias = model.item_weights()
    whole_weight, whole_bias = grown(model, known.vocabulary, loaded).item_weights()
    assert len(whole_weight) == len(loaded.vocabulary)
    for row, item_id in enumerate(loaded.vocabulary.item_ids[1:], start=1):
        if own := known.vocabulary.row(item_id):
            torch.testing.assert_close(whole_weight[row], weight[own])
            torch.testing.assert_close(whole_bias[row], bias[own])


def test_a_model_is_not_taken_for_one_of_other_rows(loaded: Loaded) -> None:
    known = learner(loaded).known(leave_one_out(loaded.data).validation)
    model = SASRec(CONFIG, loaded.data.features.domain, loaded.table)
    with pytest.raises(ValueError, match="rows"):
        grown(model, known.vocabulary, loaded)


def with_other_items(loaded: Loaded, changed: np.ndarray) -> Loaded:
    """The data set, with the items of these plays (their places in time) handed on among them."""
    items = np.array(loaded.plays.column("item_id").to_pylist(), dtype=object)
    items[changed] = np.roll(items[changed], 1)
    plays = with_items(loaded.plays, items.tolist())
    members = pack_members(loaded.data.members.layout, plays)
    data = EvaluationData.of(
        members, loaded.data.features, loaded.data.universe, hides_history=loaded.data.hides_history
    )
    return dataclasses.replace(loaded, plays=plays, data=data)


def test_a_stream_learns_no_play_before_it_is_asked(loaded: Loaded) -> None:
    """Plays from the middle of the second span on have other items: until then, every list stays the same."""

    def lists(of: Loaded) -> np.ndarray:
        return learner(of).answer(streaming(of.data, refresh_plays=60, first_ratio=0.7)).ranked.listed

    task = streaming(loaded.data, refresh_plays=60, first_ratio=0.7).test
    begin = int(np.unique(task.learned)[1]) + 30
    place = loaded.data.place[task.targets.play]
    first, second = lists(loaded), lists(with_other_items(loaded, np.arange(begin, loaded.plays.num_rows)))
    assert (place < begin).sum() > 50
    np.testing.assert_array_equal(first[place < begin], second[place < begin])
    assert (first[place > begin + 60] != second[place > begin + 60]).any(), "a refresh learns them"


@pytest.mark.parametrize("build", [SASRec, IntentRec])
def test_what_is_counted_was_played_before_the_target(loaded: Loaded, build: Build) -> None:
    """Plays of the second half of the test have other items: no list before them changes, and a list after them counts them."""
    config = dataclasses.replace(CONFIG, item_counts=True, count_refresh_s=60)

    def lists(of: Loaded) -> np.ndarray:
        protocol = temporal(of.data, test_ratio=0.3)
        return CountedLearner(of, build, config, TRAIN).answer(protocol).ranked.listed

    task = temporal(loaded.data, test_ratio=0.3).test
    place = loaded.data.place[task.targets.play]
    begin = int(np.median(place))
    first, second = lists(loaded), lists(with_other_items(loaded, np.arange(begin, loaded.plays.num_rows)))
    assert (place < begin).sum() > 50
    np.testing.assert_array_equal(first[place < begin], second[place < begin])
    assert (first[place > begin + 60] != second[place > begin + 60]).any()


def test_biases_of_a_row_with_counts_begin_at_zero(loaded: Loaded) -> None:
    config = dataclasses.replace(CONFIG, item_counts=True)
    still = dataclasses.replace(TRAIN, epochs=1, learning_rate=1e-7)
    for kind, begins_at_zero in ((CountedLearner, True), (Learner, False)):
        own = kind(loaded, SASRec, config, still)
        known = own.known(temporal(loaded.data, test_ratio=0.3).validation)
        largest = own.first(known, still).model.item_bias.detach()[1:].abs().max().item()
        assert (largest < 1e-4) == begins_at_zero


def test_leave_one_out_learns_no_play_of_the_test(loaded: Loaded) -> None:
    protocol = leave_one_out(loaded.data)
    asked = loaded.data.members.order[protocol.test.targets.play]
    other = with_other_items(loaded, np.sort(asked))
    first, second = (learner(of).answer(leave_one_out(of.data)).ranked for of in (loaded, other))
    np.testing.assert_array_equal(first.listed, second.listed)
    assert (first.ranks != second.ranks).any()


def test_the_epoch_that_was_chosen_is_the_one_that_is_asked(loaded: Loaded) -> None:
    """Training again on the same plays up to an epoch gives the weights of that epoch, not those of a shorter schedule."""
    own = learner(loaded)
    known = own.known(leave_one_out(loaded.data).validation)
    whole = own.first(known, dataclasses.replace(TRAIN, epochs=3, last_epoch=2)).model.state_dict()
    seen: list[dict[str, torch.Tensor]] = []

    class Looks:
        def measure(self, model: IntentRec) -> tuple[Quality, dict[str, float]]:
            seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            return quality(np.ones(1)), {}

    own.first(known, dataclasses.replace(TRAIN, epochs=3), Looks())
    torch.testing.assert_close(whole["item.weight"], seen[1]["item.weight"])
    shorter = own.first(known, dataclasses.replace(TRAIN, epochs=2)).model.state_dict()
    assert not torch.equal(shorter["item.weight"], whole["item.weight"])


def test_of_two_schedules_the_better_on_the_validation_is_trained_again(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = temporal(loaded.data, test_ratio=0.3)
    trained: list[tuple[int, int | None, float]] = []
    first = Learner.first

    def noted(self: Learner, known: Known, config: TrainConfig, validation: Validation | None = None) -> Trained:
        found = first(self, known, config, validation)
        best = found.curve[found.best_epoch - 1].validation
        trained.append((config.epochs, config.last_epoch, best.ndcg_at_10 if best else np.nan))
        return found

    monkeypatch.setattr(Learner, "first", noted)
    note = Learner(loaded, SASRec, CONFIG, dataclasses.replace(TRAIN, epochs=12, patience=12), 1).answer(protocol).note
    (long, _, of_long), (short, _, of_short), (again, last_epoch, _) = trained
    assert (long, short) == (12, 1)
    assert of_long != of_short
    assert again == (12 if of_long > of_short else 1)
    assert last_epoch is not None
    assert f"{max(of_long, of_short):.4f} at epoch {last_epoch} of" in note
    assert f"{min(of_long, of_short):.4f} at epoch" in note
