"""A broker's process: started under a guard, waited for, stopped; it ends with this process, also when that is killed."""

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

Engine = Literal["embedded", "kafka"]

#: Kafka answers in under 4 s on an idle machine; a loaded one with 2 cores was seen to need 15 s, and three nodes thrice that.
START_DEADLINE_S = {"embedded": 10.0, "kafka": 120.0}
#: Kafka's controlled shutdown closes its logs, so that the next start needs no recovery.
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
        """Stops the broker and waits for its end; safe to call twice."""
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
        """Ends the broker at once, as a power cut would."""
        with self._stopping:
            self._process.kill()
            self._process.wait()
        self._keeper.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def spawn(engine: Engine, port: int, command: list[str], log_path: Path) -> Broker:
    """Starts the command under a guard that ends it with this process; does not wait until it listens."""
    started: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def keep() -> None:
        # The kernel's parent-death signal follows the THREAD that forked: it has to live as long as the broker.
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
    """Returns when the broker takes connections and is ``ready``.

    Raises: BrokerError when it ends or takes longer than START_DEADLINE_S; it is gone then.
    """
    deadline = time.monotonic() + START_DEADLINE_S[broker.engine]
    while time.monotonic() < deadline:
        if not broker.running:
            broker.stop()
            raise BrokerError(f"the {broker.engine} broker ended while starting: {_last_line(broker.log_path)}")
        if _accepts(broker.port) and ready():
            return
        time.sleep(_LOOK_EVERY_S)  # nothing tells of a port that begins to listen; this blocks by design
    broker.kill()
    raise BrokerError(f"the {broker.engine} broker did not answer in time; its log is {broker.log_path}")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _last_line(log_path: Path) -> str:
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1][:200] + f" (log: {log_path})") if lines else f"no output (log: {log_path})"
