"""Trained baselines: causal, learning what follows what, and growing to new items as IntentRec does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from intentrec_core.baselines.sequence_models import GRU4Rec, MultiTaskTransformer, SASRec
from intentrec_core.baselines.transact import LAST_COLUMNS, NUM_ACTIONS, TransAct
from intentrec_core.domain.spec import Domain
from intentrec_core.evaluation.metrics import Quality, quality
from intentrec_core.evaluation.model_ranks import ScoredByModel
from intentrec_core.evaluation.protocols import leave_one_out
from intentrec_core.evaluation.rankers import rank
from intentrec_core.evaluation.task import EvaluationData
from intentrec_core.features.labels import ItemLabels
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.batches import WindowBatches
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.windows import cut_windows
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train
from tests.worlds.tiny_plays import cycling_plays, random_plays
from tests.worlds.tiny_world import TinyWorld

MODELS: list[Callable[[ModelConfig, Domain, ItemLabels], IntentRec]] = [
    SASRec,
    GRU4Rec,
    MultiTaskTransformer,
    TransAct,
]
CONFIG = ModelConfig(width=16, num_layers=1, intent_width=8, dropout=0.0)


def test_every_baseline_learns_what_follows_in_a_circle(world: TinyWorld) -> None:
    members = pack_members(world.layout, cycling_plays(members=8, plays=24, items=12))
    data = EvaluationData.of(members, world.features, np.arange(len(world.vocabulary)) > 0, hides_history=False)
    test = leave_one_out(data).test
    for build in MODELS:
        torch.manual_seed(0)
        start = build(CONFIG, world.domain, world.table)
        config = TrainConfig(epochs=10, batch_windows=8, learning_rate=1e-2)
        trained = train(members, world.features, world.table, config, start=start, device="cpu").model
        found = quality(rank(ScoredByModel(trained, world.features), test).ranks)
        assert found.ndcg_at_10 > 0.8, build


@pytest.mark.parametrize("build", MODELS)
def test_a_position_depends_on_its_past_alone(
    world: TinyWorld, build: Callable[[ModelConfig, Domain, ItemLabels], IntentRec]
) -> None:
    members = pack_members(world.layout, random_plays(members=3, plays=60))
    batch = next(WindowBatches(world.features, members, cut_windows(members)).ordered(4)).context
    model = build(CONFIG, world.domain, world.table).eval()
    before = model(batch).item_BTW
    batch.item_row[:, 5:] = 1 + (batch.item_row[:, 5:] + 3) % 20
    after = model(batch).item_BTW
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:])


@pytest.mark.parametrize("build", MODELS)
def test_a_baseline_grows_to_items_that_it_has_not_seen(
    world: TinyWorld, build: Callable[[ModelConfig, Domain, ItemLabels], IntentRec]
) -> None:
    some = Vocabulary.build(world.vocabulary.item_ids[1:10])
    model = build(CONFIG, world.domain, ItemTable(world.domain, some, world.catalogue))
    small, _ = model.item_weights()
    model.grow(world.table)
    large, bias = model.item_weights()
    assert len(large) == len(bias) == len(world.vocabulary)
    torch.testing.assert_close(large[: len(small)], small)


def test_items_alone_are_all_that_sasrec_and_the_gru_see(world: TinyWorld) -> None:
    members = pack_members(world.layout, random_plays(members=3, plays=60))
    batch = next(WindowBatches(world.features, members, cut_windows(members)).ordered(4)).context
    for build in (SASRec, GRU4Rec):
        model = build(CONFIG, world.domain, world.table).eval()
        before = model(batch).item_BTW
        batch.codes.zero_()
        batch.ts_s.add_(1000.0)
        torch.testing.assert_close(model(batch).item_BTW, before)


def test_transact_merges_its_last_columns_their_largest_values_and_all_items_so_far(world: TinyWorld) -> None:
    """Asked of the layer that merges them: what it is given at each play, from the columns of the Transformer before it."""
    members = pack_members(world.layout, random_plays(members=3, plays=60))
    batch = next(WindowBatches(world.features, members, cut_windows(members)).ordered(4)).context
    model = TransAct(CONFIG, world.domain, world.table).eval()
    seen: dict[str, torch.Tensor] = {}
    model.item_encoder.register_forward_hook(lambda _module, _given, made: seen.update(columns=made))
    model.merge.register_forward_hook(lambda _module, given, _made: seen.update(merged=given[0]))
    model(batch)
    columns, width = seen["columns"], CONFIG.width
    last, largest, mean = seen["merged"].split([LAST_COLUMNS * width, width, width], dim=-1)
    item = model.item(batch.item_row)
    for place in range(columns.shape[1]):
        expected = torch.zeros(len(columns), LAST_COLUMNS, width)
        for back in range(min(place + 1, LAST_COLUMNS)):
            expected[:, back] = columns[:, place - back]
        torch.testing.assert_close(last[:, place], expected.flatten(1))
        actions = columns[:, max(0, place + 1 - NUM_ACTIONS) : place + 1]
        torch.testing.assert_close(largest[:, place], actions.amax(dim=1))
        torch.testing.assert_close(mean[:, place], item[:, : place + 1].mean(dim=1))


def test_training_keeps_the_epoch_that_the_given_validation_liked_best(world: TinyWorld) -> None:
    members = pack_members(world.layout, cycling_plays(members=8, plays=24, items=12))
    seen: list[dict[str, torch.Tensor]] = []

    class Likes:
        def measure(self, model: IntentRec) -> tuple[Quality, dict[str, float]]:
            seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            value = [0.1, 0.5, 0.3, 0.4, 0.45][len(seen) - 1]
            return Quality(value, value, value, 1), {}

    config = TrainConfig(epochs=5, patience=2, batch_windows=8)
    found = train(members, world.features, world.table, config, model_config=CONFIG, device="cpu", validation=Likes())
    assert (found.best_epoch, len(found.curve), found.stopped) == (2, 4, "patience")
    torch.testing.assert_close(found.model.state_dict()["item.weight"], seen[1]["item.weight"])
    assert not torch.equal(seen[1]["item.weight"], seen[3]["item.weight"])
