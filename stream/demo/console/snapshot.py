"""The data of the live view at one moment, frozen: the screen is a pure function of it.

This module imports neither Kafka, metrics nor rich, so tests can draw any situation without running a demo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class DemoPhase(StrEnum):
    """The phase of a demo run."""

    REPLAYING = "replaying"
    DRAINING = "draining"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Head:
    """One intent head of a member: its weight among the heads, and its likeliest labels, in order."""

    name: str
    weight: float
    labels: tuple[tuple[str, float], ...]
    primary: bool = False


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member after their newest play.

    ``recommended``: the rank of the played item in the previous recommendation, from 1; 0 if it was absent; None if there was no
    recommendation yet. ``quiet_s``: seconds since the member's last change.
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
    """The worker's running quality over all predicted plays, beside the baselines 'popular in the last 7 days' and
    'what follows the last plays' (a Markov chain that learns as plays arrive).

    ``intents`` by head: the accuracy, and the accuracy of always predicting the head's most common label (None: not measured).
    """

    num_judged: int = 0
    hr_at_10: float | None = None
    hr_at_10_popular: float | None = None
    hr_at_10_markov: float | None = None
    mrr: float | None = None
    intents: dict[str, tuple[float, float | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ServedBundle:
    """One bundle and its quality over the plays it answered."""

    version: str
    num_judged: int
    hr_at_10: float | None
    hr_at_10_popular: float | None
    hr_at_10_markov: float | None


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The serving bundle, its age, and the swaps so far."""

    version: str = ""
    age_s: float = 0.0
    num_published: int = 0
    num_swapped: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    served: tuple[ServedBundle, ...] = ()
    trainer: str = ""


@dataclass(frozen=True, kw_only=True)
class DemoSnapshot:
    """Everything on the screen. Units: seconds, plays per second. ``event_time``: that of the newest play, as text."""

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
