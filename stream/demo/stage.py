"""What a demo needs before the first play, in order, and the way back: nothing it started is left behind.

    broker → topics → data → first bundle → its announcement → worker and trainer → ready

Everything lives in one folder of this run: bundles, event log, logs. It is removed at the end, unless something failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from intentrec_core.errors import IntentRecError
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import start_broker
from stream.local_kafka.child import Child
from stream.local_kafka.ports import free_port
from stream.ops.scrape import is_ready
from stream.settings import PREFIX, Settings

#: Joining the group takes the embedded broker about 4 s, importing torch on a cold disk up to 20 s.
READY_DEADLINE_S = 120.0
_LOOK_EVERY_S = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoEnvironment:
    """The broker's address, the settings all processes share, and this run's folder."""

    settings: Settings
    overrides: dict[str, str]
    folder: Path
    embedded: bool

    def child(self, name: str, *, metrics_port: int) -> Child:
        """Starts the command ``name`` as a process of this stage, with one thread of torch: all share few cores."""
        environment = {PREFIX + key.upper(): value for key, value in self.overrides.items()}
        environment[PREFIX + "METRICS_PORT"] = str(metrics_port)
        environment.setdefault("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        return Child.start(name, [name], log_path=self.folder / f"{name}.log", environment=environment)


@contextlib.contextmanager
def open_stage(*, broker: str | None, retrain_interval_s: float, say: Say) -> Iterator[DemoEnvironment]:
    """Starts the embedded broker (or uses ``broker``), creates topics of this run's own, and undoes both at the end.

    Raises: BrokerError in one line when there is no broker.
    """
    run = secrets.token_hex(3)
    folder = Path(tempfile.mkdtemp(prefix=f"intentrec-demo-{run}-"))
    with contextlib.ExitStack() as stack:
        failed = stack.enter_context(_kept_on_failure(folder, say))
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
        say(f"broker {address}" + (" (embedded, in memory)" if broker is None else ""))
        yield DemoEnvironment(settings, overrides, folder, broker is None)
        failed.clear()


@contextlib.contextmanager
def running(stage: DemoEnvironment, say: Say) -> Iterator[tuple[Child, int, Child, int]]:
    """Worker and trainer with the ports of their metrics, the worker ready; both end with the block."""
    worker_port, trainer_port = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        trainer = stage.child("trainer", metrics_port=trainer_port)
        stack.callback(trainer.stop)
        worker = stage.child("worker", metrics_port=worker_port)
        stack.callback(worker.stop)
        # Both are asked first, so that they end beside each other.
        stack.callback(trainer.ask_to_stop)
        _wait_until_ready(worker, worker_port)
        say("worker ready, trainer following the plays")
        yield worker, worker_port, trainer, trainer_port


def _wait_until_ready(child: Child, port: int) -> None:
    deadline_s = time.monotonic() + READY_DEADLINE_S
    while not is_ready(port):
        child.check()
        if time.monotonic() > deadline_s:
            raise IntentRecError(f"the {child.name} was not ready within {READY_DEADLINE_S:.0f} s: {child.last_line()}")
        time.sleep(_LOOK_EVERY_S)


@contextlib.contextmanager
def _kept_on_failure(folder: Path, say: Say) -> Iterator[set[str]]:
    """Removes the folder at the end; keeps it, and says so, when the set that is yielded still holds something."""
    failed = {"failed"}
    try:
        yield failed
    except KeyboardInterrupt:
        failed.clear()
        raise
    finally:
        if failed:
            say(f"logs are kept in {folder}")
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

    # They carry this run's name: where the broker refuses, or is gone, they are in nobody's way.
    with contextlib.suppress(KafkaError):
        asyncio.run(delete())
