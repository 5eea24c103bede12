"""A member's state in plain values: of the product's history, and of the naive fold, to be compared.

The only things shared with the product are the hashes that stand for ids, and the names of a domain's columns.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from intentrec_core.domain.spec import Domain, FieldKind, FilterKind, value_text
from intentrec_core.history.history import EventLayout, History, hash64
from tests.worlds.naive_fold import NaiveFold, NaiveMember, NaivePlay
from tests.worlds.tiny_plays import watched_hashes


class MemberState(NamedTuple):
    """What is compared. A play is its packed columns; the sessions are those of the newest evicted play, where there is one,
    of the oldest and of the newest play held. ``evicted`` are event time and event hashes that repeats are recognised by.
    """

    count: int
    last_offset: int
    plays: list[tuple[Any, ...]]
    watched: list[int]
    session_starts_ms: tuple[int | None, int, int]
    evicted: tuple[int, list[int]] | None


def naive_fold(domain: Domain, num_partitions: int | None) -> NaiveFold:
    """The naive fold under a domain's rules."""
    return NaiveFold(
        window=domain.window,
        watched=domain.watched,
        session_gap_ms=int(domain.session_gap_s * 1000),
        max_future_ms=int(domain.max_future_s * 1000),
        earliest_ms=domain.earliest_ms,
        num_partitions=num_partitions,
        numbers=[f.key for f in domain.event_fields if f.kind is FieldKind.BUCKETED]
        + [f.event_key for f in domain.event_filters if f.kind is FilterKind.AT_MOST],
    )


def naive_state(folded: NaiveFold, member: NaiveMember, domain: Domain) -> MemberState:
    """What the naive fold says of a member."""
    plays, num, newest = folded.plays(member), member.num_applied, folded.newest_evicted(member)
    oldest = num - len(plays)
    return MemberState(
        num,
        member.last_offset,
        [_columns(play, domain) for play in plays],
        [hash64(item) for item in folded.watched_items(member)],
        (
            None if newest is None else folded.session_start(member, oldest - 1),
            folded.session_start(member, oldest),
            folded.session_start(member, num - 1),
        ),
        None if newest is None else (newest.ts, [hash64(event) for event in folded.remembered(member)]),
    )


def product_state(history: History, layout: EventLayout) -> MemberState:
    """What a history of the product holds; it has at least one play."""
    plays, evicted = history.view(layout).tolist(), history.anchor(layout) > 0
    return MemberState(
        history.count,
        history.last_offset,
        [tuple(map(_without_nan, play)) for play in plays],
        watched_hashes(history, layout),
        (
            history.evicted_session_ms if evicted else None,
            history.session_start_ms(layout, 0),
            history.session_start_ms(layout, len(plays) - 1),
        ),
        (history.newest_evicted_ms, np.frombuffer(history.newest_evicted, dtype="<u8").tolist()) if evicted else None,
    )


def _columns(play: NaivePlay, domain: Domain) -> tuple[Any, ...]:
    """As the docstring of EventLayout lists them; a missing number is None here."""
    attributes = play.context | ({} if play.action is None else {"action": play.action})
    columns: list[Any] = [hash64(play.item_id), hash64(play.event_id), play.ts]
    columns.append(-1.0 if play.duration_s is None else _float32(play.duration_s))
    for one in domain.event_fields:
        value = attributes.get(one.key)
        if one.kind is FieldKind.BUCKETED:
            columns.append(_float32(value))
        else:
            text = None if value is None else value_text(value)
            columns.append(1 + one.values.index(text) if text in one.values else 0)
    for rule in domain.event_filters:
        value = attributes.get(rule.event_key)
        if rule.kind is FilterKind.AT_MOST:
            columns.append(_float32(value))
        else:
            columns.append(0 if value is None else hash64(value_text(value)))
    return tuple(columns)


def _float32(value: Any) -> float | None:
    return None if value is None else float(np.float32({"true": 1, "false": 0}.get(value, value)))


def _without_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
