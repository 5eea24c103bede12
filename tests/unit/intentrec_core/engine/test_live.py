"""The live encoder: what it refuses, recommends and forgets. Its numbers are held by tests/property."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from intentrec_core import LiveEncoder, LivePlay, LiveUpdate
from intentrec_core.engine import live_play
from intentrec_core.errors import ConfigError, DataError
from intentrec_core.plays.table import PlayRow, plays_table
from stream.wire import messages
from tests.worlds.live_world import tiny_model
from tests.worlds.tiny_world import START_MS, TinyWorld

CACHE_BYTES = 1 << 20
VALID = LivePlay(user_id="ann", item_id="item-1", ts_ms=START_MS, attributes={"device": "tv", "max_maturity": 4})


@pytest.fixture
def live(world: TinyWorld) -> LiveEncoder:
    return LiveEncoder(tiny_model(world), cache_bytes=CACHE_BYTES)


def play(live: LiveEncoder, item: int, at_s: float = 0.0, user_id: str = "ann", **attributes: Any) -> LiveUpdate:
    attributes = {"device": "tv", "max_maturity": 4} | attributes
    return live.play(user_id, f"item-{item}", ts_ms=START_MS + int(1000 * at_s), attributes=attributes)


def shown(update: LiveUpdate) -> set[str]:
    return {item.item_id for item in update.recommend(100, exclude_watched=False)}


def test_the_limits_of_a_play_are_those_of_the_plays_topic() -> None:
    assert live_play.MAX_TS_MS == messages.MAX_TS_MS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"user_id": ""}, "user_id is ''; allowed: a text of 1 to 256 bytes"),
        ({"user_id": 7}, "user_id is 7; allowed: a text"),
        ({"item_id": "é" * 129}, "item_id is 'é"),
        ({"item_id": "\ud800"}, "item_id is"),
        ({"event_id": ""}, "event_id is ''; allowed: a text"),
        ({"ts_ms": -1}, "ts_ms is -1, in milliseconds 1969-12-31T23:59:59.999Z; allowed: 1990-01-01 up to 2100-01-01"),
        ({"ts_ms": 4_102_444_800_000}, "ts_ms is 4102444800000, in milliseconds 2100-01-01; allowed"),
        ({"ts_ms": START_MS // 1000}, "it would fit in seconds (s)"),
        ({"ts_ms": START_MS * 1000}, "it would fit in microseconds (µs)"),
        ({"ts_ms": START_MS / 1000 + 0.5}, "allowed: whole milliseconds since 1970; it would fit in seconds (s)"),
        ({"ts_ms": 1.7e12}, "ts_ms is 1700000000000.0; allowed: whole"),
        ({"ts_ms": True}, "ts_ms is True"),
        ({"duration_s": -0.5}, "duration_s is -0.5; allowed: seconds from 0 to 31,622,400"),
        ({"duration_s": math.nan}, "duration_s is nan"),
        ({"attributes": ["tv"]}, "attributes is ['tv']; allowed: a mapping"),
        ({"attributes": {"divice": "tv"}}, "attribute 'divice' is not one that the domain reads; allowed: device, max"),
        ({"attributes": {"duration_s": 3.0}}, "a duration is the argument duration_s"),
        ({"attributes": {"device": ["tv"]}}, "attribute device is ['tv']; allowed: a text, a finite number"),
        ({"attributes": {"device": "t\ud800"}}, "attribute device is 't\\ud800', which is not valid Unicode"),
        ({"ts_ms": np.float64(1.7e12)}, "ts_ms is 1700000000000.0; allowed: whole"),
        ({"attributes": {"max_maturity": math.inf}}, "attribute max_maturity is inf; allowed"),
        ({"attributes": {"max_maturity": "twelve"}}, "max_maturity is 'twelve'; allowed: a finite number of 32 bits"),
        ({"attributes": {"max_maturity": 1e39}}, "max_maturity is 1e+39; allowed: a finite number of 32 bits"),
        ({"attributes": {"max_maturity": 10**400}}, "allowed: a text, a finite number"),
    ],
)
def test_a_play_that_is_not_valid_is_refused_with_what_is_allowed_and_changes_nothing(
    live: LiveEncoder, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as refused:
        live.play_many([VALID, replace(VALID, **change)])
    assert str(refused.value).startswith(f"play 1 of user {change.get('user_id', 'ann')!r}: ")
    assert said in str(refused.value)
    assert len(live) == 0


def test_a_cache_too_small_for_one_member_is_refused(world: TinyWorld) -> None:
    with pytest.raises(ConfigError, match=r"cache_bytes is too small: .* one member needs"):
        LiveEncoder(tiny_model(world), cache_bytes=100)


def test_int8_holds_more_members_in_the_same_memory_and_says_nearly_the_same(world: TinyWorld) -> None:
    model = tiny_model(world)
    plain, quantised = (LiveEncoder(model, CACHE_BYTES // 16, kv_dtype=name) for name in ("float32", "int8"))
    for user in range(100):
        weights = [play(live, user % 9, user_id=f"user-{user}").weights for live in (plain, quantised)]
        assert weights[0] == pytest.approx(weights[1], abs=0.01)
    assert 2 * plain.num_cached < quantised.num_cached <= 100


def test_a_type_of_keys_and_values_that_is_none_or_not_for_the_device_is_refused(world: TinyWorld) -> None:
    with pytest.raises(ConfigError, match="kv_dtype is 'int4'; allowed: float32, int8"):
        LiveEncoder(tiny_model(world), CACHE_BYTES, kv_dtype="int4")
    model = tiny_model(world)
    model.network.to("meta")
    with pytest.raises(ConfigError, match=r"^kv_dtype is int8 and the device meta; allowed: int8 on the CPU"):
        LiveEncoder(model, CACHE_BYTES, kv_dtype="int8")


def test_no_plays_have_no_updates(live: LiveEncoder) -> None:
    assert live.play_many([]) == []


def test_without_an_event_id_the_same_item_at_the_same_time_is_the_same_play(live: LiveEncoder) -> None:
    first, again, other = play(live, 1), play(live, 1), play(live, 2)
    assert [first.outcome, again.outcome, other.outcome] == ["applied", "duplicate", "applied"]
    assert again.intents == first.intents
    assert again.recommend(5) == first.recommend(5)


def test_a_play_older_than_a_full_history_is_late_and_changes_nothing(live: LiveEncoder) -> None:
    before = [play(live, n, at_s=100.0 * n) for n in range(9)][-1]
    late = play(live, 20, at_s=1.0)
    assert late.outcome == "late"
    assert late.weights == pytest.approx(before.weights, abs=1e-5)


def test_a_play_costs_one_position_and_a_late_one_those_from_its_place_on(live: LiveEncoder) -> None:
    positions = live.stats.positions
    plays = [replace(VALID, user_id=user, ts_ms=START_MS + 1000 * n) for n in range(4) for user in ("ann", "ben")]
    live.play_many(plays)
    assert (live.stats.positions - positions, live.stats.passes) == (8, 1)
    live.play_many([replace(VALID, ts_ms=START_MS + 2500)])
    assert live.stats.positions - positions <= 8 + 3, (
        "the late one, the one after it, and the one before for its intent"
    )
    positions = live.stats.positions
    live.play_many([plays[0]] * 5)
    assert live.stats.positions - positions <= 2, "a repeat is answered with what is known, once"


def test_numbers_of_numpy_are_those_of_python(world: TinyWorld) -> None:
    ours, theirs = LiveEncoder(tiny_model(world)), LiveEncoder(tiny_model(world))
    expected = ours.play("ann", "item-1", ts_ms=START_MS, duration_s=9.5, attributes={"max_maturity": 4})
    found = theirs.play(
        "ann",
        "item-1",
        ts_ms=np.int64(START_MS),
        duration_s=np.float32(9.5),
        attributes={"max_maturity": np.float32(4)},
    )
    assert type(found.ts_ms) is int
    assert found.intents == expected.intents
    assert found.recommend(5) == expected.recommend(5)


def test_a_history_added_as_a_table_gives_the_histories_that_playing_it_gives(world: TinyWorld) -> None:
    played, restored = LiveEncoder(tiny_model(world)), LiveEncoder(tiny_model(world))
    context = {"max_maturity": "4", "device": "tv", "unread": "x"}
    rows = [
        PlayRow(f"e{n}", f"user-{n % 3}", f"item-{n % 7}", START_MS + 1000 * n, "play", 60.0, None, context)
        for n in range(40)
    ]
    for row in rows:
        attributes = {key: value for key, value in context.items() if key != "unread"}
        played.play(
            row.user_id, row.item_id, ts_ms=row.ts_ms, event_id=row.event_id, duration_s=60.0, attributes=attributes
        )
    restored.play(
        "user-1",
        "item-1",
        ts_ms=rows[1].ts_ms,
        event_id="e1",
        duration_s=60.0,
        attributes={"device": "tv", "max_maturity": 4},
    )
    assert restored.add_history(plays_table(reversed(rows))) == 39, "all but the one that is there already"
    assert (len(restored), restored.num_cached) == (3, 0)
    for user in ("user-0", "user-1", "user-2"):
        expected, found = [live.play(user, "item-9", ts_ms=START_MS + 60_000) for live in (played, restored)]
        assert found.weights == pytest.approx(expected.weights, abs=1e-4)
        assert [item.item_id for item in found.recommend(5)] == [item.item_id for item in expected.recommend(5)]


def test_a_table_with_an_invalid_play_is_refused_and_changes_nothing(live: LiveEncoder) -> None:
    rows = [PlayRow("e1", "ann", "item-1", START_MS), PlayRow("e2", "ann", "item-1", START_MS + 1, duration_s=-1.0)]
    with pytest.raises(DataError, match="plays: column duration_s: row 1: -1; allowed: seconds from 0"):
        live.add_history(plays_table(rows))
    assert len(live) == 0


def test_an_unknown_item_is_answered(live: LiveEncoder) -> None:
    update = play(live, 999)
    assert update.outcome == "applied"
    assert update.recommend()


def test_an_update_says_what_it_was_when_it_was_made(live: LiveEncoder) -> None:
    """Later plays, forgetting and the engine's next passes leave it as it is; it is no window into the encoder."""
    first = play(live, 1)
    said = (first.intents, first.recommend(), first.embedding.copy())
    for n in range(2, 12):
        play(live, n, at_s=n)
    live.forget("ann")
    assert (first.intents, first.recommend()) == said[:2]
    np.testing.assert_array_equal(first.embedding, said[2])
    with pytest.raises(ValueError, match="read-only"):
        first.embedding[0] = 1.0


