"""Outcomes of a long run, appended to a file so that an interrupted run can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class OutcomeLog:
    """The last outcome of each name, with the key that it was found under; other keys are other sources."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the last line of a run that was killed while it wrote
                self._last[entry["name"]] = entry

    def find(self, name: str, key: str) -> dict[str, Any] | None:
        """The outcome under this key, unless the last one was under another."""
        entry = self._last.get(name)
        return entry["outcome"] if entry is not None and entry["key"] == key else None

    def add(self, name: str, key: str, outcome: dict[str, Any]) -> None:
        """Keeps an outcome; it is in the file when this returns."""
        entry = self._last[name] = {"name": name, "key": key, "outcome": outcome}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = not self._path.exists() or self._path.read_bytes()[-1:] in (b"", b"\n")
        with self._path.open("a") as file:
            file.write(("" if whole else "\n") + json.dumps(entry) + "\n")


def source_key(files: Iterable[Path], *texts: str) -> str:
    """16 hex digits that change with the content of the files, or with one of the texts."""
    digest = hashlib.sha256()
    for path in sorted(set(files)):
        digest.update(path.read_bytes() if path.exists() else b"gone")
        digest.update(b"\0")
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def part_of(items: Sequence[T], part: str) -> Sequence[T]:
    """Part ``K/N`` of the items, in their order: every one of them is in one of the N parts.

    Raises: ValueError when it is not 1/1, 1/2, 2/2 and so on.
    """
    number, _, total = part.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise ValueError(f"part {part!r} is not K/N with K from 1 to N")
    low, high = (len(items) * edge // int(total) for edge in (int(number) - 1, int(number)))
    return items[low:high]
