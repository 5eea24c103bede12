"""Every command in README.md runs; every file it links to is there; every name it tells exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stream.cli.root import EXIT_CODES
from stream.ops.metrics import Metrics
from stream.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.strip().splitlines()]
OURS = [command for command in COMMANDS if command.startswith(".venv/bin/intentrec ")]
MAKE = [command for command in COMMANDS if command.startswith("make ")]


def test_every_command_is_of_a_kind_that_is_run_here() -> None:
    assert set(COMMANDS) == set(OURS) | set(MAKE)
    assert MAKE[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("command", MAKE)
def test_every_make_target_is_there_and_needs_only_the_installation(command: str) -> None:
    """`make demo` is run by test_demo_on_a_terminal, `make test` and `make check` by whoever runs this."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        shlex.split(command + " --dry-run --assume-old=.venv/installed"),
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_commands_run_one_after_another_as_they_stand_there(tmp_path: Path) -> None:
    for command in OURS:
        arguments = shlex.split(command)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "stream.cli", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_linked_to_is_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)\)", document.read_text()):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_every_setting_and_metric_that_is_named_exists() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX}
    assert set(re.findall(r"INTENTREC_[A-Z_]*", README)) <= settings
    for name, default in re.findall(r"^\| `(INTENTREC_[A-Z_]+)` \| `([^`]*)` \|", README, re.M):
        value = Settings.model_fields[name.removeprefix(PREFIX).lower()].default
        assert default == (f"{value:g}" if isinstance(value, float) else str(value)), name
    known = {family.name for family in Metrics().registry.collect()}
    for name in re.findall(r"`(intentrec_[a-z0-9_]+?)(?:_total)?(?:\{\w+\})?`", README):
        assert name in known or shutil.which(name) or name == "intentrec_core", name


def test_the_exit_codes_are_those_of_the_help() -> None:
    told = set(re.findall(r"\b(\d+) [a-z]", README[README.index("Exit codes:") :].split("\n\n")[0]))
    assert set(re.findall(r"\b(\d+) [a-z]", EXIT_CODES)) <= told


def test_no_figure_is_left_out() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"\b(MEASURED|SETTINGS|TODO|TBD)\b", document.read_text()), document.name
