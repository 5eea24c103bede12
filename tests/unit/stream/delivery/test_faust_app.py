"""Defaults of Faust that must be off: a web server on all interfaces, reading uncommitted plays, committing offsets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest

from stream.delivery.faust_app import create_app
from stream.delivery.transport import BatchConsumerThread
from stream.settings import Settings


def test_no_web_server_listens() -> None:
    app = create_app(Settings(), 10.0)
    assert not app.conf.web_enabled


def test_only_committed_plays_are_read_and_offsets_are_not_committed_automatically(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(aiokafka, "AIOKafkaConsumer", lambda **options: given.update(options))
    app = create_app(Settings(), 10.0)
    BatchConsumerThread._create_worker_consumer(SimpleNamespace(), app.transport)
    assert given["isolation_level"] == "read_committed"
    assert given["enable_auto_commit"] is False
