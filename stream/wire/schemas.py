"""The contract, published: AsyncAPI 3.0 and JSON Schema, generated from :mod:`stream.wire.messages`.

    make contracts            writes deploy/contracts anew

The files are committed, so that other teams can read them without this code; a test fails when they are not what this
module generates, and another one when a change is more than an optional field (:func:`breaking_changes`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from intentrec_core.errors import RejectReason
from stream.settings import Settings
from stream.wire.erasure_record import CONTROL_HEADER, FORGET
from stream.wire.messages import Announcement, IntentUpdate, Play, Recommendation

#: Minor with every optional field that is added. There is no major: a message that must break gets a topic of its own.
CONTRACT_VERSION = "1.2.0"

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "contracts"
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
MESSAGES: dict[str, type[msgspec.Struct]] = {
    "play": Play,
    "recommendation": Recommendation,
    "intent-update": IntentUpdate,
    "announcement": Announcement,
}
#: Keywords that explain and do not constrain.
_WORDS = frozenset({"description", "examples", "title"})

_KEY = {"type": "string", "description": "user_id in UTF-8; the partition is its murmur2 hash, as in the Java client."}
_ID_HEADER = {
    "intentrec-id": {
        "type": "string",
        "description": "<topic>-<partition>-<offset>-<kind> of the play answered; a repeated output has the same one.",
    }
}
_REDRIVE_HEADERS = {
    "intentrec-redrives": {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "How often the play was sent again from the dead letters; absent: never.",
    },
    "intentrec-redrive-of": {
        "type": "string",
        "pattern": "^[0-9]+:[0-9]+$",
        "description": "Partition and offset of the dead letter it was sent again from.",
    },
}
_ORIGIN_HEADERS = {
    "intentrec-topic": {"type": "string", "description": "Where the play was read."},
    "intentrec-partition": {"type": "string", "pattern": "^[0-9]+$"},
    "intentrec-offset": {"type": "string", "pattern": "^[0-9]+$"},
}


def generate() -> dict[str, str]:
    """The content of every contract file, by name."""
    documents = {f"{name}.schema.json": json_schema(message) for name, message in MESSAGES.items()}
    documents["asyncapi.json"] = asyncapi()
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in documents.items()}


def write_contracts(folder: Path = FOLDER) -> list[Path]:
    """Writes all contract files; returns those that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in generate().items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed


def json_schema(message: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one message, with its parts under ``$defs``."""
    return {"$schema": JSON_SCHEMA, **msgspec.json.schema(message)}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of a worker: what it receives and sends, on the topics' default names."""
    _, schemas = msgspec.json.schema_components(MESSAGES.values(), ref_template="#/components/schemas/{name}")
    topics = {name: Settings.model_fields[f"{name}_topic"].default for name in _CHANNELS}
    channels = {
        name: {
            "address": topics[name],
            "description": description,
            "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in (message, *_ALSO.get(name, ()))},
            "bindings": {"kafka": binding},
        }
        for name, (message, _, description, binding) in _CHANNELS.items()
    }
    operations = {
        f"{action}-{name}": {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{one}"} for one in (message, *_ALSO.get(name, ()))],
        }
        for name, (message, action, _, _) in _CHANNELS.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "IntentRec",
            "version": CONTRACT_VERSION,
            "description": "Every play updates a member's predicted intent and recommendations. Messages are only ever "
            "extended by optional fields; ignore those you do not know. Topic names are the defaults of the settings.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages(), "schemas": schemas},
    }


_CHANNELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "plays": ("play", "receive", "What members play, in event-time order per member as far as the producer can.", {}),
    "recommendations": ("recommendation", "send", "One list for every play that was folded in.", {}),
    "intents": ("intent-update", "send", "One update for every play that was folded in.", {}),
    "dead_letter": ("dead-letter", "send", "Plays that are not valid, each with its reason.", {}),
    "late": ("late-play", "send", "Valid plays that came too late to be folded in, as they came.", {}),
    "model_updates": (
        "announcement",
        "receive",
        "Which bundle serves. The trainer sends, workers receive; compacted, one partition.",
        {"partitions": 1, "topicConfiguration": {"cleanup.policy": ["compact"]}},
    ),
}
"""By setting name: message, what a worker does, description, Kafka channel binding."""
_ALSO = {"plays": ("forget",)}
"""Further messages of a channel."""


