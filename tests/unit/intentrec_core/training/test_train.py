"""The training loop: it learns, is reproducible, stops on request, and continues from a running model."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from intentrec_core.engine.reference import recompute
from intentrec_core.errors import ConfigError, DataError
from intentrec_core.evaluation.report import evaluate
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.batches import WindowBatches
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.table import play_rows, plays_table
from intentrec_core.plays.windows import cut_windows
from intentrec_core.training import config as training_config
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.losses import intentrec_loss
from intentrec_core.training.reports import Trained, TrainingProgress
from intentrec_core.training.schedule import rate_factor, run_done
from intentrec_core.training.train import heads_without_labels, train
from tests.worlds.naive_score import naive_offsets, naive_own_offsets, naive_scores
from tests.worlds.tiny_plays import cycling_plays, random_plays, row, served_histories
from tests.worlds.tiny_world import START_MS, TinyWorld

SMALL = ModelConfig(width=16, num_heads=2, num_layers=1, intent_width=8, dropout=0.0)
QUICK = TrainConfig(epochs=10, batch_windows=8, learning_rate=3e-2)
MEMBERS, LENGTH = 8, 16
PLAYS = cycling_plays(members=MEMBERS, plays=LENGTH)


def trained(world: TinyWorld, config: TrainConfig = QUICK, **more: object) -> Trained:
    return train(PLAYS, world.features, world.table, config, model_config=SMALL, device="cpu", **more)


@pytest.fixture(scope="module")
def running(world: TinyWorld) -> Trained:
    """A model that has learned the circle."""
    return trained(world)


def weights(model: IntentRec) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_what_comes_next_in_a_circle_is_learned(world: TinyWorld, running: Trained) -> None:
    found = running
    assert found.curve[-1].loss["item"] < 0.5 * found.curve[0].loss["item"]
    quality = evaluate(found.model, world.features, PLAYS, from_ms=START_MS, filter_watched=False).quality
    assert quality.ndcg_at_10 > 0.8
    assert found.num_targets == quality.num_plays == MEMBERS * (LENGTH - 1)


def test_a_seed_makes_a_run_repeatable_and_another_seed_another_run(world: TinyWorld) -> None:
    config = dataclasses.replace(QUICK, epochs=2)
    first, again = trained(world, config), trained(world, config)
    other = trained(world, dataclasses.replace(config, seed=1))
    assert same(weights(first.model), weights(again.model))
    assert [r.loss for r in first.curve] == [r.loss for r in again.curve]
    assert not same(weights(first.model), weights(other.model))


def test_the_callers_random_state_is_left_alone(world: TinyWorld) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    trained(world, dataclasses.replace(QUICK, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_loss_parts_and_steps_are_reported(world: TinyWorld) -> None:
    steps: list[TrainingProgress] = []
    found = trained(world, dataclasses.replace(QUICK, epochs=2), progress=steps.append)
    assert set(steps[0].loss) == {"total", "item", *(head.name for head in world.domain.heads)}
    assert [(p.epoch, p.step) for p in steps] == [(e, s) for e in (1, 2) for s in range(1, steps[0].num_steps + 1)]
    last = steps[-1].loss
    expected = last["item"] + QUICK.intent_weight * sum(v for k, v in last.items() if k not in ("total", "item"))
    assert last["total"] == pytest.approx(expected, rel=1e-5)  # means of float32 sums over the steps
    assert found.curve[-1].loss == last
    assert "item" in found.curve[-1].line()


def test_a_model_without_the_intent_stage_trains_on_items_alone(world: TinyWorld) -> None:
    plain = dataclasses.replace(SMALL, intent_stage=False)
    found = train(PLAYS, world.features, world.table, QUICK, model_config=plain, device="cpu")
    assert set(found.curve[-1].loss) == {"total", "item"}
    assert found.curve[-1].loss["item"] < found.curve[0].loss["item"]


def test_a_model_whose_heads_share_keys_and_values_learns_the_circle_too(world: TinyWorld) -> None:
    shared = dataclasses.replace(SMALL, num_kv_heads=1)
    found = train(PLAYS, world.features, world.table, QUICK, model_config=shared, device="cpu")
    quality = evaluate(found.model, world.features, PLAYS, from_ms=START_MS, filter_watched=False).quality
    assert quality.ndcg_at_10 > 0.8


def test_what_is_popular_now_is_learnt_by_the_gate_and_not_by_heart(world: TinyWorld) -> None:
    """Which item is popular changes with the hour: only counts of the plays before can tell."""
    random = np.random.default_rng(0)
    rows = [
        row(k % 40, 5 + (k // 100) % 20 if random.random() < 0.8 else int(random.integers(30)), 36.0 * k, event=f"e{k}")
        for k in range(2000)
    ]
    config, later_ms = TrainConfig(epochs=4, batch_windows=8, learning_rate=3e-2), START_MS + 36_000 * 1000
    quality = {}
    for item_counts in (True, False):
        sizes = dataclasses.replace(SMALL, item_counts=item_counts, count_refresh_s=60)
        plays = plays_table(rows)
        found = train(plays.slice(0, 1000), world.features, world.table, config, model_config=sizes, device="cpu").model
        quality[item_counts] = evaluate(found, world.features, plays, from_ms=later_ms, filter_watched=False).quality
    assert quality[True].hr_at_10 > 0.7 > quality[False].hr_at_10


def test_which_own_item_comes_again_is_learnt_by_the_gate_and_not_by_heart(world: TinyWorld) -> None:
    """Every member plays two items in turn, others than in training: only the own plays tell which."""
    random = np.random.default_rng(0)
    pairs = random.permuted(np.tile(np.arange(30), (120, 1)), axis=1)[:, :2]
    rows = [
        row(member, int(pairs[member, k % 2]), 60.0 * (121 * k + member)) for k in range(8) for member in range(120)
    ]
    plays, config = plays_table(rows), TrainConfig(epochs=6, batch_windows=8, learning_rate=1e-2)
    known = plays.filter(pc.is_in(plays.column("user_id"), pa.array([f"user-{member}" for member in range(60)])))
    others = plays.filter(pc.invert(pc.is_in(plays.column("user_id"), known.column("user_id").combine_chunks())))
    quality = {}
    for own_items in (True, False):
        sizes = dataclasses.replace(SMALL, own_items=own_items)
        model = train(known, world.features, world.table, config, model_config=sizes, device="cpu").model
        quality[own_items] = evaluate(model, world.features, others, from_ms=START_MS, filter_watched=False).quality
    assert quality[True].mrr > 0.8 > 0.5 > quality[False].mrr


def test_how_much_intents_add_to_the_score_is_learnt_from_nothing(world: TinyWorld, running: Trained) -> None:
    without = IntentRec(dataclasses.replace(SMALL, intent_score=False), world.domain, world.table)
    assert without.intent_beta is None
    assert not without.weights().betas().any()
    assert not IntentRec(SMALL, world.domain, world.table).weights().betas().any()
    found = running.model
    betas = dict(zip((head.name for head in world.domain.heads), found.weights().betas().tolist(), strict=True))
    assert betas.pop("genre") > 0.01
    assert set(betas.values()) == {0.0}, "their labels are not known before the play, or move with time"


def test_the_item_loss_does_not_bend_the_heads_through_the_score(world: TinyWorld) -> None:
    """The probabilities stay those of the labels: only beta learns from the intents' share of the score."""
    model = world.model()
    members = pack_members(world.layout, PLAYS)
    batch = next(WindowBatches(world.features, members, cut_windows(members)).ordered(8))
    model.queries(model(batch.context))[..., model.config.width :].sum().backward()
    assert model.heads is not None
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in model.heads.parameters())
    assert model.intent_beta is not None
    assert model.intent_beta.grad is not None
    assert model.intent_beta.grad.any()


