"""Prints tables that can be read, copied and piped: no cell is ever cut."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from rich.cells import cell_len

from stream.cli.progress import results

_GAP = "  "
#: A last column narrower than this is harder to read than lines that the terminal wraps.
_MIN_FOLDED = 24


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Prints one line a row under a header, on standard output; ``right`` names the columns that are right-aligned.

    Every cell is printed whole, whatever the width. In a pipe each row is one line. On a terminal that is too narrow, the last
    column is folded; if even that does not help, the terminal wraps the lines. Control characters are escaped as in JSON.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    out = results()
    before_last = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    room = out.width - before_last if out.is_terminal else widths[-1]
    folds = _MIN_FOLDED <= room < widths[-1] and columns[-1] not in right
    for style, row in [("bold", list(columns)), *((None, row) for row in cells)]:
        last = (textwrap.wrap(row[-1], room) or [""]) if folds else [row[-1]]
        line = _GAP.join(
            _aligned(cell, width, is_right=name in right)
            for name, cell, width in zip(columns, [*row[:-1], last[0]], widths, strict=True)
        )
        for text in (line, *(" " * before_last + more for more in last[1:])):
            out.print(text.rstrip(), style=style, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """The text with its control characters as JSON writes them: a table keeps its lines, and a terminal its state."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _aligned(cell: str, width: int, *, is_right: bool) -> str:
    padding = " " * (width - cell_len(cell))
    return padding + cell if is_right else cell + padding
