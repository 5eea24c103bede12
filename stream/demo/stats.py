"""The demo's statistics: metrics scraped from worker and trainer, combined with the counts of an independent observer.

worker /metrics ─┐
trainer /metrics ┼─▶ DemoStats ─▶ DemoSnapshot (screen), DemoResult (one JSON object)
observer ────────┘
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from stream.demo.console.snapshot import DemoPhase, DemoSnapshot, LiveQuality, ServedBundle, Weights
from stream.ops.scrape import Samples

if TYPE_CHECKING:
    from stream.demo.console.spotlight import Spotlight
    from stream.demo.observer import Observer
    from stream.kafka.replay import Replay

_RATE_SPAN_S = 5.0
_NUM_RATES = 60
#: Every outcome of a play: once their sum equals the plays sent, the worker has drained.
_HANDLED = ("intentrec_plays_total", "intentrec_plays_rejected_total")


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON object that `intentrec demo --json` prints.

    Units: ``p50_ms`` and ``p99_ms`` are milliseconds from sending a play to the arrival of its recommendation.
    """

    plays_sent: int
    plays_applied: int
    recommendations: int
    intents: int
    dead_lettered: int
    duplicates: int
    p50_ms: float | None
    p99_ms: float | None
    hr_at_10: float | None
    hr_at_10_popular: float | None
    hr_at_10_markov: float | None
    intent_accuracy: dict[str, float]
    bundles_published: int
    bundles_swapped: int
    bundle_versions: list[str]


