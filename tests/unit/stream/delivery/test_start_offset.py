"""The offset at which a fold continues, and every disagreement that must be refused before plays are lost."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from intentrec_core.errors import StateError
from intentrec_core.history.changelog_codec import Marker
from stream.delivery.start_offset import CLOCK_SLACK_MS, SourceFacts, start_offset

FACTS = SourceFacts(committed=100, beginning=0, end=500, num_partitions=4)
FINGERPRINT = "0123456789abcdef"
MARKER = Marker(num_partitions=4, next_offset=100, fingerprint=FINGERPRINT)


def _start(
    marker: Marker | None = MARKER,
    *,
    has_state: bool = True,
    transactional: bool = True,
    checkpoint_ms: int = -1,
    **facts: Any,
) -> int:
    return start_offset(
        dataclasses.replace(FACTS, **facts),
        marker,
        partition=3,
        has_state=has_state,
        fingerprint=FINGERPRINT,
        transactional=transactional,
        checkpoint_ms=checkpoint_ms,
    )


def test_continues_at_the_committed_offset_when_all_agree() -> None:
    assert _start() == 100


def test_a_new_partition_begins_at_the_beginning_of_the_log() -> None:
    assert _start(None, has_state=False, committed=None, beginning=7) == 7


def test_an_offset_below_the_marker_replays_onto_the_state() -> None:
    assert _start(committed=90) == 90


def test_expired_group_offsets_are_replaced_by_the_markers() -> None:
    assert _start(committed=None) == 100


def test_expired_offsets_of_a_log_older_than_the_state_are_replaced_too() -> None:
    assert _start(committed=None, first_ms=999, checkpoint_ms=1000) == 100
    assert _start(committed=None, first_ms=1000 + CLOCK_SLACK_MS, checkpoint_ms=1000) == 100, "clocks differ"
    # Retention has deleted all folded plays, so the first play proves nothing.
    assert _start(committed=None, first_ms=10**9, checkpoint_ms=1000, beginning=100) == 100


def test_a_log_newer_than_the_state_was_created_anew() -> None:
    with pytest.raises(StateError, match="created anew"):
        _start(committed=None, first_ms=1001 + CLOCK_SLACK_MS, checkpoint_ms=1000)
    assert _start(first_ms=10**9, checkpoint_ms=1000) == 100, "a committed offset belongs to this log"


def test_plays_deleted_before_they_were_read_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert _start(beginning=140) == 140
    assert "from offset 100 up to the log's beginning at 140 were deleted" in caplog.text
    assert "at most 40 plays" in caplog.text
    assert "resend the erasure requests" in caplog.text


@pytest.mark.parametrize(
    ("case", "remedy"),
    [
        ({"marker": None}, "reset the group's offsets"),
        ({"marker": None, "committed": None}, "Use another app_id"),
        ({"num_partitions": 8}, "members have moved"),
        ({"end": 99}, "created anew"),
        ({"committed": 101}, "Set the group's offset to 100"),
        ({"committed": 501}, "created anew"),
        ({"marker": dataclasses.replace(MARKER, fingerprint="f" * 16)}, "Run with the domain file"),
    ],
)
def test_disagreement_is_refused_with_the_remedy(case: dict[str, Any], remedy: str) -> None:
    with pytest.raises(StateError, match=remedy) as refused:
        _start(**case)
    assert "partition 3" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_members_without_a_marker_are_a_crash_between_records_on_a_broker_without_transactions() -> None:
    assert _start(None, committed=None, transactional=False) == 0
