"""What freshness is worth: quality against how often weights are refreshed, and against how late plays arrive.

Both ask the plays of the streaming protocol, after its first part. Settings and epochs are chosen on its validation, once.

- **Refresh**: what is learned is learned never again, every day, every hour of event time, or every n plays. Live counts and
  online chains know every play all the same: they are what can be had without a trainer.
- **Lag**: of each member, the last n plays, or those of the last hour, have not arrived when the list is made. The items in them
  are neither known nor hidden. Plays of other members have arrived, unless the lag is one of time. Nothing is refreshed here.
  Asked are plays that have an earlier one whatever the lag.

Shapes: P plays of all members, N targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.popularity import DAY_S, WEEK_S
from intentrec_core.evaluation.model_ranks import ScoredByModel
from intentrec_core.evaluation.protocols import Protocol, streaming
from intentrec_core.evaluation.rankers import LIST_LENGTH, MarkovRanker, PopularityRanker, Ranked, Ranker, rank
from intentrec_core.evaluation.targets import Targets
from intentrec_core.evaluation.task import EvaluationData, Task, make_task
from intentrec_core.evaluation.tuning import last_plays
from tests.bench.quality.checks import last_model
from tests.bench.quality.data_sets import Loaded, Measured
from tests.bench.quality.neural import neural_rows
from tests.bench.quality.rows import COUNTING_CODE, Answers, Row
from tests.bench.quality.runs import PREFIX

HOUR_S = 3600.0
#: Refreshes by seconds of event time, or by plays; none: never.
REFRESHES: Mapping[str, tuple[float, str] | None] = {
    "refreshed never": None,
    "refreshed daily": (DAY_S, "s"),
    "refreshed hourly": (HOUR_S, "s"),
    "refreshed every 4,000 plays": (4_000, "plays"),
    "refreshed every 1,000 plays": (1_000, "plays"),
}
#: Plays of the member that have not arrived, or seconds of which no play has.
LAGS: Mapping[str, tuple[float, str]] = {
    "no lag": (0, "plays"),
    "lag of 1 play": (1, "plays"),
    "lag of 10 plays": (10, "plays"),
    "lag of 1 hour": (HOUR_S, "s"),
}
#: The share of the plays that are learned first, as in the streaming protocol of the same data.
FIRST_RATIO: Mapping[str, float] = {"world": 0.7, "movietweetings": 0.8}
#: The trained row whose freshness is asked, when it is run; hourly refreshes of it are left out: each is three epochs.
CHOSEN = "V3 with intents and own items in the score"
FRESHNESS_CODE = (*COUNTING_CODE, "tests/bench/quality/freshness.py")

MakeRanker = Callable[[Protocol], Ranker]


def freshness_protocols(measured: Measured, data: EvaluationData) -> Iterator[Protocol]:
    """Every refresh interval and every lag, where the data set is asked for its freshness."""
    if measured.name not in FIRST_RATIO:
        return
    base = streaming(data, refresh_plays=4_000, first_ratio=FIRST_RATIO[measured.name])
    for name, interval in REFRESHES.items():
        yield Protocol(f"{PREFIX}{name}", base.validation, _refreshed(base.test, interval))
    asked = _with_earlier_plays(_refreshed(base.test, None))
    for name in LAGS:
        yield Protocol(f"{PREFIX}{name}", base.validation, asked)


def freshness_rows() -> list[Row]:
    """Popularity with live counts and with those of the last refresh, a chain that is refreshed and one that is online, and the
    chosen trained row.
    """
    rows = []
    for name, window_s in (("1 day", DAY_S), ("7 days", WEEK_S)):
        live = _asks(lambda _, window_s=window_s: PopularityRanker(window_s))
        rows.append(_row(f"popular, {name}, live counts", live))
        rows.append(_row(f"popular, {name}, counts of the last refresh", live, is_stale=True))
    for name, online in (("as of the refresh", False), ("live", True)):
        tuned = _once(lambda protocol, online=online: last_plays(protocol.validation, online=online).best)
        rows.append(_row(f"Markov, last 5, {name}", _asks(tuned)))
    (chosen,) = (row for row in neural_rows() if row.name == CHOSEN)
    return [*rows, _trained(chosen)]


Answer = Callable[[Measured, Loaded, Protocol, int], Answers]


def _row(name: str, answer: Answer, *, is_stale: bool = False) -> Row:
    def stale(measured: Measured, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        known = dataclasses.replace(protocol, test=as_of_the_refresh(protocol.test))
        return answer(measured, loaded, known, seed)

    return Row(name, name, stale if is_stale else answer, FRESHNESS_CODE)


def _asks(make: MakeRanker) -> Answer:
    return lambda _measured, _loaded, protocol, _seed: Answers(ranked_late(make(protocol), protocol), "", {})


def _once(choose: Callable[[Protocol], MarkovRanker]) -> MakeRanker:
    """All protocols of a data set have one validation: what is chosen on it is chosen once in a sitting."""
    made: dict[bytes, MarkovRanker] = {}

    def make(protocol: Protocol) -> Ranker:
        targets = protocol.validation.targets
        asked = targets.play.tobytes() + targets.row.tobytes()
        if asked not in made:
            made[asked] = choose(protocol)
        return made[asked]

    return make


def _trained(row: Row) -> Row:
    """The trained row. With a lag, the model that answered without one is asked again."""
    models: dict[tuple[str, int], Ranker] = {}

    def answer(measured: Measured, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        if _lag(protocol) is None:
            return dataclasses.replace(row.answer(measured, loaded, protocol, seed), heads={})
        if (loaded.digest, seed) not in models:
            with last_model() as seen:
                row.answer(measured, loaded, protocol, seed)
            models[loaded.digest, seed] = ScoredByModel(seen[0], loaded.data.features)
        return Answers(ranked_late(models[loaded.digest, seed], protocol), "", {})

    hourly = f"{PREFIX}refreshed hourly"
    code = (*row.code, "tests/bench/quality/freshness.py")
    return dataclasses.replace(
        row,
        name=f"{row.name}, freshness",
        answer=answer,
        code=code,
        seeds=row.seeds[:1],
        protocols=lambda name: name != hourly,
    )


def _refreshed(task: Task, interval: tuple[float, str] | None) -> Task:
    """The task with other refreshes."""
    data, begin = task.data, int(task.learned.min())
    play, in_time = task.targets.play, np.sort(task.data.ts_s)
    learned = np.full(len(task), begin)
    if interval is not None and interval[1] == "plays":
        learned += (data.place[play] - begin) // int(interval[0]) * int(interval[0])
    elif interval is not None:
        since_s = data.ts_s[play] - in_time[begin]
        refreshed_s = in_time[begin] + np.floor(since_s / interval[0]) * interval[0]
        learned = np.maximum(begin, np.searchsorted(in_time, refreshed_s))
    return dataclasses.replace(task, learned=learned)


def as_of_the_refresh(task: Task) -> Task:
    """The task whose counts are those of the last refresh, at the time of the last play that was learned."""
    now_s = np.sort(task.data.ts_s)[task.learned - 1]
    known = np.minimum(task.learned, task.live)
    return dataclasses.replace(task, live=known, countable=known, now_s=np.minimum(now_s, task.now_s))


def _with_earlier_plays(task: Task) -> Task:
    """Of the targets, those that have an earlier play of their member whatever the lag."""
    kept = np.ones(len(task), dtype=np.bool_)
    begin = task.data.members.bounds[task.targets.member]
    for lag in LAGS.values():
        kept &= _until(task, lag) > begin
    which = np.flatnonzero(kept)
    return make_task(
        task.data,
        task.targets.play[which],
        learnable=task.learnable,
        learned=task.learned[which],
        live=task.live[which],
        now_s=task.now_s[which],
    )


def _until(task: Task, lag: tuple[float, str]) -> NDArray[np.int64]:
    """Where the plays that have arrived of each target's member end. Shape: i64[N]."""
    play = task.targets.play
    if lag[1] == "plays":
        return play - int(lag[0])
    ts_s, bounds, member = task.data.ts_s, task.data.members.bounds, task.targets.member
    ends = [
        begin + np.searchsorted(ts_s[begin:at], ts_s[at] - lag[0], side="right")
        for begin, at in zip(bounds[member].tolist(), play.tolist(), strict=True)
    ]
    return np.minimum(np.array(ends, dtype=np.int64), play)


