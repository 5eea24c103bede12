"""A browser that opens nothing: a program for the variable BROWSER that notes addresses."""

from __future__ import annotations

from pathlib import Path


def note_addresses(program: Path, opened: Path) -> Path:
    """Writes ``program``, which adds each address that it is asked to open to the file ``opened``. Returns it."""
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$1\" >>'{opened}'\n")
    program.chmod(0o755)
    return program
