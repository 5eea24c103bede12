"""The simulated world: the same plays every time, a hidden process that is the one declared, and bounded memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice, pairwise

import numpy as np
import pytest

from intentrec_core.domain.spec import FieldSource
from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import ConfigError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.plays.table import PLAYS, play_rows
from intentrec_core.simulation.members import SLOT_BYTES
from intentrec_core.simulation.random_streams import Draws, Stream, pick
from intentrec_core.simulation.script import SCRIPTS
from intentrec_core.simulation.sessions import ACTIVE_BYTES, Sessions, mean_session_plays
from intentrec_core.simulation.simulate import START_MS, SimulatedPlay, World, start_in_the_past

DAY_MS = 86_400_000
NUM_PLAYS = 10_000
NAMES = ("video", "shop")


@pytest.fixture(scope="module")
def plays() -> dict[str, list[SimulatedPlay]]:
    return {name: list(World(name, users=300, items=2000, seed=7).plays(NUM_PLAYS)) for name in NAMES}


def by_user(simulated: list[SimulatedPlay]) -> dict[str, list[SimulatedPlay]]:
    members = defaultdict(list)
    for one in simulated:
        members[one.play.user_id].append(one)
    return members


@pytest.mark.parametrize("name", NAMES)
def test_the_same_options_give_the_same_plays(name: str, plays: dict[str, list[SimulatedPlay]]) -> None:
    assert list(World(name, users=300, items=2000, seed=7).plays(3000)) == plays[name][:3000]


def test_another_seed_gives_another_world(plays: dict[str, list[SimulatedPlay]]) -> None:
    others = World("video", users=300, items=2000, seed=8).plays(50)

    assert [o.play.item_id for o in others] != [p.play.item_id for p in plays["video"][:50]]


@pytest.mark.parametrize("name", NAMES)
def test_batches_rows_and_table_are_the_same_plays(name: str, plays: dict[str, list[SimulatedPlay]]) -> None:
    table, hidden = World(name, users=300, items=2000, seed=7).table(2000)

    assert table.schema == PLAYS
    assert list(play_rows(table)) == [one.play for one in plays[name][:2000]]
    assert hidden == [one.hidden_intent for one in plays[name][:2000]]


@pytest.mark.parametrize("name", NAMES)
def test_plays_come_in_time_order_with_ids_of_their_own(name: str, plays: dict[str, list[SimulatedPlay]]) -> None:
    times = [one.play.ts_ms for one in plays[name]]

    assert len(times) == NUM_PLAYS
    assert times == sorted(times)
    assert times[0] >= START_MS
    assert len({one.play.event_id for one in plays[name]}) == NUM_PLAYS


@pytest.mark.parametrize("name", NAMES)
def test_sessions_are_those_of_the_domains_gap(name: str, plays: dict[str, list[SimulatedPlay]]) -> None:
    gap_ms = 1000 * load_domain(name).session_gap_s

    for history in by_user(plays[name]).values():
        for before, after in pairwise(one.play for one in history):
            assert (before.session_id != after.session_id) == (after.ts_ms - before.ts_ms > gap_ms)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_one_the_domain_declares(name: str, plays: dict[str, list[SimulatedPlay]]) -> None:
    domain = load_domain(name)

    for field in domain.fields:
        if field.source is FieldSource.EVENT and field.values:
            seen = {
                one.play.action if field.key == "action" else (one.play.context or {})[field.key] for one in plays[name]
            }
            assert seen == set(field.values)


@pytest.mark.parametrize("name", NAMES)
def test_the_domain_reads_every_item(name: str) -> None:
    catalogue = Catalogue(World(name, items=2000).catalogue())
    table = ItemTable(load_domain(name), Vocabulary.build(item.item_id for item in catalogue), catalogue)

    assert len(catalogue) == 2000
    assert (table.codes[1:] > 0).all()
    assert all(labels[1:].any(axis=1).all() for labels in table.multi.values())
    assert (table.codes[1:].max(axis=0) == [field.num_labels for field in table.domain.static_fields]).all()
    for labels in table.multi.values():
        assert labels.any(axis=0).all()


def test_only_what_the_filters_allow_is_played(plays: dict[str, list[SimulatedPlay]]) -> None:
    items = {item.item_id: item.attributes for item in World("video", users=300, items=2000, seed=7).catalogue()}

    for one in plays["video"]:
        item, context = items[one.play.item_id], one.play.context or {}
        assert item["available"]
        assert item["maturity"] <= int(context["max_maturity"])
        assert context["region"] in item["regions"]


def test_nothing_is_played_before_its_release_and_new_releases_are_played(
    plays: dict[str, list[SimulatedPlay]],
) -> None:
    world = World("video", users=300, items=2000, seed=7)
    released = {item.item_id: np.datetime64(item.attributes["released"]) for item in world.catalogue()}
    at_start = {item.item_id for item in world.catalogue(until_ms=START_MS)}

    assert all(np.datetime64(one.play.ts_ms, "ms") >= released[one.play.item_id] for one in plays["video"])
    assert 0.8 < len(at_start) / 2000 < 0.9
    assert sum(one.play.item_id not in at_start for one in plays["video"]) > 5


def test_an_action_means_what_it_says(plays: dict[str, list[SimulatedPlay]]) -> None:
    wrong = Counter()
    for history in by_user(plays["video"]).values():
        known: set[str] = set()
        for one in history:
            again = one.play.action in ("continue", "rewatch")
            wrong[again != (one.play.item_id in known)] += 1
            known.add(one.play.item_id)

    assert wrong[True] <= 0.002 * NUM_PLAYS  # a title is passed over, or one is taken for known, by the Bloom filter


def test_episodes_of_a_show_follow_each_other(plays: dict[str, list[SimulatedPlay]]) -> None:
    for history in by_user(plays["video"]).values():
        episode: dict[str, int] = {}
        for one in history:
            number = int((one.play.context or {})["episode"])
            if one.play.action == "continue":
                assert number == episode[one.play.item_id] + 1
            if one.play.action in ("discover", "continue"):
                episode[one.play.item_id] = number


def test_a_purchase_follows_cart_and_click(plays: dict[str, list[SimulatedPlay]]) -> None:
    for history in by_user(plays["shop"]).values():
        stage: dict[str, str | None] = {}
        for one in history:
            if one.play.action == "cart":
                assert stage[one.play.item_id] == "click"
            stage[one.play.item_id] = one.play.action


@pytest.mark.parametrize("name", NAMES)
def test_hidden_intents_switch_by_the_declared_process(name: str, plays: dict[str, list[SimulatedPlay]]) -> None:
    world = World(name, users=300, items=2000, seed=7)
    index = {intent: i for i, intent in enumerate(world.intents)}
    seen, expected = np.zeros((5, 5)), np.zeros((5, 5))
    variance = np.zeros((5, 5))
    for user, history in by_user(plays[name]).items():
        process = world.transition(int(user.removeprefix("u")))
        assert process.sum(axis=1) == pytest.approx(np.ones(5))
        for before, after in pairwise(history):
            if before.play.session_id == after.play.session_id:
                row = index[before.hidden_intent]
                seen[row, index[after.hidden_intent]] += 1
                expected[row] += process[row]
                variance[row] += process[row] * (1 - process[row])

    # 25 sums of independent draws: none strays by more than 4.5 standard deviations but once in 6,000 worlds
    assert seen.sum() > 4000
    assert (np.abs(seen - expected) < 4.5 * np.sqrt(variance)).all()


@pytest.mark.parametrize("name", NAMES)
def test_hidden_intents_show_in_the_actions(name: str, plays: dict[str, list[SimulatedPlay]]) -> None:
    assert information(plays[name]) > 0.3


@pytest.mark.parametrize("name", NAMES)
def test_uninformative_worlds_differ_in_what_can_be_seen_and_in_nothing_else(
    name: str, plays: dict[str, list[SimulatedPlay]]
) -> None:
    blind = list(World(name, users=300, items=2000, seed=7, informative=False).plays(NUM_PLAYS))

    def unseen(one: SimulatedPlay) -> tuple[object, ...]:
        play = one.play
        return play.event_id, play.user_id, play.item_id, play.ts_ms, play.session_id, one.hidden_intent

    assert [unseen(one) for one in blind] == [unseen(one) for one in plays[name]]
    assert information(blind) < 0.005


def test_uninformative_catalogues_keep_what_filters_need() -> None:
    plain = Catalogue(World("video", seed=7).catalogue())
    blind = Catalogue(World("video", seed=7, informative=False).catalogue())
    same = {
        name: np.mean([a.attributes[name] == b.attributes[name] for a, b in zip(plain, blind, strict=True)])
        for name in plain.items[0].attributes
    }

    assert [same[name] for name in ("available", "maturity", "regions")] == [1.0, 1.0, 1.0]
    assert same["genres"] < 0.15
    assert same["format"] < 0.6


def test_members_leave_and_come_back() -> None:
    world = World("video", users=400)
    members = np.arange(400)
    days = np.arange(0, 1500, 10)
    there = np.array([world.members.subscribed(members, np.full(400, day * 86_400.0)) for day in days])

    assert 0.70 < there.mean() < 0.80
    left_once = (there[:-1] & ~there[1:]).any(axis=0)
    came_back = (~there[:-1] & there[1:]).any(axis=0)
    assert (left_once & came_back).mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_is_kept(name: str) -> None:
    world = World(name, users=20_000, rate=0.6)
    sessions = world.sessions()
    while sessions.now_ms < START_MS + DAY_MS // 4:  # time to fill up
        sessions.tick()
    start_ms, count = sessions.now_ms, 0
    while sessions.now_ms < start_ms + 2 * DAY_MS:
        count += len(sessions.tick())

    assert count / (sessions.now_ms - start_ms) * 1000 == pytest.approx(0.6, rel=0.05)
    assert sessions.dropped == 0


def test_memory_follows_the_active_members_and_not_the_plays() -> None:
    sessions = World("video", users=4000, items=100_000, rate=0.005).sessions(max_tick_s=86_400)
    held, played = [], []
    members: set[int] = set()
    for _ in range(2):
        until_ms, count = sessions.now_ms + 35 * DAY_MS, 0
        while sessions.now_ms < until_ms:
            plays = sessions.tick()
            members.update(plays["user"].tolist())
            count += len(plays)
        held.append(sessions.nbytes)
        played.append(count)

    assert min(played) > 10_000
    assert sessions.memory.num_used < 0.75 * len(members)  # the others have been away for a month
    assert held[1] <= 1.25 * held[0]
    assert_within_the_documented_bound(sessions, users=4000)


def test_a_million_members_and_a_hundred_thousand_items_stream() -> None:
    world = World("video", users=1_000_000, items=100_000)
    sessions = world.sessions()
    count = 0
    while count < 30_000:
        count += len(sessions.tick())

    assert_within_the_documented_bound(sessions, users=1_000_000)
    assert sessions.nbytes < 40e6
    assert len(list(islice(world.catalogue(), 10))) == 10


def assert_within_the_documented_bound(sessions: Sessions, users: int) -> None:
    """Memory slots grow by half, and the free list takes 4 bytes a slot: at most 1.5 times what is used, and a first lot."""
    slots = 1.5 * sessions.memory.num_used + 1024
    assert sessions.nbytes <= 4 * users + (SLOT_BYTES + 4) * slots + ACTIVE_BYTES * sessions.num_active


def test_the_documented_sizes_are_the_sizes() -> None:
    assert (SLOT_BYTES, ACTIVE_BYTES) == (216, 56)


def test_a_tiny_world_with_next_to_nothing_to_see_goes_on() -> None:
    simulated = list(World("video", users=1, items=64, seed=1).plays(400))

    assert len(simulated) == 400
    assert {one.play.user_id for one in simulated} == {"u0"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"users": 0}, "users is 0; allowed: 1 to"),
        ({"items": 10}, "items is 10; allowed: 64 to"),
        ({"rate": 0.0}, "rate 0 .* above 0"),
        ({"rate": float("nan")}, "rate nan"),
        ({"users": 10, "rate": 5.0}, "impossible with 10 members; .*raise users"),
        ({"domain_name": "movielens"}, "choose one of video, shop"),
    ],
)
def test_an_impossible_world_is_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        World(**{"domain_name": "video", **options})


def test_a_world_begins_so_early_that_its_plays_lie_in_the_past() -> None:
    assert start_in_the_past(0, 1000) == START_MS
    assert start_in_the_past(1_000_000, 1000) == START_MS  # 250 days
    assert start_in_the_past(30_000, 5) == 1_577_836_800_000  # 1,500 days and a quarter: from 2020 on
    assert start_in_the_past(30_000, 5, rate=1.0) == START_MS
    with pytest.raises(ConfigError, match=r"300,000 plays of 5 members last 41 years .* more users"):
        start_in_the_past(300_000, 5)


def test_a_world_ends_before_its_end_and_is_the_same_until_then() -> None:
    whole = list(World("video", users=50, seed=3).plays(400))
    end_ms = whole[250].play.ts_ms
    world = World("video", users=50, seed=3, end_ms=end_ms)
    ended = list(world.plays())
    assert ended == [simulated for simulated in whole if simulated.play.ts_ms < end_ms]
    assert (world.has_ended, len(ended) > 200) == (True, True)
    assert list(world.plays(100)) == whole[:100]


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_distributions_over_declared_things(name: str) -> None:
    script, domain = SCRIPTS[name], load_domain(name)
    declared = {field.name: set(field.values) for field in domain.fields}

    for table in (script.switch, script.archetypes, script.moves):
        assert table.sum(axis=1) == pytest.approx(np.ones(len(table)))
    assert set(script.actions) == declared["action"]
    assert set(script.genres) == declared["genre" if name == "video" else "category"]
    assert sum(script.genre_slots) == 32
    assert script.gap_s == domain.session_gap_s
    assert 2 < mean_session_plays(script) < 10


def test_draws_are_a_function_of_seed_stream_and_counters() -> None:
    draws, counters = Draws(3), np.arange(100_000)
    units = draws.uniform(Stream.MOVE, counters)

    assert (units[[5, 77]] == draws.uniform(Stream.MOVE, np.array([5, 77]))).all()
    assert int(draws.bits(Stream.MOVE, 5)[0]) == 4115742575766394707  # the same on every machine
    assert units.mean() == pytest.approx(0.5, abs=0.005)
    assert np.histogram(units, 20, (0, 1))[0] == pytest.approx(np.full(20, 5000), rel=0.06)
    for other in (Draws(4).uniform(Stream.MOVE, counters), draws.uniform(Stream.STAY, counters), np.roll(units, 1)):
        assert abs(np.corrcoef(units, other)[0, 1]) < 0.015


def test_picks_follow_their_weights() -> None:
    weights = np.tile([1.0, 0.0, 3.0], (10_000, 1))
    picked = pick(weights, (np.arange(10_000) + 0.5) / 10_000)

    assert Counter(picked.tolist()) == {0: 2500, 2: 7500}
    assert pick(weights[:1], np.array([1.0 - 2**-53])).tolist() == [2]


def information(simulated: list[SimulatedPlay]) -> float:
    """Bits that the action tells about the hidden intent."""
    pairs = Counter((one.hidden_intent, one.play.action) for one in simulated)
    hidden, action = Counter(), Counter()
    for (a, b), count in pairs.items():
        hidden[a] += count
        action[b] += count
    total = len(simulated)
    return sum(n / total * np.log2(n * total / (hidden[a] * action[b])) for (a, b), n in pairs.items())
