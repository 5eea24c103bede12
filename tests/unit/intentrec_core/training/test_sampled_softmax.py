"""The sampled softmax estimates the whole one, and a model learns the same with either."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from intentrec_core.errors import ConfigError
from intentrec_core.evaluation.report import evaluate
from intentrec_core.features.context_batch import collate
from intentrec_core.features.count_columns import NUM_COLUMNS
from intentrec_core.features.play_counts import PlayCounts
from intentrec_core.model.config import ModelConfig
from intentrec_core.plays.counts_at import CountsAt
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.losses import intentrec_loss
from intentrec_core.training.sampled_softmax import ItemSampler, sampled_cross_entropy
from intentrec_core.training.train import train
from tests.worlds.tiny_plays import cycling_plays
from tests.worlds.tiny_world import START_MS, TinyWorld

CPU = torch.device("cpu")
SMALL = ModelConfig(width=16, num_heads=2, num_layers=1, intent_width=8, dropout=0.0)
PLAYS = cycling_plays(members=8, plays=16)


def test_items_are_drawn_as_often_as_they_are_played_and_the_expected_number_says_so() -> None:
    torch.manual_seed(0)
    counts = np.array([1000, 0, 9, 29, 59])
    rows, log_expected = ItemSampler(counts, 200_000, CPU).draw()
    share = np.array([0, 1, 10, 30, 60]) / 101
    # Binomial with 200,000 draws: a standard deviation of at most 0.0011.
    np.testing.assert_allclose(np.bincount(rows.numpy(), minlength=5) / 200_000, share, atol=0.005)
    np.testing.assert_allclose(log_expected.exp().numpy(), 200_000 * share[rows.numpy()], rtol=1e-5)


def test_the_estimate_of_the_sum_is_right_on_average(world: TinyWorld) -> None:
    model = world.model()
    torch.manual_seed(1)
    asked, target = torch.randn(5, model.item_vectors()[0].shape[1]), torch.tensor([1, 2, 3, 2, 30])
    whole = functional.cross_entropy(model.item_logits(asked), target, reduction="none")
    sampler = ItemSampler(np.arange(model.num_rows), 32, CPU)
    with torch.inference_mode():
        losses = torch.stack([sampled_cross_entropy(model, asked, target, sampler) for _ in range(5_000)])
    # exp(loss) is the sum over all items, relative to the target's share: what the sample estimates without bias.
    torch.testing.assert_close(losses.double().exp().mean(dim=0), whole.double().exp(), rtol=0.05, atol=0.0)


def test_counts_are_part_of_the_estimate(world: TinyWorld) -> None:
    model = world.model(item_counts=True)
    torch.manual_seed(1)
    asked, target = torch.randn(5, model.item_vectors()[0].shape[1]), torch.tensor([1, 2, 3, 2, 30])
    rows, ts_s = np.arange(40) % 31, np.arange(40.0) * 90.0
    at = CountsAt(PlayCounts(rows, ts_s, 31, refresh_s=90), np.linspace(0, 5000, 5), CPU)
    gate = torch.randn(5, NUM_COLUMNS) / 4
    logits = model.item_logits(asked) + torch.einsum("nc,ncv->nv", gate, at.columns())
    whole = functional.cross_entropy(logits, target, reduction="none")
    sampler = ItemSampler(np.arange(model.num_rows), 16, CPU)
    with torch.inference_mode():
        draws = [sampled_cross_entropy(model, asked, target, sampler, gate, at) for _ in range(5_000)]
    torch.testing.assert_close(torch.stack(draws).double().exp().mean(dim=0), whole.double().exp(), rtol=0.07, atol=0.0)


def test_weights_of_some_items_are_those_of_all(world: TinyWorld) -> None:
    model = world.model()
    rows = torch.tensor([3, 1, 3])
    weights, bias = model.item_weights()
    some, some_bias = model.weights_of(rows)
    torch.testing.assert_close(some, weights[rows])
    assert torch.equal(some_bias, bias[rows])


def test_a_model_learns_with_a_sample_what_it_learns_with_all_items(world: TinyWorld) -> None:
    config = TrainConfig(epochs=20, batch_windows=8, learning_rate=3e-2, num_negatives=12)
    found = train(PLAYS, world.features, world.table, config, model_config=SMALL, device="cpu").model
    quality = evaluate(found, world.features, PLAYS, from_ms=START_MS, filter_watched=False).quality
    assert quality.ndcg_at_10 > 0.8


def test_with_a_sample_rows_of_items_that_did_not_occur_stay_where_they_were(world: TinyWorld) -> None:
    start = world.model()
    config = TrainConfig(epochs=1, batch_windows=100, num_negatives=2, unknown_ratio=0.0)
    after = train(PLAYS, world.features, world.table, config, start=start, device="cpu").model
    moved = (after.item.weight != start.item.weight).any(dim=1)
    assert moved[1:11].all()  # items that were played
    assert int(moved[11:].sum()) <= 2


def test_training_with_a_sample_is_repeatable_and_goes_on_from_either_kind(world: TinyWorld) -> None:
    sampled = TrainConfig(epochs=2, batch_windows=8, num_negatives=4)
    whole = dataclasses.replace(sampled, num_negatives=0)
    first, again = (
        train(PLAYS, world.features, world.table, sampled, model_config=SMALL, device="cpu").model for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    further = train(PLAYS, world.features, world.table, whole, start=first, device="cpu").model
    assert not torch.equal(further.item.weight[30], first.item.weight[30])  # all rows take part again


def test_large_catalogues_are_sampled_unless_told_otherwise() -> None:
    assert [TrainConfig().negatives(rows) for rows in (100_000, 100_001)] == [0, 2048]
    assert TrainConfig(num_negatives=0).negatives(10**6) == 0
    assert TrainConfig(num_negatives=7).negatives(10) == 7
    with pytest.raises(ConfigError, match="num_negatives"):
        TrainConfig(num_negatives=-1)
    with pytest.raises(ValueError, match="needs at least one item"):
        ItemSampler(np.zeros(1, dtype=np.int64), 3, CPU)


def test_with_own_items_the_cost_of_a_batch_grows_with_its_contexts_and_not_with_their_square() -> None:
    """Each context plays other items. Operations of the loss, without those of the encoder."""
    world, sampler = TinyWorld(num_items=400), ItemSampler(np.ones(401, dtype=np.int64), 4, CPU)
    model, done = world.model(own_items=True), {}
    for num_contexts in (8, 32):
        contexts = [
            b"".join(
                world.layout.pack(f"item-{12 * b + t}", f"e{t}", START_MS + 60_000 * t, 90.0, {}).data
                for t in range(12)
            )
            for b in range(num_contexts)
        ]
        batch = collate(world.features.columns(contexts, [0] * num_contexts))
        output = model(batch)
        with FlopCounterMode(display=False) as counter:
            intentrec_loss(model, output, batch, intent_weight=1.0, sampler=sampler)
        done[num_contexts] = counter.get_total_flops()
    assert 0 < done[32] <= 4 * done[8]
