"""Bytes that a play adds to the changelog: the figure of a bench, and a budget that a test checks."""

from __future__ import annotations

from intentrec_core.history.changelog_codec import encode_changes
from intentrec_core.history.history import EventLayout, History

#: Of changelog for a play, keys included, of a member with NUM_PLAYS plays.
BUDGET_BYTES = 256
NUM_PLAYS = 200


def written_bytes(layout: EventLayout, plays: int) -> float:
    """Mean bytes of changelog a play when each play of a member is in a checkpoint of its own: the most it can be."""
    history, num_bytes = History(), 0
    for number in range(plays):
        play = layout.pack(item_id="i", event_id=f"e{number}", ts_ms=number, duration_s=None, attributes={})
        fold = history.apply(layout, play, number)
        changes = encode_changes(
            layout, "user-00000", history, first_changed=fold.position, anchor_moved=fold.evicted > 0
        )
        num_bytes += sum(len(key) + len(value) for key, value in changes.items())
    return num_bytes / plays
