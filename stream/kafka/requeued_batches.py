"""Lets an aiokafka producer fail a batch that waits to be sent again, without a KeyError.

aiokafka removes a batch from its set of pending batches twice: when it queues the batch to be sent again, and when the batch
ends. A batch that fails in between, because its producer is closed or fenced, is no longer in the set. The KeyError stopped
nothing, but its traceback was in the log of a service that ended as it should. Here a queued batch stays in the set.
"""

from __future__ import annotations

from aiokafka.producer.message_accumulator import MessageAccumulator, MessageBatch

_reenqueue = MessageAccumulator.reenqueue


def _reenqueue_and_keep(accumulator: MessageAccumulator, batch: MessageBatch) -> None:
    _reenqueue(accumulator, batch)
    accumulator._pending_batches.add(batch)


def keep_requeued_batches() -> None:
    """Lets every producer of this process do so. Idempotent."""
    MessageAccumulator.reenqueue = _reenqueue_and_keep