def test_the_best_epoch_on_held_out_plays_is_kept(world: TinyWorld) -> None:
    # Nothing is watched twice, so no target is hidden; and every item occurs before the last fifth. The rate is so high that an
    # epoch in between is the best: with a low one the last would be.
    plays = cycling_plays(members=MEMBERS, plays=LENGTH, items=30, apart=4)
    config = TrainConfig(
        epochs=8, batch_windows=8, learning_rate=0.2, final_ratio=1.0, validation_ratio=0.2, patience=8
    )
    found = train(plays, world.features, world.table, config, model_config=SMALL, device="cpu")
    judged = [point.validation.ndcg_at_10 for point in found.curve if point.validation is not None]
    assert len(judged) == len(found.curve) == 8
    assert judged[-1] < max(judged)  # such a rate ends worse than it was on the way
    assert found.best_epoch == 1 + int(np.argmax(judged))
    held_out = plays.column("ts_ms")[int(plays.num_rows * 0.8)].as_py()
    assert evaluate(found.model, world.features, plays, from_ms=held_out).quality.ndcg_at_10 == max(judged)
    assert found.num_targets < MEMBERS * (LENGTH - 1)
    assert "held out" in found.curve[0].line()


def test_training_stops_when_held_out_plays_get_no_better(world: TinyWorld) -> None:
    config = TrainConfig(epochs=50, batch_windows=4, learning_rate=1e-7, validation_ratio=0.2, patience=2)
    found = trained(world, config)
    assert found.stopped == "patience"
    assert len(found.curve) == found.best_epoch + 2


