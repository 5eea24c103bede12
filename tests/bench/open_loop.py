"""Plays at a constant rate, whatever the worker does, and the arrival time of each list at an independent subscriber.

A play's clock starts when it is due, not when it could be sent: a producer that is held up makes latencies longer and not fewer.
Producer and subscriber are confluent-kafka, another client than the worker's; the producer lingers for 5 ms, as Kafka 4's own
does unless told otherwise, so that it does not take a request a play of the broker that shares the machine.

While the loop is open, this process looks for no cycles of garbage. With torch and a world in memory, that takes up to 210 ms,
in which plays are neither sent nor seen to be answered.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import confluent_kafka
import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.settings import Settings
from tests.bench.rates import BenchFailed, Program

_ANSWERED_WITHIN_S = 120.0
_TICK_S = 0.001


class _List(msgspec.Struct):
    """What is read of a recommendation."""

    event_id: str
    bundle: str


class OpenLoop:
    """Sends a row's plays, which are numbered in their event ids, and notes when each is answered."""

    def __init__(self, settings: Settings, program: Program, plays: Iterator[tuple[bytes, bytes]]) -> None:
        self._topic, self._program, self._plays = settings.plays_topic, program, plays
        broker = {"bootstrap.servers": settings.broker, "log_level": 0}
        self._producer = confluent_kafka.Producer({**broker, "partitioner": "murmur2_random", "linger.ms": 5})
        self._consumer = confluent_kafka.Consumer(
            {**broker, "group.id": "subscriber", "enable.auto.commit": False, "fetch.wait.max.ms": 100}
        )
        beginning = confluent_kafka.OFFSET_BEGINNING
        self._consumer.assign(
            [
                confluent_kafka.TopicPartition(settings.recommendations_topic, partition, beginning)
                for partition in range(settings.num_partitions)
            ]
        )
        self._due_s: list[float] = []
        self._arrived_s: dict[int, float] = {}
        #: When a bundle answered for the first time, and when for the last time yet.
        self.first_answer_s: dict[str, float] = {}
        self.last_answer_s: dict[str, float] = {}
        self._over = threading.Event()
        self._listening = threading.Thread(target=self._listen, name="subscriber", daemon=True)

    def __enter__(self) -> Self:
        gc.disable()
        self._listening.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listening.join()
        self._consumer.close()
        gc.enable()

    def burst(self, num: int) -> float:
        """Sends plays at once and waits for their answers; returns plays a second, from the first one sent to the last answer.

        A little less than what is possible, but also with few plays never more, as the answers' own distances could be.
        """
        first, began_s = len(self._due_s), time.time()
        for _ in range(num):
            self._send(time.time())
        self._wait_for(first)
        return num / (max(self._arrived_s[number] for number in range(first, len(self._due_s))) - began_s)

    def send(self, rate: float, until: Callable[[float], bool]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sends ``rate`` plays a second until told to stop (asked with the seconds since the beginning).

        Returns when each was due, and its latency in seconds.
        """
        first, began_s = len(self._due_s), time.time()
        while not until(time.time() - began_s):
            num_due = int((time.time() - began_s) * rate)
            while (sent := len(self._due_s) - first) < num_due:
                self._send(began_s + (sent + 1) / rate)
            self._producer.poll(0)
            time.sleep(_TICK_S)
        self._wait_for(first)
        due_s = np.array(self._due_s[first:])
        return due_s, np.array([self._arrived_s[number] for number in range(first, first + len(due_s))]) - due_s

    def _send(self, due_s: float) -> None:
        key, value = next(self._plays)
        self._due_s.append(due_s)
        while True:
            try:
                return self._producer.produce(self._topic, key=key, value=value, timestamp=int(due_s * 1000))
            except BufferError:  # the broker is behind: a play that waits here is late, and counted so
                self._producer.poll(0.05)

    def _wait_for(self, first: int) -> None:
        self._producer.flush(_ANSWERED_WITHIN_S)
        give_up_s = time.monotonic() + _ANSWERED_WITHIN_S
        while len(self._arrived_s) < len(self._due_s):
            self._program.check()
            if time.monotonic() > give_up_s:
                missing = len(self._due_s) - len(self._arrived_s)
                raise BenchFailed(f"{missing} plays since number {first} have no list\n{self._program.log_end()}")
            time.sleep(0.02)

    def _listen(self) -> None:
        decode = msgspec.json.Decoder(_List).decode
        while not self._over.is_set():
            message = self._consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            at_s, found = time.time(), decode(message.value())
            self._arrived_s.setdefault(int(found.event_id.partition("-")[2]), at_s)
            self.first_answer_s.setdefault(found.bundle, at_s)
            self.last_answer_s[found.bundle] = at_s
