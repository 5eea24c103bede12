"""Heads that share keys and values compute what heads with the same weights for them compute, and others stay what they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intentrec_core.engine.quantised import QuantisedAttend
from intentrec_core.errors import ConfigError
from intentrec_core.model.attention import Attend, FullAttend, SelfAttention
from intentrec_core.model.config import ModelConfig
from intentrec_core.training.attend import TrainingAttend
from tests.worlds.tiny_world import TinyWorld

WIDTH, NUM_HEADS, DEPTH = 24, 4, 6
TS_S = torch.tensor([[0.0, 400.0, 1200.0, 1250.0, 9000.0]], dtype=torch.float64)
ATTENDS = {
    "full": FullAttend(TS_S, 1000.0),
    "int8": QuantisedAttend(TS_S, 1000.0),
    "training": TrainingAttend(TS_S, 1000.0, 0.0),
}


def unshared(layer: SelfAttention, num_kv_heads: int) -> SelfAttention:
    """A layer whose heads have keys and values of their own, with the weights that they share in ``layer``."""
    own = SelfAttention(0, WIDTH, WIDTH, NUM_HEADS)
    own.load_state_dict(layer.state_dict() | {"qkv.weight": own.qkv.weight})
    q, k, v = layer.qkv.weight.detach().view(-1, DEPTH, WIDTH).split((NUM_HEADS, num_kv_heads, num_kv_heads))
    parts = [q] + [torch.stack([part[h * num_kv_heads // NUM_HEADS] for h in range(NUM_HEADS)]) for part in (k, v)]
    own.qkv.weight.data = torch.cat(parts).view(3 * WIDTH, WIDTH)
    return own


@pytest.mark.parametrize("attend", ATTENDS.values(), ids=ATTENDS)
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_heads_of_a_group_read_the_same_keys_and_values(num_kv_heads: int, attend: Attend) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(0, WIDTH, WIDTH, NUM_HEADS, num_kv_heads)
    assert len(layer.qkv.weight) == WIDTH + 2 * DEPTH * num_kv_heads
    x = torch.randn(1, 5, WIDTH)
    torch.testing.assert_close(layer(x, attend), unshared(layer, num_kv_heads)(x, attend), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_the_gradient_of_what_is_shared_is_the_sum_over_its_heads(num_kv_heads: int) -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(0, WIDTH, WIDTH, NUM_HEADS, num_kv_heads), torch.randn(1, 5, WIDTH)
    own = unshared(layer, num_kv_heads)

    def gradient(of: SelfAttention) -> Tensor:
        of(x, ATTENDS["training"]).pow(2).sum().backward()
        assert of.qkv.weight.grad is not None
        return of.qkv.weight.grad.view(-1, DEPTH, WIDTH)

    q, k, v = gradient(own).split(NUM_HEADS)
    summed = [part.view(num_kv_heads, -1, DEPTH, WIDTH).sum(dim=1) for part in (k, v)]
    torch.testing.assert_close(gradient(layer), torch.cat([q, *summed]), atol=1e-5, rtol=0)


def test_as_many_heads_of_keys_and_values_as_heads_is_the_default_to_the_bit() -> None:
    default, named = (TinyWorld().model(3, num_kv_heads=num) for num in (None, 2))
    assert default.short_term.qkv.weight.shape == (48, default.fields.width)
    for name, weights in named.state_dict().items():
        assert torch.equal(default.state_dict()[name], weights)


@pytest.mark.parametrize("number", [0, 3, 5, 8, -1, True, 1.0, "1"])
def test_a_number_that_does_not_divide_the_heads_is_refused_with_those_that_do(number: object) -> None:
    with pytest.raises(ConfigError, match=rf"num_kv_heads is {number}; allowed: None or .*num_heads: 1, 2, 4$"):
        ModelConfig(num_heads=4, num_kv_heads=number)


def test_sizes_say_how_much_is_cached() -> None:
    sizes = [ModelConfig(width=24, num_heads=4, num_kv_heads=number) for number in (None, 4, 2, 1)]
    assert [(config.num_cached_heads, config.cached_width) for config in sizes] == [(4, 24), (4, 24), (2, 12), (1, 6)]


def test_a_bundle_names_the_number_only_where_heads_share() -> None:
    named = ["num_kv_heads" in ModelConfig(num_heads=4, num_kv_heads=number).to_dict() for number in (None, 4, 2, 1)]
    assert named == [False, False, True, True]
