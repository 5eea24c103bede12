"""The central promise: at every play, incremental inference equals full recomputation of the same context.

A state machine interleaves members, chunk sizes, late plays, repeated plays, unknown items, evictions from a pool that is too
small, restarts that lose the cache, restores from the changelog, and swaps of weights; on both encoders, with heads that share
keys and values or do not, and on the CPU with cached keys and values in float32 and in int8. An int8 cache is compared with a
recomputation over its own codes (:mod:`tests.parity.quantised_cache`), which may differ by one in a few places, and in no scale.

Tolerance: 1e-4 absolute in float32. Sums over at most 8 plays and 16 columns differ in order only; 1e-5 is typical.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from intentrec_core.engine.cpu.encoder import CpuEncoder
from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.engine import Encoded, EncodeRequest, IncrementalEngine
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.reference import recompute
from intentrec_core.history.changelog_codec import Restorer, encode_changes
from intentrec_core.history.history import History
from intentrec_core.model.model import IntentRec
from tests.parity.quantised_cache import Differences, OverTheCache, RecordingEncoder, attend_to
from tests.worlds.networks import network_of
from tests.worlds.tiny_world import TinyWorld

TOLERANCE = 1e-4
#: Of all codes that were compared (decision 107). Some 0.001 % is typical.
FLIPPED = 0.001
#: Fewer codes are no share to speak of: one flipped quantum is found at each of its context's up to seven later plays as well.
ENOUGH = 40_000
#: Of one context with so many codes, at most 1,280. Two differ in one of some thousand contexts; a mistake makes most differ.
LONG_CODES = 300
ENCODERS = [CpuEncoder, TorchEncoder, RecordingEncoder]
WORLD = TinyWorld()
#: Heads, and heads of keys and values: all, one for all, and one for every two.
HEADS = [(2, None), (2, 1), (4, 2)]
MODELS = {heads: [WORLD.model(seed, num_heads=heads[0], num_kv_heads=heads[1]) for seed in (1, 2)] for heads in HEADS}
USERS = ["ann", "ben", "cho", "dee", "eve"]


def assert_equal(actual: Encoded, row: int, expected: Encoded) -> None:
    """One row of incremental output against the only row of the reference."""
    pairs = [
        (actual.item_NW, expected.item_NW),
        (actual.alpha_NM, expected.alpha_NM),
        (actual.intent_NP, expected.intent_NP),
        *zip(actual.heads, expected.heads, strict=True),
    ]
    for got, want in pairs:
        np.testing.assert_allclose(got[row], want[0], atol=TOLERANCE, rtol=0)
    assert actual.primary_N[row] == expected.primary_N[0]
    assert actual.previous_primary_N[row] == expected.previous_primary_N[0]


def reference(engine: IncrementalEngine, nth: int, context: bytes, total: Differences) -> Encoded:
    """What the engine's ``nth`` request of the last call is compared with, as of the last play of ``context``.

    Adds the codes that were compared to ``total``.
    """
    if not isinstance(engine.encoder, RecordingEncoder):
        return recompute(network_of(engine), WORLD.features, [context])
    codes, found = engine.encoder.recorded[nth].first(len(context) // WORLD.layout.size), Differences()
    encoded = recompute(network_of(engine), WORLD.features, [context], attend_to(OverTheCache, codes, found))
    assert found.largest <= 1
    assert found.num_different <= (3 if found.num_places >= LONG_CODES else 2)
    total.include(found)
    return encoded


def assert_few_flipped(total: Differences) -> None:
    """Fewer than the promised share of codes differ, where enough of them were compared."""
    assert total.num_places < ENOUGH or total.share < FLIPPED


def encode(engine: IncrementalEngine, requests: list[EncodeRequest]) -> Encoded:
    if isinstance(engine.encoder, RecordingEncoder):
        engine.encoder.recorded.clear()
    return engine.encode(requests)


def engine_of(
    model: IntentRec, encoder: type[CpuEncoder | TorchEncoder], num_slots: int = 8, slot_contexts: int = 1
) -> IncrementalEngine:
    options = {"kv_dtype": KvDtype.INT8 if encoder is RecordingEncoder else KvDtype.FLOAT32}
    if issubclass(encoder, CpuEncoder):
        options["slot_contexts"] = slot_contexts
    return WORLD.engine(model, num_slots=num_slots, make_encoder=encoder, **options)


class IncrementalEqualsFull(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.total = Differences()

    @initialize(
        slots=st.tuples(st.integers(1, 4), st.sampled_from([1, 3])),
        encoder=st.sampled_from(ENCODERS),
        heads=st.sampled_from(HEADS),
    )
    def start(
        self, slots: tuple[int, int], encoder: type[CpuEncoder | TorchEncoder], heads: tuple[int, int | None]
    ) -> None:
        self.slots, self.encoder, self.models, self.weights = slots, encoder, MODELS[heads], 0
        self.histories = {user: History() for user in USERS}
        self.changelog: dict[bytes, bytes] = {}
        self.offset = self.clock = 0
        self.engine = self.new_engine()

    def new_engine(self) -> IncrementalEngine:
        return engine_of(self.models[self.weights], self.encoder, *self.slots)

    @rule(
        plays=st.lists(
            st.tuples(
                st.sampled_from(USERS), st.integers(0, 33), st.sampled_from([0, 1, 500, 4000, 200_000, -3, -5000])
            ),
            min_size=1,
            max_size=12,
        )
    )
    def play(self, plays: list[tuple[str, int, int]]) -> None:
        """A micro-batch: each member's plays appended in one pass, split where the anchor moves or a late one comes in."""
        pending: dict[str, list[EncodeRequest]] = {user: [] for user in USERS}
        expected: dict[str, list[bytes]] = {user: [] for user in USERS}
        for user, item, step in plays:
            history = self.histories[user]
            self.clock += max(step, 0)
            play = WORLD.play(item, self.offset, self.clock + min(step, 0))
            fold = history.apply(WORLD.layout, play, self.offset)
            self.offset += 1
            if not fold.outcome.changed:
                continue
            records = encode_changes(
                WORLD.layout, user, history, first_changed=fold.position, anchor_moved=fold.evicted > 0
            )
            self.changelog.update(records)
            context = bytes(history.events)
            runs = pending[user]
            in_order = fold.position == history.num_events(WORLD.layout) - 1 and not fold.evicted
            first_changed, num_outputs = fold.position, 1
            if runs and in_order:
                previous = runs.pop()
                first_changed, num_outputs = previous.first_changed, previous.num_outputs + 1
            anchor = history.anchor(WORLD.layout)
            runs.append(EncodeRequest(user, anchor, context, first_changed, num_outputs))
            expected[user].append(context)
        waves = max(len(runs) for runs in pending.values())
        seen = dict.fromkeys(USERS, 0)
        for nth in range(waves):
            requests = [runs[nth] for runs in pending.values() if nth < len(runs)]
            out, row = encode(self.engine, requests), 0
            for asked, request in enumerate(requests):
                for _ in range(request.num_outputs):
                    context = expected[request.member][seen[request.member]]
                    assert_equal(out, row, reference(self.engine, asked, context, self.total))
                    seen[request.member] += 1
                    row += 1

    @rule(user=st.sampled_from(USERS))
    def ask_again(self, user: str) -> None:
        """A replayed play: nothing changed, the same answer."""
        history = self.histories[user]
        if history.count:
            context = bytes(history.events)
            num_plays = history.num_events(WORLD.layout)
            out = encode(self.engine, [EncodeRequest(user, history.anchor(WORLD.layout), context, num_plays)])
            assert_equal(out, 0, reference(self.engine, 0, context, self.total))

    @rule(user=st.sampled_from(USERS))
    def evict(self, user: str) -> None:
        self.engine.forget(user)

    @rule()
    def swap_weights(self) -> None:
        self.weights = 1 - self.weights
        self.engine = self.new_engine()

    @rule()
    def restart(self) -> None:
        """The cache is lost and the histories come back from the changelog, byte for byte."""
        restorer = Restorer(WORLD.layout)
        for key, value in self.changelog.items():
            restorer.feed(key, value)
        restored, _ = restorer.finish()
        assert restored == {user: history for user, history in self.histories.items() if history.count}
        self.histories.update(restored)
        self.engine = self.new_engine()

    def teardown(self) -> None:
        assert_few_flipped(self.total)


