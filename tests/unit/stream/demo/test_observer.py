"""The demo's observer: the rule for repeated outputs, and its measurements."""

from __future__ import annotations

import pytest

from stream.demo.observer import Ledger, Observer, SentTimes
from stream.settings import Settings
from stream.wire.codec import encode
from stream.wire.messages import Announcement, Recommendation, RecommendedItem, Source


def recommendation(user: str, offset: int, bundle: str = "b1", latency_s: float = 0.5) -> bytes:
    return encode(
        Recommendation(
            user_id=user,
            session_id="s",
            event_id=f"{user}-{offset}",
            event_time="1998-01-01T00:00:00.000Z",
            bundle=bundle,
            source=Source("plays", 0, offset),
            items=[RecommendedItem("i", "I", 1.0)],
            latency_s=latency_s,
        )
    )


def test_of_repeats_the_first_one_stands() -> None:
    ledger = Ledger()
    assert [ledger.admit("u", offset) for offset in (3, 3, 2, 4, 3)] == [True, False, False, True, False]
    assert (ledger.fresh, ledger.repeated, ledger.stale) == (2, 1, 2)


def test_members_are_independent() -> None:
    ledger = Ledger()
    assert ledger.admit("u", 9)
    assert ledger.admit("v", 1)


def test_a_repeated_list_counts_neither_as_a_list_nor_as_a_latency() -> None:
    observer = Observer(Settings())
    topic = observer.settings.recommendations_topic
    observer.note_sent("u-1", 1_000)
    observer.on_record(topic, recommendation("u", 1), 1_020.0)
    observer.on_record(topic, recommendation("u", 1, "b2"), 9_000.0)
    assert observer.recommendations.fresh == 1
    assert observer.latency.count == 1
    assert observer.latency.quantile_s(1.0) == pytest.approx(0.020, rel=0.011)
    assert observer.bundles_seen == {"b1": 1}


def test_a_play_sent_elsewhere_is_measured_by_the_message_itself() -> None:
    observer = Observer(Settings())
    observer.on_record(observer.settings.recommendations_topic, recommendation("u", 1, latency_s=0.25), 0.0)
    assert observer.latency.quantile_s(1.0) == pytest.approx(0.25, rel=0.011)


def test_dead_letters_late_plays_and_announcements_are_counted() -> None:
    observer = Observer(Settings())
    settings = observer.settings
    observer.on_record(settings.dead_letter_topic, b"anything", 0.0)
    observer.on_record(settings.late_topic, b"anything", 0.0)
    announced = Announcement(sequence=1, bundle="b1", url="x", created_at="1998-01-01T00:00:00.000Z")
    observer.on_record(settings.model_updates_topic, encode(announced), 0.0)
    observer.on_record(settings.model_updates_topic, None, 0.0)
    assert (observer.dead_lettered, observer.late) == (1, 1)
    assert [a.bundle for a in observer.announcements] == ["b1"]


def test_sent_times_are_bounded_and_taken_once() -> None:
    sent = SentTimes(limit=2)
    for number in range(3):
        sent.note(f"e{number}", number)
    assert [sent.take("e0"), sent.take("e1"), sent.take("e1"), sent.take("e2")] == [None, 1, None, 2]
