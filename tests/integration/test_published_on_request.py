"""What a worker publishes beyond lists and intents reaches a subscriber: headers always, the rest by its settings."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from stream.local_kafka.broker import Broker
from stream.wire import schemas
from stream.wire.codec import decode_intent, decode_recommendation
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, start_serving, world_plays

pytestmark = pytest.mark.timeout(180)

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ROWS = '[[rows]]\nkind = "intent"\ntitle = "In the mood for {label}"\nhead = "genre"\nat_most = 2\nsize = 4\n'


def declared_headers(message: str) -> dict[str, object]:
    document = json.loads((schemas.FOLDER / "asyncapi.json").read_text("utf-8"))
    headers: dict[str, object] = document["components"]["messages"][message]["headers"]
    return headers


def test_all_that_is_published_on_request_comes_out_as_the_contract_says(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.toml"
    rows.write_text(ROWS)
    rig, (bundle, _) = make_serving_rig(
        embedded_broker, publish_embedding=True, publish_reasons=True, rows=str(rows), num_recommendations=5
    )
    announce_bundle(rig, bundle)
    worker = start_serving(rig)
    rig.produce(world_plays(rig, 20, num_users=4))
    (traced,) = world_plays(rig, 1, num_users=4)
    rig.send(traced["user_id"].encode(), json.dumps(traced).encode(), headers=[("traceparent", PARENT)])
    rig.flush()
    rig.wait_for_answers(21)
    assert worker.terminate() == 0, worker.log()[-2000:]
    settings = rig.settings
    for topic, message in (
        (settings.recommendations_topic, "recommendation"),
        (settings.intents_topic, "intent-update"),
    ):
        schema = json.loads((schemas.FOLDER / f"{message}.schema.json").read_text("utf-8"))
        outputs = rig.outputs(topic)
        assert len(outputs) == 21
        for output in outputs:
            headers = {name: content.decode() for name, content in output.headers.items()}
            jsonschema.validate(headers, declared_headers(message))
            value = json.loads(output.value)
            jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
            assert headers["ce_source"] == f"/intentrec/{settings.app_id}"
            assert headers["ce_subject"] == value["user_id"]
            assert headers.get("traceparent") == (PARENT.decode() if value["event_id"] == traced["event_id"] else None)
    for output in rig.outputs(settings.recommendations_topic):
        answer = decode_recommendation(output.value)
        assert answer.recommendation_id == f"{answer.source.partition}-{answer.source.offset}-{bundle.version}"
        assert isinstance(answer.query, bytes)
        assert all(item.reason for item in answer.items)
        assert answer.rows
        assert {row.title for row in answer.rows} <= {f"In the mood for {name}" for name in ("drama", "comedy", "kids")}
    assert msgspec.UNSET not in {
        decode_intent(output.value).embedding for output in rig.outputs(settings.intents_topic)
    }


def test_a_rows_file_that_the_domain_does_not_fit_ends_the_worker_with_the_remedy(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.toml"
    rows.write_text(ROWS.replace("genre", "mood"))
    rig, (bundle, _) = make_serving_rig(embedded_broker, rows=str(rows))
    announce_bundle(rig, bundle)
    worker = start_serving(rig)
    assert worker.wait(90) == 2
    assert f"rows {rows}: rows[0].head is 'mood'; allowed: age, genre (of domain tiny)" in worker.log()
