"""Configuration of the pipeline, derived from the worker's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from intentrec_core.errors import ConfigError
from intentrec_core.history.changelog_codec import SCHEMA_VERSION
from stream.pipeline.row_rules import RowRule
from stream.wire.sizes import DEFAULT_LIMITS, TopicLimits


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """``num_partitions`` of the plays topic. A play that crashes inference is tried ``max_tries`` times by itself before it goes
    to the dead letters. ``max_prefill_positions`` as in :mod:`stream.pipeline.prefill`. ``changelog_schema`` as in
    :mod:`intentrec_core.history.changelog_codec`. ``limits`` are those of the topics. ``source`` as in
    :mod:`stream.wire.output_headers`. ``publish_embedding``: messages have the query vector and the intent embedding.
    ``publish_reasons``: the items of a list have reasons. ``rows``: the rows that a list has.

    Raises: ConfigError naming the value and what is allowed.
    """

    num_partitions: int
    plays_partitioner: Literal["murmur2", "any"] = "murmur2"
    num_recommendations: int = 10
    beta: float = 1.0
    max_tries: int = 2
    max_prefill_positions: int = 0
    changelog_schema: int = SCHEMA_VERSION
    limits: TopicLimits = DEFAULT_LIMITS
    source: str = "/intentrec"
    publish_embedding: bool = False
    publish_reasons: bool = False
    rows: tuple[RowRule, ...] = ()

    def __post_init__(self) -> None:
        lows = {"num_partitions": 1, "num_recommendations": 1, "max_tries": 1, "beta": 0, "max_prefill_positions": 0}
        for name, low in lows.items():
            if not getattr(self, name) >= low:
                raise ConfigError(f"pipeline {name} is {getattr(self, name)}; allowed: {low} or more")
