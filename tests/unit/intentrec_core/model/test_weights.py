"""Weights as arrays say what the network says, whatever its parts are."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from intentrec_core.bundle.contents import item_vectors
from intentrec_core.domain.toml import load_domain, shipped_domains
from intentrec_core.engine.cpu.weights import step_weights
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.context_batch import collate
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.model.weights import ModelWeights, weight_shapes
from tests.worlds.tiny_world import TinyWorld

SMALL = ModelConfig(width=16, num_heads=4, intent_width=8, num_layers=2)


@pytest.mark.parametrize("name", [*shipped_domains(), "tiny"])
def test_the_shapes_are_those_of_the_network(name: str) -> None:
    domain = TinyWorld().domain if name == "tiny" else load_domain(name)
    table = ItemTable(domain, Vocabulary.build(["a", "b"]), Catalogue([]))
    for intents, scored, own, counts, heads in product(*[[False, True]] * 4, [None, 2, 1]):
        config = replace(
            SMALL, intent_stage=intents, intent_score=scored, own_items=own, item_counts=counts, num_kv_heads=heads
        )
        state = IntentRec(config, domain, table).state_dict()
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        assert weight_shapes(config, domain, len(table)) == found, config


@pytest.mark.parametrize("intent_stage", [True, False])
@pytest.mark.parametrize("item_counts", [True, False])
def test_items_have_the_weights_that_the_network_gives_them(
    world: TinyWorld, item_counts: bool, intent_stage: bool
) -> None:
    network = world.model(2, intent_stage=intent_stage, item_counts=item_counts, own_items=True)
    weights = network.weights()
    wanted = [tensor.detach().numpy() for tensor in network.item_weights()]
    for got, of_network in zip(weights.item_weights(), wanted, strict=True):
        np.testing.assert_allclose(got[1:], of_network[1:], atol=1e-6)
    new = [world.item(world.num_items + i) for i in range(3)]
    alone = ItemTable(world.domain, Vocabulary.build(item.item_id for item in new), Catalogue(new))
    vocabulary = world.vocabulary.extended(item.item_id for item in new)
    network.grow(ItemTable(world.domain, vocabulary, Catalogue([*world.items, *new])))
    for got, of_network in zip(weights.new_item_weights(alone), network.item_weights(), strict=True):
        np.testing.assert_allclose(got[1:], of_network.detach().numpy()[-3:], atol=1e-6)


def test_a_network_goes_to_arrays_and_back(world: TinyWorld) -> None:
    network = world.model(3, own_items=True, item_counts=True)
    network.set_untrained_heads(["genre"])
    again = IntentRec.of(network.weights())
    assert again.untrained_heads == ("genre",)
    assert not again.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    with torch.no_grad():
        network.item_bias += 1
    assert not torch.equal(again.item_bias, network.item_bias)
    assert np.array_equal(network.weights().arrays["item_bias"], network.item_bias.detach().numpy())


def test_arrays_share_memory_with_a_network_on_the_cpu(world: TinyWorld) -> None:
    network = world.model(4)
    weights = network.weights()
    with torch.no_grad():
        network.item.weight[5] = 7.0
    assert (weights.arrays["item.weight"][5] == 7.0).all()


def test_shares_of_a_key_add_up_to_the_key(world: TinyWorld) -> None:
    network = world.model(5, own_items=True)
    assert network.own_items is not None
    of_items, of_codes = network.weights().own_key_shares()
    contexts = [b"".join(world.play(item, item, 40.0 * item).data for item in range(20))]
    columns = world.features.columns(contexts, [0])
    with torch.no_grad():
        wanted = network.own_items.key(network._fields(collate(columns)))[0].numpy()
    got = of_items[columns.item_row] + sum(share[code] for share, code in zip(of_codes, columns.codes.T, strict=True))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_vectors_of_items_leave_the_network_as_it_was(world: TinyWorld) -> None:
    network = world.model(6)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    vectors = item_vectors(network.weights(), world.table, 0.0)
    assert not vectors.weights[0].any()
    assert vectors.bias[0] == 0 != before["item_bias"][0]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_what_the_step_has_of_each_item_is_held_once(world: TinyWorld) -> None:
    """Of a large catalogue it is most of what a bundle takes, and arrays of NumPy rarely begin at a cache line."""
    network = world.model(7)
    weights = network.weights()
    moved = np.zeros(weights.arrays["item.weight"].size + 1, dtype=np.float32)[1:].reshape(world.num_items + 1, -1)
    weights = ModelWeights(network.config, world.domain, world.table, {**weights.arrays, "item.weight": moved})
    fields = step_weights(weights).fields
    assert fields.item is moved
    assert fields.labels is weights.multi_labels
    assert fields.static_codes is weights.static_codes


def test_making_a_network_of_weights_draws_no_random_number(world: TinyWorld) -> None:
    weights = world.model(8).weights()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    IntentRec.of(weights)
    assert torch.equal(torch.rand(1), expected)
