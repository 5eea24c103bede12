"""The worker process: Faust's app around our transport, and the order in which everything starts, drains and ends.

start   health → what the broker can do → topics as they must be → publisher → worker → Faust (joins the group)
end     SIGTERM, SIGINT: no more plays; what is in inference is committed; partitions closed; group left; exit 0
        an error that must not go on: the same, with the error's exit code
        past the drain deadline, when inference hangs: forced exit; nothing is lost, the last plays are replayed
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import faust
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest

from intentrec_core.changelog_codec import Marker
from intentrec_core.errors import BrokerError, ConfigError, IntentRecError, StateError
from stream.changelog import ChangelogWriter, PlainWriter, TransactionalWriter, close_producer
from stream.health import HealthServer
from stream.partition import LifeParts
from stream.publisher import BATCH_BYTES, Publisher
from stream.records import OutputKind
from stream.recovery import read_changelog
from stream.topics import count_partitions
from stream.transport import BatchTransport
from stream.worker import PlaysPipeline, PlaysWorker

if TYPE_CHECKING:
    from intentrec_core.history import EventLayout
    from stream.metrics import Metrics
    from stream.settings import Settings
    from stream.transport import BatchConsumer, PlaysSink

logger = logging.getLogger(__name__)

EXIT_NOT_DRAINED = 9
#: The embedded broker holds a join for about the rebalance timeout, so there it is short.
EMBEDDED_REBALANCE_TIMEOUT_S = 4.0
_BROKER_DEADLINE_S = 30.0
_LAG_INTERVAL_S = 5.0
#: aiokafka's own default takes no record above 1 MiB; a dead letter can be 1 MB and its headers.
_MAX_REQUEST_BYTES = 2 * 1024 * 1024


class PlaysApp(faust.App):
    """A Faust app that leaves no folders behind."""

    async def on_first_start(self) -> None:
        """Faust would create a data folder here; the state is in memory and on the broker."""


def create_app(settings: Settings, sink: PlaysSink, rebalance_timeout_s: float) -> PlaysApp:
    """A Faust app that is subscribed to the plays and hands them to ``sink`` in batches.

    Raises: TransportMismatch when the installed faust-streaming is not the one the transport was written for.
    """
    app = PlaysApp(
        settings.app_id,
        broker=[f"kafka://{address.strip()}" for address in settings.broker.split(",")],
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_session_timeout=settings.session_timeout_s,
        broker_rebalance_timeout=rebalance_timeout_s,
        stream_wait_empty=False,
    )
    app.transport = BatchTransport(
        app.conf.broker_consumer, app, settings=settings, sink=sink, rebalance_timeout_s=rebalance_timeout_s
    )
    app.boot_strategy.enable_kafka_producer = False  # outputs and changelog have producers of their own
    app.topics.add(app.topic(settings.plays_topic))
    return app


@dataclass(frozen=True, kw_only=True)
class WorkerParts:
    """What a worker process is given: the pipeline and what its state is made of, and who may swap bundles."""

    pipeline: PlaysPipeline
    layout: EventLayout
    fingerprint: str
    metrics: Metrics
    #: Runs beside the worker until cancelled; it gets a way onto the inference thread. Model updates come this way.
    background: Callable[[PlaysWorker], Awaitable[None]] | None = None


class WorkerProcess:
    """One worker, from start to end, on the running event loop."""

    def __init__(self, settings: Settings, parts: WorkerParts) -> None:
        self.settings = settings
        self.parts = parts
        self.health_port = 0
        self._stop = asyncio.Event()
        self._draining = False
        self._worker: PlaysWorker | None = None

    def stop(self) -> None:
        """Asks for an orderly end, as SIGTERM does."""
        self._stop.set()

    async def run(self) -> None:
        """Works until stopped.

        Raises: the IntentRecError that ended the process, after an orderly close of what could be closed.
        """
        settings, metrics = self.settings, self.parts.metrics
        health = HealthServer(
            settings.metrics_host, settings.metrics_port, metrics.registry, live=self._live, ready=self._ready
        )
        self.health_port = await health.start()
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._work(stack)
        finally:
            await health.stop()

    async def _work(self, stack: contextlib.AsyncExitStack) -> None:
        settings, parts = self.settings, self.parts
        transactional = await uses_transactions(settings)
        await check_topics(settings)
        rebalance_s = settings.rebalance_timeout_s
        if not transactional:
            rebalance_s = min(rebalance_s, EMBEDDED_REBALANCE_TIMEOUT_S)
            logger.warning("%s has no transactions: plays can be answered twice after a crash", settings.broker)
        producer = AIOKafkaProducer(
            **settings.connection(),
            client_id=f"{settings.app_id}-outputs",
            enable_idempotence=transactional,
            acks="all",
            max_batch_size=BATCH_BYTES,
            max_request_size=_MAX_REQUEST_BYTES,
        )
        await producer.start()
        stack.push_async_callback(close_producer, producer)
        worker = self._worker = PlaysWorker(settings, parts.pipeline, parts.metrics, rebalance_timeout_s=rebalance_s)
        stack.push_async_callback(worker.stop)
        publisher = Publisher(producer, _output_topics(settings), on_published=worker.published)
        await publisher.start()
        stack.push_async_callback(publisher.stop)
        app = create_app(settings, worker, rebalance_s)
        exactly_once = settings.delivery == "exactly_once"
        worker.start(
            self._life_parts(cast("BatchConsumer", app.consumer), worker, producer, publisher, transactional),
            None if exactly_once else publisher,
        )
        stack.push_async_callback(_stop_app, app)
        await self._until_the_end(app, worker)

    async def _until_the_end(self, app: PlaysApp, worker: PlaysWorker) -> None:
        stop = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(app.start())
        crashed = asyncio.create_task(app._crashed.wait())
        beside: list[asyncio.Future[None]] = [asyncio.create_task(worker.watch_lag(_LAG_INTERVAL_S))]
        if self.parts.background is not None:
            beside.append(asyncio.ensure_future(self.parts.background(worker)))
        ends: set[asyncio.Future[Any]] = {stop, crashed, worker.fatal, *beside}
        try:
            waiting: set[asyncio.Future[Any]] = {*ends, starting}
            while not any(end.done() for end in ends):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if starting in done and (error := starting.exception()) is not None:
                    raise BrokerError(f"the worker could not start: {error!r}") from error
            self._draining = True
            await worker.drain()
            if worker.fatal.done():
                raise worker.fatal.result()
            if crashed.done() and not stop.done():
                raise BrokerError(f"the consumer crashed: {app.crash_reason!r}") from app.crash_reason
            for side in beside:
                if side.done() and not stop.done():
                    side.result()
        finally:
            ended: list[asyncio.Future[Any]] = [stop, starting, crashed, *beside]
            for future in ended:
                future.cancel()
            await asyncio.gather(*ended, return_exceptions=True)

    def _life_parts(
        self,
        source: BatchConsumer,
        worker: PlaysWorker,
        producer: AIOKafkaProducer,
        publisher: Publisher,
        transactional: bool,
    ) -> LifeParts:
        settings, parts = self.settings, self.parts
        exactly_once = settings.delivery == "exactly_once"

        def writer(partition: int, marker: Callable[[int], Marker]) -> ChangelogWriter:
            if transactional:
                return TransactionalWriter(settings, partition, marker, publisher if exactly_once else None)
            return PlainWriter(settings, partition, marker, producer, source.commit_source)

        def marker(num_partitions: int, next_offset: int) -> Marker:
            return Marker(num_partitions=num_partitions, next_offset=next_offset, fingerprint=parts.fingerprint)

        pipeline = parts.pipeline
        return LifeParts(
            source=source,
            writer=writer,
            marker=marker,
            restore=lambda partition: read_changelog(settings, partition, parts.layout),
            open_state=partial(worker.on_inference_thread, pipeline.open_partition),
            close_state=partial(worker.on_inference_thread, pipeline.close_partition),
            transactional=transactional,
            outputs_in_transaction=exactly_once,
            fingerprint=parts.fingerprint,
            commit_interval_s=settings.commit_interval_s,
            recovery_deadline_s=settings.recovery_deadline_s,
            on_failed=worker.life_failed,
            on_committed=worker.committed,
            on_restored=worker.restored,
        )

    def _live(self) -> str | None:
        if self._worker is None:
            return None
        stalled_s = self._worker.progress.stalled_s()
        if stalled_s <= self.settings.progress_deadline_s:
            return None
        return f"no progress for {stalled_s:.0f} s"

    def _ready(self) -> str | None:
        if self._draining:
            return "draining"
        if self._worker is None or not self._worker.joined:
            return "not in the group yet"
        return None if self._worker.ready else "partitions are being restored"


async def uses_transactions(settings: Settings) -> bool:
    """Whether state and offsets go into transactions: as set, or as the broker can.

    Raises: BrokerError when the broker cannot be reached; ConfigError when exactly_once is asked of one without transactions.
    """
    if settings.transactions != "auto":
        return settings.transactions == "on"
    client = AIOKafkaClient(**settings.connection(), client_id=f"{settings.app_id}-probe")
    try:
        async with asyncio.timeout(_BROKER_DEADLINE_S):
            await client.bootstrap()
            can = await _can_init_producer(client)
    except (TimeoutError, KafkaError) as error:
        raise BrokerError(f"no broker at {settings.broker} ({error!r}); start one: intentrec broker") from None
    finally:
        await client.close()
    if settings.delivery == "exactly_once" and not can:
        raise ConfigError(f"delivery=exactly_once needs a broker with transactions; {settings.broker} has none")
    return can


async def _can_init_producer(client: AIOKafkaClient) -> bool:
    # The embedded broker answers UNKNOWN_SERVER_ERROR, always. Kafka may have a bad moment, so it is asked three times.
    for _ in range(3):
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1000)
        response = await client.send(client.get_random_node(), request)
        if response.error_code == 0:
            return True
        if for_code(response.error_code).retriable:
            await asyncio.sleep(0.5)
    return False


async def check_topics(settings: Settings) -> None:
    """The topics must be there, and the changelog partitioned as the plays.

    Raises: StateError or BrokerError with the remedy.
    """
    try:
        counts = await count_partitions(settings, *settings.topics)
    except KafkaError as error:
        raise BrokerError(f"the topics on {settings.broker} cannot be read: {error!r}") from error
    missing = [topic for topic in settings.topics if topic not in counts]
    if missing:
        raise BrokerError(f"no topic {', '.join(missing)} on {settings.broker}; create the topics: intentrec topics")
    plays, changelog = counts[settings.plays_topic], counts[settings.changelog_topic]
    if plays != changelog:
        raise StateError(
            f"{settings.plays_topic} has {plays} partitions but {settings.changelog_topic} {changelog}: members would not be "
            "where their plays are. Use another app_id, create its topics, and fold from the beginning"
        )


async def _stop_app(app: PlaysApp) -> None:
    await app.stop()


def _output_topics(settings: Settings) -> dict[OutputKind, str]:
    return {
        OutputKind.RECOMMENDATION: settings.recommendations_topic,
        OutputKind.INTENT: settings.intents_topic,
        OutputKind.DEAD_LETTER: settings.dead_letter_topic,
        OutputKind.LATE: settings.late_topic,
    }


async def run_until_signal(process: WorkerProcess) -> None:
    """Runs a worker; SIGTERM and SIGINT end it in good order, or by force at the drain deadline.

    Raises: what WorkerProcess.run raises.
    """
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        logger.info("%s: draining", number.name)
        process.stop()
        loop.call_later(process.settings.drain_deadline_s, _force_exit, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await process.run()


def _force_exit(number: signal.Signals) -> None:
    # Threads that hang cannot be cancelled, and Python would wait for them. Nothing uncommitted is lost: it is replayed.
    logger.error("%s: did not drain in time, ending by force", number.name)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(EXIT_NOT_DRAINED)


def run_worker(settings: Settings) -> int:
    """Runs a worker process until it is told to end. Blocking; installs signal handlers. Returns 0.

    Raises: IntentRecError whose exit code the process should end with.
    """
    raise NotImplementedError


__all__ = ["IntentRecError", "WorkerParts", "WorkerProcess", "run_until_signal", "run_worker"]
