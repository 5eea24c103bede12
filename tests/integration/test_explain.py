"""`intentrec explain` beside a real worker: its list and intents are those that the worker published last of the member."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream.local_kafka.broker import Broker
from stream.wire.codec import decode_intent, decode_recommendation
from tests.rigs.command_line import commands_with
from tests.rigs.rig import Rig
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, start_serving, world_plays

pytestmark = pytest.mark.timeout(240)
#: Five digits are published, and incremental inference equals recomputation within 1e-4.
TOLERANCE = 2e-4


def newest(rig: Rig) -> dict[str, tuple[Any, Any]]:
    """The last recommendation and intent update of each member."""
    found: dict[str, list[Any]] = {}
    for topic, decode in (
        (rig.settings.recommendations_topic, decode_recommendation),
        (rig.settings.intents_topic, decode_intent),
    ):
        last: dict[str, Any] = {}
        for output in rig.outputs(topic):
            message = decode(output.value)
            if message.user_id not in last or message.source.offset > last[message.user_id].source.offset:
                last[message.user_id] = message
        for user, message in last.items():
            found.setdefault(user, []).append(message)
    return {user: (listed, update) for user, (listed, update) in found.items()}


def test_an_explanation_is_what_the_worker_published(
    embedded_broker: Broker,
    make_serving_rig: ServingRigMaker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rig, (bundle, _) = make_serving_rig(embedded_broker)
    command = commands_with(rig.settings, monkeypatch, capsys, columns=200)
    code, _, error = command("explain", "u1")
    assert code == 3
    assert "no bundle is announced" in error
    announce_bundle(rig, bundle)
    worker = start_serving(rig)
    rig.produce(world_plays(rig, 200, num_users=5))
    rig.wait_for_answers(200)
    assert worker.terminate() == 0, worker.log()[-2000:]  # everything is committed
    published = newest(rig)
    assert len(published) == 5
    for user, (listed, update) in published.items():
        code, out, error = command("explain", user, "--json")
        assert code == 0, error
        found = json.loads(out)
        assert found["bundle"] == bundle.version
        assert found["last_offset"] == listed.source.offset
        assert [item["item_id"] for item in found["items"]] == [item.item_id for item in listed.items]
        for item, theirs in zip(found["items"], listed.items, strict=True):
            assert item["score"] == pytest.approx(theirs.score, abs=TOLERANCE)
            assert sum(item["parts"].values()) == pytest.approx(item["score"], abs=TOLERANCE)
        for intent in found["intents"]:
            assert intent["weight"] == pytest.approx(update.weights[intent["name"]], abs=TOLERANCE)
            assert intent["labels"] == pytest.approx(update.intents[intent["name"]], abs=TOLERANCE)
    code, out, error = command("explain", next(iter(published)), "--plays", "3")
    assert code == 0, error
    assert "The plays that matter most" in out
    assert "available available hides" in out
    code, _, error = command("explain", "nobody")
    assert code == 3
    assert "'nobody' has no history in partition" in error
