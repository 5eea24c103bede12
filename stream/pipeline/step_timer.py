"""Times a step of the pipeline."""

from __future__ import annotations

import time
from types import TracebackType

from stream.ops.metrics import Metrics, PipelineStep


class timed:
    """Observes how long a step of a micro-batch takes, in seconds; nothing where it raises."""

    __slots__ = ("_observe", "_started_s")

    def __init__(self, metrics: Metrics, step: PipelineStep) -> None:
        self._observe = metrics.step_seconds[step].observe

    def __enter__(self) -> None:
        self._started_s = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._observe(time.perf_counter() - self._started_s)
