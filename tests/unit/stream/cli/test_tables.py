"""Tables of the command line: at any width, and in a pipe, every cell can be read and copied whole."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.cli.tables import print_table, printable

COLUMNS = ("version", "built", "plays", "detail")
ROWS = [
    (
        "b0123456789ab",
        "2026-11-28 16:24:27",
        "1,000,000",
        "a filter of the domain matches no item of the catalogue at all",
    ),
    ("bcafe56789abc", "2026-11-27 16:24:27", "7", "–"),
]
PROGRAM = f"from stream.cli.tables import print_table; print_table({COLUMNS!r}, {ROWS!r}, right=('plays',))"


def on_a_terminal(columns: int) -> list[str]:
    """What a terminal of this width gets."""
    ours, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=its, env=environment) as process:
        os.close(its)
        assert process.wait(60) == 0
    with open(ours, "rb", buffering=0) as terminal:
        return re.sub(r"\x1b\[\d+m", "", terminal.read(1 << 16).decode()).splitlines()


def test_in_a_pipe_every_row_is_one_line_with_all_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, ROWS, right=("plays",))
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == list(COLUMNS)
    assert len(lines) == len(ROWS)
    for line, row in zip(lines, ROWS, strict=True):
        assert [cell.strip() for cell in line.split("  ") if cell] == list(row)
        assert line.rindex(f" {row[2]} ") + 1 + len(row[2]) == header.index("plays") + len("plays"), "right-aligned"


def test_on_a_terminal_the_last_column_is_folded_and_no_text_is_lost() -> None:
    header, *lines = on_a_terminal(80)
    assert max(map(len, [header, *lines])) <= 80
    start = header.index("detail")
    assert lines[0].startswith("b0123456789ab  2026-11-28 16:24:27")
    assert " ".join(line[start:] for line in lines[:-1]) == ROWS[0][3]
    assert len(lines) == 3


def test_on_a_terminal_that_is_too_narrow_lines_are_longer_and_whole() -> None:
    lines = on_a_terminal(20)[1:]
    assert [line.split("  ")[0] for line in lines] == [row[0] for row in ROWS]
    assert lines[0].endswith(ROWS[0][3])


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_breaks_a_line_or_moves_the_cursor(text: str) -> None:
    assert printable(text).isprintable()
    assert printable("a\0b\x1b[2J") == "a\\u0000b\\u001b[2J"