def test_training_ends_when_its_time_is_over(world: TinyWorld) -> None:
    ticks = itertools.count()
    found = trained(world, dataclasses.replace(QUICK, epochs=500, max_seconds=40.0), clock=lambda: float(next(ticks)))
    assert found.stopped == "time"
    assert 1 <= len(found.curve) < 20


def test_the_learning_rate_falls_to_its_end_within_the_time_given(world: TinyWorld) -> None:
    ticks, rates = itertools.count(), list[float]()
    config = dataclasses.replace(QUICK, epochs=500, max_seconds=60.0, final_ratio=0.0)
    trained(world, config, clock=lambda: float(next(ticks)), progress=lambda p: rates.append(p.learning_rate))
    assert rates[-1] < 0.05 * max(rates)


def test_the_time_given_counts_from_the_end_of_the_first_step(world: TinyWorld) -> None:
    """A first step that compiles for minutes leaves the schedule whole."""
    seen: list[TrainingProgress] = []
    config = dataclasses.replace(QUICK, max_seconds=100.0)
    ticks = itertools.chain([0.0], itertools.count(600.0, 1e-6))
    slow_start = trained(world, config, clock=lambda: next(ticks), progress=seen.append)
    assert slow_start.stopped == "epochs"
    assert seen[-1].elapsed_s >= 600.0
    assert same(weights(slow_start.model), weights(trained(world, QUICK).model))


def test_a_warm_start_goes_on_from_the_running_model_and_leaves_it_as_it_was(
    world: TinyWorld, running: Trained
) -> None:
    before = weights(running.model)
    config = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-3)
    warm = train(PLAYS, world.features, world.table, config, start=running.model, device="cpu")
    assert warm.curve[0].loss["item"] < 0.5 * running.curve[0].loss["item"]
    assert same(weights(running.model), before)
    assert not same(weights(warm.model), before)


def test_a_warm_start_learns_rows_of_new_items(world: TinyWorld, running: Trained) -> None:
    new_world = TinyWorld(num_items=32)
    vocabulary = world.vocabulary.extended(item.item_id for item in new_world.items)
    table = ItemTable(world.domain, vocabulary, new_world.catalogue)
    features = FeatureBuilder(world.domain, vocabulary, table)
    swapped = [
        row(u, 31 if k % 2 else 1, 60.0 * k + u, event=f"{u}-{k}") for k in range(LENGTH) for u in range(MEMBERS)
    ]
    plays = plays_table(swapped)
    before = evaluate(running.model, world.features, plays, from_ms=START_MS, filter_watched=False)
    warm = train(plays, features, table, QUICK, start=running.model, device="cpu").model
    after = evaluate(warm, features, plays, from_ms=START_MS, filter_watched=False)
    assert warm.num_rows == running.model.num_rows + 2
    assert after.quality.hr_at_10 > 0.9 > before.quality.hr_at_10


def test_a_warm_start_takes_over_what_the_catalogue_says_now(world: TinyWorld, running: Trained) -> None:
    """No new row, but an item that had no year has one now."""
    items = [Item(i.item_id, i.title, {**i.attributes, "year": 2026}) for i in world.items]
    table = ItemTable(world.domain, world.vocabulary, Catalogue(items))
    features = FeatureBuilder(world.domain, world.vocabulary, table)
    found = train(PLAYS, features, table, dataclasses.replace(QUICK, epochs=1), start=running.model, device="cpu")
    np.testing.assert_array_equal(found.model.static_codes.numpy(), table.codes)


def test_a_loss_that_is_no_number_ends_the_run(world: TinyWorld, running: Trained) -> None:
    broken = copy.deepcopy(running.model)
    with torch.no_grad():
        broken.item_content.weight.fill_(torch.nan)
    with pytest.raises(DataError, match="no longer a number"):
        train(PLAYS, world.features, world.table, QUICK, start=broken, device="cpu")


