"""The results of an evaluation, as plain values and as text. The caller decides how to print them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from intentrec_core.evaluation.metrics import Interval, Quality

INTENTREC = "IntentRec"
NO_INTENT = "without intent stage"
POPULAR_DAY = "popular in the last day"
POPULAR = "popular in the last 7 days"
POPULAR_MONTH = "popular in the last 30 days"
POPULAR_EVER = "popular of all time"
MARKOV_FIRST = "Markov, last play"
MARKOV = "Markov, last 5 plays"
MARKOV_WIDE = "Markov, pairs 5 apart"
MARKOV_FIRST_ONLINE = "Markov, last play, online"
MARKOV_ONLINE = "Markov, last 5, online"
MARKOV_WIDE_ONLINE = "Markov, 5 apart, online"


@dataclass(frozen=True, slots=True)
class RankerRow:
    """Results of one ranker. ``lift`` is how far IntentRec's NDCG@10 is above this ranker's (0.1 means 10 %); None for
    IntentRec itself.
    """

    name: str
    quality: Quality
    ndcg_at_10: Interval
    lift: Interval | None


@dataclass(frozen=True, slots=True)
class HeadRow:
    """Accuracy of one intent head, and the accuracy of always predicting the label that is most common in training."""

    name: str
    accuracy: Interval
    most_common: float
    num_plays: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole evaluation. ``unseen`` is the number of plays of items never seen in training, which are misses for
    every ranker.
    """

    cut_ms: int
    num_plays: int
    num_members: int
    num_new_members: int
    num_candidates: int
    unseen: int
    filtered: bool
    rankers: tuple[RankerRow, ...]
    heads: tuple[HeadRow, ...]

    def row(self, name: str) -> RankerRow:
        """The results of the ranker with this name.

        Raises: KeyError when there is none.
        """
        for row in self.rankers:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as text, line by line."""
        cut = datetime.fromtimestamp(self.cut_ms / 1000, UTC).isoformat(timespec="seconds")
        filtered = "watched items filtered" if self.filtered else "watched items not filtered"
        text = [
            f"test: {self.num_plays} plays from {cut} on, of {self.num_members} members ({self.num_new_members} new), "
            f"all {self.num_candidates} items ranked, {filtered}",
            f"{self.unseen} plays of items never seen in training count as misses; intervals: 95 %, bootstrap over members",
            f"{'':28} {'HR@10':>7} {'NDCG@10':>8} {'interval':>16} {'MRR':>7}   IntentRec is above it by (NDCG@10)",
        ]
        for row in self.rankers:
            q, i = row.quality, row.ndcg_at_10
            lift = (
                "" if row.lift is None else f"{row.lift.estimate:+.1%}  ({row.lift.low:+.1%} to {row.lift.high:+.1%})"
            )
            interval = f"{i.low:.4f}-{i.high:.4f}"
            text.append(
                f"{row.name:28} {q.hr_at_10:7.4f} {q.ndcg_at_10:8.4f} {interval:>16} {q.mrr:7.4f}   {lift}".rstrip()
            )
        for head in self.heads:
            i = head.accuracy
            text.append(
                f"intent {head.name:21} {i.estimate:7.4f}  ({i.low:.4f}-{i.high:.4f})   most common label: {head.most_common:.4f}"
            )
        return text


@dataclass(frozen=True, slots=True)
class ModelQuality:
    """Results of one model alone on a span of plays: the values that a gate compares."""

    quality: Quality
    accuracy: dict[str, float]
