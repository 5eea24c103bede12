"""The plays that a model has to predict, and the rules that apply to every ranker.

One object decides which items may be recommended, which of them are hidden because the member has watched them, and
which plays are misses for every ranker. The model and the references only supply scores.

Shapes: N targets, V item rows, w watched items kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.domain.spec import FilterKind
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.windows import Windows


@dataclass(frozen=True, slots=True)
class Targets:
    """Test plays of members with earlier plays.

    Shapes: play i64[N] indices into ``members.events``, row i64[N] item rows (0 unknown), member i64[N], all_rows
    i64[plays of all members], candidate bool[V] (never row 0).

    ``lifted`` bool[N]: plays for which the watched filter does not apply, because the member is predicted to continue
    an item.
    """

    members: MemberPlays
    play: NDArray[np.int64]
    all_rows: NDArray[np.int64]
    candidate: NDArray[np.bool_]
    lifted: NDArray[np.bool_]
    filter_watched: bool = True

    @property
    def row(self) -> NDArray[np.int64]:
        """Item rows of the targets."""
        return self.all_rows[self.play]

    @property
    def member(self) -> NDArray[np.int64]:
        """Member index of each target."""
        return self.members.member[self.play]

    def __len__(self) -> int:
        return len(self.play)

    def watched(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """Item rows that are hidden from the ranking of the targets ``which``: those of the last w plays before each, 0
        if there are fewer.

        Shapes: i64[n] -> i64[n, w].
        """
        if not self.filter_watched:
            return np.zeros((len(which), 0), dtype=np.int64)
        play = self.play[which]
        begin = self.members.bounds[self.members.member[play]]
        back = int(min(self.members.layout.watched, (play - begin).max(initial=0)))
        index = play[:, None] - np.arange(1, back + 1)[None, :]
        valid = (index >= begin[:, None]) & ~self.lifted[which][:, None]
        return np.where(valid, self.all_rows[np.maximum(index, 0)], 0)

    def ranks(self, which: NDArray[np.int64], scores: Tensor) -> NDArray[np.float64]:
        """Rank of each target's item among all candidates; inf if the item itself is not a candidate.

        Shapes: i64[n], f32[n, V] on any device (overwritten) -> f64[n].
        """
        device, inf = scores.device, float("-inf")
        scores.masked_fill_(torch.from_numpy(~self.candidate).to(device)[None], inf)
        scores.scatter_(1, torch.from_numpy(self.watched(which)).to(device), inf)
        own = scores.gather(1, torch.from_numpy(self.row[which]).to(device)[:, None])
        # A NaN score ranks above everything: a broken model must get a bad result.
        above, equal = (~(scores <= own)).sum(dim=1), (scores == own).sum(dim=1)
        rank = 1.0 + above.double() + (equal.double() - 1.0) / 2.0
        return torch.where(torch.isfinite(own[:, 0]), rank, torch.inf).cpu().numpy()


def make_targets(
    members: MemberPlays,
    windows: Windows,
    all_rows: NDArray[np.int64],
    candidate: NDArray[np.bool_],
    *,
    filter_watched: bool | None = None,
) -> Targets:
    """The targets of ``windows``. Only ``candidate`` rows (bool[V], row 0 never) are ranked.

    ``filter_watched``: None follows the domain's declaration, so that the evaluation uses the filter that is served.
    """
    if filter_watched is None:
        filter_watched = any(rule.kind is FilterKind.WATCHED for rule in members.layout.domain.filters)
    play = windows.targets()
    allowed = candidate.copy()
    allowed[0] = False
    return Targets(members, play, all_rows, allowed, np.zeros(len(play), dtype=np.bool_), filter_watched)
