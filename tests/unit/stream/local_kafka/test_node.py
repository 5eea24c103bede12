"""The configuration of a Kafka node, written without starting one."""

from __future__ import annotations

from pathlib import Path

import pytest

from intentrec_core.errors import BrokerError
from stream.local_kafka import node as kafka_node
from stream.local_kafka.ports import free_port


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_node, "find_java", lambda: "java")
    monkeypatch.setattr(kafka_node, "jars", lambda: Path("jars"))
    monkeypatch.setattr(kafka_node, "format_storage", lambda base, node, cluster_id: node.storage.mkdir())


def _told(node: kafka_node.KafkaNode) -> dict[str, str]:
    lines = (node.directory / "server.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_one_node_keeps_one_copy_and_listens_on_loopback_only(tmp_path: Path) -> None:
    nodes = kafka_node.plan_nodes(1, 9092, tmp_path)
    kafka_node.prepare(nodes)
    told = _told(nodes[0])
    assert told["listeners"] == f"PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:{nodes[0].controller_port}"
    assert {told["default.replication.factor"], told["min.insync.replicas"]} == {"1"}


def test_three_nodes_keep_three_copies_of_everything_and_wait_for_two(tmp_path: Path) -> None:
    nodes = kafka_node.plan_nodes(3, 9092, tmp_path)
    commands = kafka_node.prepare(nodes)
    assert [node.port for node in nodes] == [9092, 9093, 9094]
    assert len({tuple(command) for command in commands}) == 3
    for node in nodes:
        told = _told(node)
        assert {value for name, value in told.items() if name.endswith("replication.factor")} == {"3"}
        assert {value for name, value in told.items() if name.endswith(("min.isr", "min.insync.replicas"))} == {"2"}
        assert told["controller.quorum.voters"] == ",".join(f"{n.node_id}@127.0.0.1:{n.controller_port}" for n in nodes)


def test_who_comes_through_the_proxy_is_told_of_the_proxy(tmp_path: Path) -> None:
    nodes = kafka_node.plan_nodes(1, 9092, tmp_path, proxy_ports=[7000])
    kafka_node.prepare(nodes)
    assert nodes[0].proxy is not None
    told = _told(nodes[0])
    assert f"PROXIED://127.0.0.1:{nodes[0].proxy[0]}" in told["listeners"].split(",")
    assert told["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9092,PROXIED://127.0.0.1:7000"


def test_the_data_of_another_number_of_nodes_is_refused(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        storage = tmp_path / f"node-{number}" / "data"
        storage.mkdir(parents=True)
        (storage / "meta.properties").touch()
    kafka_node.plan_nodes(3, 0, tmp_path)
    with pytest.raises(BrokerError, match="has the data of 3 nodes, not 1"):
        kafka_node.plan_nodes(1, 0, tmp_path)


@pytest.mark.skipif(not Path("/proc/sys/net/ipv4/ip_local_port_range").exists(), reason="asks Linux")
def test_no_outgoing_connection_can_take_a_port_while_its_server_restarts() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < first_outgoing for _ in range(50))
