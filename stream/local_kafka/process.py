"""The process of a broker: start, wait until it is up, stop. It ends with this process, even if this process is killed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from intentrec_core.errors import BrokerError
from stream.local_kafka.ports import HOST
from stream.ops.child_guard import guarded
from stream.ops.children import last_line

Engine = Literal["embedded", "kafka"]

#: Kafka is up within 4 s on an idle machine. On a loaded machine with 2 cores it took 15 s, three nodes took three times as long.
START_DEADLINE_S = {"embedded": 10.0, "kafka": 120.0}
#: Time for Kafka's controlled shutdown, which closes its logs so that the next start needs no recovery.
STOP_DEADLINE_S = 20.0
_LOOK_EVERY_S = 0.05


@dataclass
class Broker:
    """A running broker; a context manager that stops it."""

    engine: Engine
    port: int
    log_path: Path
    _process: subprocess.Popen[bytes]
    _keeper: threading.Thread
    _stopping: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the broker itself."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the broker's process is alive."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stops the broker and waits until it has ended. Idempotent."""
        with self._stopping:
            if self.running:
                self._process.terminate()
                try:
                    self._process.wait(STOP_DEADLINE_S)
                except subprocess.TimeoutExpired:
                    self._process.kill()
            self._process.wait()
        self._keeper.join()

    def kill(self) -> None:
        """Kills the broker, as a power failure would."""
        with self._stopping:
            self._process.kill()
            self._process.wait()
        self._keeper.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def spawn(engine: Engine, port: int, command: list[str], log_path: Path) -> Broker:
    """Starts the command so that it ends with this process. Does not wait until it listens."""
    started: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def keep() -> None:
        # The kernel watches the THREAD that forked, so this thread has to live as long as the broker.
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                guarded(_absolute(command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        ready.set()
        while process.returncode is None:
            try:
                process.wait(3600)
            except subprocess.TimeoutExpired:
                continue

    keeper = threading.Thread(target=keep, name=f"broker-{port}", daemon=True)
    keeper.start()
    ready.wait()
    return Broker(engine=engine, port=port, log_path=log_path, _process=started[0], _keeper=keeper)


def _absolute(command: list[str]) -> list[str]:
    return [shutil.which(command[0]) or command[0], *command[1:]]


def wait_until_up(broker: Broker, ready: Callable[[], bool] = lambda: True) -> None:
    """Returns when the broker accepts connections and ``ready`` returns true.

    Raises: BrokerError when it ends, or takes longer than START_DEADLINE_S; it is killed then.
    """
    deadline = time.monotonic() + START_DEADLINE_S[broker.engine]
    while time.monotonic() < deadline:
        if not broker.running:
            broker.stop()
            raise BrokerError(
                f"the {broker.engine} broker ended while starting: {last_line(broker.log_path)} (log: {broker.log_path})"
            )
        if _accepts(broker.port) and ready():
            return
        time.sleep(_LOOK_EVERY_S)  # no event reports that a port starts to listen, so poll; blocking is intended
    broker.kill()
    raise BrokerError(f"the {broker.engine} broker did not start in time; its log is {broker.log_path}")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
