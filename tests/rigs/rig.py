"""A test's own topics on a shared broker: produces plays, runs worker processes, reads everything back, compares with an oracle.

The checker is confluent-kafka, another client than ours. The oracle is the naive fold of the input log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from intentrec_core.domain.toml import load_domain
from intentrec_core.history.history import EventLayout
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import Broker
from stream.local_kafka.ports import free_port
from stream.settings import Settings
from tests.rigs.verdict import ReadBack, folded, follow, restored
from tests.worlds.member_state import MemberState

NUM_PARTITIONS = 4
_READ_DEADLINE_S = 30.0
#: A worker's start costs some seconds of one core; where everything runs at once that can be a minute and more.
ANSWERS_WITHIN_S = 150.0

Place = tuple[str, int, int]
"""Topic, partition and offset."""


@dataclass
class Output:
    """One record of an output topic."""

    topic: str
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]

    @property
    def id(self) -> str:
        return self.headers["intentrec-id"].decode()


@dataclass
class Worker:
    """A worker process and its log."""

    process: subprocess.Popen[bytes]
    log_path: Path
    metrics_port: int

    def log(self) -> str:
        return self.log_path.read_text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 40) -> int:
        return self.process.wait(timeout_s)

    def terminate(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()


@dataclass
class Rig:
    """See the module."""

    broker: Broker
    directory: Path
    options: dict[str, Any] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    num_sent: int = 0
    began_ms: int = field(default_factory=lambda: int(time.time() * 1000) - 300_000)

    def __post_init__(self) -> None:
        name = f"t{uuid.uuid4().hex[:8]}"
        self.settings = Settings.load(
            broker=self.broker.address,
            app_id=name,
            plays_topic=f"{name}-plays",
            recommendations_topic=f"{name}-recommendations",
            intents_topic=f"{name}-intents",
            dead_letter_topic=f"{name}-dlq",
            late_topic=f"{name}-late",
            model_updates_topic=f"{name}-updates",
            items_topic=f"{name}-items",
            item_counts_topic=f"{name}-counts",
            num_partitions=NUM_PARTITIONS,
            **({"session_timeout_s": 6, "rebalance_timeout_s": 10} | self.options),
        )
        asyncio.run(create_topics(self.settings))
        self.layout = EventLayout(load_domain("movielens"))
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": self.broker.address,
                "partitioner": "murmur2_random",
                # Kafka refuses the first batches of a new topic while it makes the partitions' leaders, and may take the second
                # one first. A plain producer then reorders a member's plays, and some come too late to be answered. An idempotent
                # one with several requests in flight has lost the first batch: its retry passed for a repeat.
                "enable.idempotence": True,
                "max.in.flight": 1,
                "message.max.bytes": 8_000_000,
                "log_level": 0,
            }
        )

    # --- plays

    def produce(self, plays: Iterable[dict[str, Any]], *, rate: float = 0) -> None:
        """Sends plays, ``rate`` a second, and waits for their acknowledgements."""
        started_s = time.monotonic()
        for num, play in enumerate(plays, start=1):
            self.send(play["user_id"].encode(), json.dumps(play).encode())
            if rate and num % 10 == 0:
                time.sleep(max(0.0, started_s + num / rate - time.monotonic()))
        self.flush()

    def send(self, key: bytes | None, value: bytes | None, **options: Any) -> None:
        self._producer.produce(self.settings.plays_topic, key=key, value=value, on_delivery=_must_succeed, **options)
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def plays(self, num: int, *, num_users: int = 40, item: str = "i") -> Iterator[dict[str, Any]]:
        """Valid plays, numbered on from those made before; a few are out of order, none too late."""
        for number in range(self.num_sent, self.num_sent + num):
            yield {
                "event_id": f"e{number}",
                "user_id": f"u{number % num_users}",
                "item_id": f"{item}{number % 50}",
                "ts": self.began_ms + 10 * (number + 3 * num_users * (number % 7 == 0)),
            }
        self.num_sent += num

    # --- workers

    def start_worker(
        self,
        *,
        module: str = "tests.worlds.counting",
        arguments: Sequence[str] = (),
        python: str = sys.executable,
        **environment: str,
    ) -> Worker:
        port = free_port()
        env = {k: v for k, v in os.environ.items() if not k.startswith("INTENTREC_")}
        for name, value in self.settings.model_dump(exclude_unset=True).items():
            env[f"INTENTREC_{name.upper()}"] = str(value)
        env |= {"INTENTREC_METRICS_PORT": str(port), "OMP_NUM_THREADS": "1", **environment}
        log_path = self.directory / f"worker-{len(self.workers)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen([python, "-m", module, *arguments], env=env, stderr=log, stdout=log)
        worker = Worker(process, log_path, port)
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.kill()
                worker.process.wait()

    # --- what came of it

    def outputs(self, *topics: str, isolation: str = "read_uncommitted") -> list[Output]:
        """Everything on the topics as of now, each partition in order and each record once, whatever the client does.

        Raises: AssertionError when they are not read to their ends in time: what is missing would look as if it had never been.
        """
        found: dict[Place, Output] = {}
        deadline_s = time.monotonic() + _READ_DEADLINE_S
        for new, unread in self._follow(topics, isolation):
            found |= new
            if not unread:
                return list(found.values())
            assert time.monotonic() < deadline_s, f"cannot be read to their ends: {sorted(unread)}"
        raise AssertionError

    def answers(self, **options: Any) -> Counter[str]:
        """How often each recommendation and intent was published, by id."""
        topics = (self.settings.recommendations_topic, self.settings.intents_topic)
        return Counter(output.id for output in self.outputs(*topics, **options))

    def wait_for_answers(self, num_plays: int, timeout_s: float = ANSWERS_WITHIN_S, **options: Any) -> Counter[str]:
        """Waits until ``num_plays`` plays have both answers, and returns how often each was published by then.

        What else may come of the plays, such as repeats, is known once the workers have ended: ask :meth:`answers` then.
        """
        topics = (self.settings.recommendations_topic, self.settings.intents_topic)
        return Counter(
            output.id for output in self.wait_for_outputs(2 * num_plays, *topics, timeout_s=timeout_s, **options)
        )

    def wait_for_outputs(
        self, num: int, *topics: str, timeout_s: float = ANSWERS_WITHIN_S, isolation: str = "read_uncommitted"
    ) -> list[Output]:
        """Waits until the topics hold ``num`` outputs with ids of their own."""
        found: dict[Place, Output] = {}
        ids: set[str] = set()
        deadline_s = time.monotonic() + timeout_s
        for new, _ in self._follow(topics, isolation):
            found |= new
            ids.update(output.id for output in new.values())
            if len(ids) >= num:
                return list(found.values())
            if time.monotonic() > deadline_s:
                logs = "\n".join(worker.log()[-3000:] for worker in self.workers)
                pytest.fail(f"{len(ids)} of {num} outputs after {timeout_s} s\n{logs}")
        raise AssertionError

    def _follow(
        self, topics: Sequence[str], isolation: str
    ) -> Iterator[tuple[dict[Place, Output], set[tuple[str, int]]]]:
        """What comes next on the topics, again and again, and which partitions have not been read to an end yet."""
        partitions = {(topic, partition) for topic in topics for partition in range(NUM_PARTITIONS)}
        with contextlib.closing(follow(self.broker.address, partitions, isolation)) as polls:
            for records, unread in polls:
                yield {(r.topic, r.partition, r.offset): _output(r) for r in records}, unread

    def state(self) -> dict[str, MemberState]:
        """Every member's state as the changelog has it."""
        return {user: state for (_, user), state in restored(self.settings, self.layout).items()}

    def oracle(self) -> dict[str, MemberState]:
        """Every member's state by the naive fold of the input log."""
        return {user: state for (_, user), state in folded(self.settings, self.layout).items()}


def _output(record: ReadBack) -> Output:
    assert record.value is not None
    return Output(record.topic, record.key, record.value, dict(record.headers))


def _must_succeed(error: Any, _: Any) -> None:
    assert error is None, str(error)
