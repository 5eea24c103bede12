"""The setup that the benches of worker and latency share: Apache Kafka, bundles, sample answers, environments."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stream.local_kafka.broker import start_broker
from stream.local_kafka.ports import free_port
from stream.settings import Settings
from tests.bench.baselines.pass_through import ANSWERS
from tests.bench.pipeline_stages import answers, warm_pipeline
from tests.bench.worker_world import NUM_PLANNING, make_bundle, row_settings

OUR_WORKER = ("-m", "stream.cli", "worker")
PASS_THROUGH = ("-m", "tests.bench.baselines.pass_through")
#: For every program and every stage alike: the machine's other core is the broker's and the event loop's, and two threads of
#: torch that wait for each other on two busy cores are slower than one.
NUM_THREADS = 1
_ONE_MEMBER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Stand:
    """An address, a folder, the path of the bundle that serves first, and the number of members that bundles are planned for."""

    broker: str
    folder: Path
    bundle: Path
    num_planning: int

    def settings(self, row: str, plays_topic: str, num_partitions: int = 4) -> Settings:
        """A row's settings."""
        return row_settings(self.broker, row, self.folder, plays_topic=plays_topic, num_partitions=num_partitions)

    def environment(self, settings: Settings) -> dict[str, str]:
        """Settings as a program reads them."""
        given = settings.model_dump(exclude_unset=True) | {"metrics_port": free_port()}
        return {
            **{f"INTENTREC_{name.upper()}": str(value) for name, value in given.items()},
            "BENCH_BODIES": str(self.folder),
            "OMP_NUM_THREADS": str(NUM_THREADS),
        }

    def another_bundle(self, seed: int) -> str:
        """The version of a bundle with other weights."""
        return make_bundle(self.folder / "bundles", self.folder / "scratch", seed, self.num_planning).version

    def bundle_with_successors(self) -> str:
        """The version of a bundle with the first weights, and successors in all plays before the log begins."""
        root, scratch = self.folder / "bundles", self.folder / "scratch"
        return make_bundle(root, scratch, 0, self.num_planning, has_successors=True).version


@contextlib.contextmanager
def open_stand(num_planning: int = NUM_PLANNING) -> Iterator[Stand]:
    """A broker of its own, gone at the end with everything on it; also at SIGTERM, which otherwise leaves the folder behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, before)
        name = stack.enter_context(tempfile.TemporaryDirectory())
        folder = Path(name)
        broker = stack.enter_context(start_broker(engine="kafka", data_dir=folder / "kafka"))
        bundle = make_bundle(folder / "bundles", folder / "scratch", 0, num_planning)
        pipeline, batches = warm_pipeline(bundle.path, 1, _ONE_MEMBER_BYTES)
        for kind, value in answers(pipeline, batches).items():
            # The user id, which comes first, makes room for the event id that a baseline puts there; its own goes.
            body = b"," + value.partition(b",")[2]
            (folder / ANSWERS[kind]).write_bytes(re.sub(rb'"event_id":"[^"]*",', b"", body, count=1))
        yield Stand(broker.address, folder, bundle.path, num_planning)
