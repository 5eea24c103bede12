"""The demo's page is opened where a person can see it, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.browsers import note_addresses

ADDRESS = "http://127.0.0.1:9470"
OPEN = f"from stream.cli.demo import _open_browser; _open_browser({ADDRESS!r})"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there always is a display")
@pytest.mark.parametrize("display", [{"DISPLAY": ":97"}, {"WAYLAND_DISPLAY": "wayland-0"}, {}])
def test_the_page_is_opened_where_there_is_a_display(tmp_path: Path, display: dict[str, str]) -> None:
    """In a process of its own: Python chooses its browser once."""
    opened = tmp_path / "opened"
    environment = {name: text for name, text in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= display | {"BROWSER": str(note_addresses(tmp_path / "browser", opened))}
    subprocess.run([sys.executable, "-c", OPEN], env=environment, check=True, timeout=60)
    assert (opened.read_text().split() if opened.exists() else []) == ([ADDRESS] if display else [])
