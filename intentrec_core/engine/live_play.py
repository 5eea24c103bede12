"""A play given to a live encoder, what may be wrong with it, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np

from intentrec_core.limits import MAX_DURATION_S, MAX_ID_BYTES
from intentrec_core.times import END_MS, outside, unit_hint

#: The limit that a play on the plays topic has, too.
MAX_TS_MS = END_MS
NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})

_NUMPY_NUMBERS = (np.integer, np.floating, np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePlay:
    """One member played one item.

    ``user_id``, ``item_id`` and ``event_id`` are 1 to 256 bytes of UTF-8. An item that the model does not know is encoded as
    unknown. ``ts_ms`` is when it was played, in whole milliseconds since 1970 (UTC), before 2100. ``duration_s`` is how long, in
    seconds, 0 to 31,622,400 (366 days). ``attributes`` are further values by the keys that the domain reads: texts, finite
    numbers, truth values, or None for missing. ``event_id`` names the play, and a repeated one changes nothing; without one,
    a play of the same item in the same millisecond is the same play.
    """

    user_id: str
    item_id: str
    ts_ms: int
    event_id: str | None = None
    duration_s: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=lambda: NO_ATTRIBUTES)


class LiveOutcome(StrEnum):
    """What became of a play.

    ``applied``: it is in the history, in the order of event time. ``duplicate``: the history knows its event id. ``late``: it
    is older than the newest play that has left the history, or as old and not known to be new. The latter two change nothing.
    """

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"


def problems(play: LivePlay, attribute_keys: Sequence[str], earliest_ms: int) -> Iterator[str]:
    """What is wrong with a play, each with what is allowed."""
    for name in ("user_id", "item_id", "event_id"):
        value = getattr(play, name)
        if not (name == "event_id" and value is None) and not _is_id(value):
            yield f"{name} is {_shown(value)}; allowed: a text of 1 to {MAX_ID_BYTES} bytes of UTF-8"
    if isinstance(play.ts_ms, bool) or not isinstance(play.ts_ms, int):
        hint = unit_hint(play.ts_ms, earliest_ms) if isinstance(play.ts_ms, float) else ""
        yield f"ts_ms is {_shown(play.ts_ms)}; allowed: whole milliseconds since 1970{hint}"
    elif not earliest_ms <= play.ts_ms < MAX_TS_MS:
        yield outside("ts_ms", play.ts_ms, play.ts_ms, earliest_ms)
    if play.duration_s is not None and not (_is_number(play.duration_s) and 0 <= play.duration_s <= MAX_DURATION_S):
        yield f"duration_s is {_shown(play.duration_s)}; allowed: seconds from 0 to {MAX_DURATION_S:,.0f}, or None"
    if not isinstance(play.attributes, Mapping):
        yield f"attributes is {_shown(play.attributes)}; allowed: a mapping of values by key"
        return
    for key, value in play.attributes.items():
        if key not in attribute_keys:
            read = ", ".join(attribute_keys) or "none"
            hint = "; a duration is the argument duration_s" if key == "duration_s" else ""
            yield f"attribute {_shown(key)} is not one that the domain reads; allowed: {read}{hint}"
        elif isinstance(value, str) and not _is_unicode(value):
            yield f"attribute {key} is {_shown(value)}, which is not valid Unicode; allowed: a text that UTF-8 can hold"
        elif not (value is None or isinstance(value, str | bool) or _is_number(value)):
            yield f"attribute {key} is {_shown(value)}; allowed: a text, a finite number, a truth value or None"


def in_builtins(play: LivePlay) -> LivePlay:
    """The play with NumPy's numbers, which pandas holds too, as the numbers of Python that they are."""
    attributes = play.attributes if isinstance(play.attributes, Mapping) else {}
    if not any(isinstance(value, _NUMPY_NUMBERS) for value in (play.ts_ms, play.duration_s, *attributes.values())):
        return play
    return replace(
        play,
        ts_ms=_builtin(play.ts_ms),
        duration_s=_builtin(play.duration_s),
        attributes={key: _builtin(value) for key, value in attributes.items()},
    )


def _builtin(value: Any) -> Any:
    return value.item() if isinstance(value, _NUMPY_NUMBERS) else value


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _is_unicode(value) and 1 <= len(value.encode()) <= MAX_ID_BYTES


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
