"""Load on a rig during faults, and the progress of its consumer group, which every fault is timed by.

The driver is a thread that keeps its rate whatever becomes of the workers. Progress is what the group has committed, asked by
confluent-kafka, another client than the workers' own.
"""

from __future__ import annotations

import json
import random
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import confluent_kafka
import pytest

from stream.ops.scrape import is_ready
from stream.wire.records import ID_HEADER
from tests.rigs.serving_rig import counted

if TYPE_CHECKING:
    from stream.settings import Settings
    from tests.rigs.rig import Rig, Worker

#: Makes so many further plays of a rig.
Plays = Callable[["Rig", int], Iterator[dict[str, Any]]]

_TICK_S = 0.02
#: Commits come ten times a second, and a loaded machine is late with some: less than this is no backlog.
CAUGHT_UP_S = 2.0
#: A worker's start costs some seconds of one core; where everything runs at once that can be a minute and more.
START_WITHIN_S = 240
#: Of the workers that were not stopped, what was answered is committed by then.
_COMMITTED_WITHIN_S = 2.0
_TRIES = 10
#: Kafka does not announce a commit or a new leader: it has to be asked, and not too often.
_ASK_EVERY_S = 0.25
_ANSWER_DEADLINE_S = 60.0


class Load:
    """Produces ``rate`` plays a second from entry to exit; all are acknowledged on exit. The rate may be changed meanwhile.

    Raises on exit: whatever kept the producer from it.
    """

    def __init__(self, rig: Rig, plays: Plays, rate: float) -> None:
        self.rate = rate
        self.num_sent = 0
        self._rig, self._plays = rig, plays
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _run(self) -> None:
        try:
            last_s, owed = time.monotonic(), 0.0
            while not self._stop.wait(_TICK_S):
                now_s = time.monotonic()
                owed += self.rate * (now_s - last_s)
                last_s, due = now_s, int(owed)
                owed -= due
                for play in self._plays(self._rig, due):
                    self._rig.send(play["user_id"].encode(), json.dumps(play).encode())
                self.num_sent += due
            self._rig.flush()
        except BaseException as error:  # handed to the test, which runs in another thread
            self._error = error


class GroupView:
    """The workers' consumer group and the plays topic, seen from outside."""

    def __init__(self, settings: Settings) -> None:
        self._topic, self._num_partitions = settings.plays_topic, settings.num_partitions
        self._options = {
            "bootstrap.servers": settings.broker,
            "group.id": settings.app_id,
            "enable.auto.commit": False,
            # A killed worker's open transaction must not hide what was committed before it.
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
        self._client = confluent_kafka.Consumer(self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def ends(self) -> dict[int, int]:
        """The end of each partition of the plays, now."""
        sources = [confluent_kafka.TopicPartition(self._topic, p) for p in range(self._num_partitions)]
        return {s.partition: self._ask("get_watermark_offsets", s)[1] for s in sources}

    def committed(self) -> dict[int, int]:
        """The offset committed for each partition; 0 where there is none."""
        sources = [confluent_kafka.TopicPartition(self._topic, p) for p in range(self._num_partitions)]
        found = self._ask("committed", sources)
        return {source.partition: max(0, source.offset) for source in found}

    def _ask(self, question: str, about: Any) -> Any:
        """The answer, once there is one: a broker that comes or goes has moments without a leader or a coordinator."""
        deadline_s = time.monotonic() + _ANSWER_DEADLINE_S
        while True:
            try:
                return getattr(self._client, question)(about, 5)
            except confluent_kafka.KafkaException:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(_ASK_EVERY_S)
                # With a new client: one that was not subscribed to anything has been seen to hold on to a leader that is gone.
                self._client.close()
                self._client = confluent_kafka.Consumer(self._options)

    def lag(self) -> int:
        """Plays in the log and not committed."""
        committed = self.committed()
        return sum(max(0, end - committed[partition]) for partition, end in self.ends().items())

    def catches_up(self, rig: Rig, *, rate: float = 0, timeout_s: float = 240) -> float:
        """Waits until the plays of now are committed and less than CAUGHT_UP_S of ``rate`` waits; returns the seconds it took."""
        began_s, ends = time.monotonic(), self.ends()
        while True:
            committed = self.committed()
            if all(committed[p] >= end for p, end in ends.items()) and self.lag() <= rate * CAUGHT_UP_S:
                return time.monotonic() - began_s
            if time.monotonic() - began_s > timeout_s:
                logs = "\n".join(f"{worker.log_path.name}:\n{worker.log()[-3000:]}" for worker in rig.workers)
                pytest.fail(f"{self.lag()} plays wait after {timeout_s} s\n{logs}")
            time.sleep(_ASK_EVERY_S)


class Answered:
    """How far the plays have been answered, committed or not: reads along the recommendations."""

    def __init__(self, settings: Settings) -> None:
        self._newest: dict[int, int] = {}
        options = {"group.id": f"{settings.app_id}-answered", "enable.auto.commit": False, "log_level": 0}
        self._client = confluent_kafka.Consumer(
            {"bootstrap.servers": settings.broker, "isolation.level": "read_uncommitted", **options}
        )
        topic, beginning = settings.recommendations_topic, confluent_kafka.OFFSET_BEGINNING
        partitions = range(settings.num_partitions)
        self._client.assign([confluent_kafka.TopicPartition(topic, p, beginning) for p in partitions])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def newest(self) -> dict[int, int]:
        """By partition of the plays, the highest offset that was answered: of what can be read within a second."""
        until_s = time.monotonic() + 1
        while time.monotonic() < until_s and (messages := self._client.consume(2000, 0.2)):
            for message in messages:
                if message.error() is None:
                    partition, offset = map(int, dict(message.headers())[ID_HEADER].split(b"-")[-3:-1])
                    self._newest[partition] = max(offset, self._newest.get(partition, -1))
        return dict(self._newest)


def stop_mid_batch(worker: Worker, group: GroupView, answered: Answered, rng: random.Random) -> int:
    """Stops a worker that has answered plays and not committed them; returns how many, 0 when it never was caught at that.

    It stays stopped in any case: what is killed next is killed there.
    """
    for _ in range(_TRIES):
        worker.send(signal.SIGSTOP)
        newest = answered.newest()
        time.sleep(_COMMITTED_WITHIN_S)
        committed = group.committed()
        if num := sum(max(0, offset + 1 - committed[partition]) for partition, offset in newest.items()):
            return num
        worker.send(signal.SIGCONT)
        time.sleep(rng.uniform(0.3, 0.6))
    worker.send(signal.SIGSTOP)
    return 0


def serving(workers: list[Worker], num_partitions: int) -> bool:
    """Whether these workers are ready and hold all partitions between them."""
    held = [counted(worker, "partitions_ready") for worker in workers]
    return all(is_ready(worker.metrics_port) for worker in workers) and sum(held) == num_partitions


def livez(worker: Worker) -> tuple[int, str]:
    """Status and text of the worker's /livez."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.metrics_port}/livez", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def holds_partitions(worker: Worker) -> bool:
    """Whether the worker serves any partition now."""
    return counted(worker, "partitions_ready") > 0


def resident_mb(worker: Worker, field: str = "VmRSS") -> float:
    """Memory of a worker's process in MB; ``VmHWM`` is its peak."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024
