"""From bytes to bytes: records of plays in, recommendations and intents out, the state in between.

Synchronous, and owned by the one inference thread; it knows no Kafka client, no event loop and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from intentrec_core.errors import ConfigError
from stream.records import OutputKind, OutputRecord, PartitionResult, SourceRecord

if TYPE_CHECKING:
    from intentrec_core.history import History
    from stream.metrics import Metrics
    from stream.serving import Serving

__all__ = ["OutputKind", "OutputRecord", "PartitionResult", "Pipeline", "PipelineConfig", "SourceRecord"]


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """How plays become outputs.

    ``num_partitions`` of the plays topic; ``max_tries`` is how often a play that crashes inference is tried by itself
    before it goes to the dead letters.

    Raises: ConfigError naming the value and what is allowed.
    """

    num_partitions: int
    plays_partitioner: Literal["murmur2", "any"] = "murmur2"
    num_recommendations: int = 10
    beta: float = 0.0
    max_tries: int = 2

    def __post_init__(self) -> None:
        for name, low in (("num_partitions", 1), ("num_recommendations", 1), ("max_tries", 1), ("beta", 0)):
            if not getattr(self, name) >= low:
                raise ConfigError(f"pipeline {name} is {getattr(self, name)}; allowed: {low} or more")


class Pipeline:
    """Folds plays into histories and answers each one.

    Not thread safe: one thread calls everything here; a swap happens between two calls of :meth:`process`.
    """

    def __init__(self, serving: Serving, config: PipelineConfig, metrics: Metrics) -> None:
        raise NotImplementedError

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        """Takes over a partition with its restored state, which the pipeline owns from here on."""
        raise NotImplementedError

    def close_partition(self, partition: int) -> None:
        """Drops a partition's state and everything derived from it; one that is not open is no error."""
        raise NotImplementedError

    def process(self, batches: Mapping[int, Sequence[SourceRecord]]) -> list[PartitionResult]:
        """Processes the next records of open partitions, in source order; one result a partition, in the order given.

        Raises: KeyError for a partition that is not open. No play makes it raise.
        """
        raise NotImplementedError

    def swap(self, serving: Serving) -> None:
        """Serves with another bundle from the next call on."""
        raise NotImplementedError
