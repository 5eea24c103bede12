"""Programs of a bench as child processes, and the rate at which one of them answers the plays in the log.

A program reads a plays topic that was filled before it started. Its rate is what its output topic grew by in a window in which
it was warm and still had plays to read; beside it its own CPU time a play, which hardly depends on what else the machine does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import confluent_kafka
from confluent_kafka.admin import AdminClient, OffsetSpec

import stream
from stream.ops.child_guard import guarded

_PACKAGE = Path(stream.__file__).parent
#: Without an answer: a worker restores a million members before its first one.
_STALLED_S = 120.0
_SAMPLE_S = 0.2
_SETTLE_S = 30.0


class BenchFailed(RuntimeError):
    """A program ended or never answered; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Answers a second in the window, the programs' own CPU time an answer, and how long the window was."""

    plays_per_s: float
    cpu_us: float
    seconds: float

    def line(self, name: str) -> str:
        """For people."""
        return f"{name:<34} {self.plays_per_s:10,.0f} plays/s   {self.cpu_us:9,.1f} us of CPU a play   in {self.seconds:4.1f} s"


class Program:
    """A child process from ``with`` to its end; killed with whatever it started, also when this process is killed."""

    def __init__(
        self,
        arguments: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str],
        *,
        python: str | Path = sys.executable,
    ) -> None:
        self.log_path = log_path
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INTENTREC_")}
        self._environment = {**inherited, "PYTHONPATH": str(_PACKAGE.parent), **environment}
        self._command = guarded([str(python), *arguments])

    def __enter__(self) -> Self:
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nothing of it is needed any more, and a row must not wait for another one's drain.
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def check(self) -> None:
        """Raises: BenchFailed when it has ended."""
        if self.process.poll() is not None:
            raise BenchFailed(f"{self.log_path.name} ended with {self.process.returncode}:\n{self.log_end()}")

    def log_end(self) -> str:
        """The end of what it wrote."""
        return self.log_path.read_text(errors="replace")[-3000:]

    def last_line(self, timeout_s: float) -> str:
        """Waits for a program that ends by itself, and returns the last line it wrote.

        Raises: BenchFailed when it ends badly, or not at all.
        """
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{self.log_path.name} does not end within {timeout_s:g} s\n{self.log_end()}") from None
        if self.process.returncode:
            self.check()
        return self.log_path.read_text().splitlines()[-1]

    def cpu_s(self) -> float:
        """CPU seconds that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class OutputCount:
    """How many records a topic holds, asked of the broker."""

    def __init__(self, broker: str, topic: str, num_partitions: int) -> None:
        self._admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
        self._ask = {confluent_kafka.TopicPartition(topic, p): OffsetSpec.latest() for p in range(num_partitions)}

    def __call__(self) -> int:
        """The sum of the partitions' ends. A topic that was just made may have no leader yet: it is asked again."""
        give_up_s = time.monotonic() + _SETTLE_S
        while True:
            try:
                return sum(found.result(_SETTLE_S).offset for found in self._admin.list_offsets(self._ask).values())
            except confluent_kafka.KafkaException:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(_SAMPLE_S)


def measure_rate(programs: Sequence[Program], count: OutputCount, *, skip: int, total: int, seconds: float) -> Rate:
    """Measures what some programs answer together for ``seconds``, beginning when ``skip`` plays are answered, ending early when
    nearly ``total`` are.

    Raises: BenchFailed when one of them ends, or they answer nothing for too long.
    """
    started_s = time.monotonic()
    _wait_until_warm(programs, count, skip)
    first, began_s, began_cpu_s = count(), time.monotonic(), _cpu_s(programs)
    last, ended_s, cpu_s = first, began_s, began_cpu_s
    while ended_s - began_s < seconds:
        time.sleep(_SAMPLE_S)
        _check(programs)
        answered, at_s = count(), time.monotonic()
        if answered > 0.95 * total and last > first:
            break
        last, ended_s, cpu_s = answered, at_s, _cpu_s(programs)
    if last == first:
        if first <= 0.95 * total:
            raise BenchFailed(f"{first} answers of {total}, then none for {seconds:g} s\n{_log_ends(programs)}")
        # Few plays can all be answered before the first look: then over the whole run, its start included.
        return Rate(first / (began_s - started_s), 1e6 * began_cpu_s / first, began_s - started_s)
    num = last - first
    return Rate(num / (ended_s - began_s), 1e6 * (cpu_s - began_cpu_s) / num, ended_s - began_s)


def _wait_until_warm(programs: Sequence[Program], count: OutputCount, skip: int) -> None:
    done, grew_s = count(), time.monotonic()
    while done < skip:
        _check(programs)
        time.sleep(_SAMPLE_S)
        answered, now_s = count(), time.monotonic()
        if answered > done:
            done, grew_s = answered, now_s
        elif now_s - grew_s > _STALLED_S:
            raise BenchFailed(f"{done} answers of {skip} to warm up with, then none\n{_log_ends(programs)}")


def _check(programs: Sequence[Program]) -> None:
    for program in programs:
        program.check()


def _cpu_s(programs: Sequence[Program]) -> float:
    return sum(program.cpu_s() for program in programs)


def _log_ends(programs: Sequence[Program]) -> str:
    return "\n".join(program.log_end() for program in programs)
