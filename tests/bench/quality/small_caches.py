"""The row of a model whose two heads share one key and one value of a play: a member's cache has half the size."""

from __future__ import annotations

import dataclasses

from intentrec_core.model.model import IntentRec
from tests.bench.quality.neural import SHORTER_SCHEDULE, _row
from tests.bench.quality.rows import Row

CODE = ("tests/bench/quality/small_caches.py",)


def small_cache_rows() -> list[Row]:
    """V3 with intents and own items, and one head of keys and values for two; asked without refreshes."""
    row = _row(
        "V3 with intents, own items and one head of keys and values",
        IntentRec,
        {"own_items": True, "num_kv_heads": 1},
        seeds=(0, 1, 2),
        is_ours=True,
        data_sets=("movielens", "world"),
        shorter_schedule=SHORTER_SCHEDULE,
    )
    return [
        dataclasses.replace(row, code=(*row.code, *CODE), protocols=lambda protocol: protocol.startswith("temporal"))
    ]