@dataclass(frozen=True, slots=True)
class LateTargets(Targets):
    """Targets of which ``play`` is the first play that has not arrived, and ``asked`` i64[N] the item row that is asked for."""

    asked: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def row(self) -> NDArray[np.int64]:
        """Item rows of the targets."""
        return self.asked


def ranked_late(ranker: Ranker, protocol: Protocol) -> Ranked:
    """What a ranker gives for the test when plays arrive as late as the protocol says."""
    task, lag = protocol.test, _lag(protocol)
    if lag is None or not lag[0]:
        return rank(ranker, task)
    ranks, listed = np.full(len(task), np.nan), np.zeros((len(task), LIST_LENGTH), dtype=np.int64)
    for which, part in late_parts(task, lag):
        found = rank(ranker, part)
        ranks[which], listed[which] = found.ranks, found.listed
    return Ranked(ranks, listed)


def late_parts(task: Task, lag: tuple[float, str]) -> Iterator[tuple[NDArray[np.int64], Task]]:
    """The targets as tasks, in each of which no two end at one play, and their places i64[n] among all targets."""
    until, in_time = _until(task, lag), np.sort(task.data.ts_s)
    live = task.live
    if lag[1] == "s":
        live = np.minimum(live, np.searchsorted(in_time, task.now_s - lag[0], side="right"))
    first = np.searchsorted(until, until)  # ascending: plays are
    nth = np.arange(len(until)) - first
    for number in range(int(nth.max(initial=-1)) + 1):
        which = np.flatnonzero(nth == number)
        part = make_task(
            task.data,
            until[which],
            learnable=task.learnable,
            learned=np.minimum(task.learned, live)[which],
            live=live[which],
            now_s=task.now_s[which],
        )
        plain = {name: getattr(part.targets, name) for name in Targets.__slots__}
        yield which, dataclasses.replace(part, targets=LateTargets(**plain, asked=task.targets.row[which]))


def _lag(protocol: Protocol) -> tuple[float, str] | None:
    return LAGS.get(protocol.name.removeprefix(PREFIX))
