"""A demo whose plays are not all folded in keeps its folder: the logs in it say why."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from intentrec_core.errors import NotDrained
from stream.cli import demo, root
from stream.demo import environment, run
from stream.demo.environment import DemoEnvironment
from stream.demo.stats import DemoResult


def result(num_applied: int) -> DemoResult:
    return DemoResult(
        plays_sent=20,
        plays_applied=num_applied,
        recommendations=num_applied,
        intents=num_applied,
        dead_lettered=0,
        duplicates=0,
        p50_ms=None,
        p99_ms=None,
        hr_at_10=None,
        hr_at_10_popular=None,
        hr_at_10_markov=None,
        intent_accuracy={},
        bundles_published=0,
        bundles_swapped=0,
        bundle_versions=[],
    )


@pytest.mark.parametrize("num_applied", [20, 19])
def test_the_folder_is_kept_exactly_if_plays_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], num_applied: int
) -> None:
    """On a broker, with the processes and the replay left out: what is missing is known once they have ended."""
    folders: list[Path] = []

    def prepare(environment: DemoEnvironment, *_: object, **__: object) -> tuple[Any, str]:
        folders.append(environment.folder)
        return SimpleNamespace(title="plays", rest=lambda share: None, catalogue=None), "b0123456789ab"

    @contextlib.contextmanager
    def no_processes(*_: object) -> Iterator[tuple[None, None]]:
        yield None, None

    monkeypatch.setattr(demo, "unwind_on_signals", lambda: None)
    monkeypatch.setattr(demo, "prepare", prepare)
    monkeypatch.setattr(environment, "running_processes", no_processes)
    monkeypatch.setattr(run, "run_demo", lambda *_: result(num_applied))
    is_missing = num_applied < 20
    try:
        assert root.run(["demo", "--headless"]) == (NotDrained.exit_code if is_missing else 0)
        assert folders[0].exists() is is_missing
        said = capsys.readouterr().err
        assert (f"logs are in {folders[0]}" in said) is is_missing
        assert ("only 19 were folded in" in said) is is_missing
    finally:
        shutil.rmtree(folders[0], ignore_errors=True)
