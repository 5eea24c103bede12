"""What a gateway asks of its store where many ask at once, or the store fails. The store's client is a stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from stream.gateway.member_states import Kind, Newest
from stream.gateway.state_store import StateStore
from stream.settings import Settings
from tests.property.virtual_time import VirtualLoop


class NotedClient:
    """Answers each question after a second, if it answers, and notes how many wait at once."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.is_away = is_away
        self.num_asked = self.num_now = self.num_at_once = 0

    async def mget(self, keys: list[str]) -> list[bytes]:
        self.num_asked += 1
        self.num_now += 1
        self.num_at_once = max(self.num_at_once, self.num_now)
        await asyncio.sleep(1)
        self.num_now -= 1
        if self.is_away:
            raise OSError("away")
        return [key.encode() for key in keys]


def store_of(client: Any, failures: list[None] | None = None) -> tuple[Any, int]:
    """A store of this client, and how many connections its own would have."""
    noted = [] if failures is None else failures
    store: Any = StateStore(Settings(gateway_store="redis://127.0.0.1:1"), lambda: noted.append(None))
    max_connections = store._client.connection_pool.max_connections
    store._client = client
    return store, max_connections


def in_virtual_time(body: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(body)


def test_a_burst_of_look_ups_is_answered_and_leaves_connections_for_writes() -> None:
    async def body() -> None:
        failures: list[None] = []
        client = NotedClient()
        store, max_connections = store_of(client, failures)
        found = await asyncio.gather(*(store.get(f"u{n}") for n in range(500)))
        assert all(len(messages) == len(Kind) for messages in found)
        assert 1 < client.num_at_once < max_connections
        assert not failures

    in_virtual_time(body())


def test_who_waits_for_a_store_that_has_failed_does_not_ask_it_too() -> None:
    async def body() -> None:
        client = NotedClient(is_away=True)
        store, max_connections = store_of(client)
        assert await asyncio.gather(*(store.get(f"u{n}") for n in range(500))) == [{}] * 500
        assert client.num_asked < max_connections
        assert asyncio.get_running_loop().time() < 2

    in_virtual_time(body())


def test_what_comes_while_a_write_fails_is_newer_than_what_was_to_be_written() -> None:
    written: list[int] = []

    class Pipeline:
        """Fails once; a newer message comes meanwhile."""

        num_left = 1

        async def __aenter__(self) -> Pipeline:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def execute(self) -> None:
            if self.num_left:
                self.num_left -= 1
                store.put(Kind.INTENTS, "u", Newest(0, 8, "b1", b"{}"))
                raise OSError("away")

    class Client:
        def pipeline(self, *, transaction: bool) -> Pipeline:
            return pipeline

    async def put(*, keys: list[str], args: list[Any], client: Pipeline) -> None:
        written.append(args[2])

    store: Any
    pipeline = Pipeline()
    store, _ = store_of(Client())
    store._put = put

    async def body() -> None:
        store.put(Kind.INTENTS, "u", Newest(0, 7, "b1", b"{}"))
        assert not await store._write()
        assert await store._write()

    asyncio.run(body())
    assert written == [7, 8]
