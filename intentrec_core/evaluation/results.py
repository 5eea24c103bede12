"""The results of an evaluation as plain values: what ``intentrec eval`` prints, writes as JSON, and draws in its report.

``Evaluation.to_dict`` is the JSON that docs/evaluation.md describes: a name in it changes only with :data:`FORMAT`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from intentrec_core.evaluation.metrics import Interval

#: Raised when a name of the JSON is taken away or means something else.
FORMAT = 1
#: The metric that every choice is made by.
MAIN = "ndcg@10"


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval over members; None for a bound that there is not, and for a value that is not finite."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: Interval) -> Figure:
        """From a bootstrap interval."""
        return cls(finite(found.estimate), finite(found.low), finite(found.high))


def finite(value: float) -> float | None:
    """The value, or None where it is no finite number: JSON has no others."""
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Above:
    """How far IntentRec's mean of a metric is above that of another row (0.1 means 10 %), with the same members resampled for
    both. ``p``: how likely a difference at least this large is where there is none, two-sided.
    """

    by: Figure
    p: float


@dataclass(frozen=True, slots=True)
class EpochPoint:
    """An epoch of the run on which the epoch was chosen. ``loss``: mean over its steps; ``value``: NDCG@10 on the validation."""

    epoch: int
    loss: float
    value: float | None


@dataclass(frozen=True, slots=True)
class SeedRun:
    """What one seed gave. ``metrics``: the means over plays, by name. ``epochs``: how many the model that answered the test was
    trained for; None for what is not trained. ``curve``: the run that the choice was made on; empty without a validation.
    """

    seed: int
    metrics: Mapping[str, float | None]
    epochs: int | None
    curve: tuple[EpochPoint, ...]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Plays whose predicted label had a probability within one of 15 equal bins: how many, the mean of that probability, and the
    share of them whose label was right.
    """

    plays: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class HeadResult:
    """Figures of one intent over the plays whose label is known (:class:`~intentrec_core.evaluation.heads.HeadQuality`), as
    means over seeds; ``bins`` and ``plays`` are those of the first seed. ``has_several_labels``: a play can have more than one,
    and the head is right with any of them; its probabilities are those of one label, so they are lower than how often it is
    right.
    """

    name: str
    plays: int
    has_several_labels: bool
    accuracy: float | None
    macro_f1: float | None
    ece: float | None
    skill: float | None
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class RowResult:
    """Results of one ranker.

    ``kind``: "ours", "trained" (another model, with the same budget) or "counts" (popularity and Markov chains).
    ``metrics``: by name (docs/evaluation.md); a metric that applies to no play is not there.
    ``above``: how far IntentRec is above this row, by metric; empty for IntentRec.
    ``choice``: what was chosen on the validation, in words; empty where nothing is chosen.
    """

    name: str
    kind: str
    metrics: Mapping[str, Figure]
    above: Mapping[str, Above]
    choice: str
    seeds: tuple[SeedRun, ...]
    heads: tuple[HeadResult, ...]


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """Which plays were asked. Times in milliseconds since 1970; the last one is that of the newest play asked."""

    plays: int
    members: int
    plays_of_new_members: int
    plays_of_new_items: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What was measured on. ``digest``: a hash of every value of plays and catalogue."""

    title: str
    domain: str
    digest: str
    plays: int
    members: int
    items: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A whole evaluation. The first row is IntentRec.

    ``validation``: None where nothing was chosen. ``items_ranked``: the size of the universe. ``hides_played``: whether the items
    that a member has played are hidden; their score is −∞ then. ``knows_time``: whether counts stand as of the target's own
    time, and not of the member's play before it.
    """

    data: DataFacts
    protocol: str
    validation: TaskFacts | None
    test: TaskFacts
    items_ranked: int
    hides_played: bool
    knows_time: bool
    rows: tuple[RowResult, ...]

    def row(self, name: str) -> RowResult:
        """The results of the ranker with this name.

        Raises: KeyError when there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def universe(self) -> str:
        """What every row ranks, in words."""
        return f"all {self.items_ranked:,} items that are played in the data set, at whatever time"

    @property
    def masking(self) -> str:
        """What is hidden from every list, in words."""
        return (
            "every item that the member has played before is hidden: its score is −∞"
            if self.hides_played
            else "nothing is hidden: members play items again"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: no NaN and no infinity among them."""
        return {"format": FORMAT, "universe": self.universe, "masking": self.masking} | asdict(self)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How quality falls as weights or events get older: NDCG@10 of each series at the same places, such as refresh intervals,
    freshest first. None where one was not measured.
    """

    title: str
    places: tuple[str, ...]
    series: tuple[tuple[str, tuple[Figure, ...]], ...]
