"""What the live view shows at one moment, as plain frozen data: the screen is a pure function of it.

Nothing here knows Kafka, metrics or rich, so a picture of any situation can be drawn without running anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class DemoPhase(StrEnum):
    """Where the demo is."""

    REPLAYING = "replaying"
    DRAINING = "draining"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Head:
    """One intent head of a member: its weight among the heads, and its most likely labels, likeliest first."""

    name: str
    weight: float
    labels: tuple[tuple[str, float], ...]
    primary: bool = False


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member as of their newest play.

    ``recommended``: whether that play stood on the list shown before it (place from 1, 0: it did not, None: first list).
    """

    user_id: str
    num_plays: int
    last_title: str
    recommended: int | None
    intent: str
    shifted: bool
    heads: tuple[Head, ...]
    titles: tuple[str, ...]
    quiet_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LiveQuality:
    """The worker's running figures over all plays that were predicted: ours beside 'popular in the last 7 days'.

    ``intents`` by head: accuracy, and that of always saying the head's currently commonest label (None: not measured).
    """

    num_judged: int = 0
    hr_at_10: float | None = None
    hr_at_10_popular: float | None = None
    mrr: float | None = None
    intents: dict[str, tuple[float, float | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ServedBundle:
    """One bundle and what came of the plays it answered."""

    version: str
    num_judged: int
    hr_at_10: float | None
    hr_at_10_popular: float | None


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The bundle that serves, its age, and the refreshing of it."""

    version: str = ""
    age_s: float = 0.0
    num_published: int = 0
    num_swapped: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    served: tuple[ServedBundle, ...] = ()
    trainer: str = ""


@dataclass(frozen=True, kw_only=True)
class DemoSnapshot:
    """Everything on the screen. Units: seconds, plays per second; ``event_time`` is the newest play's, as text."""

    title: str
    phase: DemoPhase = DemoPhase.REPLAYING
    elapsed_s: float = 0.0
    planned_s: float | None = None
    plays_planned: int | None = None
    plays_sent: int = 0
    plays_applied: int = 0
    plays_per_s: float = 0.0
    rates: tuple[float, ...] = ()
    event_time: str = ""
    p50_s: float | None = None
    p99_s: float | None = None
    recommendations: int = 0
    intents: int = 0
    dead_lettered: int = 0
    duplicates: int = 0
    quality: LiveQuality = field(default_factory=LiveQuality)
    weights: Weights = field(default_factory=Weights)
    members: tuple[Member, ...] = ()
