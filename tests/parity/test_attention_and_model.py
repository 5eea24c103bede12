"""The layers against definitions written out plainly, and the properties that make caching possible."""

from __future__ import annotations

import math

import numpy as np
import torch

from intentrec_core.features.context_batch import collate
from intentrec_core.history.history import History
from intentrec_core.model.attention import FullAttend
from tests.worlds.tiny_world import TinyWorld


def context(world: TinyWorld, items: list[int], gap_s: float = 600.0) -> bytes:
    history = History()
    for i, item in enumerate(items):
        history.apply(world.layout, world.play(item, i, i * gap_s), i)
    return bytes(history.events)


def test_attention_is_the_written_out_sum(world: TinyWorld) -> None:
    """Every query, key and head one by one: window, causality, both biases."""
    torch.manual_seed(0)
    num_heads, depth, window_s = 2, 3, 1000.0
    ts = torch.tensor([[0.0, 400.0, 1200.0, 1250.0]], dtype=torch.float64)
    q, k, v = torch.randn(3, 1, 4, num_heads, depth).unbind(0)
    slopes = torch.randn(2, num_heads)
    attend = FullAttend(ts, window_s)
    for layer, seen_for_s in ((0, window_s), (1, math.inf)):
        out = attend(layer, q, k, v, slopes).numpy()
        for head in range(num_heads):
            time_slope, place_slope = (math.log1p(math.exp(float(slope))) for slope in slopes[:, head])
            for i in range(4):
                seen = [j for j in range(i + 1) if float(ts[0, i] - ts[0, j]) <= seen_for_s]
                score = [
                    float(q[0, i, head] @ k[0, j, head]) / math.sqrt(depth)
                    - time_slope * math.log1p(float(ts[0, i] - ts[0, j]) / 60)
                    - place_slope * math.log1p(i - j)
                    for j in seen
                ]
                weight = np.exp(score) / np.exp(score).sum()
                expected = sum(w * v[0, j, head].numpy() for w, j in zip(weight, seen, strict=True))
                np.testing.assert_allclose(out[0, i, head], expected, atol=1e-5)


def test_a_later_play_never_changes_an_earlier_output(world: TinyWorld) -> None:
    model = world.model()
    with torch.inference_mode():
        long = model(collate(world.features.columns([context(world, [1, 2, 3, 2, 5, 31])], [0])))
        short = model(collate(world.features.columns([context(world, [1, 2, 3])], [0])))
    for a, b in zip(
        (long.item_BTW, long.alpha_BTM, long.intent_BTP, *long.head_logits),
        (short.item_BTW, short.alpha_BTM, short.intent_BTP, *short.head_logits),
        strict=True,
    ):
        torch.testing.assert_close(a[:, :3], b, atol=1e-5, rtol=0)


def test_padding_and_neighbours_change_nothing(world: TinyWorld) -> None:
    model = world.model()
    contexts = [context(world, [4, 5]), context(world, [1, 2, 3, 4, 5, 6, 7])]
    with torch.inference_mode():
        both = model(collate(world.features.columns(contexts, [0, 0])))
        alone = model(collate(world.features.columns(contexts[:1], [0])))
    torch.testing.assert_close(both.item_BTW[:1, :2], alone.item_BTW, atol=1e-5, rtol=0)


def test_the_intent_prediction_is_an_input_of_the_item_prediction(world: TinyWorld) -> None:
    """The hierarchy: gradients of the item output reach the heads' weights."""
    model = world.model()
    output = model(collate(world.features.columns([context(world, [1, 2, 3])], [0])))
    output.item_BTW.pow(2).sum().backward()
    assert model.heads is not None
    assert all(head.weight.grad is not None and head.weight.grad.abs().sum() > 0 for head in model.heads.heads)


def test_alpha_sums_to_one_and_mixes_z(world: TinyWorld) -> None:
    model = world.model()
    with torch.inference_mode():
        output = model(collate(world.features.columns([context(world, [1, 2, 3])], [0])))
        assert model.heads is not None
        projected = [
            project(torch.softmax(logit, -1))
            for project, logit in zip(model.heads.projections, output.head_logits, strict=True)
        ]
    mixed = sum(output.alpha_BTM[..., i, None] * p for i, p in enumerate(projected))
    torch.testing.assert_close(output.alpha_BTM.sum(-1), torch.ones(1, 3))
    torch.testing.assert_close(output.intent_BTP, mixed)


def test_growing_keeps_every_known_item_and_scores_new_ones_by_content(world: TinyWorld) -> None:
    model = world.model()
    weight, bias = (x.detach().clone() for x in model.item_weights())
    larger = TinyWorld(num_items=world.num_items + 5)
    model.grow(larger.table)
    grown_weight, grown_bias = model.item_weights()
    torch.testing.assert_close(grown_weight[: world.num_items + 1], weight)
    torch.testing.assert_close(grown_bias[1 : world.num_items + 1], bias[1:])
    assert torch.isfinite(grown_weight).all()
    assert not torch.equal(grown_weight[-1], grown_weight[-2])
