"""docs/tutorial.md, command by command, from a CSV file that is made here to the intents of each member."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from stream.cli import root
from stream.local_kafka.broker import start_broker
from stream.local_kafka.ports import free_port
from tests.e2e.test_readme import environment, recommended, run, started, wait_until_ready
from tests.worlds.retail_events import write_events, write_items

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [
    [word for word in shlex.split(line) if not word.startswith("INTENTREC_")]
    for block in re.findall(r"```sh\n(.*?)```", TUTORIAL, re.S)
    for line in block.strip().splitlines()
]
INTENTREC = ".venv/bin/intentrec"
(ROWS,) = re.findall(r"```toml\n(.*?)```", TUTORIAL, re.S)
(ROWS_FILE,) = re.findall(r"INTENTREC_ROWS=(\S+)", TUTORIAL)
#: A small model, so that the test takes seconds.
TRAIN_BRIEFLY = ["--epochs", "1", "--width", "16", "--layers", "1", "--device", "cpu", "--no-references"]


def test_the_tutorial_names_every_step_in_its_order() -> None:
    steps = [command[1] for command in COMMANDS if command[0] == INTENTREC]
    assert steps == [
        "import", "import", "domain", "broker", "topics", "train", "worker", "doctor", "replay", "gateway", "explain",
    ]  # fmt: skip


def test_files_and_tables_of_the_first_steps_are_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_events(Path("events.csv"))
    write_items(Path("items.csv"))
    for command in [command[1:] for command in COMMANDS if command[0] == INTENTREC][:3]:
        assert root.run(command) == 0
    printed = capsys.readouterr().out + Path("events.csv").read_text() + Path("items.csv").read_text()
    shown = re.findall(r"^    (.*)", TUTORIAL.partition("## 3. Train")[0], re.M)
    assert len(shown) > 20
    lines = {line.rstrip() for line in printed.splitlines()}
    assert [line for line in shown if line not in lines] == []


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_from_a_csv_file_to_live_intents(tmp_path: Path) -> None:
    num_events = write_events(tmp_path / "events.csv")
    write_items(tmp_path / "items.csv")
    ours = [command[1:] for command in COMMANDS if command[0] == INTENTREC]
    (look,) = [command[1:] for command in COMMANDS if command[0] == ".venv/bin/python"]
    (ask,) = [command[1] for command in COMMANDS if command[0] == "curl"]
    dry_run, import_, init, _, topics, train, worker, doctor, replay, gateway, explain = ours
    assert gateway[-2:] == ["--metrics-port", "9465"], "the worker has the other one"
    (tmp_path / ROWS_FILE).write_text(ROWS)
    with start_broker(engine="embedded", data_dir=tmp_path) as broker:
        port, gateway_port, gateway_metrics_port = free_port(), free_port(), free_port()
        settings = {
            "INTENTREC_BROKER": broker.address,
            "INTENTREC_METRICS_PORT": str(port),
            "INTENTREC_CACHE_DIR": str(tmp_path / "cache"),
        }
        run(dry_run, tmp_path, settings)
        assert not (tmp_path / "my-data").exists()
        for command in (import_, init, topics, [*train, *TRAIN_BRIEFLY]):
            run(command, tmp_path, settings)
        with started(worker, tmp_path, settings | {"INTENTREC_ROWS": ROWS_FILE}):
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
            ports = ["--port", str(gateway_port), "--metrics-port", str(gateway_metrics_port)]
            with started([*gateway[:-2], *ports], tmp_path, settings):
                wait_until_ready(gateway_metrics_port)
                page = answer(ask.replace(":9470/", f":{gateway_port}/").replace("/58/", f"/{user}/"))
        # The worker has ended: what it has answered is committed.
        run([*explain[:-1], user], tmp_path, settings)
    assert 0.2 * num_events < len(shown.stdout.splitlines()) <= 0.31 * num_events
    assert page["user_id"] == user
    assert "known" not in page, "it has read the member's messages"
    assert {row["kind"] for row in page["rows"]} == {"intent", "popular"}
    assert re.search(r"^\d+: (action|category|tags|price|listed|contact) = ", shown.stdout, re.M)


def answer(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as response:
        found: dict[str, Any] = json.load(response)
        return found
