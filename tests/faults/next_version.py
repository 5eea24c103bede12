"""A worker whose changelog is of the next version: it reads schema 3 as well, and writes it.

`python -m tests.faults.next_version`. What schema 3 adds is a checksum behind the version of each record, so that a reader of
schema 2 that took no notice of the version would read garbage.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any

from intentrec_core.history import changelog_codec
from intentrec_core.history.changelog_codec import Marker, Restorer, encode_changes
from stream.pipeline import folding

SCHEMA = changelog_codec.SCHEMA_VERSION + 1


def upgraded(value: bytes) -> bytes:
    """A record of this schema from one of the schema before."""
    return bytes([SCHEMA]) + zlib.crc32(value[1:]).to_bytes(4, "little") + value[1:]


def understood(value: bytes | None) -> bytes | None:
    """A record of the schema before, from one of either."""
    if not value or value[0] != SCHEMA:
        return value
    assert zlib.crc32(value[5:]).to_bytes(4, "little") == value[1:5]
    return bytes([SCHEMA - 1]) + value[5:]


def install(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Makes this process one of the next version; ``replace`` is a monkeypatch's, where it has to be undone."""
    feed, decode, encode = Restorer.feed, Marker.decode, Marker.encode

    def encoded(*args: Any, **options: Any) -> dict[bytes, bytes]:
        return {key: upgraded(value) for key, value in encode_changes(*args, **options).items()}

    replace(Restorer, "feed", lambda self, key, value: feed(self, key, understood(value)))
    replace(Marker, "decode", classmethod(lambda cls, value: decode(understood(value) or b"")))
    replace(Marker, "encode", lambda self: upgraded(encode(self)))
    replace(folding, "encode_changes", encoded)


if __name__ == "__main__":
    from tests.worlds import counting

    install()
    sys.exit(counting.main())
