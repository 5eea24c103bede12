"""Plays are checked as a worker checks them, with the domain's own limits and what its histories hold; and a producer that failed
is dropped once.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from intentrec_core.domain.toml import parse_domain
from intentrec_core.errors import BrokerError, RejectReason
from stream.gateway.plays import PlayCheck, PlaySender
from stream.settings import Settings
from stream.wire.codec import RejectedPlay, decode_play
from tests.worlds.bundle_world import Record
from tests.worlds.tiny_world import DOMAIN, START_MS, TinyWorld

NOW_MS = START_MS + 1_000_000


def play(**fields: Any) -> bytes:
    document = {"event_id": "e", "user_id": "ü", "item_id": "i", "ts": START_MS, "context": {"max_maturity": 4}}
    return json.dumps(document | fields).encode()


@pytest.mark.parametrize(
    "value",
    [
        play(),
        play(ts=1),
        play(ts=NOW_MS + 10**9),
        play(item_id=""),
        play(schema_version=2),
        b"",
        b"{",
        play(duration_s=-1),
    ],
)
def test_the_verdict_is_that_of_the_workers_codec(world: TinyWorld, value: bytes) -> None:
    domain = parse_domain(DOMAIN.format(window=world.window), "tiny.toml")
    record = Record(0, value, timestamp=NOW_MS)
    assert PlayCheck(domain).check(value, NOW_MS) == decode_play(record, domain.earliest_ms, domain.max_future_ms)


def test_a_number_that_a_history_cannot_hold_is_refused(world: TinyWorld) -> None:
    """As folding refuses it, after the codec has taken it."""
    domain = parse_domain(DOMAIN.format(window=world.window), "tiny.toml")
    found = PlayCheck(domain).check(play(context={"max_maturity": "many"}), NOW_MS)
    assert isinstance(found, RejectedPlay)
    assert found.reason is RejectReason.INVALID_FIELD


class FailingProducer:
    """Sends nothing: each play fails once its test says so."""

    def __init__(self) -> None:
        self.failing: list[asyncio.Event] = []
        self.is_stopped = False

    async def partitions_for(self, topic: str) -> set[int]:
        return {0}

    async def send_and_wait(self, topic: str, value: bytes, **options: Any) -> None:
        fails = asyncio.Event()
        self.failing.append(fails)
        await fails.wait()
        raise KafkaError("refused")

    async def stop(self) -> None:
        self.is_stopped = True


def test_plays_that_fail_together_drop_their_producer_and_not_the_next_one(
    world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        started: list[FailingProducer] = []

        async def start(_: Settings) -> FailingProducer:
            started.append(FailingProducer())
            return started[-1]

        monkeypatch.setattr("stream.gateway.plays.start_producer", start)
        found: Any = PlayCheck(parse_domain(DOMAIN.format(window=world.window), "tiny.toml")).check(play(), NOW_MS)
        async with PlaySender(Settings()) as sender:
            sending = [asyncio.create_task(sender.send(found, b"")) for _ in range(2)]
            for _ in range(20):
                await asyncio.sleep(0)  # until both wait for the broker
            for sent, fails in zip(sending, started[0].failing, strict=True):
                fails.set()
                with pytest.raises(BrokerError, match="not acknowledged"):
                    await sent
                await sender._started()  # by a play that comes meanwhile
            assert [producer.is_stopped for producer in started] == [True, False]

    asyncio.run(body())


def test_a_start_that_takes_longer_than_a_client_waits_is_one_start_for_all(
    world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage under load: were each play to start a producer anew, none would ever be done."""

    async def body() -> None:
        has_come, num_started = asyncio.Event(), 0

        async def start(_: Settings) -> FailingProducer:
            nonlocal num_started
            num_started += 1
            await has_come.wait()
            return FailingProducer()

        found: Any = PlayCheck(parse_domain(DOMAIN.format(window=world.window), "tiny.toml")).check(play(), NOW_MS)
        sender = PlaySender(Settings())
        monkeypatch.setattr("stream.gateway.plays.start_producer", start)
        monkeypatch.setattr("stream.gateway.plays.SEND_DEADLINE_S", 0.01)
        for _ in range(3):
            with pytest.raises(BrokerError, match="not acknowledged"):
                await sender.send(found, b"")
        has_come.set()
        assert isinstance(await sender._started(), FailingProducer)
        assert num_started == 1

    asyncio.run(body())
