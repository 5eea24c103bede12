"""What a member's own plays add to scores: by definition, play by play, and from plays up to the moment alone."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.engine.own_scores import OwnScorer
from intentrec_core.engine.reference import recompute
from intentrec_core.features.context_batch import ContextBatch, collate
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec, ModelOutput
from intentrec_core.model.own_item_inputs import PAIR_COLUMNS
from intentrec_core.model.own_items import OwnOffsets
from tests.worlds.naive_score import naive_own_offsets
from tests.worlds.tiny_world import START_MS, TinyWorld

WORLD = TinyWorld(num_items=6)
MODEL = WORLD.model(own_items=True)
#: Of float32 sums over 37 columns, in another order.
TOLERANCE = 1e-5

#: Item (the last is unknown), seconds since the play before, device and duration.
plays = st.tuples(
    st.integers(0, 6),
    st.sampled_from([0, 1, 59, 3_600, 1_000_000]),
    st.sampled_from(["tv", "phone", None]),
    st.sampled_from([None, 5.0, 700.0]),
)
histories = st.lists(plays, min_size=1, max_size=12)


def packed(history: list[tuple[int, int, str | None, float | None]]) -> bytes:
    at_s = itertools.accumulate(gap_s for _, gap_s, _, _ in history)
    return b"".join(
        WORLD.layout.pack(f"item-{item}", f"e{number}", START_MS + 1000 * s, duration_s, {"device": device}).data
        for number, ((item, _, device, duration_s), s) in enumerate(zip(history, at_s, strict=True))
    )


def batch_of(contexts: list[bytes]) -> ContextBatch:
    return collate(WORLD.features.columns(contexts, [0] * len(contexts)))


def part_of(output: ModelOutput, b: int, t: int) -> ModelOutput:
    """The output of one play, as a batch of one."""
    one = (slice(b, b + 1), slice(t, t + 1))
    logits = tuple(logit[one] for logit in output.head_logits)
    return ModelOutput(output.item_BTW[one], logits, output.intent_BTP[one], output.alpha_BTM[one])


def by_row(offsets: OwnOffsets) -> np.ndarray:
    """The offsets of one query, for every item: no item stands there twice."""
    found = np.zeros(MODEL.num_rows)
    rows, values = offsets.row.numpy(), offsets.offset.detach().numpy()
    assert len(set(rows[rows > 0])) == (rows > 0).sum()
    assert not values[rows == 0].any()
    found[rows] = values
    return found


@given(st.lists(histories, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_every_play_of_a_batch_has_the_offsets_of_the_plays_up_to_it(
    given_histories: list[list[tuple[int, int, str | None, float | None]]],
) -> None:
    contexts, size = [packed(history) for history in given_histories], WORLD.layout.size
    batch = batch_of(contexts)
    with torch.no_grad():
        output = MODEL(batch)
        offsets = MODEL.own_offsets(output, batch)
    assert offsets is not None
    for b, context in enumerate(contexts):
        for t in range(len(context) // size):
            before, of_batch = context[: (t + 1) * size], by_row(offsets.at((b, t)))
            encoded = recompute(MODEL, WORLD.features, [before])
            wanted = naive_own_offsets(MODEL, WORLD.features, before, encoded)
            np.testing.assert_allclose(of_batch, wanted, atol=TOLERANCE, rtol=TOLERANCE)
            of_step = MODEL.own_offsets(part_of(output, b, t), batch_of([before]), torch.tensor([[t]]))
            assert of_step is not None
            np.testing.assert_allclose(by_row(of_step.at((0, 0))), of_batch, atol=TOLERANCE, rtol=TOLERANCE)


def test_an_untrained_gate_changes_nothing() -> None:
    torch.manual_seed(0)
    model = IntentRec(ModelConfig(width=16, intent_width=8, own_items=True), WORLD.domain, WORLD.table)
    batch = batch_of([packed([(1, 0, "tv", None), (2, 60, "tv", None), (1, 60, None, 5.0)])])
    offsets = model.own_offsets(model(batch), batch)
    assert offsets is not None
    assert (offsets.row > 0).any()
    assert not offsets.offset.any()
    without = IntentRec(ModelConfig(width=16), WORLD.domain, WORLD.table)
    assert without.own_offsets(without(batch), batch) is None


def test_the_gate_learns_at_once_and_the_keys_from_then_on() -> None:
    torch.manual_seed(0)
    model = IntentRec(ModelConfig(width=16, intent_width=8, own_items=True), WORLD.domain, WORLD.table)
    batch = batch_of([packed([(1, 0, "tv", None), (2, 60, "tv", None), (1, 60, None, 5.0)])])
    assert model.own_items is not None
    gate, key = model.own_items.gate, model.own_items.key
    for learns_keys in (False, True):
        offsets = model.own_offsets(model(batch), batch)
        assert offsets is not None
        model.zero_grad()
        torch.autograd.backward(offsets.offset.sum())
        assert gate.weight.grad is not None
        learns = gate.weight.grad.any(dim=1)
        assert learns[:PAIR_COLUMNS].all()
        assert learns[PAIR_COLUMNS:].any()  # a key that is 0 for both items says nothing of them
        assert key.weight.grad is not None
        assert bool(key.weight.grad.any()) == learns_keys
        torch.nn.init.normal_(gate.weight)


def test_no_gradient_reaches_the_heads_through_the_gate() -> None:
    """With a gate that does not see E, which the heads' Z is an input of, nothing is left."""
    model = copy.deepcopy(MODEL)
    batch = batch_of([packed([(1, 0, "tv", None), (2, 60, "tv", None), (1, 60, None, 5.0)])])
    assert model.own_items is not None
    assert model.heads is not None
    torch.nn.init.zeros_(model.own_items.gate.weight[:, : model.config.width].detach())
    offsets = model.own_offsets(model(batch), batch)
    assert offsets is not None
    torch.autograd.backward(offsets.offset.sum())
    assert not any(weights.grad is not None and weights.grad.any() for weights in model.heads.parameters())
    assert model.own_items.gate.weight.grad is not None
    assert model.own_items.gate.weight.grad[:, model.config.width :].any()


def test_served_offsets_of_a_context_are_the_same_to_the_bit_alone_and_in_a_batch() -> None:
    random, scorer = np.random.default_rng(0), OwnScorer(MODEL.weights(), WORLD.features)
    contexts = [
        packed(
            [(int(random.integers(7)), int(random.integers(5_000)), "tv", 5.0) for _ in range(random.integers(1, 30))]
        )
        for _ in range(64)
    ]
    assert MODEL.own_items is not None
    seen_NG = random.normal(size=(64, MODEL.own_items.gate.in_features)).astype(np.float32)
    batch = scorer.scores(contexts, seen_NG)
    for size in (1, 2, 3, 17, 63):
        for n in range(0, 64, size):
            part = scorer.scores(contexts[n : n + size], seen_NG[n : n + size])
            same = (batch.query >= n) & (batch.query < n + size)
            np.testing.assert_array_equal(part.row, batch.row[same])
            np.testing.assert_array_equal(part.offset, batch.offset[same])
