"""The trainer process: follows the plays into the event log, retrains on a schedule, announces what passes the gate.

    start   health → lock (one trainer leads) → event log → newest announcement → plays
    then    every interval: log on disk → training run in a child process → still leading? → announcement, last of all
    end     SIGTERM, SIGINT: the run is killed, plays at hand are flushed, the lock is given back; exit 0
            another trainer leads, or topic and log are not of one another: the same, with the error's exit code

Nothing here loads torch. Killed at any moment it leaves no half bundle announced, and every play once in the event log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import BrokerError
from stream.bundles.announcements import AnnouncementFollower, announce
from stream.kafka.broker_checks import uses_transactions
from stream.ops.health import HealthServer
from stream.ops.metrics import Metrics, TrainerOutcome
from stream.settings import Settings
from stream.trainer.event_log import EventLog
from stream.trainer.event_log_writer import EventLogWriter
from stream.trainer.leader_lock import LeaderLock, leader_lock
from stream.trainer.log_follower import LogFollower
from stream.trainer.retrain_job import RetrainJob, RetrainResult
from stream.trainer.retrain_process import COMMAND, run_retrain
from stream.wire.messages import Announcement

logger = logging.getLogger(__name__)

EXIT_NOT_DRAINED = 9
_RETRY_S = 1.0


class TrainerProcess:
    """One trainer, from start to end, on the running event loop. ``retrain_command`` runs a training run."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        retrain_command: Sequence[str] = COMMAND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.health_port = 0
        self.last_result: RetrainResult | None = None
        self._command = retrain_command
        self._clock = clock
        self._stop = asyncio.Event()
        self._not_ready: str | None = "starting"
        self._log_trouble: str | None = None
        self._lock: LeaderLock | None = None
        self._follower: LogFollower | None = None
        self._serving: Announcement | None = None

    def stop(self) -> None:
        """Asks for an orderly end, as SIGTERM does."""
        self._stop.set()

    async def run(self) -> None:
        """Works until stopped.

        Raises: the IntentRecError that ended the process, after an orderly close of what could be closed.
        """
        settings = self.settings
        health = HealthServer(
            settings.metrics_host, settings.metrics_port, self.metrics.registry, live=self._live, ready=self._ready
        )
        self.health_port = await health.start()
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._until_stopped(self._work(stack))
                self._not_ready = "ending"
        finally:
            await health.stop()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        working = asyncio.create_task(work)
        try:
            await asyncio.wait({stopped, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            working.cancel()
            await asyncio.wait({stopped, working})
        if not working.cancelled():
            working.result()

    async def _work(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        domain = load_domain(settings.domain)
        lock = await self._lead(stack)
        writer = await self._open_log()
        stack.callback(writer.close)
        announced = await stack.enter_async_context(AnnouncementFollower(settings))
        self._heard(*await announced.read())
        follower = LogFollower(settings, domain, writer, self.metrics, self._log_troubles)
        stack.push_async_callback(follower.stop)
        await follower.start()
        self._follower, self._not_ready = follower, None
        await _first_to_end(
            follower.run(),
            follower.watch_lag(),
            self._listen(announced),
            self._on_schedule(lock, follower),
            _lost(lock),
        )

    async def _lead(self, stack: contextlib.AsyncExitStack) -> LeaderLock:
        self._not_ready = "waiting for the lock: another trainer may lead"
        # Asked of the broker, whatever the workers were told to use: only one without transactions is of one machine.
        can = await uses_transactions(self.settings.model_copy(update={"transactions": "auto"}))
        lock = leader_lock(self.settings, transactional=can)
        stack.push_async_callback(lock.release)
        await lock.acquire()
        self._lock = lock
        return lock

    async def _open_log(self) -> EventLogWriter:
        """The event log, as soon as the disk lets us write it."""
        while True:
            try:
                return await asyncio.to_thread(EventLogWriter, self.settings.event_log_dir, self.settings.plays_topic)
            except OSError as error:
                self._not_ready = f"the event log cannot be opened: {error.strerror or error}"
                logger.warning("%s; trying again", self._not_ready)
                await asyncio.sleep(_RETRY_S)

    # --- announcements

    async def _listen(self, announced: AnnouncementFollower) -> None:
        async for announcement in announced.follow():
            self._heard(announcement)

    def _heard(self, *announcements: Announcement) -> None:
        for announcement in announcements:
            if self._serving is None or announcement.sequence > self._serving.sequence:
                self._serving = announcement
                self.metrics.bundle_sequence.set(announcement.sequence)

    # --- training

    async def _on_schedule(self, lock: LeaderLock, follower: LogFollower) -> None:
        """The first run comes one interval after the start; where nothing serves yet, as soon as there are plays."""
        interval_s = self.settings.retrain_interval_s
        next_s = self._clock() + (interval_s if self._serving else 0.0)
        while True:
            await self._something_to_do()
            await asyncio.sleep(max(0.0, next_s - self._clock()))
            started_s = self._clock()
            await self._run_once(lock, follower)
            # After a long run the next one still gives the plays a moment to come.
            next_s = max(started_s + interval_s, self._clock() + min(interval_s, _RETRY_S))

    async def _something_to_do(self) -> None:
        """Returns when a bundle serves, or there are plays for a first one."""
        log = EventLog(self.settings.event_log_dir, self.settings.plays_topic)
        while True:
            if self._serving is not None or await asyncio.to_thread(log.num_plays) >= self.settings.retrain_min_plays:
                return
            await asyncio.sleep(_RETRY_S)

    async def _run_once(self, lock: LeaderLock, follower: LogFollower) -> None:
        await follower.logged()
        serving, started_s = self._serving, self._clock()
        result = await run_retrain(self._job(serving), self._command)
        if result.outcome is TrainerOutcome.PUBLISHED:
            result = await self._announce(lock, result, serving)
        self._note(result, self._clock() - started_s)

    async def _announce(self, lock: LeaderLock, result: RetrainResult, serving: Announcement | None) -> RetrainResult:
        """Announces the bundle of a run that passed; it is whole in the store. Last of all steps."""
        assert result.bundle is not None
        try:
            await lock.confirm(result.bundle)
            if self._serving is not serving:
                # A rollback, say: what this bundle was compared with no longer serves.
                return _failed(result, "another bundle was announced meanwhile; this one is dropped")
            told = await announce(
                self.settings, bundle=result.bundle, url=self.settings.bundle_url, parent=result.parent
            )
        except BrokerError as error:
            if lock.lost.is_set():
                raise
            return _failed(result, str(error))
        self._heard(told)
        self.metrics.trainer_published.set_to_current_time()
        logger.info("announced %s as number %d", told.bundle, told.sequence)
        return result

    def _job(self, serving: Announcement | None) -> RetrainJob:
        settings = self.settings
        running: list[tuple[str, str]] = []
        if serving is not None:
            running = [(version, serving.url) for version in (serving.bundle, serving.parent) if version is not None]
        return RetrainJob(
            event_log_dir=str(settings.event_log_dir),
            topic=settings.plays_topic,
            domain=settings.domain,
            bundle_url=settings.bundle_url,
            cache_dir=str(settings.cache_dir),
            running=tuple(running),
            catalogue=None if settings.catalogue is None else str(settings.catalogue),
            device=settings.device,
            budget_s=settings.retrain_budget_s or settings.retrain_interval_s / 2,
            min_plays=settings.retrain_min_plays,
            max_plays=settings.retrain_max_plays,
            gate_margin=settings.gate_margin,
        )

    def _note(self, result: RetrainResult, seconds: float) -> None:
        self.last_result = result
        metrics = self.metrics
        metrics.trainer_runs.labels(result.outcome).inc()
        if result.outcome is TrainerOutcome.GATED and result.reason is not None:
            metrics.trainer_gated.labels(result.reason).inc()
        if result.outcome is not TrainerOutcome.SKIPPED:
            metrics.trainer_run_seconds.observe(seconds)
        if result.candidate_hr_at_10 is not None:
            metrics.trainer_candidate_ratio.set(result.candidate_hr_at_10)
        if result.running_hr_at_10 is not None:
            metrics.trainer_running_ratio.set(result.running_hr_at_10)
        is_bad = result.outcome in (TrainerOutcome.FAILED, TrainerOutcome.GATED)
        logger.log(
            logging.WARNING if is_bad else logging.INFO,
            "training run %s after %.1f s: %s", result.outcome.value, seconds, result.detail,
        )  # fmt: skip

    # --- health

    def _log_troubles(self, trouble: str | None) -> None:
        self._log_trouble = trouble

    def _live(self) -> str | None:
        stalled_s = self._follower.stalled_s() if self._follower else 0.0
        return f"no progress for {stalled_s:.0f} s" if stalled_s > self.settings.progress_deadline_s else None

    def _ready(self) -> str | None:
        return "ending" if self._stop.is_set() else self._not_ready or self._log_trouble


def _failed(result: RetrainResult, detail: str) -> RetrainResult:
    return msgspec.structs.replace(result, outcome=TrainerOutcome.FAILED, detail=detail)


async def _lost(lock: LeaderLock) -> None:
    await lock.lost.wait()
    await lock.confirm("")  # raises what has happened


async def _first_to_end(*work: Coroutine[Any, Any, None]) -> None:
    """Runs all until one ends or fails; the others are cancelled, and waited for."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_until_signal(process: TrainerProcess) -> None:
    """Runs a trainer; SIGTERM and SIGINT end it in good order, or by force at the drain deadline.

    Raises: what TrainerProcess.run raises.
    """
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        logger.info("%s: ending", number.name)
        process.stop()
        loop.call_later(process.settings.drain_deadline_s, _force_exit, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await process.run()


def _force_exit(number: signal.Signals) -> None:
    # A disk that hangs cannot be cancelled. Plays that are not on it are read again by the next trainer.
    logger.error("%s: did not end in time, ending by force", number.name)
    logging.shutdown()
    os._exit(EXIT_NOT_DRAINED)


def run_trainer(settings: Settings, *, retrain_command: Sequence[str] = COMMAND) -> int:
    """Runs a trainer process until it is told to end. Blocking; installs signal handlers. Returns 0.

    Raises: IntentRecError whose exit code the process should end with.
    """

    async def run() -> None:
        await run_until_signal(TrainerProcess(settings, Metrics(), retrain_command=retrain_command))

    asyncio.run(run())
    return 0
