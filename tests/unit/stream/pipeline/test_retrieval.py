"""Own items and successors beside the index: scored where they may be shown, and only there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from intentrec_core.engine.own_scores import OwnScorer
from intentrec_core.engine.reference import recompute
from intentrec_core.features.catalogue import Item
from intentrec_core.item_offsets import ItemOffsets
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.wire.messages import IntentUpdate
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.item_log import ItemLog
from tests.worlds.naive_score import naive_own_offsets, naive_scores, naive_successor_offsets
from tests.worlds.pipeline_results import intents, lists, run, state
from tests.worlds.tiny_world import DOMAIN, TinyWorld, random_successors

#: As for scores elsewhere: sums of 20 products of values that agree within 1e-4.
TOLERANCE = 1e-3


class CountingScorer(OwnScorer):
    """Counts the contexts that it scores."""

    num_contexts = 0

    def scores(self, contexts: Sequence[bytes], seen_NG: NDArray[np.float32]) -> ItemOffsets:
        self.num_contexts += len(contexts)
        return super().scores(contexts, seen_NG)


def hides(update: IntentUpdate) -> bool:
    """Whether watched items are hidden: all but "continue" hides them."""
    return max(update.intents["action"].items(), key=lambda one: one[1])[0] != "continue"


def random_plays(num_plays: int) -> PlayLog:
    random, log = np.random.default_rng(5), PlayLog()
    for number in range(num_plays):
        log.play(f"member-{random.integers(6)}", int(random.integers(12)), 60.0 * number)
    return log


@pytest.mark.parametrize("num_at_once", [1, 10], ids=["alone", "beside plays whose own items are shown"])
def test_own_items_are_not_scored_where_every_play_held_is_hidden(
    world: TinyWorld, tmp_path: Path, num_at_once: int
) -> None:
    model = world.model(1, own_items=True)
    serving, scorer = make_serving(tmp_path, world, model), CountingScorer(model.weights(), world.features)
    pipeline = make_pipeline(dataclasses.replace(serving, own=scorer))
    records = random_plays(150).records
    updates = [
        update
        for first in range(0, len(records), num_at_once)
        for update in intents(run(pipeline, records[first : first + num_at_once]))
    ]
    assert len(updates) == len(records)
    hiding = sum(hides(update) for update in updates)
    assert 0 < hiding < len(updates)
    assert scorer.num_contexts == len(updates) - hiding


def test_own_items_that_were_not_among_the_last_watched_are_listed_with_their_offsets(
    world: TinyWorld, tmp_path: Path
) -> None:
    """The watched filter hides the last two plays; the context holds more."""
    model = world.model(1, own_items=True)
    domain_text = DOMAIN.format(window=world.window).replace("watched = 24", "watched = 2")
    pipeline, num_own = make_pipeline(make_serving(tmp_path, world, model, domain_text=domain_text)), 0
    played = dict[str, list[str]]()
    for record in random_plays(150).records:
        result = run(pipeline, [record])
        (update,), (listed,) = intents(result), lists(result)
        last = played.setdefault(update.user_id, [])
        last.append(msgspec.json.decode(record.value or b"")["item_id"])
        if hides(update):
            context = bytes(state(pipeline, update.user_id).events)
            encoded = recompute(model, world.features, [context])
            offsets = naive_own_offsets(model, world.features, context, encoded)
            assert not {item.item_id for item in listed.items} & set(last[-2:])
            rows = [world.vocabulary.row(item.item_id) for item in listed.items]
            wanted = (naive_scores(model, world.table, encoded) + offsets)[rows]
            np.testing.assert_allclose([item.score for item in listed.items], wanted, atol=TOLERANCE, rtol=0)
            num_own += int((np.abs(offsets[rows]) > 10 * TOLERANCE).sum())
    assert num_own > 20


@pytest.mark.parametrize("own_items", [False, True])
def test_lists_are_the_exact_best_with_successors_of_those_that_may_be_shown(
    world: TinyWorld, tmp_path: Path, own_items: bool
) -> None:
    """Some are withdrawn, some are hidden by a filter, and one that is played is new to the bundle."""
    model, successors = world.model(1, own_items=own_items), random_successors(31, 1)
    items, catalogue, withdrawn = ItemLog(), LiveCatalogue(), [f"item-{number}" for number in range(0, 30, 4)]
    for item in world.items:
        items.put(item)
    for item_id in withdrawn:
        items.withdraw(item_id)
    items.put(Item("new", "A new one", {**world.items[4].attributes, "available": True, "maturity": 0}))
    catalogue.apply(items.changes(0))
    pipeline = make_pipeline(make_serving(tmp_path, world, model, successors=successors), catalogue=catalogue)
    random, log, num_lifted, played = np.random.default_rng(3), PlayLog(), 0, dict[str, list[str]]()
    for number in range(120):
        item = "new" if number % 5 == 4 else int(random.integers(30))
        record = log.play(f"member-{random.integers(5)}", item, 60.0 * number)
        result = run(pipeline, [record])
        (update,), (listed,) = intents(result), lists(result)
        last = played.setdefault(update.user_id, [])
        last.append(msgspec.json.decode(record.value or b"")["item_id"])
        if listed.fallback != "none":
            continue
        context = bytes(state(pipeline, update.user_id).events)
        encoded = recompute(model, world.features, [context])
        offsets = naive_successor_offsets(successors, world.features, context)
        wanted = naive_scores(model, world.table, encoded) + offsets
        if own_items:
            wanted += naive_own_offsets(model, world.features, context, encoded)
        for row, one in enumerate(world.items, 1):
            is_hidden = hides(update) and one.item_id in last[-24:]
            if one.item_id in withdrawn or not one.attributes["available"] or is_hidden:
                wanted[row] = -np.inf
        scores = [one.score for one in listed.items if one.item_id != "new"]
        rows = [world.vocabulary.row(one.item_id) for one in listed.items if one.item_id != "new"]
        np.testing.assert_allclose(scores, wanted[rows], atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(scores, np.sort(wanted)[::-1][: len(scores)], atol=TOLERANCE, rtol=0)
        num_lifted += int((np.abs(offsets[rows]) > 10 * TOLERANCE).sum())
    assert num_lifted > 50


def test_own_items_that_rank_lower_than_in_the_index_hide_no_better_ones(world: TinyWorld, tmp_path: Path) -> None:
    """Every own item is so much lower that none is listed; the list is as long as what is searched for."""
    model = world.model(1, own_items=True)
    assert model.own_items is not None
    with torch.no_grad():
        model.own_items.gate.bias[0] -= 50.0
    pipeline, num_shown = make_pipeline(make_serving(tmp_path, world, model), num_recommendations=12), 0
    for record in random_plays(200).records:
        result = run(pipeline, [record])
        (update,), (listed,) = intents(result), lists(result)
        if hides(update):
            continue
        context = bytes(state(pipeline, update.user_id).events)
        encoded = recompute(model, world.features, [context])
        wanted = naive_scores(model, world.table, encoded)
        wanted += naive_own_offsets(model, world.features, context, encoded)
        for row, one in enumerate(world.items, 1):
            if not one.attributes["available"]:
                wanted[row] = -np.inf
        scores = [item.score for item in listed.items]
        assert len(scores) == 12
        np.testing.assert_allclose(scores, np.sort(wanted)[::-1][:12], atol=TOLERANCE, rtol=0)
        num_shown += 1
    assert num_shown > 4
