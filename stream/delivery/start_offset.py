"""Decides at which offset a partition's fold continues, or refuses to continue: checks committed offset, log and marker.

A pure function, because a mistake here loses plays silently. Every disagreement that would lose or double plays is refused, with
the remedy, before anything is written.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intentrec_core.errors import StateError
from stream.wire.erasure_record import RESEND_ERASURES

if TYPE_CHECKING:
    from intentrec_core.history.changelog_codec import Marker

logger = logging.getLogger(__name__)

#: Allowed difference between the clocks of producers and workers.
CLOCK_SLACK_MS = 5000


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """What the broker reports about a partition of the plays topic.

    ``committed``: the group's offset or None. ``beginning`` and ``end``: the bounds of the log. ``first_ms``: the timestamp of
    its first play, or None if it was not requested.
    """

    committed: int | None
    beginning: int
    end: int
    num_partitions: int
    first_ms: int | None = None


def start_offset(
    facts: SourceFacts,
    marker: Marker | None,
    *,
    partition: int,
    has_state: bool,
    fingerprint: str,
    transactional: bool,
    checkpoint_ms: int = -1,
) -> int:
    """The first offset that is not in the restored state.

    ``checkpoint_ms``: when the last checkpoint of that state was written; -1 if there is none.

    Raises: StateError when state and log disagree; its message says what to do.
    """
    where = f"partition {partition}"
    if marker is None:
        _check_without_marker(facts, where, has_state=has_state, transactional=transactional)
        return facts.beginning
    if marker.num_partitions != facts.num_partitions:
        raise StateError(
            f"{where}: the plays topic has {facts.num_partitions} partitions, but had {marker.num_partitions} when the state was "
            "folded: members have moved to other partitions than their histories. "
            "Use another app_id to fold all plays from the beginning"
        )
    check_domain(marker, fingerprint, partition)
    # The embedded broker has no transactions. It counts the last batch of a log as one record, so its end proves nothing.
    if transactional:
        _check_end(facts, marker, where)
    committed = facts.committed
    if committed is None:
        _check_without_commit(facts, marker, where, checkpoint_ms)
        committed = marker.next_offset
    if committed > marker.next_offset:
        raise StateError(
            f"{where}: offset {committed} is committed, but the state ends at offset {marker.next_offset}: the plays in between "
            f"would be lost. Set the group's offset to {marker.next_offset}"
        )
    if committed < facts.beginning:
        logger.error(
            "%s: plays from offset %d up to the log's beginning at %d were deleted by the topic's retention before they were "
            "read: at most %d plays%s",
            where,
            committed,
            facts.beginning,
            facts.beginning - committed,
            RESEND_ERASURES,
        )
    # An offset below the marker's (embedded broker, or reset by hand) replays plays; each history recognises them by its last
    # source offset.
    return max(committed, facts.beginning)


def _check_without_marker(facts: SourceFacts, where: str, *, has_state: bool, transactional: bool) -> None:
    if facts.committed is not None:
        raise StateError(
            f"{where}: offset {facts.committed} is committed, but the changelog has no marker: it was emptied, and later plays "
            "would be folded into empty histories. Restore the changelog topic, or reset the group's offsets to the "
            "beginning to fold all plays again"
        )
    if has_state and transactional:
        raise StateError(
            f"{where}: the changelog holds histories but no checkpoint marker: it belongs to another app, or is damaged. "
            "Use another app_id, or empty the changelog topic"
        )


def _check_end(facts: SourceFacts, marker: Marker, where: str) -> None:
    reached = max(marker.next_offset, facts.committed or 0)
    if reached > facts.end:
        raise StateError(
            f"{where}: the state reaches offset {reached}, but the plays topic ends at {facts.end}: the topic was created anew. "
            "Use another app_id to fold the new topic from the beginning, or restore the old topic"
        )


def _check_without_commit(facts: SourceFacts, marker: Marker, where: str, checkpoint_ms: int) -> None:
    """The group's offsets expire a week after the last commit; the marker was written together with them, and is still valid.

    They also vanish when the topic is deleted: if it was created again and filled, its first play is newer than the state.
    """
    if (
        facts.first_ms is not None
        and facts.beginning < marker.next_offset
        and facts.first_ms > checkpoint_ms + CLOCK_SLACK_MS
    ):
        raise StateError(
            f"{where}: the group has no committed offset, and the first play of the log (offset {facts.beginning}) is newer "
            "than the state: the plays topic was created anew. Use another app_id to fold the new topic from "
            f"the beginning. If it is still the old topic, set the group's offset to {marker.next_offset}"
        )
    logger.warning(
        "%s: the group has no committed offset; continuing at offset %d of the last checkpoint",
        where,
        marker.next_offset,
    )


def check_domain(marker: Marker, fingerprint: str, partition: int) -> None:
    """Checks that the state was folded under this domain, before any history is unpacked: the domain defines the packing.

    Raises: StateError when the state was folded under another domain.
    """
    if marker.fingerprint != fingerprint:
        raise StateError(
            f"partition {partition}: the state was folded under another domain (fingerprint {marker.fingerprint}, now "
            f"{fingerprint}): its histories cannot be read. Run with the domain file of that state, or use another app_id to "
            "fold all plays again"
        )
