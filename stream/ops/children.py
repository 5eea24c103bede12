"""What all child processes have in common: the packages that they import, and a log whose last line says why they ended."""

from __future__ import annotations

import os
from pathlib import Path

_TREE = Path(__file__).resolve().parents[2]
_MAX_LINE = 300


def child_environment(**more: str) -> dict[str, str]:
    """The environment of this process plus ``more``. The child imports the packages of this tree, whatever its working folder is
    and whatever else is installed.
    """
    paths = [str(_TREE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **more, "PYTHONPATH": os.pathsep.join(paths)}


def last_line(log_path: Path) -> str:
    """The last line of a log, cut to 300 characters."""
    lines = [line.strip() for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:_MAX_LINE] if lines else "no output"
