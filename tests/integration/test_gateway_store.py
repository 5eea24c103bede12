"""The gateway's store on a real server: what any service may read, and what a gateway finds there."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import valkey

from intentrec_core.errors import ConfigError
from stream.gateway import state_store
from stream.gateway.member_states import Kind, Newest
from stream.gateway.state_store import StateStore
from stream.local_kafka.broker import Broker
from stream.local_kafka.ports import free_port
from stream.settings import Settings
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.gateway_rig import messages, running, until

_SERVERS = ("valkey-server", "redis-server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey or Redis of the tests."""
    found = next(filter(None, map(shutil.which, _SERVERS)), None)
    if found is None:
        pytest.skip("no valkey-server or redis-server here")
    port, folder = free_port(), tmp_path_factory.mktemp("store")
    command = [found, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    deadline_s = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)


def message(offset: int, *, partition: int = 0, **fields: Any) -> Newest:
    source = {"topic": "plays", "partition": partition, "offset": offset}
    document = {"user_id": "u", "bundle": "b1", "source": source} | fields
    return Newest(partition, offset, "b1", json.dumps(document).encode())


def test_a_newer_message_is_never_replaced_by_an_older_one(server: str, tmp_path: Path) -> None:
    settings = Settings(gateway_store=server, app_id="older", gateway_store_keep_s=60)
    client = valkey.Valkey.from_url(server)

    async def write(*written: Newest) -> None:
        for one in written:  # each by a gateway of its own
            async with StateStore(settings) as store:
                store.put(Kind.INTENTS, "u", one)

    def held() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(client.get("older:intents:u"))
        return found["source"]

    asyncio.run(write(message(5), message(4), message(5, later=True)))
    assert held()["offset"] == 5
    assert b"later" not in client.get("older:intents:u")
    asyncio.run(write(message(2**53 - 1), message(6)))
    assert held()["offset"] == 2**53 - 1
    asyncio.run(write(message(1, partition=7)))
    assert held() == {"topic": "plays", "partition": 7, "offset": 1}, "offsets of another partition are not compared"
    assert 0 < client.ttl("older:intents:u") <= 60
    client.set("older:intents:u", "no message")
    asyncio.run(write(message(3)))
    assert held()["offset"] == 3


def test_a_gateway_answers_from_the_store_what_is_no_longer_in_its_memory(
    server: str, embedded_broker: Broker, make_rig: RigMaker
) -> None:
    rig = make_rig(embedded_broker)
    options = {"gateway_store": Settings(gateway_store=server).gateway_store}
    client = valkey.Valkey.from_url(server)
    keys = [f"{rig.settings.app_id}:{kind}:u" for kind in Kind]

    async def body() -> None:
        async with (
            messages(rig.settings) as written,
            running(rig.settings, gateway_max_members=1, **options) as gateway,
        ):
            await written.answer("u")
            await until(lambda: client.exists(*keys) == 2)
            await written.answer("v")
            await until(lambda: gateway.answers("/v1/users/v/intents", "e0"))
            assert (await gateway.get("/v1/status"))["gateway"]["evicted_members"] >= 1
            found = await gateway.get("/v1/users/u/recommendations")
            assert json.loads(client.get(keys[1])) == found
        # Read back a millisecond only: what the topic has of the member is not read.
        async with running(rig.settings, gateway_read_back_s=0.001, **options) as gateway:
            assert await gateway.get("/v1/users/u/recommendations") == found
            assert (await gateway.ask("/v1/users/new/intents"))[0] == 404

    asyncio.run(body())


def test_without_the_store_the_gateway_goes_on(embedded_broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(embedded_broker)
    nowhere = Settings(gateway_store=f"redis://127.0.0.1:{free_port()}").gateway_store

    async def body() -> None:
        async with messages(rig.settings) as written, running(rig.settings, gateway_store=nowhere) as gateway:
            assert (await gateway.ask("/v1/users/u/intents"))[0] == 404
            await written.answer("u")
            await until(lambda: gateway.answers("/v1/users/u/intents", "e0"))

    asyncio.run(body())


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gateway_store: .*allowed: redis://"):
        StateStore(Settings(gateway_store="http://127.0.0.1"))


def test_it_ends_whenever_it_is_cancelled(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.wait_for` of Python 3.11, with which the client sends, swallows a cancellation that comes just when it is done;
    that of later versions does not, and this test cannot fail there."""
    monkeypatch.setattr(state_store, "_FLUSH_S", 0.0)

    async def cancel_at_every_turn() -> None:
        async with StateStore(Settings(gateway_store=server, app_id="cancelled")) as store:
            for turns in range(60):
                writing = asyncio.create_task(store.run())
                store.put(Kind.INTENTS, "u", message(turns))
                for _ in range(turns):
                    await asyncio.sleep(0)
                writing.cancel()
                await asyncio.wait([writing], timeout=5)
                assert writing.cancelled(), f"cancelled after {turns} turns of the event loop, it goes on"

    asyncio.run(cancel_at_every_turn())
    gc.collect()  # a connection that was left open would be a warning here, and warnings are errors
