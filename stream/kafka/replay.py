"""Replays plays into Kafka in time order: at a multiple of the speed at which they happened, or at a steady rate.

Key and partitioner are the contract's (user id in UTF-8, Kafka's murmur2), the record's timestamp is the moment of
sending, and event ids are those of the data: sending the same data twice gives duplicates, which the worker counts and
does not apply.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownError, UnsupportedVersionError

from intentrec_core.errors import BrokerError, ConfigError
from stream.wire.codec import encode
from stream.wire.messages import Play

if TYPE_CHECKING:
    from intentrec_core.plays.table import PlayRow
    from stream.settings import Settings

#: Plays sent and not yet acknowledged. More only fills memory when the broker is the slower side.
MAX_IN_FLIGHT = 5_000
#: With no reply for this long the broker is gone; aiokafka's own retries happen within it.
ACKNOWLEDGE_DEADLINE_S = 30.0
#: Waits shorter than the event loop's resolution are not worth a turn of the loop: the plays go out together.
_SHORTEST_WAIT_S = 0.002


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When each play is due: ``speed`` seconds of event time a second, or ``rate`` plays a second; neither is flat out.

    Raises: ConfigError when both are given, or one is not above 0.
    """

    speed: float | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.speed is not None and self.rate is not None:
            raise ConfigError("speed and rate are both given; allowed: one of them, or neither for as fast as it goes")
        for name, value in (("speed", self.speed), ("rate", self.rate)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; allowed: above 0")

    def due_s(self, index: int, ts_ms: int, first_ts_ms: int) -> float:
        """Seconds after the start at which play number ``index`` (from 0), of event time ``ts_ms``, is due."""
        if self.rate is not None:
            return index / self.rate
        if self.speed is not None:
            return (ts_ms - first_ts_ms) / 1000.0 / self.speed
        return 0.0


@dataclass
class Replay:
    """One run of plays into the plays topic. ``sent`` counts what the broker has acknowledged.

    ``on_send`` hears of every play and its record timestamp (ms) before it is sent.
    """

    settings: Settings
    pace: Pace
    on_send: Callable[[PlayRow, int], None] = lambda row, timestamp_ms: None
    sent: int = field(default=0, init=False)
    last_ts_ms: int | None = field(default=None, init=False)
    _in_flight: set[asyncio.Future[object]] = field(default_factory=set, init=False)
    _failed: BaseException | None = field(default=None, init=False)

    async def run(self, plays: Iterable[PlayRow], stop: asyncio.Event | None = None) -> int:
        """Sends the plays until they end or ``stop`` is set; returns how many were acknowledged.

        Raises: BrokerError when the broker refuses a play or does not answer in time.
        """
        stop = stop or asyncio.Event()
        producer = await start_producer(self.settings)
        started_s, first_ts_ms = time.monotonic(), None
        try:
            for index, row in enumerate(plays):
                first_ts_ms = row.ts_ms if first_ts_ms is None else first_ts_ms
                ahead_s = started_s + self.pace.due_s(index, row.ts_ms, first_ts_ms) - time.monotonic()
                if ahead_s > _SHORTEST_WAIT_S and await _is_set_within(stop, ahead_s):
                    break
                if len(self._in_flight) >= MAX_IN_FLIGHT or index % 256 == 0:
                    await self._settle(MAX_IN_FLIGHT - 1)
                if stop.is_set() or self._failed is not None:
                    break
                timestamp_ms = time.time_ns() // 1_000_000
                self.on_send(row, timestamp_ms)
                sent = await producer.send(
                    self.settings.plays_topic,
                    encode(play_message(row)),
                    key=row.user_id.encode(),
                    timestamp_ms=timestamp_ms,
                )
                self._in_flight.add(sent)
                sent.add_done_callback(self._acknowledged)
                self.last_ts_ms = row.ts_ms
            await self._settle(0)
        except KafkaError as error:
            raise BrokerError(f"the broker {self.settings.broker} refused a play: {error!r}") from error
        finally:
            await producer.stop()
        return self.sent

    async def _settle(self, most: int) -> None:
        """Waits until at most ``most`` plays are unacknowledged; raises what any of them failed with."""
        await asyncio.sleep(0)
        deadline_s = time.monotonic() + ACKNOWLEDGE_DEADLINE_S
        while len(self._in_flight) > most and self._failed is None:
            left_s = deadline_s - time.monotonic()
            await asyncio.wait(self._in_flight, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if left_s <= 0:
                raise BrokerError(
                    f"the broker {self.settings.broker} acknowledged no play for {ACKNOWLEDGE_DEADLINE_S:.0f} s"
                )
        if self._failed is not None:
            raise BrokerError(f"the broker {self.settings.broker} refused a play: {self._failed!r}") from self._failed

    def _acknowledged(self, sent: asyncio.Future[object]) -> None:
        self._in_flight.discard(sent)
        if sent.cancelled():
            return
        if (error := sent.exception()) is not None:
            self._failed = error
        else:
            self.sent += 1


async def _is_set_within(event: asyncio.Event, wait_s: float) -> bool:
    try:
        async with asyncio.timeout(wait_s):
            return await event.wait()
    except TimeoutError:
        return False


def play_message(row: PlayRow) -> Play:
    """The contract's message of a play at rest."""
    return Play(
        event_id=row.event_id,
        user_id=row.user_id,
        item_id=row.item_id,
        ts=row.ts_ms,
        action=row.action,
        duration_s=row.duration_s,
        session_id=row.session_id,
        context=None if row.context is None else dict(row.context),
    )


async def start_producer(settings: Settings) -> AIOKafkaProducer:
    """A producer with acks from all replicas: idempotent where the broker can do that (the embedded one cannot).

    Raises: BrokerError when the broker cannot be reached.
    """
    for idempotent in {"auto": (True, False), "on": (True,), "off": (False,)}[settings.transactions]:
        producer = AIOKafkaProducer(
            **settings.connection(), enable_idempotence=idempotent, acks="all", linger_ms=2, compression_type=None
        )
        try:
            await producer.start()
        except (UnsupportedVersionError, UnknownError):  # how the embedded broker answers InitProducerId
            await producer.stop()
        except KafkaError as error:
            await producer.stop()
            raise BrokerError(f"the broker {settings.broker} cannot be reached: {error!r}; is it up?") from error
        else:
            return producer
    raise BrokerError(f"the broker {settings.broker} has no idempotent producer; set transactions to auto or off")
