"""Groups the plays given to a live encoder into runs: what is encoded in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from intentrec_core.engine.engine import EncodeRequest
from intentrec_core.engine.live_play import LiveOutcome
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.history.history import EventLayout, History, Outcome

#: There are no partitions in a live encoder, and a member's key has one.
_PARTITION = 0


def live_key(user_id: str) -> MemberKey:
    """The key of a member of a live encoder."""
    return MemberKey(_PARTITION, user_id)


@dataclass(slots=True)
class LiveRun:
    """One member's context, encoded once, with outputs for its last ``num_outputs`` plays: in the ``wave``-th engine call."""

    member: MemberKey
    wave: int
    anchor: int
    context: bytes
    num_plays: int
    first_changed: int
    evicted_items: bytes
    num_outputs: int = 1
    first_row: int = -1

    def request(self) -> EncodeRequest:
        """The run as the engine takes it."""
        return EncodeRequest(self.member, self.anchor, self.context, self.first_changed, self.num_outputs)


class Place(NamedTuple):
    """Where the answer to a play stands: output ``nth`` of a run."""

    run: LiveRun
    nth: int
    outcome: LiveOutcome


class LiveRuns:
    """Folded plays grouped into runs, so that a member's plays are encoded in one pass where they can be.

    Appended plays extend a run. An inserted play, or one that moves the anchor, starts a new run, because cached positions
    change. The n-th run of a member is in wave n, and a wave is one engine call.
    """

    def __init__(self, layout: EventLayout) -> None:
        self._layout = layout
        self._waves: list[list[LiveRun]] = []
        self._open: dict[str, LiveRun] = {}

    def take(self, user_id: str, history: History, outcome: Outcome, position: int, evicted: int) -> Place:
        """Adds a play that was just folded into its member's history."""
        run = self._open.get(user_id)
        if not outcome.changed:
            # Nothing changed: repeat the current answer.
            said = LiveOutcome.DUPLICATE if outcome is Outcome.DUPLICATE else LiveOutcome.LATE
            run = run or self._begin(user_id, history, history.num_events(self._layout))
            return Place(run, run.num_outputs - 1, said)
        if run is None or outcome is not Outcome.APPENDED or evicted:
            run = self._begin(user_id, history, 0 if evicted else position)
        else:
            run.context, run.num_plays = history.events, run.num_plays + 1
            run.num_outputs += 1
        return Place(run, run.num_outputs - 1, LiveOutcome.APPLIED)

    def waves(self) -> Iterator[list[LiveRun]]:
        """The runs of each engine call; each run learns where its outputs stand."""
        for wave in self._waves:
            row = 0
            for run in wave:
                run.first_row = row
                row += run.num_outputs
            yield wave

    def _begin(self, user_id: str, history: History, first_changed: int) -> LiveRun:
        before = self._open.get(user_id)
        run = LiveRun(
            member=live_key(user_id),
            wave=0 if before is None else before.wave + 1,
            anchor=history.anchor(self._layout),
            context=history.events,
            num_plays=history.num_events(self._layout),
            first_changed=first_changed,
            evicted_items=history.evicted_items,
        )
        if run.wave == len(self._waves):
            self._waves.append([])
        self._waves[run.wave].append(run)
        self._open[user_id] = run
        return run
