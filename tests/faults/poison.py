"""Invalid plays of many kinds, seeded, each with its accepted reject reasons.

A record is named by a header of its producer's, so that it is found again in the plays topic and in the dead letters.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka.partitioner import murmur2

NAME_HEADER = "poison"
OVERSIZED_BYTES = 5_000_000
LARGEST_KEPT_BYTES = 1_000_000
#: Past Python's recursion limits of all versions, and a record of some tens of kB.
DEPTH = 20_000


@dataclass(frozen=True)
class Poison:
    """One record to send. ``partition`` is that of its key where it is None."""

    kind: str
    key: bytes | None
    value: bytes | None
    reasons: frozenset[str]
    partition: int | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


Play = dict[str, Any]
Maker = Callable[[random.Random, Play], bytes | None]
MALFORMED, FIELD, RANGE = frozenset({"malformed"}), frozenset({"invalid_field"}), frozenset({"out_of_range"})
EITHER = FIELD | RANGE


def _encode(play: Play) -> bytes:
    return json.dumps(play).encode()


def _fuzzed(rng: random.Random, play: Play) -> bytes:
    """Bytes flipped, cut, doubled or moved until another parser than ours refuses them."""
    while True:
        value = bytearray(_encode(play))
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(value))
            action = rng.randrange(4)
            if action == 0:
                value[place] ^= 1 << rng.randrange(8)
            elif action == 1:
                del value[place : place + rng.randint(1, 10)]
            elif action == 2:
                value[place:place] = value[place : place + rng.randint(1, 10)]
            else:
                value[place] = rng.choice(b'{}[]",:\\\0')
        value = value or bytearray(b"{")
        try:
            json.loads(bytes(value).decode("utf-8"))
        except ValueError:
            return bytes(value)


def _truncated(rng: random.Random, play: Play) -> bytes:
    value = _encode(play)
    return value[: rng.randrange(1, len(value))]


def _bad_utf8(rng: random.Random, play: Play) -> bytes:
    bad = rng.choice([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80"])
    name = rng.choice(["event_id", "item_id", "user_id"])
    return _encode(play | {name: "@@"}).replace(b"@@", b"a" + bad + b"z")


def _not_a_number(rng: random.Random, play: Play) -> bytes:
    literal = rng.choice(["NaN", "Infinity", "-Infinity", "nan", "1e", "0x1f", "1_000", ".5", "+1", "01"])
    place = rng.choice(["ts", "duration_s"])
    return _encode(play | {place: "@@"}).replace(b'"@@"', literal.encode())


def _deep(rng: random.Random, play: Play) -> bytes:
    opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    inside = opening * DEPTH + b"1" + closing * DEPTH
    where = rng.choice(["context", "field_of_next_year"])
    return _encode(play | {where: "@@"}).replace(b'"@@"', inside)


def _wrong_type(rng: random.Random, play: Play) -> bytes:
    changes: list[Play] = [
        {name: wrong} for name in ("event_id", "user_id", "item_id") for wrong in (1, None, [], {}, True)
    ]
    changes += [
        {"ts": wrong} for wrong in (1.5, None, [], {}, True, "yesterday", "1700000000.5", "2026-13-01T00:00:00Z")
    ]
    changes += [{"duration_s": wrong} for wrong in ("12", [], True)]
    changes += [{"context": wrong} for wrong in ("tv", [], 3, {"device": {}}, {"device": ["tv"]}, {"": 1})]
    changes += [{"action": wrong} for wrong in (3, "", [])] + [{"session_id": wrong} for wrong in (3, "", {})]
    return _encode(play | rng.choice(changes))


def _out_of_range(rng: random.Random, play: Play) -> bytes:
    if rng.random() < 0.2:
        return _encode(play | {"duration_s": "@@"}).replace(b'"@@"', rng.choice([b"1e999", b"-1e999", b"9" * 400]))
    other_units = (play["ts"] // 1000, str(play["ts"] // 1000), play["ts"] * 1000, str(play["ts"] * 10**6))
    numbers = (0, -1, 10**30, 2**63, 2**64, "1989-12-31T23:59:59Z")
    changes: list[Play] = [{"ts": ts} for ts in (*other_units, *numbers)]
    changes += [{"duration_s": duration_s} for duration_s in (-0.5, 1e9)]
    changes += [{"context": {"limit": limit}} for limit in (1e300, -1e300, 2**60, 10**400)]
    return _encode(play | rng.choice(changes))


def _too_long(rng: random.Random, play: Play) -> bytes:
    name = rng.choice(["event_id", "item_id"])
    return _encode(play | {name: rng.choice(["", "i" * 257, "\u00e9" * 129, "x" * 100_000])})


def _other_encoding(rng: random.Random, play: Play) -> bytes:
    text = json.dumps(play)
    return rng.choice(
        [text.encode("utf-16"), text.encode("utf-32"), b"\xef\xbb\xbf" + text.encode(), zlib.compress(text.encode())]
    )


def _not_an_object(rng: random.Random, play: Play) -> bytes:
    return rng.choice(
        [
            b"[]",
            b"3",
            b"null",
            b"true",
            b'"text"',
            _encode(play).join([b"[", b"]"]),
            json.dumps(_encode(play).decode()).encode(),
        ]
    )


def _oversized(rng: random.Random, play: Play) -> bytes:
    beginning = _encode(play)[:-1] + b',"padding":"'
    return (
        beginning + rng.randbytes(OVERSIZED_BYTES // 2).hex().encode()[: OVERSIZED_BYTES - len(beginning) - 2] + b'"}'
    )


def _largest_kept(rng: random.Random, play: Play) -> bytes:
    return (_encode(play)[:-1] + b',"padding":"').ljust(LARGEST_KEPT_BYTES, b"x")


def _without_a_field(rng: random.Random, play: Play) -> bytes:
    gone = rng.choice(["event_id", "user_id", "item_id", "ts"])
    return _encode({name: value for name, value in play.items() if name != gone})


def _filter_value(rng: random.Random, play: Play) -> bytes:
    return _encode(play | {"context": {"max_maturity": rng.choice(["four", "", "nan", "inf", "4,5"])}})


#: What of a valid play becomes the value of a poisonous one, and the reasons that fit.
VALUES: dict[str, tuple[Maker, frozenset[str]]] = {
    "null value": (lambda rng, play: None, frozenset({"empty"})),
    "empty value": (lambda rng, play: b"", frozenset({"empty"})),
    "fuzzed JSON": (_fuzzed, MALFORMED | EITHER),
    "truncated JSON": (_truncated, MALFORMED),
    "random bytes": (lambda rng, play: b"\0" + rng.randbytes(rng.randint(1, 2000)), MALFORMED),
    "bad UTF-8": (_bad_utf8, MALFORMED),
    "lone surrogate": (lambda rng, play: _encode(play | {"item_id": "\ud800"}), MALFORMED),
    "NaN and other literals": (_not_a_number, MALFORMED),
    "deep nesting": (_deep, MALFORMED | FIELD),
    "half of a deep nesting": (lambda rng, play: _encode(play)[:-1] + b',"x":' + b"[" * DEPTH, MALFORMED),
    "wrong types": (_wrong_type, FIELD),
    "no JSON object": (_not_an_object, FIELD),
    "missing field": (_without_a_field, FIELD),
    "numbers out of range": (_out_of_range, EITHER),
    "ids too long or empty": (_too_long, FIELD),
    "filter value that is no number": (_filter_value, FIELD),
    "future timestamp": (
        lambda rng, play: _encode(play | {"ts": play["ts"] + rng.randint(10**11, 10**12)}),
        frozenset({"future"}),
    ),
    "unknown schema": (
        lambda rng, play: _encode(play | {"schema_version": rng.choice([0, 2, 99, "2.0", 1.5])}),
        frozenset({"unknown_schema"}),
    ),
    "another encoding": (_other_encoding, MALFORMED),
    "1 MB, kept whole": (_largest_kept, MALFORMED),
    "5 MB": (_oversized, frozenset({"oversized"})),
}
#: Poisonous by where they are and what they carry beside a valid value.
PLACES = ("null key elsewhere", "key elsewhere", "key of another", "huge key", "forged and flooding headers")
KINDS = (*VALUES, *PLACES)
#: Megabytes each: a few are enough.
LARGE = frozenset({"1 MB, kept whole", "5 MB"})


def make(kind: str, rng: random.Random, play: Play, num_partitions: int) -> Poison:
    """A poisonous record made from a valid play, whose key is in its place unless the kind says otherwise."""
    key = play["user_id"].encode()
    home = (murmur2(key) & 0x7FFFFFFF) % num_partitions
    if kind in VALUES:
        maker, reasons = VALUES[kind]
        return Poison(kind, key, maker(rng, play), reasons)
    value, elsewhere = _encode(play), (home + rng.randrange(1, num_partitions)) % num_partitions
    misplaced, mismatch = frozenset({"wrong_partition"}), frozenset({"key_mismatch"})
    if kind == "null key elsewhere":
        return Poison(kind, None, value, misplaced, elsewhere)
    if kind == "key elsewhere":
        return Poison(kind, key, value, misplaced, elsewhere)
    if kind == "key of another":
        return Poison(kind, rng.choice([b"", b"somebody", key + b" ", b"\xff\0", key.upper()]), value, mismatch)
    if kind == "huge key":
        return Poison(kind, key * 20_000, value, mismatch)
    assert kind == "forged and flooding headers"
    headers: list[tuple[str, bytes | None]] = [("intentrec-offset", b"0"), ("intentrec-id", b"forged"), ("none", None)]
    headers += [("", b"no name"), ("\u00e9", b"\xff"), ("big", rng.randbytes(300_000))]
    return Poison(kind, key, b"{", MALFORMED, headers=headers)


def mixture(
    rng: random.Random, num: int, plays: Iterator[Play], num_partitions: int, num_large: int
) -> Iterator[Poison]:
    """``num`` poisonous records, as many of each kind as of the others but for the large ones."""
    small = [kind for kind in KINDS if kind not in LARGE]
    kinds = [kind for kind in LARGE for _ in range(num_large)]
    kinds += [small[number % len(small)] for number in range(num - len(kinds))]
    rng.shuffle(kinds)
    for number, kind in enumerate(kinds):
        made = make(kind, rng, next(plays), num_partitions)
        yield Poison(
            made.kind,
            made.key,
            made.value,
            made.reasons,
            made.partition,
            [(NAME_HEADER, b"%d" % number), *made.headers],
        )
