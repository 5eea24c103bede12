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
from intentrec_core.history.history import EventLayout, History
from stream.ops.metrics import Metrics, PlayOutcome
from stream.pipeline.coalescing import coalesce
from stream.pipeline.folding import Folder, PartitionWork, PendingAnswer
from stream.pipeline.prefill import PrefillQueue
from stream.settings import Settings
from stream.wire.erasure_record import split_at_erasures
from stream.wire.records import ID_HEADER, OutputKind, OutputRecord, PartitionResult, SourceRecord, Write, output_id
from stream.worker_process import WorkerParts, WorkerProcess, run_until_signal

ANSWERS = (OutputKind.RECOMMENDATION, OutputKind.INTENT)


class CountingPipeline:
    """Answers a play with how many plays of the member are applied. ``poison`` in an item id makes it raise, ``slow`` sleep."""

    def __init__(self, num_partitions: int, layout: EventLayout, metrics: Metrics) -> None:
        self.layout = layout
        self.histories: dict[int, dict[str, History]] = {}
        self._num_partitions = num_partitions
        self._metrics = metrics
        #: Of a member whose answers are held back, one part each.
        self.cold: Callable[[str], bool] = lambda member: False
        self._cache = SimpleNamespace(caches=lambda member: not self.cold(member), num_slots=1 << 20)
        self._prefill = PrefillQueue(1, layout.size)

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        assert partition not in self.histories, f"partition {partition} opened twice"
        self.histories[partition] = histories

    def close_partition(self, partition: int) -> None:
        self._prefill.drop(partition)
        self.histories.pop(partition, None)

    def begin(self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False) -> Write:
        parts = (part.items() for part in split_at_erasures(batches))
        works = []
        for partition, records in chain.from_iterable(parts):
            folder = Folder(self.layout, self._num_partitions)
            work = folder.fold(partition, self.histories[partition], records)
            work.result.counts.add(self._metrics.plays, PlayOutcome.APPLIED, amount=work.result.num_applied)
            self._prefill.enqueue([work], folder.waves, self._cache, coalesced=coalesced)
            works.append(work)
        return lambda: [self._answered(work, coalesced) for work in works]

    @property
    def num_queued(self) -> int:
        return len(self._prefill)

    def begin_prefill(self) -> Write:
        part = self._prefill.next()
        return lambda: [self._answered(work, part.coalesced) for work in part.works]

    def _answered(self, work: PartitionWork, coalesced: bool) -> PartitionResult:
        if coalesced:
            num_coalesced = coalesce(pending for pending in work.pending if isinstance(pending, PendingAnswer))
            work.result.counts.add(self._metrics.coalesced_plays, amount=num_coalesced)
        for pending in work.pending:
            if isinstance(pending, OutputRecord):
                work.result.outputs.append(pending)
            elif not pending.is_coalesced:
                self._answer(pending, work.result.outputs)
        return work.result

    def _answer(self, answer: PendingAnswer, outputs: list[OutputRecord]) -> None:
        record, user = answer.record, answer.play.user_id
        if "poison" in answer.play.item_id:
            raise RuntimeError("poisoned")
        if "slow" in answer.play.item_id:
            time.sleep(float(answer.play.item_id.split(":")[1]))
        # Of the run and not of the history, which can be forgotten by now.
        run = answer.run
        count = run.anchor + len(run.context) // self.layout.size - (run.num_outputs - 1 - answer.nth)
        named: dict[str, Any] = {"user_id": user, "count": count}
        if answer.coalesces:
            first = answer.coalesces[0].record.offset
            named["coalesced"] = {"plays": 1 + len(answer.coalesces), "first_offset": first}
        value = json.dumps(named)[:-1].encode()
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
            pipeline = CountingPipeline(num_partitions, layout, metrics)
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
