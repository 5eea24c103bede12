"""Times a step of the pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from stream.ops.metrics import Metrics, PipelineStep


@contextmanager
def timed(metrics: Metrics, step: PipelineStep) -> Iterator[None]:
    """Observes how long a step of a micro-batch takes, in seconds."""
    started_s = time.perf_counter()
    yield
    metrics.stage_seconds.labels(step).observe(time.perf_counter() - started_s)
