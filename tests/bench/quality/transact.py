"""The row of TransAct, which the paper compares with first, on the simulated world: it has action types."""

from __future__ import annotations

import dataclasses

from intentrec_core.baselines.transact import TransAct
from tests.bench.quality.neural import _row
from tests.bench.quality.rows import Row

CODE = ("intentrec_core/baselines/transact.py", "tests/bench/quality/transact.py")


def transact_rows() -> list[Row]:
    """TransAct with intents side by side."""
    row = _row("TransAct, adapted", TransAct, {"intent_score": False}, seeds=(0, 1, 2), data_sets=("world",))
    return [dataclasses.replace(row, code=(*row.code, *CODE))]
