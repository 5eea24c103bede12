"""Divides members' plays into the contexts used for training and evaluation, exactly as they are served.

After a member's k-th play the worker's context is plays [anchor(k), k), so play k (zero-based) is predicted from that
context. All k with the same anchor share a window, and a causal model predicts them in one pass:

    window 0:      plays [0, 2n]                 targets 1 … 2n
    window b > 0:  plays [b·n, (b + 2)·n]        targets (b + 1)·n + 1 … (b + 2)·n; earlier plays are only context

Every play except a member's first is the target of exactly one window, and is predicted there from exactly the context
that a worker would use.

Shapes: W windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.plays.members import MemberPlays

NEVER_MS = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows into ``members.events``.

    Shapes: start and stop i64[W] (plays [start, stop); the last one is only a target), first_target i64[W]: place in
    the window of the first play that is a target. All later plays of the window are targets too.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    first_target: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start)

    @property
    def num_targets(self) -> int:
        """Number of plays that are predicted, over all windows."""
        return int((self.stop - self.start - self.first_target).sum())

    def targets(self) -> NDArray[np.int64]:
        """Indices into ``members.events`` of all targets, window by window."""
        spans = [np.arange(s + f, e) for s, f, e in zip(self.start, self.first_target, self.stop, strict=True)]
        return np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)


def cut_windows(members: MemberPlays, *, from_ms: int = 0, until_ms: int = NEVER_MS) -> Windows:
    """The windows whose targets are all plays with ``from_ms`` <= event time < ``until_ms`` that have an earlier play.

    Plays before ``from_ms`` are only context. No window contains a play from ``until_ms`` on.
    """
    ts_ms = members.events["ts_ms"]
    wanted = (ts_ms >= from_ms) & (ts_ms < until_ms)
    wanted[members.bounds[:-1]] = False
    return windows_of(members, np.flatnonzero(wanted))


def windows_of(members: MemberPlays, play: NDArray[np.int64]) -> Windows:
    """The windows whose targets are exactly these plays: ascending indices into ``members.events``, none a member's first.

    Plays that follow each other and have the same anchor share a window. Shape: i64[N].
    """
    if not len(play):
        return Windows(*np.zeros((3, 0), dtype=np.int64))
    begin = members.bounds[members.member[play]]
    start = begin + anchors(play - begin, members.layout.window)
    opens = np.ones(len(play), dtype=np.bool_)
    opens[1:] = (play[1:] != play[:-1] + 1) | (start[1:] != start[:-1])
    first = np.flatnonzero(opens)
    last = np.append(first[1:], len(play)) - 1
    return Windows(start=start[first], stop=play[last] + 1, first_target=play[first] - start[first])


def anchors(count: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """:func:`~intentrec_core.history.history.anchor` of many counts."""
    return np.maximum(0, ((count - 1) // window - 1) * window)
