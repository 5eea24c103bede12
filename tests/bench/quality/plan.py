"""The rows of the table, in its order."""

from __future__ import annotations

from tests.bench.quality.ablated import ablated_rows
from tests.bench.quality.checks import checked
from tests.bench.quality.counted import counted_rows
from tests.bench.quality.fair import fair_rows
from tests.bench.quality.neural import neural_rows
from tests.bench.quality.oracle import oracle_rows
from tests.bench.quality.rows import Row, markov_rows, popularity_rows
from tests.bench.quality.small_caches import small_cache_rows
from tests.bench.quality.transact import transact_rows
from tests.bench.quality.weighed import weighed_rows


def all_rows() -> list[Row]:
    """Popularity, Markov chains, trained baselines, IntentRec, the oracle."""
    trained = [
        *neural_rows(),
        *ablated_rows(),
        *fair_rows(),
        *counted_rows(),
        *weighed_rows(),
        *small_cache_rows(),
        *transact_rows(),
    ]
    return [*popularity_rows(), *markov_rows(), *(checked(row) for row in trained), *oracle_rows()]
