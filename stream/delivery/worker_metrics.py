"""Records the worker's events in the metrics, one method for each event."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from intentrec_core.errors import EngineError, Fenced
from stream.delivery.partition import LogGap
from stream.kafka.publisher import PublishFailed
from stream.ops.metrics import ReopenReason, TransactionOutcome

if TYPE_CHECKING:
    from stream.delivery.restore import Restored
    from stream.kafka.publisher import Published
    from stream.ops.metrics import Metrics

logger = logging.getLogger(__name__)


class WorkerMetrics:
    """Counts and times on the injected metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def partitions(self, *, assigned: int, ready: int) -> None:
        """The number of assigned partitions, and of those that are served."""
        self._metrics.partitions_assigned.set(assigned)
        self._metrics.partitions_ready.set(ready)

    def buffered(self, num_plays: int) -> None:
        """The number of plays that wait for inference."""
        self._metrics.buffered_plays.set(num_plays)

    def lag(self, num_plays: int) -> None:
        """The number of plays in the log that are in no checkpoint."""
        self._metrics.lag_plays.set(num_plays)

    def cut_off(self, is_cut_off: bool) -> None:
        """Whether the broker does not answer."""
        self._metrics.broker_away.set(is_cut_off)

    def committed(self, duration_s: float) -> None:
        """A checkpoint is durable."""
        self._metrics.transactions.labels(TransactionOutcome.COMMITTED).inc()
        self._metrics.transaction_seconds.observe(duration_s)

    def commit_failed(self, error: BaseException) -> None:
        """A checkpoint failed: it is not durable, or its outcome is unknown."""
        if isinstance(error, PublishFailed):
            self._metrics.publish_failures.inc()
        outcome = TransactionOutcome.FENCED if isinstance(error, Fenced) else TransactionOutcome.ABORTED
        self._metrics.transactions.labels(outcome).inc()

    def reopened(self, error: BaseException) -> None:
        """A partition is reopened because of ``error``."""
        if isinstance(error, Fenced):
            reason = ReopenReason.FENCED
        elif isinstance(error, PublishFailed):
            reason = ReopenReason.SEND_FAILED
        elif isinstance(error, LogGap):
            reason = ReopenReason.REWOUND
        elif isinstance(error, EngineError):
            reason = ReopenReason.INFERENCE_FAILED
        else:
            reason = ReopenReason.TRANSACTION_FAILED
        self._metrics.partitions_reopened.labels(reason).inc()

    def restored(self, partition: int, restored: Restored) -> None:
        """A partition's state was read from the changelog."""
        self._metrics.recovery_seconds.observe(restored.duration_s)
        self._metrics.recovery_records.inc(restored.num_records)
        logger.info(
            "partition %d: %d members restored from %d records in %.2f s",
            partition,
            len(restored.histories),
            restored.num_records,
            restored.duration_s,
        )

    def published(self, published: Published) -> None:
        """Outputs were acknowledged."""
        self._metrics.outputs_published.labels(published.kind).inc(len(published.latencies_s))
        if published.kind.takes_latency:
            self._metrics.publication_latency_seconds.observe_many(published.latencies_s)
