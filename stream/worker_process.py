"""One worker process: starts its parts in order, drains them, and ends.

start   health server → broker capabilities → topics are checked → pipeline, once there is a bundle → publisher
        → Faust app: it joins the group, and partitions are opened as they are assigned
end     stop(): no more plays are fetched; those in inference are committed; partitions are closed; the group is left
        a fatal error: the same, and then the error is raised
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer

from intentrec_core.errors import BrokerError, IntentRecError, NotDrained
from intentrec_core.history.changelog_codec import Marker
from stream.delivery.changelog import ChangelogWriter, PlainWriter, TransactionalWriter
from stream.delivery.faust_app import create_app, deliver_to, source_of
from stream.delivery.lag_monitor import watch_lag
from stream.delivery.partition import TaskDependencies
from stream.delivery.restore import read_changelog
from stream.delivery.worker import PlaysWorker
from stream.delivery.worker_metrics import WorkerMetrics
from stream.kafka.broker_checks import can_read_end_offsets, check_topics, look_deadline_s, uses_transactions
from stream.kafka.clients import mark_retrieved
from stream.kafka.outputs_producer import OutputsProducer
from stream.kafka.publisher import Publisher, max_batch_bytes
from stream.ops.health import serve_health
from stream.ops.process_end import EXIT_NOT_DRAINED, run_until_signal
from stream.wire.records import OutputKind
from stream.wire.sizes import DEFAULT_LIMITS, TopicLimits

if TYPE_CHECKING:
    from intentrec_core.history.history import EventLayout
    from stream.delivery.faust_app import PlaysApp
    from stream.delivery.inference_loop import PlaysPipeline
    from stream.delivery.transport import BatchConsumer
    from stream.ops.metrics import Metrics
    from stream.settings import Settings

logger = logging.getLogger(__name__)

#: New objects after which Python looks for cycles among them; 700 by default, which is several times in each micro-batch. What
#: waits for its commit is looked through again and again, and is in no cycle.
_COLLECT_AFTER = 20_000
#: run_until_signal and its exit code belong to stream.ops.process_end; every caller that runs a worker needs them too.
__all__ = ["EXIT_NOT_DRAINED", "WorkerParts", "WorkerProcess", "run_until_signal"]

#: The embedded broker delays a join by about the rebalance timeout, so the timeout is short there.
EMBEDDED_REBALANCE_TIMEOUT_S = 4.0
_STOP_DEADLINE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class WorkerParts:
    """The pipeline of a worker, the layout and domain fingerprint of its state, and the limits of the topics it writes to.

    ``background`` runs while the worker runs, until it is cancelled; model updates are followed there.
    """

    pipeline: PlaysPipeline[Any]
    layout: EventLayout
    fingerprint: str
    limits: TopicLimits = DEFAULT_LIMITS
    background: Callable[[PlaysWorker], Awaitable[None]] | None = None


#: Makes the parts for this number of partitions of the plays topic. It may wait, for example for a bundle.
MakeParts = Callable[[int], AbstractAsyncContextManager[WorkerParts]]


class WorkerProcess:
    """Owned by the running event loop; ``run`` is called once."""

    def __init__(self, settings: Settings, metrics: Metrics, make_parts: MakeParts) -> None:
        self.settings = settings
        self.metrics = metrics
        self.health_port = 0
        self._make_parts = make_parts
        self._stop = asyncio.Event()
        #: Called once when the end begins, whatever the reason.
        self.on_ending: Callable[[], None] = lambda: None
        self._ending = False
        #: The exit code if the rest of the end hangs: 9 until all processed plays are committed.
        self.exit_code = EXIT_NOT_DRAINED
        self._not_ready = "not connected to the broker yet"
        self._worker: PlaysWorker | None = None

    def stop(self) -> None:
        """Requests an orderly end, as SIGTERM does."""
        self._stop.set()

    async def run(self) -> None:
        """Works until stopped.

        Raises: the IntentRecError that ended the process, after everything that can be closed in order was closed.
        """
        async with serve_health(self.settings, self.metrics, live=self._live, ready=self._ready) as self.health_port:
            await self._until_stopped()

    async def _until_stopped(self) -> None:
        stop, work = asyncio.create_task(self._stop.wait()), asyncio.create_task(self._work())
        try:
            await asyncio.wait({stop, work}, return_when=asyncio.FIRST_COMPLETED)
            self._begin_ending()
            if self._worker is None and not work.done():
                self.exit_code = 0  # no plays were accepted yet, so there is nothing to drain
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # cancelled above
                await work
            self.exit_code = 0
        except IntentRecError as error:
            self.exit_code = error.exit_code
            raise
        finally:
            stop.cancel()

    async def _work(self) -> None:
        settings = self.settings
        async with contextlib.AsyncExitStack() as stack:
            logger.info("connecting to the broker %s", settings.broker)
            transactional = await uses_transactions(settings)
            num_partitions = await check_topics(settings)
            logger.info(
                "topic %s has %d partitions; looking for a bundle to serve", settings.plays_topic, num_partitions
            )
            self._not_ready = "no bundle to serve yet"
            parts = await stack.enter_async_context(self._make_parts(num_partitions))
            stack.callback(gc.set_threshold, *gc.get_threshold())
            gc.set_threshold(_COLLECT_AFTER)
            self._not_ready = "not in the group yet"
            logger.info("joining the group %s", settings.app_id)
            rebalance_s = settings.rebalance_timeout_s
            batch_bytes = max_batch_bytes(parts.limits)
            if not transactional:
                rebalance_s = min(rebalance_s, EMBEDDED_REBALANCE_TIMEOUT_S)
                logger.warning(
                    "the broker %s has no transactions: after a crash, plays can be answered twice", settings.broker
                )
            producer = await stack.enter_async_context(
                _outputs_producer(settings, batch_bytes, idempotent=transactional)
            )
            metrics = WorkerMetrics(self.metrics)
            publisher = Publisher(producer, _output_topics(settings), on_published=metrics.published)
            await publisher.start()
            stack.push_async_callback(publisher.stop)
            app = create_app(settings, rebalance_s)
            source = source_of(app)
            worker = PlaysWorker(
                settings,
                parts.pipeline,
                metrics,
                self._dependencies(parts, source, producer, publisher, transactional),
                None if settings.delivery == "exactly_once" else publisher,
                rebalance_timeout_s=rebalance_s,
            )
            await stack.enter_async_context(worker)
            deliver_to(app, worker)
            self._worker = worker
            stack.push_async_callback(_stop_app, app)
            await self._until_the_end(parts, app, worker, source)

    def _begin_ending(self) -> None:
        self._ending = True
        on_ending, self.on_ending = self.on_ending, lambda: None
        on_ending()

    async def _until_the_end(
        self, parts: WorkerParts, app: PlaysApp, worker: PlaysWorker, source: BatchConsumer
    ) -> None:
        settings = self.settings
        stop, crashed = asyncio.create_task(self._stop.wait()), asyncio.create_task(app._crashed.wait())
        starting = asyncio.create_task(app.start())
        deadline_s = look_deadline_s(settings)
        broker_answers = partial(can_read_end_offsets, settings, deadline_s)
        background: list[asyncio.Future[None]] = [
            asyncio.create_task(watch_lag(worker, source, deadline_s, broker_answers))
        ]
        if parts.background is not None:
            background.append(asyncio.ensure_future(parts.background(worker)))
        ends: set[asyncio.Future[Any]] = {stop, crashed, worker.fatal, *background}
        try:
            await _first_of(ends, starting)
            is_requested = stop.done()
            self._begin_ending()
            not_drained = await worker.drain()
            if worker.fatal.done():
                self.exit_code = worker.fatal.result().exit_code
                raise worker.fatal.result()
            if not not_drained:
                self.exit_code = 0
            for task in background:
                if task.done():
                    task.result()
            if crashed.done() and not is_requested:
                raise BrokerError(
                    f"the consumer of the plays topic crashed: {app.crash_reason!r}"
                ) from app.crash_reason
            if not_drained:
                numbers = ", ".join(map(str, sorted(not_drained)))
                raise NotDrained(
                    f"the last plays of {settings.plays_topic}, partition {numbers}, were processed but not committed: check the "
                    f"broker {settings.broker}. They are replayed at the next start; none are lost"
                )
        finally:
            started: list[asyncio.Future[Any]] = [stop, starting, crashed, *background]
            for future in started:
                future.cancel()
            await asyncio.gather(*started, return_exceptions=True)

    def _dependencies(
        self,
        parts: WorkerParts,
        source: BatchConsumer,
        producer: OutputsProducer,
        publisher: Publisher,
        transactional: bool,
    ) -> TaskDependencies:
        settings = self.settings
        exactly_once = settings.delivery == "exactly_once"

        def writer(partition: int, marker: Callable[[int], Marker]) -> ChangelogWriter:
            if transactional:
                outputs = publisher if exactly_once else None
                return TransactionalWriter(settings, partition, marker, outputs, max_batch_bytes(parts.limits))
            return PlainWriter(settings, partition, marker, producer, source.commit_source)

        def marker(num_partitions: int, next_offset: int) -> Marker:
            return Marker(
                num_partitions=num_partitions,
                next_offset=next_offset,
                fingerprint=parts.fingerprint,
                schema_version=settings.changelog_schema,
            )

        return TaskDependencies(
            source=source,
            writer=writer,
            marker=marker,
            restore=lambda partition: read_changelog(settings, partition, parts.layout),
            transactional=transactional,
            fingerprint=parts.fingerprint,
            commit_interval_s=settings.commit_interval_s,
            recovery_deadline_s=settings.recovery_deadline_s,
        )

    def _live(self) -> str | None:
        stalled_s = self._worker.progress.stalled_s() if self._worker else 0.0
        return None if stalled_s <= self.settings.progress_deadline_s else f"no progress for {stalled_s:.0f} s"

    def _ready(self) -> str | None:
        if self._ending:
            return "draining"
        if self._worker is None or not self._worker.joined:
            return self._not_ready
        if self._worker.is_cut_off:
            return f"the broker {self.settings.broker} does not answer"
        return None if self._worker.ready else "partitions are being restored"


async def _stop_app(app: PlaysApp) -> None:
    # A join in flight can delay Faust by the rebalance timeout. All partitions are closed by now.
    stopping = asyncio.ensure_future(app.stop())
    stopping.add_done_callback(mark_retrieved)
    await asyncio.wait([stopping], timeout=_STOP_DEADLINE_S)
    if not stopping.done():
        logger.warning("Faust did not stop within %.0f s; ending without waiting for it", _STOP_DEADLINE_S)
    elif stopping.exception() is not None:
        logger.warning("Faust raised an error when it stopped: %r", stopping.exception())


@contextlib.asynccontextmanager
async def _outputs_producer(
    settings: Settings, batch_bytes: int, *, idempotent: bool
) -> AsyncIterator[OutputsProducer]:
    def make() -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **settings.connection(),
            client_id=f"{settings.app_id}-outputs",
            enable_idempotence=idempotent,
            acks="all",
            max_batch_size=batch_bytes,
        )

    producer = OutputsProducer(make)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


async def _first_of(ends: set[asyncio.Future[Any]], starting: asyncio.Task[None]) -> None:
    """Returns when one of ``ends`` is done. Raises: BrokerError when the app does not start."""
    waiting: set[asyncio.Future[Any]] = {*ends, starting}
    while not any(end.done() for end in ends):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if starting in done and (error := starting.exception()) is not None:
            raise BrokerError(f"the worker could not start: {error!r}") from error


def _output_topics(settings: Settings) -> dict[OutputKind, str]:
    return {
        OutputKind.RECOMMENDATION: settings.recommendations_topic,
        OutputKind.INTENT: settings.intents_topic,
        OutputKind.DEAD_LETTER: settings.dead_letter_topic,
        OutputKind.LATE: settings.late_topic,
    }
