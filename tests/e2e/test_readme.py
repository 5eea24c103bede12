"""README.md's commands run, and the library's lines do.

Elsewhere: `make demo` in test_demo_on_a_terminal, `make kafka` and `intentrec broker` in tests/integration/test_broker.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from stream.local_kafka.broker import start_broker
from stream.local_kafka.ports import free_port
from stream.ops.scrape import is_ready
from stream.settings import Settings
from stream.wire.codec import decode_recommendation

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.strip().splitlines()]
OURS = [command for command in COMMANDS if command.startswith(".venv/bin/intentrec ")]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
#: Writes a folder of plays, as the text says.
WRITE_FOLDER = re.findall(r"`\.venv/bin/intentrec (simulate [^`]+)`", README)[0]
#: Shows the answers.
SUBSCRIBE = re.findall(r"`\.venv/bin/python (examples/[^`]+)`", README)[0].split()
#: Makes a bundle of the saved model and announces it.
BUILD = re.findall(r"`\.venv/bin/intentrec (bundle build [^`]+)`", README)[0].split()
#: Options that shorten the training.
TRAIN_BRIEFLY = ["--epochs", "1", "--no-references"]
NUM_SEEN = 20


def test_every_command_is_of_a_kind_that_is_run_here() -> None:
    assert set(COMMANDS) == set(OURS) | set(MAKE)
    assert MAKE[:2] == ["make demo", "make test"]
    assert [shlex.split(command)[1] for command in OURS] == ["topics", "train", "worker", "replay", "trainer"]


@pytest.mark.parametrize("command", MAKE)
def test_every_make_target_is_there_and_needs_only_the_installation(command: str) -> None:
    """`make demo` is run by test_demo_on_a_terminal, `make test` is what runs this."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        shlex.split(command + " --dry-run --assume-old=.venv/installed"),
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ones_own_events_are_answered(tmp_path: Path) -> None:
    """The commands, one after another, on a broker of the test's own; worker and trainer run side by side on two ports."""
    with start_broker(engine="embedded", data_dir=tmp_path) as broker:
        port, trainer_port = free_port(), free_port()
        settings = {
            "INTENTREC_BROKER": broker.address,
            "INTENTREC_METRICS_PORT": str(port),
            "INTENTREC_CACHE_DIR": str(tmp_path / "cache"),
        }
        run(shlex.split(WRITE_FOLDER), tmp_path, settings)
        topics, train, worker, replay, trainer = [shlex.split(command)[1:] for command in OURS]
        own_port = trainer.index("--metrics-port") + 1
        assert trainer[own_port] != str(Settings.model_fields["metrics_port"].default), "the worker's"
        trainer[own_port] = str(trainer_port)
        run(topics, tmp_path, settings)
        run(train + TRAIN_BRIEFLY, tmp_path, settings)
        with started(worker, tmp_path, settings):
            wait_until_ready(port)
            run(replay, tmp_path, settings)
            seen = asyncio.run(recommended(broker.address))
            shown = subprocess.run(
                [sys.executable, str(ROOT / SUBSCRIBE[0]), *SUBSCRIBE[1:], "--broker", broker.address],
                cwd=tmp_path, capture_output=True, text=True, timeout=110,
            )  # fmt: skip
            with started(trainer, tmp_path, settings):
                wait_until_ready(trainer_port)
    assert seen >= NUM_SEEN
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) >= NUM_SEEN


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_headless_demo_prints_json_on_its_last_line() -> None:
    (command,) = [command for command in MAKE if "--json" in command]
    arguments = shlex.split(command)[2].removeprefix("DEMO_ARGS=").split()
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", "demo", *arguments, "--train-seconds", "4"],
        capture_output=True, text=True, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    assert figures["plays_applied"] == figures["plays_sent"] > 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_librarys_lines_run_and_workers_can_serve_what_they_save(tmp_path: Path) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.S)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=380
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert (tmp_path / "model").is_dir()
    with start_broker(engine="embedded", data_dir=tmp_path) as broker:
        settings = {"INTENTREC_BROKER": broker.address}
        run(["topics"], tmp_path, settings)
        run(BUILD, tmp_path, settings)
    assert list((tmp_path / ".intentrec" / "bundles").iterdir())


def run(arguments: list[str], folder: Path, settings: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments],
        cwd=folder, env=environment(settings), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}\n{done.stderr}"


@contextmanager
def started(arguments: list[str], folder: Path, settings: dict[str, str]) -> Iterator[None]:
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream.cli", *arguments],
            cwd=folder,
            env=environment(settings),
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def environment(settings: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **settings, "PYTHONPATH": str(ROOT)}


def wait_until_ready(port: int) -> None:
    deadline_s = time.monotonic() + 120
    while not is_ready(port):
        assert time.monotonic() < deadline_s, "the process is not ready"
        time.sleep(0.2)


async def recommended(broker: str) -> int:
    """How many recommendations there are; returns at the first NUM_SEEN."""
    consumer = AIOKafkaConsumer("recommendations", bootstrap_servers=broker, auto_offset_reset="earliest")
    await consumer.start()
    seen = 0
    try:
        async with asyncio.timeout(60):
            async for record in consumer:
                assert decode_recommendation(record.value).items
                seen += 1
                if seen == NUM_SEEN:
                    return seen
    finally:
        await consumer.stop()
    return seen
