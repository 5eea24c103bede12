"""Leadership when a trainer is killed or stalls, on Apache Kafka: always one leader; a stalled one cannot announce later."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.kafka.topics import create_topics
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from tests.rigs.fault_report import FaultRow
from tests.rigs.trainer_rig import make_settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]

CANDIDATE = """
import asyncio, json, sys
from intentrec_core.errors import IntentRecError
from stream.trainer.leader_lock import GroupLock
from stream.settings import Settings

async def main():
    lock = GroupLock(Settings(**json.loads(sys.argv[1])))
    await lock.acquire()
    print("leads", flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        try:
            await lock.confirm("b000000000000")
            print("confirmed", flush=True)
        except IntentRecError as error:
            print(type(error).__name__, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def settings(kafka_broker: Broker, tmp_path: Path) -> Settings:
    made = make_settings(kafka_broker, tmp_path, session_timeout_s=6)
    asyncio.run(create_topics(made))
    return made


@pytest.fixture
def candidates(settings: Settings) -> Iterator[list[subprocess.Popen[str]]]:
    """Two trainers' locks; the first one leads, the second has not been started."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def start(settings: Settings, candidates: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    given = json.dumps(settings.model_dump(mode="json", exclude_unset=True))
    command = [sys.executable, "-c", CANDIDATE, given]
    candidates.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    return candidates[-1]


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def asked(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    process.stdin.write("confirm\n")
    process.stdin.flush()
    return said(process)


def test_a_killed_leader_is_followed_by_the_next_one(
    settings: Settings, candidates: list[subprocess.Popen[str]], fault_row: FaultRow
) -> None:
    first = start(settings, candidates)
    assert said(first) == "leads"
    assert asked(first) == "confirmed"
    first.kill()
    first.wait()
    began_s = time.monotonic()
    second = start(settings, candidates)
    assert said(second) == "leads"
    took_over_s = time.monotonic() - began_s
    fault_row("the leading trainer killed", second_leads_after_s=took_over_s)
    assert took_over_s < settings.session_timeout_s + 30
    assert asked(second) == "confirmed"


def test_a_leader_that_stalled_cannot_announce_when_it_is_back(
    settings: Settings, candidates: list[subprocess.Popen[str]], fault_row: FaultRow
) -> None:
    first = start(settings, candidates)
    assert said(first) == "leads"
    first.send_signal(signal.SIGSTOP)
    second = start(settings, candidates)
    assert said(second) == "leads"
    assert first.stdin is not None
    first.stdin.write("confirm\n")  # the very first thing it does, before it can learn of anything
    first.stdin.flush()
    first.send_signal(signal.SIGCONT)
    answer = said(first)
    fault_row("a leading trainer stalls and returns", returning_one=answer)
    assert answer == "Fenced"
    assert asked(second) == "confirmed"
    assert asked(first) == "Fenced"
