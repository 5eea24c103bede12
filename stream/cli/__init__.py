"""The command line: one module per group of commands. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stream.ops.early_end import end_at_once_until_running

__all__ = ["main"]

#: The commands that end with 0 on SIGTERM, whatever they are doing.
_SERVICES = ("worker", "trainer", "gateway")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = next((argument for argument in given if not argument.startswith("-")), None)
    if command in _SERVICES:
        end_at_once_until_running()  # before the imports below, which take a second on a cold disk

    from stream.cli.root import main as run

    run(given)
