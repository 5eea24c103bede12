"""The guarantee under any schedule: plays of every kind, workers that start, stop, crash and stall, calls that fail.

Hypothesis writes the schedule; the oracle is asked at every instant at which committed state changes, and once all is quiet.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.property.guarantee import Guarantee
from tests.property.scripted_broker import Fate
from tests.property.scripted_worker import World
from tests.property.scripted_world import scripted_world
from tests.rigs.fault_report import FaultRow

DEADLINE_S = 900.0
MAX_WORKERS = 3
#: More would make a worker give a partition up as hopeless, which it should.
MAX_FATES = 8
STEPS = ["fence", "changelog's end", "read changelog", "committed offset", "publish", "changelog", "offsets", "commit"]
PLAYS = st.tuples(
    st.integers(0, 5), st.sampled_from(["play", "play", "play", "again", "late", "no play", "gap", "forget"])
)


class Delivery(RuleBasedStateMachine):
    """Schedules on a broker with transactions."""

    options: ClassVar[dict[str, object]] = {}
    fates = tuple(Fate)
    num_workers = 2

    @initialize(seed=st.integers(0, 1 << 16))
    def start(self, seed: int) -> None:
        self.context = scripted_world(seed=seed, **self.options)
        self.world: World = self.context.__enter__()
        self.guarantee = Guarantee(self.world)
        self.waiting: defaultdict[str, deque[Fate]] = defaultdict(deque)
        self.world.broker.fate = lambda number, name, process: (
            self.waiting[name].popleft() if self.waiting[name] else None
        )
        self.num_fates = 0
        self.world.keep_running(self.num_workers)
        self.let_pass(1.0)

    @rule(plays=st.lists(PLAYS, min_size=1, max_size=12))
    def produce(self, plays: list[tuple[int, str]]) -> None:
        guarantee = self.guarantee
        for user, kind in plays:
            if kind == "gap":
                guarantee.leave_a_gap(user % self.world.broker.num_partitions)
            elif kind == "forget":
                guarantee.forget(user)
            elif kind == "again":
                guarantee.repeat(user)
            else:
                late_s = 15.0 if kind == "late" else 0.0
                guarantee.produce(user, late_s=late_s, value=b"no play" if kind == "no play" else None)

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.2, 1.0, 5.0, 20.0]))
    def let_pass(self, seconds: float) -> None:
        self.world.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.num_fates < MAX_FATES)
    @rule(step=st.sampled_from(STEPS), data=st.data())
    def meet(self, step: str, data: st.DataObject) -> None:
        """The next such step meets a fate."""
        self.waiting[step].append(data.draw(st.sampled_from(self.fates)))
        self.num_fates += 1

    @rule(which=st.integers(0, MAX_WORKERS - 1))
    def kill(self, which: int) -> None:
        if alive := self.world.alive:
            alive[which % len(alive)].kill()
        self.world.keep_running(1)

    @rule(which=st.integers(0, MAX_WORKERS - 1))
    def stop(self, which: int) -> None:
        if alive := self.world.alive:
            alive[which % len(alive)].stop()

    @rule(which=st.integers(0, MAX_WORKERS - 1), seconds=st.sampled_from([0.3, 4.0, 12.0]))
    def think(self, which: int, seconds: float) -> None:
        """Inference hangs for a while, longer than a rebalance waits for it."""
        if alive := self.world.alive:
            alive[which % len(alive)].think_s.append(seconds)

    @rule()
    def rebalance(self) -> None:
        self.world.group.rebalance()

    @rule()
    def compact(self) -> None:
        for log in self.world.broker.topic(self.world.settings.changelog_topic):
            log.compact()

    def quieten(self) -> None:
        """Everything is mended, and what is left to be done is done."""
        self.waiting.clear()
        for process in self.world.processes:
            process.thaw()
        self.world.run(self._catch_up())
        self.guarantee.check_end()

    async def _catch_up(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not self.guarantee.caught_up:
                self.world.keep_running(self.num_workers)
                await asyncio.sleep(1)
            for process in self.world.alive:
                process.stop()
            while self.world.alive:  # noqa: ASYNC110  # virtual time: nothing is polled
                await asyncio.sleep(1)
        self.world.keep_running(0)

    def teardown(self) -> None:
        try:
            self.quieten()
        finally:
            self.context.__exit__(None, None, None)


class DeliveryOnKafka(Delivery):
    """With zombies, and as many workers as like."""

    @precondition(lambda self: len(self.world.alive) < MAX_WORKERS)
    @rule()
    def join(self) -> None:
        self.world.start()

    @rule(which=st.integers(0, MAX_WORKERS - 1))
    def freeze(self, which: int) -> None:
        """SIGSTOP: after the session timeout the group goes on without it."""
        if alive := self.world.alive:
            alive[which % len(alive)].freeze()

    @rule()
    def thaw(self) -> None:
        """All that stood still go on, and do not know what happened meanwhile."""
        for process in self.world.processes:
            process.thaw()


class DeliveryExactlyOnce(DeliveryOnKafka):
    """Outputs in the transaction: each is seen once, without removing anything."""

    options: ClassVar = {"delivery": "exactly_once"}


class DeliveryInOverload(DeliveryOnKafka):
    """Plays of a member that meet in a micro-batch share an answer, now and then: a replay has other runs.

    And some members' answers are held back, so that others overtake them.
    """

    options: ClassVar = {"overloaded": True, "cold_ratio": 0.5}


class DeliveryExactlyOnceInOverload(DeliveryOnKafka):
    """The same, with each play answered or named once without removing anything."""

    options: ClassVar = {"overloaded": True, "cold_ratio": 0.5, "delivery": "exactly_once"}


class DeliveryWithoutTransactions(Delivery):
    """One worker at a time: nothing fences a second one, nor an old request."""

    options: ClassVar = {"transactional": False}
    fates = tuple(fate for fate in Fate if fate is not Fate.LATE)
    num_workers = 1


def _run(machine: type[Delivery], mode: str, full: bool, fault_row: FaultRow) -> None:
    num_schedules = 300 if full else 40
    run_state_machine_as_test(
        machine, settings=settings(max_examples=num_schedules, stateful_step_count=40, deadline=None)
    )
    fault_row(f"twin: schedules of every kind, {mode}", schedules=num_schedules)


@pytest.mark.timeout(900)
def test_on_kafka(full_faults: bool, fault_row: FaultRow) -> None:
    _run(DeliveryOnKafka, "kafka", full_faults, fault_row)


@pytest.mark.timeout(900)
def test_exactly_once(full_faults: bool, fault_row: FaultRow) -> None:
    _run(DeliveryExactlyOnce, "exactly_once", full_faults, fault_row)


@pytest.mark.timeout(900)
def test_in_overload(full_faults: bool, fault_row: FaultRow) -> None:
    _run(DeliveryInOverload, "overload", full_faults, fault_row)


@pytest.mark.timeout(900)
def test_exactly_once_in_overload(full_faults: bool, fault_row: FaultRow) -> None:
    _run(DeliveryExactlyOnceInOverload, "exactly_once, overload", full_faults, fault_row)


@pytest.mark.timeout(900)
def test_without_transactions(full_faults: bool, fault_row: FaultRow) -> None:
    _run(DeliveryWithoutTransactions, "embedded", full_faults, fault_row)
