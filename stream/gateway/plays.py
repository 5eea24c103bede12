"""Sends plays for clients: checked as a worker checks them, with key and partition set, and acknowledged by the broker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from msgspec import Struct

from intentrec_core.errors import BrokerError, RejectReason
from intentrec_core.history.history import EventLayout
from stream.gateway.answers import PlayAnswer
from stream.kafka.clients import close_producer, mark_retrieved, start_producer
from stream.wire.codec import DecodedPlay, RejectedPlay, decode_play
from stream.wire.routing import home_partition

if TYPE_CHECKING:
    from intentrec_core.domain.spec import Domain
    from stream.settings import Settings

logger = logging.getLogger(__name__)

#: A client waits this long for the broker at most. The play may still come after it: sent again, it is a duplicate.
SEND_DEADLINE_S = 10.0
#: Several round trips to a broker that is busy coming back. Whoever waits meanwhile has a deadline of its own.
_START_DEADLINE_S = 30.0


class _Sent(Struct, frozen=True):
    """A play as the record that a worker would read."""

    value: bytes
    timestamp: int
    topic: str = ""
    partition: int = 0
    offset: int = 0
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class PlayCheck:
    """Checks plays with a domain, by the rules of :func:`stream.wire.codec.decode_play` and of the member's history."""

    def __init__(self, domain: Domain) -> None:
        self._domain, self._layout = domain, EventLayout(domain)

    def check(self, value: bytes, now_ms: int) -> DecodedPlay | RejectedPlay:
        """The play in a body, or why a worker would reject it."""
        domain = self._domain
        play = decode_play(_Sent(value, now_ms), domain.earliest_ms, domain.max_future_ms)
        if isinstance(play, DecodedPlay):
            try:
                self._layout.pack(play.item_id, play.event_id, play.ts_ms, play.duration_s, play.attributes)
            except ValueError as error:
                return RejectedPlay(RejectReason.INVALID_FIELD, str(error))
        return play


class PlaySender:
    """An async context manager, owned by the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting: asyncio.Task[AIOKafkaProducer] | None = None

    async def __aenter__(self) -> Self:
        """Connects. Raises: BrokerError when the broker cannot be reached."""
        self._producer = await start_producer(self._settings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delivers what was begun, and disconnects."""
        if self._starting is not None:
            self._starting.cancel()
        if self._producer is not None:
            await close_producer(self._producer)

    async def send(self, play: DecodedPlay, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> PlayAnswer:
        """Sends a checked play; returns once the broker has it.

        Raises: BrokerError when it did not take it in time. The play may have been sent all the same.
        """
        topic, key = self._settings.plays_topic, play.user_id.encode()
        producer = None
        try:
            async with asyncio.timeout(SEND_DEADLINE_S):
                producer = await self._started()
                partition = home_partition(key, len(await producer.partitions_for(topic)))
                sent = await producer.send_and_wait(
                    topic,
                    value,
                    key=key,
                    partition=partition,
                    headers=list(headers),
                    timestamp_ms=time.time_ns() // 1_000_000,
                )
        except (KafkaError, TimeoutError) as error:
            await self._drop(producer)
            raise BrokerError(f"the play was not acknowledged: {error!r}") from error
        return PlayAnswer(event_id=play.event_id, topic=topic, partition=sent.partition, offset=sent.offset)

    async def _started(self) -> AIOKafkaProducer:
        """The producer. One is started for all who wait, and goes on where those who asked for it have given up.

        Raises: BrokerError when it cannot be started.
        """
        if self._producer is not None:
            return self._producer
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(mark_retrieved)
        return await asyncio.shield(self._starting)

    async def _start(self) -> AIOKafkaProducer:
        try:
            async with asyncio.timeout(_START_DEADLINE_S):
                self._producer = await start_producer(self._settings)
        except TimeoutError:
            raise BrokerError(f"the broker {self._settings.broker} cannot be reached; is it up?") from None
        finally:
            self._starting = None
        return self._producer

    async def _drop(self, failed: AIOKafkaProducer | None) -> None:
        """The next play is sent by a new producer: after a batch that failed, an idempotent one is refused everything.

        Of several plays that a producer could not send, the first one drops it: the others find a new one, and leave it alone.
        """
        if failed is None or self._producer is not failed:
            return
        self._producer = None
        logger.warning("a play could not be sent; going on with a new producer")
        await close_producer(failed)
