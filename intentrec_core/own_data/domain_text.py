"""Writes the TOML of a domain file, with a comment above each table."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence

_WIDTH = 116

Value = str | bool | int | float | Sequence[str] | Sequence[float]


def table_text(header: str, values: Mapping[str, Value], comment: str = "", *, is_proposal: bool = False) -> str:
    """A table with its comment. A proposal is commented out as a whole."""
    lines = [header, *(f"{key} = {_value(value)}" for key, value in values.items())]
    if is_proposal:
        lines = [f"# {line}" for text in lines for line in text.splitlines()]
    return "\n".join([*comment_lines(comment), *lines]) + "\n"


def comment_lines(text: str) -> list[str]:
    """The text as comment lines. Its control characters are escaped: TOML takes none in a comment."""
    printable = "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)
    return [f"# {line}" for line in textwrap.wrap(printable, _WIDTH, break_long_words=False)]


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, str):
        return _text(value)
    entries = [_value(entry) for entry in value]
    line = f"[{', '.join(entries)}]"
    if len(line) <= _WIDTH - 12:
        return line
    lines, row = [], ""
    for entry in entries:
        if row and len(row) + len(entry) > _WIDTH - 8:
            lines.append(row.rstrip())
            row = ""
        row += f"{entry}, "
    return "\n".join(["[", *(f"    {of}" for of in [*lines, row.rstrip()]), "]"])


def _text(value: str) -> str:
    """A basic string: as in JSON, and TOML wants DEL escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
