"""One gateway process: starts its parts in order, serves, and ends.

start   key and domain are read -> metrics and health -> topics are checked -> announcements, producer -> HTTP -> the group
end     stop(): streams say bye; the group is left, so that others take over at once; requests in flight are answered
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
import socket
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from aiokafka.errors import KafkaError

from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import BrokerError, ConfigError, IntentRecError, StateError
from stream.gateway.access import Access, Tickets
from stream.gateway.app import create_app
from stream.gateway.bundle_follower import BundleFollower
from stream.gateway.forwarder import Forwarder
from stream.gateway.gateway import Gateway
from stream.gateway.member_states import Kind, MemberState, MemberStates, Newest
from stream.gateway.ownership import Ownership
from stream.gateway.plays import PlayCheck, PlaySender
from stream.gateway.rates import RequestRates
from stream.gateway.state_reader import SESSION_TIMEOUT_S, StateReader
from stream.gateway.state_store import StateStore
from stream.gateway.status import PipelineStatus
from stream.gateway.streams import Streams
from stream.kafka.topics import count_partitions
from stream.ops.health import serve_health
from stream.ops.metrics import ForwardOutcome, Metrics, ReadOutcome
from stream.ops.process_end import EXIT_NOT_DRAINED, first_to_end, run_until_signal

if TYPE_CHECKING:
    from stream.settings import Settings

logger = logging.getLogger(__name__)

_BACKLOG = 2048
#: Requests in flight at the end get this long; streams end at once.
_ANSWER_S = 5.0
#: Files besides those of streams: requests, other gateways, the broker, the store, the bundles.
_OTHER_FILES = 500


class GatewayProcess:
    """Owned by the running event loop; ``run`` is called once.

    ``port``: where it serves, once it does; ``gateway``: its parts, once it is connected.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.port = self.health_port = 0
        #: Called once when the end begins, whatever began it.
        self.on_ending: Callable[[], None] = lambda: None
        #: A gateway holds nothing that could be lost: it reads everything again.
        self.exit_code = EXIT_NOT_DRAINED
        self._stop = asyncio.Event()
        self.gateway: Gateway | None = None
        self._reader: StateReader | None = None

    def stop(self) -> None:
        """Requests an orderly end, as SIGTERM does."""
        self._stop.set()

    async def run(self) -> None:
        """Serves until stopped.

        Raises: the IntentRecError that ended the process, after everything that can be closed in order was closed.
        """
        try:
            access = Access(self.settings)
            _check_address(self.settings)
            _open_files(self.settings.gateway_max_streams)
            play_check = PlayCheck(load_domain(self.settings.domain))
            listening = _listen(self.settings)
            with contextlib.closing(listening):
                self.port = int(listening.getsockname()[1])
                async with serve_health(
                    self.settings, self.metrics, live=lambda: None, ready=self.not_ready
                ) as self.health_port:
                    await self._until_stopped(self._serve(access, play_check, listening))
        except IntentRecError as error:
            self.exit_code = error.exit_code
            raise
        self.exit_code = 0

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        stopped, working = asyncio.create_task(self._stop.wait()), asyncio.create_task(work)
        try:
            await asyncio.wait({stopped, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.on_ending()
            if self.gateway is not None:
                self.gateway.is_ending = True
                self.gateway.streams.end_all("stopping")
                self.gateway.forwarder.end_all("stopping")
            stopped.cancel()
            working.cancel()
            await asyncio.wait({stopped, working})
        if not working.cancelled():
            working.result()

    async def _serve(self, access: Access, play_check: PlayCheck, listening: socket.socket) -> None:
        settings, metrics = self.settings, self.metrics
        ownership = Ownership(self._address(), await self._partitions())
        streams = Streams(settings.gateway_max_streams, metrics.gateway_skipped_events.inc)
        status = PipelineStatus([url for url in settings.gateway_scrape.split(",") if url])

        store = None if settings.gateway_store is None else StateStore(settings, metrics.gateway_store_failures.inc)

        def on_taken_back(kind: Kind, member: MemberState, message: Newest) -> None:
            if store is not None:
                store.put(kind, member.user_id, message)

        def on_taken(kind: Kind, member: MemberState, message: Newest) -> None:
            streams.offer(kind, member, message)
            on_taken_back(kind, member, message)
            if kind is Kind.RECOMMENDATIONS:
                status.read(message)

        states = MemberStates(
            max_members=settings.gateway_max_members,
            max_bytes=settings.gateway_max_bytes,
            on_taken=on_taken,
            on_taken_back=on_taken_back,
            on_evicted=metrics.gateway_evicted_members.inc,
        )

        def on_moved(own: Collection[int]) -> None:
            streams.end("moved", lambda user_id: ownership.partition_of(user_id) not in own)
            forwarder.end("moved", lambda partition, owner: ownership.owner_of(partition) != owner)

        forwarder = Forwarder(settings.gateway_max_streams, self._count_forwarded)
        reader = StateReader(
            settings, ownership, states, on_moved=on_moved, on_read=lambda _, outcome: self._count_read(outcome)
        )
        async with contextlib.AsyncExitStack() as stack:
            if store is not None:
                await stack.enter_async_context(store)
            bundles = await stack.enter_async_context(BundleFollower(settings))
            await stack.enter_async_context(forwarder)
            gateway = self.gateway = Gateway(
                settings=settings,
                metrics=metrics,
                access=access,
                tickets=Tickets(),
                member_rates=RequestRates(settings.gateway_rate),
                operator_rates=RequestRates(settings.gateway_operator_rate),
                ownership=ownership,
                states=states,
                streams=streams,
                bundles=bundles,
                forwarder=forwarder,
                plays=await stack.enter_async_context(PlaySender(settings)),
                play_check=play_check,
                status=status,
                store=store,
                is_ready=reader.is_ready,
                not_ready=self.not_ready,
            )
            self._watch(gateway, reader)
            server = _Server(
                uvicorn.Config(
                    create_app(gateway),
                    http="httptools",  # h11 passes paths on that this app must not see
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    ws="none",
                    server_header=False,
                    proxy_headers=False,
                    backlog=_BACKLOG,
                    timeout_graceful_shutdown=int(_ANSWER_S),
                )
            )
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            stack.push_async_callback(_stop_server, server, serving)
            logger.info("serving %s; joining the group %s-gateway", ownership.address, settings.app_id)
            self._reader = await stack.enter_async_context(reader)
            running = [reader.run(), bundles.run(), _raise_when_done(serving)]
            await first_to_end(*running, *([] if store is None else [store.run()]))

    def _address(self) -> str:
        return self.settings.gateway_address or f"http://{_host(self.settings)}:{self.port}"

    async def _partitions(self) -> int:
        """The number of partitions of both output topics.

        Raises: BrokerError without them; StateError where their numbers differ.
        """
        settings = self.settings
        topics = (settings.intents_topic, settings.recommendations_topic)
        try:
            counts = await count_partitions(settings, *topics)
        except KafkaError as error:
            raise BrokerError(f"no broker at {settings.broker} ({error!r}); start one: intentrec broker") from None
        missing = [topic for topic in topics if topic not in counts]
        if missing:
            raise BrokerError(
                f"no topic {', '.join(missing)} on {settings.broker}; create the topics: intentrec topics"
            )
        if len(set(counts.values())) > 1:
            described = " and ".join(f"{topic} has {counts[topic]}" for topic in topics)
            raise StateError(
                f"{described} partitions: a gateway needs equal numbers, so that a member's messages are in one place; raise the "
                "smaller number"
            )
        return counts[topics[0]]

    def _watch(self, gateway: Gateway, reader: StateReader) -> None:
        metrics = self.metrics
        metrics.gateway_members.set_function(lambda: len(gateway.states))
        metrics.gateway_bytes.set_function(lambda: gateway.states.num_bytes)
        metrics.gateway_streams.set_function(lambda: gateway.streams.num_open)
        metrics.gateway_partitions_ready.set_function(lambda: len(reader.ready_partitions))

    def _count_read(self, outcome: ReadOutcome) -> None:
        self.metrics.gateway_messages.labels(outcome).inc()

    def _count_forwarded(self, is_answered: bool) -> None:
        outcome = ForwardOutcome.ANSWERED if is_answered else ForwardOutcome.FAILED
        self.metrics.gateway_forwarded.labels(outcome).inc()

    def not_ready(self) -> str | None:
        """Why the gateway cannot answer for all of its members; None if it can."""
        if self._stop.is_set():
            return "stopping"
        if self.gateway is None:
            return "not connected to the broker yet"
        if self._reader is None or not self._reader.is_member:
            return "not in the group yet"
        if self._reader.is_cut_off:
            return f"no answer of the broker or the group for {SESSION_TIMEOUT_S:.0f} s; joining the group again"
        behind = self.gateway.ownership.own - set(self._reader.ready_partitions)
        return f"partition {', '.join(map(str, sorted(behind)))} is being read" if behind else None


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


async def _stop_server(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    await asyncio.wait([serving], timeout=_ANSWER_S + 2)
    serving.cancel()


async def _raise_when_done(serving: asyncio.Task[None]) -> None:
    await asyncio.shield(serving)
    raise BrokerError("the HTTP server ended by itself; start the gateway again")


def _listen(settings: Settings) -> socket.socket:
    """A listening socket. Raises: ConfigError when the port is in use or the host is not an address of this machine."""
    host, port = settings.gateway_host, settings.gateway_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol: of a socket that names none asyncio does not know that it is TCP, leaves Nagle's algorithm on, and the
    # second part of every answer waits 40 ms for the acknowledgement of the first.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another gateway_port, or 0 for any free port"
        ) from None
    listening.setblocking(False)
    return listening


def _open_files(num_streams: int) -> None:
    """Raises this process's limit of open files as far as it may, and warns where that is too little for the streams allowed: one
    file for each of its own, two for each that is passed on.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # not every system takes its own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if may_open != resource.RLIM_INFINITY and may_open < 3 * num_streams + _OTHER_FILES:
        logger.warning(
            "this process may open %d files; gateway_max_streams is %d, and with as many passed on it needs %d: raise its limit "
            "(ulimit -n), or lower the setting",
            may_open,
            num_streams,
            3 * num_streams + _OTHER_FILES,
        )


def _check_address(settings: Settings) -> None:
    """Raises: ConfigError where other gateways would be told an address that is none."""
    try:
        is_any = ipaddress.ip_address(settings.gateway_host).is_unspecified
    except ValueError:
        return
    if is_any and not settings.gateway_address:
        raise ConfigError(
            f"gateway_host is {settings.gateway_host}, every address of this machine: set gateway_address to the URL at which "
            f"other gateways reach this one, such as http://gateway-1:{settings.gateway_port}"
        )


def _host(settings: Settings) -> str:
    host = settings.gateway_host
    return f"[{host}]" if ":" in host else host


def run_gateway(settings: Settings) -> int:
    """Runs a gateway process until SIGTERM or SIGINT. Blocks; installs signal handlers. Returns 0.

    Raises: IntentRecError; end the process with its exit code.
    """

    async def run() -> None:
        await run_until_signal(GatewayProcess(settings, Metrics()))

    asyncio.run(run())
    return 0