@dataclass
class DemoStats:
    """Combines scrapes of one worker and one trainer with the observer's counts into snapshots and the final result."""

    observer: Observer
    replay: Replay
    spotlight: Spotlight
    title: str
    first_bundle: str
    planned_s: float | None
    plays_planned: int
    clock: Callable[[], float] = time.monotonic
    phase: DemoPhase = DemoPhase.REPLAYING
    worker: Samples = field(default_factory=Samples)
    trainer: Samples = field(default_factory=Samples)
    started_s: float | None = None
    _elapsed_s: float = 0.0
    _sent: deque[tuple[float, int]] = field(default_factory=deque)
    _rates: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_RATES))
    #: By metric and bundle. The worker drops the series of old bundles: their last values are kept here.
    _judged: dict[str, dict[str, float]] = field(default_factory=dict)

    def take(self, worker: Samples | None, trainer: Samples | None) -> None:
        """Records a scrape of each process; None (no answer) keeps the previous scrape."""
        self.worker = worker or self.worker
        self.trainer = trainer or self.trainer
        for name in _JUDGED:
            self._judged.setdefault(name, {}).update(self.worker.by(name, "bundle"))
        now_s = self.clock()
        if self.started_s is not None and self.phase is DemoPhase.REPLAYING:
            self._elapsed_s = now_s - self.started_s
        self._sent.append((now_s, self.replay.sent))
        while len(self._sent) > 2 and now_s - self._sent[0][0] > _RATE_SPAN_S:
            self._sent.popleft()
        self._rates.append(self.plays_per_s)

    @property
    def plays_per_s(self) -> float:
        """Plays acknowledged per second, over the last 5 s."""
        (from_s, first), (until_s, last) = self._sent[0], self._sent[-1]
        return (last - first) / (until_s - from_s) if until_s > from_s else 0.0

    @property
    def handled(self) -> int:
        """Plays whose outcome the worker has counted."""
        return int(sum(self.worker.total(name) for name in _HANDLED))

    @property
    def applied(self) -> int:
        """Plays folded into a history."""
        return int(self.worker.total("intentrec_plays_total", outcome="applied"))

    def quality(self) -> LiveQuality:
        """The worker's running quality metrics, over all bundles."""
        judged = self._judged_total("intentrec_judged_plays_total")
        if not judged:
            return LiveQuality()
        judged_intents = self.worker.by("intentrec_judged_intents_total", "head")
        right = self.worker.by("intentrec_judged_intents_right_total", "head")
        common = self.worker.by("intentrec_judged_popular_intents_right_total", "head")
        return LiveQuality(
            num_judged=int(judged),
            hr_at_10=self._judged_total("intentrec_judged_hits_total") / judged,
            hr_at_10_popular=self._judged_total("intentrec_judged_popular_hits_total") / judged,
            hr_at_10_markov=self._judged_total("intentrec_judged_markov_hits_total") / judged,
            mrr=self._judged_total("intentrec_judged_reciprocal_ranks_total") / judged,
            intents={
                head: (right.get(head, 0.0) / number, common[head] / number if head in common else None)
                for head, number in judged_intents.items()
                if number
            },
        )

    def weights(self) -> Weights:
        """The serving bundle, and the bundles that served before it."""
        serving = self._serving()
        created_s = self.worker.total("intentrec_bundle_created_timestamp_seconds")
        judged = self._judged.get("intentrec_judged_plays_total", {})
        refused = self.worker.by("intentrec_bundle_rejections_total", "reason")
        runs = self.trainer.by("intentrec_trainer_runs_total", "outcome")
        outcomes = [f"{int(number)} {outcome}" for outcome, number in runs.items() if number]
        logged = int(self.trainer.total("intentrec_trainer_logged_plays_total"))
        return Weights(
            version=serving[0] if serving else "",
            age_s=time.time() - created_s if created_s else 0.0,
            num_published=self.published,
            num_swapped=self.swapped,
            refused={reason: int(count) for reason, count in refused.items() if count},
            served=tuple(self._served(bundle, number) for bundle, number in judged.items() if number),
            trainer=f"trainer: {logged:,} plays logged · runs: {', '.join(outcomes) or 'none yet'}",
        )

    @property
    def published(self) -> int:
        """Bundles announced after the first one."""
        return sum(announced.bundle != self.first_bundle for announced in self.observer.announcements)

    @property
    def swapped(self) -> int:
        """Bundles that the worker has swapped in for another one."""
        return int(self.worker.total("intentrec_bundle_swaps_total"))

    @property
    def refused(self) -> int:
        """Announced bundles that the worker refused."""
        return int(self.worker.total("intentrec_bundle_rejections_total"))

    def snapshot(self) -> DemoSnapshot:
        """The current state for the screen."""
        newest_ms = self.replay.last_ts_ms
        observer = self.observer
        return DemoSnapshot(
            title=self.title,
            phase=self.phase,
            elapsed_s=self._elapsed_s,
            planned_s=self.planned_s,
            plays_planned=self.plays_planned,
            plays_sent=self.replay.sent,
            plays_applied=self.applied,
            plays_per_s=self.plays_per_s if self._sent else 0.0,
            rates=tuple(self._rates),
            event_time="" if newest_ms is None else f"{datetime.fromtimestamp(newest_ms / 1000, UTC):%-d %b %Y %H:%M}",
            p50_s=observer.live_latency.quantile_s(0.5),
            p99_s=observer.live_latency.quantile_s(0.99),
            recommendations=observer.recommendations.fresh,
            intents=observer.intents.fresh,
            dead_lettered=observer.dead_lettered,
            duplicates=int(self.worker.total("intentrec_plays_total", outcome="duplicate")),
            quality=self.quality(),
            weights=self.weights(),
            members=self.spotlight.members(),
        )

    def result(self) -> DemoResult:
        """The statistics of the whole run."""
        quality, observer = self.quality(), self.observer
        p50_s, p99_s = observer.latency.quantile_s(0.5), observer.latency.quantile_s(0.99)
        return DemoResult(
            plays_sent=self.replay.sent,
            plays_applied=self.applied,
            recommendations=observer.recommendations.fresh,
            intents=observer.intents.fresh,
            dead_lettered=observer.dead_lettered,
            duplicates=int(self.worker.total("intentrec_plays_total", outcome="duplicate")),
            p50_ms=None if p50_s is None else round(p50_s * 1000, 2),
            p99_ms=None if p99_s is None else round(p99_s * 1000, 2),
            hr_at_10=_rounded(quality.hr_at_10),
            hr_at_10_popular=_rounded(quality.hr_at_10_popular),
            hr_at_10_markov=_rounded(quality.hr_at_10_markov),
            intent_accuracy={head: round(ours, 4) for head, (ours, _) in quality.intents.items()},
            bundles_published=self.published,
            bundles_swapped=self.swapped,
            # A bundle that took over after the last play has answered no play.
            bundle_versions=list(dict.fromkeys([*observer.bundles_seen, *self._serving()])),
        )

    def _serving(self) -> list[str]:
        return [bundle for bundle, value in self.worker.by("intentrec_bundle_info", "bundle").items() if value]

    def _judged_total(self, name: str) -> float:
        return sum(self._judged.get(name, {}).values())

    def _served(self, bundle: str, judged: float) -> ServedBundle:
        return ServedBundle(
            version=bundle,
            num_judged=int(judged),
            hr_at_10=self._judged["intentrec_judged_hits_total"].get(bundle, 0.0) / judged,
            hr_at_10_popular=self._judged["intentrec_judged_popular_hits_total"].get(bundle, 0.0) / judged,
            hr_at_10_markov=self._judged["intentrec_judged_markov_hits_total"].get(bundle, 0.0) / judged,
        )


_JUDGED = (
    "intentrec_judged_plays_total",
    "intentrec_judged_hits_total",
    "intentrec_judged_popular_hits_total",
    "intentrec_judged_markov_hits_total",
    "intentrec_judged_reciprocal_ranks_total",
)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
