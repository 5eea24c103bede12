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
    ``filter_watched``: items that the member has played are hidden: those of the last w plays, as a worker hides them, or with
    ``whole_history`` those of all earlier plays. ``hidden_score`` is the score that a hidden item gets. Published code that
    sets it to 0 leaves hidden items above all items with negative scores.
    """

    members: MemberPlays
    play: NDArray[np.int64]
    all_rows: NDArray[np.int64]
    candidate: NDArray[np.bool_]
    lifted: NDArray[np.bool_]
    filter_watched: bool = True
    whole_history: bool = False
    hidden_score: float = float("-inf")

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
        """Item rows that are hidden from the ranking of the targets ``which``, 0 where there are fewer than of another.

        Shapes: i64[n] -> i64[n, w], or as many as the longest history has.
        """
        if not self.filter_watched:
            return np.zeros((len(which), 0), dtype=np.int64)
        play = self.play[which]
        begin = self.members.bounds[self.members.member[play]]
        back = int((play - begin).max(initial=0))
        if not self.whole_history:
            back = min(back, self.members.layout.watched)
        index = play[:, None] - np.arange(1, back + 1)[None, :]
        valid = (index >= begin[:, None]) & ~self.lifted[which][:, None]
        return np.where(valid, self.all_rows[np.maximum(index, 0)], 0)

    def ranks(self, which: NDArray[np.int64], scores: Tensor) -> NDArray[np.float64]:
        """Rank of each target's item among all candidates; inf if the item itself is not a candidate.

        Shapes: i64[n], f32[n, V] on any device (overwritten) -> f64[n].
        """
        self._hide(which, scores)
        own = scores.gather(1, torch.from_numpy(self.row[which]).to(scores.device)[:, None])
        # A NaN score ranks above everything: a broken model must get a bad result.
        above, equal = (~(scores <= own)).sum(dim=1), (scores == own).sum(dim=1)
        rank = 1.0 + above.double() + (equal.double() - 1.0) / 2.0
        return torch.where(torch.isfinite(own[:, 0]), rank, torch.inf).cpu().numpy()

    def ranked(
        self, which: NDArray[np.int64], scores: Tensor, num_listed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """:meth:`ranks`, and the first ``num_listed`` items of each list: best first, 0 where no candidate is left.

        Items with equal scores stand in the list in the order of their rows.
        Shapes: i64[n], f32[n, V] (overwritten) -> f64[n], i64[n, num_listed].
        """
        ranks = self.ranks(which, scores)
        best, row = scores.topk(min(num_listed, scores.shape[1]), dim=1)
        listed = torch.where(torch.isneginf(best), 0, row).cpu().numpy()
        return ranks, np.pad(listed, ((0, 0), (0, num_listed - listed.shape[1])))

    def _hide(self, which: NDArray[np.int64], scores: Tensor) -> None:
        device = scores.device
        scores.scatter_(1, torch.from_numpy(self.watched(which)).to(device), self.hidden_score)
        scores.masked_fill_(torch.from_numpy(~self.candidate).to(device)[None], float("-inf"))


def make_targets(
    members: MemberPlays,
    windows: Windows,
    all_rows: NDArray[np.int64],
    candidate: NDArray[np.bool_],
    *,
    filter_watched: bool | None = None,
    whole_history: bool = False,
) -> Targets:
    """The targets of ``windows``. Only ``candidate`` rows (bool[V], row 0 never) are ranked.

    ``filter_watched``: None follows the domain's declaration, so that the evaluation uses the filter that is served.
    """
    if filter_watched is None:
        filter_watched = any(rule.kind is FilterKind.WATCHED for rule in members.layout.domain.filters)
    play = windows.targets()
    allowed = candidate.copy()
    allowed[0] = False
    return Targets(members, play, all_rows, allowed, np.zeros(len(play), dtype=np.bool_), filter_watched, whole_history)
