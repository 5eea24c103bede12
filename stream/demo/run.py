"""The demo: real people's plays through a broker, a worker and a trainer, watched by an independent observer.

    stage (broker, data, first bundle, processes) → replay the rest → wait until the worker has drained → figures

The replay and the observer run on this process's event loop; drawing and scraping run on a thread beside it, so that
they do not add to the latencies that are measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from intentrec_core.errors import IntentRecError
from intentrec_core.plays.table import play_rows
from stream.demo.console.snapshot import DemoPhase, DemoSnapshot
from stream.demo.console.spotlight import Spotlight
from stream.demo.figures import DemoResult, Figures
from stream.demo.observer import Observer
from stream.demo.stage import DemoEnvironment
from stream.kafka.replay import Pace, Replay
from stream.ops.scrape import scrape

if TYPE_CHECKING:
    import pyarrow as pa

    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.plays.table import PlayRow
    from stream.local_kafka.child import Child

#: After the last play: a swap under way takes seconds, a rebalance of the embedded broker some ten.
DRAIN_DEADLINE_S = 90.0
#: The outputs are acknowledged before the metrics count them; what is still on its way to the observer takes one poll.
_ARRIVAL_DEADLINE_S = 10.0
#: Fetching and verifying a bundle and moving members to it takes a second or two on an idle machine.
_SWAP_DEADLINE_S = 15.0
_FRAME_S = 0.25


class NotDrained(IntentRecError):
    """The worker did not fold in every play that was sent. The figures printed before say how many are missing."""


class Show(Protocol):
    """Draws a snapshot; called some four times a second, on a thread of its own."""

    def __call__(self, view: DemoSnapshot) -> None: ...


@dataclass(frozen=True, kw_only=True)
class ReplayPlan:
    """What is played: ``plays`` in time order, at ``pace``, for ``seconds`` at most, with ``num_members`` on the screen."""

    title: str
    plays: pa.Table
    catalogue: Catalogue
    pace: Pace
    seconds: float | None
    num_members: int
    seed: int
    first_bundle: str


def play(
    script: ReplayPlan, stage: DemoEnvironment, worker: tuple[Child, int], trainer: tuple[Child, int], show: Show
) -> DemoResult:
    """Replays, watches, drains; Ctrl-C ends the replay early and drains all the same, twice ends at once.

    Raises: NotDrained when plays are missing at the end; ChildEnded when a process ends by itself.
    """
    try:
        return asyncio.run(DemoRun(script, stage, worker, trainer, show).run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class DemoRun:
    """One replay with everything that watches it."""

    def __init__(
        self,
        script: ReplayPlan,
        stage: DemoEnvironment,
        worker: tuple[Child, int],
        trainer: tuple[Child, int],
        show: Show,
    ) -> None:
        self._script, self._show = script, show
        self._worker, self._worker_port = worker
        self._trainer, self._trainer_port = trainer
        titles = {item.item_id: item.title for item in script.catalogue}
        self._spotlight = Spotlight(script.num_members, titles, time.monotonic, script.seed)
        self._observer = Observer(
            stage.settings,
            on_recommendation=self._spotlight.on_recommendation,
            on_intent=self._spotlight.on_intent,
        )
        self._replay = Replay(stage.settings, script.pace, on_send=self._on_send)
        self._figures = Figures(
            observer=self._observer,
            replay=self._replay,
            spotlight=self._spotlight,
            title=script.title,
            first_bundle=script.first_bundle,
            planned_s=script.seconds,
            plays_planned=script.plays.num_rows,
        )
        self._stop = asyncio.Event()

    async def run(self) -> DemoResult:
        """The whole performance."""
        figures = self._figures
        with self._interrupts():
            await self._observer.start()
            watching = asyncio.create_task(self._watch(), name="watch")
            try:
                figures.started_s = time.monotonic()
                sending = asyncio.create_task(self._replay.run(self._until_time_is_up(), self._stop), name="replay")
                await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():  # it never ends by itself: something failed
                    self._stop.set()
                    await asyncio.gather(sending, return_exceptions=True)
                    watching.result()
                await sending
                figures.phase = DemoPhase.DRAINING
                await self._drain(watching)
                figures.phase = DemoPhase.DONE
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await self._observer.stop()
        await self._look()
        return figures.result()

    def _until_time_is_up(self) -> Iterator[PlayRow]:
        seconds = self._script.seconds
        began_s = time.monotonic()
        for row in play_rows(self._script.plays):
            if seconds is not None and time.monotonic() - began_s >= seconds:
                return
            yield row

    def _on_send(self, row: PlayRow, timestamp_ms: int) -> None:
        self._observer.note_sent(row.event_id, timestamp_ms)
        self._spotlight.on_play(row.user_id, row.item_id)

    async def _watch(self) -> None:
        while True:
            await self._look()
            self._worker.check()
            if self._figures.phase is DemoPhase.REPLAYING:
                self._trainer.check()
            if self._observer.failed is not None:
                raise self._observer.failed
            await asyncio.sleep(_FRAME_S)

    async def _look(self) -> None:
        """Scraping and drawing take tens of milliseconds and run beside the loop; what they share is read on it."""
        worker = await asyncio.to_thread(scrape, self._worker_port)
        trainer = await asyncio.to_thread(scrape, self._trainer_port)
        self._figures.take(worker, trainer)
        await asyncio.to_thread(self._show, self._figures.snapshot())

    async def _drain(self, watching: asyncio.Task[None]) -> None:
        """Waits until the worker has said what became of every play, and the observer has seen every list."""
        figures, sent = self._figures, self._replay.sent
        await self._until(lambda: figures.handled >= sent, DRAIN_DEADLINE_S, watching)
        ledgers = (self._observer.recommendations, self._observer.intents)
        await self._until(lambda: all(led.fresh >= figures.applied for led in ledgers), _ARRIVAL_DEADLINE_S, watching)
        # A bundle that was announced a moment ago is taking over: it belongs to this run.
        self._trainer.ask_to_stop()
        await self._until(lambda: figures.swapped + figures.refused >= figures.published, _SWAP_DEADLINE_S, watching)

    async def _until(self, done: Callable[[], bool], deadline_s: float, watching: asyncio.Task[None]) -> None:
        give_up_s = time.monotonic() + deadline_s
        while not done() and time.monotonic() < give_up_s:
            if watching.done():
                watching.result()
            await asyncio.sleep(_FRAME_S / 2)

    @contextlib.contextmanager
    def _interrupts(self) -> Iterator[None]:
        """The first Ctrl-C (or SIGTERM) ends the replay, the second one everything."""
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
