"""How `intentrec broker` reacts to a broker that ends by itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from intentrec_core.errors import BrokerError
from stream.cli.kafka_setup import _restart_node
from stream.local_kafka.cluster import KafkaCluster


class Nodes(KafkaCluster):
    """A cluster without processes."""

    def __init__(self, *running: bool) -> None:
        self.nodes, self.restarted = [], []
        self.brokers: list[Any] = [
            SimpleNamespace(running=up, address=f"127.0.0.1:{port}", log_path=Path(f"broker-{port}.log"))
            for port, up in enumerate(running, start=9092)
        ]

    def restart(self, index: int) -> None:
        self.restarted.append(index)


def test_a_node_that_ended_is_started_again_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = Nodes(True, False, True)
    _restart_node(nodes)
    assert nodes.restarted == [1]
    assert "the node at 127.0.0.1:9093 ended, restarting it" in capsys.readouterr().err


def test_the_only_node_ends_the_command_and_names_its_log() -> None:
    with pytest.raises(BrokerError, match=r"ended by itself; see its log broker-9092\.log"):
        _restart_node(Nodes(False))
