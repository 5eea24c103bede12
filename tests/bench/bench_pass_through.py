"""Plays a second that one worker moves with no model: transport, micro-batches, three outputs a play, changelog and offsets.

    python -m tests.bench.bench_pass_through [embedded|kafka] [PLAYS]

Beside it, in the same run: the producer alone, as a bound of what broker and machine give; and the worker's own CPU seconds,
which hardly depend on what else the machine does. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import confluent_kafka

from stream.broker import Broker, start_broker
from stream.ports import free_port
from stream.settings import Settings
from stream.topics import create_topics

NUM_PARTITIONS = 4
VALUE_BYTES = 120


def main() -> None:
    """See the module."""
    engine = sys.argv[1] if len(sys.argv) > 1 else "embedded"
    num_plays = int(sys.argv[2]) if len(sys.argv) > 2 else 300_000
    with tempfile.TemporaryDirectory() as folder, start_broker(engine=engine, data_dir=Path(folder)) as broker:  # type: ignore[arg-type]
        settings = Settings.load(broker=broker.address, num_partitions=NUM_PARTITIONS)
        asyncio.run(create_topics(settings))
        produced_s = _produce(broker, num_plays)
        rates, cpu_s = _run_worker(broker, settings, num_plays, Path(folder))
    result = {
        "bench": "pass_through",
        "engine": engine,
        "plays": num_plays,
        "outputs_per_play": 3,
        "plays_per_s_median": round(statistics.median(rates)),
        "plays_per_s_best": round(max(rates)),
        "plays_per_cpu_s": round(num_plays / cpu_s),
        "producer_alone_per_s": round(num_plays / produced_s),
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


def _produce(broker: Broker, num_plays: int) -> float:
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": broker.address, "partitioner": "murmur2_random", "linger.ms": 20, "log_level": 0}
    )
    value, started_s = b"x" * VALUE_BYTES, time.monotonic()
    for number in range(num_plays):
        while True:
            try:
                producer.produce("plays", key=b"u%d" % (number % 5000), value=value)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return time.monotonic() - started_s


def _run_worker(broker: Broker, settings: Settings, num_plays: int, folder: Path) -> tuple[list[float], float]:
    env = {
        **os.environ,
        "INTENTREC_BROKER": broker.address,
        "INTENTREC_NUM_PARTITIONS": str(NUM_PARTITIONS),
        "INTENTREC_METRICS_PORT": str(free_port()),
        "TEST_PASS_THROUGH": "1",
        "TEST_LOG_LEVEL": "WARNING",
        **{k: v for k, v in os.environ.items() if k.startswith("INTENTREC_")},
    }
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-m", "tests.counting"], env=env, stderr=log, stdout=log)
    checker = confluent_kafka.Consumer(
        {"bootstrap.servers": broker.address, "group.id": settings.app_id, "log_level": 0}
    )
    sources = [confluent_kafka.TopicPartition(settings.plays_topic, p) for p in range(NUM_PARTITIONS)]
    samples: list[tuple[float, int]] = []
    while not samples or samples[-1][1] < num_plays:
        time.sleep(0.25)
        try:
            done = sum(max(0, source.offset) for source in checker.committed(sources, timeout=10))
        except confluent_kafka.KafkaException:  # the group's coordinator is not up yet
            continue
        samples.append((time.monotonic(), done))
        if worker.poll() is not None:
            sys.exit((folder / "worker.log").read_text()[-2000:])
    checker.close()
    worker.terminate()
    _, _, usage = os.wait4(worker.pid, 0)
    inner = [(at_s, done) for at_s, done in samples if 0.1 * num_plays < done < num_plays]
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(inner, inner[4:], strict=False)]
    rates = rates or [num_plays / (samples[-1][0] - samples[0][0])]
    return rates, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
