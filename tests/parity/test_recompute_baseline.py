"""The recompute baseline equals the reference; otherwise ratios against it would mean nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intentrec_core.engine.reference import recompute
from intentrec_core.history.history import History
from tests.bench.baselines import recompute as baseline
from tests.worlds.tiny_world import TinyWorld

#: float32, other order of the same sums: as the engine's promise.
TOLERANCE = 1e-4


@pytest.mark.parametrize(("query_block", "max_positions"), [(64, 4096), (5, 40)])
def test_it_agrees_with_the_reference_on_ragged_contexts(
    monkeypatch: pytest.MonkeyPatch, query_block: int, max_positions: int
) -> None:
    monkeypatch.setattr(baseline, "QUERY_BLOCK", query_block)
    monkeypatch.setattr(baseline, "MAX_POSITIONS", max_positions)
    world, rng = TinyWorld(window=16), np.random.default_rng(0)
    model = world.model()
    contexts = []
    for length in (1, 2, 3, 7, 16, 17, 31, 32, 32, 5):
        history, at_s = History(), 0.0
        for number in range(length):
            # Some gaps are longer than the short-term window of a day.
            at_s += float(rng.choice([0.0, 60.0, 3600.0, 100_000.0]))
            history.apply(world.layout, world.play(int(rng.integers(35)), number, at_s), number)
        contexts.append(bytes(history.events))
    expected = recompute(model, world.features, contexts)
    found = baseline.WindowRecompute(model, world.features)(contexts)
    for name in ("item_NW", "alpha_NM", "intent_NP"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=TOLERANCE, rtol=0, err_msg=name)
    for found_head, expected_head in zip(found.heads, expected.heads, strict=True):
        np.testing.assert_allclose(found_head, expected_head, atol=TOLERANCE, rtol=0)
    np.testing.assert_array_equal(found.primary_N, expected.primary_N)
    np.testing.assert_array_equal(found.previous_primary_N, expected.previous_primary_N)


def test_it_refuses_a_model_without_intents() -> None:
    world = TinyWorld()
    model = world.model(intent_stage=False)
    with pytest.raises(ValueError, match="intent stage"), torch.inference_mode():
        baseline.WindowRecompute(model, world.features)