def append_one_by_one(engine: IncrementalEngine, num_plays: int, total: Differences) -> None:
    """One member's plays, each compared with the recomputation of its context."""
    history = History()
    for i in range(num_plays):
        fold = history.apply(WORLD.layout, WORLD.play(i % 9, i, 700.0 * i), i)
        request = EncodeRequest("ann", history.anchor(WORLD.layout), bytes(history.events), fold.position)
        out = encode(engine, [request])
        assert_equal(out, 0, reference(engine, 0, bytes(history.events), total))


TestIncrementalEqualsFull = IncrementalEqualsFull.TestCase
TestIncrementalEqualsFull.settings = settings(max_examples=90, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("length", [1, 2, 8, 9, 13])
def test_one_play_at_a_time_equals_the_whole_context_at_once(
    length: int, heads: tuple[int, int | None], encoder: type[CpuEncoder | TorchEncoder]
) -> None:
    engine = engine_of(MODELS[heads][0], encoder)
    append_one_by_one(engine, length, Differences())
    anchor_moves = max(0, (length - 1) // WORLD.domain.window - 1)
    assert engine.stats.misses == 1 + anchor_moves


@pytest.mark.parametrize("heads", HEADS)
def test_fewer_than_a_thousandth_of_the_codes_of_many_plays_differ(heads: tuple[int, int | None]) -> None:
    total = Differences()
    append_one_by_one(engine_of(MODELS[heads][0], RecordingEncoder), 100, total)
    assert total.num_places >= ENOUGH
    assert_few_flipped(total)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_plays_behind_a_late_one_are_encoded_again(encoder: type[CpuEncoder | TorchEncoder]) -> None:
    history, engine, total = History(), engine_of(MODELS[HEADS[0]][0], encoder), Differences()
    for offset, at_s in enumerate([0.0, 700.0, 1400.0, 2100.0, 900.0, 2800.0]):
        fold = history.apply(WORLD.layout, WORLD.play(offset, offset, at_s), offset)
        out = encode(engine, [EncodeRequest("ann", 0, bytes(history.events), fold.position)])
        assert_equal(out, 0, reference(engine, 0, bytes(history.events), total))
    assert engine.stats.misses == 1, "the plays before it are not"
