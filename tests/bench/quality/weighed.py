"""Rows with successors beside the trained score: what usually follows the last plays, with a weight chosen on the validation.

The network is that of the row without it, trained in the same way. In a stream, the transitions are those up to the last refresh,
as a worker has those of its bundle. With counts, what is popular is a part of it too, as where a trainer writes tables of counts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.model.model import IntentRec
from tests.bench.quality.counted import REFRESH_S, THREE_SEEDS, CountedLearner
from tests.bench.quality.data_sets import Loaded, Measured
from tests.bench.quality.neural import BUDGETS, NEURAL_CODE, SHORTER_SCHEDULE, Budget, Learner
from tests.bench.quality.rows import Answers, Row

WEIGHED_CODE = (
    *NEURAL_CODE,
    "intentrec_core/kernels/successors.py",
    "intentrec_core/successors.py",
    "tests/bench/quality/counted.py",
    "tests/bench/quality/weighed.py",
)


def weighed_rows() -> list[Row]:
    """V3 with intents and successors; the same with own items; and with counts."""
    counts: Mapping[str, Any] = {"item_counts": True, "count_refresh_s": REFRESH_S}
    return [
        _row("V3 with intents and successors", Learner, {}, ("beauty", "quick-world")),
        _row(
            "V3 with intents, own items and successors",
            Learner,
            {"own_items": True},
            ("world", "world-without-intents", "movielens", "quick-world"),
            shorter_schedule=SHORTER_SCHEDULE,
        ),
        _row(
            "V3 with intents, counts and successors",
            CountedLearner,
            counts,
            ("movietweetings", "quick-world"),
            shorter_schedule=SHORTER_SCHEDULE,
        ),
    ]


def _row(
    name: str,
    learner: type[Learner],
    changes: Mapping[str, Any],
    data_sets: tuple[str, ...],
    *,
    shorter_schedule: int | None = None,
) -> Row:
    budgets = {data: budget.text() for data, budget in BUDGETS.items()} | {"else": Budget().text()}
    configuration = json.dumps([name, dict(changes), budgets, shorter_schedule], sort_keys=True)

    def answer(measured: Measured, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        budget = BUDGETS.get(measured.name, Budget())
        model = dataclasses.replace(budget.model, **changes)
        config = dataclasses.replace(budget.train, seed=seed)
        return learner(loaded, IntentRec, model, config, shorter_schedule, weighs=True).answer(protocol)

    return Row(
        name,
        configuration,
        answer,
        WEIGHED_CODE,
        THREE_SEEDS,
        is_ours=True,
        is_trained=True,
        data_sets=data_sets,
        protocols=lambda protocol: "item_counts" not in changes or not protocol.endswith("time unknown"),
    )
