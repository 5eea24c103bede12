"""docs/tutorial.md, command by command, from a CSV file that is made here to the intents of each member."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stream.local_kafka.broker import start_broker
from stream.local_kafka.ports import free_port
from tests.e2e.test_readme import environment, recommended, run, started, wait_until_ready
from tests.worlds.retail_events import write_events, write_items

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", TUTORIAL, re.S) for line in block.strip().splitlines()
]
INTENTREC = ".venv/bin/intentrec"
#: A small model, so that the test takes seconds.
TRAIN_BRIEFLY = ["--epochs", "1", "--width", "16", "--layers", "1", "--device", "cpu", "--no-references"]


def test_the_tutorial_names_every_step_in_its_order() -> None:
    steps = [command[1] for command in COMMANDS if command[0] == INTENTREC]
    assert steps == ["import", "import", "domain", "broker", "topics", "train", "worker", "doctor", "replay", "explain"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_from_a_csv_file_to_live_intents(tmp_path: Path) -> None:
    num_events = write_events(tmp_path / "events.csv")
    write_items(tmp_path / "items.csv")
    ours = [command[1:] for command in COMMANDS if command[0] == INTENTREC]
    (look,) = [command[1:] for command in COMMANDS if command[0] == ".venv/bin/python"]
    dry_run, import_, init, _, topics, train, worker, doctor, replay, explain = ours
    with start_broker(engine="embedded", data_dir=tmp_path) as broker:
        port = free_port()
        settings = {
            "INTENTREC_BROKER": broker.address,
            "INTENTREC_METRICS_PORT": str(port),
            "INTENTREC_CACHE_DIR": str(tmp_path / "cache"),
        }
        run(dry_run, tmp_path, settings)
        assert not (tmp_path / "my-data").exists()
        for command in (import_, init, topics, [*train, *TRAIN_BRIEFLY]):
            run(command, tmp_path, settings)
        with started(worker, tmp_path, settings):
            wait_until_ready(port)
            run(doctor, tmp_path, settings)
            run(replay[: replay.index("--rate")], tmp_path, settings)  # as fast as possible
            assert asyncio.run(recommended(broker.address)) > 0
            shown = subprocess.run(
                [sys.executable, str(ROOT / look[0]), *look[1:], "--broker", broker.address],
                cwd=tmp_path, env=environment(settings), capture_output=True, text=True, timeout=110,
            )  # fmt: skip
            assert shown.returncode == 0, shown.stderr
            user = shown.stdout.splitlines()[0].partition(":")[0]
        # The worker has ended: what it has answered is committed.
        run([*explain[:-1], user], tmp_path, settings)
    assert 0.2 * num_events < len(shown.stdout.splitlines()) <= 0.31 * num_events
    assert re.search(r"^\d+: (action|category|tags|price|listed|contact) = ", shown.stdout, re.M)
