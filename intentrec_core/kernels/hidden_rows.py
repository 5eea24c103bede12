"""Compiled steps of rankings that leave some rows out.

Shape: V rows.
"""

from __future__ import annotations

from typing import Any

from intentrec_core.kernels.dense import compiled


@compiled
def contains(rows: Any, row: Any) -> Any:
    """Whether ``row`` is one of ``rows`` i64[any]. It counts to the end, so that the loop is vectorised."""
    num = 0
    for at in range(len(rows)):
        num += rows[at] == row
    return num > 0


@compiled
def flag(is_hidden: Any, rows: Any, value: Any) -> None:
    """Sets the flags ``is_hidden`` bool[V] of ``rows`` i64[any]; those from V on have none."""
    for at in range(len(rows)):
        if rows[at] < len(is_hidden):
            is_hidden[rows[at]] = value
