"""The oracle of the simulated world: its filter is the process, and nobody is above it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from intentrec_core.baselines.popularity import WEEK_S
from intentrec_core.evaluation.metrics import gains
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import MarkovRanker, PopularityRanker, Ranked, rank, ranks_alone
from intentrec_core.evaluation.tuning import last_plays
from intentrec_core.simulation.choice import Choice, Moment
from tests.bench.quality.data_sets import QUICK, Loaded, simulated, world_plays
from tests.bench.quality.forward_filter import Belief, ForwardFilter, Play
from tests.bench.quality.oracle import Oracle, SeenWorld

SMALL = dataclasses.replace(
    QUICK[0],
    load=lambda _: world_plays(2_000, 70, 200),
    world=lambda: simulated(2_000, 70, 200),
    protocols=QUICK[0].protocols[:1],
)
DRAWS = 100_000
NUM_ENUMERATED = 4


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return SMALL.loaded(None)


@pytest.fixture(scope="module")
def protocol(loaded: Loaded) -> Protocol:
    return SMALL.protocols[0](loaded.data)


@pytest.fixture(scope="module")
def seen(loaded: Loaded) -> SeenWorld:
    return SeenWorld(SMALL, loaded)


def plays_of(seen: SeenWorld, loaded: Loaded, member: int) -> list[Play]:
    return [seen.play(int(place)) for place in range(*loaded.data.members.bounds[member : member + 2].tolist())]


def longest(loaded: Loaded) -> int:
    return int(np.diff(loaded.data.members.bounds).argmax())


@pytest.mark.parametrize("num_seen", [1, 60])
def test_a_forecast_is_how_often_the_process_plays_an_item(loaded: Loaded, seen: SeenWorld, num_seen: int) -> None:
    """The simulator itself chooses 100,000 times, in one situation and for each intent."""
    member = longest(loaded)
    number, plays = seen.member(int(loaded.data.members.bounds[member])), plays_of(seen, loaded, member)[:num_seen]
    assert len(plays) == num_seen
    belief = Belief(ForwardFilter(seen.world, seen.end_ms, told=True), number)
    for play in plays:
        belief.see(play)
    choice, ts_s = (
        Choice(seen.world.script, seen.world._draws, seen.world.items, seen.world.members),
        1e-3 * plays[-1].end_ms,
    )
    random = np.random.default_rng(num_seen)
    for intent in range(len(seen.world.intents)):
        of_intent = np.zeros((1, len(seen.world.intents)))
        of_intent[0, intent] = 1.0
        belief.slots = belief.slots[:1]
        moment = Moment(
            members=np.full(DRAWS, number),
            slots=np.repeat(belief.slots, DRAWS),
            intents=np.full(DRAWS, intent),
            ts_s=np.full(DRAWS, ts_s),
            words=random.integers(0, 2**63, DRAWS).astype(np.uint64),
        )
        played = np.bincount(choice.choose(moment).item, minlength=seen.world.items.num_items)
        expected = DRAWS * belief.items(of_intent, ts_s)
        assert expected.sum() == pytest.approx(DRAWS, rel=1e-3)
        assert (np.abs(played - expected) < 5.0 * np.sqrt(expected) + 5.0).all()


def test_the_filter_is_the_sum_over_all_that_may_have_been_hidden(loaded: Loaded, seen: SeenWorld) -> None:
    """Of a few plays: every sequence of intents, and of what was kept. Each has a product of probabilities; the filter adds
    them up as it goes.
    """
    known, compared = ForwardFilter(seen.world, seen.end_ms, told=True), 0
    for member in range(len(loaded.data.members)):
        plays = plays_of(seen, loaded, member)[:NUM_ENUMERATED]
        number = seen.member(int(loaded.data.members.bounds[member]))
        total = np.zeros(len(seen.world.intents))
        if len(plays) == NUM_ENUMERATED and len({play.session for play in plays}) == 2:
            num_paths = add_paths(Belief(known, number), plays, (), 1.0, total)
            belief = Belief(known, number)
            for play in plays:
                belief.see(play)
            np.testing.assert_allclose(belief.weight.sum(axis=(0, 2)), total / total.sum(), rtol=1e-9, atol=1e-15)
            compared += num_paths > 20
    assert compared >= 3


def add_paths(
    state: Belief, plays: list[Play], path: tuple[int, ...], chance: float, total: NDArray[np.float64]
) -> int:
    """Adds the probability of every way to go on from ``path``, the intents so far, by the last intent. Returns their number.

    ``state`` holds the memory after them.
    """
    if len(path) == len(plays):
        total[path[-1]] += chance
        return 1
    play, world, who, found = plays[len(path)], state._of.world, np.array([state._member]), 0
    before = np.array([path[-1] if path else -1])
    if path and play.session == plays[len(path) - 1].session:
        moved = world.script.stay[before[0]] * world.members.transition(who, before)[0]
    else:
        left = 1.0 - world.script.stay[before[0]] if path else 1.0
        moved = left * world.members.opening(who, before, np.array([play.start_ms / 1000.0]))[0]
    played = state._chances(play, np.ones((1, len(moved), 1)))[0]
    memory = state.slots
    for kept, watched in ((1, state._watched_chances(play)[0]), (0, state._watched_chances(play)[1])):
        for intent in np.flatnonzero(moved * played * watched).tolist():
            state.slots = memory
            state.slots = state._remembered(np.array([0]), play, kept=kept)
            step = moved[intent] * played[intent] * watched[intent]
            found += add_paths(state, plays, (*path, intent), chance * step, total)
    state.slots = memory
    return found


@pytest.fixture(scope="module")
def forecasts(loaded: Loaded, protocol: Protocol) -> dict[bool, tuple[Oracle, Ranked]]:
    found = {}
    for told in (False, True):
        oracle = Oracle(SMALL, loaded, told=told)
        found[told] = oracle, rank(oracle, protocol.test)
    return found


def test_nobody_is_above_the_oracle_and_being_told_more_helps(
    loaded: Loaded, protocol: Protocol, forecasts: dict[bool, tuple[Oracle, Ranked]]
) -> None:
    (oracle, ranked), (told, ranked_told) = forecasts[False], forecasts[True]
    chain = last_plays(protocol.validation, online=True).best
    others = [PopularityRanker(WEEK_S), MarkovRanker(online=True), chain]
    best = max(float(gains(ranks_alone(other, protocol.test)).mean()) for other in others)
    assert gains(ranked.ranks).mean() > best + 0.05
    assert oracle.surprises == told.surprises == 0
    assert told.log_probability > oracle.log_probability
    assert gains(ranked_told.ranks).mean() > gains(ranked.ranks).mean()


@pytest.mark.parametrize("told", [False, True])
def test_its_probabilities_are_frequencies(loaded: Loaded, protocol: Protocol, seen: SeenWorld, told: bool) -> None:
    """Of items and of hidden intents, in bins of what was forecast, and the mean of log p of what came is what it was bound to
    be.
    """
    task, oracle = protocol.test, Oracle(SMALL, loaded, told=told)
    hidden = seen.hidden[task.targets.play]
    numbers = np.array([seen.number(name) for name in loaded.vocabulary.item_ids[1:]])
    said, came, surprise = [], [], []
    for i, forecast in oracle.forecasts(task):
        item = np.arange(len(forecast.items)) == numbers[task.targets.row[i] - 1]
        said += [forecast.items, forecast.intents]
        came += [item, np.arange(len(forecast.intents)) == hidden[i]]
        logs = np.log(np.maximum(forecast.items, 1e-300))
        mean = (forecast.items * logs).sum()
        surprise.append((logs[item][0] - mean, (forecast.items * (logs - mean) ** 2).sum()))
    probability, happened = np.concatenate(said), np.concatenate(came)
    edges = np.array([0.001, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 1.01])
    place = np.digitize(probability, edges)
    for low in range(len(edges)):
        chosen = probability[place == low]
        if chosen.sum() > 10:
            spread = np.sqrt((chosen * (1.0 - chosen)).sum())
            assert abs(happened[place == low].sum() - chosen.sum()) < 4.0 * spread, (low, chosen.mean())
    off, variance = np.array(surprise).sum(axis=0)
    assert abs(off) < 4.0 * np.sqrt(variance)


def test_who_has_just_left_as_the_record_ends_does_not_return(seen: SeenWorld) -> None:
    arrivals = ForwardFilter(seen.world, seen.end_ms, told=True).arrivals
    region = int(seen.world.members.region(np.array([0]))[0])
    activity, shares = np.array([0.5, 2.0]), np.array([0.5, 0.5])
    assert arrivals.returns(region, seen.end_ms - 1, activity, shares) == (0.0, 0.0)
    early, late = (
        arrivals.returns(region, at_ms, activity, shares)[0] for at_ms in (seen.world.start_ms, seen.end_ms - 10**7)
    )
    assert early > late > 0.0


def test_data_that_are_not_of_the_world_are_refused(loaded: Loaded) -> None:
    other = dataclasses.replace(SMALL, world=lambda: simulated(2_000, 71, 200))
    with pytest.raises(ValueError, match="are not those of its world"):
        Oracle(other, loaded, told=False)
    with pytest.raises(ValueError, match="is no simulated world"):
        Oracle(dataclasses.replace(SMALL, world=None), loaded, told=False)
