"""The live view is a pure function of a snapshot: it fits every terminal and shows everything in the snapshot."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from stream.demo.console.bars import bar, duration, milliseconds, ratio, shortened, sparkline
from stream.demo.console.screen import Screen
from stream.demo.console.snapshot import DemoPhase, DemoSnapshot, Head, LiveQuality, Member, ServedBundle, Weights
from stream.demo.console.spotlight import QUIET_S, STAY_S, Spotlight
from stream.wire.messages import IntentUpdate, PrimaryIntent, Recommendation, RecommendedItem, Source


def drawn(view: DemoSnapshot, width: int = 110, height: int = 44) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(Screen(view))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def member(user: str, recommended: int | None = None) -> Member:
    heads = (
        Head(name="genre", weight=0.5, labels=(("Drama", 0.41), ("Comedy", 0.2), ("War", 0.1)), primary=True),
        Head(name="era", weight=0.3, labels=(("1995", 0.6),)),
        Head(name="rating", weight=0.2, labels=(("4", 0.7),)),
    )
    return Member(
        user_id=user,
        num_plays=12,
        last_title="Fargo (1996)",
        recommended=recommended,
        intent="genre Drama",
        shifted=False,
        heads=heads,
        titles=("Sling Blade (1996)", "Secrets & Lies (1996)", "Twelve Monkeys (1995)"),
    )


FULL = DemoSnapshot(
    title="IntentRec",
    elapsed_s=65,
    planned_s=120,
    plays_planned=30_000,
    plays_sent=12_345,
    plays_applied=12_340,
    plays_per_s=251.0,
    rates=(200.0, 250.0),
    event_time="14 Feb 1998",
    p50_s=0.0123,
    p99_s=0.0456,
    recommendations=12_339,
    duplicates=3,
    dead_lettered=2,
    quality=LiveQuality(
        num_judged=11_000,
        hr_at_10=0.112,
        hr_at_10_popular=0.049,
        hr_at_10_markov=0.081,
        intents={"genre": (0.52, 0.45), "era": (0.3, None)},
    ),
    weights=Weights(
        version="b0123456789ab",
        age_s=13,
        num_published=3,
        num_swapped=2,
        refused={"checksum": 1},
        served=(
            ServedBundle(
                version="b0123456789ab", num_judged=500, hr_at_10=0.124, hr_at_10_popular=0.047, hr_at_10_markov=0.078
            ),
        ),
        trainer="trainer: 9,000 plays logged",
    ),
    members=(member("405", 3), member("406"), member("407", 0)),
)


def test_the_numbers_of_a_snapshot_are_on_the_screen() -> None:
    text = drawn(FULL)
    for shown in (
        "251",
        "12 ms",
        "46 ms",
        "12,345 / 12,340",
        "14 Feb 1998",
        "1:05 of 2:00",
        "2 dead letters",
        "3 duplicates",
    ):
        assert shown in text
    for shown in (
        ".112",
        ".049",
        ".520",
        ".450",
        "b0123456789ab",
        "13 s old",
        "3 published · 2 swapped in",
        "1 refused: checksum",
    ):
        assert shown in text
    for shown in ("member 405", "was recommended as no. 3", "Drama", "41%", "Sling Blade (1996)", "wants genre Drama"):
        assert shown in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (110, 44), (200, 60)])
def test_the_screen_fits_the_terminal(width: int, height: int) -> None:
    lines = drawn(FULL, width, height).rstrip("\n").split("\n")
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width


def test_a_small_terminal_shows_fewer_members_rather_than_cut_ones() -> None:
    text = drawn(FULL, 80, 24)
    assert "member 405" in text
    assert "member 407" not in text
    assert text.count("╭") == text.count("╰")


def test_an_empty_beginning_draws_too() -> None:
    text = drawn(DemoSnapshot(title="IntentRec"))
    assert "waiting for the worker" in text
    assert "none yet" in text


def test_the_phase_is_shown() -> None:
    assert "waiting for the last recommendations" in drawn(DemoSnapshot(title="x", phase=DemoPhase.DRAINING))


def test_markup_in_a_title_is_shown_as_it_is() -> None:
    view = DemoSnapshot(title="x", members=(Member(
        user_id="[red]u[/red]", num_plays=1, last_title="[bold]T[/bold]", recommended=None, intent="", shifted=False,
        heads=FULL.members[0].heads, titles=("[/x] broken",),
    ),))  # fmt: skip
    text = drawn(view)
    assert "[red]u[/red]" in text
    assert "[/x] broken" in text


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "    "), (0.5, "██  "), (1.0, "████"), (2.0, "████"), (0.03125, "▏   ")]
)
def test_a_bar_fills_its_share_and_keeps_its_width(share: float, text: str) -> None:
    assert bar(share, 4) == text


def test_numbers_for_people() -> None:
    assert [milliseconds(s) for s in (None, 0.0012, 0.0123, 1.23)] == ["–", "1.2 ms", "12 ms", "1.2 s"]
    assert [ratio(r) for r in (None, 0.1124, 1.0)] == ["–", ".112", "1.00"]
    assert [duration(s) for s in (8.9, 65, 7390)] == ["8 s", "1:05", "2:03:10"]
    assert shortened("Fargo (1996)", 8) == "Fargo (…"
    assert sparkline([0, 1, 2], 4) == " ▁▄█"
    assert sparkline([], 3) == "   "


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def outputs(user: str, item: str = "next") -> tuple[Recommendation, IntentUpdate]:
    about = {
        "user_id": user,
        "session_id": "s",
        "event_id": "e",
        "event_time": "t",
        "bundle": "b",
        "source": Source("plays", 0, 1),
    }
    listed = Recommendation(**about, items=[RecommendedItem(item, item.title(), 1.0)])
    intents = IntentUpdate(
        **about,
        session_opened=False,
        intents={"genre": {"Drama": 0.6, "War": 0.4}},
        weights={"genre": 1.0},
        primary=PrimaryIntent("genre", "Drama", 0.6),
        shifted=True,
    )
    return listed, intents


def act(spotlight: Spotlight, user: str, item: str = "next", plays: int = 3) -> None:
    for _ in range(plays):
        spotlight.on_play(user, item)
    listed, intents = outputs(user)
    spotlight.on_recommendation(listed)
    spotlight.on_intent(intents)


def test_a_member_is_shown_with_intents_titles_and_whether_the_play_was_recommended() -> None:
    spotlight = Spotlight(1, {"next": "Fargo (1996)"}, Clock())
    act(spotlight, "u")
    spotlight.on_play("u", "next")
    (shown,) = spotlight.members()
    assert (shown.user_id, shown.num_plays, shown.last_title, shown.recommended) == ("u", 4, "Fargo (1996)", 1)
    assert shown.heads[0].labels == (("Drama", 0.6), ("War", 0.4))
    assert shown.heads[0].primary
    assert shown.intent == "genre Drama"


def test_a_place_is_kept_while_its_member_plays_and_given_on_when_quiet() -> None:
    clock = Clock()
    spotlight = Spotlight(1, {}, clock)
    act(spotlight, "first")
    assert [m.user_id for m in spotlight.members()] == ["first"]
    act(spotlight, "second")
    assert [m.user_id for m in spotlight.members()] == ["first"], "not before it could be read"
    clock.now_s = STAY_S + QUIET_S + 1
    act(spotlight, "third")
    assert [m.user_id for m in spotlight.members()] == ["third"]


def test_members_without_intents_are_not_shown() -> None:
    spotlight = Spotlight(2, {}, Clock())
    for _ in range(9):
        spotlight.on_play("u", "x")
    assert spotlight.members() == ()


def test_memory_is_bounded_and_shown_members_are_never_forgotten() -> None:
    spotlight = Spotlight(1, {}, Clock())
    act(spotlight, "shown")
    assert spotlight.members()
    for number in range(5_000):
        spotlight.on_play(f"u{number}", "x")
    assert len(spotlight._seen) <= 2_000
    assert spotlight.members()[0].user_id == "shown"
