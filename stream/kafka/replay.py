"""Replays plays into Kafka in time order, at a multiple of their original speed or at a steady rate.

Key and partition follow the contract (user id in UTF-8, Kafka's murmur2). The timestamp of a record is the time of sending. The
event ids are those of the data, so replaying the same data again changes no history: the worker counts duplicates, and sets aside
as late what has left a history.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError, ConfigError
from stream.kafka.clients import start_producer
from stream.wire.codec import encode
from stream.wire.messages import Play

if TYPE_CHECKING:
    from intentrec_core.plays.table import PlayRow
    from stream.settings import Settings

#: Plays sent but not yet acknowledged. A higher limit would only fill memory while the broker is the bottleneck.
MAX_IN_FLIGHT = 5_000
#: Without a reply for this long, the broker counts as down. aiokafka's own retries happen within this time.
ACKNOWLEDGE_DEADLINE_S = 30.0
#: Shorter waits than the event loop's resolution are skipped, and the plays are sent together.
_SHORTEST_WAIT_S = 0.002


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When each play is due: ``speed`` seconds of event time per second, or ``rate`` plays per second. Default: no waiting.

    Raises: ConfigError when both are given, or one is not above 0.
    """

    speed: float | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.speed is not None and self.rate is not None:
            raise ConfigError("speed and rate are both given; allowed: one of them, or neither for full speed")
        for name, value in (("speed", self.speed), ("rate", self.rate)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; allowed: above 0")

    def due_s(self, index: int, ts_ms: int, first_ts_ms: int) -> float:
        """When play number ``index`` (from 0) with event time ``ts_ms`` is due, in seconds after the start."""
        if self.rate is not None:
            return index / self.rate
        if self.speed is not None:
            return (ts_ms - first_ts_ms) / 1000.0 / self.speed
        return 0.0


@dataclass
class Replay:
    """One replay into the plays topic. ``sent``: plays that the broker has acknowledged.

    ``on_send`` is called before each play is sent, with the play and the timestamp of its record in milliseconds.
    """

    settings: Settings
    pace: Pace
    on_send: Callable[[PlayRow, int], None] = lambda row, timestamp_ms: None
    sent: int = field(default=0, init=False)
    last_ts_ms: int | None = field(default=None, init=False)
    _in_flight: set[asyncio.Future[object]] = field(default_factory=set, init=False)
    _failed: BaseException | None = field(default=None, init=False)

    async def run(self, plays: Iterable[PlayRow], stop: asyncio.Event | None = None) -> int:
        """Sends the plays until they end or ``stop`` is set. Returns how many were acknowledged.

        Raises: BrokerError when the broker refuses a play or does not respond in time.
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
        """Waits until at most ``most`` plays are unacknowledged. Raises the error of any play that failed."""
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
    """The message for a stored play. An entry of the context without a value is left out."""
    return Play(
        event_id=row.event_id,
        user_id=row.user_id,
        item_id=row.item_id,
        ts=row.ts_ms,
        action=row.action,
        duration_s=row.duration_s,
        session_id=row.session_id,
        context=None
        if row.context is None
        else {key: value for key, value in row.context.items() if value is not None},
    )
