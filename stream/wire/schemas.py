"""Generates the public contract, AsyncAPI 3.0 and JSON Schema, from :mod:`stream.wire.messages`.

    make contracts            writes deploy/contracts again

The files are committed, so other teams can read them without this code. One test fails if they differ from what this module
generates, another if a change is more than a new optional field (:func:`breaking_changes`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from intentrec_core.engine.item_counts import ENTRY
from intentrec_core.errors import RejectReason
from stream.settings import Settings
from stream.wire.erasure_record import CONTROL_HEADER, FORGET
from stream.wire.examples import example_headers, example_values
from stream.wire.item_counts_record import HEAD_KEY
from stream.wire.messages import Announcement, CatalogueItem, IntentUpdate, ItemCountsHead, Play, Recommendation
from stream.wire.output_headers import (
    CONTENT_TYPE,
    EVENT_TYPES,
    MAX_TRACE_PARENT_BYTES,
    MAX_TRACE_STATE_BYTES,
    MEDIA_TYPE,
    SHIFTED_HEADER,
    SPEC_VERSION,
    TRACE_PARENT,
    TRACE_STATE,
)

#: Every new optional field raises the minor version, and so does a value that is accepted now. There is no new major version: a
#: breaking change gets a new topic.
CONTRACT_VERSION = "1.5.0"

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "contracts"
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
MESSAGES: dict[str, type[msgspec.Struct]] = {
    "play": Play,
    "recommendation": Recommendation,
    "intent-update": IntentUpdate,
    "announcement": Announcement,
    "item": CatalogueItem,
    "item-counts-head": ItemCountsHead,
}
#: Keywords that explain a schema and constrain nothing.
_WORDS = frozenset({"description", "examples", "title"})

_KEY = {
    "type": "string",
    "description": "user_id in UTF-8. The partition is the murmur2 hash of the key, as Kafka's Java client computes it.",
}
_ITEM_KEY = {"type": "string", "description": "item_id in UTF-8."}
_ID_HEADER = {
    "intentrec-id": {
        "type": "string",
        "description": "<topic>-<partition>-<offset>-<kind>, from the position of the play; a repeated output has the same id.",
    }
}
_TRACE_HEADERS = {
    TRACE_PARENT: {
        "type": "string",
        "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
        "maxLength": MAX_TRACE_PARENT_BYTES,
        "description": "W3C Trace Context. What the play carries, its recommendation and its intent update carry.",
    },
    TRACE_STATE: {
        "type": "string",
        "maxLength": MAX_TRACE_STATE_BYTES,
        "description": "W3C Trace Context; carried with a traceparent only.",
    },
}
_SHIFTED_HEADER = {
    SHIFTED_HEADER: {
        "type": "string",
        "enum": ["true", "false"],
        "description": "The field shifted of the intent update.",
    }
}
_REDRIVE_HEADERS = {
    "intentrec-redrives": {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "How often the play was redriven from the dead-letter topic; absent if never.",
    },
    "intentrec-redrive-of": {
        "type": "string",
        "pattern": "^[0-9]+:[0-9]+$",
        "description": "<partition>:<offset> of the dead letter from which the play was redriven.",
    },
}
#: Of a CloudEvent: the headers that every one of our events has.
_EVENT_ATTRIBUTES = ("ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", CONTENT_TYPE)
_CUT_HEADERS = {
    "intentrec-length": {
        "type": "string",
        "description": "Length in bytes of a value that is too large to be kept; this record has only its first 64 KiB.",
    },
    "intentrec-sha256": {"type": "string", "description": "SHA-256 of the complete value, in hex, if it was cut."},
}
_ORIGIN_HEADERS = {
    "intentrec-topic": {"type": "string", "description": "Topic from which the play was read."},
    "intentrec-partition": {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Partition from which the play was read.",
    },
    "intentrec-offset": {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Offset of the play in that partition.",
    },
}


def generate() -> dict[str, str]:
    """The text of every contract file, by file name."""
    documents = {f"{name}.schema.json": json_schema(message) for name, message in MESSAGES.items()}
    documents["asyncapi.json"] = asyncapi()
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in documents.items()}


def write_contracts(folder: Path = FOLDER) -> list[Path]:
    """Writes all contract files and returns the paths of those that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in generate().items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed


def json_schema(message: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one message; nested types are under ``$defs``."""
    return {"$schema": JSON_SCHEMA, **msgspec.json.schema(message)}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of a worker: the messages it receives and sends, with the default topic names."""
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
            "description": "Every play updates the predicted intent and the recommendations of a member. Messages only ever "
            "gain optional fields; ignore fields that you do not know. The topic names here are the defaults of the settings.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages(), "schemas": schemas, "securitySchemes": _SECURITY_SCHEMES},
    }


_CHANNELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "plays": ("play", "receive", "Plays of members, per member in event-time order as far as the producer can.", {}),
    "recommendations": (
        "recommendation",
        "send",
        "One recommendation for every play added to a history; under overload, one for several plays (see coalesced).",
        {},
    ),
    "intents": (
        "intent-update",
        "send",
        "One intent update for every play added to a history; under overload, one for several plays (see coalesced).",
        {},
    ),
    "dead_letter": ("dead-letter", "send", "Plays that could not be processed, each with the reason.", {}),
    "late": (
        "late-play",
        "send",
        "Valid plays that arrived too late to be added to the member's history, and repeats of plays that left it; unchanged.",
        {},
    ),
    "model_updates": (
        "announcement",
        "receive",
        "The bundle that workers serve. The trainer sends, workers receive. Compacted; one partition.",
        {"partitions": 1, "topicConfiguration": {"cleanup.policy": ["compact"]}},
    ),
    "items": (
        "item",
        "receive",
        "The catalogue: with catalogue_source=topic, an item is shown if and only if it is here. Compacted; one partition.",
        {"partitions": 1, "topicConfiguration": {"cleanup.policy": ["compact"]}},
    ),
    "item_counts": (
        "item-counts-head",
        "receive",
        "What is popular now: decayed counts of plays by item. The trainer sends, workers receive. Compacted; one partition.",
        {"partitions": 1, "topicConfiguration": {"cleanup.policy": ["compact"]}},
    ),
}
"""By setting name without ``_topic``: message, the worker's action, description, Kafka channel binding."""
_ALSO = {"plays": ("forget",), "items": ("withdrawal",), "item_counts": ("item-counts-block",)}
"""Additional messages of a channel."""


_SECURITY_SCHEMES = {
    "plain": {
        "type": "plain",
        "description": "SASL PLAIN: sasl_mechanism=PLAIN, with sasl_username and sasl_password.",
    },
    "scram-sha-256": {"type": "scramSha256", "description": "sasl_mechanism=SCRAM-SHA-256."},
    "scram-sha-512": {"type": "scramSha512", "description": "sasl_mechanism=SCRAM-SHA-512."},
}


def _servers() -> dict[str, Any]:
    """The brokers as a worker can connect to them, by security_protocol."""
    host = Settings.model_fields["broker"].default
    sasl = [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY_SCHEMES]
    servers: dict[str, Any] = {}
    for security in get_args(Settings.model_fields["security_protocol"].annotation):
        servers[security.lower().replace("_", "-")] = {
            "host": host,
            "protocol": "kafka-secure" if security.endswith("SSL") else "kafka",
            "description": f"security_protocol={security}; the address is the default of the setting broker.",
            **({"security": sasl} if security.startswith("SASL") else {}),
        }
    return servers


def _messages() -> dict[str, Any]:
    reasons = {
        "type": "string",
        "enum": [reason.value for reason in RejectReason],
        "description": "Why the play could not be processed. More reasons may be added.",
    }
    dead = {
        "intentrec-error": reasons,
        "intentrec-detail": {"type": "string", "description": "One line of explanation for people."},
        "intentrec-null-value": {"type": "string", "const": "true", "description": "The play had no value."},
        "intentrec-key-length": {
            "type": "string",
            "description": "Length in bytes of an oversized key; this record keeps only its first 64 KiB.",
        },
        "intentrec-key-sha256": {"type": "string", "description": "SHA-256 of the complete oversized key, in hex."},
    }
    dead |= _CUT_HEADERS | _REDRIVE_HEADERS
    of_plays = {"type": "object", "properties": _REDRIVE_HEADERS | _TRACE_HEADERS}
    recommendation, intent_update = (_event_headers(EVENT_TYPES[kind]) for kind in EVENT_TYPES)
    messages = {
        "play": _message("Play", "A member played an item.", of_plays),
        "forget": {
            "title": "ErasureRequest",
            "summary": "Erase the member of this key, with every play before this record. Later plays begin a new history.",
            "headers": {
                "type": "object",
                "properties": {CONTROL_HEADER: {"type": "string", "const": FORGET.decode()}},
                "required": [CONTROL_HEADER],
            },
            "payload": {"type": "null", "description": "No value. The worker sends no reply."},
            "bindings": {"kafka": {"key": _KEY}},
        },
        "recommendation": _message(
            "Recommendation", "The items to show this member after this play.", _headers(recommendation)
        ),
        "intent-update": _message(
            "IntentUpdate",
            "The intent predicted for this member after this play.",
            _headers(_SHIFTED_HEADER | intent_update, [SHIFTED_HEADER]),
        ),
        "announcement": _message("Announcement", "The bundle to serve from now on.", None, key=None),
        "item": _message("CatalogueItem", "An item as it is from now on.", None, key=_ITEM_KEY),
        "withdrawal": {
            "title": "Withdrawal",
            "summary": "The item of this key is in no list from here on. A catalogue file that has it may put it again.",
            "payload": {"type": "null", "description": "No value."},
            "bindings": {"kafka": {"key": _ITEM_KEY}},
        },
        "item-counts-head": _message(
            "ItemCountsHead",
            "Makes a table of counts of plays complete.",
            None,
            key={"type": "string", "const": HEAD_KEY.decode()},
        ),
        "item-counts-block": {
            "title": "ItemCountsBlock",
            "summary": "Counts of plays of some of the items; a table begins to count with its head.",
            "contentType": "application/octet-stream",
            "payload": {
                "description": f"Entries of {ENTRY.itemsize} bytes, little-endian: xxh3-64 of the item_id, the times of its "
                "first and newest play in milliseconds since 1970 (64-bit integers), and a sum for each of the head's decays_s "
                "(64-bit floats) as of the newest play."
            },
            "bindings": {"kafka": {"key": {"type": "string", "pattern": "^block-[0-9]+$"}}},
        },
        "late-play": _message(
            "Play",
            "A play that arrived too late to be added to the history.",
            _headers(_ORIGIN_HEADERS | _CUT_HEADERS),
        ),
        "dead-letter": {
            "title": "DeadLetter",
            "summary": "A play that could not be processed: its original key, value and headers, and the reason.",
            "contentType": "application/octet-stream",
            "headers": _headers(_ORIGIN_HEADERS | dead, ["intentrec-error"]),
            "payload": {"description": "Any bytes."},
        },
    }
    headers = example_headers()
    for name, value in example_values().items():
        messages[name]["examples"] = [
            {"headers": headers[name], "payload": value} if name in headers else {"payload": value}
        ]
    return messages


