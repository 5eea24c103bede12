"""Chooses settings on a validation task, and says how much the choice matters: the mean and the spread of all that was tried.

The best of many points is partly luck. The mean beside the best shows how much of a lead is due to tuning. A
choice at the edge of what was tried is named too: a better one may lie beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from intentrec_core.baselines.markov import MarkovSettings
from intentrec_core.baselines.popularity import DAY_S
from intentrec_core.evaluation.metrics import gains
from intentrec_core.evaluation.rankers import MarkovRanker, Ranker, ranks_alone
from intentrec_core.evaluation.task import Task

AnyRanker = TypeVar("AnyRanker", bound=Ranker)


@dataclass(frozen=True, slots=True)
class Axis:
    """A setting and the values that are tried, ascending. ``start``: where the search begins. ``ends``: values beyond which
    there are none, so that they are no edge.
    """

    name: str
    values: tuple[float, ...]
    start: float
    ends: tuple[float, ...] = ()

    def is_edge(self, value: float) -> bool:
        """Whether a better value may lie beyond this one."""
        return len(self.values) > 1 and value in (self.values[0], self.values[-1]) and value not in self.ends


@dataclass(frozen=True, slots=True)
class Tuned(Generic[AnyRanker]):
    """The best by NDCG@10 on the validation task, with that value, the mean and standard deviation of all points that were tried,
    and the settings whose choice lies at an edge.
    """

    best: AnyRanker
    value: float
    mean: float
    spread: float
    num_points: int
    at_edge: tuple[str, ...]

    def line(self) -> str:
        """The choice in words."""
        edge = f", at the edge: {', '.join(self.at_edge)}" if self.at_edge else ""
        return (
            f"NDCG@10 on validation {self.value:.4f}, best of {self.num_points} (mean {self.mean:.4f}, "
            f"spread {self.spread:.4f}{edge}): {self.best}"
        )


def tune(make: Callable[[Mapping[str, float]], AnyRanker], axes: Sequence[Axis], validation: Task) -> Tuned[AnyRanker]:
    """Tries every value of one setting after another, the others as they are best so far, until a whole round changes nothing.
    Of equally good points, the first that was tried is taken.

    Raises: ValueError without a setting.
    """
    if not axes:
        raise ValueError("there is no setting to choose: give at least one")
    found: dict[tuple[float, ...], float] = {}

    def value(point: tuple[float, ...]) -> float:
        if point not in found:
            named = dict(zip((axis.name for axis in axes), point, strict=True))
            found[point] = float(gains(ranks_alone(make(named), validation)).mean())
        return found[point]

    best, before = tuple(axis.start for axis in axes), None
    value(best)
    while best != before:
        before = best
        for number, axis in enumerate(axes):
            points = [(*best[:number], tried, *best[number + 1 :]) for tried in axis.values]
            best = max((best, *points), key=value)
    values = list(found.values())
    return Tuned(
        make(dict(zip((axis.name for axis in axes), best, strict=True))),
        found[best],
        float(np.mean(values)),
        float(np.std(values)),
        len(found),
        tuple(axis.name for axis, chosen in zip(axes, best, strict=True) if axis.is_edge(chosen)),
    )


#: Settings of :class:`~intentrec_core.baselines.markov.MarkovSettings`: first those of every chain.
_EVERY_CHAIN = (
    Axis("backoff_window_s", (DAY_S, 2 * DAY_S, 7 * DAY_S, 30 * DAY_S, math.inf), 7 * DAY_S, (math.inf,)),
    Axis("backoff", (0.001, 0.01, 0.1, 1.0, 10.0, 100.0), 0.1),
    Axis("shrinkage", (0.1, 1.0, 10.0, 100.0, 1000.0), 10.0),
)


def first_order(validation: Task, *, online: bool) -> Tuned[MarkovRanker]:
    """The best first-order chain."""
    return tune(lambda point: _chain(1, point, online=online), _EVERY_CHAIN, validation)


def last_plays(validation: Task, *, online: bool, lags: int = 5) -> Tuned[MarkovRanker]:
    """The best chain over the last plays: it looks at neighbours, or at pairs of plays up to ``lags`` apart."""
    decay = Axis("decay", (0.2, 0.4, 0.6, 0.85, 1.0), 0.85, (1.0,))
    spread = Axis("spread", (1, lags), 1, (1, lags))
    return tune(lambda point: _chain(lags, point, online=online), (*_EVERY_CHAIN, decay, spread), validation)


def _chain(lags: int, point: Mapping[str, float], *, online: bool) -> MarkovRanker:
    settings = MarkovSettings(
        lags=lags,
        decay=point.get("decay", 1.0),
        shrinkage=point["shrinkage"],
        backoff=point["backoff"],
        spread=int(point.get("spread", 1)),
        backoff_window_s=point["backoff_window_s"],
    )
    return MarkovRanker(settings, online)
