"""A worker's event-loop side on a minimal broker, with an inference that can be made to hang."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from intentrec_core.errors import BrokerError
from stream.delivery.changelog import Checkpoint
from stream.delivery.partition import Membership, TaskDependencies
from stream.delivery.restore import Restored
from stream.delivery.retries import Retries
from stream.delivery.start_offset import SourceFacts
from stream.delivery.worker import PlaysWorker
from stream.delivery.worker_metrics import WorkerMetrics
from stream.kafka.publisher import OutputStream, Receipt
from stream.ops.metrics import Metrics, PlayOutcome
from stream.settings import Settings
from stream.wire.records import OutputRecord, PartitionResult, SourceRecord

REBALANCE_TIMEOUT_S = 2.0


class HangingPipeline:
    """Its first micro-batch hangs until it is let go on."""

    def __init__(self) -> None:
        self.go_on, self.began = threading.Event(), threading.Event()
        self.opened: list[int] = []
        #: Of each micro-batch, how many plays it held, and whether it was coalesced.
        self.taken: list[tuple[int, bool]] = []
        self.metrics = Metrics()

    def open_partition(self, partition: int, histories: dict[str, Any]) -> None:
        self.opened.append(partition)

    num_queued_chunks = 0

    def encode_prefill(self) -> list[PartitionResult]:
        raise AssertionError

    def respond(self, encoded: list[PartitionResult]) -> list[PartitionResult]:
        return encoded

    def close_partition(self, partition: int) -> None:
        self.opened = [opened for opened in self.opened if opened != partition]

    def encode(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        self.taken.append((sum(map(len, batches.values())), coalesced))
        self.began.set()
        self.go_on.wait(20)
        results = [PartitionResult(p, records[-1].offset + 1, len(records)) for p, records in batches.items()]
        for result in results:
            result.counts.add(self.metrics.plays, PlayOutcome.APPLIED, amount=result.num_records)
        return results


@dataclass
class Broker:
    """The least of a broker: one partition, whose committed offsets are remembered."""

    committed: list[int] = field(default_factory=list)
    num_opened: int = 0
    num_failures: int = 0

    def writer(self, partition: int, marker: object) -> Any:
        return self

    async def open(self) -> None:
        self.num_opened += 1

    async def commit(self, checkpoint: Checkpoint) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise BrokerError("the commit failed")
        self.committed.append(checkpoint.next_offset)

    async def close(self) -> None:
        pass

    async def source_facts(self, partition: int) -> SourceFacts:
        return SourceFacts(committed=None, beginning=100, end=1000, num_partitions=1)

    async def seek_source(self, partition: int, offset: int) -> None:
        pass

    async def membership(self, partition: int) -> Membership:
        return Membership.YES

    async def restore(self, partition: int) -> Restored:
        return Restored({}, None, 0, 0, 0.0)

    def publish(self, outputs: Sequence[OutputRecord], stream: OutputStream) -> Receipt:
        receipt = Receipt(len(outputs), stream)
        receipt.settle(len(outputs))
        return receipt


def run_worker(
    pipeline: HangingPipeline,
    scenario: Callable[[PlaysWorker, Broker, Metrics], Awaitable[None]],
    *,
    batch_deadline_ms: float = 0,
    settings: dict[str, Any] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    retries: Retries | None = None,
    **changes: Any,
) -> None:
    """Runs a scenario with a worker that holds partition 0, on a loop of its own or on ``loop``, which is closed then."""

    async def run() -> None:
        metrics, broker = pipeline.metrics, Broker()
        given = Settings.load(commit_interval_s=0.01, batch_deadline_ms=batch_deadline_ms, **(settings or {}))
        dependencies: dict[str, Any] = {
            "source": broker,
            "writer": broker.writer,
            "marker": lambda num_partitions, next_offset: None,
            "restore": broker.restore,
            "transactional": True,
            "fingerprint": "f" * 16,
            "commit_interval_s": 0.01,
            "recovery_deadline_s": 30.0,
        }
        worker = PlaysWorker(
            given,
            pipeline,
            WorkerMetrics(metrics),
            TaskDependencies(**{**dependencies, **changes}),
            broker,
            rebalance_timeout_s=REBALANCE_TIMEOUT_S,
            retries=retries,
            clock=asyncio.get_running_loop().time,
        )
        async with worker:
            worker.partitions_assigned({0})
            try:
                async with asyncio.timeout(60):
                    await scenario(worker, broker, metrics)
            finally:
                pipeline.go_on.set()

    if loop is None:
        asyncio.run(run())
    else:
        with contextlib.closing(loop):
            loop.run_until_complete(run())


async def until(done: Callable[[], Any]) -> None:
    while not done():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def keep_the_loop_busy(seconds: float) -> None:
    """Blocks the event loop, as a callback that computes does; other threads go on."""
    asyncio.get_running_loop().call_soon(time.sleep, seconds)
    await asyncio.sleep(0)


def records(start: int, num: int) -> list[Any]:
    return [SimpleNamespace(partition=0, offset=offset, value=b"play") for offset in range(start, start + num)]
