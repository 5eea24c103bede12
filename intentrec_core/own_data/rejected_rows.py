"""Rows that an import cannot take: kept aside in a file with the reason, and counted by kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from intentrec_core.durable_files import replacing

#: Characters of a value, or of a whole line that could not be split, that are kept of a rejected row.
_KEPT_LENGTH = 10_000


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is not taken. ``number``: its row as a spreadsheet counts, blank ones too (the header is row 1; without one, and
    in Parquet, the first row is 1), or its line of JSON lines. ``kind`` is what rows are counted by, ``reason`` says it of this
    one. ``content``: the values by column, or the text of a line that could not be split.
    """

    number: int
    kind: str
    reason: str
    content: Mapping[str, Any] | str


@dataclass(slots=True)
class RejectedKind:
    """How many rows were rejected for one kind of reason, and the first of them."""

    num: int
    first: RejectedRow


class RejectedRows:
    """Counts rejected rows and writes each as one JSON object a line. The file replaces ``path`` when the block ends; where no
    row was rejected there is none, and that of an earlier import is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kinds: dict[str, RejectedKind] = {}
        self._replacing = replacing(path)
        self._file: BinaryIO | None = None

    @property
    def num(self) -> int:
        """How many rows were rejected."""
        return sum(kind.num for kind in self.kinds.values())

    def add(self, row: RejectedRow) -> None:
        """Counts and writes a row. Raises: OSError when it cannot be written."""
        if (kind := self.kinds.get(row.kind)) is not None:
            kind.num += 1
        else:
            self.kinds[row.kind] = RejectedKind(1, row)
        if self._file is None:
            self._file = self._replacing.__enter__()
        content = {"line": _kept(row.content)} if isinstance(row.content, str) else {"values": _values(row.content)}
        line = {"row": row.number, "reason": row.reason, **content}
        self._file.write(json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")

    def lines(self) -> list[str]:
        """One line for each kind, the most frequent first."""
        most = sorted(self.kinds.values(), key=lambda kind: -kind.num)
        return [
            f"{kind.num:,} × {kind.first.kind}; the first in row {kind.first.number:,}: {kind.first.reason}"
            for kind in most
        ]

    def __enter__(self) -> RejectedRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._replacing.__exit__(kind, error, trace)
        elif kind is None:
            self.path.unlink(missing_ok=True)


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _kept(value.decode(errors="backslashreplace"))
    if isinstance(value, str):
        return _kept(value)
    return value if isinstance(value, bool | int) else _kept(str(value))


def _kept(text: str) -> str:
    return text if len(text) <= _KEPT_LENGTH else f"{text[:_KEPT_LENGTH]}… ({len(text):,} characters)"
