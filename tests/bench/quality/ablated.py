"""The row of the served model without its short-term encoder: what the short-term encoder brings beside own items.

V3 over V2 compares two models that know nothing of own items. There the short-term encoder has to find what was just played,
which own items say better.
"""

from __future__ import annotations

import dataclasses

from tests.bench.quality.neural import SHORTER_SCHEDULE, _row, without_short_term
from tests.bench.quality.rows import Row

CODE = ("tests/bench/quality/ablated.py",)


def ablated_rows() -> list[Row]:
    """V2 with intents and own items in the score."""
    row = _row(
        "V2 with intents and own items in the score",
        without_short_term,
        {"own_items": True},
        seeds=(0, 1, 2),
        is_ours=True,
        shorter_schedule=SHORTER_SCHEDULE,
    )
    return [dataclasses.replace(row, code=(*row.code, *CODE))]
