"""Runs Apache Kafka from its jars, with one node or three.

With three nodes, every partition has three copies, and a write is acknowledged when two nodes have it. A single node can be
stopped or killed and started again, with the same port and data. Every node is broker and controller, so two of three must be up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError
from stream.local_kafka.node import REPLICATION, KafkaNode, plan_nodes, prepare
from stream.local_kafka.ports import is_free, taken
from stream.local_kafka.process import Broker, spawn, wait_until_up

_ASK_DEADLINE_S = 5.0


class KafkaCluster:
    """The nodes of one cluster; a context manager that stops the running ones. ``brokers`` has the order of ``nodes``."""

    def __init__(self, nodes: Sequence[KafkaNode]) -> None:
        """Prepares the storage. Starts nothing.

        Raises: BrokerError when Java or the jars are missing.
        """
        self.nodes = list(nodes)
        self._commands = prepare(nodes)
        self.brokers: list[Broker] = []

    @property
    def address(self) -> str:
        """Bootstrap servers for clients: HOST:PORT of every node, separated by commas."""
        return ",".join(broker.address for broker in self.brokers)

    @property
    def running(self) -> bool:
        """Whether every node's process is alive."""
        return all(broker.running for broker in self.brokers)

    def start(self) -> None:
        """Starts every node and returns when all of them have joined the cluster.

        Raises: BrokerError when a node does not start; the other nodes are stopped.
        """
        self.brokers = [self._spawn(index) for index in range(len(self.nodes))]
        with ExitStack() as stack:
            stack.callback(self.stop)
            for index in range(len(self.nodes)):
                self._wait_for(index)
            stack.pop_all()

    def restart(self, index: int) -> None:
        """Restarts one node, whether it is running or not, and returns when it has rejoined the cluster.

        Raises: BrokerError when it does not start.
        """
        self.brokers[index].stop()
        self.brokers[index] = self._spawn(index)
        self._wait_for(index)

    def stop(self) -> None:
        """Stops every node. Idempotent."""
        # In parallel: a node hands over its leadership, and in sequence the last one would find no quorum for that.
        with ThreadPoolExecutor() as pool:
            list(pool.map(Broker.stop, self.brokers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _spawn(self, index: int) -> Broker:
        node = self.nodes[index]
        return spawn("kafka", node.port, self._commands[index], node.directory / f"broker-{node.port}.log")

    def _wait_for(self, index: int) -> None:
        broker, node = self.brokers[index], self.nodes[index]
        wait_until_up(broker, lambda: _is_member(broker.address, node.node_id))


def start_cluster(
    *, num_nodes: int, port: int = 0, data_dir: Path | None = None, proxy_ports: Sequence[int] = ()
) -> KafkaCluster:
    """Starts one node or three on loopback, on ``port`` and the ports after it; 0 chooses free ports.

    ``data_dir`` holds logs and data, which survive restarts. ``proxy_ports``, one per node, adds a listener to every node for a
    proxy on that port: see KafkaNode.

    Raises: BrokerError when a port is in use, when Java, Maven or the jars are missing, or when a node does not start.
    """
    if num_nodes not in (1, REPLICATION):
        raise BrokerError(f"a cluster of {num_nodes} nodes is not supported; allowed: 1, {REPLICATION}")
    for wanted in range(port, port + num_nodes) if port else ():
        if not is_free(wanted):
            raise BrokerError(taken(wanted))
    directory = data_dir or Path(".intentrec") / "broker" / ("kafka" if num_nodes == 1 else f"kafka-{num_nodes}")
    cluster = KafkaCluster(plan_nodes(num_nodes, port, directory, proxy_ports))
    cluster.start()
    return cluster


def _is_member(address: str, node_id: int) -> bool:
    """Whether a node has joined: its metadata lists itself once the controller has registered it."""
    # In a separate thread, because the caller may already run an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _knows(address, node_id)).result()


async def _knows(address: str, node_id: int) -> bool:
    client = AIOKafkaClient(bootstrap_servers=address)
    try:
        async with asyncio.timeout(_ASK_DEADLINE_S):
            await client.bootstrap()
            return any(broker.nodeId == node_id for broker in client.cluster.brokers())
    except (TimeoutError, KafkaError):
        return False
    finally:
        await client.close()