def test_what_is_forgotten_begins_anew(live: LiveEncoder) -> None:
    first = play(live, 1)
    play(live, 2, at_s=5)
    assert "ann" in live
    assert live.forget("ann")
    assert not live.forget("ann")
    assert (len(live), live.num_cached) == (0, 0)
    assert play(live, 1).weights == pytest.approx(first.weights, abs=1e-5)


def test_a_model_without_the_intent_stage_recommends_and_has_no_intents(world: TinyWorld) -> None:
    update = play(LiveEncoder(tiny_model(world, intent_stage=False), cache_bytes=CACHE_BYTES), 1)
    assert (update.intents, update.weights, update.primary, len(update.embedding)) == ({}, {}, None, 0)
    assert len(update.recommend(3)) == 3


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_k_is_a_whole_number_from_one_on(live: LiveEncoder, k: Any) -> None:
    with pytest.raises(ConfigError, match=r"k is .*; allowed: a whole number from 1 on"):
        play(live, 1).recommend(k)


def test_a_list_is_best_first_and_holds_each_item_once(live: LiveEncoder) -> None:
    listed = play(live, 1).recommend(100)
    scores = [item.score for item in listed]
    assert scores == sorted(scores, reverse=True)
    assert len({item.item_id for item in listed}) == len(listed)
    assert play(live, 1).recommend(3) == listed[:3]
    assert listed[0].title == f"Title {listed[0].item_id.removeprefix('item-')}"


