"""Any call may fail, be lost or be a process's last: the commit is still a fold of the plays, and every play is answered.

One schedule of two workers, and each of its calls to the broker given each fate in turn. The worker is the real one, down to its
drain loop and its writers; time is virtual (see tests.property.scripted_world).
"""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.property.guarantee import Guarantee
from tests.property.scripted_broker import Fate, FateOf
from tests.property.scripted_group import SESSION_TIMEOUT_S
from tests.property.scripted_worker import ScriptedProcess, World
from tests.property.scripted_world import scripted_world
from tests.rigs.fault_report import FaultRow

NUM_PLAYS, NUM_WORKERS = 36, 2
DEADLINE_S = 600.0
#: Steps that make a worker the only one, or a checkpoint durable.
DECIDING = {"fence", "commit", "commit offset"}
MODES = {
    "kafka": {},
    "exactly_once": {"delivery": "exactly_once"},
    "overload": {"overloaded": True},
    "prefill": {"cold_ratio": 0.5},
    "embedded": {"transactional": False},
    "embedded_overload": {"transactional": False, "overloaded": True, "cold_ratio": 0.5},
}


def run(mode: str, fate: FateOf = lambda number, name, process: None, seed: int = 0) -> list[str]:
    """The schedule: plays of every kind, two workers that are started again when they end. Returns the names of its steps."""
    with scripted_world(seed=seed, **MODES[mode]) as world:
        guarantee = Guarantee(world)
        world.broker.fate = fate
        world.run(_schedule(world, guarantee))
        guarantee.check_end()
        return world.broker.steps


async def _schedule(world: World, guarantee: Guarantee) -> None:
    # Without transactions there is no fence, so one worker at a time.
    num_workers = NUM_WORKERS if world.transactional else 1
    async with asyncio.timeout(DEADLINE_S):
        for number in range(NUM_PLAYS):
            _produce(guarantee, number)
            if number % 4 == 0:
                world.keep_running(num_workers)
                await asyncio.sleep(0.3)
        while not guarantee.caught_up:
            world.keep_running(num_workers)
            await asyncio.sleep(1)
    for process in world.alive:
        process.stop()
    await asyncio.sleep(60)
    assert not world.alive, "a worker does not end"


def _produce(guarantee: Guarantee, number: int) -> None:
    user = number % 6
    if number % 7 == 4:
        guarantee.repeat(user)
    elif number % 11 == 5:
        guarantee.produce(user, late_s=20)
    elif number % 13 == 7:
        guarantee.produce(user, value=b"no play")
    elif number % 17 == 9:
        guarantee.forget(user)
    else:
        guarantee.produce(user)


def test_the_schedule_meets_every_kind_of_step() -> None:
    assert set(run("kafka")) == {
        "heartbeat", "fence", "changelog's end", "read changelog", "committed offset", "publish", "changelog", "offsets",
        "commit",
    }  # fmt: skip
    assert {"publish", "changelog", "commit offset"} <= set(run("embedded"))


@pytest.mark.parametrize("mode", MODES)
def test_plays_are_named_by_others_in_overload_and_never_else(mode: str) -> None:
    with scripted_world(seed=0, **MODES[mode]) as world:
        guarantee = Guarantee(world)
        world.run(_schedule(world, guarantee))
        assert bool(guarantee.named()) == world.overloaded


def steps_of(mode: str, full: bool, part: int) -> list[int]:
    """Of the schedule's steps all; or those that decide, and every fourth of the others."""
    steps = [(number, name) for number, name in enumerate(run(mode)) if name != "heartbeat"]
    deciding = [number for number, name in steps if name in DECIDING]
    others = [number for number, name in steps if name not in DECIDING]
    return sorted(deciding + (others if full else others[part % 4 :: 4]))


# Without transactions nothing keeps an older record from coming after a newer one.
@pytest.mark.parametrize(
    ("mode", "fate"), [(m, f) for m in MODES for f in Fate if f is not Fate.LATE or not m.startswith("embedded")]
)
def test_each_step_meets_each_fate(mode: str, fate: Fate, full_faults: bool, fault_row: FaultRow) -> None:
    steps = steps_of(mode, full_faults, part=list(Fate).index(fate))
    for step in steps:
        run(mode, lambda number, name, process, step=step: fate if number == step else None)
    fault_row(f"twin: each call {fate.value}, {mode}", schedules=len(steps))


@pytest.mark.parametrize("fate", [Fate.FAILS, Fate.ANSWER_LOST])
@pytest.mark.parametrize("mode", MODES)
def test_a_worker_is_told_to_stop_while_a_step_of_it_fails(
    mode: str, fate: Fate, full_faults: bool, fault_row: FaultRow
) -> None:
    def stop(number: int, name: str, process: ScriptedProcess, *, step: int) -> Fate | None:
        if number != step:
            return None
        process.stop()
        return fate

    steps = steps_of(mode, full_faults, part=0)
    for step in steps:
        run(mode, partial(stop, step=step))
    fault_row(f"twin: stopped at each call, {fate.value}, {mode}", schedules=len(steps))


@pytest.mark.parametrize("mode", ["kafka", "exactly_once"])
def test_a_worker_stands_still_at_each_step_and_returns_as_a_zombie(
    mode: str, full_faults: bool, fault_row: FaultRow
) -> None:
    def freeze(number: int, name: str, process: ScriptedProcess, *, step: int) -> None:
        if number == step:
            process.freeze()
            process.world.loop.call_later(2.5 * SESSION_TIMEOUT_S, process.thaw)

    steps = steps_of(mode, full_faults, part=1)
    for step in steps:
        run(mode, partial(freeze, step=step))
    fault_row(f"twin: a zombie at each call, {mode}", schedules=len(steps))
