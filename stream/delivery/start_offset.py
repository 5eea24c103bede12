"""Where a partition's fold goes on, or why it must not: committed offset, log and marker checked against each other.

A pure function, because this is where plays would be lost silently: every disagreement that would lose or double plays is
refused, with the remedy, before anything is written.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intentrec_core.errors import StateError

if TYPE_CHECKING:
    from intentrec_core.history.changelog_codec import Marker

logger = logging.getLogger(__name__)

#: Said wherever records of the plays topic were missed: an order to forget somebody stands among them.
ORDERS_TOO = "; orders to forget a member may have been among them: send those of that time again"
#: Producers' clocks against the workers'.
CLOCK_SLACK_MS = 5000


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """What the broker says of a partition of the plays topic.

    ``committed`` is the group's offset or None; ``beginning`` and ``end`` bound what the log holds; ``first_ms`` is the timestamp
    of its first play, where that was asked for.
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
    """The first offset that is not in the restored state, whose last checkpoint was written at ``checkpoint_ms``.

    Raises: StateError when state and log disagree; the message says what to do.
    """
    where, committed = f"partition {partition}", facts.committed
    if marker is None:
        if committed is not None:
            raise StateError(
                f"{where}: offset {committed} is committed but the changelog has no marker: it was emptied. "
                "Restore it, or reset the group's offsets to the beginning to fold the plays again"
            )
        if has_state and transactional:
            raise StateError(
                f"{where}: the changelog holds members but no marker: it is another app's, or damaged. "
                "Use another app_id, or empty the topic"
            )
        return facts.beginning
    if marker.num_partitions != facts.num_partitions:
        raise StateError(
            f"{where}: the plays topic has {facts.num_partitions} partitions, the state was folded with "
            f"{marker.num_partitions}: members have moved between partitions. Use another app_id to fold from the beginning"
        )
    check_domain(marker, fingerprint, partition)
    # The embedded broker has no transactions, and counts the last batch of a log as one record: its end says nothing.
    if transactional and max(marker.next_offset, committed or 0) > facts.end:
        raise StateError(
            f"{where}: the state reaches offset {max(marker.next_offset, committed or 0)} but the plays topic ends at "
            f"{facts.end}: it was created anew. Use another app_id, or restore the topic"
        )
    if committed is None:
        # The group's offsets expire when nobody commits for a week; the marker was written with them and stands. They also go
        # when the topic is deleted; of one that was made anew and filled, even the first play is younger than the state.
        if (
            facts.first_ms is not None
            and facts.beginning < marker.next_offset
            and facts.first_ms > checkpoint_ms + CLOCK_SLACK_MS
        ):
            raise StateError(
                f"{where}: no offset is committed, and the first play of the log (offset {facts.beginning}) is younger than the "
                "state: the plays topic was created anew. Use another app_id to fold it from the beginning; or, if it is the old "
                f"one, set the group's offset to {marker.next_offset}"
            )
        logger.warning("%s: no committed offset, going on at the marker's %d", where, marker.next_offset)
        committed = marker.next_offset
    if committed > marker.next_offset:
        raise StateError(
            f"{where}: offset {committed} is committed but the state ends at {marker.next_offset}: plays between would be lost. "
            f"Set the group's offset to {marker.next_offset}"
        )
    if committed < facts.beginning:
        logger.error(
            "%s: plays from %d to %d were deleted by the topic's retention before they were read: %d, less what is no play%s",
            where,
            committed,
            facts.beginning,
            facts.beginning - committed,
            ORDERS_TOO,
        )
    # An offset behind the marker (embedded broker, or reset by hand) replays plays that each member's own last offset refuses.
    return max(committed, facts.beginning)


def check_domain(marker: Marker, fingerprint: str, partition: int) -> None:
    """Histories are packed as their domain says, so this is asked before any of them is unpacked.

    Raises: StateError when the state was folded under another domain.
    """
    if marker.fingerprint != fingerprint:
        raise StateError(
            f"partition {partition}: the state was folded under another domain ({marker.fingerprint}, now {fingerprint}). "
            "Run with the domain file it was made with, or use another app_id"
        )
