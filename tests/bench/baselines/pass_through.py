"""Baseline (d): our topology with no model. Run as a program it is a worker process; settings from the environment.

With all of a worker's guarantees: plays are decoded, checked and folded into histories as the pipeline does it, histories go into
the changelog, state and offset are committed in one transaction, outputs are acknowledged before. What is missing is inference:
the two answers are bodies of a real worker's answers, read from ``BENCH_BODIES``, with the play's event id in front. The third
output is the play itself, as it came, on the late topic: a record of a play's size that a worker really writes now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from intentrec_core.domain.toml import load_domain
from intentrec_core.history.history import EventLayout, History
from stream.ops.metrics import Metrics
from stream.pipeline.folding import Folder, PendingAnswer
from stream.settings import Settings
from stream.wire.codec import NO_LATENCY
from stream.wire.erasure_record import split_at_erasures
from stream.wire.records import ID_HEADER, OutputKind, OutputRecord, PartitionResult, SourceRecord
from stream.worker_process import WorkerParts, WorkerProcess, run_until_signal

ANSWERS = {OutputKind.RECOMMENDATION: "recommendation.json", OutputKind.INTENT: "intent.json"}


def read_bodies(folder: Path) -> dict[OutputKind, bytes]:
    """Values of answers, from after their event id up to before their latency."""
    return {kind: (folder / name).read_bytes() for kind, name in ANSWERS.items()}


class PassThrough:
    """Folds plays and answers each with three records that say nothing."""

    num_queued_chunks = 0

    def __init__(self, layout: EventLayout, num_partitions: int, bodies: Mapping[OutputKind, bytes]) -> None:
        self._layout, self._num_partitions = layout, num_partitions
        self._answers = [(kind, body + NO_LATENCY) for kind, body in bodies.items()]
        self._histories: dict[int, dict[str, History]] = {}

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        """As the pipeline's."""
        self._histories[partition] = histories

    def close_partition(self, partition: int) -> None:
        """As the pipeline's."""
        self._histories.pop(partition, None)

    def encode_prefill(self) -> list[PartitionResult]:
        """Never called: nothing is queued."""
        return []

    def encode(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        """As the pipeline's, but that every play is answered: what is coalesced would be no pass-through."""
        results = []
        for partition, records in chain.from_iterable(part.items() for part in split_at_erasures(batches)):
            folder = Folder(self._layout, self._num_partitions)
            folded = folder.fold(partition, self._histories[partition], records)
            outputs = list(folded.outputs)
            self._answer(folded.answers, outputs)
            results.append(
                PartitionResult(
                    partition, folded.next_offset, folded.num_records, outputs, folded.changelog, folded.outcomes
                )
            )
        return results

    def respond(self, encoded: list[PartitionResult]) -> list[PartitionResult]:
        """Everything is answered already."""
        return encoded

    def _answer(self, answers: Sequence[PendingAnswer], outputs: list[OutputRecord]) -> None:
        """In one loop with nothing in it that a play does not need: what is measured is delivery, not this stand-in."""
        id_of, of_late = _id_formats(answers[0].record) if answers else {}, OutputKind.LATE
        for answer in answers:
            record = answer.record
            offset, timestamp_ms, key = record.offset, record.timestamp, answer.play.user_id.encode()
            opening = b'{"event_id":"%b"' % answer.play.event_id.encode()
            for kind, rest in self._answers:
                headers = ((ID_HEADER, id_of[kind] % offset),)
                outputs.append(OutputRecord(kind, key, opening + rest, headers, offset, timestamp_ms))
            headers = ((ID_HEADER, id_of[of_late] % offset),)
            outputs.append(OutputRecord(of_late, key, record.value or b"", headers, offset, timestamp_ms))


def _id_formats(record: SourceRecord) -> dict[OutputKind, bytes]:
    """What makes the ids of a partition's outputs of an offset; a topic's name holds no percent sign."""
    source = f"{record.topic}-{record.partition}-%d-"
    return {kind: f"{source}{kind.value}".encode() for kind in OutputKind}


async def main() -> None:
    """See the module."""
    logging.basicConfig(level="WARNING")
    bodies = read_bodies(Path(os.environ["BENCH_BODIES"]))
    settings = Settings.load()

    @contextlib.asynccontextmanager
    async def make_parts(num_partitions: int) -> AsyncIterator[WorkerParts]:
        layout = EventLayout(load_domain(settings.domain))
        pipeline = PassThrough(layout, num_partitions, bodies)
        yield WorkerParts(pipeline=pipeline, layout=layout, fingerprint=layout.domain.fingerprint)

    await run_until_signal(WorkerProcess(settings, Metrics(), make_parts))


if __name__ == "__main__":
    asyncio.run(main())
