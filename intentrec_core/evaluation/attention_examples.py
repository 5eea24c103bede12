"""What the model looked at: for some members, how much attention each of their plays got when the next one was predicted, and how
much each intent weighed (the paper's Figure 7).

Shapes: B contexts, T plays, H attention heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.features.context_batch import collate
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.attention import FullAttend
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.batches import WindowBatches
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.windows import windows_of

#: So many of the newest plays are shown; the attention of all older ones is added up.
MAX_PLAYS = 12


@dataclass(frozen=True, slots=True)
class AttendedPlay:
    """A play that the model could look at, how long before the list it was, and its share of the attention."""

    title: str
    seconds_before: float
    attention: float


@dataclass(frozen=True, slots=True)
class IntentAtPlay:
    """What one head said: how much it weighed (alpha), its likeliest labels with their probabilities, and the labels that were
    observed next.
    """

    head: str
    weight: float
    likeliest: tuple[tuple[str, float], ...]
    observed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttentionExample:
    """A member at one moment. ``plays``: the newest, newest first; ``older``: how many more, and their share of the attention.
    ``listed``: the first titles of the list. ``rank``: of the item that was played next; None where it was not ranked.
    """

    user_id: str
    cluster: str
    plays: tuple[AttendedPlay, ...]
    older: tuple[int, float]
    intents: tuple[IntentAtPlay, ...]
    listed: tuple[str, ...]
    next_title: str
    rank: float | None


class RecordingAttend(FullAttend):
    """Full attention that keeps the probabilities of each layer: f32[B, H, T, T]."""

    def __init__(self, ts_s: Tensor, short_term_window_s: float) -> None:
        super().__init__(ts_s, short_term_window_s)
        self.probabilities: dict[int, Tensor] = {}

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """See :class:`~intentrec_core.model.attention.Attend`."""
        score = torch.einsum("bthd,bshd->bhts", q_BTHD, k_BTHD) * q_BTHD.shape[-1] ** -0.5
        self.probabilities[layer] = torch.softmax(score + self._geometry.bias(layer, slopes_2H), dim=-1)
        return super().__call__(layer, q_BTHD, k_BTHD, v_BTHD, slopes_2H)


@torch.no_grad()
def newest_attention(model: IntentRec, features: FeatureBuilder, context: bytes) -> NDArray[np.float64]:
    """The share of attention that each play of a context gets at its newest one, as in :func:`attention_example`.

    Shape: f64[T], oldest first; the sum is 1.
    """
    model.eval()
    batch = collate(features.columns([context], [0])).to(model.device)
    attend = RecordingAttend(batch.ts_s, model.domain.short_term_window_s)
    model(batch, attend)
    return _share(attend, batch.item_row.shape[1] - 1)


@torch.no_grad()
def attention_example(
    model: IntentRec,
    features: FeatureBuilder,
    members: MemberPlays,
    play: int,
    *,
    titles: Sequence[str],
    cluster: str,
    listed: NDArray[np.int64],
    rank: float,
) -> AttentionExample:
    """What the model looked at when it predicted ``play`` (an index into the members' plays, not a member's first).

    The attention is that of the last layer of the item encoder, at the newest play, as a mean over its attention heads.
    """
    model.eval()
    windows = windows_of(members, np.array([play]))
    batch = next(WindowBatches(features, members, windows).ordered(1)).to(model.device)
    attend = RecordingAttend(batch.context.ts_s, model.domain.short_term_window_s)
    output = model(batch.context, attend)
    row, ts_s = batch.context.item_row[0].cpu().numpy(), batch.context.ts_s[0].cpu().numpy()
    last = len(row) - 2  # the play before the one that is predicted
    share = _share(attend, last)
    shown = range(last, max(-1, last - MAX_PLAYS), -1)
    num_older = last + 1 - len(shown)
    truth = model.head_targets(batch.context)
    intents = []
    for number, head in enumerate(model.domain.heads if model.config.intent_stage else ()):
        probability = torch.softmax(output.head_logits[number][0, last], dim=-1).double().cpu().numpy()
        names, best = head.label_names, np.argsort(-probability, kind="stable")[:3]
        observed = np.flatnonzero(truth[number][0, last + 1].cpu().numpy() > 0)
        intents.append(
            IntentAtPlay(
                head=head.name,
                weight=float(output.alpha_BTM[0, last, number]),
                likeliest=tuple((names[i], float(probability[i])) for i in best),
                observed=tuple(names[i] for i in observed),
            )
        )
    return AttentionExample(
        user_id=members.user_ids[int(members.member[play])],
        cluster=cluster,
        plays=tuple(AttendedPlay(_title(titles, row[i]), float(ts_s[last] - ts_s[i]), float(share[i])) for i in shown),
        older=(num_older, float(share[:num_older].sum())),
        intents=tuple(intents),
        listed=tuple(titles[i] for i in listed.tolist() if i),
        next_title=_title(titles, row[last + 1]),
        rank=float(rank) if np.isfinite(rank) else None,
    )


def _share(attend: RecordingAttend, last: int) -> NDArray[np.float64]:
    """The attention of the last layer at place ``last`` of the one context, as a mean over its attention heads."""
    of_heads = attend.probabilities[max(attend.probabilities)][0, :, last, : last + 1]
    share: NDArray[np.float64] = of_heads.mean(dim=0).double().cpu().numpy()
    return share


def _title(titles: Sequence[str], row: int) -> str:
    return titles[row] if row else "an item that the model does not know"