def _messages() -> dict[str, Any]:
    reasons = {"type": "string", "enum": [reason.value for reason in RejectReason], "description": "Grows with time."}
    dead = {
        "intentrec-error": reasons,
        "intentrec-detail": {"type": "string", "description": "One line for people."},
        "intentrec-null-value": {"type": "string", "const": "true", "description": "The play had no value."},
        "intentrec-length": {
            "type": "string",
            "description": "Bytes of an oversized value, of which the start is kept.",
        },
        "intentrec-sha256": {"type": "string", "description": "Of an oversized value, whole."},
        "intentrec-key-length": {"type": "string", "description": "Bytes of a key that was cut."},
        "intentrec-key-sha256": {"type": "string", "description": "Of a key that was cut, whole."},
    } | _REDRIVE_HEADERS
    outputs = _headers(_ID_HEADER)
    return {
        "play": _message("Play", "A member played an item", {"type": "object", "properties": dict(_REDRIVE_HEADERS)}),
        "forget": {
            "title": "ErasureRequest",
            "summary": "The member is to be forgotten, with every play before this record. Plays behind it begin anew.",
            "headers": {
                "type": "object",
                "properties": {CONTROL_HEADER: {"type": "string", "const": FORGET.decode()}},
                "required": [CONTROL_HEADER],
            },
            "payload": {"type": "null", "description": "No value. Nothing is sent in answer."},
            "bindings": {"kafka": {"key": _KEY}},
        },
        "recommendation": _message("Recommendation", "What to show now", outputs),
        "intent-update": _message("IntentUpdate", "What the member is up to now", outputs),
        "announcement": _message("Announcement", "A bundle to be served", None, key=None),
        "late-play": _message("Play", "A play that came too late", _headers(_ID_HEADER | _ORIGIN_HEADERS)),
        "dead-letter": {
            "title": "DeadLetter",
            "summary": "The original bytes and key of a play that is not valid; the producer's headers come first.",
            "contentType": "application/octet-stream",
            "headers": _headers(_ID_HEADER | _ORIGIN_HEADERS | dead, ["intentrec-error"]),
            "payload": {"description": "Any bytes."},
        },
    }


def _message(
    schema: str, summary: str, headers: dict[str, Any] | None, key: dict[str, Any] | None = _KEY
) -> dict[str, Any]:
    message: dict[str, Any] = {
        "title": schema,
        "summary": summary,
        "payload": {"$ref": f"#/components/schemas/{schema}"},
    }
    if headers is not None:
        message["headers"] = headers
    if key is not None:
        message["bindings"] = {"kafka": {"key": key}}
    return message


def _headers(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    origin = [name for name in _ORIGIN_HEADERS if name in properties]
    return {"type": "object", "properties": dict(properties), "required": ["intentrec-id", *origin, *(required or [])]}


def breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What in a message's new JSON Schema is more than an optional field, as lines of text; empty when nothing is.

    Words (titles, descriptions, examples) may change freely. Anything else about a field that was there may not: a
    producer's message could be refused, or a reader meet what it does not expect.
    """
    problems = []
    for name, before in old["$defs"].items():
        after = new["$defs"].get(name)
        if after is None:
            problems.append(f"{name} is gone")
            continue
        for field, schema in before["properties"].items():
            if field not in after["properties"]:
                problems.append(f"{name}.{field} is gone")
            elif _without_words(schema) != _without_words(after["properties"][field]):
                problems.append(f"{name}.{field} is another one")
        was, is_ = set(before.get("required", ())), set(after.get("required", ()))
        problems += [f"{name}.{field} is required now" for field in sorted(is_ - was)]
        problems += [f"{name}.{field} is optional now" for field in sorted(was - is_)]
        rest = [{k: v for k, v in side.items() if k not in ("properties", "required")} for side in (before, after)]
        if _without_words(rest[0]) != _without_words(rest[1]):
            problems.append(f"{name} is another kind of message")
    return problems


def _without_words(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _without_words(value) for key, value in schema.items() if key not in _WORDS}
    return [_without_words(entry) for entry in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    for changed_path in write_contracts():
        print(f"wrote {changed_path.relative_to(FOLDER.parent.parent)}")
