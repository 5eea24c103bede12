"""Runs commands as a person would, in this process and with the settings of a rig."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stream.cli import root
from stream.settings import Settings

#: Runs a command: exit code, standard output, standard error.
Commands = Callable[..., tuple[int, str, str]]


def commands_with(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, columns: int
) -> Commands:
    """Commands on a terminal of so many columns, until the test ends."""
    for name, value in settings.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(f"INTENTREC_{name.upper()}", str(value))
    monkeypatch.setenv("COLUMNS", str(columns))

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = root.run(list(arguments))
        return (code, *capsys.readouterr())

    return command
