"""A task: plays to predict, and what a ranker may know at each of them. A protocol makes tasks, a ranker answers them.

What a ranker may know is a number of plays, in the order of time:

- ``learned``: those that weights and transitions were learned from. In production the time of the last refresh decides.
- ``live``: those that had happened when the list was made. Counts of plays in the last days use them.
- ``countable``: those that counts of all time and chains that learn at once use. It is ``live``; only in leave-one-out, where
  everything that is learned may be later than a target, it is ``learned``.

The member's own history is always what it played before the target.

Shapes: P plays of all members, N targets, V item rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.evaluation.targets import Targets, make_targets
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.windows import Windows, windows_of


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """Plays of all members, the rows of their items, and the universe: the items that every ranker ranks.

    ``place`` i64[P]: each play's place in time among all plays; plays of one time keep the order that they were given in.
    ``row`` i64[P]: item rows. ``universe`` bool[V]. ``hides_history``: whether items that the member has played are hidden
    (None: as the domain declares). The whole history is hidden then, not only the plays that a worker remembers.
    """

    members: MemberPlays
    features: FeatureBuilder
    place: NDArray[np.int64]
    row: NDArray[np.int64]
    universe: NDArray[np.bool_]
    hides_history: bool | None

    @classmethod
    def of(
        cls,
        members: MemberPlays,
        features: FeatureBuilder,
        universe: NDArray[np.bool_],
        *,
        hides_history: bool | None = None,
    ) -> EvaluationData:
        """From packed plays."""
        place = np.empty(len(members.order), dtype=np.int64)
        place[np.argsort(members.order, kind="stable")] = np.arange(len(place))
        rows = features.rows(members.events["item_hash"])
        return cls(members, features, place, rows, universe, hides_history)

    @property
    def ts_s(self) -> NDArray[np.float64]:
        """Event time of each play, in seconds. Shape: f64[P]."""
        return self.members.events["ts_ms"] / 1000.0


@dataclass(frozen=True, slots=True)
class Task:
    """Plays to predict.

    ``learnable`` bool[P]: plays that may be learned at all (leave-one-out holds back each member's last ones).
    ``learned``, ``live`` and ``countable`` i64[N]: how many plays, in the order of time, are known at each target, see the
    module.
    ``now_s`` f64[N]: the time at which the list was made, in seconds.
    """

    data: EvaluationData
    targets: Targets
    windows: Windows
    learnable: NDArray[np.bool_]
    learned: NDArray[np.int64]
    live: NDArray[np.int64]
    countable: NDArray[np.int64]
    now_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.targets)

    def is_new_member(self) -> NDArray[np.bool_]:
        """Targets whose member has no play that was learned. Shape: bool[N]."""
        return (
            self._first_learned(self.data.members.member, len(self.data.members))[self.targets.member] >= self.learned
        )

    def is_new_item(self) -> NDArray[np.bool_]:
        """Targets whose item was played in nothing that was learned. Shape: bool[N]."""
        return self._first_learned(self.data.row, len(self.data.universe))[self.targets.row] >= self.learned

    def _first_learned(self, of: NDArray[np.int64], num: int) -> NDArray[np.int64]:
        first = np.full(num, np.iinfo(np.int64).max)
        np.minimum.at(first, of[self.learnable], self.data.place[self.learnable])
        return first


def make_task(
    data: EvaluationData,
    play: NDArray[np.int64],
    *,
    learnable: NDArray[np.bool_],
    learned: NDArray[np.int64],
    live: NDArray[np.int64],
    now_s: NDArray[np.float64],
    countable: NDArray[np.int64] | None = None,
) -> Task:
    """The task of predicting ``play``: ascending indices into the members' plays, none a member's first.

    Without ``countable``, it is ``live``.
    """
    windows = windows_of(data.members, play)
    targets = make_targets(
        data.members, windows, data.row, data.universe, filter_watched=data.hides_history, whole_history=True
    )
    return Task(data, targets, windows, learnable, learned, live, live if countable is None else countable, now_s)
