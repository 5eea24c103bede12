"""The order of the tests: nothing is lost, files stay together, and each share begins with slow ones."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.rigs.order import shares_with_slow_first


def test_each_share_begins_with_slow_files_and_ends_with_quick_ones() -> None:
    items: list[Any] = [
        SimpleNamespace(path=Path(f"/tests/{folder}/test_{number}.py"), number=test)
        for folder, num_files, num_tests in (("e2e", 2, 2), ("faults", 5, 2), ("integration", 5, 1), ("unit", 18, 3))
        for number in range(num_files)
        for test in range(num_tests)
    ]
    ordered = shares_with_slow_first(items, 3)
    assert sorted(map(repr, ordered)) == sorted(map(repr, items))
    size = len(items) // 3
    begins = []
    for first in range(0, 3 * size, size):
        folders = [item.path.parent.name for item in ordered[first : first + size]]
        begins.append(folders[0])
        assert folders[-1] == "unit"
        assert [name for name, _ in groupby(folders, key=lambda name: name == "unit")] == [False, True]
    assert begins == ["faults", "faults", "e2e"]
    assert {item.path.parent.name for item in ordered[: 2 * size]} == {"faults", "integration", "unit"}
    files = [path for path, _ in groupby(ordered, key=lambda item: item.path)]
    assert len(files) <= len(set(files)) + 2, "only at the borders of shares"
