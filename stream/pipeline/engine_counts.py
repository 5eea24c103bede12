"""Adds an engine's running counts to the metrics, as the difference since the last time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream.ops.metrics import Lookup, Metrics

if TYPE_CHECKING:
    from stream.bundles.serving import Serving


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """An engine's running counts at one moment. Counts of different engines are not comparable."""

    hits: int = 0
    misses: int = 0
    positions: int = 0
    evictions: int = 0

    @classmethod
    def of(cls, serving: Serving) -> EngineCounts:
        """The engine's counts as of now."""
        engine = serving.engine
        return cls(engine.stats.hits, engine.stats.misses, engine.stats.positions, engine.num_evictions)

    def count(self, metrics: Metrics, since: EngineCounts) -> None:
        """Adds the difference since ``since`` to the metrics."""
        if self.hits > since.hits:
            metrics.engine_lookups.labels(Lookup.HIT).inc(self.hits - since.hits)
        if self.misses > since.misses:
            metrics.engine_lookups.labels(Lookup.MISS).inc(self.misses - since.misses)
        metrics.engine_positions.inc(self.positions - since.positions)
        if self.evictions > since.evictions:
            metrics.engine_evictions.inc(self.evictions - since.evictions)
