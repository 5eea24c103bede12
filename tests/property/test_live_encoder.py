"""The library's promise: every answer equals recomputation of the member's history up to that play.

Members, single plays and many at once, late plays, plays that are too late, repeats, unknown items, members who are forgotten,
and a cache with room for one member or a few. The histories to recompute from are kept here, as sorted lists.

Tolerance: 1e-4 absolute, as of the engine (test_incremental_equals_full); scores sum 16 products of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intentrec_core import LiveEncoder, LivePlay, LiveUpdate
from intentrec_core.engine.cpu.encoder import context_bytes
from intentrec_core.engine.reference import recompute
from tests.worlds.live_world import tiny_model
from tests.worlds.naive_fold import anchor
from tests.worlds.naive_score import naive_scores
from tests.worlds.tiny_world import START_MS, TinyWorld

TOLERANCE, SCORE_TOLERANCE = 1e-4, 1e-3
WORLD = TinyWorld()
MODEL = tiny_model(WORLD)
USERS = ["ann", "ben", "cho"]


@dataclass
class Member:
    """All plays that were ever applied, in order of event time, as (time, event id, packed play)."""

    applied: list[tuple[int, str, bytes]] = field(default_factory=list)

    @property
    def held(self) -> list[tuple[int, str, bytes]]:
        """The plays of the context."""
        return self.applied[anchor(len(self.applied), WORLD.window) :]

    def take(self, play: LivePlay) -> str:
        """Applies a play, and says what became of it. Of evicted plays at one time, the first 4n are remembered."""
        held = self.held
        evicted = self.applied[: len(self.applied) - len(held)]
        newest_ms = evicted[-1][0] if evicted else -1
        remembered = [event_id for ts_ms, event_id, _ in evicted if ts_ms == newest_ms][: 4 * WORLD.window]
        if any(event_id == play.event_id for _, event_id, _ in held):
            return "duplicate"
        if play.ts_ms < newest_ms:
            return "late"
        if play.ts_ms == newest_ms and play.event_id in remembered:
            return "duplicate"
        if play.ts_ms == newest_ms and len(remembered) == 4 * WORLD.window:
            return "late"
        packed = WORLD.layout.pack(play.item_id, str(play.event_id), play.ts_ms, play.duration_s, play.attributes)
        self.applied = sorted([*self.applied, (play.ts_ms, str(play.event_id), packed.data)], key=lambda kept: kept[0])
        return "applied"

    def context(self) -> bytes:
        """The packed plays held."""
        return b"".join(data for _, _, data in self.held)


# A step of -20,000 s is older than a context of 8 plays most of the time; a repeat names an event of the last few.
steps = st.sampled_from([0, 1, 500, 4000, 200_000, -3, -5000, -20_000, -400_000])
play_draws = st.tuples(st.sampled_from(USERS), st.integers(0, 33), steps, st.sampled_from([0, 0, 0, 0, 1, 2, 9]))
batches = st.lists(
    st.one_of(st.lists(play_draws, min_size=1, max_size=14), st.sampled_from(USERS)), min_size=1, max_size=14
)


def assert_equals_recomputation(update: LiveUpdate, context: bytes) -> None:
    """One update against the reference's only row."""
    expected = recompute(MODEL.network, WORLD.features, [context])
    for head, wanted in zip(WORLD.domain.heads, expected.heads, strict=True):
        assert list(update.intents[head.name]) == list(head.label_names)
        np.testing.assert_allclose(list(update.intents[head.name].values()), wanted[0], atol=TOLERANCE, rtol=0)
    assert list(update.weights) == [head.name for head in WORLD.domain.heads]
    np.testing.assert_allclose(list(update.weights.values()), expected.alpha_NM[0], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(update.embedding, expected.intent_NP[0], atol=TOLERANCE, rtol=0)
    assert update.primary is not None
    head, label, probability = update.primary
    assert (head, label) == WORLD.domain.flat_label(int(expected.primary_N[0]))
    assert probability == update.intents[head][label]
    scores = naive_scores(MODEL.network, WORLD.table, expected)
    listed = update.recommend(len(scores), exclude_watched=False)
    rows = [WORLD.vocabulary.row(item.item_id) for item in listed]
    np.testing.assert_allclose([item.score for item in listed], scores[rows], atol=SCORE_TOLERANCE, rtol=0)


@given(batches=batches, num_slots=st.integers(1, 3), singly=st.booleans())
@example(batches=[[("ann", 0, 0, 0)] * 30], num_slots=1, singly=False)  # more at one time than are remembered
@settings(max_examples=60, deadline=None)
def test_every_update_equals_recomputation_of_the_history_up_to_it(
    batches: list[list[tuple[str, int, int, int]] | str], num_slots: int, singly: bool
) -> None:
    live = LiveEncoder(MODEL, cache_bytes=num_slots * context_bytes(MODEL.network))
    members: defaultdict[str, Member] = defaultdict(Member)
    number, clock_s = 0, 0
    for batch in batches:
        if isinstance(batch, str):
            assert live.forget(batch) == bool(members.pop(batch, None))
            continue
        plays, outcomes, contexts = [], [], []
        for user_id, item, step_s, repeats in batch:
            clock_s += max(step_s, 0)
            play = LivePlay(
                user_id=user_id,
                item_id=f"item-{item}",
                ts_ms=START_MS + 1000 * (clock_s + min(step_s, 0)),
                event_id=f"event-{number - repeats}",
                duration_s=None if item % 4 == 0 else 30.0 * item,
                attributes={"device": ("tv", "phone", "fridge")[item % 3], "max_maturity": 4},
            )
            number += not repeats
            plays.append(play)
            outcomes.append(members[user_id].take(play))
            contexts.append(members[user_id].context())
        updates = [live.play_many([play])[0] for play in plays] if singly else live.play_many(plays)
        assert live.num_cached <= num_slots
        assert [update.outcome for update in updates] == outcomes
        for play, update, context in zip(plays, updates, contexts, strict=True):
            assert (update.user_id, update.item_id, update.ts_ms) == (play.user_id, play.item_id, play.ts_ms)
            assert_equals_recomputation(update, context)
