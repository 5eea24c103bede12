"""Brokers for the whole session, and a rig of its own for every test: one suite, both brokers. A pytest plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from intentrec_core.errors import BrokerError
from stream.local_kafka.broker import Broker, start_broker
from stream.local_kafka.cluster import KafkaCluster, start_cluster
from stream.local_kafka.jars import find_java, jars
from tests.rigs.rig import Rig
from tests.rigs.tcp_proxy import TcpProxy


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_broker(engine="embedded", data_dir=tmp_path_factory.mktemp("embedded")) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_jars(request: pytest.FixtureRequest) -> None:
    """Skips where Java or Kafka's jars cannot be had; fails with ``--full-faults``, or where a Kafka does not start."""
    try:
        find_java()
        jars()
    except BrokerError as error:
        give_up = pytest.fail if request.config.getoption("--full-faults") else pytest.skip
        give_up(f"no Apache Kafka here: {error}")


@pytest.fixture(scope="session")
def kafka_broker(kafka_jars: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_broker(engine="kafka", data_dir=tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Either broker: what a test of delivery says must hold on both."""
    found = request.getfixturevalue(f"{request.param}_broker")
    assert isinstance(found, Broker)
    return found


RigMaker = Callable[..., Rig]


@pytest.fixture
def make_rig(tmp_path: Any) -> Iterator[RigMaker]:
    """Makes rigs on a broker; their workers are gone when the test is."""
    rigs: list[Rig] = []

    def make(broker: Broker, **options: Any) -> Rig:
        rigs.append(Rig(broker, tmp_path, options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.stop()


@pytest.fixture(scope="module")
def proxy() -> Iterator[TcpProxy]:
    with TcpProxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def proxied_cluster(
    kafka_jars: None, proxy: TcpProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaCluster]:
    """One node with a way through the proxy: a client that comes that way learns of no other."""
    with start_cluster(num_nodes=1, data_dir=tmp_path_factory.mktemp("kafka"), proxy_ports=[proxy.port]) as cluster:
        assert cluster.nodes[0].proxy
        proxy.target = cluster.nodes[0].proxy[0]
        yield cluster
