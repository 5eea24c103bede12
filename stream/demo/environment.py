"""The demo's environment: broker, topics, worker, trainer and gateway, started in order and always stopped again.

    broker → topics → data → first bundle → its announcement → worker and trainer → ready → gateway → ready

All files of a run (bundles, event log, logs) are in one folder, which is removed at the end unless the run failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from intentrec_core.errors import IntentRecError
from stream.demo.child import Child
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import start_broker
from stream.local_kafka.ports import free_port
from stream.ops.scrape import is_ready
from stream.settings import PREFIX, Settings

#: The first start of an installation compiles the kernels: a minute, and several if the cores are busy. Importing torch from a
#: cold disk takes up to 20 s, joining the group on the embedded broker about 4 s. A process that has ended is noticed at once.
READY_DEADLINE_S = 300.0
_CHECK_EVERY_S = 0.1

PrintStep = Callable[[str], None]
"""Called with a line for each step that is done."""


class MonitoredProcess(NamedTuple):
    """A child process and the port of its metrics."""

    child: Child
    metrics_port: int


@dataclass(frozen=True)
class DemoEnvironment:
    """The settings that all processes of a run share, and the run's folder.

    ``overrides``: the settings that differ from the defaults, as a child process gets them. ``embedded``: whether the broker is.
    """

    settings: Settings
    overrides: dict[str, str]
    folder: Path
    embedded: bool

    def child(self, name: str, *, metrics_port: int, **settings: str) -> Child:
        """Starts the command ``name`` as a process of this environment, with one torch thread: all processes share few cores.

        ``settings``: those that this process alone has.
        """
        environment = {PREFIX + key.upper(): value for key, value in (self.overrides | settings).items()}
        environment[PREFIX + "METRICS_PORT"] = str(metrics_port)
        environment.setdefault("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        return Child.start(name, [name], log_path=self.folder / f"{name}.log", environment=environment)


@contextlib.contextmanager
def open_environment(
    *, broker: str | None, retrain_interval_s: float, print_step: PrintStep
) -> Iterator[DemoEnvironment]:
    """Starts the embedded broker, or uses ``broker``; creates topics for this run, and removes everything at the end.

    Raises: BrokerError if the broker cannot be started or reached.
    """
    run = secrets.token_hex(3)
    folder = Path(tempfile.mkdtemp(prefix=f"intentrec-demo-{run}-"))
    with contextlib.ExitStack() as stack:
        failed = stack.enter_context(_kept_on_failure(folder, print_step))
        if broker is None:
            started = stack.enter_context(start_broker(engine="embedded", data_dir=folder))
            address = started.address
        else:
            address = broker
        prefix = "" if broker is None else f"intentrec-demo-{run}."
        overrides = {
            "broker": address,
            "app_id": f"intentrec-demo-{run}",
            "transactions": "off" if broker is None else "auto",
            "plays_topic": f"{prefix}plays",
            "recommendations_topic": f"{prefix}recommendations",
            "intents_topic": f"{prefix}intents",
            "dead_letter_topic": f"{prefix}plays.dlq",
            "late_topic": f"{prefix}plays.late",
            "model_updates_topic": f"{prefix}model-updates",
            "item_counts_topic": f"{prefix}item-counts",
            "bundle_url": str(folder / "bundles"),
            "event_log_dir": str(folder / "event-log"),
            "cache_dir": str(folder / "cache"),
            "domain": "movielens",
            "retrain_interval_s": f"{retrain_interval_s:g}",
            "event_log_flush_s": "2",
        }
        settings = Settings.load(**overrides)
        asyncio.run(create_topics(settings))
        if broker is not None:
            stack.callback(_delete_topics, settings)
        print_step(f"broker {address}" + (" (embedded, in memory)" if broker is None else ""))
        yield DemoEnvironment(settings, overrides, folder, broker is None)
        failed.clear()


@contextlib.contextmanager
def running_processes(
    environment: DemoEnvironment, print_step: PrintStep, **worker_settings: str
) -> Iterator[tuple[MonitoredProcess, MonitoredProcess]]:
    """Starts worker and trainer, and yields both once the worker is ready to serve; both stop when the block ends."""
    worker_port, trainer_port = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        trainer = environment.child("trainer", metrics_port=trainer_port)
        stack.callback(trainer.stop)
        worker = environment.child("worker", metrics_port=worker_port, **worker_settings)
        stack.callback(worker.stop)
        # Signal both before waiting for either, so that they stop in parallel.
        stack.callback(trainer.ask_to_stop)
        _wait_until_ready(worker, worker_port)
        print_step("worker ready, trainer logging the plays")
        yield MonitoredProcess(worker, worker_port), MonitoredProcess(trainer, trainer_port)


@contextlib.contextmanager
def running_gateway(
    environment: DemoEnvironment, watched: Sequence[MonitoredProcess], print_step: PrintStep
) -> Iterator[str]:
    """Starts a gateway, whose page shows the figures of the ``watched`` processes, and yields its address once it is ready."""
    metrics_port, port = free_port(), _port_of_choice(environment.settings.gateway_port)
    scraped = ",".join(f"http://127.0.0.1:{process.metrics_port}" for process in watched)
    gateway = environment.child("gateway", metrics_port=metrics_port, gateway_port=str(port), gateway_scrape=scraped)
    try:
        _wait_until_ready(gateway, metrics_port)
        address = f"http://127.0.0.1:{port}"
        print_step(f"live console: {address}")
        yield address
    finally:
        gateway.stop()


def _port_of_choice(port: int) -> int:
    """The port if it is free, so that the address is the one that documents name; else any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return free_port()
    return port


def _wait_until_ready(child: Child, port: int) -> None:
    deadline_s = time.monotonic() + READY_DEADLINE_S
    while not is_ready(port):
        child.check()
        if time.monotonic() > deadline_s:
            raise IntentRecError(f"the {child.name} was not ready within {READY_DEADLINE_S:.0f} s: {child.last_line()}")
        time.sleep(_CHECK_EVERY_S)  # a process reports readiness over HTTP alone, so poll


@contextlib.contextmanager
def _kept_on_failure(folder: Path, print_step: PrintStep) -> Iterator[set[str]]:
    """Removes the folder at the end, unless the yielded set is still non-empty: then keeps it and prints where it is."""
    failed = {"failed"}
    try:
        yield failed
    except KeyboardInterrupt:
        failed.clear()
        raise
    finally:
        if failed:
            print_step(f"logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_topics(settings: Settings) -> None:
    async def delete() -> None:
        admin = AIOKafkaAdminClient(**settings.connection())
        await admin.start()
        try:
            await admin.delete_topics(list(settings.topics))
        finally:
            await admin.close()

    # The topics carry this run's name: if the broker refuses to delete them, or is gone, they disturb nothing.
    with contextlib.suppress(KafkaError):
        asyncio.run(delete())


def has_display() -> bool:
    """Whether a window can be opened here."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