def test_the_row_of_unknown_items_is_learned(world: TinyWorld) -> None:
    config = dataclasses.replace(QUICK, epochs=1, weight_decay=0.0)
    still = trained(world, dataclasses.replace(config, unknown_ratio=0.0)).model.item.weight[0]
    moved = trained(world, dataclasses.replace(config, unknown_ratio=0.2)).model.item.weight[0]
    torch.manual_seed(config.seed)
    untrained = IntentRec(SMALL, world.domain, world.table).item.weight[0]
    assert torch.equal(still, untrained)
    assert not torch.equal(moved, untrained)


def test_an_item_that_the_encoder_did_not_see_is_no_own_item(world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every item is made unknown to the encoder, the gate of own items has nothing to learn from."""
    monkeypatch.setitem(training_config._RANGES, "unknown_ratio", (0.0, 1.0))  # 1 is of no use but here
    for unknown_ratio, learns in ((0.5, True), (1.0, False)):
        config = dataclasses.replace(QUICK, epochs=1, unknown_ratio=unknown_ratio)
        sizes = dataclasses.replace(SMALL, own_items=True)
        model = train(PLAYS, world.features, world.table, config, model_config=sizes, device="cpu").model
        assert model.own_items is not None
        assert bool(model.own_items.gate.weight.any()) == learns


def test_plays_before_the_span_are_context_only(world: TinyWorld) -> None:
    middle = START_MS + 60_000 * LENGTH // 2
    found = trained(world, dataclasses.replace(QUICK, epochs=1), from_ms=middle)
    assert found.num_targets == int((PLAYS.column("ts_ms").to_numpy() >= middle).sum())


@pytest.mark.parametrize(
    ("item_counts", "own_items", "negatives"),
    [
        (False, False, 0),
        (True, False, 0),
        (True, False, 60_000),
        (False, True, 0),
        (False, True, 60_000),
        (True, True, 60_000),
    ],
)
def test_the_loss_is_that_of_the_targets_alone_each_seen_from_its_served_context(
    world: TinyWorld, item_counts: bool, own_items: bool, negatives: int
) -> None:
    table = random_plays(members=3, plays=60)
    plays, model = list(play_rows(table)), world.model(item_counts=item_counts, own_items=own_items)
    all_plays = [(world.vocabulary.row(p.item_id), p.ts_ms / 1000) for p in plays]
    from_ms = plays[30].ts_ms
    loss = weight = 0.0
    for user in {p.user_id for p in plays}:
        own = [p for p in plays if p.user_id == user]
        for target, (context, _) in zip(own, served_histories(world.layout, own), strict=True):
            row_ = world.vocabulary.row(target.item_id)
            if context and row_ and target.ts_ms >= from_ms:
                encoded = recompute(model, world.features, [context])
                scores = torch.from_numpy(naive_scores(model, world.table, encoded))
                if item_counts:
                    scores += torch.from_numpy(naive_offsets(model, encoded, all_plays, target.ts_ms / 1000))
                if own_items:
                    scores += torch.from_numpy(naive_own_offsets(model, world.features, context, encoded))
                share = float(world.features.weights(np.array([target.duration_s or -1.0], dtype=np.float32))[0])
                loss -= share * float(torch.log_softmax(scores, dim=-1)[row_])
                weight += share
    config = TrainConfig(
        epochs=1, batch_windows=100, unknown_ratio=0.0, shuffle_ties=False, num_negatives=negatives or None
    )
    with_no_dropout = copy.deepcopy(model)
    for module in with_no_dropout.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with_no_dropout.config = dataclasses.replace(model.config, dropout=0.0)
    found = train(table, world.features, world.table, config, start=with_no_dropout, from_ms=from_ms, device="cpu")
    # float32 sums over 30 plays; sampled: an estimate from 2,000 draws for each item.
    assert found.curve[0].loss["item"] == pytest.approx(loss / weight, rel=2e-3 if negatives else 1e-5)


def test_biases_are_what_counts_do_not_explain(world: TinyWorld) -> None:
    config = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-7)
    for item_counts, begins_equal in ((True, True), (False, False)):
        sizes = dataclasses.replace(SMALL, item_counts=item_counts)
        plays = random_plays(members=3, plays=60)
        model = train(plays, world.features, world.table, config, model_config=sizes, device="cpu").model
        biases = model.item_bias.data[1:]
        assert torch.allclose(biases, torch.zeros(()), atol=1e-4) == begins_equal
        assert biases.min() != 0
        assert set(model.weights().new_item_weights(world.table)[1].tolist()) == {
            0.0 if item_counts else biases.min().item()
        }


def test_a_model_that_needs_counts_is_not_trained_without(world: TinyWorld) -> None:
    table = random_plays(members=3, plays=20)
    members = pack_members(world.layout, table)
    (batch,) = WindowBatches(world.features, members, cut_windows(members)).ordered(100)
    model = world.model(item_counts=True)
    with pytest.raises(ValueError, match="without counts"):
        intentrec_loss(model, model(batch.context), batch.context, intent_weight=1.0)


def test_plays_of_one_moment_are_seen_in_many_orders(world: TinyWorld) -> None:
    plays = plays_table([row(0, k, k // 4 * 60.0) for k in range(16)])
    members = pack_members(world.layout, plays)
    seen = set()
    for seed in range(10):
        shuffled = members.with_shuffled_ties(np.random.default_rng(seed))
        assert (shuffled.events["ts_ms"] == members.events["ts_ms"]).all()
        for moment in range(0, 16, 4):
            here = slice(moment, moment + 4)
            assert set(shuffled.events["item_hash"][here]) == set(members.events["item_hash"][here])
        seen.add(shuffled.events.tobytes())
    assert len(seen) > 5


def test_nothing_to_learn_from_is_said(world: TinyWorld) -> None:
    with pytest.raises(DataError, match="no member has two plays"):
        train(plays_table([row(0, 1, 0.0)]), world.features, world.table, model_config=SMALL, device="cpu")


def test_a_setting_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match="training learning_rate is 2; allowed: 1e-07 to 1"):
        TrainConfig(learning_rate=2)
    with pytest.raises(ConfigError, match="max_seconds"):
        TrainConfig(max_seconds=0.0)


def test_the_rate_rises_then_falls() -> None:
    shape = [rate_factor(done, warmup_ratio=0.1, final_ratio=0.02) for done in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert shape == pytest.approx([0.0, 0.5, 1.0, 0.51, 0.02])
    assert rate_factor(1.0, warmup_ratio=1.0, final_ratio=0.0) == 1.0


def test_a_run_is_as_far_as_its_steps_or_its_time() -> None:
    assert run_done(0.2, 50.0, None) == 0.2
    assert run_done(0.2, 50.0, 100.0) == 0.5
    assert run_done(0.2, 500.0, 100.0) == 1.0


def test_a_head_without_a_known_label_is_untrained_until_it_has_some(world: TinyWorld) -> None:
    plays = cycling_plays(members=4, plays=12)
    unlabelled = plays.set_column(5, "duration_s", pa.nulls(plays.num_rows, pa.float32()))
    config = TrainConfig(epochs=1)
    first = train(unlabelled, world.features, world.table, config, device="cpu").model
    assert first.untrained_heads == ("length",)
    again = train(unlabelled, world.features, world.table, config, start=first, device="cpu").model
    assert again.untrained_heads == ("length",)
    later = train(plays, world.features, world.table, config, start=again, device="cpu").model
    assert later.untrained_heads == ()
    kept = train(unlabelled, world.features, world.table, config, start=later, device="cpu").model
    assert kept.untrained_heads == (), "what it has learned before, it still knows"


def test_a_head_is_untrained_until_enough_plays_have_a_known_label(world: TinyWorld) -> None:
    plays, config = cycling_plays(members=8, plays=12), TrainConfig(epochs=1)

    def untrained(share: int) -> tuple[str, ...]:
        """The untrained heads where one play of ``share`` keeps its duration."""
        kept = pa.array(np.arange(plays.num_rows) % share == share - 1)
        durations = pc.if_else(kept, plays.column("duration_s"), pa.scalar(None, pa.float32()))
        known = plays.set_column(5, "duration_s", durations)
        return train(known, world.features, world.table, config, device="cpu").model.untrained_heads

    assert untrained(48) == ("length",)
    assert untrained(2) == ()


def test_where_no_head_has_enough_known_labels_those_with_some_are_trained() -> None:
    assert heads_without_labels({"a": 99, "b": 100, "c": 0}, num_targets=10_000) == {"a", "c"}
    assert heads_without_labels({"a": 4, "b": 5}, num_targets=100) == {"a"}
    assert heads_without_labels({"a": 1, "b": 0}, num_targets=3) == {"b"}
    assert heads_without_labels({"a": 3, "b": 0}, num_targets=10_000) == {"b"}
    assert heads_without_labels({"a": 0, "b": 0}, num_targets=10_000) == {"a", "b"}
