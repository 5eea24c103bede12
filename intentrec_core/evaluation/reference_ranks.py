"""Ranks of the reference rankers, on the same targets and with the same filter.

The references see the plays in event-time order and, at each target, all earlier plays: popularity is counted over a
sliding window, test plays included, as in service. The transitions of the Markov chain come from the training plays
only, as the model's weights do.

Shapes: N targets, V item rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.baselines.popularity import WEEK_S, PopularWindow
from intentrec_core.evaluation.targets import Targets

MAX_SCORES = 1 << 22

Scorer = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]]
"""Scores every row from a member's last rows (oldest first) and the counts of the window: i64[any], f32[V] -> f32[V]."""


def rank_in_time(
    targets: Targets, scorers: list[Scorer], *, lags: int, window_s: float = WEEK_S
) -> list[NDArray[np.float64]]:
    """Ranks all targets with each scorer, in one pass through time.

    Shapes: one f64[N] per scorer.
    Cost: O(V) per target and scorer.
    """
    members, num_rows = targets.members, len(targets.candidate)
    ranks = [np.full(len(targets), np.inf) for _ in scorers]
    if not len(targets):
        return ranks
    in_time = np.argsort(members.order)
    time_s = members.events["ts_ms"][in_time] / 1000.0
    row = targets.all_rows[in_time]
    waiting = targets.play[np.argsort(members.order[targets.play])]
    number = np.empty(len(members.events), dtype=np.int64)
    number[targets.play] = np.arange(len(targets))
    place = np.empty(len(members.events), dtype=np.int64)
    place[in_time] = np.arange(len(in_time))
    popular = PopularWindow(window_s, num_rows)
    seen = int(np.searchsorted(time_s, time_s[place[waiting[0]]] - window_s))
    chunk = max(1, MAX_SCORES // num_rows)
    for low in range(0, len(waiting), chunk):
        plays = waiting[low : low + chunk]
        scores = np.empty((len(scorers), len(plays), num_rows), dtype=np.float32)
        for i, play in enumerate(plays.tolist()):
            for now in range(seen, place[play]):
                popular.add(int(row[now]), float(time_s[now]))
            seen = max(seen, int(place[play]))
            popular.advance(float(time_s[place[play]]))
            counts = popular.counts(num_rows)
            last = targets.all_rows[max(int(members.bounds[members.member[play]]), play - lags) : play]
            for s, scorer in enumerate(scorers):
                scores[s, i] = scorer(last, counts)
        for s in range(len(scorers)):
            ranks[s][number[plays]] = targets.ranks(number[plays], torch.from_numpy(scores[s]))
    return ranks
