"""The picture of the demo: it loads nothing, and shows the better of two moments."""

from __future__ import annotations

import re
from dataclasses import replace

from stream.demo.console.snapshot import DemoPhase, DemoSnapshot, Head, Member, Weights
from stream.demo.picture import draw, is_better

MEMBER = Member(
    user_id="u7",
    num_plays=4,
    last_title="Fargo (1996)",
    recommended=0,
    intent="genre Crime",
    shifted=False,
    heads=(Head(name="genre", weight=1.0, labels=(("Crime", 0.6), ("Drama", 0.2)), primary=True),),
    titles=("Pulp Fiction (1994)", "Trainspotting (1996)"),
)
VIEW = DemoSnapshot(title="a run", members=(MEMBER,))


def test_the_picture_shows_the_screen_and_loads_nothing() -> None:
    svg = draw(VIEW)
    assert "Fargo" in svg
    assert "Trainspotting" in svg
    assert set(re.findall(r"https?://[^\s\"'<]+", svg)) == {"http://www.w3.org/2000/svg"}
    assert "@font-face" not in svg
    assert svg == draw(VIEW)


def test_the_last_moment_after_a_swap_at_which_a_list_was_followed_is_shown() -> None:
    swapped = replace(VIEW, weights=Weights(version="b1", num_swapped=1))
    followed = replace(swapped, members=(replace(MEMBER, recommended=3),))
    assert is_better(VIEW, None)
    assert is_better(swapped, VIEW)
    assert is_better(followed, swapped)
    assert is_better(followed, followed)
    assert not is_better(swapped, followed)
    assert not is_better(replace(followed, phase=DemoPhase.DONE), VIEW)
