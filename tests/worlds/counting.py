"""A pipeline without a model, for tests of delivery: it folds plays as the real one does and answers with the count.

Run as a program it is a worker process on it: `python -m tests.worlds.counting`, settings from the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any

from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import IntentRecError
from intentrec_core.history.changelog_codec import SCHEMA_VERSION
from intentrec_core.history.history import EventLayout, History
from stream.ops.metrics import Metrics, PlayOutcome
from stream.pipeline.coalescing import CoalescedPlays
from stream.pipeline.folding import FoldedBatch, FoldedPartition, Folder, PendingAnswer
from stream.pipeline.prefill import PrefillQueue
from stream.settings import Settings
from stream.wire.codec import NO_LATENCY
from stream.wire.deferred_counts import DeferredCounts
from stream.wire.erasure_record import split_at_erasures
from stream.wire.records import ID_HEADER, OutputKind, OutputRecord, PartitionResult, SourceRecord, output_id
from stream.worker_process import WorkerParts, WorkerProcess, run_until_signal

logger = logging.getLogger(__name__)

#: In the log, before a slow answer.
SLOW_SAID = "a slow answer begins"
ANSWERS = (OutputKind.RECOMMENDATION, OutputKind.INTENT)


class CountingPipeline:
    """Answers a play with how many plays of the member are applied. ``poison`` in an item id makes it raise, ``slow`` sleep."""

    def __init__(
        self, num_partitions: int, layout: EventLayout, metrics: Metrics, schema: int = SCHEMA_VERSION
    ) -> None:
        self.layout = layout
        self._schema = schema
        self.histories: dict[int, dict[str, History]] = {}
        self._num_partitions = num_partitions
        self._metrics = metrics
        #: Whether a member is cold: its answers are queued for prefill, one chunk each.
        self.cold: Callable[[str], bool] = lambda member: False
        self._cache = SimpleNamespace(caches=lambda member: not self.cold(member), num_slots=1 << 20)
        self._prefill = PrefillQueue(1, layout.size)

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        assert partition not in self.histories, f"partition {partition} opened twice"
        self.histories[partition] = histories

    def close_partition(self, partition: int) -> None:
        self._prefill.drop(partition)
        self.histories.pop(partition, None)

    def encode(self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False) -> list[FoldedBatch]:
        parts = (part.items() for part in split_at_erasures(batches))
        encoded = []
        for partition, records in chain.from_iterable(parts):
            folder = Folder(self.layout, self._num_partitions, self._schema)
            folder.fold(partition, self.histories[partition], records)
            encoded.append(self._prefill.enqueue(folder.batch(coalesced=coalesced), self._cache))
        return encoded

    @property
    def num_queued_chunks(self) -> int:
        return len(self._prefill)

    def encode_prefill(self) -> list[FoldedBatch]:
        return [self._prefill.next()]

    def respond(self, encoded: Sequence[FoldedBatch]) -> list[PartitionResult]:
        return [self._answered(partition, batch.coalesced) for batch in encoded for partition in batch.partitions]

    def _answered(self, partition: FoldedPartition, coalesced: bool) -> PartitionResult:
        counts, outputs = DeferredCounts(), list(partition.outputs)
        counts.add(self._metrics.plays, PlayOutcome.APPLIED, amount=partition.outcomes.num_applied)
        answers: list[tuple[PendingAnswer, CoalescedPlays]] = [(answer, ()) for answer in partition.answers]
        if coalesced:
            by_member: dict[str, list[PendingAnswer]] = {}
            for answer in partition.answers:
                by_member.setdefault(answer.play.user_id, []).append(answer)
            answers = [(last, [(answer, 0) for answer in earlier]) for *earlier, last in by_member.values()]
            counts.add(self._metrics.coalesced_plays, amount=len(partition.answers) - len(answers))
        for answer, earlier in answers:
            self._answer(answer, earlier, outputs)
        return PartitionResult(
            partition.partition,
            partition.next_offset,
            partition.num_records,
            outputs,
            partition.changelog,
            partition.outcomes,
            counts,
        )

    def _answer(self, answer: PendingAnswer, earlier: CoalescedPlays, outputs: list[OutputRecord]) -> None:
        record, user = answer.record, answer.play.user_id
        if "poison" in answer.play.item_id:
            raise RuntimeError("poisoned")
        if "slow" in answer.play.item_id:
            logger.info(SLOW_SAID)
            time.sleep(float(answer.play.item_id.split(":")[1]))
        # Of the run and not of the history, which can be forgotten by now.
        run = answer.run
        count = run.anchor + len(run.context) // self.layout.size - (run.num_outputs - 1 - answer.nth)
        named: dict[str, Any] = {"user_id": user, "count": count}
        if earlier:
            named["coalesced"] = {"plays": 1 + len(earlier), "first_offset": earlier[0][0].record.offset}
        value = json.dumps(named)[:-1].encode() + NO_LATENCY
        for kind in ANSWERS:
            headers = ((ID_HEADER, output_id(record, kind)),)
            outputs.append(OutputRecord(kind, user.encode(), value, headers, record.offset, record.timestamp))


def main() -> int:
    level = os.environ.pop("TEST_LOG_LEVEL", "INFO")
    domain = os.environ.pop("TEST_DOMAIN", "movielens")
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings, metrics = Settings.load(), Metrics()

    async def work() -> None:
        @contextlib.asynccontextmanager
        async def make_parts(num_partitions: int) -> AsyncIterator[WorkerParts]:
            layout = EventLayout(load_domain(domain))
            pipeline = CountingPipeline(num_partitions, layout, metrics, settings.changelog_schema)
            yield WorkerParts(pipeline=pipeline, layout=layout, fingerprint=layout.domain.fingerprint)

        await run_until_signal(WorkerProcess(settings, metrics, make_parts))

    try:
        asyncio.run(work())
    except IntentRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
