"""A worker refuses to start when the installed faust-streaming or aiokafka lacks a private name that it uses."""

from __future__ import annotations

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.transport.consumer import Consumer, Fetcher
from faust.transport.drivers import aiokafka as driver

from intentrec_core.errors import TransportMismatch
from stream.delivery.private_names import check_private_names


def test_the_installed_versions_have_every_name() -> None:
    check_private_names()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Consumer, "_drain_messages"),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
        (GroupCoordinator, "_do_heartbeat"),
    ],
)
def test_the_error_names_the_missing_name(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(TransportMismatch, match=name):
        check_private_names()


def test_an_override_that_would_no_longer_be_called_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def _drain_messages(self: object, fetcher: object, extra: int) -> None:
        """Another signature."""

    monkeypatch.setattr(Consumer, "_drain_messages", _drain_messages)
    with pytest.raises(TransportMismatch, match="_drain_messages"):
        check_private_names()
    monkeypatch.undo()
    monkeypatch.delattr(Fetcher, "_fetcher")
    with pytest.raises(TransportMismatch, match="_fetcher"):
        check_private_names()
