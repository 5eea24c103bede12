"""How the processes of production end if they are not yet at work, or their broker is gone: with 0, and without a traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from stream.local_kafka.broker import start_broker
from stream.local_kafka.ports import free_port
from stream.ops.scrape import is_ready, scrape
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import ANSWERS_WITHIN_S, Rig


@dataclass
class Service:
    """A running `intentrec` command."""

    process: subprocess.Popen[bytes]
    log_path: Path
    port: int

    def log(self) -> str:
        return self.log_path.read_text()

    def until(self, holds: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + ANSWERS_WITHIN_S
        while not holds():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline_s, self.log()
            time.sleep(0.05)  # a process is seen through its log and HTTP alone, so poll

    def why_not_ready(self) -> str:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                return ""
        except HTTPError as error:
            with error:
                return error.read().decode().strip()

    def ends(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(tmp_path: Path, name: str, **settings: object) -> Iterator[Service]:
    port, log_path = free_port(), tmp_path / f"{name}.log"
    given = {"metrics_port": port, "cache_dir": tmp_path, "event_log_dir": tmp_path / "log", **settings}
    environment = {f"INTENTREC_{key.upper()}": str(value) for key, value in given.items()}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("INTENTREC_")}
    command = [sys.executable, "-m", "stream.cli", name]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=inherited | environment, stdout=log, stderr=log)
    try:
        yield Service(process, log_path, port)
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "line"),
    [("worker", "importing"), ("trainer", "importing"), ("worker", "connecting"), ("trainer", "connecting")],
)
def test_a_service_that_is_still_starting_ends_with_0(tmp_path: Path, name: str, line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = f"127.0.0.1:{silent.getsockname()[1]}"
        with running(tmp_path, name, broker=broker) as service:
            service.until(lambda: line in service.log())
            assert service.ends() == 0, service.log()
            assert "Traceback" not in service.log()


@pytest.mark.timeout(400)
def test_without_a_broker_services_are_not_ready_and_end_with_0_if_all_their_work_is_durable(
    tmp_path: Path, make_rig: RigMaker
) -> None:
    with start_broker(data_dir=tmp_path / "broker") as broker:
        rig = make_rig(broker, progress_deadline_s=10)
        settings = rig.settings.model_dump(exclude_unset=True)
        worker = rig.start_worker(module="tests.worlds.counting")
        with running(tmp_path, "trainer", **settings) as trainer:
            services = (Service(worker.process, worker.log_path, worker.metrics_port), trainer)
            for service in services:
                service.until(lambda port=service.port: is_ready(port))
            rig.produce(rig.plays(20))
            services[0].until(lambda: _committed(rig, worker.metrics_port) == 20)
            broker.kill()
            for service in services:
                service.until(lambda port=service.port: not is_ready(port))
                assert service.why_not_ready() == f"the broker {broker.address} does not answer"
                samples = scrape(service.port)
                assert samples is not None
                assert samples.total("intentrec_broker_away") == 1
            for service in services:
                assert service.ends() == 0, service.log()
                assert "Traceback" not in service.log(), service.log()
                assert "never retrieved" not in service.log(), service.log()


def _committed(rig: Rig, port: int) -> float:
    samples = scrape(port)
    return samples.total("intentrec_plays_total") if samples else 0
