"""The demo as a user starts it: its figures add up, the weights refresh while it runs, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.local_kafka.broker import start_broker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

KEYS = {
    "plays_sent", "plays_applied", "recommendations", "intents", "dead_lettered", "duplicates", "p50_ms", "p99_ms",
    "hr_at_10", "hr_at_10_popular", "hr_at_10_markov", "intent_accuracy", "bundles_published", "bundles_swapped",
    "bundle_versions",
}  # fmt: skip
#: A first bundle of a few seconds' learning: the flow is under test here, not the quality.
QUICK = ("--headless", "--train-seconds", "4")


class Demo:
    """A running demo whose processes, all of them, can be told by a mark in their environment."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._mark = uuid.uuid4().hex
        self._err = folder / "demo.err"
        self._out = folder / "demo.out"
        with self._err.open("wb") as err, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream.cli", "demo", *QUICK, *arguments],
                env={**os.environ, "DEMO_MARK": self._mark, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def processes(self) -> dict[int, str]:
        """Every living process of this demo with its command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if f"DEMO_MARK={self._mark}".encode() not in (entry / "environ").read_bytes():
                        continue
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if command:  # a process that has ended and was not waited for has none
                    found[int(entry.name)] = command
        return found

    def said(self) -> str:
        return self._err.read_text(errors="replace")

    def result(self) -> dict[str, Any]:
        """The last line of standard output."""
        parsed: dict[str, Any] = json.loads(self._out.read_text().strip().splitlines()[-1])
        return parsed

    def wait_until_it_says(self, pattern: str, deadline_s: float = 200.0) -> None:
        """Waits for a regular expression in what it writes to standard error."""
        wait_until(lambda: bool(re.search(pattern, self.said())) or self.process.poll() is not None, deadline_s)
        assert re.search(pattern, self.said()), self.said()

    def stop(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def wait_until(true: Callable[[], bool], deadline_s: float) -> None:
    give_up_s = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < give_up_s, "did not happen in time"
        time.sleep(0.1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    demos: list[Demo] = []

    def begin(*arguments: str) -> Demo:
        demos.append(Demo(tmp_path, *arguments))
        return demos[-1]

    yield begin
    for demo in demos:
        demo.stop()


def test_every_play_is_folded_in_and_answered_while_the_weights_refresh_and_ctrl_c_ends_it_in_good_order(
    start: Callable[..., Demo],
) -> None:
    demo = start("--json", "--retrain", "8", "--rate", "80")  # no time limit: how long a refresh takes is the machine's
    demo.wait_until_it_says(r", [1-9]\d* swaps?\b", 350.0)
    assert len(demo.processes()) >= 4, "demo, broker, worker, trainer"
    os.kill(demo.process.pid, signal.SIGINT)
    assert demo.process.wait(120) == 0, demo.said()
    figures = demo.result()
    assert set(figures) == KEYS
    assert figures["plays_sent"] > 500
    assert figures["plays_applied"] == figures["plays_sent"]
    assert figures["recommendations"] == figures["plays_sent"]
    assert figures["intents"] == figures["plays_sent"]
    assert (figures["dead_lettered"], figures["duplicates"]) == (0, 0)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert 0 < figures["hr_at_10_popular"] < 1
    assert 0 < figures["hr_at_10_markov"] < 1
    assert set(figures["intent_accuracy"]) == {"genre", "era", "rating"}
    assert figures["bundles_published"] >= figures["bundles_swapped"] >= 1
    assert len(set(figures["bundle_versions"])) == len(figures["bundle_versions"]) >= 2, "all that served"
    assert demo.processes() == {}


def test_killed_it_leaves_no_process_either(start: Callable[..., Demo]) -> None:
    demo = start()
    demo.wait_until_it_says("folded in")
    os.kill(demo.process.pid, signal.SIGKILL)
    demo.process.wait()
    wait_until(lambda: not demo.processes(), 15.0)


def test_a_worker_that_dies_ends_the_demo_with_its_last_words(start: Callable[..., Demo]) -> None:
    demo = start()
    demo.wait_until_it_says("folded in")
    (worker,) = [pid for pid, command in demo.processes().items() if command.rstrip().endswith("stream.cli worker")]
    os.kill(worker, signal.SIGKILL)
    assert demo.process.wait(60) == 1
    assert "the worker ended by itself (signal SIGKILL)" in demo.said()
    assert "logs are in" in demo.said()
    assert demo.processes() == {}


@pytest.mark.kafka
def test_on_a_kafka_of_ones_own_it_uses_topics_of_its_own_and_removes_them(
    start: Callable[..., Demo], tmp_path: Path
) -> None:
    with start_broker(engine="kafka", data_dir=tmp_path / "kafka") as broker:
        demo = start("--json", "--seconds", "15", "--broker", broker.address)
        assert demo.process.wait(400) == 0, demo.said()
        figures = demo.result()
        assert figures["plays_applied"] == figures["plays_sent"] == figures["recommendations"]
        assert not [topic for topic in asyncio.run(topics(broker.address)) if topic.startswith("intentrec-demo")]


async def topics(address: str) -> list[str]:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        return list(await admin.list_topics())
    finally:
        await admin.close()
