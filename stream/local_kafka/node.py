"""One node of Apache Kafka in KRaft mode: ports, folder, properties, storage and command line."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from intentrec_core.errors import BrokerError
from stream.local_kafka.jars import find_java, jars
from stream.local_kafka.ports import HOST, free_port

#: Copies of every partition in a cluster of three, and how many copies must have a write before it is acknowledged.
REPLICATION, MIN_IN_SYNC = 3, 2
#: For a broker on a laptop. Kafka's default heap of 1 GB is more than a demo should use.
_JAVA_OPTIONS = ("-Xms128m", "-Xmx768m", "-XX:+UseSerialGC", "-Djava.awt.headless=true")
_FORMAT_DEADLINE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class KafkaNode:
    """Ports and folder of a node, the same at every start.

    ``proxy``: an extra listener for clients that connect through a proxy, as (port of the listener, port of the proxy). The node
    advertises the proxy's port on it, so these clients stay on the proxy.
    """

    node_id: int
    port: int
    controller_port: int
    directory: Path
    proxy: tuple[int, int] | None = None

    @property
    def storage(self) -> Path:
        """Folder of Kafka's own files."""
        return self.directory / "data"


def plan_nodes(num_nodes: int, port: int, directory: Path, proxy_ports: Sequence[int] = ()) -> list[KafkaNode]:
    """Nodes on ``port`` and the ports after it; 0 chooses free ports. ``proxy_ports``: ports of the proxies, one per node.

    Raises: BrokerError when the folder holds a cluster of another size.
    """
    kept = len(list(directory.glob("node-*/data/meta.properties")))
    if kept not in (0, num_nodes):
        raise BrokerError(f"{directory} has the data of {kept} nodes, not {num_nodes}; choose another data_dir")
    return [
        KafkaNode(
            node_id=index + 1,
            port=port + index if port else free_port(),
            # Only the other nodes use it, so any free port will do, a new one at each start of the cluster.
            controller_port=free_port(),
            directory=directory / f"node-{index + 1}",
            proxy=(free_port(), proxy_ports[index]) if proxy_ports else None,
        )
        for index in range(num_nodes)
    ]


def prepare(nodes: Sequence[KafkaNode]) -> list[list[str]]:
    """Writes the properties of each node, formats new storage, and returns the commands that start the nodes.

    Raises: BrokerError when Java or the jars are missing, or the storage cannot be formatted.
    """
    java, classpath = find_java(), f"{jars()}/*"
    bases = []
    for node in nodes:
        node.directory.mkdir(parents=True, exist_ok=True)
        _write(_properties_path(node), server_properties(node, nodes))
        logging = _write(node.directory / "log4j2.properties", _LOGGING)
        bases.append([java, *_JAVA_OPTIONS, f"-Dlog4j2.configurationFile={logging}", "-cp", classpath])
    new = [n for n, node in enumerate(nodes) if not (node.storage / "meta.properties").exists()]
    # 16 bytes in Kafka's encoding. The tool would take a leading "-" for an option.
    cluster_id = "k" + secrets.token_urlsafe(16)[1:]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda n: format_storage(bases[n], nodes[n], cluster_id), new))
    return [[*base, "kafka.Kafka", str(_properties_path(node))] for base, node in zip(bases, nodes, strict=True)]


def _properties_path(node: KafkaNode) -> Path:
    return node.directory / "server.properties"


def server_properties(node: KafkaNode, nodes: Sequence[KafkaNode]) -> dict[str, str]:
    """The configuration that ``node`` is started with, as one of ``nodes``."""
    # A single node can hold one copy only.
    copies, in_sync = (REPLICATION, MIN_IN_SYNC) if len(nodes) >= REPLICATION else (1, 1)
    listeners = {"PLAINTEXT": node.port, "CONTROLLER": node.controller_port}
    advertised = {"PLAINTEXT": node.port}
    if node.proxy:
        listeners["PROXIED"], advertised["PROXIED"] = node.proxy
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "listeners": _addresses(listeners),
        "advertised.listeners": _addresses(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(f"{n.node_id}@{HOST}:{n.controller_port}" for n in nodes),
        "log.dirs": str(node.storage.resolve()),
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(copies),
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        "group.initial.rebalance.delay.ms": "0",
        # Topics are created explicitly, with their partitions and policies.
        "auto.create.topics.enable": "false",
        "log.retention.hours": "168",
        "log.cleaner.backoff.ms": "1000",
        # Part of the heap: one hash per key, enough for a million keys.
        "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),
    }


def _addresses(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


_LOGGING = {
    "rootLogger.level": "WARN",
    "rootLogger.appenderRef.stdout.ref": "STDOUT",
    "appender.stdout.type": "Console",
    "appender.stdout.name": "STDOUT",
    "appender.stdout.layout.type": "PatternLayout",
    "appender.stdout.layout.pattern": "[%d] %p %m (%c)%n",
    "logger.server.name": "kafka.server.KafkaRaftServer",
    "logger.server.level": "INFO",
}


def _write(path: Path, properties: dict[str, str]) -> Path:
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    return path


def format_storage(base: list[str], node: KafkaNode, cluster_id: str) -> None:
    """Prepares the empty storage of a node. ``base`` is the java command. Raises: BrokerError when it cannot be prepared."""
    command = [*base, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(_properties_path(node))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_FORMAT_DEADLINE_S, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise BrokerError(f"Kafka's storage could not be formatted: {lines[-1] if lines else 'no output'}")
