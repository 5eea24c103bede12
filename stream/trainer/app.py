"""The trainer process: copies plays into the event log, retrains on a schedule, announces bundles that pass the gate.

    start   health server → leader lock (one trainer leads) → event log → newest announcement → plays
    then    every interval: flush the log → training run in a child process → confirm the lead → announce, as the last step
    end     on SIGTERM or SIGINT: kill the run, flush buffered plays, release the lock; exit 0, or 9 if the disk refuses the plays
            if another trainer leads, or topic and log do not match: the same, with the error's exit code

This process never loads torch. If it is killed at any moment, no partial bundle is announced and the event log holds every
play exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from intentrec_core.device import require_torch
from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import BrokerError, IntentRecError, NotDrained
from stream.bundles.announcements import AnnouncementFollower, announce
from stream.kafka.broker_checks import supports_transactions
from stream.kafka.item_counts_reader import ItemCountsReader
from stream.ops.health import serve_health
from stream.ops.metrics import Metrics, TrainerOutcome
from stream.ops.process_end import EXIT_NOT_DRAINED, first_to_end, run_until_signal
from stream.settings import Settings
from stream.trainer.catalogue_export import export_catalogue
from stream.trainer.counts_writer import CountsWriter
from stream.trainer.event_log import EventLog
from stream.trainer.event_log_writer import EventLogWriter
from stream.trainer.leader_lock import LeaderLock, leader_lock
from stream.trainer.log_follower import LogFollower
from stream.trainer.play_counter import PlayCounter
from stream.trainer.retrain_job import GateReason, RetrainJob, RetrainResult
from stream.trainer.retrain_process import COMMAND, run_retrain
from stream.wire.messages import Announcement

logger = logging.getLogger(__name__)

_RETRY_S = 1.0


class TrainerProcess:
    """One trainer, owned by the running event loop; call :meth:`run` once. ``retrain_command`` starts a training run."""

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
        for reason in GateReason:  # at 0 from the start, so that an alert sees the first gated run
            metrics.trainer_gated.labels(reason)
        #: Called once when the end begins, whatever began it.
        self.on_ending: Callable[[], None] = lambda: None
        #: The code to exit with if the rest of the end hangs.
        self.exit_code = EXIT_NOT_DRAINED
        self._command = retrain_command
        self._clock = clock
        self._stop = asyncio.Event()
        self._not_ready: str | None = "starting"
        self._log_error: str | None = None
        self._is_flushed = True
        self._lock: LeaderLock | None = None
        self._follower: LogFollower | None = None
        self._serving: Announcement | None = None

    def stop(self) -> None:
        """Requests an orderly end, as SIGTERM does."""
        self._stop.set()

    async def confirm_lead(self, token: str) -> None:
        """Asks the broker whether this trainer leads; ``token`` differs each time.

        Raises: BrokerError, Fenced as :meth:`LeaderLock.confirm`; BrokerError before it leads.
        """
        if self._lock is None:
            raise BrokerError("this trainer does not lead yet")
        await self._lock.confirm(token)

    async def run(self) -> None:
        """Works until stopped.

        Raises: the IntentRecError that ended the process, after everything that can be closed in order was closed.
        """
        settings = self.settings
        async with serve_health(settings, self.metrics, live=self._live, ready=self._ready) as self.health_port:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    await self._until_stopped(self._work(stack))
                except IntentRecError as error:
                    self.exit_code = error.exit_code
                    raise
            if not self._is_flushed:
                raise NotDrained(
                    f"the last plays read are not in the event log {settings.event_log_dir}: {self._log_error}. The next trainer "
                    "reads them again; none are lost"
                )
            self.exit_code = 0

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        working = asyncio.create_task(work)
        try:
            await asyncio.wait({stopped, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._begin_ending()
            stopped.cancel()
            working.cancel()
            await asyncio.wait({stopped, working})
        if not working.cancelled():
            working.result()

    def _begin_ending(self) -> None:
        self._not_ready = "stopping"
        self.on_ending()

    async def _work(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        domain = load_domain(settings.domain)
        lock = await self._take_lead(stack)
        writer = await self._open_log()
        stack.callback(writer.close)
        announced = await stack.enter_async_context(AnnouncementFollower(settings))
        self._note_announcements(*await announced.read())
        counter, counts_writer = await self._begin_counting()
        follower = LogFollower(settings, domain, writer, self.metrics, self._set_log_error, on_plays=counter.take)
        stack.push_async_callback(self._stop_following, follower)
        await follower.start()
        self._follower, self._not_ready = follower, None
        serving = self._serving.bundle if self._serving else "no bundle yet"
        logger.info("ready: logging %s to %s; serving: %s", settings.plays_topic, settings.event_log_dir, serving)
        await first_to_end(
            follower.run(),
            follower.watch_lag(),
            self._follow_announcements(announced),
            self._retrain_on_schedule(lock, follower),
            counts_writer.run(),
            _raise_when_lost(lock),
        )

    async def _stop_following(self, follower: LogFollower) -> None:
        self._is_flushed = await follower.stop()

    async def _take_lead(self, stack: contextlib.AsyncExitStack) -> LeaderLock:
        self._not_ready = "waiting for the leader lock: another trainer may lead"
        # Detected from the broker, not from the workers' setting: only the embedded broker, on one machine, lacks transactions.
        logger.info("connecting to the broker %s", self.settings.broker)
        can = await supports_transactions(self.settings)
        lock = leader_lock(self.settings, transactional=can)
        stack.push_async_callback(lock.release)
        logger.info("waiting for the lead: only one trainer of %s trains", self.settings.app_id)
        await lock.acquire()
        logger.info("this trainer leads")
        self._lock = lock
        return lock

    async def _open_log(self) -> EventLogWriter:
        """Opens the event log, retrying until the disk is writable."""
        while True:
            try:
                return await asyncio.to_thread(EventLogWriter, self.settings.event_log_dir, self.settings.plays_topic)
            except OSError as error:
                self._not_ready = f"the event log cannot be opened: {error.strerror or error}"
                logger.warning("%s; retrying", self._not_ready)
                await asyncio.sleep(_RETRY_S)

    # --- counts of plays

    async def _begin_counting(self) -> tuple[PlayCounter, CountsWriter]:
        """Goes on from the newest table on the topic.

        Raises: BrokerError when the topic cannot be read; DataError when the log cannot.
        """
        settings, counter = self.settings, PlayCounter()
        async with ItemCountsReader(settings) as reader:
            newest = await reader.to_the_end()
        log = EventLog(settings.event_log_dir, settings.plays_topic)
        goes_on = await asyncio.to_thread(counter.begin, newest, log)
        logger.info(
            "counting plays: %d items, %s", len(counter.fold), "from the newest table on" if goes_on else "anew"
        )
        continues = newest if goes_on else None
        return counter, CountsWriter(
            settings, self.metrics, counter, continues, reader.last_sequence, self.confirm_lead
        )

    # --- announcements

    async def _follow_announcements(self, announced: AnnouncementFollower) -> None:
        async for announcement in announced.follow():
            self._note_announcements(announcement)

    def _note_announcements(self, *announcements: Announcement) -> None:
        for announcement in announcements:
            if self._serving is None or announcement.sequence > self._serving.sequence:
                self._serving = announcement
                self.metrics.bundle_sequence.set(announcement.sequence)

    # --- training

    async def _retrain_on_schedule(self, lock: LeaderLock, follower: LogFollower) -> None:
        """Runs training every interval. The first run waits one interval; without a serving bundle, only for enough plays."""
        interval_s = self.settings.retrain_interval_s
        next_s = self._clock() + (interval_s if self._serving else 0.0)
        while True:
            await self._wait_until_trainable()
            await asyncio.sleep(max(0.0, next_s - self._clock()))
            started_s = self._clock()
            await self._run_once(lock, follower)
            # After a run longer than the interval, pause briefly so that new plays can arrive.
            next_s = max(started_s + interval_s, self._clock() + min(interval_s, _RETRY_S))

    async def _wait_until_trainable(self) -> None:
        """Returns once a bundle is serving, or the log has enough plays to train a first one."""
        log = EventLog(self.settings.event_log_dir, self.settings.plays_topic)
        while True:
            if self._serving is not None or await asyncio.to_thread(log.num_plays) >= self.settings.retrain_min_plays:
                return
            await asyncio.sleep(_RETRY_S)

    async def _run_once(self, lock: LeaderLock, follower: LogFollower) -> None:
        await follower.flushed()
        serving, started_s = self._serving, self._clock()
        result = await self._retrain(serving)
        if result.outcome is TrainerOutcome.PUBLISHED:
            result = await self._announce(lock, result, serving)
        self._record_result(result, self._clock() - started_s)

    async def _retrain(self, serving: Announcement | None) -> RetrainResult:
        job = self._job(serving)
        if self.settings.catalogue_source == "topic":
            try:
                exported = await export_catalogue(self.settings, self.metrics)
            except (IntentRecError, OSError) as error:
                detail = " ".join(f"the catalogue cannot be taken from the items topic: {error}".split())
                return RetrainResult(outcome=TrainerOutcome.FAILED, detail=detail)
            job = msgspec.structs.replace(job, catalogue=str(exported), catalogue_is_whole=True)
        return await run_retrain(job, self._command)

    async def _announce(self, lock: LeaderLock, result: RetrainResult, serving: Announcement | None) -> RetrainResult:
        """Announces the bundle of a run that passed the gate, as the last step: the bundle is complete in the store by now."""
        assert result.bundle is not None
        try:
            await self.confirm_lead(result.bundle)
            if self._serving is not serving:
                # For example a rollback: the bundle that this one was compared with no longer serves.
                return _failed(result, "another bundle was announced during the run; this one is dropped")
            announced = await announce(
                self.settings, bundle=result.bundle, url=self.settings.bundle_url, parent=result.parent
            )
        except BrokerError as error:
            if lock.lost.is_set():
                raise
            return _failed(result, str(error))
        self._note_announcements(announced)
        self.metrics.trainer_published.set_to_current_time()
        logger.info("announced bundle %s, sequence number %d", announced.bundle, announced.sequence)
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
            index=settings.index,
        )

    def _record_result(self, result: RetrainResult, seconds: float) -> None:
        self.last_result = result
        metrics = self.metrics
        metrics.trainer_runs.labels(result.outcome).inc()
        if result.outcome is TrainerOutcome.GATED and result.reason is not None:
            metrics.trainer_gated.labels(result.reason).inc()
        if result.outcome is not TrainerOutcome.SKIPPED:
            metrics.trainer_run_seconds.observe(seconds)
        for field, ratio in result.drift.items():
            metrics.data_drift.labels(field).set(ratio)
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

    def _set_log_error(self, error: str | None) -> None:
        self._log_error = error

    def _live(self) -> str | None:
        stalled_s = self._follower.stalled_s() if self._follower else 0.0
        return f"no progress for {stalled_s:.0f} s" if stalled_s > self.settings.progress_deadline_s else None

    def _ready(self) -> str | None:
        if self._stop.is_set():
            return "stopping"
        if self._follower is not None and self._follower.is_cut_off:
            return f"the broker {self.settings.broker} does not answer"
        return self._not_ready or self._log_error


def _failed(result: RetrainResult, detail: str) -> RetrainResult:
    return msgspec.structs.replace(result, outcome=TrainerOutcome.FAILED, detail=detail)


async def _raise_when_lost(lock: LeaderLock) -> None:
    await lock.lost.wait()
    await lock.confirm("")  # raises the reason


def run_trainer(settings: Settings, *, retrain_command: Sequence[str] = COMMAND) -> int:
    """Runs a trainer process until SIGTERM or SIGINT. Blocks; installs signal handlers. Returns 0.

    Raises: IntentRecError; end the process with its exit code. ConfigError where torch, which training needs, is not installed.
    """
    require_torch()

    async def run() -> None:
        await run_until_signal(TrainerProcess(settings, Metrics(), retrain_command=retrain_command))

    asyncio.run(run())
    return 0
