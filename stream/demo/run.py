"""Runs the demo: replays recorded plays through a broker, a worker and a trainer, watched by an independent observer.

    environment (broker, data, first bundle, processes) → replay the remaining plays → wait until the worker drains → result

Replay and observer run on this process's event loop. Drawing and scraping run in another thread, so that they do not add to the
measured latencies.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from intentrec_core.plays.table import play_rows
from stream.demo.console.snapshot import DemoPhase, DemoSnapshot
from stream.demo.console.spotlight import Spotlight
from stream.demo.environment import DemoEnvironment, MonitoredProcess
from stream.demo.observer import Observer
from stream.demo.stats import DemoResult, DemoStats
from stream.kafka.replay import Pace, Replay
from stream.ops.scrape import scrape

if TYPE_CHECKING:
    import pyarrow as pa

    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.plays.table import PlayRow

#: Wait after the last play: a swap in progress takes seconds, a rebalance of the embedded broker some ten.
DRAIN_DEADLINE_S = 90.0
#: Outputs are acknowledged before the metrics count them, so the last ones reach the observer within one poll.
_ARRIVAL_DEADLINE_S = 10.0
#: Fetching and verifying a bundle and moving members to it takes a second or two on an idle machine.
_SWAP_DEADLINE_S = 15.0
_FRAME_S = 0.25


class DrawSnapshot(Protocol):
    """Draws a snapshot. Called about four times a second, in a thread of its own."""

    def __call__(self, view: DemoSnapshot) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ReplayPlan:
    """What to replay: ``plays`` in time order, at ``pace``, for at most ``seconds``, showing ``num_members`` on the screen."""

    title: str
    plays: pa.Table
    catalogue: Catalogue
    pace: Pace
    seconds: float | None
    num_members: int
    seed: int
    first_bundle: str


def run_demo(
    plan: ReplayPlan,
    environment: DemoEnvironment,
    worker: MonitoredProcess,
    trainer: MonitoredProcess,
    draw: DrawSnapshot,
) -> DemoResult:
    """Replays the plan, then waits until the worker drains. Ctrl-C ends the replay early but still drains; twice ends at once.

    Raises: ChildEnded if a process ends by itself; KeyboardInterrupt after the second Ctrl-C.
    """
    try:
        return asyncio.run(DemoRun(plan, environment, worker, trainer, draw).run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class DemoRun:
    """One replay, its observer and its statistics."""

    def __init__(
        self,
        plan: ReplayPlan,
        environment: DemoEnvironment,
        worker: MonitoredProcess,
        trainer: MonitoredProcess,
        draw: DrawSnapshot,
    ) -> None:
        self._plan, self._draw = plan, draw
        self._worker, self._worker_port = worker
        self._trainer, self._trainer_port = trainer
        titles = {item.item_id: item.title for item in plan.catalogue}
        self._spotlight = Spotlight(plan.num_members, titles, time.monotonic, plan.seed)
        self._observer = Observer(
            environment.settings,
            on_recommendation=self._spotlight.on_recommendation,
            on_intent=self._spotlight.on_intent,
        )
        self._replay = Replay(environment.settings, plan.pace, on_send=self._on_send)
        self._stats = DemoStats(
            observer=self._observer,
            replay=self._replay,
            spotlight=self._spotlight,
            title=plan.title,
            first_bundle=plan.first_bundle,
            planned_s=plan.seconds,
            plays_planned=plan.plays.num_rows,
        )
        self._stop = asyncio.Event()

    async def run(self) -> DemoResult:
        """Replays, drains and returns the result."""
        stats = self._stats
        with self._interrupts():
            await self._observer.start()
            watching = asyncio.create_task(self._watch(), name="watch")
            try:
                stats.started_s = time.monotonic()
                sending = asyncio.create_task(self._replay.run(self._until_time_is_up(), self._stop), name="replay")
                await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():  # it ends only by an error
                    self._stop.set()
                    await asyncio.gather(sending, return_exceptions=True)
                    watching.result()
                await sending
                stats.phase = DemoPhase.DRAINING
                await self._drain(watching)
                stats.phase = DemoPhase.DONE
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await self._observer.stop()
        await self._refresh()
        return stats.result()

    def _until_time_is_up(self) -> Iterator[PlayRow]:
        seconds = self._plan.seconds
        began_s = time.monotonic()
        for row in play_rows(self._plan.plays):
            if seconds is not None and time.monotonic() - began_s >= seconds:
                return
            yield row

    def _on_send(self, row: PlayRow, timestamp_ms: int) -> None:
        self._observer.note_sent(row.event_id, timestamp_ms)
        self._spotlight.on_play(row.user_id, row.item_id)

    async def _watch(self) -> None:
        while True:
            await self._refresh()
            self._worker.check()
            if self._stats.phase is DemoPhase.REPLAYING:
                self._trainer.check()
            if self._observer.error is not None:
                raise self._observer.error
            await asyncio.sleep(_FRAME_S)

    async def _refresh(self) -> None:
        """Scrapes and draws. Both take tens of milliseconds and run in a thread; shared state is read on the event loop."""
        worker = await asyncio.to_thread(scrape, self._worker_port)
        trainer = await asyncio.to_thread(scrape, self._trainer_port)
        self._stats.take(worker, trainer)
        await asyncio.to_thread(self._draw, self._stats.snapshot())

    async def _drain(self, watching: asyncio.Task[None]) -> None:
        """Waits until the worker has counted the outcome of every play, and the observer has received every output."""
        stats, sent = self._stats, self._replay.sent
        await self._until(lambda: stats.handled >= sent, DRAIN_DEADLINE_S, watching)
        ledgers = (self._observer.recommendations, self._observer.intents)
        await self._until(
            lambda: all(ledger.fresh >= stats.applied for ledger in ledgers), _ARRIVAL_DEADLINE_S, watching
        )
        # A bundle announced a moment ago belongs to this run: wait until it has taken over.
        self._trainer.ask_to_stop()
        await self._until(lambda: stats.swapped + stats.refused >= stats.published, _SWAP_DEADLINE_S, watching)

    async def _until(self, done: Callable[[], bool], deadline_s: float, watching: asyncio.Task[None]) -> None:
        give_up_s = time.monotonic() + deadline_s
        while not done() and time.monotonic() < give_up_s:
            if watching.done():
                watching.result()
            await asyncio.sleep(_FRAME_S / 2)

    @contextlib.contextmanager
    def _interrupts(self) -> Iterator[None]:
        """The first Ctrl-C (or SIGTERM, SIGHUP) ends the replay, the second ends the demo."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "run by asyncio.run"

        def on_signal() -> None:
            if self._stop.is_set():
                task.cancel()
            self._stop.set()

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for number in before:
            loop.add_signal_handler(number, on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
