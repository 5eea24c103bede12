"""The rows of the oracle: the simulated process's own distribution of the next play, by
:mod:`tests.bench.quality.forward_filter`.

It is the ceiling of every row: asked as they are, of the same plays, with the same history. What it says of the next play's
hidden intent stands beside the model's heads, and is the ceiling of a linear probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.evaluation.heads import HeadOutcomes
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import ScoredTargets, rank
from intentrec_core.evaluation.task import Task
from intentrec_core.simulation.script import Move
from tests.bench.quality.data_sets import Loaded, Measured
from tests.bench.quality.forward_filter import Forecast, ForwardFilter, Play
from tests.bench.quality.rows import COUNTING_CODE, Answers, Row

#: What the next play's hidden intent is called among the heads of a run.
HIDDEN_INTENT = "hidden intent"
ORACLE, TOLD = "oracle", "oracle, told the members' tastes"
ORACLE_CODE = (
    *COUNTING_CODE,
    "intentrec_core/kernels/dense.py",
    "intentrec_core/simulation",
    "tests/bench/quality/discovery.py",
    "tests/bench/quality/forward_filter.py",
    "tests/bench/quality/oracle.py",
)
_CHUNK = 512


def oracle_rows() -> list[Row]:
    """The oracle that infers tastes as a model has to, and the one that is told them."""
    return [
        Row(name, name, _answer(told=told), ORACLE_CODE, is_trained=True, data_sets=("world", "quick-world"))
        for name, told in ((ORACLE, False), (TOLD, True))
    ]


def _answer(*, told: bool) -> Callable[[Measured, Loaded, Protocol, int], Answers]:
    """It learns nothing, so protocols that ask for the same plays have one answer, which is made once in a sitting."""
    made: dict[tuple[str, bytes], Answers] = {}

    def answer(measured: Measured, loaded: Loaded, protocol: Protocol, _seed: int) -> Answers:
        asked = loaded.digest, protocol.test.targets.play.tobytes()
        if asked not in made:
            made[asked] = asked_anew(measured, loaded, protocol)
        return made[asked]

    def asked_anew(measured: Measured, loaded: Loaded, protocol: Protocol) -> Answers:
        oracle = Oracle(measured, loaded, told=told)
        ranked = rank(oracle, protocol.test)
        note = (
            f"mean log probability of the plays {oracle.log_probability:.4f}, {oracle.surprises} taken for impossible"
        )
        return Answers(ranked, note, {HIDDEN_INTENT: oracle.intents})

    return answer


class Oracle:
    """The oracle as a :class:`~intentrec_core.evaluation.rankers.Ranker`. ``intents``: what it said of the last task's.

    Raises: ValueError when the data are not those of the world.
    """

    def __init__(self, measured: Measured, loaded: Loaded, *, told: bool) -> None:
        self._seen = SeenWorld(measured, loaded)
        self._filter = ForwardFilter(self._seen.world, self._seen.end_ms, told=told)
        rows = loaded.vocabulary.item_ids[1:]
        self._number = np.array([self._seen.number(item_id) for item_id in rows])
        self.intents = HeadOutcomes.empty(0, 0)
        self.log_probability = 0.0

    @property
    def surprises(self) -> int:
        """How many plays it took for impossible."""
        return self._filter.surprises

    def scores(self, task: Task) -> Iterator[ScoredTargets]:
        """See :class:`~intentrec_core.evaluation.rankers.Ranker`: probabilities, 0 for row 0."""
        hidden = self._seen.hidden[task.targets.play]
        self.intents = HeadOutcomes.empty(len(task), len(self._seen.world.intents))
        self.intents.observed[np.arange(len(task)), hidden] = True
        self.intents.repeated[:] = hidden == self._seen.hidden[task.targets.play - 1]
        logs = np.zeros(len(task))
        which, scores = list[int](), list[NDArray[np.float32]]()
        for i, forecast in self.forecasts(task):
            self.intents.predicted[i] = forecast.intents.argmax()
            self.intents.confidence[i] = forecast.intents.max()
            of_rows = forecast.items[self._number]
            logs[i] = np.log(max(of_rows[task.targets.row[i] - 1], 1e-300))
            which.append(i)
            scores.append(np.concatenate([[0.0], of_rows]).astype(np.float32))
            if len(which) == _CHUNK:
                yield np.array(which), torch.from_numpy(np.stack(scores))
                which, scores = [], []
        if which:
            yield np.array(which), torch.from_numpy(np.stack(scores))
        self.log_probability = float(logs.mean())

    def forecasts(self, task: Task) -> Iterator[tuple[int, Forecast]]:
        """Each target of a task, and what the filter says of it: member by member."""
        members = task.data.members
        for member in np.unique(task.targets.member).tolist():
            begin, end = members.bounds[member : member + 2].tolist()
            targets = np.flatnonzero(task.targets.member == member)
            asked = np.isin(np.arange(begin, end), task.targets.play[targets])
            last = int(task.targets.play[targets[-1]]) + 1 - begin
            plays = [self._seen.play(int(place)) for place in range(begin, begin + last)]
            forecasts = self._filter.forecasts(self._seen.member(begin), plays, asked[:last].tolist())
            yield from zip(targets.tolist(), forecasts, strict=True)


class SeenWorld:
    """The plays of a simulated world, packed by member as the data set is. ``hidden`` i64[P]: the hidden intent of each.

    Raises: ValueError when the data set is not one of a simulated world.
    """

    def __init__(self, measured: Measured, loaded: Loaded) -> None:
        if measured.world is None:
            raise ValueError(f"{measured.title} is no simulated world")
        self.world = measured.world()
        plays, hidden = self.world.table(loaded.plays.num_rows)
        if not plays.equals(loaded.plays):
            raise ValueError(f"the plays of {measured.title} are not those of its world")
        packed = plays.take(loaded.data.members.order)
        self.hidden = np.array([self.world.intents.index(name) for name in hidden])[loaded.data.members.order]
        self.end_ms = int(plays.column("ts_ms")[-1].as_py())
        self._actions = {actions[0]: Move(move) for move, actions in enumerate(self.world.script.move_actions)}
        names = ("user_id", "item_id", "ts_ms", "action", "duration_s", "session_id")
        self._columns = {name: packed.column(name).to_pylist() for name in names}

    def member(self, place: int) -> int:
        """The number of the member of the play at a place."""
        return int(self._columns["user_id"][place].removeprefix("u"))

    def number(self, item_id: str) -> int:
        """The number of an item."""
        return int(item_id.removeprefix(self.world.script.item_prefix))

    def play(self, place: int) -> Play:
        """The play at a place."""
        end_ms, watched_s = self._columns["ts_ms"][place], self._columns["duration_s"][place]
        return Play(
            session=self._columns["session_id"][place],
            start_ms=end_ms - int(1000 * watched_s),
            end_ms=end_ms,
            item=self.number(self._columns["item_id"][place]),
            move=self._actions[self._columns["action"][place]],
            watched_s=watched_s,
        )
