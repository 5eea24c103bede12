"""Keeps the newest messages in Valkey or Redis too, where any service may read them.

    <app_id>:intents:<user_id>             the message on the topic, JSON
    <app_id>:recommendations:<user_id>     the same

A message never takes the place of a newer one of its member: the server compares offsets, whichever gateway writes. No request
waits for a write; a member who is not in memory is looked up. Where the store does not answer, the gateway goes on without it,
and asks it again after some seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import valkey.asyncio
from valkey.exceptions import ValkeyError

from intentrec_core.errors import ConfigError
from stream.gateway.member_states import Kind, Newest

if TYPE_CHECKING:
    from stream.settings import Settings

logger = logging.getLogger(__name__)

#: Sets the value (ARGV[1], which answers the play at partition ARGV[2], offset ARGV[3]) unless that of a later play is there.
_PUT = """
local known = redis.call('GET', KEYS[1])
if known then
  local ok, message = pcall(cjson.decode, known)
  if ok and type(message) == 'table' and type(message.source) == 'table' and message.source.partition == tonumber(ARGV[2])
      and message.source.offset >= tonumber(ARGV[3]) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[4])
return 1
"""
_FLUSH_S = 0.05
_MAX_PIPELINE = 500
#: Messages that wait to be written: of more than these the oldest are left out, and are written with the member's next play.
_MAX_PENDING = 100_000
_DEADLINE_S = 1.0
_RETRY_S = 1.0
_WARNING_INTERVAL_S = 60.0
#: After a read that failed nobody waits for another for so long.
_NO_READS_S = 5.0
#: Streams that come back after a failover are looked up by so many at a time; the others wait, which is no failure of the store.
_MAX_READS = 40
_MAX_CONNECTIONS = _MAX_READS + 10
#: At the end, what waits is written for so long.
_LAST_WRITES_S = 3.0


class StateStore:
    """An async context manager, owned by the event loop. :meth:`run` writes until it is cancelled.

    ``on_failure``: called with each read or write that failed.
    Raises: ConfigError for a URL that is none.
    """

    def __init__(self, settings: Settings, on_failure: Callable[[], None] = lambda: None) -> None:
        assert settings.gateway_store is not None
        try:
            pool = valkey.asyncio.BlockingConnectionPool.from_url(
                settings.gateway_store.get_secret_value(),
                max_connections=_MAX_CONNECTIONS,
                socket_timeout=_DEADLINE_S,
                socket_connect_timeout=_DEADLINE_S,
            )
        except ValueError as error:
            raise ConfigError(f"gateway_store: {error}; allowed: redis://HOST:PORT/DATABASE or valkey://…") from None
        self._client: Any = valkey.asyncio.Valkey.from_pool(pool)
        self._app_id, self._keep_s = settings.app_id, max(1, int(settings.gateway_store_keep_s))
        self._on_failure = on_failure
        self._put = self._client.register_script(_PUT)
        self._pending: OrderedDict[tuple[Kind, str], Newest] = OrderedDict()
        self._wake, self._reads = asyncio.Event(), asyncio.Semaphore(_MAX_READS)
        self._next_warning_s = self._next_read_s = 0.0

    async def __aenter__(self) -> Self:
        """Connects when it is first used."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what waits, and disconnects."""
        end_s = time.monotonic() + _LAST_WRITES_S
        while self._pending and time.monotonic() < end_s and await _whole(self._write()):
            pass
        await self._client.aclose()

    def put(self, kind: Kind, user_id: str, message: Newest) -> None:
        """Writes a message soon."""
        self._pending[kind, user_id] = message
        if len(self._pending) > _MAX_PENDING:
            self._pending.popitem(last=False)
            self._on_failure()
        self._wake.set()

    async def get(self, user_id: str) -> dict[Kind, bytes]:
        """The messages of a member; empty where there are none, or the store does not answer or did not a moment ago."""
        try:
            async with self._reads:
                if time.monotonic() < self._next_read_s:
                    return {}
                found = await self._client.mget([self._key(kind, user_id) for kind in Kind])
        except (ValkeyError, OSError, TimeoutError) as error:
            self._failed("read", error)
            self._next_read_s = time.monotonic() + _NO_READS_S
            return {}
        return {kind: value for kind, value in zip(Kind, found, strict=True) if value is not None}

    async def run(self) -> None:
        """Writes messages as they come, those of a moment together."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_FLUSH_S)
            self._wake.clear()
            while self._pending:
                if not await _whole(self._write()):
                    await asyncio.sleep(_RETRY_S)

    async def _write(self) -> bool:
        batch = [self._pending.popitem(last=False) for _ in range(min(_MAX_PIPELINE, len(self._pending)))]
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for (kind, user_id), message in batch:
                    arguments: list[bytes | int] = [message.value, message.partition, message.offset, self._keep_s]
                    await self._put(keys=[self._key(kind, user_id)], args=arguments, client=pipeline)
                await pipeline.execute()
        except BaseException as error:  # a cancellation too: at the end it is written after all
            for key, message in batch:
                self._pending.setdefault(key, message)
            if not isinstance(error, (ValkeyError, OSError, TimeoutError)):
                raise
            self._failed("written", error)
            return False
        return True

    def _key(self, kind: Kind, user_id: str) -> str:
        return f"{self._app_id}:{kind}:{user_id}"

    def _failed(self, what: str, error: BaseException) -> None:
        self._on_failure()
        if time.monotonic() >= self._next_warning_s:
            self._next_warning_s = time.monotonic() + _WARNING_INTERVAL_S
            # Not the error's text: that of a failed write has the member's message in it.
            logger.warning("the store cannot be %s; going on without it: %s", what, type(error).__name__)


async def _whole(write: Coroutine[Any, Any, bool]) -> bool:
    """The result of a write that a cancellation waits for: it fails within seconds where the store does not answer.

    A client that is cancelled while it sends leaves its connection open. It may also miss the cancellation: it sends with
    ``asyncio.wait_for``, which in Python 3.11 returns the result if it has one just then.
    """
    writing = asyncio.ensure_future(write)
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise
