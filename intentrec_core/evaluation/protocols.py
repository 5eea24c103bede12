"""The protocols: which plays are predicted, and what is known at each.

    temporal          learns what is before one moment, is asked for all plays after it; validation is the time before the test
    leave_one_out     is asked for each member's last play, validates on the last but one: the protocol of published tables
    streaming         is asked for every play before it is learned; weights are refreshed every n plays, as production does

Every setting, grid point and epoch is chosen on ``validation``. ``test`` is asked once, by what was then learned anew from
everything before it (leave-one-out, as published: from the same plays as for validation).

Shapes: P plays of all members, N targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.errors import DataError
from intentrec_core.evaluation.task import EvaluationData, Task, make_task


@dataclass(frozen=True, slots=True)
class Protocol:
    """The validation task and the test task of one protocol."""

    name: str
    validation: Task
    test: Task


def temporal(
    data: EvaluationData, *, test_ratio: float = 0.2, validation_ratio: float = 0.1, knows_time: bool = True
) -> Protocol:
    """One global split in time: of all plays, the last ``test_ratio`` are the test, and of the rest the last
    ``validation_ratio`` are the validation. Plays of one millisecond are never split.

    ``knows_time``: counts stand as of the target's own time; otherwise as of the member's play before it, which is when a
    worker makes the list.

    Raises: DataError when a part would have no play to predict.
    """
    until = len(data.place)
    cut = _whole_moments(data, int(until * (1 - test_ratio)))
    middle = _whole_moments(data, int(cut * (1 - validation_ratio)))
    name = f"temporal, last {test_ratio:.0%}" + ("" if knows_time else ", target's time unknown")
    spans = [_span(data, a, b, refresh_plays=None, knows_time=knows_time) for a, b in ((middle, cut), (cut, until))]
    return Protocol(name, *spans)


def streaming(
    data: EvaluationData,
    *,
    refresh_plays: int,
    first_ratio: float = 0.5,
    validation_ratio: float = 0.1,
    knows_time: bool = True,
) -> Protocol:
    """Every play after the first ``first_ratio`` is predicted before it is learned. What learns by refreshes has learned
    everything up to the last multiple of ``refresh_plays`` plays.

    The validation is the last ``validation_ratio`` of the plays before, asked in the same way.

    Raises: DataError when a part would have no play to predict.
    """
    until = len(data.place)
    cut = _whole_moments(data, int(until * first_ratio))
    middle = _whole_moments(data, int(cut * (1 - validation_ratio)))
    name = f"streaming, refresh every {refresh_plays:,} plays" + ("" if knows_time else ", target's time unknown")
    spans = [
        _span(data, a, b, refresh_plays=refresh_plays, knows_time=knows_time) for a, b in ((middle, cut), (cut, until))
    ]
    return Protocol(name, *spans)


def leave_one_out(data: EvaluationData) -> Protocol:
    """Each member's last play is the test, the last but one the validation, everything else is learned: of members with three
    plays or more. Plays of one time keep the order that they were given in.

    What is learned contains plays of others that are later than a target, as in the published tables; popularity of the last
    days counts only plays that were before the target.

    Raises: DataError when no member has three plays.
    """
    bounds = data.members.bounds
    last = (bounds[1:] - 1)[np.diff(bounds) >= 3]
    if not len(last):
        raise DataError("no member has three plays: leave-one-out holds two of each back")
    learnable = np.ones(len(data.place), dtype=np.bool_)
    learnable[last] = learnable[last - 1] = False
    ts_s = data.ts_s
    in_time = np.sort(ts_s)

    def task(play: NDArray[np.int64]) -> Task:
        everything = np.full(len(play), len(data.place))
        before = np.searchsorted(in_time, ts_s[play])
        return make_task(
            data, play, learnable=learnable, learned=everything, live=before, countable=everything, now_s=ts_s[play]
        )

    return Protocol("leave-one-out", task(last - 1), task(last))


def _whole_moments(data: EvaluationData, place: int) -> int:
    """The first place whose play has the event time of the play at ``place``."""
    in_time = np.sort(data.ts_s)
    return int(np.searchsorted(in_time, in_time[min(place, len(in_time) - 1)]))


def _span(data: EvaluationData, begin: int, end: int, *, refresh_plays: int | None, knows_time: bool) -> Task:
    """The task of the plays at the places [begin, end) in time that have an earlier play of their member."""
    wanted = (data.place >= begin) & (data.place < end)
    wanted[data.members.bounds[:-1]] = False
    play = np.flatnonzero(wanted)
    if begin < 1 or not len(play):
        raise DataError(
            f"no play of the {end - begin:,} at places {begin:,} to {end:,} in time has something to be learned from, and an "
            "earlier play of its member: use more plays, or another split"
        )
    place, ts_s = data.place[play], data.ts_s
    learned = np.full(len(play), begin)
    if refresh_plays is not None:
        learned += (place - begin) // refresh_plays * refresh_plays
    live, now_s = (place, ts_s[play]) if knows_time else (data.place[play - 1] + 1, ts_s[play - 1])
    return make_task(
        data, play, learnable=np.ones(len(data.place), dtype=np.bool_), learned=learned, live=live, now_s=now_s
    )