def _event_headers(event_type: str) -> dict[str, Any]:
    """The headers of a CloudEvent in binary content mode, besides those that each of our outputs has."""
    return {
        "ce_specversion": {"type": "string", "const": SPEC_VERSION, "description": "CloudEvents, binary content mode."},
        "ce_type": {"type": "string", "const": event_type, "description": "Kind of the event."},
        "ce_source": {
            "type": "string",
            "format": "uri-reference",
            "description": "/intentrec/<app_id> of the workers. With ce_id it names the event.",
        },
        "ce_id": {"type": "string", "description": "As intentrec-id."},
        "ce_time": {"type": "string", "format": "date-time", "description": "As event_time: when the item was played."},
        "ce_subject": {
            "type": "string",
            "description": "user_id; absent if it has characters that CloudEvents does not allow in a text.",
        },
        CONTENT_TYPE: {"type": "string", "const": MEDIA_TYPE, "description": "The attribute datacontenttype."},
    } | _TRACE_HEADERS


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
    always = [name for name in (*_ORIGIN_HEADERS, *_EVENT_ATTRIBUTES) if name in properties]
    properties = _ID_HEADER | dict(properties)
    return {"type": "object", "properties": properties, "required": ["intentrec-id", *always, *(required or [])]}


def breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any], *, received: bool = False) -> list[str]:
    """The changes of a message's JSON Schema that are more than a new optional field, as lines of text.

    Texts (titles, descriptions, examples) may change freely, and in a message that the worker receives a field may take more
    values. Nothing else about an existing field may change: a worker could refuse a producer's message, or a subscriber could
    receive something it does not expect.
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
            elif not _is_same(_without_words(schema), _without_words(after["properties"][field]), or_wider=received):
                problems.append(f"{name}.{field} has changed")
        was, is_ = set(before.get("required", ())), set(after.get("required", ()))
        problems += [f"{name}.{field} is required now" for field in sorted(is_ - was)]
        problems += [f"{name}.{field} is optional now" for field in sorted(was - is_)]
        rest = [{k: v for k, v in side.items() if k not in ("properties", "required")} for side in (before, after)]
        if _without_words(rest[0]) != _without_words(rest[1]):
            problems.append(f"{name} has changed as a whole")
    return problems


def _is_same(before: Any, after: Any, *, or_wider: bool) -> bool:
    """Whether two schemas are equal, or ``after`` takes more: other types, null among them, shorter texts, more entries."""
    if before == after:
        return True
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if or_wider and ("anyOf" in before or "anyOf" in after):
            takes = _choices(after)
            return all(any(_is_same(one, other, or_wider=True) for other in takes) for one in _choices(before))
        lost = before.keys() - after.keys()
        if not after.keys() <= before.keys() or (lost and not (or_wider and lost == {"maxProperties"})):
            return False
        return all(
            (or_wider and key == "minLength" and after[key] <= before[key])
            or _is_same(before[key], after[key], or_wider=or_wider)
            for key in after
        )
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return all(_is_same(one, other, or_wider=or_wider) for one, other in zip(before, after, strict=True))
    return False


def _choices(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas that each allow a value by themselves."""
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return [rest | choice for choice in schema.get("anyOf", [{}])]


def _without_words(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _without_words(value) for key, value in schema.items() if key not in _WORDS}
    return [_without_words(entry) for entry in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    for changed_path in write_contracts():
        print(f"wrote {changed_path.relative_to(FOLDER.parent.parent)}")
