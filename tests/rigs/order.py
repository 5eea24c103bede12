"""The order of the tests: slow ones first in every process, so that the last minutes are quick tests, which spread evenly.

pytest-xdist gives each process an equal share of the list, and one that is done takes tests from the end of another's. In the
order of folders one share had all slow tests, and the suite ended with one process at work and the others waiting for it.

Tests of ``e2e`` are the slow ones of the last share alone. Each runs a whole system that trains: three at once starved one
another until a trainer killed its run as one that hangs. Beside them the other processes run tests that mostly wait for a broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest

_SLOW_FOLDERS, _WHOLE_SYSTEMS = ("browser", "faults", "integration"), ("e2e",)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Called by pytest, in each process with the same list; alone, the order stays."""
    num_processes: int = getattr(config, "workerinput", {}).get("workercount", 1)
    if num_processes > 1:
        items[:] = shares_with_slow_first(items, num_processes)


def shares_with_slow_first(items: Sequence[pytest.Item], num_shares: int) -> list[pytest.Item]:
    """Equal shares, two or more, one after another. The tests of a file stay together, but for those at the border of two
    shares.
    """
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    slow = [tests for tests in files if _is_in(tests[0], _SLOW_FOLDERS)]
    systems = [test for test in items if _is_in(test, _WHOLE_SYSTEMS)]
    quick = [test for test in items if not _is_in(test, _SLOW_FOLDERS + _WHOLE_SYSTEMS)]
    others = num_shares - 1
    shares = [[test for tests in slow[number::others] for test in tests] for number in range(others)] + [systems]
    ordered: list[pytest.Item] = []
    for number, share in enumerate(shares):
        rest = (len(items) * (number + 1)) // num_shares - len(ordered) - len(share)
        ordered += share + quick[: max(0, rest)]
        del quick[: max(0, rest)]
    return ordered + quick


def _is_in(item: pytest.Item, folders: Sequence[str]) -> bool:
    return any(folder in item.path.parts for folder in folders)
