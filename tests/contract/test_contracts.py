"""The published contract is what the code does, and only ever grows by optional fields."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema
import msgspec
import pytest

from intentrec_core.errors import RejectReason
from stream.wire import schemas as contracts
from stream.wire.codec import DecodedPlay, decode_play, encode, encode_output, with_latency
from stream.wire.dead_letter import REDRIVE_OF_HEADER, REDRIVES_HEADER, dead_letter
from stream.wire.erasure_record import CONTROL_HEADER, FORGET, ErasureRequest, read_erasure_request
from stream.wire.examples import example_headers, example_values
from stream.wire.messages import (
    Announcement,
    IntentUpdate,
    ItemCountsHead,
    Play,
    PrimaryIntent,
    Recommendation,
    RecommendedItem,
    Source,
)
from tests.contract.keep_release import release_texts

RELEASED = Path(__file__).parent / "released"
SOURCE = Source("plays", 3, 41)
SHARED = {
    "user_id": "u1",
    "session_id": "u1-1772396100000",
    "event_id": "e1",
    "event_time": "2026-03-01T20:15:00.000Z",
    "bundle": "b0123456789ab",
    "source": SOURCE,
}
RECOMMENDATION = Recommendation(
    **SHARED, items=[RecommendedItem("i1", "Heat (1995)", 3.25)], fallback="none", latency_s=msgspec.UNSET
)
INTENT = IntentUpdate(
    **SHARED,
    session_opened=True,
    intents={"genre": {"Drama": 0.75, "Comedy": 0.25}},
    weights={"genre": 1.0},
    primary=PrimaryIntent("genre", "Drama", 0.75),
    shifted=False,
)
ANNOUNCEMENT = Announcement(
    sequence=7, bundle="b0123456789ab", url="s3://models/intentrec", created_at="2026-03-01T20:15:00.000Z"
)
COUNTS_HEAD = ItemCountsHead(
    sequence=7,
    event_time_ms=1_772_396_100_000,
    offsets={"-1": 40, "0": 41},
    decays_s=[3600.0],
    num_items=1,
    blocks=["0123456789abcdef"],
    written_at="2026-03-01T20:15:00.000Z",
)


def schema(name):
    return json.loads((contracts.FOLDER / f"{name}.schema.json").read_text("utf-8"))


def check(name, data):
    jsonschema.validate(json.loads(data), schema(name), jsonschema.Draft202012Validator)


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 1_772_396_200_000
    topic: str = "plays"
    partition: int = 3
    offset: int = 41
    headers: list = field(default_factory=list)


def test_the_committed_contracts_are_what_the_code_generates():
    committed = {path.name: path.read_text("utf-8") for path in contracts.FOLDER.iterdir()}
    del committed["openapi.json"]  # the gateway's: test_gateway_contract
    assert committed == contracts.generate(), "run: make contracts"


def released():
    """Each message of each version of the contract that is kept, by version and name."""
    found = (path.relative_to(RELEASED) for path in sorted(RELEASED.glob("*/*.schema.json")))
    return [(path.parts[0], path.name.removesuffix(".schema.json")) for path in found]


def kept(version, name):
    return json.loads((RELEASED / version / f"{name}.json").read_text("utf-8"))


def kept_schema(version, name):
    return kept(version, f"{name}.schema")


@pytest.mark.parametrize(("version", "name"), released())
def test_messages_grew_by_optional_fields_only_since_every_release(version, name):
    old = kept_schema(version, name)
    assert contracts.breaking_changes(old, schema(name), received=name in ("play", "item")) == []


@pytest.mark.parametrize(("version", "name"), released())
def test_messages_of_every_release_are_read_whole(version, name):
    """A golden message was written by the code of its version, with every field that it had."""
    old = kept(version, name)
    read = msgspec.to_builtins(msgspec.json.decode(json.dumps(old), type=contracts.MESSAGES[name]))
    assert {field: read[field] for field in old if field in read} == old
    check(name, json.dumps(old))


@pytest.mark.parametrize(("version", "name"), released())
def test_a_reader_of_any_release_takes_the_messages_of_today(version, name):
    jsonschema.validate(example_values()[name], kept_schema(version, name), jsonschema.Draft202012Validator)


def test_the_contract_of_this_version_is_kept():
    """What is released as a version never changes: a change raises CONTRACT_VERSION."""
    current = RELEASED / contracts.CONTRACT_VERSION
    texts = {path.name: path.read_text("utf-8") for path in current.iterdir()}
    assert texts == release_texts(), "raise CONTRACT_VERSION, and run: python -m tests.contract.keep_release"


@pytest.mark.parametrize("name", list(contracts.MESSAGES))
def test_the_examples_are_valid_and_are_read_as_they_are_written(name):
    value = example_values()[name]
    check(name, json.dumps(value))
    read = msgspec.json.decode(json.dumps(value), type=contracts.MESSAGES[name])
    assert json.loads(msgspec.json.encode(read)) == value
    declared = documented(name)
    assert [example["payload"] for example in declared["examples"]] == [value]


def test_the_headers_of_the_examples_are_the_declared_ones():
    for name, headers in example_headers().items():
        declared = documented(name)["headers"]
        jsonschema.validate(headers, declared)
        assert set(declared["required"] if name != "play" else ()) <= set(headers) <= set(declared["properties"])
        assert documented(name)["examples"][0]["headers"] == headers


def test_an_erasure_request_has_no_other_header():
    assert set(documented("forget")["headers"]["properties"]) == {CONTROL_HEADER}


def test_every_way_to_connect_is_a_server_with_its_security():
    document = json.loads((contracts.FOLDER / "asyncapi.json").read_text("utf-8"))
    servers = document["servers"]
    assert set(servers) == {"plaintext", "ssl", "sasl-plaintext", "sasl-ssl"}
    assert {name for name, server in servers.items() if "security" in server} == {"sasl-plaintext", "sasl-ssl"}
    assert {name for name, server in servers.items() if server["protocol"] == "kafka-secure"} == {"ssl", "sasl-ssl"}
    schemes = {scheme["type"] for scheme in document["components"]["securitySchemes"].values()}
    assert schemes == {"plain", "scramSha256", "scramSha512"}


@pytest.mark.parametrize("name", list(contracts.MESSAGES))
def test_every_schema_is_a_json_schema(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))


def test_real_outputs_are_valid():
    check("recommendation", with_latency(encode_output(RECOMMENDATION), 0.0123))
    check("intent-update", with_latency(encode_output(INTENT), 0.0123))
    without_intents = msgspec.structs.replace(INTENT, intents={}, weights={}, primary=None)
    check("intent-update", with_latency(encode_output(without_intents), -0.5))
    check("announcement", encode(ANNOUNCEMENT))
    check("item-counts-head", encode(COUNTS_HEAD))


PLAY = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "ts": 1_772_396_100_000}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ts": "2026-03-01T20:15:00Z"},
        {"action": "watch", "duration_s": 12, "session_id": "s", "context": {"a": "b", "c": 1, "d": 1.5, "e": True}},
        {"action": None, "duration_s": None, "session_id": None, "context": None},
        {"schema_version": 1, "a_field_of_next_year": {"x": []}},
        {"event_id": ""},
        {"user_id": None},
        {"item_id": "i" * 257},
        {"item_id": "i" * 256},
        {"ts": None},
        {"ts": -1},
        {"ts": 4_102_444_800_000},
        {"ts": 1.5},
        {"ts": 1_772_396_100_000.0},
        {"ts": ""},
        {"ts": "1" * 65},
        {"duration_s": -1},
        {"duration_s": "12"},
        {"duration_s": 31_622_401},
        {"action": ""},
        {"context": {"": 1}},
        {"context": {"a": None}},
        {"schema_version": None},
        {"context": {"a": []}},
        {"context": {"a": "x" * 1025}},
        {"context": {str(i): i or None for i in range(65)}},
        {"context": []},
    ],
    ids=str,
)
def test_the_worker_accepts_exactly_the_plays_that_the_schema_accepts(change):
    data = json.dumps(PLAY | change).encode()
    accepted = isinstance(decode_play(Record(data), 0, 10**12), DecodedPlay)
    assert accepted == jsonschema.Draft202012Validator(schema("play")).is_valid(json.loads(data))


def test_the_schema_cannot_count_the_entries_that_are_not_null_and_says_so():
    data = json.dumps(PLAY | {"context": {str(i): i for i in range(65)}}).encode()
    assert not isinstance(decode_play(Record(data), 0, 10**12), DecodedPlay)
    (context, _) = schema("play")["$defs"]["Play"]["properties"]["context"]["anyOf"]
    assert "at most 64 that are not null" in context["description"]


def test_a_play_as_our_own_producers_write_it_is_valid():
    check("play", encode(Play("e1", "u1", "i1", 1_772_396_100_000)))
    check("play", encode(Play("e1", "u1", "i1", "2026-03-01T20:15:00Z", "watch", 3.5, "s", {"device": "tv"})))


def documented(message):
    return json.loads((contracts.FOLDER / "asyncapi.json").read_text("utf-8"))["components"]["messages"][message]


@pytest.mark.parametrize("value", [None, b"{", b"x" * 1_000_001])
def test_dead_letters_carry_documented_headers_only(value):
    letter = dead_letter(Record(value, key=b"k" * 100_000), RejectReason.MALFORMED, "why")
    headers = {name: content.decode() for name, content in letter.headers} | {"intentrec-id": "plays-3-41-dead_letter"}
    declared = documented("dead-letter")["headers"]
    assert set(headers) <= set(declared["properties"])
    jsonschema.validate(headers, declared)


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_asyncapi_document_is_whole():
    document = json.loads((contracts.FOLDER / "asyncapi.json").read_text("utf-8"))
    assert document["asyncapi"] == "3.0.0"
    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]  # KeyError: a reference that leads nowhere
    used = {operation["channel"]["$ref"].rsplit("/", 1)[-1] for operation in document["operations"].values()}
    assert used == set(document["channels"])


def test_more_values_may_be_accepted_but_no_fewer_and_no_others_sent():
    old, new = kept_schema("1.0.0", "play"), schema("play")
    widened = ["Play.ts has changed", "Play.context has changed", "Play.schema_version has changed"]
    assert contracts.breaking_changes(old, new, received=True) == []
    assert contracts.breaking_changes(old, new) == widened
    assert contracts.breaking_changes(new, old, received=True) == widened


OLD = contracts.json_schema(Recommendation)


def altered(change):
    new = json.loads(json.dumps(OLD))
    change(new["$defs"]["Recommendation"])
    return new


def test_an_optional_field_or_other_words_are_no_breaking_change():
    new = altered(lambda d: d["properties"].update(locale={"type": "string", "default": ""}))
    assert contracts.breaking_changes(OLD, new) == []
    new = altered(lambda d: d.update(description="other words"))
    assert contracts.breaking_changes(OLD, new) == []
    new = altered(lambda d: d["properties"]["event_id"].update(description="other words"))
    assert contracts.breaking_changes(OLD, new) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["properties"].pop("bundle"), "Recommendation.bundle is gone"),
        (lambda d: d["properties"]["bundle"].update(type="integer"), "Recommendation.bundle has changed"),
        (lambda d: d["properties"]["fallback"]["enum"].append("trending"), "Recommendation.fallback has changed"),
        (lambda d: d["required"].append("latency_s"), "Recommendation.latency_s is required now"),
        (lambda d: d["required"].remove("bundle"), "Recommendation.bundle is optional now"),
        (lambda d: d.update(additionalProperties=False), "Recommendation has changed as a whole"),
    ],
)
def test_anything_else_is_a_breaking_change(change, problem):
    assert contracts.breaking_changes(OLD, altered(change)) == [problem]


def test_contracts_are_written_only_where_they_changed(tmp_path):
    assert len(contracts.write_contracts(tmp_path)) == len(contracts.MESSAGES) + 1
    assert contracts.write_contracts(tmp_path) == []
    (tmp_path / "play.schema.json").write_text("{}")
    assert contracts.write_contracts(tmp_path) == [tmp_path / "play.schema.json"]


def test_the_headers_that_are_told_are_those_the_code_reads_and_writes():
    channel = json.loads((contracts.FOLDER / "asyncapi.json").read_text("utf-8"))
    assert set(channel["channels"]["plays"]["messages"]) == {"play", "forget"}
    messages = channel["components"]["messages"]
    assert messages["forget"]["headers"]["properties"][CONTROL_HEADER]["const"].encode() == FORGET
    order = Record(None, key=b"ann", headers=[(CONTROL_HEADER, FORGET)])
    assert read_erasure_request(order) == ErasureRequest("ann")
    assert set(messages["play"]["headers"]["properties"]) == {
        REDRIVES_HEADER, REDRIVE_OF_HEADER, "traceparent", "tracestate"
    }  # fmt: skip
    letter = dead_letter(
        Record(b"{", headers=[(REDRIVES_HEADER, b"2"), (REDRIVE_OF_HEADER, b"3:41")]), RejectReason.MALFORMED
    )
    assert set(dict(letter.headers)) <= set(messages["dead-letter"]["headers"]["properties"])