def test_a_member_who_has_said_nothing_is_shown_what_the_domain_says(world: TinyWorld) -> None:
    model = tiny_model(world)
    assert shown(play(LiveEncoder(model), 1, max_maturity=None)) == set(), "the domain says nothing: no item"
    rules = tuple(replace(f, default=1.0) if f.event_key else f for f in world.domain.filters)
    network = model.network
    network.domain = replace(world.domain, filters=rules)
    live = LiveEncoder(replace(model, network=network))
    assert shown(play(live, 1, max_maturity=None)) == shown(play(LiveEncoder(tiny_model(world)), 1, max_maturity=1))


def test_filters_hide_what_may_not_be_shown(live: LiveEncoder, world: TinyWorld) -> None:
    available = {item.item_id for item in world.items if item.attributes["available"]}
    young = {item.item_id for item in world.items if item.attributes["maturity"] <= 1}
    assert shown(play(live, 1)) == available, "max_maturity 4 admits every item"
    assert shown(play(live, 2, at_s=1, max_maturity=1)) == available & young, "the value sent last counts"
    assert shown(play(live, 4, at_s=2, max_maturity=None)) == available & young, "also where a play lacks it"
    assert shown(play(live, 1, user_id="ben", max_maturity=None)) == set(), "a value never sent shows nothing"


@pytest.mark.parametrize("label", ["discover", "continue"])
def test_watched_items_are_hidden_unless_the_member_is_about_to_continue(world: TinyWorld, label: str) -> None:
    """The small world's rule: items watched are shown where the likeliest action is "continue"."""
    model = tiny_model(world)
    assert model.network.heads is not None
    with torch.no_grad():
        model.network.heads.heads[0].bias[world.domain.heads[0].label_names.index(label)] += 20.0
    live = LiveEncoder(model, cache_bytes=CACHE_BYTES)
    for n in range(10):
        update = play(live, 3 * n, at_s=50.0 * n)
    watched = {f"item-{3 * n}" for n in range(10)}
    everything = {item.item_id for item in update.recommend(100, exclude_watched=False)}
    assert update.intents["action"][label] > 0.9
    assert everything & watched
    expected = everything if label == "continue" else everything - watched
    assert {item.item_id for item in update.recommend(100)} == expected
