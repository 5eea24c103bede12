"""The library and a worker agree on the same plays: outcomes, intents, primary intent, and the lists with their filters.

Tolerance: 2e-4 on probabilities, which are published with 5 digits; 1e-3 on scores, as for micro-batching.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from intentrec_core import LiveEncoder, LivePlay, LiveUpdate
from intentrec_core.engine.cpu.encoder import context_bytes
from intentrec_core.successors import Successors
from stream.wire.messages import IntentUpdate, Recommendation
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import PlayLog, Record, make_pipeline, make_serving
from tests.worlds.live_world import tiny_model
from tests.worlds.pipeline_results import intents, lists, of_kind, run
from tests.worlds.tiny_world import TinyWorld, random_successors

PROBABILITY, SCORE = 2e-4, 1e-3


def random_log(num_plays: int, seed: int) -> PlayLog:
    """Plays of three members: most in order, some late, some repeated, some without what the filters need."""
    random, log, clock_s = np.random.default_rng(seed), PlayLog(), 10_000
    for number in range(num_plays):
        clock_s += int(random.choice([0, 1, 500, 4_000, 9_000]))
        behind_s = int(random.choice([0, 0, 0, 0, 3, 700, 90_000]))
        fields = {"context": {"device": "phone"} if number % 5 == 0 else {"device": "tv", "max_maturity": number % 4}}
        if number % 7 == 6:
            fields["event_id"] = f"event-{number - 2}"
        log.play(f"member-{random.integers(3)}", int(random.integers(30)), clock_s - min(behind_s, clock_s), **fields)
    return log


def live_play(record: Record) -> LivePlay:
    """The play of a record."""
    assert record.value is not None
    play = json.loads(record.value)
    return LivePlay(
        user_id=play["user_id"],
        item_id=play["item_id"],
        ts_ms=play["ts"],
        event_id=play["event_id"],
        duration_s=play["duration_s"],
        attributes=play["context"],
    )


def compare(update: LiveUpdate, published: IntentUpdate, listed: Recommendation) -> None:
    """One play's two outputs against the library's update."""
    for head, probabilities in published.intents.items():
        assert update.intents[head] == pytest.approx(probabilities, abs=PROBABILITY)
    assert update.weights == pytest.approx(published.weights, abs=PROBABILITY)
    assert update.primary is not None
    assert published.primary is not None
    assert update.primary[:2] == (published.primary.head, published.primary.label)
    ours, theirs = update.recommend(10), listed.items
    assert [item.score for item in ours] == pytest.approx([item.score for item in theirs], abs=SCORE)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.item_id, mine.title) == (other.item_id, other.title) or abs(mine.score - other.score) <= SCORE


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("own_items", [False, True])
@pytest.mark.parametrize("successors", [None, random_successors(31)], ids=["", "successors"])
def test_the_library_answers_as_a_worker_does(
    world: TinyWorld, tmp_path: Path, seed: int, own_items: bool, successors: Successors | None
) -> None:
    log, model = random_log(120, seed), tiny_model(world, own_items=own_items)
    model = dataclasses.replace(model, successors=successors)
    live = LiveEncoder(model, cache_bytes=2 * context_bytes(model.network))
    updates = live.play_many([live_play(record) for record in log.records])
    result = run(make_pipeline(make_serving(tmp_path, world, model.network, successors=successors)), log.records)
    applied = [update for update in updates if update.outcome == "applied"]
    assert not of_kind(result, OutputKind.DEAD_LETTER)
    assert sum(update.outcome == "late" for update in updates) == len(of_kind(result, OutputKind.LATE)) > 0
    assert any(update.outcome == "duplicate" for update in updates), "a worker publishes nothing for it"
    for update, published, listed in zip(applied, intents(result), lists(result), strict=True):
        assert listed.fallback == "none"
        compare(update, published, listed)
    assert any(listed.items for listed in lists(result))
    assert not all(listed.items for listed in lists(result))
