"""The rows of the table, in its order."""

from __future__ import annotations

from tests.bench.quality.neural import neural_rows
from tests.bench.quality.rows import Row, markov_rows, popularity_rows


def all_rows() -> list[Row]:
    """Popularity, Markov chains, trained baselines, IntentRec."""
    return [*popularity_rows(), *markov_rows(), *neural_rows()]
